"""Scissors: a line that follows image edges from click to click (Mortensen & Barrett 1995)."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from scipy import ndimage
from skimage.color import rgb2lab
from skimage.draw import line
from skimage.graph import MCP_Geometric

from napari_microaunet.editing.labels import IGNORE, box_of, filled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_microaunet.editing.labels import Mask

    Cell = tuple[int, int]

# Larger frames are looked at so far reduced that their longer side has at most this many cells.
# Twice as many make a path a pixel better, where clicks are dense, and four times as slow.
_MOST_CELLS = 500
# Standard deviation, in cells, at which contrast is taken.
_SIGMA = 2.0
# A cell costs (contrast / strong contrast + _EVENNESS) ** -_OBEDIENCE, where a tenth of the cells
# has strong contrast. The best of 40 such functions for loops of 5, 8 and 12 clicks on expert
# outlines of training frames; those that obey edges more run away along folds and glare.
_STRONG = 90
_EVENNESS = 0.3
_OBEDIENCE = 0.75
# Paths from a click are found at once for so many cells around it, and for twice as many each
# time that the mouse goes farther.
_NEAR = 128


class EdgePaths:
    """The paths along the edges of one frame.

    The first path from a point takes some 50 ms, in which the ways from there
    to everywhere around it are found. Further paths from the same point take
    less than a millisecond, so that the line can follow the mouse. Not for use
    in several threads at once.

    Parameters
    ----------
    frame : uint8 array, shape (height, width, 3)
        RGB.
    """

    def __init__(self, frame: NDArray[np.uint8]) -> None:
        self._shape = frame.shape[:2]
        self._cell = ceil(max(self._shape) / _MOST_CELLS)
        reduced = np.asarray(Image.fromarray(frame).reduce(self._cell))
        colours = rgb2lab(reduced.astype(np.float32) / np.float32(255))
        slopes = [
            ndimage.gaussian_filter(colours, (_SIGMA, _SIGMA, 0), order)
            for order in ((1, 0, 0), (0, 1, 0))
        ]
        contrast = np.sqrt(np.square(slopes).sum(axis=(0, 3)))
        # A frame of one colour has no contrast at all.
        strong = max(float(np.percentile(contrast, _STRONG)), 1e-6)
        self._cost = (contrast / strong + _EVENNESS) ** -_OBEDIENCE
        self._start: Cell | None = None
        self._reach = 0

    def path(self, start: tuple[float, float], end: tuple[float, float]) -> NDArray[np.intp]:
        """Find the path along edges from one point to another.

        Parameters
        ----------
        start, end : (float, float)
            Row and column; points outside the frame are moved to its edge.

        Returns
        -------
        int array, shape (n, 2)
            Rows and columns of pixels, n at least 2: the pixels at `start` and
            `end` and what lies between, at most a cell apart: a pixel, in frames
            of up to 500 pixels a side.
        """
        first, last = self._pixel(start), self._pixel(end)
        from_cell, to_cell = self._cell_of(first), self._cell_of(last)
        away = max(abs(from_cell[0] - to_cell[0]), abs(from_cell[1] - to_cell[1]))
        if from_cell != self._start or away > self._reach:
            self._spread(from_cell, away)
        top, left = self._corner
        cells = np.array(self._ways.traceback((to_cell[0] - top, to_cell[1] - left)))
        between = (cells[1:-1] + self._corner) * self._cell + self._cell // 2
        # The last row and column of cells may reach beyond the frame.
        between = np.minimum(between, np.subtract(self._shape, 1))
        return np.concatenate([[first], between, [last]]).astype(np.intp)

    def _spread(self, start: Cell, away: int) -> None:
        """Find the ways from a cell to all within a window that reaches far enough."""
        self._start = start
        self._reach = _NEAR
        while self._reach < away:
            self._reach *= 2
        self._corner = (max(0, start[0] - self._reach), max(0, start[1] - self._reach))
        window = self._cost[
            self._corner[0] : start[0] + self._reach + 1,
            self._corner[1] : start[1] + self._reach + 1,
        ]
        self._ways = MCP_Geometric(window)
        self._ways.find_costs([(start[0] - self._corner[0], start[1] - self._corner[1])])

    def _pixel(self, point: tuple[float, float]) -> Cell:
        row, column = (
            min(max(round(at), 0), length - 1)
            for at, length in zip(point, self._shape, strict=True)
        )
        return row, column

    def _cell_of(self, pixel: Cell) -> Cell:
        return pixel[0] // self._cell, pixel[1] // self._cell


def fill_loop(mask: Mask, label: int, points: NDArray[np.intp]) -> Mask:
    """Make what a loop encloses part of a polyp.

    Only background changes.

    Parameters
    ----------
    mask : uint8 array, shape (height, width)
        0 background, 1 to 254 polyps, 255 ignore. Stays as it is.
    label : int
        Number of the polyp; may be new.
    points : int array, shape (n, 2)
        Rows and columns of pixels of the frame, in order, such as paths one
        after the other. The last is joined to the first by a straight line.
        The loop itself counts as enclosed; it may cross itself.

    Returns
    -------
    uint8 array, shape (height, width)

    Raises
    ------
    ValueError
        If `label` is no number of a polyp.
    """
    if not 1 <= label < IGNORE:
        raise ValueError(f"a polyp's number lies in 1 to {IGNORE - 1}, got {label}")
    loop = np.zeros(mask.shape, bool)
    for start, end in zip(points, np.roll(points, -1, axis=0), strict=True):
        loop[line(*start, *end)] = True
    cut = mask.copy()
    box = box_of(loop)
    if box is not None:
        cut[box][filled(loop[box]) & (mask[box] == 0)] = label
    return cut
