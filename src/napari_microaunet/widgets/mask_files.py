"""Masks from files to the window and back, as jobs."""

from __future__ import annotations

from contextlib import nullcontext
from itertools import takewhile
from typing import TYPE_CHECKING

import numpy as np
from napari.utils.notifications import show_warning
from numpy.typing import NDArray

from napari_microaunet.curation.session import MaskOrigin
from napari_microaunet.errors import InputError
from napari_microaunet.frames.folder import LAYOUTS
from napari_microaunet.frames.images import IMAGE_SUFFIXES
from napari_microaunet.frames.masks import IGNORE, read_mask_file, write_mask_file
from napari_microaunet.frames.sequence import UnreadableError
from napari_microaunet.widgets.jobs import Job
from napari_microaunet.widgets.napari_io import file_identity, identities_of
from napari_microaunet.widgets.prelabel_jobs import follow_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from napari.layers import Labels
    from zarr.core.buffer import Buffer

    from napari_microaunet.frames import FrameSequence
    from napari_microaunet.widgets.mask_layer import MaskLayer
    from napari_microaunet.widgets.work import Work
    from napari_microaunet.widgets.workbench import Workbench

Mask = NDArray[np.uint8]


def masks_beside(bench: Workbench) -> None:
    """Read the masks that lie beside the frames being worked on, where there are any."""
    work, prelabels = bench.start_masks()
    session = prelabels.masks.session
    if work.sequence.has_masks and not session.read_only:
        # What is in the session is newer, or was decided on.
        missing = [i for i in range(len(work.sequence)) if session.origin(i) is MaskOrigin.NONE]
        if missing:
            _read(bench, prelabels.masks, missing, work.sequence.read_mask, {})


def masks_from_layer(bench: Workbench, work: Work, layer: Labels, *, replace: bool = False) -> None:
    """Take over a layer that shows masks of the frames being worked on already.

    The layer is left as it is until all of them have been read, and for good
    if that is cancelled; it cannot be edited, because nobody would keep that.
    Frames that have a mask in their session keep it.

    Parameters
    ----------
    bench : Workbench
        Where no job is running.
    work : Work
        What is being worked on, without masks.
    layer : Labels
        The layer.
    replace : bool
        Whether its masks are used for all frames, as when somebody has put them
        in the place of those of the session, which U brings back.
    """
    if layer not in bench.viewer.layers:
        return
    sequence, given, name = work.sequence, layer.data, layer.name
    layer.editable = False
    found: dict[int, tuple[Buffer | None, MaskOrigin]] = {}

    def look(cancelled: Callable[[], bool]) -> Iterator[int]:
        session = work.open_session()
        for index, frame in enumerate(sequence.frames):
            if cancelled():
                return
            if replace or session.origin(index) is MaskOrigin.NONE:
                mask = np.asarray(given[index] if given.ndim > 2 else given)
                mask = mask[: frame.height, : frame.width]
                if mask.max() > IGNORE or mask.min() < 0:
                    raise InputError(
                        f"The layer {name} holds labels outside 0 to {IGNORE} on frame "
                        f"{frame.name}, which masks cannot: renumber them, or remove the layer."
                    )
                mask = mask.astype(np.uint8)
                # An empty one counts only if it was saved: somebody found no polyp there.
                if mask.any() or _read_quietly(sequence, index) is not None:
                    found[index] = session.chunks.encode(mask), MaskOrigin.FILE
                elif replace:
                    found[index] = None, MaskOrigin.NONE
            yield index

    def end(complete: bool) -> None:
        if bench.work is None or not {work.image, layer} <= set(bench.viewer.layers):
            return
        if not complete or bench.work is not work or work.masks is not None:
            show_warning(
                f"The layer {name} cannot be edited, because its masks were not taken over: "
                f"choose {work.image.name} under Frames to take them over."
            )
            return
        session = work.open_session()
        if not session.read_only:
            with session.step("Replace masks") if replace else nullcontext():
                for index, (chunk, origin) in found.items():
                    if not session.holds(index, chunk):
                        session.put_mask(index, chunk, origin)
        if replace:
            bench.start_masks(layer)
        else:
            bench.go_on_with_masks(layer)

    count = len(sequence)
    bench.run(Job(f"Taking over the masks of {count} frames", look, count), end, work)


def masks_from_folder(
    bench: Workbench, files: Mapping[int, Path], permitted: Mapping[int, bytes]
) -> None:
    """Read masks for the frames being worked on.

    Parameters
    ----------
    bench : Workbench
        With frames.
    files : mapping of int to Path
        Mask file of each frame that has one; see `find_masks`.
    permitted : mapping of int to bytes
        Frames whose mask by the user may be replaced, with its digest.
    """
    work, prelabels = bench.start_masks()

    def read(index: int) -> Mask:
        return _read_mask(work.sequence, index, files[index])

    _read(bench, prelabels.masks, files, read, permitted)


