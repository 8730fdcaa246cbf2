"""How well one predicted mask fits its reference, at the frame's native size.

Every score treats a mask as polyp or not, whatever the polyps' numbers. Pixels
that the reference marks as ignore (255) are left out: they are not counted, and
where a polyp meets them is no outline.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from napari_microaunet.frames.masks import IGNORE

if TYPE_CHECKING:
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
        the frame's diagonal: silence must not look precise. None without a polyp, or
        where all of the reference's outline is to be ignored.
    boundary_f : float or None
        F-measure of the outline, in [0, 1]; see `OutlineDistances`. None likewise.
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

    Returns
    -------
    FrameScore

    Raises
    ------
    ValueError
        If the two shapes differ.
    """
    overlap = count_overlap(predicted, reference)
    distances = outline_distances(predicted, reference) if overlap.positive else None
    area = (
        reference.size if field is None else (field.bottom - field.top) * (field.right - field.left)
    )
    return FrameScore(
        name=name,
        group=name,
        confidence=confidence,
        positive=overlap.positive,
        flagged=overlap.flagged,
        found=overlap.found,
        **overlap._asdict(),
        # A reference may reach a pixel or two beyond the field of view.
        polyp_share=min(1.0, (overlap.true_positive + overlap.false_negative) / area),
        dice=overlap.dice,
        iou=overlap.iou,
        hausdorff95=None if distances is None else distances.hausdorff95,
        boundary_f=None if distances is None else distances.boundary_f,
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


class OutlineDistances(NamedTuple):
    """How far the outlines of a prediction and a reference lie from each other.

    Attributes
    ----------
    to_reference, to_predicted : float arrays, one-dimensional
        In pixels, of each pixel of the predicted outline to the nearest one of the reference's,
        and the other way round. Both are empty where nothing was predicted.
    diagonal : float
        Of the frame, in pixels.
    """

    to_reference: NDArray[np.floating]
    to_predicted: NDArray[np.floating]
    diagonal: float

    @property
    def hausdorff95(self) -> float:
        """The larger of the two 95th percentiles; the diagonal when nothing was predicted."""
        if not len(self.to_reference):
            return self.diagonal
        return max(float(np.percentile(distances, 95)) for distances in self[:2])

    @property
    def boundary_f(self) -> float:
        """F-measure of the outline, in [0, 1]; 0 when nothing was predicted.

        Precision is the share of the predicted outline that lies within tolerance of
        the reference's, recall the share of the reference's outline within tolerance
        of the predicted one; the score is their harmonic mean (Csurka et al. 2013,
        "What is a good evaluation measure for semantic segmentation?", per image; the
        same measure is the F of DAVIS, Perazzi et al. 2016). The tolerance is Csurka's,
        0.75 % of the frame's diagonal: 12.3 pixels of 1280 x 1024, 2.7 of 256 x 256.

        MONAI's surface Dice pools the two shares by the outlines' lengths instead,
        which differs where one of the outlines is much longer; it is not reported
        beside this.
        """
        if not len(self.to_reference):
            return 0.0
        tolerance = _BOUNDARY_TOLERANCE * self.diagonal
        precision, recall = (float((distances <= tolerance).mean()) for distances in self[:2])
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def outline_distances(
    predicted: NDArray[np.uint8], reference: NDArray[np.uint8]
) -> OutlineDistances | None:
    """Measure the distances of two outlines, with those of MONAI.

    The edge of pixels to ignore is no outline: what lies beyond it is not known.

    Parameters
    ----------
    predicted, reference : uint8 arrays, shape (height, width)
        As for `score_frame`.

    Returns
    -------
    OutlineDistances or None
        None where the reference has no outline: without a polyp, or with ignored pixels all
        round.

    Raises
    ------
    ValueError
        If the two shapes differ.
    """
    from monai.metrics.utils import get_mask_edges, get_surface_distance

    ignored = reference == IGNORE
    polyps = _polyps(predicted, reference)
    # What is to be ignored goes on from either side of it, and has no edge of its own.
    edges = get_mask_edges(*(polyp | ignored for polyp in polyps), crop=False)
    one, other = (edge & ~ignored for edge in edges)
    if not other.any():
        return None
    empty = np.empty(0)
    to_reference, to_predicted = (
        (get_surface_distance(one, other), get_surface_distance(other, one))
        if one.any()
        else (empty, empty)
    )
    return OutlineDistances(to_reference, to_predicted, float(np.hypot(*reference.shape)))


def _polyps(
    predicted: NDArray[np.uint8], reference: NDArray[np.uint8]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Where each mask says polyp, of the pixels that count."""
    if predicted.shape != reference.shape:
        raise ValueError(f"masks of one shape are needed: {predicted.shape}, {reference.shape}")
    counted = reference != IGNORE
    return (predicted > 0) & counted, (reference > 0) & counted
