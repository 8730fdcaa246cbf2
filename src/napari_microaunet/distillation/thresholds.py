"""What a model finds and what it flags wrongly at every threshold, and which one to choose."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_microaunet.distillation.scores import count_overlap
from napari_microaunet.prelabel.masks import mask_from

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_microaunet.prelabel.masks import MaskSettings
    from napari_microaunet.prelabel.probability import ProbabilityMap

THRESHOLDS = tuple(step / 20 for step in range(1, 20))


@dataclass(frozen=True)
class OperatingPoint:
    """What one threshold comes to over a set of frames.

    Attributes
    ----------
    threshold : float
        Probability from which on a pixel is polyp, in [0, 1].
    dice : float or None
        Mean Dice over the positive frames; None when there is none.
    positives_found : float or None
        Share of positive frames where the mask meets the reference.
    negatives_flagged : float or None
        Share of negative frames where the mask is not empty; None when there is none.
    """

    threshold: float
    dice: float | None
    positives_found: float | None
    negatives_flagged: float | None


class ThresholdCurve:
    """Sums over frames, per threshold, from probability maps: memory does not grow with them.

    Parameters
    ----------
    settings : MaskSettings
        The clean-up; its own threshold does not matter.
    thresholds : sequence of float
        In [0, 1].
    """

    def __init__(self, settings: MaskSettings, thresholds: Sequence[float] = THRESHOLDS) -> None:
        self._settings = [replace(settings, threshold=threshold) for threshold in thresholds]
        self._positives = self._negatives = 0
        self._dice, self._found, self._flagged = np.zeros((3, len(thresholds)))

    def add(self, probability: ProbabilityMap, reference: NDArray[np.uint8]) -> None:
        """Count one frame in.

        Parameters
        ----------
        probability : ProbabilityMap
            As kept by the predictor.
        reference : uint8 array, shape (height, width)
            At native size: 0 for background, 255 for ignore, anything else is polyp.
        """
        overlaps = [
            count_overlap(mask_from(probability, settings), reference)
            for settings in self._settings
        ]
        if not overlaps:
            return
        if overlaps[0].positive:
            self._positives += 1
            self._dice += [overlap.dice or 0.0 for overlap in overlaps]
            self._found += [overlap.found for overlap in overlaps]
        else:
            self._negatives += 1
            self._flagged += [overlap.flagged for overlap in overlaps]

    def points(self) -> tuple[OperatingPoint, ...]:
        """Return one point per threshold, in the order in which they were given."""

        def mean(total: float, frames: int) -> float | None:
            return float(total) / frames if frames else None

        return tuple(
            OperatingPoint(
                settings.threshold,
                mean(dice, self._positives),
                mean(found, self._positives),
                mean(flagged, self._negatives),
            )
            for settings, dice, found, flagged in zip(
                self._settings, self._dice, self._found, self._flagged, strict=True
            )
        )


def choose_threshold(
    curves: Sequence[Sequence[OperatingPoint]], most_negatives_flagged: float
) -> float:
    """Choose the threshold with the best mean Dice that leaves negative frames in peace.

    Dice is averaged over the curves that hold positive frames, the share of
    flagged negatives over those that hold negative ones: one curve per
    validation set, so that a small set weighs as much as a large one. Of the
    thresholds that flag at most the given share of negatives the one with the
    best Dice is taken. Where there is no such threshold the share is
    disregarded: silencing that model would cost its polyps, too. Of equals the
    higher threshold is taken, which marks less.

    Parameters
    ----------
    curves : sequence of curves
        `ThresholdCurve.points` of each validation set, at the same thresholds.
    most_negatives_flagged : float
        In [0, 1].

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If the thresholds differ, or no curve holds a positive frame.
    """
    rows = list(zip(*curves, strict=True))
    if any(len({point.threshold for point in row}) != 1 for row in rows):
        raise ValueError("curves at the same thresholds are needed")
    candidates: list[tuple[bool, float, float]] = []
    for row in rows:
        dice = [point.dice for point in row if point.dice is not None]
        if not dice:
            raise ValueError("at least one curve with positive frames is needed")
        flagged = [p.negatives_flagged for p in row if p.negatives_flagged is not None]
        quiet = not flagged or bool(np.mean(flagged) <= most_negatives_flagged)
        candidates.append((quiet, float(np.mean(dice)), row[0].threshold))
    return max(candidates)[2]
