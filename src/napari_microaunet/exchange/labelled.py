"""What is exported: frames with their masks, of a session or of a curated dataset."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_microaunet.curation.dataset import open_dataset
from napari_microaunet.curation.groups import find_groups
from napari_microaunet.curation.incoming import INCLUDED, open_session
from napari_microaunet.curation.session import ReviewState
from napari_microaunet.curation.session.database import DATABASE_NAME
from napari_microaunet.curation.splits import split_groups
from napari_microaunet.errors import InputError
from napari_microaunet.exchange.places import file_names
from napari_microaunet.frames.folder import ImageFiles
from napari_microaunet.frames.mask_chunks import chunk_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_microaunet.curation.dataset import CuratedDataset
    from napari_microaunet.curation.incoming import Include
    from napari_microaunet.curation.manifest import Split
    from napari_microaunet.curation.session import FrameStatus, Session
    from napari_microaunet.frames import FrameSequence

    Mask = NDArray[np.uint8]

# The setting under which the window keeps that masks of the model have yet to follow its sliders.
_BEHIND = "masks behind settings"


@dataclass(frozen=True, eq=False)
class LabelledFrame:
    """One frame with its mask, read when asked for, from several threads at once.

    Attributes
    ----------
    name : str
        As in its sequence, with forward slashes.
    height, width : int
        Native size, in pixels.
    split : {"training", "validation", "test"}
        What it is used for.
    file : Path or None
        The image file that holds this frame alone; None for one of a video or a stack.
    file_name : str
        What that is called, as `file_names` says.
    digest : str
        Equal for equal masks; tells whether a partial export may go on.
    read_frame : callable
        Gives the frame as uint8 array of shape (height, width, 3), or raises `InputError`.
    read_mask : callable
        Gives the mask as uint8 array of shape (height, width): 0 background, 1..n polyps,
        255 ignore; or raises `InputError`.
    """

    name: str
    height: int
    width: int
    split: Split
    file: Path | None
    file_name: str
    digest: str
    read_frame: Callable[[], NDArray[np.uint8]]
    read_mask: Callable[[], Mask]


@dataclass(frozen=True)
class LabelSet:
    """Frames with masks that are exported together.

    Attributes
    ----------
    source : Path
        Where the frames come from.
    frames : tuple of LabelledFrame
        At least one, in the order of their sequence.
    remarks : tuple of str
        What a session has to say of its frames (see `Session`), and of masks that are out of date.
    """

    source: Path
    frames: tuple[LabelledFrame, ...]
    remarks: tuple[str, ...] = ()


def labels_of_session(
    session: Session,
    include: Include = "accepted",
    *,
    names: frozenset[str] | None = None,
    divide: bool = False,
    cancelled: Callable[[], bool] | None = None,
) -> LabelSet:
    """Choose what is exported of a session; accepted frames with an empty mask are negatives.

    Parameters
    ----------
    session : Session
        Also one that is being worked on, or that is read-only. A mask that changes between
        this call and its export is refused then.
    include : {"accepted", "edited", "all"}
        Which frames; excluded ones and those without a mask never.
    names : frozenset of str, optional
        Take no others.
    divide : bool
        Whether frames are divided into training and validation, by video, folder and likeness;
        that looks at every frame. Otherwise all are for training.
    cancelled : callable, optional
        Asked now and then meanwhile.

    Returns
    -------
    LabelSet

    Raises
    ------
    InputError
        If there is no such frame.
    CancelledError
        If `cancelled` says so.
    """
    sequence = session.sequence
    states = INCLUDED[include] - {ReviewState.UNSEEN}  # which have no mask
    chosen = [
        status
        for status in session.statuses
        if status.state in states and (names is None or status.name in names)
    ]
    if not chosen:
        raise InputError(
            f"{session.folder} has no frame to export; accept frames in Review first, "
            "or include frames that are not accepted."
        )
    _check_measured(sequence, [status.index for status in chosen])
    splits: list[Split] = ["training"] * len(sequence)
    if divide:
        groups = find_groups(sequence, cancelled)
        with_polyp = {groups[status.index] for status in chosen if status.area != 0}
        rest = {groups[status.index] for status in chosen} - with_polyp
        by_group = split_groups(with_polyp | rest, with_polyp, rest)
        splits = [by_group.get(group, "training") for group in groups]

    named = file_names(sequence)

    def labelled(status: FrameStatus) -> LabelledFrame:
        # Of the mask that was in this state: it may have been changed while groups were found.
        index, digest = status.index, status.digest
        frame = sequence.frames[index]

        def read_mask() -> Mask:
            chunk = session.chunks[index]
            if chunk_digest(chunk) != digest:
                raise InputError(
                    f"The mask of frame {frame.name} in {session.folder} has changed since the "
                    "export began; export again."
                )
            return session.chunks.decode(index, chunk)

        return LabelledFrame(
            frame.name,
            frame.height,
            frame.width,
            splits[index],
            _own_file(sequence, index),
            named[index],
            digest.hex(),
            lambda: sequence.read(index),
            read_mask,
        )

    remarks = list(session.remarks)
    of_model = any(status.state is ReviewState.PRELABELLED for status in chosen)
    if of_model and session.setting(_BEHIND) not in (None, {}):
        remarks.append(
            "The threshold or another setting was moved, and not all masks of the model have "
            f"followed: open {session.folder} in the window, wait until they have, and export "
            "again."
        )
    return LabelSet(sequence.path, tuple(map(labelled, chosen)), tuple(remarks))


def _check_measured(sequence: FrameSequence, indices: Iterable[int]) -> None:
    """Refuse frames whose size is not known: their masks would be cut to that of another."""
    for index in sequence.unmeasured.intersection(indices):
        frame = sequence.frames[index]
        raise InputError(
            f"The frame {frame.source} could not be read when it was opened, so that the size of "
            "its mask is not known; put the file back and open the frames again, or leave the "
            "frame out."
        )


def labels_of_dataset(dataset: CuratedDataset) -> LabelSet:
    """Choose what is exported of a curated dataset: every frame that is labelled.

    Raises
    ------
    InputError
        If no frame is, or the size of one is not known.
    """
    named = file_names(dataset.sequence)
    _check_measured(dataset.sequence, [i for i, one in enumerate(dataset.frames) if one.labelled])

    def labelled(index: int) -> LabelledFrame:
        frame, record = dataset.sequence.frames[index], dataset.frames[index]
        state = repr((record.mask, record.mask_sha256, record.negative))

        def read_mask() -> Mask:
            mask = dataset.mask(index)
            return np.zeros((frame.height, frame.width), np.uint8) if mask is None else mask

        return LabelledFrame(
            frame.name,
            frame.height,
            frame.width,
            record.split,
            _own_file(dataset.sequence, index),
            named[index],
            hashlib.sha256(state.encode()).hexdigest(),
            lambda: dataset.read(index),
            read_mask,
        )

    chosen = [index for index, record in enumerate(dataset.frames) if record.labelled]
    if not chosen:
        raise InputError(f"{dataset.path} has no frame with a mask; label some first.")
    return LabelSet(dataset.path, tuple(labelled(index) for index in chosen))


@contextmanager
def opened_labels(
    path: Path, include: Include = "accepted", *, frames: Path | None = None, divide: bool = False
) -> Iterator[LabelSet]:
    """Open a session or a dataset to export it.

    Parameters
    ----------
    path : Path
        The folder of a session, or anything that `open_dataset` opens.
    include, divide
        As for `labels_of_session`; a dataset has its own splits.
    frames : Path, optional
        Where the frames of the session are, if not where they were.

    Yields
    ------
    LabelSet

    Raises
    ------
    InputError
        If there is nothing to export, or it cannot be opened.
    """
    if (path / DATABASE_NAME).is_file():
        with open_session(path, frames) as session:
            yield labels_of_session(session, include, divide=divide)
    else:
        yield labels_of_dataset(open_dataset(path))


def _own_file(sequence: FrameSequence, index: int) -> Path | None:
    return sequence.frames[index].source if isinstance(sequence, ImageFiles) else None
