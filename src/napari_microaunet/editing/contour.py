"""Contour slider: a polyp's outline moves along the model's own belief."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from napari_microaunet.editing.labels import (
    WITH_DIAGONALS,
    box_of,
    filled,
    pixels_of,
    polyps_in,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_microaunet.editing.labels import Box, Mask, Region

# The border between the neighbourhoods of two polyps is found on a grid of at most this many
# rows and columns: about a millisecond, and exact to some pixels, where no edge is anyway.
_GRID = 256
# So many rows and columns, and pixels of the polyp, are enough to find its level.
_LEVEL_GRID, _LEVEL_AREA = 640, 400


def move_contour(mask: Mask, label: int, probability: NDArray[np.uint8], level: int) -> Mask:
    """Make a polyp the region that the model believes in at least so firmly.

    The new polyp is what reaches `level`, is connected with the polyp in
    `mask`, and is not nearer to another polyp, with its holes filled. A way
    through ignore connects. Only background and the polyp itself change.

    A higher level gives a part of what a lower one gives, from the same
    `mask`: while the slider is dragged, always start from the mask that was
    there before.

    Parameters
    ----------
    mask : uint8 array, shape (height, width)
        0 background, 1 to 254 polyps, 255 ignore. Stays as it is.
    label : int
        Number of the polyp.
    probability : uint8 array, shape (height, width)
        The frame's probability map at native size, 255 for probability 1.
    level : int
        Least value that is polyp, 1 to 255.

    Returns
    -------
    uint8 array, shape (height, width)
        Without the polyp, where no pixel of it reaches the level.

    Raises
    ------
    ValueError
        If the sizes of mask and map differ, `label` is no polyp's number or
        `level` is out of its range.
    """
    if not 1 <= level <= 255:
        raise ValueError(f"a level lies in 1 to 255, got {level}")
    own, allowed = _ground(mask, label, probability)
    moved = mask.copy()
    moved[own] = 0
    region = _believed(own, allowed, probability, level)
    if region is not None:
        box, inside = region
        moved[box][inside & (moved[box] == 0)] = label
    return moved


def level_of(mask: Mask, label: int, probability: NDArray[np.uint8]) -> int | None:
    """Find the level at which `move_contour` changes a polyp least: where its slider starts.

    Parameters
    ----------
    mask, label, probability
        As in `move_contour`.

    Returns
    -------
    int or None
        The level of the highest intersection over union with the polyp, 1 to
        255, on large frames as far as some of their pixels tell; None where
        the map is 0 all over the polyp or there is no polyp.
    """
    # Of a large frame, some pixels tell enough, as long as many of them are the polyp's.
    area = int(np.count_nonzero(pixels_of(mask, label)))
    step = min(-(-max(mask.shape) // _LEVEL_GRID), int((area / _LEVEL_AREA) ** 0.5))
    if step > 1:
        mask, probability = mask[::step, ::step], probability[::step, ::step]
    own, allowed = _ground(mask, label, probability)
    area = int(np.count_nonzero(own))
    writable = own | (mask == 0)
    sizes: dict[int, tuple[int, int]] = {}

    def common_and_size(level: int) -> tuple[int, int]:
        """Pixels of the polyp that the region at a level holds, and all its pixels."""
        if level not in sizes:
            region = _believed(own, allowed, probability, level)
            if region is None:
                sizes[level] = 0, 0
            else:
                box, inside = region
                inside = inside & writable[box]
                common = int(np.count_nonzero(inside & own[box]))
                sizes[level] = common, int(np.count_nonzero(inside))
        return sizes[level]

    best_fit, best_level = 0.0, None
    # Both numbers fall with the level, so those at a stretch's ends bound the fit between them:
    # stretches that cannot hold the best fit are left out.
    stretches = [(1, 255)]
    while stretches:
        low, high = stretches.pop()
        for level in (low, high):
            common, size = common_and_size(level)
            fit = common / max(1, area + size - common)
            if fit > best_fit:
                best_fit, best_level = fit, level
        most, least_size = common_and_size(low)[0], common_and_size(high)[1]
        bound = most / max(1, area, area + least_size - most)
        if high - low > 1 and bound > best_fit:
            middle = (low + high) // 2
            stretches += [(low, middle), (middle, high)]
    return best_level


def _ground(mask: Mask, label: int, probability: NDArray[np.uint8]) -> tuple[Region, Region]:
    """Mark the polyp, and where it may reach: nearer to it than to the others, or ignore."""
    if mask.shape != probability.shape:
        raise ValueError(f"mask {mask.shape} and probability map {probability.shape} differ")
    own = pixels_of(mask, label)
    others = polyps_in(mask) & ~own
    if not others.any():
        return own, np.ones(mask.shape, bool)
    step = -(-max(mask.shape) // _GRID)
    # The polyp itself wins a cell that it shares.
    fine = np.pad(
        np.where(own, np.uint8(2), others.view(np.uint8)),
        [(0, -length % step) for length in mask.shape],
    )
    strips = np.maximum.reduce([fine[start::step] for start in range(step)])
    coarse = np.maximum.reduce([strips[:, start::step] for start in range(step)])
    nearest = ndimage.distance_transform_edt(
        coarse == 0, return_distances=False, return_indices=True
    )
    near = coarse[tuple(nearest)] == 2
    rows, columns = (np.arange(length) // step for length in mask.shape)
    return own, (near[rows][:, columns] | own) & ~others


def _believed(
    own: Region, allowed: Region, probability: NDArray[np.uint8], level: int
) -> tuple[Box, Region] | None:
    """Find what reaches a level and is connected with the polyp, in the box that holds it."""
    reached = allowed & (probability >= level)
    box = box_of(reached)
    if box is None:
        return None
    parts, count = ndimage.label(reached[box], WITH_DIAGONALS)
    belongs = np.zeros(count + 1, bool)
    belongs[parts[own[box]]] = True
    belongs[0] = False
    region = belongs.take(parts)
    inner = box_of(region)
    if inner is None:
        return None
    rows, columns = (
        slice(side.start + part.start, side.start + part.stop)
        for side, part in zip(box, inner, strict=True)
    )
    outer = rows, columns
    return outer, filled(region[inner]) & allowed[outer]
