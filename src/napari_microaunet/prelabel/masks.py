"""From a stored probability map to a mask at native size, without running the network.

The order of the steps: upsample, threshold, fill holes, drop polyps that are small or that the
model is nowhere sure of, number the others from largest to smallest.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor
from typing import TYPE_CHECKING, Self

import numpy as np
from PIL import Image
from scipy import ndimage

from napari_microaunet.editing.labels import WITH_DIAGONALS, filled
from napari_microaunet.frames.field_of_view import FieldOfView
from napari_microaunet.prelabel.probability import least_value

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_microaunet.networks.checkpoint import ModelCard
    from napari_microaunet.prelabel.probability import ProbabilityMap

# 255 is the ignore label, so 254 is the last polyp that a mask can hold.
_MOST_POLYPS = 254


@dataclass(frozen=True)
class MaskSettings:
    """How a probability map becomes a mask.

    Attributes
    ----------
    threshold : float
        A pixel is polyp where its probability is at least this, in [0, 1].
        Probability 0 never is.
    smallest_area : float
        A polyp is kept when it covers at least this share of the field of
        view, in [0, 1]: a share, because frames of one folder differ in size.
    fill_holes : bool
        Whether background that is enclosed by a polyp becomes polyp.
    largest_only : bool
        Whether only the largest polyp of a frame is kept.
    least_peak : float
        A polyp is kept when the probability reaches this somewhere in it, in
        [0, 1] (thresholding with hysteresis; Canny, doi:10.1109/TPAMI.1986.4767851):
        false alarms are pale all over, and a higher threshold for all pixels
        would take the rim of true polyps with them.

    Raises
    ------
    ValueError
        If `threshold`, `smallest_area` or `least_peak` is outside [0, 1].
    """

    threshold: float = 0.5
    smallest_area: float = 0.001
    fill_holes: bool = True
    largest_only: bool = False
    least_peak: float = 0.0

    def __post_init__(self) -> None:
        for name in ("threshold", "smallest_area", "least_peak"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")

    @classmethod
    def of(cls, card: ModelCard) -> Self:
        """Return the settings that a model was measured with."""
        return cls(card.threshold, least_peak=card.least_peak)


@dataclass(frozen=True, eq=False)
class Regions:
    """Connected pixels of a frame that reach a threshold, before any clean-up but holes.

    Attributes
    ----------
    part : FieldOfView
        The box of the frame that holds all of them.
    numbers : int32 array, shape (part's height, part's width)
        0 for background, 1 to n for the regions.
    areas : int array, shape (n,)
        Of each region, in native pixels.
    peaks : uint8 array, shape (n,)
        The highest value in each, 255 for probability 1.
    field_area : int
        Of the frame's field of view, in native pixels.
    """

    part: FieldOfView
    numbers: NDArray[np.int32]
    areas: NDArray[np.int64]
    peaks: NDArray[np.uint8]
    field_area: int

    def kept(self, settings: MaskSettings) -> NDArray[np.int64]:
        """Choose the regions that are polyps, by number and from the largest on.

        Parameters
        ----------
        settings : MaskSettings
            How small and how pale a polyp may be, and whether there is one only.
        """
        wanted = (self.areas >= settings.smallest_area * self.field_area) & (
            self.peaks >= least_value(settings.least_peak)
        )
        by_area = np.argsort(-self.areas, kind="stable")
        return by_area[wanted[by_area]][: 1 if settings.largest_only else _MOST_POLYPS] + 1


def mask_from(probability: ProbabilityMap, settings: MaskSettings) -> NDArray[np.uint8]:
    """Make the mask of a frame, polyps numbered from largest to smallest.

    The map is upsampled bilinearly to the field of view in native pixels.
    Pixels that touch at a corner belong to one polyp. Nothing outside the
    field of view is ever polyp.

    Parameters
    ----------
    probability : ProbabilityMap
        As kept by the predictor.
    settings : MaskSettings
        Threshold and clean-up.

    Returns
    -------
    uint8 array, shape (height, width)
        0 for background, 1 to n for the polyps; at most the 254 largest.
    """
    mask = np.zeros(probability.frame_shape, np.uint8)
    regions = regions_above(probability, settings.threshold, fill_holes=settings.fill_holes)
    if regions is None:
        return mask
    kept = regions.kept(settings)
    number_of = np.zeros(len(regions.areas) + 1, np.uint8)
    number_of[kept] = np.arange(1, len(kept) + 1)
    part = regions.part
    mask[part.top : part.bottom, part.left : part.right] = number_of[regions.numbers]
    return mask


def regions_above(
    probability: ProbabilityMap, threshold: float, *, fill_holes: bool
) -> Regions | None:
    """Find what may be polyps, for any clean-up.

    Parameters
    ----------
    probability : ProbabilityMap
        As kept by the predictor.
    threshold : float
        As in `MaskSettings`.
    fill_holes : bool
        Whether background that is enclosed by a region belongs to it.

    Returns
    -------
    Regions or None
        None where the whole map is below the threshold.
    """
    cutoff = least_value(threshold)
    part = _part_above(probability, cutoff)
    if part is None:
        return None
    values = _upsampled(probability, part)
    polyp = values >= cutoff
    if fill_holes:
        polyp = filled(polyp)
    numbers, count = ndimage.label(polyp, WITH_DIAGONALS)
    areas = np.bincount(numbers.ravel(), minlength=count + 1)[1:]
    # ndimage.maximum would sort all pixels.
    peaks = np.zeros(count + 1, np.uint8)
    np.maximum.at(peaks, numbers.ravel(), values.ravel())
    field = probability.field
    field_area = (field.bottom - field.top) * (field.right - field.left)
    return Regions(part, numbers, areas, peaks[1:], field_area)


def at_native_size(probability: ProbabilityMap) -> NDArray[np.uint8]:
    """Upsample a map bilinearly to its frame, as `mask_from` does.

    Parameters
    ----------
    probability : ProbabilityMap
        As kept by the predictor.

    Returns
    -------
    uint8 array, shape (height, width)
        255 for probability 1; 0 outside the field of view.
    """
    field = probability.field
    native = np.zeros(probability.frame_shape, np.uint8)
    native[field.top : field.bottom, field.left : field.right] = _upsampled(probability, field)
    return native


def _part_above(probability: ProbabilityMap, cutoff: int) -> FieldOfView | None:
    """Box of the frame, in native pixels, outside which no upsampled value reaches `cutoff`."""
    field = probability.field
    above = probability.values >= cutoff
    if not above.any():
        return None
    edges = []
    for axis, (start, end) in enumerate(((field.top, field.bottom), (field.left, field.right))):
        occupied = np.flatnonzero(above.any(axis=1 - axis))
        native_per_value = (end - start) / above.shape[axis]
        # A value reaches as far as the next centre when a map is enlarged, and as far as one
        # native pixel when it is reduced. Two pixels more leave a rim of background, which
        # tells holes from bays.
        reach = max(1.0, 1 / native_per_value)
        first = floor((occupied[0] - reach) * native_per_value) - 2
        last = ceil((occupied[-1] + 1 + reach) * native_per_value) + 2
        edges.append((start + max(0, first), min(end, start + last)))
    (top, bottom), (left, right) = edges
    return FieldOfView(top, left, bottom, right)


def _upsampled(probability: ProbabilityMap, part: FieldOfView) -> NDArray[np.uint8]:
    """Resize the map to native pixels, computing only the given part of the field of view."""
    field = probability.field
    down = probability.values.shape[0] / (field.bottom - field.top)
    across = probability.values.shape[1] / (field.right - field.left)
    resized = Image.fromarray(probability.values).resize(
        (part.right - part.left, part.bottom - part.top),
        Image.Resampling.BILINEAR,
        box=(
            (part.left - field.left) * across,
            (part.top - field.top) * down,
            min((part.right - field.left) * across, probability.values.shape[1]),
            min((part.bottom - field.top) * down, probability.values.shape[0]),
        ),
    )
    return np.asarray(resized)
