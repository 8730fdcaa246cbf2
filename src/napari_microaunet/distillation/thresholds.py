"""What a model finds and what it flags wrongly at each setting, and which one to choose."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from napari_microaunet.distillation.scores import Overlap
from napari_microaunet.frames.masks import IGNORE
from napari_microaunet.prelabel.masks import MaskSettings, regions_above

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_microaunet.prelabel.masks import Regions
    from napari_microaunet.prelabel.probability import ProbabilityMap

THRESHOLDS = tuple(step / 20 for step in range(1, 20))
# What a model's own settings are chosen from.
CANDIDATES = tuple(
    MaskSettings(threshold, least_peak=peak)
    for threshold in (0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9)
    for peak in (0.0, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97)
    if peak == 0 or peak > threshold
)


@dataclass(frozen=True)
class OperatingPoint:
    """What masks made with some settings come to over a set of frames.

    Attributes
    ----------
    threshold, least_peak : float
        Of the settings; see `MaskSettings`.
    dice : float or None
        Mean Dice over the positive frames; None when there is none.
    positives_found : float or None
        Share of positive frames where the mask meets the reference.
    negatives_flagged : float or None
        Share of negative frames where the mask is not empty; None when there is none.
    """

    threshold: float
    least_peak: float
    dice: float | None
    positives_found: float | None
    negatives_flagged: float | None


def overlaps_at(
    probability: ProbabilityMap, reference: NDArray[np.uint8], settings: Sequence[MaskSettings]
) -> list[Overlap]:
    """Hold the masks that several settings make of one map against the reference.

    The same as `scores.count_overlap` of every `masks.mask_from`, but settings of one threshold
    share the search for what may be polyps, which takes most of the time.

    Parameters
    ----------
    probability : ProbabilityMap
        As kept by the predictor.
    reference : uint8 array, shape (height, width)
        At native size: 0 for background, 255 for ignore, anything else is polyp.
    settings : sequence of MaskSettings
        How probabilities become masks.

    Returns
    -------
    list of Overlap
        One per settings.

    Raises
    ------
    ValueError
        If the frame and the reference differ in size.
    """
    if reference.shape != probability.frame_shape:
        raise ValueError(f"one size is needed: {probability.frame_shape}, {reference.shape}")
    counted = reference != IGNORE
    polyp = (reference > 0) & counted
    in_reference = int(np.count_nonzero(polyp))

    @cache
    def regions_and_pixels(threshold: float, fill_holes: bool) -> _Counted | None:
        regions = regions_above(probability, threshold, fill_holes=fill_holes)
        if regions is None:
            return None
        box = regions.part
        part = np.s_[box.top : box.bottom, box.left : box.right]
        counts = [
            np.bincount(regions.numbers[pixels[part]], minlength=len(regions.areas) + 1)
            for pixels in (polyp, counted)
        ]
        return _Counted(regions, *counts)

    overlaps = []
    for one in settings:
        found = regions_and_pixels(one.threshold, one.fill_holes)
        both = marked = 0
        if found is not None:
            kept = found.regions.kept(one)
            both, marked = int(found.in_both[kept].sum()), int(found.marked[kept].sum())
        overlaps.append(Overlap(both, marked - both, in_reference - both))
    return overlaps


class _Counted(NamedTuple):
    """Regions, and how many pixels of each are polyp in the reference, and counted at all."""

    regions: Regions
    in_both: NDArray[np.int64]
    marked: NDArray[np.int64]


class ThresholdCurve:
    """Sums over frames, per setting: memory does not grow with them.

    Parameters
    ----------
    settings : sequence of MaskSettings
        One per point of the curve.
    """

    def __init__(self, settings: Sequence[MaskSettings]) -> None:
        self._settings = settings
        self._positives = self._negatives = 0
        self._dice, self._found, self._flagged = np.zeros((3, len(settings)))

    def add(self, overlaps: Sequence[Overlap]) -> None:
        """Count one frame in.

        Parameters
        ----------
        overlaps : sequence of Overlap
            Of `overlaps_at`, with the settings of the curve.
        """
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
        """Return one point per setting, in the order in which they were given."""

        def mean(total: float, frames: int) -> float | None:
            return float(total) / frames if frames else None

        return tuple(
            OperatingPoint(
                settings.threshold,
                settings.least_peak,
                mean(dice, self._positives),
                mean(found, self._positives),
                mean(flagged, self._negatives),
            )
            for settings, dice, found, flagged in zip(
                self._settings, self._dice, self._found, self._flagged, strict=True
            )
        )


def choose_operating_point(
    curves: Sequence[Sequence[OperatingPoint]],
    most_negatives_flagged: float,
    found_within: float = 1.0,
) -> OperatingPoint:
    """Choose the settings with the best mean Dice that leave negative frames in peace.

    Dice and the share of positive frames found are averaged over the curves that
    hold positive frames, the share of flagged negatives over those that hold
    negative ones: one curve per validation set, so that a small set weighs as
    much as a large one. Of the settings that flag at most the given share of
    negatives, and find little less than any of them, those with the best Dice
    are taken. Where none is so quiet that share is disregarded: silencing
    that model would cost its polyps, too. Of equals the higher threshold is
    taken, which marks less.

    Parameters
    ----------
    curves : sequence of curves
        `ThresholdCurve.points` of each validation set, at the same settings.
    most_negatives_flagged : float
        In [0, 1].
    found_within : float
        How much smaller than the largest the share of positive frames found may be, in [0, 1]; by
        default Dice alone decides.

    Returns
    -------
    OperatingPoint
        Its scores are those means.

    Raises
    ------
    ValueError
        If the settings differ, or no curve holds a positive frame.
    """
    means: list[OperatingPoint] = []
    for row in zip(*curves, strict=True):
        if len({(point.threshold, point.least_peak) for point in row}) != 1:
            raise ValueError("curves at the same settings are needed")
        dice, found, flagged = (
            _mean([getattr(point, score) for point in row])
            for score in ("dice", "positives_found", "negatives_flagged")
        )
        means.append(OperatingPoint(row[0].threshold, row[0].least_peak, dice, found, flagged))

    quiet = [point for point in means if (point.negatives_flagged or 0.0) <= most_negatives_flagged]
    choice = quiet or means
    most_found = max(point.positives_found or 0.0 for point in choice)

    def merit(point: OperatingPoint) -> tuple[float, float, float]:
        if point.dice is None:
            raise ValueError("at least one curve with positive frames is needed")
        return point.dice, point.threshold, point.least_peak

    return max(
        (point for point in choice if (point.positives_found or 0.0) >= most_found - found_within),
        key=merit,
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
