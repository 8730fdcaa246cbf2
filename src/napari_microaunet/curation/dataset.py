"""What training reads: a folder with a manifest, or whatever frames and masks lie in."""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from pydantic import ValidationError

from napari_microaunet.curation.groups import find_groups, lies_among_negatives, root_of
from napari_microaunet.curation.manifest import (
    MANIFEST_NAME,
    FrameRecord,
    Manifest,
    read_manifest,
)
from napari_microaunet.curation.splits import place_of, split_groups
from napari_microaunet.editing.labels import polyps_in
from napari_microaunet.errors import InputError, first_problem
from napari_microaunet.frames import open_frames
from napari_microaunet.frames.folder import ImageFiles
from napari_microaunet.frames.masks import IGNORE, read_mask_file
from napari_microaunet.frames.sequence import UnreadableError, unicode_name
from napari_microaunet.frames.sources import absolute

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_microaunet.curation.manifest import Split
    from napari_microaunet.frames import FieldOfView, FrameSequence

_Read = TypeVar("_Read")


@dataclass(frozen=True, eq=False)
class CuratedDataset:
    """Frames with masks, groups and a split.

    Reading is safe from several threads at once.

    Attributes
    ----------
    path : Path
        What was opened.
    sequence : FrameSequence
        The frames, in the order of the manifest. Negative frames need not have a mask in it.
    manifest : Manifest
        What is known of them. Written elsewhere and given to `open_dataset` again, it keeps
        frames and split as they are now.
    """

    path: Path
    sequence: FrameSequence
    manifest: Manifest

    @property
    def name(self) -> str:
        """What the dataset is called."""
        return self.manifest.name

    @property
    def frames(self) -> tuple[FrameRecord, ...]:
        """What is known of each frame."""
        return self.manifest.frames

    @property
    def problems(self) -> dict[str, str]:
        """Frames known to be unreadable, by name, and why; grows as they are met."""
        return {
            self.frames[index].name: problem
            for index, problem in sorted(self.sequence.problems.items())
        }

    @property
    def groups(self) -> dict[str, str]:
        """The group of each frame, by the frame's name."""
        return {frame.name: frame.group for frame in self.frames}

    def indices(self, split: Split, *, labelled: bool = False) -> list[int]:
        """List the frames of one split, or the labelled ones alone, by their numbers from 0."""
        return [
            index
            for index, frame in enumerate(self.frames)
            if frame.split == split and (frame.labelled or not labelled)
        ]

    def held_out_indices(self) -> list[int]:
        """List the labelled test frames, or those for validation where the former show no polyp."""
        test = self.indices("test", labelled=True)
        shows_polyp = any(map(self._shows_polyp, test))
        return test if shows_polyp else self.indices("validation", labelled=True)

    def read(self, index: int) -> NDArray[np.uint8]:
        """Read a frame; see `FrameSequence.read`."""
        return self.sequence.read(index)

    def field_of_view(self, index: int) -> FieldOfView:
        """Find the field of view of a frame; see `FrameSequence.field_of_view`."""
        return self.sequence.field_of_view(index)

    def mask(self, index: int) -> NDArray[np.uint8] | None:
        """Read the labels of a frame.

        Parameters
        ----------
        index : int
            Number of the frame, from 0.

        Returns
        -------
        uint8 array, shape (height, width), or None
            At the frame's native size: 0 background, 1..n polyps, 255 ignore. All 0 for
            a frame that is known to be negative; None where nobody has said.

        Raises
        ------
        InputError
            If the mask cannot be read or differs from the frame in size.
        """
        if self.frames[index].mask is not None:
            return self.sequence.read_mask(index)
        if self.frames[index].negative:
            frame = self.sequence.frames[index]
            return np.zeros((frame.height, frame.width), np.uint8)
        return None

    def _shows_polyp(self, index: int) -> bool:
        """Tell whether a labelled frame's mask, where it can be read, holds a polyp."""
        try:
            mask = self.mask(index)
        except InputError:
            return False
        return mask is not None and bool(polyps_in(mask).any())

    def digests(self, index: int) -> set[str]:
        """Return what a frame is recognised by elsewhere: hashes of its file and its original."""
        frame = self.frames[index]
        return {digest for digest in (frame.image_sha256, frame.original_sha256) if digest}

    def changed_frames(self, cancelled: Callable[[], bool] | None = None) -> list[str]:
        """List frames whose image or mask file is not what the manifest says it was.

        Parameters
        ----------
        cancelled : callable, optional
            Asked after every file.

        Returns
        -------
        list of str
            Their names, in the order of the manifest. Files without a hash in it are passed over.

        Raises
        ------
        CancelledError
            If `cancelled` says so.
        """
        return [
            before.name
            for before, now in zip(self.frames, self.as_it_is(cancelled).frames, strict=True)
            if before != now
        ]

    def as_it_is(self, cancelled: Callable[[], bool] | None = None) -> CuratedDataset:
        """Return this dataset with the hashes of its files as they are now.

        Parameters
        ----------
        cancelled : callable, optional
            Asked after every file.

        Returns
        -------
        CuratedDataset
            Files without a hash in the manifest go on without one; those that are gone have none.

        Raises
        ------
        CancelledError
            If `cancelled` says so.
        """
        root = root_of(self.path)
        hashed = [
            (number, field, root / file)
            for number, frame in enumerate(self.frames)
            for field, file in (("image_sha256", frame.image), ("mask_sha256", frame.mask))
            if file is not None and getattr(frame, field) is not None
        ]
        hashes = _of_files(_sha256, [file for _, _, file in hashed], cancelled)
        found: list[dict[str, str | None]] = [{} for _ in self.frames]
        for number, field, file in hashed:
            found[number][field] = hashes[file]
        frames = tuple(
            frame.model_copy(update=now) for frame, now in zip(self.frames, found, strict=True)
        )
        return replace(self, manifest=self.manifest.model_copy(update={"frames": frames}))

    def content_hash(self, split: Split) -> str:
        """Hash what the frames of a split are made of, whatever their order.

        Parameters
        ----------
        split : {"training", "validation", "test"}
            Which frames.

        Returns
        -------
        str
            SHA-256, in hexadecimal, of the frames' names, the hashes of their files, and
            whether they are known to be negative.
        """
        content = sorted(
            [frame.name, frame.image_sha256 or "", frame.mask_sha256 or "", frame.negative]
            for frame in self.frames
            if frame.split == split
        )
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def open_dataset(
    path: Path | str,
    frozen: Manifest | None = None,
    *,
    cancelled: Callable[[], bool] | None = None,
) -> CuratedDataset:
    """Open frames to train with or to be measured on.

    A folder with a ``manifest.json`` is taken as the manifest says. Of anything else that
    `open_frames` opens, the manifest is worked out: masks beside the frames are their labels;
    where it has none, or an empty one, a frame is negative if a folder that it lies in is called
    "negative", "negatives", "no polyp" or "no polyps"; other frames without a mask are unlabelled.
    `find_groups` says which frames belong together, `split_groups` which of them validate.

    Parameters
    ----------
    path : path
        A folder, a TIFF stack, a video or an image.
    frozen : Manifest, optional
        The manifest of this dataset from when it was opened before. Frames, masks, groups and
        split are as they were then; files that came later are left out.
    cancelled : callable, optional
        Asked while frames without a manifest are looked at, which may take minutes.

    Returns
    -------
    CuratedDataset
        At least one frame can be read.

    Raises
    ------
    InputError
        If there is nothing to read, or the manifest does not fit the files.
    CancelledError
        If `cancelled` says so.
    """
    path = absolute(path)
    manifest = frozen
    if frozen is None and (path / MANIFEST_NAME).is_file():
        manifest = read_manifest(path / MANIFEST_NAME)
        check_files(path, manifest)
    if manifest is None:
        sequence = open_frames(path)
        manifest = _work_out(sequence, cancelled)
    elif path.is_dir():
        sequence = _listed(path, manifest)
    else:
        sequence = open_frames(path)
        if [frame.name for frame in sequence.frames] != [frame.name for frame in manifest.frames]:
            raise InputError(
                f"{path} holds {len(sequence)} frames, no longer the {len(manifest.frames)} that "
                "were split into training and validation; put the former file back, or start "
                "anew in another folder."
            )
    return CuratedDataset(path, sequence, manifest)


