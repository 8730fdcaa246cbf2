"""Whether one model is better than another on the same frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from napari_microaunet.distillation.bootstrap import (
    Interval,
    bootstrap_interval,
    group_numbers,
)
from napari_microaunet.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_microaunet.distillation.scores import FrameScore


# With five, the two-sided signed-rank test cannot fall below p = 2 / 2**5, which is above 0.05,
# however alike the differences are; with six it is 0.03.
FEWEST_GROUPS = 6


@dataclass(frozen=True)
class Comparison:
    """The first model minus the second, frame by frame.

    Attributes
    ----------
    positives, negatives : int
        Frames with and without a polyp in their reference mask.
    dice : Interval or None
        Mean difference of Dice over the positive frames, above 0 where the first
        model is better. An interval that excludes 0 is a difference that other
        frames of this kind would show again. None when there is no positive frame.
    dice_p_value : float or None
        Two-sided Wilcoxon signed-rank test of those differences; of the mean
        differences of the groups, where frames come in groups, because the test
        wants observations that do not depend on one another. 1 when nothing differs.
    negatives_flagged : Interval or None
        Difference of the shares of negative frames flagged, below 0 where the
        first model is better. None when there is no negative frame.
    groups, negative_groups : int
        How many groups the positive and the negative frames are of. Below `FEWEST_GROUPS` no
        interval says anything.
    """

    positives: int
    negatives: int
    dice: Interval | None
    dice_p_value: float | None
    negatives_flagged: Interval | None
    groups: int
    negative_groups: int

    @property
    def doubts(self) -> list[str]:
        """Which differences prove nothing because frames are of too few groups, in sentences."""
        return [
            f"Difference of {what}: {proves_nothing(groups)}"
            for what, interval, groups in (
                ("Dice", self.dice, self.groups),
                ("false alarms", self.negatives_flagged, self.negative_groups),
            )
            if interval is not None and proves_nothing(groups)
        ]


def proves_nothing(groups: int) -> str:
    """Say why a difference over so few groups proves nothing; empty where there are enough.

    Parameters
    ----------
    groups : int
        How many groups (videos, scenes) the frames are of.
    """
    if groups >= FEWEST_GROUPS:
        return ""
    return (
        f"the frames are of {groups} video{'s' if groups > 1 else ''} or "
        f"scene{'s' if groups > 1 else ''}, and fewer than {FEWEST_GROUPS} prove nothing."
    )


@dataclass(frozen=True)
class FrameChange:
    """What another model made of one frame.

    Attributes
    ----------
    name : str
        The frame.
    before, after : float
        Dice of a positive frame; of a negative one, 1 where nothing is marked and 0 where
        something is.
    """

    name: str
    before: float
    after: float


def changes(before: Sequence[FrameScore], after: Sequence[FrameScore]) -> tuple[FrameChange, ...]:
    """List how frames changed, the most improved first.

    Parameters
    ----------
    before, after : sequence of FrameScore
        Of the same frames in any order.
    """
    earlier = {score.name: _merit(score) for score in before}
    found = [FrameChange(one.name, earlier[one.name], _merit(one)) for one in after]
    return tuple(sorted(found, key=lambda change: change.before - change.after))


def _merit(score: FrameScore) -> float:
    return float(not score.flagged) if score.dice is None else score.dice


def compare(first: Sequence[FrameScore], second: Sequence[FrameScore]) -> Comparison:
    """Compare two models by their scores of the same frames.

    Each resample of the bootstrap draws pairs, so that what is hard about a
    frame is hard for both and cancels out. Groups are drawn whole where frames
    have one; see `bootstrap_interval`.

    Parameters
    ----------
    first, second : sequence of FrameScore
        Of the same frames in any order; matched by name, groups are those of `first`.

    Returns
    -------
    Comparison

    Raises
    ------
    InputError
        If a frame is missing on one side, or was scored against another mask.
    """
    other_of = {score.name: score for score in second}
    unpaired = sorted({score.name for score in first} ^ other_of.keys())
    if unpaired:
        raise InputError(
            f'Only one of the two models was scored on frame "{unpaired[0]}" '
            f"({len(unpaired)} such in all): a paired comparison needs both models on every frame."
        )
    pairs = [(score, other_of[score.name]) for score in first]
    for one, other in pairs:
        if _polyp_pixels(one) != _polyp_pixels(other):
            raise InputError(
                f'Frame "{one.name}" was scored against two different reference masks: '
                "score both models against the same."
            )
    positives = [pair for pair in pairs if pair[0].positive]
    negatives = [pair for pair in pairs if not pair[0].positive]
    dice = _differences("dice", positives)
    groups = [one.group for one, _ in positives]
    return Comparison(
        positives=len(positives),
        negatives=len(negatives),
        dice=bootstrap_interval(dice, groups),
        dice_p_value=_p_value(dice, groups),
        negatives_flagged=bootstrap_interval(
            _differences("flagged", negatives), [one.group for one, _ in negatives]
        ),
        groups=len(set(groups)),
        negative_groups=len({one.group for one, _ in negatives}),
    )


def _differences(score: str, pairs: Sequence[tuple[FrameScore, FrameScore]]) -> NDArray[np.float64]:
    return np.array([getattr(one, score) - getattr(other, score) for one, other in pairs], float)


def _polyp_pixels(score: FrameScore) -> int:
    return score.true_positive + score.false_negative


def _p_value(differences: NDArray[np.float64], groups: Sequence[str]) -> float | None:
    if differences.size == 0:
        return None
    group_of = group_numbers(groups)
    means = np.bincount(group_of, differences) / np.bincount(group_of)
    return float(stats.wilcoxon(means).pvalue) if means.any() else 1.0
