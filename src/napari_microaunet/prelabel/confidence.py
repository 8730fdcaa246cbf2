"""One number per frame that says how far its pre-label can be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from napari_microaunet.prelabel.probability import ProbabilityMap


def confidence(probability: ProbabilityMap, threshold: float) -> float:
    """Estimate how far the mask of a frame can be trusted, from its probabilities alone.

    It is the Dice that the thresholded mask is expected to reach if the
    probabilities are right: twice the probability inside the mask, over all
    probability in the frame plus the mask's area. A frame without a polyp is
    trusted as far as its most suspicious pixel is not: 1 - max(probability).

    Parameters
    ----------
    probability : ProbabilityMap
        As kept by the predictor.
    threshold : float
        What counts as polyp, in [0, 1].

    Returns
    -------
    float
        In [0, 1]. ``benchmarks/confidence.py`` measures how well it ranks the
        frames of the validation split by their Dice.
    """
    values = probability.values.astype(np.float64) / 255
    inside = values >= max(threshold, 1 / 255)
    if not inside.any():
        return float(1 - values.max())
    return float(2 * values[inside].sum() / (values.sum() + np.count_nonzero(inside)))
