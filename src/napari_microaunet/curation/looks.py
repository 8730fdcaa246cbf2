"""What the pictures of a sequence tell without any mask: cuts, blank frames, near-duplicates."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from napari_microaunet.curation.groups import merge_near_duplicates, stated_groups, thumbnail
from napari_microaunet.editing.shot_cuts import CUT, Look, look, picture_change
from napari_microaunet.errors import InputError
from napari_microaunet.frames.field_of_view import DARKEST_LIT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from napari_microaunet.frames import FieldOfView
    from napari_microaunet.frames.sequence import FrameSequence

# Frames are compared at this side length, where the noise of a camera is averaged out.
_SIDE = 64
# A frame less lit or flatter than this shows nothing. Of all frames of CVC-ClinicDB and PolypGen
# (1,486) the darkest is lit to 0.45, and the flattest has a contrast of 18.5.
_LEAST_LIT = 0.2
_LEAST_CONTRAST = 8.0
# Frames that each thread may be ahead of the one handed over.
_READ_AHEAD = 2


@dataclass(frozen=True, eq=False)
class FrameLook:
    """What is kept of a frame's picture.

    Attributes
    ----------
    index : int
        Number of the frame.
    thumbnail : float32 array, shape (32, 32)
        From `groups.thumbnail`; zeros where the frame could not be read.
    lit : float
        Share of the frame that is not dark, in [0, 1]; nan where it could not be read.
    contrast : float
        Standard deviation of the brightness of what is lit, in gray levels; nan likewise.
    change : float
        How much of the scene changes from the last frame before it that shows something, from
        `picture_change`; nan for the first one and where this one shows nothing.
    difference : float
        The largest difference to that frame, in gray levels, of 64 x 64 means; likewise.
    """

    index: int
    thumbnail: NDArray[np.float32]
    lit: float
    contrast: float
    change: float
    difference: float

    @property
    def is_blank(self) -> bool:
        """Whether the frame shows nothing: it is black, or of one colour."""
        return self.lit < _LEAST_LIT or self.contrast < _LEAST_CONTRAST

    @property
    def shows_something(self) -> bool:
        """Whether the frame could be read and is not blank."""
        return self.lit >= _LEAST_LIT and self.contrast >= _LEAST_CONTRAST


def look_over(sequence: FrameSequence) -> Iterator[FrameLook]:
    """Look at every frame of a sequence, in order.

    Threads read a few frames ahead. Closing the iterator cancels.

    Parameters
    ----------
    sequence : FrameSequence

    Yields
    ------
    FrameLook
    """
    # Of a video, one thread reads; more would overtake one another and make it seek.
    one_file = len({frame.source for frame in sequence.frames}) == 1
    readers = 1 if one_file else os.cpu_count() or 1
    pool = ThreadPoolExecutor(readers, "look")
    indices = iter(range(len(sequence)))
    underway = deque(
        (index, pool.submit(_read, sequence, index))
        for index in islice(indices, _READ_AHEAD * readers)
    )
    before: _Seen | None = None
    try:
        while underway:
            index, future = underway.popleft()
            seen = future.result()
            for following in islice(indices, 1):
                underway.append((following, pool.submit(_read, sequence, following)))
            found = _compared(index, seen, before)
            if found.shows_something:
                before = seen
            yield found
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def duplicates(looks: Sequence[FrameLook]) -> NDArray[np.int64]:
    """Group near-duplicates.

    Parameters
    ----------
    looks : sequence of FrameLook
        All frames of a sequence, in order.

    Returns
    -------
    int array, shape (number of frames,)
        The group of each frame.
    """
    thumbnails = np.stack([one.thumbnail for one in looks])
    return merge_near_duplicates(thumbnails, np.arange(len(looks)))


def clips(sequence: FrameSequence, looks: Sequence[FrameLook]) -> NDArray[np.int64]:
    """Tell which frames belong to one clip.

    A clip ends with the folder, with the sequence of a table ``sequences.csv``, and at a
    shot cut; frames that cannot be read or show nothing end none.

    Parameters
    ----------
    sequence : FrameSequence
    looks : sequence of FrameLook
        All its frames, in order.

    Returns
    -------
    int array, shape (number of frames,)
        Ascending from 0.

    Raises
    ------
    InputError
        If a table of sequences cannot be read.
    """
    # Frames beside each other in the folder opened may be of one video or of none.
    groups = [
        "" if group == frame.name else group
        for frame, group in zip(sequence.frames, stated_groups(sequence), strict=True)
    ]
    ends = [
        before != group or one.change > CUT
        for before, group, one in zip(groups, groups[1:], looks[1:], strict=False)
    ]
    return np.concatenate([[0], np.cumsum(ends, dtype=np.int64)])


@dataclass(frozen=True, eq=False)
class Glance:
    """A frame reduced to what tells blank, frozen and similar ones.

    Attributes
    ----------
    thumbnail, lit, contrast
        As in `FrameLook`.
    gray : float32 array, shape (64, 64)
        Means of the brightness, in gray levels.
    """

    thumbnail: NDArray[np.float32]
    gray: NDArray[np.float32]
    lit: float
    contrast: float

    @property
    def is_blank(self) -> bool:
        """Whether the frame shows nothing: it is black, or of one colour."""
        return self.lit < _LEAST_LIT or self.contrast < _LEAST_CONTRAST


class _Seen(NamedTuple):
    glance: Glance
    look: Look


def _read(sequence: FrameSequence, index: int) -> _Seen | None:
    """Reduce a frame; None if it cannot be read."""
    try:
        frame = sequence.read(index)
    except InputError:
        return None
    return _Seen(glance_at(frame, sequence.field_of_view(index)), look(frame))


def glance_at(frame: NDArray[np.uint8], field: FieldOfView) -> Glance:
    """Reduce a frame to what it is compared by.

    Parameters
    ----------
    frame : uint8 array, shape (height, width, 3)
        RGB.
    field : FieldOfView
        Its field of view.
    """
    small = Image.fromarray(frame).resize((_SIDE, _SIDE), Image.Resampling.BOX)
    lit = np.asarray(small).max(axis=2) > DARKEST_LIT
    gray = np.asarray(small.convert("L"), np.float32)
    contrast = float(gray[lit].std()) if lit.any() else 0.0
    return Glance(thumbnail(frame, field), gray, float(lit.mean()), contrast)


def _compared(index: int, seen: _Seen | None, before: _Seen | None) -> FrameLook:
    """Compare a frame with the last one that shows something."""
    if seen is None:
        nothing = np.zeros((32, 32), np.float32)
        return FrameLook(index, nothing, np.nan, np.nan, np.nan, np.nan)
    glance = seen.glance
    found = FrameLook(index, glance.thumbnail, glance.lit, glance.contrast, np.nan, np.nan)
    if before is None or found.is_blank:
        return found
    return replace(
        found,
        change=picture_change(before.look, seen.look),
        difference=float(np.abs(before.glance.gray - glance.gray).max()),
    )
