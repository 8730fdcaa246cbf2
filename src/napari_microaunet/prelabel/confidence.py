"""One number per frame that says how far its pre-label can be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_microaunet.prelabel.probability import least_value

if TYPE_CHECKING:
    from napari_microaunet.prelabel.masks import MaskSettings
    from napari_microaunet.prelabel.probability import ProbabilityMap


def confidence(probability: ProbabilityMap, settings: MaskSettings) -> float:
    """Say how far the mask of a frame can be trusted, from its probabilities alone.

    It is the mean probability of what passes the threshold. Where nothing is
    marked it is the probability that the most suspicious pixel is background.

    ``benchmarks/confidence.py`` compared it with other measures by how well
    they rank the frames of the validation split by their Dice: it came first.

    Parameters
    ----------
    probability : ProbabilityMap
        As kept by the predictor.
    settings : MaskSettings
        What counts as polyp; sizes do not matter.

    Returns
    -------
    float
        In [0, 1].
    """
    values = probability.values
    inside = values[values >= least_value(settings.threshold)]
    if not inside.size or inside.max() < least_value(settings.least_peak):
        return float(1 - values.max() / 255)
    return float(inside.mean() / 255)
