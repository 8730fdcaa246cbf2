"""What the networks learn from: labels, the teacher's probabilities and the teacher's features.

Each loss is a mean over frames of one value per frame, computed in float32 whatever precision
the network runs in. Frames in which a loss finds nothing to count are left out of its mean; a
batch of nothing else gives 0 and no gradient.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_microaunet.frames.masks import IGNORE
from napari_microaunet.networks.segmentation_network import upsample

if TYPE_CHECKING:
    from collections.abc import Sequence

# Added to both sides of the Dice fraction: 30 pixels of 256 x 256. It keeps the loss of a frame
# without a polyp from jumping to 1 with the first pixel that the network marks.
_SMOOTH_SHARE = 30 / 256**2
# Stands for a probability stored as 0 of 255: the middle of [0, 0.5/255], all that rounds to it.
_LEAST_PROBABILITY = 0.25 / 255
# Added to the variance of features: tells a constant map, and matters to no other.
_LEAST_VARIANCE = 1e-8


def segmentation_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy plus soft Dice loss.

    ``1 - (2 sum(p g) + s) / (sum(p) + sum(g) + s)`` is the Dice loss of Milletari et al. 2016
    (arXiv 1606.04797, section 3) without squares below the line; ``s`` is 30 pixels where a
    frame has 256 x 256, in proportion elsewhere.

    Parameters
    ----------
    logits : float tensor, shape (batch, 1, height, width)
        The network's output.
    labels : uint8 tensor, shape (batch, 1, height, width)
        0 background, 255 ignore, anything else is polyp.

    Returns
    -------
    Tensor
        float32 scalar.

    Notes
    -----
    MONAI's ``DiceLoss`` gives the same Dice term; importing it takes seconds.
    """
    counted = labels != IGNORE
    polyp = ((labels > 0) & counted).float()
    logits = logits.float()
    entropy = F.binary_cross_entropy_with_logits(logits, polyp, reduction="none")
    probabilities = torch.sigmoid(logits) * counted
    smooth = _SMOOTH_SHARE * labels.shape[2] * labels.shape[3]
    overlap = (2 * _sum(probabilities * polyp) + smooth) / (
        _sum(probabilities) + _sum(polyp) + smooth
    )
    return _mean_over_frames(
        _mean_over_pixels(entropy, counted) + 1 - overlap, counted.flatten(1).any(dim=1)
    )


def divergence(
    logits: Tensor, teacher_probabilities: Tensor, temperature: float, labels: Tensor
) -> Tensor:
    """Kullback-Leibler divergence of the student's probabilities from the teacher's.

    Each pixel is a Bernoulli variable. Both logits are divided by the temperature, and the
    result is multiplied by its square, so that gradients keep their size (Hinton et al. 2015,
    arXiv 1503.02531, section 2). Pixels to ignore are left out; a frame without a mask, in which
    all are, counts whole.

    Parameters
    ----------
    logits : float tensor, shape (batch, 1, height, width)
        The student's output.
    teacher_probabilities : float tensor, shape (batch, 1, height, width)
        In [0, 1], at temperature 1. They may come from 8 bits: 0 and 1 are taken as a quarter
        of a step from the end.
    temperature : float
        1 or more.
    labels : uint8 tensor, shape (batch, 1, height, width)
        255 ignore; nothing else in them matters.

    Returns
    -------
    Tensor
        float32 scalar, 0 where both agree.
    """
    teacher_logits = torch.logit(teacher_probabilities.float(), eps=_LEAST_PROBABILITY)
    softened = torch.sigmoid(teacher_logits / temperature)
    cross_entropy, entropy = (
        F.binary_cross_entropy_with_logits(of / temperature, softened, reduction="none")
        for of in (logits.float(), teacher_logits)
    )
    counted = _counted_by_teacher(labels)
    return temperature**2 * _mean_over_pixels(cross_entropy - entropy, counted).mean()


def boundary_loss(logits: Tensor, labels: Tensor, width: int) -> Tensor:
    """Binary cross-entropy in a band along the outline of the labels.

    The polyp side and the background side of a frame's band weigh the same, as positives and
    negatives do in the balanced cross-entropy of Xie and Tu 2015 (arXiv 1504.06375, section 2.2).
    The band is this project's reading of the paper's boundary cues, which have no formula there.
    Frames without an outline do not count.

    Parameters
    ----------
    logits : float tensor, shape (batch, 1, height, width)
        The network's output.
    labels : uint8 tensor, shape (batch, 1, height, width)
        0 background, 255 ignore, anything else is polyp.
    width : int
        Width of the band on each side, in pixels, as in `outline_band`.

    Returns
    -------
    Tensor
        float32 scalar.
    """
    polyp_side, background_side = outline_band(labels, width)
    entropy = F.binary_cross_entropy_with_logits(
        logits.float(), polyp_side.float(), reduction="none"
    )
    both = _mean_over_pixels(entropy, polyp_side) + _mean_over_pixels(entropy, background_side)
    return _mean_over_frames(both / 2, polyp_side.flatten(1).any(dim=1))


