"""Temporal lint: frames that do not fit their neighbours.

Masks of one clip change little from frame to frame. Where one frame differs from both its
neighbours and these do not differ from each other, the mask is more often wrong than right.
Nothing is changed; findings say in words what to look at.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from napari_microaunet.curation.looks import FrameLook
    from napari_microaunet.curation.session import FrameStatus
    from napari_microaunet.frames.sequence import Frame

# Frames that a polyp may be missing in. Of a video these are a moment, in which nothing is gone.
LONGEST_GAP = 2
# An area that is so many times as large as in both neighbours, or as small. Of the expert masks of
# CVC-ClinicDB, whose sequences are thinned out to about a frame a second, 2 % are.
AREA_JUMP = 2.0
# A centre that is so far from those of both neighbours, as a share of the frame's diagonal, while
# theirs are not half as far from each other. Of the same masks, 1 % are.
POSITION_JUMP = 0.15
# Frames whose 64 x 64 means differ by no more than this many gray levels are one picture; of the
# 949 pairs of neighbours in CVC-ClinicDB and PolypGen's negative sequences none are.
FROZEN = 2.0


class FindingKind(Enum):
    """What does not fit; the value is what settings keep, `title` says it in words."""

    VANISHED = "vanished"
    AREA = "area"
    POSITION = "position"
    BLANK = "blank"
    FROZEN = "frozen"

    @property
    def title(self) -> str:
        """The same in words for the window."""
        return _TITLES[self]


_TITLES = {
    FindingKind.VANISHED: "a polyp vanishes",
    FindingKind.AREA: "the area jumps",
    FindingKind.POSITION: "the position jumps",
    FindingKind.BLANK: "a blank frame",
    FindingKind.FROZEN: "the picture stands still",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to look at.

    Attributes
    ----------
    index : int
        Number of the frame.
    kind : FindingKind
    text : str
        What does not fit, as a sentence.
    """

    index: int
    kind: FindingKind
    text: str


@dataclass(frozen=True, eq=False)
class MaskTrace:
    """What the masks of a sequence come to, frame by frame.

    Attributes
    ----------
    areas : float64 array, shape (n,)
        Polyp pixels as a share of the frame; nan where there is no mask yet.
    centres : float64 array, shape (n, 2)
        Row and column of the centre of all polyp pixels, as shares of the frame's diagonal;
        nan where there is no polyp.
    polyps : int64 array, shape (n,)
        How many polyps each mask holds; -1 where there is no mask yet.
    """

    areas: NDArray[np.float64]
    centres: NDArray[np.float64]
    polyps: NDArray[np.int64]


def trace_masks(frames: Sequence[Frame], statuses: Sequence[FrameStatus]) -> MaskTrace:
    """Collect what the masks of a session come to.

    Excluded frames, and those without a mask or not counted yet, count as without a mask.

    Parameters
    ----------
    frames : sequence of Frame
        All frames of a sequence.
    statuses : sequence of FrameStatus
        Theirs, in the same order.
    """
    # Enum members by value, so that this module needs no import of the session's.
    known = [
        status.origin.value != "none" and status.state.value != "excluded" for status in statuses
    ]
    return MaskTrace(
        np.array(
            [
                status.area / (frame.height * frame.width)
                if is_known and status.area is not None
                else np.nan
                for frame, status, is_known in zip(frames, statuses, known, strict=True)
            ],
            np.float64,
        ),
        np.array(
            [
                np.divide(status.centre, np.hypot(frame.height, frame.width))
                if is_known and status.centre is not None
                else (np.nan, np.nan)
                for frame, status, is_known in zip(frames, statuses, known, strict=True)
            ],
            np.float64,
        ).reshape(-1, 2),
        np.array(
            [
                status.polyps if is_known and status.polyps is not None else -1
                for status, is_known in zip(statuses, known, strict=True)
            ],
            np.int64,
        ),
    )


def find_lapses(
    trace: MaskTrace,
    clips: NDArray[np.int64],
    looks: Sequence[FrameLook] | None = None,
) -> list[Finding]:
    """Find frames that do not fit their neighbours in the same clip.

    Parameters
    ----------
    trace : MaskTrace
        Of all frames of a sequence.
    clips : int array, shape (n,)
        The clip that each frame belongs to, in ascending order; see `looks.clips`.
    looks : sequence of FrameLook, optional
        What was seen in the pictures; without it, blank and frozen frames are not found.

    Returns
    -------
    list of Finding
        By frame, then by kind; none, one or several for a frame.
    """
    findings = [
        *_vanished(trace, clips),
        *_area_jumps(trace, clips),
        *_position_jumps(trace, clips),
    ]
    if looks is not None:
        blank = {one.index for one in looks if one.is_blank}
        # Of a frame that shows nothing, there is nothing else to say.
        findings = [one for one in findings if one.index not in blank]
        findings += _blank(trace, clips, looks)
        findings += _frozen(trace, clips, looks)
    kinds = list(FindingKind)
    return sorted(findings, key=lambda one: (one.index, kinds.index(one.kind)))


