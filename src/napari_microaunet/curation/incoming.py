"""What curated datasets are written from: sessions, other datasets, plain folders of masks."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from napari_microaunet.curation.dataset import open_dataset
from napari_microaunet.curation.group_patterns import found_by
from napari_microaunet.curation.groups import stated_groups, stated_sequences
from napari_microaunet.curation.manifest import MANIFEST_NAME, Annotation, Prelabel
from napari_microaunet.curation.session import MaskOrigin, ReviewState, Session
from napari_microaunet.curation.session.database import DATABASE_NAME, read_identity
from napari_microaunet.curation.session.places import SUFFIX
from napari_microaunet.errors import InputError
from napari_microaunet.frames import open_frames
from napari_microaunet.frames.folder import ImageFiles
from napari_microaunet.frames.mask_chunks import chunk_digest

if TYPE_CHECKING:
    import re
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from napari_microaunet.curation.dataset import CuratedDataset
    from napari_microaunet.curation.manifest import Blanked, Split
    from napari_microaunet.curation.session import FrameStatus
    from napari_microaunet.frames import FrameSequence

Include = Literal["accepted", "edited", "all"]
"""Which frames of a session count: accepted ones; edited ones, too; or all that are not excluded.
Those that nobody has reviewed come into a dataset without their mask; exported is what has one."""

INCLUDED: dict[Include, set[ReviewState]] = {
    "accepted": {ReviewState.ACCEPTED},
    "edited": {ReviewState.ACCEPTED, ReviewState.EDITED},
    "all": set(ReviewState) - {ReviewState.EXCLUDED},
}
"""States of the frames that count."""
_REVIEWED = INCLUDED["edited"]


@dataclass(frozen=True, eq=False)
class IncomingFrame:
    """A frame on its way into a dataset.

    Attributes
    ----------
    name, source, group, annotation, blanked
        As in its `FrameRecord`.
    split : str or None
        The split that it was in.
    sequence : FrameSequence
        Where its pixels are read.
    index : int
        Its number there.
    read_mask : callable
        Gives its labels at native size, uint8, or None where nobody has said.
    original_sha256 : str or None
        As in its `FrameRecord`, where it is known.
    patterns : tuple of str
        What may have found its group in its name, as in its `Manifest`.
    stated : str or None
        What no pattern of the dataset may divide, as it says itself that it belongs together: a
        video, a stack, a sequence of a table, a group of another dataset. None for other stills,
        which at most share a folder.
    """

    name: str
    source: str
    group: str
    split: Split | None
    annotation: Annotation | None
    blanked: tuple[Blanked, ...]
    sequence: FrameSequence
    index: int
    read_mask: Callable[[], NDArray[np.uint8] | None]
    original_sha256: str | None = None
    patterns: tuple[str, ...] = ()
    stated: str | None = None

    @property
    def file(self) -> Path | None:
        """The image file that holds this frame alone; None for one of a video or a stack."""
        is_file = isinstance(self.sequence, ImageFiles)
        return self.sequence.frames[self.index].source if is_file else None


def open_source(path: Path | str) -> Session | CuratedDataset:
    """Open what frames are taken from.

    Parameters
    ----------
    path : path
        A session (``NAME.microaunet``), a curated dataset, or anything else that `open_dataset`
        opens.

    Returns
    -------
    Session or CuratedDataset
        A session has to be closed.

    Raises
    ------
    InputError
        If it cannot be opened.
    """
    path = Path(path)
    if path.name.endswith(SUFFIX) and (path / DATABASE_NAME).is_file():
        return open_session(path)
    return open_dataset(path)


def open_session(folder: Path, frames: Path | None = None) -> Session:
    """Open a session together with its frames, also where both have been moved.

    Parameters
    ----------
    folder : Path
        ``NAME.microaunet``.
    frames : Path, optional
        Where its frames are, if neither where they were nor beside it.

    Raises
    ------
    InputError
        If it is no session, or cannot be read, or its frames are gone.
    """
    if not (folder / DATABASE_NAME).is_file():
        raise InputError(f"{folder} is no session; give a folder NAME{SUFFIX}.")
    try:
        identity = read_identity(folder / DATABASE_NAME)
    except (OSError, sqlite3.Error) as error:
        raise InputError(
            f"{folder / DATABASE_NAME} cannot be read ({error}); see that its drive is there, and "
            "that you may read the folder."
        ) from error
    if identity is None:
        raise InputError(f"{folder} holds no frames yet; open it in napari first.")
    # First beside it: of a session that was copied together with its frames, the former ones may
    # still be where they were.
    beside = folder.absolute().parent / identity.path.name
    places = (beside, identity.path) if frames is None else (frames,)
    is_there = _may_be_there if frames is None else Path.exists
    found = [place for place in dict.fromkeys(places) if is_there(place)]
    if not found:
        raise InputError(
            f"The frames of {folder} are neither at {places[-1]} nor beside it; "
            "put them back, or beside the session."
        )
    for place in found:
        try:
            sequence = open_frames(place)
        except InputError:
            if place == found[-1]:
                raise
            continue
        if not identity.names.isdisjoint(frame.name for frame in sequence.frames):
            return Session(sequence, folder)
    raise InputError(f"{found[-1]} holds none of the frames of {folder}; give the right folder.")


def _may_be_there(place: Path) -> bool:
    try:
        return place.exists()
    except OSError:  # somebody else's folder, or a drive that does not answer
        return False


def incoming_frames(
    source: Session | CuratedDataset,
    include: Include = "accepted",
    pattern: re.Pattern[str] | None = None,
) -> list[IncomingFrame]:
    """List the frames that a source has for a dataset.

    Parameters
    ----------
    source : Session or CuratedDataset
        From `open_source`.
    include : {"accepted", "edited", "all"}
        Which frames of a session.
    pattern : re.Pattern, optional
        What it finds in the name of a frame is its group (the first group in parentheses, if
        there is one): the number of a patient, say.

    Returns
    -------
    list of IncomingFrame
        With names and groups that begin with the name of their source.

    Raises
    ------
    InputError
        If the pattern is not found in a name.
    """
    if isinstance(source, Session):
        return _of_session(source, include, pattern)
    return _of_dataset(source, pattern)


def _of_session(
    session: Session, include: Include, pattern: re.Pattern[str] | None
) -> list[IncomingFrame]:
    sequence = session.sequence
    session.flush()  # areas and changed pixels are counted by then
    groups, stated = stated_groups(sequence), stated_sequences(sequence)

    def mask_reader(status: FrameStatus) -> Callable[[], NDArray[np.uint8] | None]:
        if status.state not in _REVIEWED:
            return lambda: None

        def read_mask() -> NDArray[np.uint8]:
            chunk = session.chunks[status.index]
            if chunk_digest(chunk) != status.digest:
                raise InputError(
                    f"The mask of frame {status.name} in {session.folder} has changed meanwhile; "
                    "review it, and write it again."
                )
            return session.chunks.decode(status.index, chunk)

        return read_mask

    accepted = {cost.name: cost.accepted for cost in session.edit_costs()}
    frames = []
    for status in session.statuses:
        if status.state not in INCLUDED[include]:
            continue
        name = name_in_dataset(sequence.name, status.name)
        annotation = Annotation(
            state=status.state.value,  # type: ignore[arg-type]  # excluded ones are left out
            origin=status.origin.value if status.state in _REVIEWED else MaskOrigin.NONE.value,
            annotator=status.annotator or None,
            accepted=accepted.get(status.name),
            changed=status.changed,
            prelabel=_prelabel(session, status),
            seconds=status.seconds,
            seconds_editing=status.seconds_editing,
            strokes=status.strokes,
            changed_pixels=status.changed_pixels,
        )
        frames.append(
            IncomingFrame(
                name,
                sequence.name,
                _group(name, groups[status.index], sequence.name, pattern),
                None,
                annotation,
                (),
                sequence,
                status.index,
                mask_reader(status),
                patterns=() if pattern is None else (pattern.pattern,),
                stated=stated[status.index],
            )
        )
    return frames


def _prelabel(session: Session, status: FrameStatus) -> Prelabel | None:
    if status.model is None or status.origin is MaskOrigin.FILE:  # which began with no model
        return None
    kept = session.map(status.index)
    return Prelabel(
        model=status.model,
        card_sha256=kept.card_sha256 if kept is not None and kept.model == status.model else None,
        threshold=status.threshold,
        confidence=status.confidence,
        disagreement=status.disagreement,
    )


def _of_dataset(dataset: CuratedDataset, pattern: re.Pattern[str] | None) -> list[IncomingFrame]:
    # What was worked out for a plain folder is no decision that has to be kept.
    curated = (dataset.path / MANIFEST_NAME).is_file()
    patterns = dataset.manifest.group_patterns if pattern is None else (pattern.pattern,)
    stated = (
        [one.group for one in dataset.frames] if curated else stated_sequences(dataset.sequence)
    )
    frames = []
    for index, record in enumerate(dataset.frames):
        name = name_in_dataset(record.source, record.name)
        by_name = record.group in (found_by(one, name) for one in patterns)
        frames.append(
            IncomingFrame(
                name,
                record.source,
                record.group if by_name else _group(name, record.group, record.source, pattern),
                record.split if curated else None,
                record.annotation,
                record.blanked,
                dataset.sequence,
                index,
                lambda index=index: dataset.mask(index),  # type: ignore[misc]
                record.original_sha256,
                patterns,
                stated[index],
            )
        )
    return frames


def name_in_dataset(source: str, name: str) -> str:
    """Name a frame as it is called in a dataset: after its source, then itself."""
    return name if name.startswith(f"{source}/") else f"{source}/{name}"


def _group(name: str, stated: str, source: str, pattern: re.Pattern[str] | None) -> str:
    if pattern is None:
        return stated if stated == source else name_in_dataset(source, stated)
    text = found_by(pattern.pattern, name)
    if text is None:
        raise InputError(
            f'The pattern "{pattern.pattern}" finds no group in the name "{name}"; '
            "correct it, or leave it out to group by folder and video."
        )
    return text