def outline_band(labels: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Find the pixels along the outline of the labels.

    The band holds the polyp pixels that have a background pixel within ``width`` pixels, and the
    other way round, by chessboard distance: diagonal steps count one. The frame's edge and the
    edge of pixels to ignore are no outline.

    Parameters
    ----------
    labels : uint8 tensor, shape (batch, 1, height, width)
        0 background, 255 ignore, anything else is polyp.
    width : int
        Pixels.

    Returns
    -------
    polyp_side, background_side : bool tensors, shape (batch, 1, height, width)
        Both are empty in a frame without an outline, and neither is in any other.
    """
    background = labels == 0
    polyp = ~background & (labels != IGNORE)
    # Frames stand in for channels: pooling is several times as fast on the CPU channels-last.
    sides = torch.cat([polyp, background]).float().transpose(0, 1)
    near = sides.contiguous(memory_format=torch.channels_last)
    # Rows, then columns: the same as a square, and a wide band costs no square of its width.
    near = F.max_pool2d(near, (2 * width + 1, 1), stride=1, padding=(width, 0))
    near = F.max_pool2d(near, (1, 2 * width + 1), stride=1, padding=(0, width))
    near_polyp, near_background = near.transpose(0, 1).bool().chunk(2)
    return polyp & near_background, background & near_polyp


class FeatureAdapters(nn.Module):
    """Bring the student's skips to the teacher's widths; needed in training only.

    Parameters
    ----------
    student_widths, teacher_widths : sequences of int
        Channels of each skip. Where they differ, a 1x1 convolution stands between.
    """

    def __init__(self, student_widths: Sequence[int], teacher_widths: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Identity() if student == teacher else nn.Conv2d(student, teacher, 1)
            for student, teacher in zip(student_widths, teacher_widths, strict=True)
        )

    def forward(self, skips: Sequence[Tensor]) -> list[Tensor]:
        """Map each skip (batch, student width, h, w) to (batch, teacher width, h, w)."""
        return [layer(skip) for layer, skip in zip(self.layers, skips, strict=True)]


def feature_alignment(
    student_skips: Sequence[Tensor], teacher_skips: Sequence[Tensor], labels: Tensor
) -> Tensor:
    """Mean squared distance of the student's features from the teacher's.

    Each map of each frame is first brought to mean 0 and variance 1 over all its channels and
    pixels, and the distance halved: it is 1 minus their correlation, 1 for unrelated features
    of whatever scale and 0 for equal ones. The distance of normalised features is that of
    Zagoruyko and Komodakis 2017 (arXiv 1612.03928, section 3.1). A pixel of a map counts by the
    share of it that is not to be ignored; a frame without a mask, in which all is, counts whole.

    Parameters
    ----------
    student_skips : sequence of float tensors, shape (batch, channels, height, width) each
        What `FeatureAdapters` made of the student's skips.
    teacher_skips : sequence of float tensors
        As many, of the same channels. Maps of another size are resized bilinearly. No gradient
        reaches them.
    labels : uint8 tensor, shape (batch, 1, height, width)
        Of the frames. 255 ignore; nothing else in them matters.

    Returns
    -------
    Tensor
        float32 scalar, the mean over the skips.
    """
    counted = _counted_by_teacher(labels).float()
    distances = []
    for student, teacher in zip(student_skips, teacher_skips, strict=True):
        share = F.interpolate(counted, student.shape[2:], mode="area")
        share = share / (student.shape[1] * share.sum(dim=(1, 2, 3), keepdim=True))
        target = upsample(teacher.detach().float(), student)
        apart = _normalised(student.float(), share) - _normalised(target, share)
        distances.append(_sum(share * apart.square()).mean() / 2)
    return torch.stack(distances).mean()


def _normalised(features: Tensor, share: Tensor) -> Tensor:
    """Bring each frame's features to mean 0 and variance 1 where they count.

    ``share``, (batch, 1, height, width), is what a value counts; it sums to 1 over all values.
    """
    centred = features - _sum(share * features).view(-1, 1, 1, 1)
    variance = _sum(share * centred.square()).view(-1, 1, 1, 1)
    return centred * torch.rsqrt(variance + _LEAST_VARIANCE)


def _counted_by_teacher(labels: Tensor) -> Tensor:
    """Tell in which pixels a teacher counts; a frame without a mask is to be ignored throughout."""
    ignored = labels == IGNORE
    return ~ignored | ignored.flatten(1).all(dim=1).view(-1, 1, 1, 1)


def _sum(values: Tensor) -> Tensor:
    """Sum each frame; shape (batch,)."""
    return values.flatten(1).sum(dim=1)


def _mean_over_pixels(values: Tensor, counted: Tensor) -> Tensor:
    """Average the counted pixels of each frame, 0 where there is none; shape (batch,)."""
    return _sum(values * counted) / _sum(counted).clamp(min=1)


def _mean_over_frames(values: Tensor, counted: Tensor) -> Tensor:
    """Average the counted frames, 0 where there is none."""
    return (values * counted).sum() / counted.sum().clamp(min=1)
