"""The 95 % bootstrap interval of a mean over frames that may resemble each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_RESAMPLES = 10_000
_SEED = 0


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % percentile bootstrap interval."""

    mean: float
    low: float
    high: float


def bootstrap_interval(values: NDArray[np.float64], groups: Sequence[str]) -> Interval | None:
    """Mean of per-frame values with its 95 % percentile bootstrap interval.

    10,000 resamples, seeded. Whole groups are drawn, not frames (cluster
    bootstrap, Davison and Hinkley 1997, section 3.8): frames of one clip resemble
    each other, and drawn one by one they would promise a precision that is not
    there. Every frame weighs the same in the mean, so a long clip weighs more
    than a short one.

    Parameters
    ----------
    values : float array, shape (n,)
        One value per frame.
    groups : sequence of str, length n
        The group of each frame; a name of its own for a frame that resembles no
        other. See `group_numbers`.

    Returns
    -------
    Interval or None
        None for no values; of a single value the interval is that value.
    """
    if values.size == 0:
        return None
    mean = float(values.mean())
    if values.size == 1:
        return Interval(mean, mean, mean)
    group_of = group_numbers(groups)
    result = stats.bootstrap(
        (np.bincount(group_of, values), np.bincount(group_of)),
        _mean_of_groups,
        paired=True,
        n_resamples=_RESAMPLES,
        batch=500,
        confidence_level=0.95,
        method="percentile",
        rng=np.random.default_rng(_SEED),
    )
    # In order even where all resamples are equal but for their rounding.
    low, high = sorted(map(float, result.confidence_interval))
    return Interval(mean, low, high)


def group_numbers(groups: Sequence[str]) -> NDArray[np.intp]:
    """Give each frame the number of its group.

    Parameters
    ----------
    groups : sequence of str, length n
        The group of each frame.

    Returns
    -------
    int array, shape (n,)
        Equal where the names are; of a single group every frame gets a number of
        its own, for want of anything else that could be drawn.
    """
    names, numbers = np.unique(np.asarray(groups), return_inverse=True)
    return np.arange(len(groups)) if len(names) == 1 else numbers


def _mean_of_groups(
    sums: NDArray[np.float64], frames: NDArray[np.int64], axis: int
) -> NDArray[np.float64]:
    mean: NDArray[np.float64] = sums.sum(axis=axis) / frames.sum(axis=axis)
    return mean
