"""The manifest of a curated dataset: what each frame is, and which split it belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import (
    AfterValidator,
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


def _is_below(path: str) -> str:
    """Refuse a path that could lead out of the folder that it is relative to."""
    if "\0" in path or any(part in ("", ".", "..") for part in path.split("/")):
        raise ValueError(f"{path!r} is not a plain path below the dataset's folder")
    return path


RelativePath = Annotated[str, Field(max_length=1000), AfterValidator(_is_below)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Text = Annotated[str, Field(min_length=1, max_length=1000)]


class FrameRecord(BaseModel):
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
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: RelativePath
    image: RelativePath
    mask: RelativePath | None = None
    negative: bool = False
    group: Text
    split: Split
    source: Text
    image_sha256: Sha256 | None = None
    mask_sha256: Sha256 | None = None

    @property
    def labelled(self) -> bool:
        """Whether it is known where the polyps are, or that there are none."""
        return self.negative or self.mask is not None


class Manifest(BaseModel):
    """What a curated dataset says of itself.

    Attributes
    ----------
    format : str
        What kind of file this is, always "microaunet-dataset".
    version : int
        Of the format: 1.
    name : str
        The name of the dataset.
    frames : tuple of FrameRecord
        At least one. Names differ, and every group is in one split only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal["microaunet-dataset"] = "microaunet-dataset"
    version: Literal[1] = 1
    name: Text
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
        file.write(manifest.model_dump_json(indent=1).encode())
