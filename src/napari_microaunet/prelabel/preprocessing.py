"""From a frame at native size to what a network is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageStat

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_microaunet.frames.field_of_view import FieldOfView
    from napari_microaunet.networks.checkpoint import ModelCard


# Of a channel of one grey: its values become 0 instead of the rounding's noise.
LEAST_DEVIATION = 1 / 255


def prepare(frame: NDArray[np.uint8], field: FieldOfView, card: ModelCard) -> NDArray[np.float32]:
    """Crop a frame to its field of view, resize it and normalise it as a model expects.

    The resizing filter is bilinear with antialiasing (its support grows with the reduction).
    A model whose card says `standardise` is shown channels of mean 0 and standard deviation 1
    (instance normalisation of the input; Ulyanov et al. 2016, arXiv 1607.08022), others what
    the card's mean and standard deviation make of them. `distillation.learner.Normalised` does the
    same to the augmented frames of a training.

    Parameters
    ----------
    frame : uint8 array, shape (height, width, 3)
        RGB, native size.
    field : FieldOfView
        The box to show to the network, in native pixels.
    card : ModelCard
        Says the input size (h, w), and the mean and standard deviation of each channel, for
        values in [0, 1], or that they are the frame's own.

    Returns
    -------
    float32 array, shape (3, h, w)
    """
    height, width = card.input_size
    resized = Image.fromarray(frame).resize(
        (width, height),
        Image.Resampling.BILINEAR,
        box=(field.left, field.top, field.right, field.bottom),
    )
    means, deviations = list(card.mean), list(card.std)
    if card.standardise:
        own = ImageStat.Stat(resized)
        means = [value / 255 for value in own.mean]
        deviations = [max(value / 255, LEAST_DEVIATION) for value in own.stddev]
    mean, deviation = np.asarray(means, np.float32), np.asarray(deviations, np.float32)
    # One multiplication and one addition: (value / 255 - mean) / deviation.
    normalised = np.asarray(resized) * (1 / (255 * deviation)) - mean / deviation
    return np.ascontiguousarray(normalised.transpose(2, 0, 1), np.float32)
