"""What the numbers in a mask mean, and how its polyps are found."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Mask = NDArray[np.uint8]
    Region = NDArray[np.bool_]
    Box = tuple[slice, slice]

# As `frames.masks.IGNORE`, which this package does not know: editing knows only arrays.
IGNORE = 255
# Pixels that touch at a corner belong to one part, as when pre-labels are made.
WITH_DIAGONALS = np.ones((3, 3), bool)


def labels_of(mask: Mask) -> list[int]:
    """List the numbers of the polyps in a mask, in ascending order.

    Parameters
    ----------
    mask : uint8 array, shape (height, width)
        0 background, 1 to 254 polyps, 255 ignore.

    Returns
    -------
    list of int
        Each in 1 to 254.
    """
    return [int(label) for label in np.flatnonzero(_counts(mask)[1:IGNORE]) + 1]


def free_labels(mask: Mask) -> list[int]:
    """List the numbers that no polyp of a mask has, in ascending order, each in 1 to 254."""
    return [int(label) for label in np.flatnonzero(_counts(mask)[1:IGNORE] == 0) + 1]


def areas_of(mask: Mask) -> dict[int, int]:
    """Count the pixels of every polyp of a mask, by number."""
    counts = _counts(mask)[:IGNORE].tolist()
    return {label: count for label, count in enumerate(counts) if label and count}


def label_at(mask: Mask, point: tuple[float, float], reach: float) -> int | None:
    """Find the polyp under the cursor or, where there is none, the nearest one.

    Parameters
    ----------
    mask : uint8 array, shape (height, width)
        0 background, 1 to 254 polyps, 255 ignore.
    point : (float, float)
        Row and column; pixel centres have whole numbers. May lie outside the frame.
    reach : float
        How far, in pixels, the centre of the polyp's nearest pixel may be
        from the centre of the pixel under the cursor.

    Returns
    -------
    int or None
        Number of the polyp, 1 to 254; None where there is none within reach.
    """
    row, column = round(point[0]), round(point[1])
    top, left = max(0, row - ceil(reach)), max(0, column - ceil(reach))
    near = mask[top : max(0, row + ceil(reach) + 1), left : max(0, column + ceil(reach) + 1)]
    rows, columns = np.nonzero(polyps_in(near))
    distances = np.hypot(rows + top - row, columns + left - column)
    if not distances.size or distances.min() > reach:
        return None
    nearest = distances.argmin()
    return int(near[rows[nearest], columns[nearest]])


def polyps_in(mask: Mask) -> Region:
    """Mark what is polyp of any number: neither background nor ignore."""
    return np.asarray((mask != 0) & (mask != IGNORE))


def box_of(region: Region, margin: int = 0) -> Box | None:
    """Find the smallest box that holds a region and a margin, as far as the frame reaches.

    Parameters
    ----------
    region : bool array, shape (height, width)
        What the box is to hold.
    margin : int
        Pixels added on every side, at least 0.

    Returns
    -------
    (slice, slice) or None
        Rows and columns; None where the region is empty.
    """
    rows = np.flatnonzero(region.any(axis=1))
    if not rows.size:
        return None
    columns = np.flatnonzero(region[rows[0] : rows[-1] + 1].any(axis=0))
    tight = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
    return widened(tight, margin, region.shape)


def widened(box: Box, margin: int, shape: tuple[int, ...]) -> Box:
    """Add a margin to a box on every side, as far as a frame of this shape reaches."""
    rows, columns = (
        slice(max(0, side.start - margin), min(length, side.stop + margin))
        for side, length in zip(box, shape, strict=True)
    )
    return rows, columns


def boxes_of(mask: Mask, label: int | None, margin: int = 0) -> Iterator[tuple[int, Box]]:
    """Go through one polyp or all, each with the box that holds it and a margin.

    Parameters
    ----------
    mask : uint8 array, shape (height, width)
        0 background, 1 to 254 polyps, 255 ignore.
    label : int or None
        Number of the polyp; None for all, in ascending order.
    margin : int
        Pixels added on every side, as far as the frame reaches.

    Yields
    ------
    int, (slice, slice)
        Number, rows and columns. Nothing for a polyp that is not there.

    Raises
    ------
    ValueError
        If `label` is no number of a polyp.
    """
    if label is not None:
        box = box_of(pixels_of(mask, label), margin)
        if box is not None:
            yield label, box
        return
    for number, found in enumerate(ndimage.find_objects(mask, IGNORE - 1), start=1):
        if found is not None:
            yield number, widened(found, margin, mask.shape)


def pixels_of(mask: Mask, label: int) -> Region:
    """Mark the pixels of one polyp.

    Raises
    ------
    ValueError
        If `label` is no number of a polyp, 1 to 254.
    """
    if not 1 <= label < IGNORE:
        raise ValueError(f"a polyp's number lies in 1 to {IGNORE - 1}, got {label}")
    return np.asarray(mask == label)


def parts_of(region: Region) -> tuple[NDArray[np.int32], NDArray[np.intp]]:
    """Give numbers to the connected parts of a region; pixels that touch at a corner are connected.

    Parameters
    ----------
    region : bool array, shape (height, width)
        Of one or more parts.

    Returns
    -------
    int32 array, shape (height, width)
        0 outside the region, 1 to n inside.
    int array, shape (n,)
        Pixels of each part.
    """
    parts, count = ndimage.label(region, WITH_DIAGONALS)
    return parts, np.bincount(parts.ravel(), minlength=count + 1)[1:]


def filled(region: Region) -> Region:
    """Add what a region encloses: all that no path of side-by-side pixels joins to the outside.

    Parameters
    ----------
    region : bool array, shape (height, width)
        May be cut to the box that holds the region.

    Returns
    -------
    bool array, shape (height, width)
    """
    outside, count = ndimage.label(~region)
    open_to_edge = np.zeros(count + 1, bool)
    for edge in (outside[0], outside[-1], outside[:, 0], outside[:, -1]):
        open_to_edge[edge] = True
    open_to_edge[0] = False
    return np.asarray(~open_to_edge.take(outside), bool)


def _counts(mask: Mask) -> NDArray[np.intp]:
    return np.bincount(mask.ravel(), minlength=IGNORE + 1)
