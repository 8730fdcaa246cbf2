"""Curated datasets on disk: written, and appended to; see `staging` for what a kill leaves."""

from __future__ import annotations

import hashlib
import io
import itertools
import os
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from napari_microaunet.curation.dataset import check_files
from napari_microaunet.curation.group_patterns import check_groups, grouped
from napari_microaunet.curation.groups import thumbnails_of
from napari_microaunet.curation.manifest import (
    MANIFEST_NAME,
    FrameRecord,
    Manifest,
    RelativePath,
    read_manifest,
)
from napari_microaunet.curation.originals import (
    file_content,
    hash_original,
    hash_pixels,
    original_of,
)
from napari_microaunet.curation.placing import Shares, place_frames
from napari_microaunet.curation.source_names import told_apart
from napari_microaunet.curation.staging import (
    link_file,
    made,
    move_in,
    publish,
    remove_replaced,
    stage_beside,
    stage_inside,
    write_file,
)
from napari_microaunet.editing.labels import polyps_in
from napari_microaunet.errors import InputError, first_problem
from napari_microaunet.frames import open_frames
from napari_microaunet.frames.folder import ImageFiles
from napari_microaunet.frames.images import stands_upright
from napari_microaunet.frames.masks import IGNORE, write_mask_file
from napari_microaunet.frames.sequence import check_beside_frames

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_microaunet.curation.deidentify import Deidentifier
    from napari_microaunet.curation.incoming import IncomingFrame
    from napari_microaunet.curation.manifest import Blanked

# Of PNG: files are 10 % larger than at the default, and written in a third of the time.
_COMPRESSION = 1
_NAME = TypeAdapter(RelativePath)


@dataclass(frozen=True)
class WriteOptions:
    """How frames are written.

    Attributes
    ----------
    link : bool
        Whether image files become hard links, which take no room, instead of copies. A file that
        is changed in place where it came from changes in the dataset as well.
    deidentifier : Deidentifier or None
        What blanks frames; metadata is then dropped, too.
    shares : Shares
        What the splits get of the frames that bring none.
    seed : int
        Of the splits.
    name : str
        Of a new dataset; that of its folder by default.
    """

    link: bool = False
    deidentifier: Deidentifier | None = None
    shares: Shares = field(default_factory=Shares)
    seed: int = 1
    name: str = ""


@dataclass(frozen=True)
class WriteResult:
    """What was written.

    Attributes
    ----------
    manifest : Manifest
        Of the whole dataset.
    added, updated, unchanged : tuple of str
        Names of the frames given, by what became of them.
    left_out : dict of str to str
        Frames that were not taken, by name, and why.
    """

    manifest: Manifest
    added: tuple[str, ...]
    updated: tuple[str, ...]
    unchanged: tuple[str, ...]
    left_out: dict[str, str]


@dataclass(frozen=True, eq=False)
class _Named:
    """A frame with the name that it will have, and what the dataset says of it so far."""

    frame: IncomingFrame
    name: str
    before: FrameRecord | None


