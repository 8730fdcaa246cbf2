"""Where one scene of a recording ends and another begins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Frames are compared at this side length: a polyp is a few pixels then, the scene remains.
_SIDE = 64
# Borders are black to dark grey (CVC-ClinicDB: up to 22 of 255); lit mucosa is far brighter.
_DARKEST_LIT = 32
# Bins of the histogram in CIELAB: lightness, green to red, blue to yellow; tissue and dye.
_BINS = (8, 8, 8)
_RANGES = ((0.0, 100.0), (-10.0, 60.0), (-20.0, 60.0))
# Frames of one scene differ by a fraction of a bin; without smoothing that would count as much
# as another colour.
_BIN_SMOOTHING = 0.7
# What a change of structure counts beside a change of colours.
_STRUCTURE = 0.5
# A square of a contrast, in brightness 0..1, below which there is no structure to compare.
_FLAT = 1e-4
# Above this, two frames are taken for different scenes. Measured on neighbours and joints of
# all sequences of CVC-ClinicDB (463 / 227) and PolypGen's negatives (486 / 99): see
# benchmarks/propagation.py.
CUT = 0.8


def picture_change(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """Say how much of the scene changes between two frames.

    It is the share of the colours that differ (one minus the intersection of their
    histograms: Swain and Ballard, Color indexing, IJCV 1991), plus half of how far their
    structure differs (one minus the correlation of brightness).

    Parameters
    ----------
    first, second : uint8 arrays, shape (height, width, 3)
        RGB; sizes may differ.

    Returns
    -------
    float
        0 for the same picture, to 2.
    """
    (colours, lit, bright), (other_colours, other_lit, other_bright) = map(_look, (first, second))
    colour = 1 - float(np.minimum(colours, other_colours).sum())
    shared = lit | other_lit
    one, other = bright[shared], other_bright[shared]
    one, other = one - one.mean(), other - other.mean()
    powers = float((one**2).mean()), float((other**2).mean())
    if max(powers) < _FLAT:
        return colour
    likeness = float((one * other).mean()) / np.sqrt(max(powers[0], _FLAT) * max(powers[1], _FLAT))
    return colour + _STRUCTURE * (1 - float(likeness))


def is_shot_cut(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> bool:
    """Tell whether two neighbouring frames show different scenes.

    Parameters
    ----------
    first, second : uint8 arrays, shape (height, width, 3)
        RGB; sizes may differ.
    """
    return picture_change(first, second) > CUT


def _look(
    frame: NDArray[np.uint8],
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
    """Return the histogram of the lit colours, where it is lit, and the brightness, 0..1."""
    from skimage.color import rgb2lab  # late: a quarter of a second

    small = np.asarray(Image.fromarray(frame).resize((_SIDE, _SIDE), Image.Resampling.BOX))
    lit = small.max(axis=2) > _DARKEST_LIT
    counted = lit if lit.any() else np.ones_like(lit)
    colours, _ = np.histogramdd(rgb2lab(small)[counted], bins=_BINS, range=_RANGES)
    colours = ndimage.gaussian_filter(colours, _BIN_SMOOTHING, mode="constant")
    bright = np.sqrt(small.mean(axis=2) / 255)
    return colours / max(colours.sum(), 1e-9), counted, bright
