"""How well one predicted mask fits its reference, at the frame's native size.

Every score treats a mask as polyp or not, whatever the polyps' numbers. Pixels
that the reference marks as ignore (255) are left out: for the overlap scores
they are not counted, for the boundary scores they are background in both.
"""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from numpy.typing import NDArray

IGNORE = 255
# The tolerance of the surface Dice: 2 pixels of a frame resized to 256 x 256.
_SURFACE_TOLERANCE = 2.0
_SURFACE_SIDE = 256


@dataclass(frozen=True)
class FrameScore:
    """The scores of one frame.

    Attributes
    ----------
    name : str
        The frame.
    confidence : float
        What the model claimed beforehand, in [0, 1].
    positive : bool
        The reference holds a polyp.
    flagged : bool
        The prediction holds a polyp, right or wrong.
    found : bool
        Prediction and reference share at least one polyp pixel.
    true_positive, false_positive, false_negative : int
        Pixels at native size.
    dice, iou : float or None
        In [0, 1]; None for a frame without a polyp, which has no overlap to measure.
    hausdorff95 : float or None
        The larger of the two 95th percentiles of the distances from one outline
        to the other, in native pixels. A frame where nothing was predicted has
        the frame's diagonal: silence must not look precise.
    surface_dice : float or None
        Share of both outlines within 2 pixels of the other when the frame is
        scaled to 256 x 256 (normalised surface Dice, Nikolov et al. 2018,
        arXiv 1809.04430).
    """

    name: str
    confidence: float
    positive: bool
    flagged: bool
    found: bool
    true_positive: int
    false_positive: int
    false_negative: int
    dice: float | None
    iou: float | None
    hausdorff95: float | None
    surface_dice: float | None


def score_frame(
    name: str, confidence: float, predicted: NDArray[np.uint8], reference: NDArray[np.uint8]
) -> FrameScore:
    """Score one mask against its reference.

    Parameters
    ----------
    name : str
        The frame's name, passed through.
    confidence : float
        The model's confidence, passed through.
    predicted : uint8 array, shape (height, width)
        0 for background, anything else is polyp.
    reference : uint8 array, shape (height, width)
        0 for background, 255 for ignore, anything else is polyp.

    Returns
    -------
    FrameScore

    Raises
    ------
    ValueError
        If the two shapes differ.
    """
    if predicted.shape != reference.shape:
        raise ValueError(f"masks of one shape are needed: {predicted.shape}, {reference.shape}")
    counted = reference != IGNORE
    predicted_polyp = (predicted > 0) & counted
    reference_polyp = (reference > 0) & counted
    both = int(np.count_nonzero(predicted_polyp & reference_polyp))
    marked = int(np.count_nonzero(predicted_polyp))
    wanted = int(np.count_nonzero(reference_polyp))
    positive = wanted > 0
    return FrameScore(
        name=name,
        confidence=confidence,
        positive=positive,
        flagged=marked > 0,
        found=both > 0,
        true_positive=both,
        false_positive=marked - both,
        false_negative=wanted - both,
        dice=2 * both / (marked + wanted) if positive else None,
        iou=both / (marked + wanted - both) if positive else None,
        hausdorff95=hausdorff95(predicted_polyp, reference_polyp) if positive else None,
        surface_dice=surface_dice(predicted_polyp, reference_polyp) if positive else None,
    )


def hausdorff95(predicted: NDArray[np.bool_], reference: NDArray[np.bool_]) -> float:
    """Measure the 95 % Hausdorff distance of two outlines in pixels, with MONAI.

    Parameters
    ----------
    predicted, reference : bool arrays, shape (height, width)
        The reference must not be empty.

    Returns
    -------
    float
        In pixels; the frame's diagonal when the prediction is empty.
    """
    from monai.metrics import compute_hausdorff_distance

    if not predicted.any():
        return float(np.hypot(*reference.shape))
    with _without_monai_notice():
        distance = compute_hausdorff_distance(
            _as_monai_wants(predicted),
            _as_monai_wants(reference),
            include_background=True,
            percentile=95,
        )
    return float(distance)


def surface_dice(predicted: NDArray[np.bool_], reference: NDArray[np.bool_]) -> float:
    """Measure which share of two outlines lies within tolerance of the other, with MONAI.

    Distances are measured as if the frame had been scaled to 256 x 256, where
    the tolerance is 2 pixels: a frame of 1280 x 1024 may be off by 10 pixels
    along its width and by 8 along its height.

    Parameters
    ----------
    predicted, reference : bool arrays, shape (height, width)
        The reference must not be empty.

    Returns
    -------
    float
        In [0, 1]; 0 when the prediction is empty.
    """
    from monai.metrics import compute_surface_dice

    if not predicted.any():
        return 0.0
    with _without_monai_notice():
        share = compute_surface_dice(
            _as_monai_wants(predicted),
            _as_monai_wants(reference),
            class_thresholds=[_SURFACE_TOLERANCE],
            include_background=True,
            spacing=[_SURFACE_SIDE / side for side in reference.shape],
        )
    return float(share)


def _as_monai_wants(mask: NDArray[np.bool_]) -> torch.Tensor:
    """Add the batch and channel axes."""
    import torch

    return torch.from_numpy(mask)[None, None]


@contextmanager
def _without_monai_notice() -> Iterator[None]:
    """Hide a notice that MONAI 1.6 gives for a call that it makes itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*always_return_as_numpy", FutureWarning)
        yield