def write_dataset(
    frames: Sequence[IncomingFrame],
    folder: Path,
    options: WriteOptions | None = None,
    *,
    append: bool = False,
    progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> WriteResult:
    """Write frames to a dataset.

    A frame is the same as one of the dataset if name and original are, or if it is read from there:
    it is updated, and keeps its group and split. A label that the dataset has is replaced by
    another one only. One of an equal name that is another picture gets a name with a number, and so
    does a source that has other pictures than another one of its name.

    The dataset keeps the patterns that have found groups. Frames that come without one are grouped
    by them as `grouped` does.

    Parameters
    ----------
    frames : sequence of IncomingFrame
        From `incoming_frames`, of one source or of several.
    folder : Path
        Where the dataset is or will be.
    options : WriteOptions, optional
    append : bool
        Whether the dataset is there already.
    progress : callable, optional
        Told ``(done, total)`` in the calling thread.
    cancelled : callable, optional
        Asked at every frame, also while what is there already is looked at.

    Returns
    -------
    WriteResult

    Raises
    ------
    InputError
        If the folder is in the way, among the frames, or no dataset, another program is appending
        to it, nothing is there to write, a name leads out of the folder, a pattern would divide
        what the dataset has in one group, or two sources have different labels for one frame.
    CancelledError
        If `cancelled` says so; the dataset is as it was.
    """
    options = WriteOptions() if options is None else options
    if not frames:
        raise InputError(f"There is no frame to write to {folder}: accept some first.")
    if append:
        check_files(folder, read_manifest(folder / MANIFEST_NAME))
    elif folder.exists():
        raise InputError(f"{folder} exists; append to it, or choose another place.")
    else:
        for sequence in {frame.sequence for frame in frames}:
            check_beside_frames(sequence, folder)
    left_out: dict[str, str] = {}
    with (stage_inside if append else stage_beside)(folder) as stage:
        # Not before: another program may have appended until now.
        old = read_manifest(folder / MANIFEST_NAME) if append else None
        before = () if old is None else old.frames
        if old is not None:
            remove_replaced(folder, old)  # by a run that was killed
        patterns = () if old is None else old.group_patterns
        patterns = tuple(
            dict.fromkeys((*patterns, *(one for frame in frames for one in frame.patterns)))
        )
        named_apart = told_apart(grouped(frames, patterns), before, cancelled)
        named = _named(named_apart, folder, before, left_out, cancelled)
        new_groups = {one.frame.group for one in named if one.before is None}
        check_groups(folder, before, new_groups, patterns)
        if options.deidentifier is None:
            _check_blanked(folder, before, named)
        staged = _stage_all(stage, folder, named, options, left_out, progress, cancelled)
        new = [record for one, record in staged if one.before is None]
        placed = _placed(stage, folder, before, named, new, options, left_out, cancelled)
        changed = {
            one.before.name: record
            for one, record in staged
            if one.before is not None and record is not one.before
        }
        kept = [changed.get(record.name, record) for record in before]
        try:
            manifest = Manifest(
                name=options.name or folder.name if old is None else old.name,
                group_patterns=patterns,
                frames=(*kept, *placed),
            )
        except ValidationError as error:
            reason = left_out and f"the first of {len(left_out)} frames: {min(left_out.values())}"
            raise InputError(
                f"{folder} cannot be written ({reason or first_problem(error)})."
            ) from error
        if old is None:
            publish(stage, folder, manifest)
        else:
            move_in(stage, folder, before, [*changed.values(), *placed], manifest)
    return WriteResult(
        manifest,
        tuple(record.name for record in placed),
        tuple(changed),
        tuple(record.name for one, record in staged if record is one.before),
        left_out,
    )


def _named(
    frames: Sequence[IncomingFrame],
    folder: Path,
    before: Sequence[FrameRecord],
    left_out: dict[str, str],
    cancelled: Callable[[], bool] | None,
) -> list[_Named]:
    """Tell which frames the dataset has already, and name the others."""
    known = {record.name.casefold(): record for record in before}
    by_file = {(folder / record.image).resolve(): record for record in before}
    chosen: dict[str, _Named] = {}
    for frame in frames:
        if cancelled is not None and cancelled():
            raise CancelledError
        _check_name(frame)
        if (problem := frame.sequence.problems.get(frame.index)) is not None:
            left_out[frame.name] = problem
            continue
        if frame.file is not None and (own := by_file.get(frame.file.resolve())) is not None:
            if (earlier := chosen.get(own.name.casefold())) is not None:
                _check_agree(earlier.frame, frame)
            chosen[own.name.casefold()] = _Named(frame, own.name, own)
            continue
        for number in itertools.count(1):
            name = frame.name if number == 1 else f"{frame.name}-{number}"
            key = name.casefold()
            record, earlier = known.get(key), chosen.get(key)
            if earlier is not None:
                # What was read from the dataset itself may be blanked there.
                known_as = None if earlier.before is None else original_of(earlier.before)
                if (known_as or hash_original(earlier.frame)) != hash_original(frame):
                    continue
                _check_agree(earlier.frame, frame)
                kept = earlier.frame
                if kept.split is None and frame.split is not None:
                    kept = replace(kept, group=frame.group, split=frame.split)
                if set(kept.blanked) < set(frame.blanked):
                    kept = replace(frame, group=kept.group, split=kept.split)
                chosen[key] = replace(earlier, frame=kept)
            elif record is None or original_of(record) == hash_original(frame):
                if frame.group == frame.name:  # of its own, and not of the other picture's
                    frame = replace(frame, group=name)
                chosen[key] = _Named(frame, name if record is None else record.name, record)
            else:
                continue
            break
    return list(chosen.values())


def _check_blanked(folder: Path, before: Sequence[FrameRecord], named: Sequence[_Named]) -> None:
    """Refuse frames as they were recorded where all others are de-identified."""
    recorded = [one.name for one in named if one.before is None and not one.frame.blanked]
    if before and recorded and all(record.blanked for record in before):
        raise InputError(
            f"All frames of {folder} are de-identified, but not the new ones (the first is "
            f"{recorded[0]}): de-identify them, too (tick De-identify frames of the dataset in the "
            "window, or give --deidentify), or write another dataset."
        )


def _check_agree(one: IncomingFrame, other: IncomingFrame) -> None:
    first, second = one.read_mask(), other.read_mask()
    if (first is None) != (second is None) or not np.array_equal(first, second):  # type: ignore[arg-type]
        raise InputError(
            f"{one.sequence.path} and {other.sequence.path} have different labels for the frame "
            f"{one.name}; write them to two datasets, compare and reconcile these."
        )


def _check_name(frame: IncomingFrame) -> None:
    """Refuse a name that leads out of the dataset's folder, as a manifest from elsewhere may."""
    try:
        _NAME.validate_python(frame.name)
    except ValidationError as error:
        raise InputError(
            f"{frame.sequence.path} has a frame that cannot be written ({first_problem(error)}); "
            "correct its name and source."
        ) from error


def _stage_all(
    stage: Path,
    folder: Path,
    named: Sequence[_Named],
    options: WriteOptions,
    left_out: dict[str, str],
    progress: Callable[[int, int], None] | None,
    cancelled: Callable[[], bool] | None,
) -> list[tuple[_Named, FrameRecord]]:
    """Make the files of frames; of what cannot be read, the reason is kept in `left_out`."""
    # More threads would overtake one another in a video and make it seek.
    alone = all(one.frame.file is not None for one in named)
    pool = ThreadPoolExecutor(os.cpu_count() if alone else 1, "write")
    staged = []
    try:
        futures = [pool.submit(_stage_one, stage, folder, one, options) for one in named]
        for done, (one, future) in enumerate(zip(named, futures, strict=True), start=1):
            if cancelled is not None and cancelled():
                raise CancelledError
            try:
                staged.append((one, future.result()))
            except InputError as error:
                left_out[one.name] = str(error)
            if progress is not None:
                progress(done, len(named))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return staged


def _stage_one(stage: Path, folder: Path, named: _Named, options: WriteOptions) -> FrameRecord:
    """Make the files of one frame that differ from those in the dataset; describe it anew."""
    frame, before = named.frame, named.before
    size = frame.sequence.frames[frame.index]
    mask = frame.read_mask()
    if mask is None and before is not None and before.labelled:
        return before  # nobody has said otherwise
    polyp = ignored = None
    mask_name = mask_hash = None
    if mask is not None:
        polyp = int(np.count_nonzero(polyps_in(mask)))
        ignored = int(np.count_nonzero(mask == IGNORE))
        mask_name = f"masks/{named.name}.png"
        target = made(stage / mask_name)
        write_mask_file(target, mask)
        mask_hash = hashlib.sha256(target.read_bytes()).hexdigest()
    image_name, image_hash, original, blanked = _stage_image(stage, folder, named, options)
    annotation = frame.annotation
    is_read = annotation is None or (annotation.origin == "file" and annotation.state != "accepted")
    if is_read and before is not None and before.annotation and mask_hash == before.mask_sha256:
        annotation = before.annotation  # nobody has done anything to the mask since
    record = FrameRecord(
        name=named.name,
        image=image_name,
        mask=mask_name,
        negative=polyp == 0 and ignored != size.height * size.width,
        group=frame.group if before is None else before.group,
        split=before.split if before is not None else frame.split or "training",
        source=frame.source if before is None else before.source,
        image_sha256=image_hash,
        mask_sha256=mask_hash,
        original_sha256=original,
        height=size.height,
        width=size.width,
        polyp_pixels=polyp,
        ignored_pixels=ignored,
        annotation=annotation,
        blanked=blanked,
    )
    if before is not None and _undated(record) == _undated(before):
        return before
    if annotation is None or annotation is not frame.annotation:
        return record
    dated = annotation.model_copy(update={"written": datetime.now(UTC)})
    return record.model_copy(update={"annotation": dated})


def _stage_image(
    stage: Path, folder: Path, named: _Named, options: WriteOptions
) -> tuple[str, str, str, tuple[Blanked, ...]]:
    """Copy, link or encode the picture; give its file, its hash, that of the original, blanks."""
    frame, file, before = named.frame, named.frame.file, named.before
    there = None
    if before is not None and before.image_sha256 and before.original_sha256:
        there = before.image, before.image_sha256, before.original_sha256, before.blanked
    # What the dataset has is not made again, and what was blanked in it stays blanked: which boxes
    # those were, its picture alone tells.
    was_blanked = set() if there is None else set(there[3])
    more = was_blanked < set(frame.blanked) and "boxes" not in was_blanked
    if options.deidentifier is None and there and not more:
        return there
    if options.deidentifier is None and file is not None and stands_upright(file):
        name = f"images/{named.name}{file.suffix.lower()}"
        target, content = made(stage / name), file_content(file)
        if options.link:
            link_file(file, target)
        else:
            write_file(target, content)
        digest = hashlib.sha256(content).hexdigest()
        return name, digest, frame.original_sha256 or digest, frame.blanked
    name = f"images/{named.name}.png"
    image, blanked = frame.sequence.read(frame.index), frame.blanked
    original = frame.original_sha256 or ("" if file is None else hash_original(frame))
    if there:
        original = there[2]  # what was read may be the blanked picture of the dataset
    original = original or hash_pixels(image)
    if options.deidentifier is not None:
        image, taken_out = options.deidentifier.blank(frame.sequence, frame.index, image)
        blanked = tuple(dict.fromkeys((*blanked, *taken_out)))
        if there and was_blanked:  # where, its picture alone tells
            blanked = tuple(dict.fromkeys((*there[3], *blanked)))
            image = _darker(image, folder / there[0])
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, format="PNG", compress_level=_COMPRESSION)
    write_file(made(stage / name), encoded.getvalue())
    return name, hashlib.sha256(encoded.getvalue()).hexdigest(), original, blanked


