"""One number per frame that says how far its pre-label can be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_microaunet.prelabel.probability import least_value

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_microaunet.prelabel.probability import ProbabilityMap


def confidence(probability: ProbabilityMap, mask: NDArray[np.uint8], threshold: float) -> float:
    """Say how far the mask of a frame can be trusted, from its probabilities.

    It is the mean probability of what passes the threshold in the polyps of
    the mask. Where it has none, it is the probability that the most suspicious
    pixel is background.

    ``benchmarks/confidence.py`` compared it with other measures by how well
    they rank the frames of the validation split by their Dice: it came first.

    Parameters
    ----------
    probability : ProbabilityMap
        As kept by the predictor.
    mask : uint8 array, shape (height, width)
        What `mask_from` makes of it, at the frame's size.
    threshold : float
        That it was made with.

    Returns
    -------
    float
        In [0, 1].
    """
    values = probability.values
    if not mask.any():
        return float(1 - values.max() / 255)
    field = probability.field
    # The mask where the map has its values: as many as at the frame's size would take longer.
    rows, columns = (
        start + ((np.arange(count) + 0.5) * (end - start) / count).astype(int)
        for count, start, end in zip(
            values.shape, (field.top, field.left), (field.bottom, field.right), strict=True
        )
    )
    passing = values >= least_value(threshold)
    inside = passing & (mask[np.ix_(rows, columns)] > 0)
    # A polyp may lie between them where the smallest that is kept is smaller than their distance.
    return float(values[inside if inside.any() else passing].mean() / 255)
