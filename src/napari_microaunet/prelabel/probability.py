"""What a network says about a frame, kept small enough to keep for every frame."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_microaunet.frames.field_of_view import FieldOfView


@dataclass(frozen=True, eq=False)
class ProbabilityMap:
    """The probability of "polyp" at the network's size, and where it lies in its frame.

    Attributes
    ----------
    values : uint8 array, shape (h, w)
        Probabilities at the network's input size; 0 stands for 0, 255 for 1.
    field : FieldOfView
        The box of the frame, in native pixels, that the values cover.
    frame_shape : (int, int)
        Native height and width of the frame.
    """

    values: NDArray[np.uint8]
    field: FieldOfView
    frame_shape: tuple[int, int]


def quantise(probabilities: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Store probabilities in [0, 1] as uint8, rounded to the nearest of 256 steps.

    Parameters
    ----------
    probabilities : float array of any shape
        Values in [0, 1].

    Returns
    -------
    uint8 array of the same shape
    """
    values: NDArray[np.uint8] = np.rint(probabilities * np.float32(255)).astype(np.uint8)
    return values


def least_value(threshold: float) -> int:
    """Return the smallest stored value that counts as polyp.

    Parameters
    ----------
    threshold : float
        Probability in [0, 1]. Probability 0 is never polyp.

    Returns
    -------
    int
        In [1, 255].
    """
    return max(1, ceil(255 * threshold))