def check_files(folder: Path, manifest: Manifest) -> None:
    """Refuse links out of a dataset that may come from anywhere, and images listed twice.

    Parameters
    ----------
    folder : Path
        The dataset.
    manifest : Manifest
        Of the dataset.

    Raises
    ------
    InputError
        If there is such a file.
    """
    inside = folder.resolve()
    listed: set[Path] = set()
    for frame in manifest.frames:
        for file in filter(None, (frame.image, frame.mask)):
            try:
                found = (folder / file).resolve()
            except (OSError, RuntimeError) as error:
                raise InputError(
                    f"{folder / file} is a link that leads nowhere; take it out of the manifest."
                ) from error
            if not found.is_relative_to(inside):
                raise InputError(
                    f"{folder / file} is a link out of the dataset, to {found}; "
                    "copy the file into the dataset instead."
                )
            if file == frame.image and found in listed:
                raise InputError(
                    f"{folder / MANIFEST_NAME} lists {file} for two frames; keep one of them."
                )
            listed.add(found)


def _listed(path: Path, manifest: Manifest) -> ImageFiles:
    """Open the files that a manifest lists."""
    root = root_of(path)
    files = [
        (frame.name, root / frame.image, None if frame.mask is None else root / frame.mask)
        for frame in manifest.frames
    ]
    return ImageFiles(path, manifest.name, files)


