"""Labels from other tools into a session: all of them, or none."""

from __future__ import annotations

from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from napari_microaunet.curation.session import MaskOrigin
from napari_microaunet.curation.session.database import DATABASE_NAME, read_database
from napari_microaunet.errors import InputError
from napari_microaunet.exchange.places import file_names, flat_name, without_suffix
from napari_microaunet.frames.mask_chunks import chunk_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from zarr.core.buffer import Buffer

    from napari_microaunet.curation.session import Session
    from napari_microaunet.exchange.base import Format, ImportedMask
    from napari_microaunet.frames import FrameSequence

_NAMED = 3


@dataclass(frozen=True)
class ImportSummary:
    """What an import has done.

    Attributes
    ----------
    frames : int
        Frames that have got a mask.
    empty : int
        How many of those masks are empty.
    untouched : int
        Frames of the session that the files say nothing of.
    """

    frames: int
    empty: int
    untouched: int


def read_labels(
    format_: Format,
    path: Path,
    sequence: FrameSequence,
    encode: Callable[[int, ImportedMask], Buffer | None],
) -> dict[int, Buffer | None]:
    """Read all labels for the frames of a sequence, or none.

    Parameters
    ----------
    format_ : Format
        One of `FORMATS`.
    path : Path
        An export, or a file of it.
    sequence : FrameSequence
        The frames that the labels are for.
    encode : callable
        Reads and compresses the mask of the frame with a number; may raise.

    Returns
    -------
    dict of int to Buffer or None
        Compressed masks by the number of the frame; None for an empty one.

    Raises
    ------
    InputError
        If a file cannot be read, or names a frame that is not in the sequence, or twice, or
        is of another size.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist; check its spelling.")
    by_name = {frame.name: index for index, frame in enumerate(sequence.frames)}
    by_flat_name = {flat_name(name): index for name, index in by_name.items()}
    index_of = by_name | by_flat_name if format_.is_flat else by_flat_name | by_name
    by_file = {name: index for index, name in enumerate(file_names(sequence))}
    found: dict[int, Buffer | None] = {}
    unknown: list[str] = []
    by_number = False
    for label in format_.read(path):
        if isinstance(label.name, int):
            if label.name >= len(sequence):
                raise InputError(
                    f"{label.file} has more slices than there are frames ({len(sequence)}); "
                    "it belongs to others."
                )
            index: int | None = label.name
        elif label.is_file_name:
            index = _of_file(label, by_file, index_of, sequence)
        else:
            called = (label.name, *label.other_names)
            index = next((index_of[name] for name in called if name in index_of), None)
        if index is None:
            unknown.append(str(label.name))
            continue
        by_number |= isinstance(label.name, int)
        if index in found:
            raise InputError(f"{label.file} has labels of {label.name} for a second time.")
        found[index] = encode(index, label)
    if unknown:
        names = ", ".join(unknown[:_NAMED]) + (" ..." if len(unknown) > _NAMED else "")
        raise InputError(
            f"{path} has labels of {len(unknown)} frames that are not in {sequence.path}: "
            f"{names}; frames are found by their names, folders inside included."
        )
    if by_number and len(found) < len(sequence):
        raise InputError(
            f"{path} has {len(found)} slices without names, but there are {len(sequence)} frames; "
            "give one for each, or names beside it."
        )
    if not found:
        raise InputError(f"{path} has no labels; give another file.")
    return found


def _of_file(
    label: ImportedMask,
    by_file: Mapping[str, int],
    index_of: Mapping[str, int],
    sequence: FrameSequence,
) -> int | None:
    """Find the frame that a label names by its file; None if there is none."""
    names = (str(label.name), *label.other_names)
    found = [by_file.get(name, index_of.get(without_suffix(name))) for name in names]
    meant = list(dict.fromkeys(index for index in found if index is not None))
    if len(meant) > 1:
        # Of those, the file that lies in the folder which the longest name begins with.
        path = PurePosixPath(names[-1]).parts
        at_home = [i for i in meant if sequence.frames[i].source.parts[-len(path) :] == path]
        if not at_home:
            raise InputError(
                f"{label.file}: {names[-1]} may be the frame in that folder as well as {names[0]}; "
                "open the frames from the folder around it, so that their names differ."
            )
        meant = at_home
    return meant[0] if meant else None


def read_for_session(
    session: Session,
    format_: Format,
    path: Path,
    *,
    progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> dict[int, Buffer | None]:
    """Read all labels for the frames of a session, or none; the session stays as it is.

    Parameters
    ----------
    session : Session
        Its frames are labelled.
    format_ : Format
        One of `FORMATS`.
    path : Path
        An export, or a file of it.
    progress : callable, optional
        Told the frames that are read and those of the session.
    cancelled : callable, optional
        Asked now and then whether to stop.

    Returns
    -------
    dict of int to Buffer or None
        As `read_labels`.

    Raises
    ------
    InputError
        As `read_labels`; or if labels are of another size than their frame.
    CancelledError
        If it was cancelled.
    """
    frames = session.sequence.frames
    done = 0

    def encode(index: int, label: ImportedMask) -> Buffer | None:
        nonlocal done
        if cancelled is not None and cancelled():
            raise CancelledError
        if index in session.sequence.unmeasured:
            raise InputError(
                f"{label.file} has labels of {frames[index].source}, which could not be read when "
                "it was opened: put the file back and open the frames again."
            )
        size = frames[index].height, frames[index].width
        if label.size not in (None, size):
            raise InputError(_wrong_size(label, label.size, size))
        mask = label.read(size)
        if mask.shape != size:
            raise InputError(_wrong_size(label, mask.shape, size))
        done += 1
        if progress is not None:
            progress(done, len(frames))
        return session.chunks.encode(mask)

    return read_labels(format_, path, session.sequence, encode)


def import_labels(
    session: Session,
    format_: Format,
    path: Path,
    *,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> ImportSummary:
    """Give frames of a session the masks that another tool has written, and wait for the disk.

    A mask of the user's that is equal to the one read stays as it is, with what was decided.

    Parameters
    ----------
    session : Session
        It is changed when everything has been read without fault.
    format_ : Format
        One of `FORMATS`.
    path : Path
        An export, or a file of it.
    overwrite : bool
        Whether masks may be replaced that are the user's (`FrameStatus.is_users`).
    progress : callable, optional
        Told the frames that are read and those of the session.
    cancelled : callable, optional
        Asked now and then whether to stop.

    Returns
    -------
    ImportSummary

    Raises
    ------
    InputError
        As `read_labels`; if the session is read-only; if work would be replaced that may not be; or
        if not all masks could be saved: those that are on disk stay there.
    CancelledError
        If it was cancelled; nothing has changed.
    """
    if session.notice is not None:
        raise InputError(session.notice)
    found = read_for_session(session, format_, path, progress=progress, cancelled=cancelled)
    frames = session.sequence.frames
    statuses, digests = session.statuses, {i: chunk_digest(chunk) for i, chunk in found.items()}
    taken = [i for i in found if not (statuses[i].is_users and statuses[i].digest == digests[i])]
    mine = [frames[index].name for index in taken if statuses[index].is_users]
    if mine and not overwrite:
        raise InputError(
            f"{path} would replace {len(mine)} masks in {session.folder} that were made by hand, "
            f"propagated, imported or decided on, the first of {mine[0]}; say that they may be "
            "(--overwrite)."
        )
    # So that what is on disk afterwards tells how far it came.
    if not session.flush():
        raise InputError(f"Nothing was imported: {_problem(session)}.")
    with session.step("Import labels"):
        for index in taken:
            session.forget_former_acceptance(index)
            session.put_mask(index, found[index], MaskOrigin.FILE)
    if not session.flush():
        rows = read_database(session.folder / DATABASE_NAME).frames
        on_disk = {row.name: row.digest for row in rows}
        saved = sum(digest == on_disk.get(frames[i].name) for i, digest in digests.items())
        raise InputError(
            f"{saved} of {len(found)} masks are saved in {session.folder}; import again, for the "
            f"others, when this is mended: {_problem(session)}."
        )
    empty = sum(chunk is None for chunk in found.values())
    return ImportSummary(len(found), empty, len(frames) - len(found))


def _problem(session: Session) -> str:
    # What follows there is said to those in whose window the masks are kept meanwhile.
    return str(session.problem).partition("; your work is kept")[0].rstrip(".")


def _wrong_size(label: ImportedMask, found: object, size: tuple[int, int]) -> str:
    height, width = found if isinstance(found, tuple) else (0, 0)
    return (
        f"{label.file}: the labels of {label.name} are for {width} x {height} px, but the frame "
        f"has {size[1]} x {size[0]} px; they belong to other frames."
    )
