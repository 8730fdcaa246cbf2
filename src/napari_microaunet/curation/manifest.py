"""The manifest of a curated dataset: what each frame is, and which split it belongs to."""

from __future__ import annotations

import json
import os
import re
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from napari_microaunet.atomic import replacing
from napari_microaunet.errors import InputError, first_problem

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST_NAME = "manifest.json"

Split = Literal["training", "validation", "test"]
SPLITS: tuple[Split, ...] = ("training", "validation", "test")
Blanked = Literal["outside the field of view", "position marker", "boxes", "metadata"]


def _is_below(path: str) -> str:
    """Refuse a path that could lead out of the folder that it is relative to."""
    parts = path.replace(os.sep, "/").split("/")
    if "\0" in path or PurePath(path).drive or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"{path!r} is not a plain path below the dataset's folder")
    return path


def _is_pattern(text: str) -> str:
    """Refuse what is no regular expression."""
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is no regular expression: {error}") from error
    return text


RelativePath = Annotated[str, Field(max_length=1000), AfterValidator(_is_below)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Text = Annotated[str, Field(min_length=1, max_length=1000)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Prelabel(_Record):
    """The model that the annotator began with.

    Attributes
    ----------
    model : str
        Its name.
    card_sha256 : str or None
        The hash on its card.
    threshold : float or None
        Probability from which on a pixel was polyp, in [0, 1].
    confidence : float or None
        How far the pre-label could be trusted, in [0, 1].
    disagreement : float or None
        How far a second model differed, in [0, 1].
    """

    model: Text
    card_sha256: Sha256 | None = None
    threshold: Share | None = None
    confidence: Share | None = None
    disagreement: Share | None = None


class Annotation(_Record):
    """How the labels of a frame came about.

    Attributes
    ----------
    state : {"unseen", "prelabelled", "edited", "accepted"}
        How far the review had come when the frame was written.
    origin : {"none", "model", "propagated", "file", "hand"}
        Who made the mask.
    annotator : str or None
        Who accepted or changed it last.
    accepted, changed, written : datetime or None
        When it was accepted, changed last, and written to the dataset, with a time zone.
    prelabel : Prelabel or None
        The model that it began with.
    seconds, seconds_editing : float
        How long the frame was looked at, and edited.
    strokes : int
        Strokes and other edits.
    changed_pixels : int or None
        Pixels that differ between the mask at the start and this one.
    merged_from : str or None
        For a mask that was reconciled: what was taken of two annotators' masks.
    """

    state: Literal["unseen", "prelabelled", "edited", "accepted"]
    origin: Literal["none", "model", "propagated", "file", "hand"]
    annotator: Text | None = None
    accepted: AwareDatetime | None = None
    changed: AwareDatetime | None = None
    written: AwareDatetime | None = None
    prelabel: Prelabel | None = None
    seconds: Seconds = 0.0
    seconds_editing: Seconds = 0.0
    strokes: Count = 0
    changed_pixels: Count | None = None
    merged_from: Text | None = None


class FrameRecord(_Record):
    """What a manifest says of one frame.

    Attributes
    ----------
    name : str
        Unique in the dataset, also where case does not count; with forward slashes.
    image : str
        The file that holds the frame, relative to the dataset's folder, with forward slashes.
        Frames of one video or stack share it.
    mask : str or None
        The file with its labels (`frames.masks.read_mask_file`), likewise.
    negative : bool
        Whether the frame is known to show no polyp, so that it needs no mask.
    group : str
        Frames that resemble each other, and so must not be in different splits: a video,
        a patient, a cluster of near-duplicates.
    split : {"training", "validation", "test"}
        What the frame is used for.
    source : str
        The set that the frame comes from, such as "kvasir-seg".
    image_sha256, mask_sha256 : str or None
        Hashes of the two files, in hexadecimal; None where there is no such file, or where it
        could not be read.
    original_sha256 : str or None
        Hash of the file that the frame was taken from, or of its pixels where that file holds
        several frames. It tells whether another frame is the same one.
    height, width : int or None
        Native size, in pixels.
    polyp_pixels, ignored_pixels : int or None
        What the mask comes to.
    annotation : Annotation or None
        How the labels came about.
    blanked : tuple of str
        What was taken out of the frame so that nobody can be recognised.
    """

    name: RelativePath
    image: RelativePath
    mask: RelativePath | None = None
    negative: bool = False
    group: Text
    split: Split
    source: Text
    image_sha256: Sha256 | None = None
    mask_sha256: Sha256 | None = None
    original_sha256: Sha256 | None = None
    height: Positive | None = None
    width: Positive | None = None
    polyp_pixels: Count | None = None
    ignored_pixels: Count | None = None
    annotation: Annotation | None = None
    blanked: tuple[Blanked, ...] = ()

    @property
    def labelled(self) -> bool:
        """Whether it is known where the polyps are, or that there are none."""
        return self.negative or self.mask is not None


class Manifest(_Record):
    """What a curated dataset says of itself.

    Attributes
    ----------
    format : str
        What kind of file this is, always "microaunet-dataset".
    version : int
        Of the format. Version 1 knew of a frame no more than its files, group, split and source.
    name : str
        The name of the dataset.
    group_patterns : tuple of str
        Regular expressions that have found the groups of frames in their names; they find those of
        frames that come later, too.
    frames : tuple of FrameRecord
        At least one. Names differ, and every group is in one split only.
    """

    format: Literal["microaunet-dataset"] = "microaunet-dataset"
    version: Literal[1, 2] = 2
    name: Text
    group_patterns: tuple[Annotated[Text, AfterValidator(_is_pattern)], ...] = ()
    frames: Annotated[tuple[FrameRecord, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names: set[str] = set()
        for frame in self.frames:
            if frame.name.casefold() in names:
                raise ValueError(f"the name {frame.name!r} is given to two frames")
            names.add(frame.name.casefold())
        return self

    @model_validator(mode="after")
    def _groups_are_in_one_split(self) -> Self:
        splits: dict[str, Split] = {}
        for frame in self.frames:
            split = splits.setdefault(frame.group, frame.split)
            if split != frame.split:
                raise ValueError(f"the group {frame.group!r} is in {split} and in {frame.split}")
        return self


def read_manifest(path: Path) -> Manifest:
    """Read a manifest.

    Parameters
    ----------
    path : Path
        A JSON file.

    Returns
    -------
    Manifest

    Raises
    ------
    InputError
        If the file is missing or does not describe a dataset.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: the manifest cannot be read ({error.strerror}); check the path."
        ) from error
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        raise InputError(
            f"{path}: this is no manifest of a dataset ({first_problem(error)}); correct it, or "
            "take it away to open the folder as plain images and masks."
        ) from error


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write a manifest as JSON; the file appears complete or not at all.

    Parameters
    ----------
    path : Path
        The target, in a folder that exists; a file that is there is replaced.
    manifest : Manifest
        What `read_manifest` gives back.
    """
    with replacing(path) as file:
        file.write(manifest.model_dump_json(indent=1, exclude_none=True).encode())


def manifest_schema() -> str:
    """Describe manifests as a JSON schema, as published in docs/manifest.schema.json."""
    schema: dict[str, Any] = Manifest.model_json_schema()
    return json.dumps(schema, indent=1) + "\n"
