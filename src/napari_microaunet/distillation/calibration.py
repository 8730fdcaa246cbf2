"""Whether the probabilities mean what they say: 80 % of the pixels at 0.8 should be polyp.

What is looked at is every value of the probability maps: the pixels inside the
field of view at the network's size, each against the reference at its centre.
So every frame weighs the same, whatever its native size, and ignored pixels
(255) count nowhere.

MONAI's ``calibration_binning`` holds all pixels at once and knows no ignore
label. Maps are stored in 256 steps, so that counts of those steps say the same
for any number of frames in constant memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from napari_microaunet.frames.masks import IGNORE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_microaunet.prelabel.probability import ProbabilityMap

# As in table 1 of Guo et al. 2017.
_BINS = 15


@dataclass(frozen=True)
class ReliabilityBin:
    """The pixels of one range of probabilities.

    Attributes
    ----------
    low, high : float
        The range, in [0, 1]; its end belongs to the next one, except for 1.
    pixels : int
        How many pixels have such a probability.
    probability : float or None
        Their mean probability; None for no pixels.
    polyp_share : float or None
        The share of them that is polyp in the reference; None for no pixels.
    """

    low: float
    high: float
    pixels: int
    probability: float | None
    polyp_share: float | None


@dataclass(frozen=True)
class Calibration:
    """How far probabilities and frequencies agree.

    Attributes
    ----------
    bins : tuple of ReliabilityBin
        Fifteen of equal width: the reliability diagram.
    expected_error : float
        Expected calibration error, in [0, 1]: the mean over all pixels of the
        distance between a bin's mean probability and its share of polyp (Guo et
        al. 2017, arXiv 1706.04599, equation 3). Binned is the probability of
        "polyp" instead of that of the winning class, so that claims of 10 % and
        of 90 % stay apart. Most pixels are easy background, so it is small for
        any model: compare it between models, not with classification.
    brier : float
        Mean squared distance of probability and label (Brier 1950), in [0, 1].
    """

    bins: tuple[ReliabilityBin, ...]
    expected_error: float
    brier: float


def count_pixels(probability: ProbabilityMap, reference: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Count how often each stored value goes with background and with polyp.

    Parameters
    ----------
    probability : ProbabilityMap
        As kept by the predictor.
    reference : uint8 array, shape (height, width)
        At native size: 0 for background, 255 for ignore, anything else is polyp.

    Returns
    -------
    int64 array, shape (256, 2)
        Pixels by stored value, background and polyp. Counts of frames may be added.
    """
    field = probability.field
    height, width = probability.values.shape
    labels = np.asarray(
        Image.fromarray(reference).resize(
            (width, height),
            Image.Resampling.NEAREST,
            box=(field.left, field.top, field.right, field.bottom),
        )
    )
    counted = labels != IGNORE
    pairs = 2 * probability.values[counted].astype(np.int64) + (labels[counted] > 0)
    return np.bincount(pairs, minlength=512).reshape(256, 2)


def calibration(counts: NDArray[np.int64]) -> Calibration | None:
    """Compare probabilities with frequencies.

    Parameters
    ----------
    counts : int64 array, shape (256, 2)
        Sum of `count_pixels` over frames.

    Returns
    -------
    Calibration or None
        None for no pixels.
    """
    total = int(counts.sum())
    if total == 0:
        return None
    pixels, polyp = counts.sum(axis=1), counts[:, 1]
    stored = np.arange(256)
    probability = stored / 255
    bin_of = np.minimum(stored * _BINS // 255, _BINS - 1)
    bins = []
    error = 0.0
    for number in range(_BINS):
        inside = bin_of == number
        in_bin, claimed, true = (
            values[inside].sum() for values in (pixels, pixels * probability, polyp)
        )
        error += abs(claimed - true) / total
        bins.append(
            ReliabilityBin(
                low=number / _BINS,
                high=(number + 1) / _BINS,
                pixels=int(in_bin),
                probability=float(claimed / in_bin) if in_bin else None,
                polyp_share=float(true / in_bin) if in_bin else None,
            )
        )
    squares = counts[:, 0] * probability**2 + polyp * (1 - probability) ** 2
    return Calibration(tuple(bins), float(error), float(squares.sum() / total))
