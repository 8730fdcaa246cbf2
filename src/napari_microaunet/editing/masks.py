"""Mask operations: grow, shrink, smooth, fill, split, merge, renumber, delete, ignore.

Every operation takes a mask and the number of one polyp, or None for all, and
returns a new mask. Its rules:

- only background and the polyps in question change, so polyps never run into
  one another;
- ignore (255) stays as it is, unless the operation is about ignore;
- a polyp of which nothing is left is deleted: its number is missing from
  `labels_of` the result;
- a number that no polyp has changes nothing.

What lies under ignore and outside the frame is not known. An outline that runs
along either stays there when a polyp is shrunk or smoothed: a polyp that the
frame's edge cuts off still ends at the frame's edge.

Masks are uint8 arrays of shape (height, width): 0 background, 1 to 254 polyps,
255 ignore. Distances are Euclidean, between the centres of pixels.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from napari_microaunet.editing.labels import (
    IGNORE,
    WITH_DIAGONALS,
    areas_of,
    box_of,
    boxes_of,
    filled,
    free_labels,
    labels_of,
    parts_of,
    pixels_of,
    polyps_in,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from napari_microaunet.editing.labels import Mask, Region

# A Gaussian of this standard deviation takes away bars narrower than 1: at the middle of a
# longer bar it leaves erf(0.5 / (sqrt(2) sigma)), which is 0.5 for this value.
_SIGMA_FOR_WIDTH = 1 / 1.349
_GAUSSIAN_REACH = 3.0
# Against division by zero, deep inside ignored regions.
_LEAST_KNOWN = 1e-6
# How much longer than the gap the way over a pixel of a bridge may be. Between discs of radius r,
# the bridge is then about 2 sqrt(2 r) wide.
_BRIDGE_SLACK = 2.0


def grow(mask: Mask, label: int | None, pixels: float) -> Mask:
    """Let polyps take the background around them.

    Where several are near, each pixel goes to the nearest. Growth ends at
    other polyps, at ignore and at the frame's edge, and does not reappear
    behind them.

    Parameters
    ----------
    mask : uint8 array, shape (height, width)
        Stays as it is.
    label : int or None
        Number of the polyp; None for all.
    pixels : float
        How far, at least 0.

    Returns
    -------
    uint8 array, shape (height, width)
    """
    grown = mask.copy()
    chosen = polyps_in(mask) if label is None else pixels_of(mask, label)
    box = box_of(chosen, ceil(pixels))
    if box is None:
        return grown
    before, part = mask[box], grown[box]
    distance, nearest = ndimage.distance_transform_edt(~chosen[box], return_indices=True)
    reached = (before == 0) & (distance <= pixels)
    part[reached] = before[tuple(nearest)][reached]
    for number, inner in boxes_of(part, label):
        now = part[inner]
        pieces, areas = parts_of(now == number)
        joined = np.zeros(len(areas) + 1, bool)
        joined[pieces[before[inner] == number]] = True
        now[(now == number) & ~joined[pieces]] = 0
    return grown


def shrink(mask: Mask, label: int | None, pixels: float) -> Mask:
    """Turn the rim of polyps into background.

    The rim is what lies within this distance of background or another polyp.

    Parameters
    ----------
    mask : uint8 array, shape (height, width)
        Stays as it is.
    label : int or None
        Number of the polyp; None for all.
    pixels : float
        How wide a rim, at least 0.

    Returns
    -------
    uint8 array, shape (height, width)
        Without the polyps that were all rim.
    """
    shrunk = mask.copy()
    for number, box in boxes_of(mask, label, ceil(pixels) + 1):
        before = mask[box]
        own = before == number
        inside = own | (before == IGNORE)
        if not inside.all():
            shrunk[box][own & (ndimage.distance_transform_edt(inside) <= pixels)] = 0
    return shrunk


def smooth(mask: Mask, label: int | None, width: float) -> Mask:
    """Round off what is narrower than a width, and keep the area.

    The polyp is blurred by a Gaussian; as many pixels as it had, those with
    the highest values, are the new polyp. That is one step of curvature motion
    that preserves area (Ruuth & Wetton, J Sci Comput 19, 2003).

    Parameters
    ----------
    mask : uint8 array, shape (height, width)
        Stays as it is.
    label : int or None
        Number of the polyp; None for all, one after the other.
    width : float
        Bumps and bays narrower than this vanish, in pixels; at least 0.

    Returns
    -------
    uint8 array, shape (height, width)
        The area grows only by pixels whose blurred values are equal.
    """
    smoothed = mask.copy()
    sigma = width * _SIGMA_FOR_WIDTH
    for number, box in boxes_of(mask, label, ceil(_GAUSSIAN_REACH * sigma)):
        part = smoothed[box]
        own = part == number
        share = _blurred(own, sigma)
        if (part == IGNORE).any():
            share /= np.maximum(_blurred(part != IGNORE, sigma), _LEAST_KNOWN)
        # What one polyp has just given up is not for the next.
        share[~own & ((part != 0) | (mask[box] != 0))] = 0
        area = np.count_nonzero(own)
        least = np.partition(share, -area, axis=None)[-area]
        part[own] = 0
        part[share >= least] = number
    return smoothed


def fill_holes(mask: Mask, label: int | None) -> Mask:
    """Turn background that a polyp encloses into polyp.

    Background that only the polyp and the frame's edge enclose together is a
    bay and stays.

    Parameters
    ----------
    mask : uint8 array, shape (height, width)
        Stays as it is.
    label : int or None
        Number of the polyp; None for all.

    Returns
    -------
    uint8 array, shape (height, width)
    """
    full = mask.copy()
    for number, box in boxes_of(mask, label):
        part = full[box]
        part[filled(part == number) & (part == 0)] = number
    return full


def remove_specks(mask: Mask, label: int | None, smallest: float) -> Mask:
    """Turn small parts of polyps into background.

    Parameters
    ----------
    mask : uint8 array, shape (height, width)
        Stays as it is.
    label : int or None
        Number of the polyp; None for all.
    smallest : float
        Parts of fewer pixels than this go.

    Returns
    -------
    uint8 array, shape (height, width)
        Without the polyps that had no larger part.
    """
    clean = mask.copy()
    for number, box in boxes_of(mask, label):
        part = clean[box]
        parts, areas = parts_of(part == number)
        part[np.concatenate([[False], areas < smallest])[parts]] = 0
    return clean


def keep_largest(mask: Mask, label: int | None) -> Mask:
    """Keep only the largest part of a polyp, or only the largest part in the frame.

    Parameters
    ----------
    mask : uint8 array, shape (height, width)
        Stays as it is.
    label : int or None
        Number of the polyp whose other parts become background; None to
        keep one part of one polyp in the whole frame.

    Returns
    -------
    uint8 array, shape (height, width)
    """
    kept = mask.copy()
    largest_parts = []
    for number, box in boxes_of(mask, label):
        parts, areas = parts_of(mask[box] == number)
        largest_parts.append((areas.max(), number, box, parts == areas.argmax() + 1))
    if largest_parts:
        _, number, box, part = max(largest_parts, key=lambda found: found[0])
        kept[polyps_in(mask) if label is None else pixels_of(mask, label)] = 0
        kept[box][part] = number
    return kept


def split(mask: Mask, label: int | None) -> Mask:
    """Make every part of a polyp a polyp of its own.

    Parameters
    ----------
    mask : uint8 array, shape (height, width)
        Stays as it is.
    label : int or None
        Number of the polyp; None for all.

    Returns
    -------
    uint8 array, shape (height, width)
        The largest part keeps the number, the others get the free numbers in
        order of size. When those have run out, the rest keeps the old number.
    """
    divided = mask.copy()
    free = iter(free_labels(mask))
    for number, box in boxes_of(mask, label):
        parts, areas = parts_of(mask[box] == number)
        _renamed_parts(divided[box], parts, areas, free)
    return divided


def merge(mask: Mask, label: int | None, gap: float) -> Mask:
    """Make a polyp and its nearest neighbour one polyp, or all polyps one.

    Parameters
    ----------
    mask : uint8 array, shape (height, width)
        Stays as it is.
    label : int or None
        Number of the polyp, which the neighbour takes over; None for all
        polyps, which take over the lowest number.
    gap : float
        As in `merge_polyps`.

    Returns
    -------
    uint8 array, shape (height, width)
    """
    if label is None:
        return merge_polyps(mask, labels_of(mask), gap)
    own = pixels_of(mask, label)
    others = polyps_in(mask) & ~own
    box = box_of(own | others)
    if box is None or not own.any() or not others.any():
        return mask.copy()
    own, others = own[box], others[box]
    # The shortest way leads from rim to rim, of which there is much less than of pixels.
    rims = _rim(others)
    row, column = rims[KDTree(_rim(own)).query(rims)[0].argmin()]
    return merge_polyps(mask, [label, int(mask[box][row, column])], gap)


def merge_polyps(mask: Mask, labels: Sequence[int], gap: float) -> Mask:
    """Make several polyps one.

    Parameters
    ----------
    mask : uint8 array, shape (height, width)
        Stays as it is.
    labels : sequence of int
        Their numbers; all take over the first.
    gap : float
        The nearest ones of them are joined by bridges where at most this many
        pixels of background lie between; 0 for no bridges.

    Returns
    -------
    uint8 array, shape (height, width)
    """
    merged = mask.copy()
    waiting = np.isin(mask, labels)
    if gap == 0 and waiting.any():
        merged[waiting] = labels[0]
        return merged
    # As far as a bridge may reach; further away it stays infinite.
    to_merged = np.full(mask.shape, np.inf)
    reach = ceil(gap + _BRIDGE_SLACK) + 1
    while waiting.any():
        rows, columns = np.nonzero(waiting)
        nearest = to_merged[rows, columns].argmin()
        shortest = to_merged[rows[nearest], columns[nearest]]
        label = int(mask[rows[nearest], columns[nearest]])
        ((_, box),) = boxes_of(mask, label, reach)
        own = mask[box] == label
        to_own = ndimage.distance_transform_edt(~own)
        way = to_own + to_merged[box]
        # Side by side, centres are one pixel apart and no background lies between.
        if 1 < shortest <= gap + 1:
            merged[box][(mask[box] == 0) & (way <= shortest + _BRIDGE_SLACK)] = labels[0]
        merged[box][own] = labels[0]
        waiting[box][own] = False
        to_merged[box] = np.minimum(to_merged[box], to_own)
    return merged


def renumber(mask: Mask, label: int | None) -> Mask:
    """Give the polyps new numbers: 1 to n from the largest to the smallest.

    Parameters
    ----------
    mask : uint8 array, shape (height, width)
        Stays as it is.
    label : int or None
        Number of a polyp that shall become number 1 whatever its size.

    Returns
    -------
    uint8 array, shape (height, width)
    """
    areas = areas_of(mask)
    order = sorted(areas, key=lambda number: (number != label, -areas[number]))
    new = np.arange(IGNORE + 1, dtype=np.uint8)
    new[order] = np.arange(1, len(order) + 1)
    return new[mask]


def delete(mask: Mask, label: int | None) -> Mask:
    """Turn a polyp, or all, into background.

    Parameters
    ----------
    mask : uint8 array, shape (height, width)
        Stays as it is.
    label : int or None
        Number of the polyp; None for all.

    Returns
    -------
    uint8 array, shape (height, width)
    """
    return np.where(_chosen(mask, label), np.uint8(0), mask)


def polyp_to_ignore(mask: Mask, label: int | None) -> Mask:
    """Turn a polyp, or all, into ignore.

    Parameters
    ----------
    mask : uint8 array, shape (height, width)
        Stays as it is.
    label : int or None
        Number of the polyp; None for all.

    Returns
    -------
    uint8 array, shape (height, width)
    """
    return np.where(_chosen(mask, label), np.uint8(IGNORE), mask)


def ignore_to_polyp(mask: Mask, label: int | None) -> Mask:
    """Turn ignored regions that touch polyps into polyp, as glare on a polyp should be.

    Parameters
    ----------
    mask : uint8 array, shape (height, width)
        Stays as it is.
    label : int or None
        Number of the polyp; None for all: each region goes to the polyp that
        most of its rim touches.

    Returns
    -------
    uint8 array, shape (height, width)
    """
    regions, count = ndimage.label(mask == IGNORE, WITH_DIAGONALS)
    contact = np.zeros((IGNORE, count + 1), int)
    for number, box in boxes_of(mask, label, 1):
        around = ndimage.binary_dilation(mask[box] == number, WITH_DIAGONALS)
        contact[number] = np.bincount(regions[box][around], minlength=count + 1)
    owner = np.where(contact.any(axis=0), contact.argmax(axis=0), IGNORE).astype(np.uint8)
    return np.where(mask == IGNORE, owner[regions], mask)


def ignore_to_background(mask: Mask, label: int | None) -> Mask:
    """Turn ignored regions into background.

    Parameters
    ----------
    mask : uint8 array, shape (height, width)
        Stays as it is.
    label : int or None
        Number of a polyp: only regions that touch it; None for all regions.

    Returns
    -------
    uint8 array, shape (height, width)
    """
    gone = mask == IGNORE
    if label is not None:
        gone &= ignore_to_polyp(mask, label) == label
    return np.where(gone, np.uint8(0), mask)


def _blurred(region: Region, sigma: float) -> NDArray[np.float32]:
    """Blur a region, which goes on beyond the frame's edge as it is there."""
    blurred: NDArray[np.float32] = ndimage.gaussian_filter(
        region.astype(np.float32), sigma, mode="nearest", truncate=_GAUSSIAN_REACH
    )
    return blurred


def _rim(region: Region) -> NDArray[np.intp]:
    """List the pixels of a region that have a side in common with what is outside of it."""
    wide = np.pad(region, 1)
    inner = wide[2:, 1:-1] & wide[:-2, 1:-1] & wide[1:-1, 2:] & wide[1:-1, :-2]
    return np.argwhere(region & ~inner)


def _chosen(mask: Mask, label: int | None) -> Region:
    return polyps_in(mask) if label is None else pixels_of(mask, label)


def _renamed_parts(
    mask: Mask, parts: NDArray[np.int32], areas: NDArray[np.intp], free: Iterator[int]
) -> None:
    """Give all parts but the largest a free number, as long as there are any."""
    for part, number in zip(np.argsort(-areas, kind="stable")[1:] + 1, free, strict=False):
        mask[parts == part] = number
