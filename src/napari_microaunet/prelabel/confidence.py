"""One number per frame that says how far its pre-label can be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_microaunet.prelabel.probability import least_value

if TYPE_CHECKING:
    from napari_microaunet.prelabel.probability import ProbabilityMap


def confidence(probability: ProbabilityMap, threshold: float) -> float:
    """Say how far the mask of a frame can be trusted, from its probabilities alone.

    It is the mean probability inside the mask. Where nothing is marked it is
    the probability that the most suspicious pixel is background.

    ``benchmarks/confidence.py`` compared it with other measures by how well
    they rank the frames of the validation split by their Dice: it came first.

    Parameters
    ----------
    probability : ProbabilityMap
        As kept by the predictor.
    threshold : float
        What counts as polyp, in [0, 1].

    Returns
    -------
    float
        In [0, 1].
    """
    values = probability.values
    inside = values[values >= least_value(threshold)]
    return float(inside.mean() / 255 if inside.size else 1 - values.max() / 255)
