"""The surroundings of an outline, unrolled into a rectangle, and closed paths through it."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree
from skimage.color import rgb2lab
from skimage.measure import find_contours

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_microaunet.editing.labels import Region

    Points = NDArray[np.float64]
    Values = NDArray[np.float32]

# The band is looked at in at most this many steps to either side, each of a pixel or more.
_MOST_STEPS = 15
# The outline is smoothed by this share of the band before its normals are taken: wide enough
# for neighbouring normals not to cross within the band, apart from sharp corners.
_SMOOTHING = 0.35
# Standard deviations at which contrast is taken, in steps; redness and the model's belief are
# taken at the middle one.
_FINE, _MIDDLE, _COARSE = 2.0, 4.0, 6.0
# Added to contrasts (CIELAB units) before the logarithm: less than this is noise.
_LEAST_CONTRAST = 0.5
# Probabilities are kept this far from 0 and 1 before their log-odds are taken.
_DOUBT = 0.02
# Where normals cross, a place is nearer to another point of the outline than to its own: by
# more than this share of its own distance, and a pixel.
_STRAIGHT = 0.7


class Band(NamedTuple):
    """The surroundings of an outline, unrolled along its normals.

    Attributes
    ----------
    outline : float array, shape (n, 2)
        Points in (row, column), evenly spaced, closed.
    normals : float array, shape (n, 2)
        Unit vectors that point out of the polyp.
    offsets : float64 array, shape (m,)
        Distances from the outline, in pixels, negative inside the polyp.
    evidence : float32 array, shape (n, m, k)
        What speaks for an edge at each place: distance, fine contrast, coarse contrast,
        brighter inside, redder inside; with a probability map also how it falls, and its value
        inside.
    crossed : bool array, shape (n, m)
        Places that are much nearer to another point of the outline.
    """

    outline: Points
    normals: Points
    offsets: NDArray[np.float64]
    evidence: Values
    crossed: NDArray[np.bool_]

    def places(self) -> Points:
        """Give row and column of all places, shape (n, m, 2)."""
        return self.outline[:, None] + self.normals[:, None] * self.offsets[:, None]


def unroll(
    region: Region,
    frame: NDArray[np.uint8],
    width: float,
    probability: NDArray[np.uint8] | None = None,
) -> Band:
    """Sample the surroundings of an outline along its normals.

    Parameters
    ----------
    region : bool array, shape (height, width)
        Connected, without holes, not empty.
    frame : uint8 array, shape (height, width, 3)
        RGB.
    width : float
        Largest distance from the outline, in pixels, more than 0.
    probability : uint8 array, shape (height, width), optional
        Probability map at the frame's size, 255 for probability 1.

    Returns
    -------
    Band
    """
    step = max(1.0, width / _MOST_STEPS)
    # A connected region without holes has one contour, which ends where it starts.
    contour = max(find_contours(np.pad(region, 1), 0.5, fully_connected="high"), key=len) - 1
    outline = ndimage.gaussian_filter1d(
        _evenly_spaced(contour, step), _SMOOTHING * width / step, axis=0, mode="wrap"
    )
    along = np.roll(outline, -1, axis=0) - np.roll(outline, 1, axis=0)
    normals = np.stack([-along[:, 1], along[:, 0]], axis=1)
    normals /= np.maximum(np.hypot(*normals.T), 1e-6)[:, None]

    steps = max(1, round(width / step))
    # What lies beyond the band counts in so far as the coarse contrast looks there.
    margin = ceil(1.5 * _COARSE)
    shown = slice(margin, margin + 2 * steps + 1)
    offsets = np.arange(-steps - margin, steps + margin + 1, dtype=np.float64) * step
    places = np.moveaxis(outline[:, None] + normals[:, None] * offsets[:, None], 2, 0)
    colours = rgb2lab(np.stack([_sampled(frame[..., c], places) for c in range(3)], axis=2))
    fine, middle, coarse = (_drop(colours, sigma)[:, shown] for sigma in (_FINE, _MIDDLE, _COARSE))
    evidence = [
        np.broadcast_to((offsets[shown] / width) ** 2, fine.shape[:2]),
        np.log(np.linalg.norm(fine, axis=2) + _LEAST_CONTRAST),
        np.log(np.linalg.norm(coarse, axis=2) + _LEAST_CONTRAST),
        _signed_root(coarse[..., 0]),
        _signed_root(middle[..., 1]),
    ]
    if probability is not None:
        belief = _sampled(probability, places)
        doubtful = np.clip(belief, _DOUBT, 1 - _DOUBT)[:, shown]
        inside = np.cumsum(np.log(doubtful / (1 - doubtful)), axis=1) / steps
        evidence += [_drop(belief[..., None], _MIDDLE)[:, shown, 0], inside]
    nearest, _ = KDTree(outline).query(np.moveaxis(places[:, :, shown], 0, 2))
    crossed = nearest < _STRAIGHT * np.abs(offsets[shown]) - 1
    return Band(
        outline,
        normals,
        offsets[shown],
        np.stack(evidence, axis=2).astype(np.float32),
        np.asarray(crossed),
    )


def closed_path(cost: NDArray[np.floating], step_aside: float) -> NDArray[np.intp]:
    """Find the cheapest closed path round a rectangle whose first and last rows are neighbours.

    From row to row the path stays or goes one column aside. A path twice round
    decides where it starts, then the path from there back to there is the
    cheapest: nearly always the best closed path (Sun & Pallottino, Pattern
    Recognition 36, 2003).

    Parameters
    ----------
    cost : float array, shape (n, m)
        Of each place.
    step_aside : float
        Cost of a step to a neighbouring column.

    Returns
    -------
    int array, shape (n,)
        Column of the path in each row.
    """
    twice = np.concatenate([cost, cost])
    start = _cheapest_path(twice, np.zeros(cost.shape[1]), step_aside)[len(cost)]
    only_start = np.full(cost.shape[1], np.inf)
    only_start[start] = 0
    once = np.concatenate([cost, cost[:1] + only_start])
    return _cheapest_path(once, only_start, step_aside)[:-1]


def _cheapest_path(
    cost: NDArray[np.floating], to_begin: NDArray[np.floating], step_aside: float
) -> NDArray[np.intp]:
    """Find the cheapest path from the first row to the last."""
    rows, columns = cost.shape
    came_from = np.empty((rows, columns), np.intp)
    # A column on either side that no path can take.
    reached = np.full((3, columns + 2), np.inf)
    here = np.arange(columns)
    total = cost[0] + to_begin
    for row in range(1, rows):
        reached[0, 2:] = total + step_aside
        reached[1, 1:-1] = total
        reached[2, :-2] = total + step_aside
        ways = reached[:, 1:-1]
        best = ways.argmin(axis=0)
        came_from[row] = here + best - 1
        total = ways[best, here] + cost[row]
    path = np.empty(rows, np.intp)
    path[-1] = total.argmin()
    for row in range(rows - 1, 0, -1):
        path[row - 1] = came_from[row, path[row]]
    return path


def _evenly_spaced(curve: Points, step: float) -> Points:
    """Place points about so far apart along a closed curve whose ends are the same point."""
    travelled = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(curve, axis=0).T))])
    count = max(8, round(travelled[-1] / step))
    at = np.linspace(0, travelled[-1], count, endpoint=False)
    return np.stack([np.interp(at, travelled, curve[:, axis]) for axis in (0, 1)], axis=1)


def _sampled(values: NDArray[np.uint8], places: Points) -> Values:
    """Interpolate between pixels, 255 as 1; outside the frame the nearest pixel counts."""
    sampled: Values = ndimage.map_coordinates(values, places, np.float32, order=1, mode="nearest")
    return sampled / np.float32(255)


def _drop(values: Values, sigma: float) -> Values:
    """Say how much values (n, m, c) fall from the inside to the outside over `sigma` steps."""
    slope: Values = ndimage.gaussian_filter(
        values, (sigma, sigma, 0), (0, 1, 0), mode=("wrap", "nearest", "nearest")
    )
    return slope * np.float32(-sigma)


def _signed_root(values: Values) -> Values:
    return np.sign(values) * np.sqrt(np.abs(values))
