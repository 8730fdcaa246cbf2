"""From a frame at native size to what a network is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_microaunet.frames.field_of_view import FieldOfView
    from napari_microaunet.networks.checkpoint import ModelCard


def prepare(frame: NDArray[np.uint8], field: FieldOfView, card: ModelCard) -> NDArray[np.float32]:
    """Crop a frame to its field of view, resize it and normalise it as a model expects.

    Training and inference both come through here. The resizing filter is
    bilinear with antialiasing (its support grows with the reduction).

    Parameters
    ----------
    frame : uint8 array, shape (height, width, 3)
        RGB, native size.
    field : FieldOfView
        The box to show to the network, in native pixels.
    card : ModelCard
        Says the input size (h, w) and the mean and standard deviation of each
        channel, for values in [0, 1].

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
    mean = np.asarray(card.mean, np.float32)
    deviation = np.asarray(card.std, np.float32)
    # One multiplication and one addition: (value / 255 - mean) / deviation.
    normalised = np.asarray(resized) * (1 / (255 * deviation)) - mean / deviation
    return np.ascontiguousarray(normalised.transpose(2, 0, 1), np.float32)
