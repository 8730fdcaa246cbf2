"""Where one scene of a recording ends and another begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Frames are compared at this side length: a polyp is a few pixels then, the scene remains.
_SIDE = 64
DARKEST_LIT = 32
"""As `frames.field_of_view.DARKEST_LIT`, which this package does not know."""
# Bins of the histogram in CIELAB: lightness, green to red, blue to yellow; tissue and dye.
_BINS = (8, 8, 8)
_RANGES = ((0.0, 100.0), (-10.0, 60.0), (-20.0, 60.0))
# Frames of one scene differ by a fraction of a bin; without smoothing that would count as much
# as another colour.
_BIN_SMOOTHING = 0.7
# What a change of structure counts beside a change of colours.
_STRUCTURE = 0.5
# Variance of the brightness, 0..1, below which there is no structure to compare.
_FLAT = 1e-4
# Above this, two frames are taken for different scenes. Of neighbours in one sequence 2 % are
# (CVC-ClinicDB, thinned out to about a frame a second: 463 pairs) and 3 % (PolypGen's
# negatives: 486); of joints between two sequences 0.59 and 0.91. In a video, neighbours are at
# 0.05. What it takes for one scene, the score of what is propagated has to find out.
CUT = 0.8


@dataclass(frozen=True, eq=False)
class Look:
    """What is compared of a frame.

    Attributes
    ----------
    colours : float64 array, shape (8, 8, 8)
        Histogram of the lit colours, with sum 1.
    lit : bool array, shape (64, 64)
        Where the picture is lit; everywhere, if it is lit nowhere.
    bright : float64 array, shape (64, 64)
        Square root of the brightness, 0..1.
    """

    colours: NDArray[np.float64]
    lit: NDArray[np.bool_]
    bright: NDArray[np.float64]


def look(frame: NDArray[np.uint8]) -> Look:
    """Reduce a frame to what is compared.

    Parameters
    ----------
    frame : uint8 array, shape (height, width, 3)
        RGB.
    """
    small = np.asarray(Image.fromarray(frame).resize((_SIDE, _SIDE), Image.Resampling.BOX))
    lit = small.max(axis=2) > DARKEST_LIT
    if not lit.any():
        lit = np.ones_like(lit)
    return Look(colour_histogram(small[lit]), lit, np.sqrt(small.mean(axis=2) / 255))


def colour_histogram(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Count colours in bins of CIELAB, slightly smoothed.

    Parameters
    ----------
    pixels : uint8 array, shape (n, 3)
        RGB; at least one.

    Returns
    -------
    float64 array, shape (8, 8, 8)
        Shares, with sum 1. The sum of the smaller ones of two histograms is their
        intersection (Swain and Ballard, Color indexing, IJCV 1991).
    """
    from skimage.color import rgb2lab  # late: a quarter of a second

    colours, _ = np.histogramdd(rgb2lab(pixels), bins=_BINS, range=_RANGES)
    colours = ndimage.gaussian_filter(colours, _BIN_SMOOTHING)
    return np.asarray(colours / max(colours.sum(), 1.0))


def picture_change(first: Look, second: Look) -> float:
    """Say how much of the scene changes between two frames.

    It is the share of the colours that differ (one minus the intersection of their
    histograms), plus half of how far their structure differs (one minus the correlation of
    brightness).

    Parameters
    ----------
    first, second : Look

    Returns
    -------
    float
        0 for the same picture, to 2.
    """
    colour = 1 - float(np.minimum(first.colours, second.colours).sum())
    shared = first.lit | second.lit
    one, other = first.bright[shared], second.bright[shared]
    one, other = one - one.mean(), other - other.mean()
    powers = float((one**2).mean()), float((other**2).mean())
    if max(powers) < _FLAT:
        return colour
    likeness = float((one * other).mean()) / float(
        np.sqrt(max(powers[0], _FLAT) * max(powers[1], _FLAT))
    )
    return colour + _STRUCTURE * (1 - likeness)


def is_shot_cut(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> bool:
    """Tell whether two neighbouring frames show different scenes.

    Parameters
    ----------
    first, second : uint8 arrays, shape (height, width, 3)
        RGB; sizes may differ.
    """
    return picture_change(look(first), look(second)) > CUT