def find_masks(
    sequence: FrameSequence, folder: Path, cancelled: Callable[[], bool]
) -> dict[int, Path]:
    """Find the mask files of a folder that are named as frames are.

    Where there are any in folders ``masks``, these are meant: what lies beside them are pictures.

    Parameters
    ----------
    sequence : FrameSequence
        The frames, whose own files are none of their masks.
    folder : Path
        Where to look; frames named ``case 3/12`` have theirs in its folder ``case 3``, in a folder
        ``masks`` there, or in ``masks/case 3``.
    cancelled : callable
        Asked again and again; what has been found by then is returned.

    Returns
    -------
    dict of int to Path
        Number of the frame and its file.

    Raises
    ------
    InputError
        If there is none.
    """
    numbers = {frame.name: index for index, frame in enumerate(sequence.frames)}
    pictures = identities_of(sequence)
    found: dict[int, Path] = {}
    in_mask_folders: dict[int, Path] = {}
    for file in sorted(takewhile(lambda _: not cancelled(), folder.rglob("*"))):
        *folders, stem = file.relative_to(folder).with_suffix("").parts
        others = [name for name in folders if name.lower() not in LAYOUTS.values()]
        number = numbers.get("/".join((*others, stem)))
        if number is None or file.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        if file_identity(file) not in pictures:
            (found if others == folders else in_mask_folders)[number] = file
    found = in_mask_folders or found
    if not found and not cancelled():
        raise InputError(
            f"{folder} holds no masks that are named as frames of {sequence.name} are, for example "
            f"{sequence.frames[0].name}.png: choose the folder that their masks are in."
        )
    return found


def save_masks(bench: Workbench, folder: Path) -> None:
    """Write the mask of every frame that has one as a PNG at native size.

    Frames on which nobody has decided yet are left out; a frame that was found
    to hold no polyp has a mask, an empty one.

    Parameters
    ----------
    bench : Workbench
        With masks.
    folder : Path
        Where to; files of the same names are replaced. Remembered as the work's
        `mask_folder` once all of them are written.
    """
    work = bench.work
    if work is None or work.masks is None or work.prelabels is None:
        raise InputError("There are no masks to save yet.")
    masks, sequence = work.masks, work.sequence
    waiting = work.prelabels.waiting()
    indices = [
        index
        for index in range(len(sequence))
        if index in waiting or masks.origin(index) is not MaskOrigin.NONE
    ]
    if not indices:
        raise InputError("There are no masks to save yet: pre-label frames or draw some.")

    def write(cancelled: Callable[[], bool]) -> Iterator[int]:
        for index in indices:
            if cancelled():
                return
            file = folder / f"{sequence.frames[index].name}.png"
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                write_mask_file(file, masks.chunks.mask(index))
            except OSError as error:
                raise InputError(
                    f"The mask {file} cannot be written: {error.strerror}. "
                    "Make room or choose another folder; the masks are still in the window."
                ) from error
            yield index

    def end(complete: bool) -> None:
        if complete:
            work.mask_folder = folder
            bench.message = f"Saved {len(indices)} masks to {folder}."

    job = Job(f"Saving {len(indices)} masks", write, len(indices))
    follow_settings(bench, lambda _: bench.run(job, end))


def _read(
    bench: Workbench,
    layer: MaskLayer,
    indices: Iterable[int],
    read: Callable[[int], Mask | None],
    permitted: Mapping[int, bytes],
) -> None:
    shown, work = bench.shown, bench.work
    indices = sorted(indices, key=lambda index: (index != shown, index))
    problems: list[str] = []

    def masks(cancelled: Callable[[], bool]) -> Iterator[tuple[int, Mask | None, Buffer | None]]:
        for index in indices:
            if cancelled():
                return
            mask = None
            try:
                mask = read(index)
            except InputError as error:
                problems.append(str(error))
            yield index, mask, None if mask is None else layer.chunks.encode(mask)

    used = kept = there = 0
    # In the place of masks by the user: all at the end, as one step that U takes back.
    replacements: dict[int, Buffer | None] = {}

    def take(item: tuple[int, Mask | None, Buffer | None]) -> None:
        nonlocal used, kept, there
        index, mask, chunk = item
        if mask is None:
            return
        if not layer.is_users(index):
            # What was on disk anyway, Ctrl+Z need not take away.
            undoable = layer.origin(index) is not MaskOrigin.NONE
            layer.session.forget_former_acceptance(index)
            layer.set(index, chunk, MaskOrigin.FILE, undoable)
            used += 1
        elif layer.session.holds(index, chunk):
            there += 1
        elif index in permitted:
            replacements[index] = chunk
        else:
            kept += 1

    def replace() -> None:
        nonlocal used, kept
        with layer.session.step("Open masks"):
            for index, chunk in replacements.items():
                if permitted[index] == layer.chunks.digest(index):
                    layer.session.forget_former_acceptance(index)
                    layer.set(index, chunk, MaskOrigin.FILE, undoable=True)
                    used += 1
                else:
                    kept += 1

    def end(complete: bool) -> None:
        # The user may have taken the layer away meanwhile.
        if complete and replacements and work is not None and work.masks is layer:
            replace()
        if problems:
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            show_warning(problems[0] + more)
        if complete:
            others = f" {kept} frames kept theirs." if kept else ""
            same = f" {there} were there already." if there else ""
            bench.message = f"Read {used} masks.{others}{same}"

    job = Job(f"Reading the masks of {len(indices)} frames", masks, len(indices))
    job.item.connect(take)
    bench.run(job, end, work)


def _read_quietly(sequence: FrameSequence, index: int) -> Mask | None:
    try:
        return sequence.read_mask(index)
    except InputError:
        return None


def _read_mask(sequence: FrameSequence, index: int, file: Path) -> Mask:
    frame = sequence.frames[index]
    try:
        mask = read_mask_file(file)
    except UnreadableError as error:
        raise InputError(f"The mask {file} cannot be read: {error}.") from error
    if mask.shape != (frame.height, frame.width):
        raise InputError(
            f"The mask {file} is {mask.shape[1]} x {mask.shape[0]} px and its frame "
            f"{frame.width} x {frame.height}: it was not used."
        )
    return mask