def _darker(image: NDArray[np.uint8], of_dataset: Path) -> NDArray[np.uint8]:
    """Blank in an image what is blanked in the dataset's own."""
    blanked = open_frames(of_dataset).read(0)
    if blanked.shape != image.shape:
        raise InputError(
            f"{of_dataset} is of another size than its original; put back the file that the "
            "dataset was written with."
        )
    return np.minimum(image, blanked)


def _undated(record: FrameRecord) -> FrameRecord:
    if record.annotation is None:
        return record
    annotation = record.annotation.model_copy(update={"written": None})
    return record.model_copy(update={"annotation": annotation})


def _placed(
    stage: Path,
    folder: Path,
    before: Sequence[FrameRecord],
    named: Sequence[_Named],
    new: Sequence[FrameRecord],
    options: WriteOptions,
    left_out: dict[str, str],
    cancelled: Callable[[], bool] | None,
) -> list[FrameRecord]:
    """Give new frames their splits; of those that fit nowhere, say why."""
    if not new:
        return []
    brought = {one.name: one.frame.split for one in named}
    records = [*before, *new]
    files = [
        (record.name, (folder if index < len(before) else stage) / record.image, None)
        for index, record in enumerate(records)
    ]
    # Staged or not, frames of one scope share their field of view, or none would resemble another.
    folders = [(folder / record.image).parent for record in records]
    sequence = ImageFiles(folder, folder.name, files, folders=folders)
    thumbnails = thumbnails_of(sequence, cancelled)
    placement = place_frames(
        records,
        [record.split for record in before] + [brought[record.name] for record in new],
        len(before),
        thumbnails,
        options.shares,
        options.seed,
    )
    placed = []
    for index, record in enumerate(new, start=len(before)):
        reason = sequence.problems.get(index) or placement.leaks.get(index)
        if reason is not None:
            left_out[record.name] = reason
            continue
        placed.append(record.model_copy(update={"split": placement.splits[index]}))
    return placed
