"""Polyps of positive frames, pasted into negative ones.

Negative frames come from other scopes than most polyps. A network that sees no
polyp in them learns to tell the scopes apart instead of mucosa from polyp.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from kornia.filters import gaussian_blur2d
from torch import Tensor
from torch.nn import functional as F

from napari_microaunet.distillation.augmentation.draws import log_uniform, per_frame, uniform
from napari_microaunet.distillation.augmentation.geometry import (
    SampledViews,
    random_matrices,
    sampling_grid,
    take_views,
)

if TYPE_CHECKING:
    from napari_microaunet.distillation.augmentation.settings import AugmentationSettings

# Root of the area of a pasted polyp, as a share of the side, and the magnification that may
# bring it there.
_SMALLEST, _LARGEST = 0.1, 0.5
_ZOOM = (0.4, 2.0)
# How far from the centre of the frame a polyp's may lie, of 1 at the edge.
_REACH = 0.65
# Width of the rim that comes along with a polyp, as a share of the side; the feather begins in
# its middle and ends as far outside of it.
_RIM = 0.02
# Where a frame's surroundings are darker than this, it shows the scope's border or lumen: no
# polyp lies there, and a rim taken from there is none.
_DARKEST_MUCOSA = 0.08
# A polyp with more of its rim in the dark is cut by the border.
_MOST_DARK_RIM = 0.05
# The polyp takes on the colour around it by this part, its least and its most: a polyp has
# a colour of its own.
_MATCH = (0.4, 1.0)
_LARGEST_GAIN = 2.0
# Mean of a polyp in each colour beyond which it is not brightened: it would lose its surface.
_BRIGHTEST_POLYP = 0.8


def can_donate(images: Tensor, labels: Tensor) -> Tensor:
    """Tell which frames have whole polyps to paste.

    Parameters
    ----------
    images : uint8 (n, 3, size, size)
        RGB.
    labels : uint8 (n, 1, size, size)
        0 background, 1 polyp, 255 ignore.

    Returns
    -------
    bool (n,)
        Whether there is a polyp and neither the frame's edge nor the scope's border
        cuts one: a straight cut is no outline of a polyp.
    """
    # A quarter of the packed size shows borders well enough.
    polyps = F.max_pool2d((labels == 1).float(), 4)
    bright = F.avg_pool2d(images.amax(1, keepdim=True) / 255, 4)
    rim = F.max_pool2d(polyps, 5, stride=1, padding=2) - polyps
    dark = (rim * (bright < _DARKEST_MUCOSA)).sum((1, 2, 3))
    whole = dark <= _MOST_DARK_RIM * rim.sum((1, 2, 3))
    edge = torch.cat([polyps[..., [0, -1], :].flatten(1), polyps[..., [0, -1]].flatten(1)], 1)
    return polyps.flatten(1).any(1) & whole & ~edge.any(1)


def take_polyps(
    images: Tensor, labels: Tensor, soft: Tensor | None, side: int, settings: AugmentationSettings
) -> SampledViews:
    """View donors so that their polyps have a size and a place of their own.

    Parameters
    ----------
    images : uint8 (n, 3, size, size)
        RGB.
    labels : uint8 (n, 1, size, size)
        0 background, 1 polyp, 255 ignore; each frame with a polyp.
    soft : uint8 (n, 1, size, size), optional
        Soft labels, 255 for 1.
    side : int
        Side of the result, in pixels.
    settings : AugmentationSettings
        Flip, rotation, stretch and elastic.

    Returns
    -------
    SampledViews
        The donors, polyps anywhere in view.
    """
    count, size = len(images), images.shape[-1]
    polyps = (labels[:, 0] == 1).float().cpu()
    area = polyps.sum((1, 2))
    at = (torch.arange(size) + 0.5) * 2 / size - 1
    centre = torch.stack([(polyps.sum(1) * at).sum(1), (polyps.sum(2) * at).sum(1)], 1)
    centre = centre / area[:, None]
    zoom = (log_uniform(count, _SMALLEST, _LARGEST) * size / area.sqrt()).clamp(*_ZOOM)
    matrices = random_matrices(zoom, settings)
    place = uniform(2 * count, -_REACH, _REACH).view(count, 2, 1)
    matrices[:, :, 2] = centre - (matrices[:, :, :2] @ place)[:, :, 0]
    grid = sampling_grid(matrices, side, settings.elastic)
    return take_views(images, labels, soft, grid, zoom)


def paste(targets: SampledViews, donors: SampledViews) -> SampledViews:
    """Paste the polyps of each donor with their rim into the target beside it.

    The rim is feathered, and the colours of what is pasted are moved towards
    those of the mucosa it comes to lie on. Nothing is pasted onto the scope's
    border or into the dark of the lumen.

    Parameters
    ----------
    targets, donors : SampledViews
        Equally many, of the same size.

    Returns
    -------
    SampledViews
        The targets with the polyps; labels and soft labels are the donor's wherever more
        than half of a pixel is.
    """
    side = targets.frames.shape[-1]
    radius = _RIM * side
    polyps = donors.labels == 1
    # For a straight outline the blur falls to 0.03 at 1.9 standard deviations.
    rim = _blur(polyps.float(), radius / 1.9) > 0.03
    rim &= _mucosa(targets, radius) & (_mucosa(donors, radius) | polyps)
    share = _blur(rim.float(), radius / 3)
    around = share * (donors.labels == 0)
    gain = (_mean(targets.frames, around) + 0.05) / (_mean(donors.frames, around) + 0.05)
    gain = gain.clamp(1 / _LARGEST_GAIN, _LARGEST_GAIN)
    gain = gain ** per_frame(uniform(len(gain), *_MATCH), gain)
    brightest = _BRIGHTEST_POLYP / _mean(donors.frames, polyps.float()).clamp(min=1e-6)
    gain = gain.minimum(brightest.clamp(min=1))
    most = share > 0.5
    return SampledViews(
        torch.lerp(targets.frames, (donors.frames * gain).clamp(0, 1), share),
        torch.where(most, donors.labels, targets.labels),
        torch.where(most, donors.soft, targets.soft),
        targets.inside,
    )


def _mucosa(views: SampledViews, radius: float) -> Tensor:
    """Tell where frames show something lit, bool (n, 1, side, side)."""
    return views.inside & (_blur(views.frames.amax(1, keepdim=True), radius) > _DARKEST_MUCOSA)


def _blur(maps: Tensor, deviation: float) -> Tensor:
    """Blur with a Gaussian that ends at three standard deviations."""
    size = 2 * math.ceil(3 * deviation) + 1
    blurred: Tensor = gaussian_blur2d(maps, size, (deviation, deviation), border_type="replicate")
    return blurred


def _mean(frames: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean colour, (n, 3, 1, 1)."""
    total = weights.sum((2, 3), keepdim=True).clamp(min=1e-6)
    return (frames * weights).sum((2, 3), keepdim=True) / total
