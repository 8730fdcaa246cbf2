"""The review queue: in which order frames are looked at, and which of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from numpy.typing import NDArray

    from napari_microaunet.curation.session import ReviewState
    from napari_microaunet.curation.temporal import Finding

    Numbers = NDArray[np.intp]

# Maps are compared this many of the networks' 256 values to either side of an outline. With 3, the
# frames of the validation splits are ranked worse by it (benchmarks/review_queue.py).
_BAND = 8


class QueuedFrame(Protocol):
    """What the queue has to know of a frame; `FrameStatus` of a session knows it."""

    @property
    def index(self) -> int:
        """Number of the frame in its sequence."""

    @property
    def name(self) -> str:
        """Name of the frame."""

    @property
    def state(self) -> ReviewState:
        """How far the work on it has come."""

    @property
    def confidence(self) -> float | None:
        """How far its pre-label can be trusted, in [0, 1]."""

    @property
    def disagreement(self) -> float | None:
        """How far two models differ, from `disagreement`."""

    @property
    def note(self) -> str:
        """What the annotator has noted."""

    @property
    def reason(self) -> str | None:
        """Why the frame is excluded."""


@dataclass(frozen=True)
class Clues:
    """What the pictures and the sequence tell beside the state of each frame.

    Attributes
    ----------
    findings : mapping of int to sequence of Finding
        What `find_lapses` found, by frame (see `by_frame`).
    duplicates : int array, shape (number of frames,), or None
        The group of near-duplicates that each frame belongs to; `FrameLooks` has it.
    """

    findings: Mapping[int, Sequence[Finding]] = field(default_factory=dict)
    duplicates: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Order:
    """A way to order the queue.

    Attributes
    ----------
    title : str
        What it is called in the window.
    tooltip : str
        Which frames come first.
    rank : callable
        Gives each of the frames a number; small ones come first, equal ones in sequence.
    """

    title: str
    tooltip: str
    rank: Callable[[Sequence[QueuedFrame], Clues], NDArray[np.float64]]


def order_frames(name: str, frames: Sequence[QueuedFrame], clues: Clues | None = None) -> Numbers:
    """Order frames for review.

    Parameters
    ----------
    name : str
        A key of `ORDERS`.
    frames : sequence of QueuedFrame
        All frames of a session, or some; 20,000 take about 20 ms.
    clues : Clues, optional
        What the orders by findings and near-duplicates need; without them they are the
        order of the sequence.

    Returns
    -------
    int array, shape (number of frames,)
        Numbers of the frames, first to last.
    """
    indices = np.array([frame.index for frame in frames], np.intp)
    ranks = ORDERS[name].rank(frames, Clues() if clues is None else clues)
    return indices[np.lexsort((indices, ranks))]


def select(
    frames: Sequence[QueuedFrame],
    clues: Clues | None = None,
    *,
    states: Collection[ReviewState] | None = None,
    text: str = "",
    with_findings: bool = False,
) -> NDArray[np.bool_]:
    """Filter frames.

    Parameters
    ----------
    frames : sequence of QueuedFrame
    clues : Clues, optional
        Findings are looked up here.
    states : collection of ReviewState, optional
        Only frames in one of these.
    text : str
        Only frames whose name, note, reason of exclusion or findings contain it, in any case.
    with_findings : bool
        Only frames with findings.

    Returns
    -------
    bool array, shape (number of frames,)
        Which frames are left.
    """
    findings = Clues().findings if clues is None else clues.findings
    wanted = text.strip().casefold()

    def is_left(frame: QueuedFrame) -> bool:
        if states is not None and frame.state not in states:
            return False
        found = findings.get(frame.index, ())
        if with_findings and not found:
            return False
        if not wanted:
            return True
        texts = (frame.name, frame.note, frame.reason or "", *(one.text for one in found))
        return any(wanted in part.casefold() for part in texts)

    return np.array([is_left(frame) for frame in frames], bool)


def next_in_queue(
    order: Sequence[int] | Numbers, current: int, done: Collection[int]
) -> int | None:
    """Find the frame to look at next.

    Parameters
    ----------
    order : sequence of int
        Numbers of the frames in the order of the queue.
    current : int
        The frame on show; it need not be in the queue.
    done : collection of int
        Frames that need no look any more; best a set.

    Returns
    -------
    int or None
        The next frame after the current one that is not done, then from the start of the
        queue; None if all others are done.
    """
    numbers = [int(number) for number in order]
    after = numbers.index(current) + 1 if current in numbers else 0
    turned = numbers[after:] + numbers[:after]
    return next((n for n in turned if n != current and n not in done), None)


def disagreement(
    one: NDArray[np.uint8], other: NDArray[np.uint8], levels: tuple[int, int] = (128, 128)
) -> float:
    """Say how far two models differ in where a polyp ends.

    It is the soft Jaccard distance, 1 - sum(min) / sum(max), of their probabilities in the
    band around the outlines of both: 0 where they are the same, 1 where one model sees
    nothing at all at the outlines of the other. Deep inside a polyp and far from all nothing
    counts, so that a large polyp does not hide what its outline does.

    Parameters
    ----------
    one, other : uint8 arrays, shape (h, w)
        Probability maps of one frame and of the same size, 255 for a probability of 1.
    levels : (int, int)
        Values of either map from which on it says "polyp".

    Returns
    -------
    float
        In [0, 1]; 0 where neither has an outline.
    """
    band = np.zeros(one.shape, bool)
    around = np.ones((3, 3), bool)
    for values, level in zip((one, other), levels, strict=True):
        polyp = values >= level
        wide = ndimage.binary_dilation(polyp, around, _BAND)
        band |= wide & ~ndimage.binary_erosion(polyp, around, _BAND, border_value=True)
    highest = int(np.maximum(one, other)[band].sum(dtype=np.int64))
    if highest == 0:
        return 0.0
    return 1 - int(np.minimum(one, other)[band].sum(dtype=np.int64)) / highest


def _numbers(values: Sequence[float | None]) -> NDArray[np.float64]:
    """Make an array; what is not known is nan, which is sorted behind everything."""
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _in_sequence(frames: Sequence[QueuedFrame], _clues: Clues) -> NDArray[np.float64]:
    return np.zeros(len(frames))


def _least_confident(frames: Sequence[QueuedFrame], _clues: Clues) -> NDArray[np.float64]:
    return _numbers([frame.confidence for frame in frames])


def _most_disagreement(frames: Sequence[QueuedFrame], _clues: Clues) -> NDArray[np.float64]:
    return -_numbers([frame.disagreement for frame in frames])


def _most_findings(frames: Sequence[QueuedFrame], clues: Clues) -> NDArray[np.float64]:
    return -np.array([len(clues.findings.get(frame.index, ())) for frame in frames], np.float64)


def _near_duplicates(frames: Sequence[QueuedFrame], clues: Clues) -> NDArray[np.float64]:
    if clues.duplicates is None:
        return np.zeros(len(frames))
    groups = clues.duplicates[[frame.index for frame in frames]]
    _, first, where, counts = np.unique(
        groups, return_index=True, return_inverse=True, return_counts=True
    )
    return np.where(counts[where] > 1, first[where], np.inf)


ORDERS: dict[str, Order] = {
    "sequence": Order("Sequence", "Frames in the order of the sequence.", _in_sequence),
    "confidence": Order(
        "Least confident first",
        "Frames first whose pre-label can be trusted least; those without one come last.",
        _least_confident,
    ),
    "disagreement": Order(
        "Models disagree",
        "Frames first in which the two models differ most in where a polyp ends; those that\n"
        "have not been compared come last.",
        _most_disagreement,
    ),
    "findings": Order(
        "Findings first",
        "Frames first that do not fit their neighbours: a polyp vanishes or jumps, the picture\n"
        "is blank or stands still.",
        _most_findings,
    ),
    "duplicates": Order(
        "Near-duplicates together",
        "Frames that look almost the same stand together; those like no other come last.",
        _near_duplicates,
    ),
}
"""Every way to order the queue, by the name that settings keep."""