def by_frame(findings: Iterable[Finding]) -> dict[int, list[Finding]]:
    """Collect findings by the number of their frame."""
    collected: dict[int, list[Finding]] = defaultdict(list)
    for finding in findings:
        collected[finding.index].append(finding)
    return dict(collected)


def _vanished(trace: MaskTrace, clips: NDArray[np.int64]) -> Iterator[Finding]:
    """Find masks with fewer polyps than the frames before and after them."""
    polyps = trace.polyps
    told: set[int] = set()
    for length in range(1, LONGEST_GAP + 1):
        starts = np.arange(1, len(polyps) - length)
        least = np.minimum(polyps[starts - 1], polyps[starts + length])
        gap = np.stack([polyps[starts + step] for step in range(length)])
        is_gap = (gap.min(axis=0) >= 0) & (gap.max(axis=0) < least)
        is_gap &= clips[starts - 1] == clips[starts + length]
        for start in starts[is_gap].tolist():
            around = f"{_polyps(least[start - 1])} in frames {start - 1} and {start + length}"
            for index in set(range(start, start + length)) - told:
                told.add(index)
                here = _polyps(polyps[index]).capitalize()
                yield Finding(index, FindingKind.VANISHED, f"{here} here, but {around}.")


def _area_jumps(trace: MaskTrace, clips: NDArray[np.int64]) -> Iterator[Finding]:
    """Find areas that are far larger or smaller than in both neighbours."""
    with np.errstate(divide="ignore", invalid="ignore"):
        areas = np.log(np.where(trace.areas > 0, trace.areas, np.nan))
    rise, fall = np.diff(areas)[:-1], -np.diff(areas)[1:]
    jump = np.minimum(np.abs(rise), np.abs(fall))
    is_jump = (jump > np.log(AREA_JUMP)) & (np.sign(rise) == np.sign(fall)) & _inside(clips)
    for place in np.flatnonzero(is_jump):
        size = "large" if rise[place] > 0 else "small"
        yield Finding(
            int(place) + 1,
            FindingKind.AREA,
            f"The polyps are {np.exp(jump[place]):.1f} times as {size} as in frames {place} and "
            f"{place + 2}.",
        )


def _position_jumps(trace: MaskTrace, clips: NDArray[np.int64]) -> Iterator[Finding]:
    """Find centres that are far from those of both neighbours."""
    centres = trace.centres
    steps = np.linalg.norm(np.diff(centres, axis=0), axis=1)
    around = np.linalg.norm(centres[2:] - centres[:-2], axis=1)
    jump = np.minimum(steps[:-1], steps[1:])
    is_jump = (jump > POSITION_JUMP) & (around < jump / 2) & _inside(clips)
    for place in np.flatnonzero(is_jump):
        yield Finding(
            int(place) + 1,
            FindingKind.POSITION,
            f"The polyps lie {100 * jump[place]:.0f} % of the frame's diagonal away from those in "
            f"frames {place} and {place + 2}.",
        )


def _blank(
    trace: MaskTrace, clips: NDArray[np.int64], looks: Sequence[FrameLook]
) -> Iterator[Finding]:
    """Find frames that show nothing, in clips in which other frames show a polyp."""
    positive = set(clips[trace.polyps > 0].tolist())
    for one in looks:
        if one.is_blank and int(clips[one.index]) in positive:
            yield Finding(
                one.index,
                FindingKind.BLANK,
                "The frame is blank, while others of its clip show a polyp.",
            )


def _frozen(
    trace: MaskTrace, clips: NDArray[np.int64], looks: Sequence[FrameLook]
) -> Iterator[Finding]:
    """Find frames that are the same picture as the one before."""
    for before, one in pairwise(looks):
        index = one.index
        # Only of the frame right before it, and in the same clip.
        if one.difference <= FROZEN and before.shows_something and clips[index] == clips[index - 1]:
            # Where one has no mask that counts, there is no other one.
            differ = abs(trace.areas[index] - trace.areas[index - 1]) > 0
            yield Finding(
                index,
                FindingKind.FROZEN,
                f"The same picture as frame {index - 1}{', with another mask' if differ else ''}.",
            )


def _inside(clips: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell for all frames but the first and last whether both neighbours are of their clip."""
    return np.asarray(clips[:-2] == clips[2:])


def _polyps(count: int) -> str:
    """Count polyps in words."""
    return {0: "no polyp", 1: "one polyp"}.get(count, f"{count} polyps")
