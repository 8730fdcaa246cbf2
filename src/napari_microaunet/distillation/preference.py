"""The contrast of the preference stage (arXiv 2511.01143, stage 2): polyp against look-alikes."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_microaunet.distillation.losses import outline_band
from napari_microaunet.frames.masks import IGNORE

# From here on a probability calls a pixel polyp.
_POLYP = 0.5
# The logarithm of weight 0; minus infinity would make gradients that are not numbers.
_NO_WEIGHT = torch.finfo(torch.float32).min


class Projection(nn.Module):
    """Pixel embeddings from the last decoder features; needed in training only.

    One linear layer and normalisation to length 1 (Khosla et al. 2020, arXiv 2004.11362,
    section 3.1, name it as one of the two usual projections).

    Parameters
    ----------
    width : int
        Channels of the features.
    dimensions : int
        Channels of the embeddings.
    """

    def __init__(self, width: int, dimensions: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(width, dimensions, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Map (batch, width, h, w) to float32 (batch, dimensions, h, w), of length 1 each."""
        return F.normalize(self.layer(features).float(), dim=1)


def preference_loss(
    embeddings: Tensor,
    labels: Tensor,
    student_probabilities: Tensor,
    teacher_probabilities: Tensor | None,
    *,
    pixels: int,
    temperature: float,
    false_positive_weight: float,
    band: int,
) -> Tensor:
    """Contrast hard polyp pixels with hard background pixels.

    For a polyp pixel ``i`` and another polyp pixel ``p``, with ``s`` the dot product of two
    embeddings divided by the temperature and ``n`` running over the background pixels, ::

        loss(i, p) = -log(exp(s_ip) / (exp(s_ip) + sum_n w_n exp(s_in)))

    which is InfoNCE (Oord et al. 2018, arXiv 1807.03748, equation 4). With several positives
    for a pixel the mean is taken outside the logarithm (Khosla et al. 2020, arXiv 2004.11362,
    equation 2). The other positives stay out of the denominator, as in Wang et al. 2021 (arXiv
    2101.11939, equation 3), so that the loss can reach 0. ``w_n`` is the weight of false
    positives for background that the student calls polyp, else 1. Background pixels are not
    pulled together: mucosa, fluid and instruments have nothing in common.

    Hard are the pixels in the band along the outline and those that only one of student and
    teacher calls polyp. As far as they last, every frame has the same share of the sample, and
    so have its band and its disagreement. PyTorch's generator of their device draws them. No
    gradient reaches the probabilities.

    Parameters
    ----------
    embeddings : float tensor, shape (batch, dimensions, h, w)
        Of length 1, as `Projection` makes them, at half the frame's size.
    labels : uint8 tensor, shape (batch, 1, height, width)
        0 background, 255 ignore, anything else is polyp. Brought to the size of the embeddings:
        a pixel is ignored when any part of it is, and polyp when at least half of it is.
    student_probabilities : float tensor, shape (batch, 1, height, width)
        In [0, 1].
    teacher_probabilities : float tensor, shape (batch, 1, height, width), optional
        In [0, 1]. Without a teacher the labels stand in.
    pixels : int
        Most polyp pixels, and most background pixels, that are drawn from the batch; time and
        memory grow with its square.
    temperature : float
        Above 0; the smaller, the more the nearest background pixels count.
    false_positive_weight : float
        Above 0.
    band : int
        Width of the band on each side of the outline, in pixels of the frame, as in
        `outline_band`; rounded up to pixels of the embeddings.

    Returns
    -------
    Tensor
        float32 scalar, the mean over all pairs of polyp pixels drawn from the batch. 0, with no
        gradient, where there are fewer than two such pixels or no background pixel.
    """
    with torch.no_grad():
        ignore = labels == IGNORE
        marked = (labels > 0) & ~ignore
        teacher_or_labels = marked if teacher_probabilities is None else teacher_probabilities
        maps = (ignore, marked, student_probabilities, teacher_or_labels)
        size = embeddings.shape[2:]
        ignored, polyp, student, teacher = F.interpolate(
            torch.cat([map_.float() for map_ in maps], dim=1), size, mode="area"
        ).split(1, dim=1)
        small = (polyp >= 0.5).to(torch.uint8).masked_fill(ignored > 0, IGNORE)
        called_polyp = student >= _POLYP
        disagreement = called_polyp != (teacher >= _POLYP)
        width = math.ceil(band * size[0] / labels.shape[2])
        polyp_band, background_band = outline_band(small, width)
        anchors, anchors_hard = _draw(polyp_band, disagreement & (small == 1), pixels)
        others, others_hard = _draw(background_band, disagreement & (small == 0), pixels)
        pairs = (anchors_hard[:, None] & anchors_hard).fill_diagonal_(fill_value=False)
        log_weights = torch.where(
            called_polyp.flatten()[others], math.log(false_positive_weight), 0.0
        ).masked_fill(~others_hard, _NO_WEIGHT)

    polyp_embeddings = _at(embeddings, anchors)
    with torch.autocast(embeddings.device.type, enabled=False):
        to_polyp = polyp_embeddings @ polyp_embeddings.T / temperature
        to_background = polyp_embeddings @ _at(embeddings, others).T / temperature
    background = torch.logsumexp(to_background + log_weights, dim=1, keepdim=True)
    # -log(e^s / (e^s + e^b)) = softplus(b - s)
    losses = F.softplus(background - to_polyp)
    return (losses * pairs).sum() / pairs.sum().clamp(min=1)


def _draw(band: Tensor, disagreement: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Draw pixels without replacement; their flat indices, and which of them are hard at all.

    Keys of weight over exponential noise, the largest first (Efraimidis and Spirakis 2006,
    doi 10.1016/j.ipl.2005.11.003), as `torch.multinomial` does, which refuses to draw more than
    there are.
    """
    sources = torch.stack([band, disagreement])
    weights = (sources / sources.sum(dim=(2, 3, 4), keepdim=True).clamp(min=1)).sum(dim=0)
    keys = (weights / torch.empty_like(weights).exponential_()).flatten()
    largest, indices = keys.topk(min(count, keys.numel()))
    return indices, largest > 0


def _at(embeddings: Tensor, indices: Tensor) -> Tensor:
    """Pick pixels by flat index; float32 (pixels, dimensions)."""
    batch, _, height, width = embeddings.shape
    frame, row, column = torch.unravel_index(indices, (batch, height, width))
    return embeddings[frame, :, row, column].float()
