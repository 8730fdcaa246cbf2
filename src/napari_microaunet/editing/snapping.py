"""Snapping: polyp outlines are pulled to the strongest image edge nearby.

The frame is unrolled along the normals of the outline, so that a closed curve
around the polyp becomes a path through a rectangle. A log-linear model says
what makes a place likely to be the polyp's edge; dynamic programming finds the
closed path that is likeliest and smooth. Chosen by measurement against a graph
cut and a geodesic active contour: ``benchmarks/snapping.py``.
"""

from __future__ import annotations

from math import ceil, pi, sqrt
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from napari_microaunet.editing.band import closed_path, unroll
from napari_microaunet.editing.labels import boxes_of, filled, parts_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_microaunet.editing.labels import Mask, Region

# Nats that a unit of each of `Band.evidence` is worth, without and with a probability map: fitted
# by ``benchmarks/snapping.py --fit --frames 40`` to expert masks of training frames, disturbed on
# purpose.
WEIGHTS = (-0.686, 0.997, 0.183, 0.128, 0.423)
WEIGHTS_WITH_MODEL = (-0.707, 0.853, 0.248, -0.045, 0.174, 8.655, 0.043)
# Nats that a step aside costs the path. Errors of neighbouring places go together, so that it
# is more than their independent likelihoods would say; the best on training frames.
_STEP_ASIDE = 2.0
# More than any evidence is worth.
_FORBIDDEN = 1e3
# Standard deviation, in steps along the outline, that rounds off the stairs of whole steps.
_STAIRS = 1.5
# By default the band is this share of the radius of a disc as large as the polyp, but at least
# so many pixels.
_DEFAULT_SHARE = 0.2
_NARROWEST = 3.0
# Parts of fewer pixels have no outline to speak of.
_SMALLEST = 20


def default_band(area: float) -> float:
    """Return how far the outline of a polyp of so many pixels may move by default, in pixels."""
    return max(_NARROWEST, _DEFAULT_SHARE * sqrt(area / pi))


def snap(
    mask: Mask,
    label: int | None,
    frame: NDArray[np.uint8],
    band: float | None = None,
    probability: NDArray[np.uint8] | None = None,
) -> Mask:
    """Pull the outlines of polyps to the strongest image edge inside a band.

    Only background and the polyp itself change, and only inside the band. Each
    part of a polyp stays in one part and keeps its holes. An outline that runs
    along the frame's edge stays there. Parts of less than 20 pixels stay as they are.
    Where the band is so wide that it could cut a polyp in two, it is narrowed.

    Parameters
    ----------
    mask : uint8 array, shape (height, width)
        0 background, 1 to 254 polyps, 255 ignore. Stays as it is.
    label : int or None
        Number of the polyp; None for all.
    frame : uint8 array, shape (height, width, 3)
        RGB.
    band : float, optional
        How far the outline may move, in pixels, more than 0; `default_band` by
        default.
    probability : uint8 array, shape (height, width), optional
        The frame's probability map at native size, 255 for probability 1. With
        it, the model's belief counts beside the image.

    Returns
    -------
    uint8 array, shape (height, width)

    Raises
    ------
    ValueError
        If sizes differ, `band` is not above 0 or `label` is no polyp's number.
    """
    shapes = {array.shape[:2] for array in (mask, frame, probability) if array is not None}
    if len(shapes) > 1:
        raise ValueError(f"mask, frame and probability map differ in size: {shapes}")
    if band is not None and not band > 0:
        raise ValueError(f"the band must be wider than 0 pixels, got {band}")
    snapped = mask.copy()
    for number, box in boxes_of(mask, label):
        parts, areas = parts_of(mask[box] == number)
        for part, area in enumerate(areas, start=1):
            if area < _SMALLEST:
                continue
            region = np.zeros(mask.shape, bool)
            region[box] = parts == part
            allowed = (snapped == 0) | region
            width = band or default_band(area)
            while (moved := _moved(region, allowed, frame, width, probability)) is None:
                width /= 2
            snapped[region] = 0
            snapped[moved] = number
    return snapped


def _moved(
    region: Region,
    allowed: Region,
    frame: NDArray[np.uint8],
    width: float,
    probability: NDArray[np.uint8] | None,
) -> Region | None:
    """Move the outline of a connected region; None where that would cut the region in two."""
    margin = ceil(2 * width) + 2
    sides = [
        np.arange(occupied[0] - margin, occupied[-1] + margin + 1)
        for occupied in (np.flatnonzero(region.any(axis=axis)) for axis in (1, 0))
    ]
    # Beyond the frame its outermost pixels go on, so that the frame's edge is no outline.
    around = np.ix_(*(side.clip(0, end - 1) for side, end in zip(sides, region.shape, strict=True)))
    solid = filled(region[around])
    band = unroll(solid, frame[around], width, None if probability is None else probability[around])
    weights = WEIGHTS if probability is None else WEIGHTS_WITH_MODEL
    cost = band.crossed * _FORBIDDEN - band.evidence @ np.asarray(weights, np.float32)
    path = band.offsets[closed_path(cost, _STEP_ASIDE)]
    path = ndimage.gaussian_filter1d(path, _STAIRS, mode="wrap")

    edge = solid & ~ndimage.binary_erosion(solid, border_value=1)
    # To the nearest pixel on the other side of the outline, or a little more.
    movable = ndimage.distance_transform_edt(~edge) + solid <= width
    near = np.argwhere(movable)
    _, nearest = KDTree(band.outline).query(near)
    outwards = ((near - band.outline[nearest]) * band.normals[nearest]).sum(axis=1)
    moved = solid.copy()
    moved[movable] = outwards <= path[nearest]
    moved |= filled(moved) & movable
    moved &= allowed[around] & ~(solid & ~region[around])

    real = [(side >= 0) & (side < end) for side, end in zip(sides, region.shape, strict=True)]
    moved, movable = moved[np.ix_(*real)], movable[np.ix_(*real)]
    pieces, sizes = parts_of(moved)
    cores = np.unique(pieces[moved & ~movable])
    if len(cores) > 1:
        return None
    if not sizes.size:
        return region
    largest = cores[0] if len(cores) else sizes.argmax() + 1
    snapped = region.copy()
    inside = np.ix_(*(side[known] for side, known in zip(sides, real, strict=True)))
    snapped[inside] = pieces == largest
    return snapped