def _work_out(sequence: FrameSequence, cancelled: Callable[[], bool] | None) -> Manifest:
    """Make the manifest of frames that come without one."""
    root = root_of(sequence.path)
    masks = sequence.mask_files if isinstance(sequence, ImageFiles) else [None] * len(sequence)
    in_negatives = [lies_among_negatives(sequence.path, frame.name) for frame in sequence.frames]
    labels = _of_files(
        _labels, [m for m, named in zip(masks, in_negatives, strict=True) if m and named], cancelled
    )
    negative = [
        named and (mask is None or labels[mask] in ({0}, {0, IGNORE}))
        for mask, named in zip(masks, in_negatives, strict=True)
    ]
    groups = find_groups(sequence, cancelled)
    splits = _split(groups, masks, negative, cancelled)
    files = [*(frame.source for frame in sequence.frames), *filter(None, masks)]
    hashes = _of_files(_sha256, files)
    try:
        frames = [
            FrameRecord(
                name=frame.name,
                image=frame.source.relative_to(root).as_posix(),
                mask=None if mask is None else mask.relative_to(root).as_posix(),
                negative=known_negative,
                group=group,
                split=splits[group],
                source=sequence.name,
                image_sha256=hashes[frame.source],
                mask_sha256=None if mask is None else hashes[mask],
            )
            for frame, mask, known_negative, group in zip(
                sequence.frames, masks, negative, groups, strict=True
            )
        ]
        return Manifest(name=sequence.name, frames=tuple(frames))
    except ValidationError as error:
        odd = next((file for file in files if unicode_name(str(file)) != str(file)), None)
        if odd is not None:
            raise InputError(
                f"{unicode_name(str(odd))} has a name that is no Unicode, which no manifest can "
                "hold: rename it, or write a dataset from a session of these frames."
            ) from error
        raise InputError(
            f"{sequence.path} cannot be used as a dataset ({first_problem(error)}); rename it."
        ) from error


def _split(
    groups: Sequence[str],
    masks: Sequence[Path | None],
    negative: Sequence[bool],
    cancelled: Callable[[], bool] | None,
) -> dict[str, Split]:
    """Choose a split for every group, so that both have polyps and negatives if any."""
    masks_of: dict[str, list[Path]] = {group: [] for group in groups}
    for group, mask in zip(groups, masks, strict=True):
        if mask is not None:
            masks_of[group].append(mask)

    def shows_polyp(mask: Path) -> bool:
        if cancelled is not None and cancelled():
            raise CancelledError
        return bool(_labels(mask) - {0, IGNORE})

    @cache
    def has_polyp(group: str) -> bool:
        return any(map(shows_polyp, masks_of[group]))

    # Of the groups with polyps, the outermost ones alone can change over (`split_groups`): so most
    # masks need not be read.
    by_place = sorted(masks_of, key=place_of)
    outermost = (next(filter(has_polyp, order), None) for order in (by_place, by_place[::-1]))
    with_polyps = {group for group in outermost if group is not None}
    with_negatives = {
        group
        for group, known in zip(groups, negative, strict=True)
        if known and not has_polyp(group)
    }
    return split_groups(masks_of, with_polyps, with_negatives)


def _labels(mask: Path) -> set[int]:
    """Return the labels in a mask; of one that cannot be read, that of a polyp."""
    try:
        return set(np.flatnonzero(np.bincount(read_mask_file(mask).ravel())).tolist())
    except UnreadableError:
        return {1}


def _sha256(path: Path) -> str | None:
    """Hash a file by its content, in hexadecimal; None if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _of_files(
    read: Callable[[Path], _Read],
    paths: Sequence[Path],
    cancelled: Callable[[], bool] | None = None,
) -> dict[Path, _Read]:
    """Read something of many files, in threads."""

    def read_one(path: Path) -> _Read:
        if cancelled is not None and cancelled():
            raise CancelledError
        return read(path)

    unique = list(dict.fromkeys(paths))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(unique, pool.map(read_one, unique), strict=True))
