"""One number per frame that says how far its pre-label can be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_microaunet.frames.field_of_view import FieldOfView
from napari_microaunet.prelabel.masks import regions_above
from napari_microaunet.prelabel.probability import ProbabilityMap, least_value

if TYPE_CHECKING:
    from napari_microaunet.prelabel.masks import MaskSettings


def confidence(probability: ProbabilityMap, settings: MaskSettings) -> float:
    """Say how far the mask of a frame can be trusted, from its probabilities alone.

    It is the mean probability of what passes the threshold in the polyps that
    are kept. Where none is, it is the probability that the most suspicious
    pixel is background.

    ``benchmarks/confidence.py`` compared it with other measures by how well
    they rank the frames of the validation split by their Dice: it came first.

    Parameters
    ----------
    probability : ProbabilityMap
        As kept by the predictor.
    settings : MaskSettings
        What counts as polyp.

    Returns
    -------
    float
        In [0, 1].
    """
    values = probability.values
    height, width = values.shape
    # At the map's own size: at the frame's, it would take as long again as making the mask.
    own = ProbabilityMap(values, FieldOfView(0, 0, height, width), (height, width))
    regions = regions_above(own, settings.threshold, fill_holes=settings.fill_holes)
    if regions is not None:
        part = regions.part
        found = values[part.top : part.bottom, part.left : part.right]
        kept = np.isin(regions.numbers, regions.kept(settings))
        inside = found[kept & (found >= least_value(settings.threshold))]
        if inside.size:
            return float(inside.mean() / 255)
    return float(1 - values.max() / 255)
