"""How well one predicted mask fits its reference, at the frame's native size.

Every score treats a mask as polyp or not, whatever the polyps' numbers. Pixels
that the reference marks as ignore (255) are left out: for the overlap scores
they are not counted, for the boundary scores they are background in both.
"""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from napari_microaunet.frames.masks import IGNORE

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from numpy.typing import NDArray

    from napari_microaunet.frames.field_of_view import FieldOfView

# The tolerance of the boundary F, as a share of the frame's diagonal (Csurka et al. 2013).
_BOUNDARY_TOLERANCE = 0.0075


class Overlap(NamedTuple):
    """Pixels at native size that prediction and reference agree and disagree on.

    Attributes
    ----------
    true_positive, false_positive, false_negative : int
        Polyp in both, in the prediction alone, in the reference alone.
    """

    true_positive: int
    false_positive: int
    false_negative: int

    @property
    def positive(self) -> bool:
        """Whether the reference holds a polyp."""
        return self.true_positive + self.false_negative > 0

    @property
    def flagged(self) -> bool:
        """Whether the prediction holds a polyp, right or wrong."""
        return self.true_positive + self.false_positive > 0

    @property
    def found(self) -> bool:
        """Whether prediction and reference share at least one polyp pixel."""
        return self.true_positive > 0

    @property
    def dice(self) -> float | None:
        """Dice in [0, 1]; None without a polyp, where there is no overlap to measure."""
        if not self.positive:
            return None
        both = 2 * self.true_positive
        return both / (both + self.false_positive + self.false_negative)

    @property
    def iou(self) -> float | None:
        """Intersection over union in [0, 1]; None without a polyp."""
        return self.true_positive / sum(self) if self.positive else None


@dataclass(frozen=True)
class FrameScore:
    """The scores of one frame.

    Attributes
    ----------
    name : str
        The frame.
    group : str
        Frames of one group (a clip, a patient) resemble each other; the frame's
        own name where it resembles no other.
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
    polyp_share : float
        Share of the field of view that the reference's polyps cover, in [0, 1].
    dice, iou : float or None
        In [0, 1]; None for a frame without a polyp, which has no overlap to measure.
    hausdorff95 : float or None
        The larger of the two 95th percentiles of the distances from one outline
        to the other, in native pixels. A frame where nothing was predicted has
        the frame's diagonal: silence must not look precise.
    boundary_f : float or None
        F-measure of the outline, in [0, 1]; see `boundary_f`.
    """

    name: str
    group: str
    confidence: float
    positive: bool
    flagged: bool
    found: bool
    true_positive: int
    false_positive: int
    false_negative: int
    polyp_share: float
    dice: float | None
    iou: float | None
    hausdorff95: float | None
    boundary_f: float | None


def score_frame(
    name: str,
    confidence: float,
    predicted: NDArray[np.uint8],
    reference: NDArray[np.uint8],
    *,
    field: FieldOfView | None = None,
    group: str | None = None,
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
    field : FieldOfView, optional
        The box of the frame that shows the picture; the whole frame by default.
    group : str, optional
        What the frame is resampled with; its own name by default.

    Returns
    -------
    FrameScore

    Raises
    ------
    ValueError
        If the two shapes differ.
    """
    overlap = count_overlap(predicted, reference)
    predicted_polyp, reference_polyp = _polyps(predicted, reference)
    area = (
        reference.size if field is None else (field.bottom - field.top) * (field.right - field.left)
    )
    return FrameScore(
        name=name,
        group=name if group is None else group,
        confidence=confidence,
        positive=overlap.positive,
        flagged=overlap.flagged,
        found=overlap.found,
        **overlap._asdict(),
        # A reference may reach a pixel or two beyond the field of view.
        polyp_share=min(1.0, (overlap.true_positive + overlap.false_negative) / area),
        dice=overlap.dice,
        iou=overlap.iou,
        hausdorff95=hausdorff95(predicted_polyp, reference_polyp) if overlap.positive else None,
        boundary_f=boundary_f(predicted_polyp, reference_polyp) if overlap.positive else None,
    )


def count_overlap(predicted: NDArray[np.uint8], reference: NDArray[np.uint8]) -> Overlap:
    """Count the pixels that two masks agree and disagree on.

    Parameters
    ----------
    predicted, reference : uint8 arrays, shape (height, width)
        As for `score_frame`.

    Returns
    -------
    Overlap

    Raises
    ------
    ValueError
        If the two shapes differ.
    """
    predicted_polyp, reference_polyp = _polyps(predicted, reference)
    both = int(np.count_nonzero(predicted_polyp & reference_polyp))
    marked = int(np.count_nonzero(predicted_polyp))
    wanted = int(np.count_nonzero(reference_polyp))
    return Overlap(both, marked - both, wanted - both)


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
            _tensor(predicted)[None, None],
            _tensor(reference)[None, None],
            include_background=True,
            percentile=95,
        )
    return float(distance)


def boundary_f(predicted: NDArray[np.bool_], reference: NDArray[np.bool_]) -> float:
    """Measure the boundary F of two masks, with the outlines and distances of MONAI.

    Precision is the share of the predicted outline that lies within tolerance of
    the reference's, recall the share of the reference's outline within tolerance
    of the predicted one; the score is their harmonic mean (Csurka et al. 2013,
    "What is a good evaluation measure for semantic segmentation?", per image; the
    same measure is the F of DAVIS, Perazzi et al. 2016). The tolerance is Csurka's,
    0.75 % of the frame's diagonal: 12.3 pixels of 1280 x 1024, 2.7 of 256 x 256.

    MONAI's surface Dice pools the two shares by the outlines' lengths instead,
    which differs where one of the outlines is much longer; it is not reported
    beside this.

    Parameters
    ----------
    predicted, reference : bool arrays, shape (height, width)
        The reference must not be empty.

    Returns
    -------
    float
        In [0, 1]; 0 when the prediction is empty.
    """
    from monai.metrics.utils import get_mask_edges, get_surface_distance

    if not predicted.any():
        return 0.0
    tolerance = _BOUNDARY_TOLERANCE * np.hypot(*reference.shape)
    with _without_monai_notice():
        outlines = get_mask_edges(_tensor(predicted), _tensor(reference))
        precision, recall = (
            float((get_surface_distance(one, other) <= tolerance).float().mean())
            for one, other in (outlines, outlines[::-1])
        )
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _polyps(
    predicted: NDArray[np.uint8], reference: NDArray[np.uint8]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Where each mask says polyp, of the pixels that count."""
    if predicted.shape != reference.shape:
        raise ValueError(f"masks of one shape are needed: {predicted.shape}, {reference.shape}")
    counted = reference != IGNORE
    return (predicted > 0) & counted, (reference > 0) & counted


def _tensor(mask: NDArray[np.bool_]) -> torch.Tensor:
    import torch

    return torch.from_numpy(mask)


@contextmanager
def _without_monai_notice() -> Iterator[None]:
    """Hide a notice that MONAI 1.6 gives for a call that it makes itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*always_return_as_numpy", FutureWarning)
        yield
