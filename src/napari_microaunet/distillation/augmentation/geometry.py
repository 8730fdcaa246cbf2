"""Where each pixel of the result looks in its frame: one interpolation for all geometry.

Flip, rotation, zoom, stretch and shift make one affine map, the elastic
displacement is added to it, and image, labels and soft labels are read through
the same grid. Coordinates are those of ``torch.nn.functional.grid_sample``
without aligned corners: x and y from -1 to 1, from edge to edge.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from kornia.geometry.transform import get_affine_matrix2d
from torch import Tensor
from torch.nn import functional as F

from napari_microaunet.distillation.augmentation.draws import chosen, log_uniform, uniform
from napari_microaunet.frames.masks import IGNORE

if TYPE_CHECKING:
    from napari_microaunet.distillation.augmentation.settings import AugmentationSettings

# Bilinear reading takes in neighbours up to here; a stronger reduction needs a smaller frame.
_LARGEST_PLAIN_REDUCTION = 1.5
# The displacement is drawn at this many points along each axis and is smooth in between.
_ELASTIC_POINTS = 5
# How many places are tried for a polyp-free crop, how far its centre may lie from that of the
# frame, and the side at which polyp is looked for.
_CROP_TRIES = 16
_CROP_REACH = 0.7
_CROP_SIDE = 24


class SampledViews(NamedTuple):
    """Frames at training size.

    Attributes
    ----------
    frames : float32 (n, 3, side, side)
        RGB in [0, 1].
    labels : uint8 (n, 1, side, side)
        0 background, 1 polyp, 255 ignore.
    soft : float32 (n, 1, side, side)
        Soft labels in [0, 1].
    inside : bool (n, 1, side, side)
        Whether a pixel lies inside the frame it was taken from; outside
        everything is 0.
    """

    frames: Tensor
    labels: Tensor
    soft: Tensor
    inside: Tensor


def random_matrices(zoom: Tensor, settings: AugmentationSettings) -> Tensor:
    """Draw the affine map of each frame.

    Parameters
    ----------
    zoom : float32 (n,)
        Magnification of each frame.
    settings : AugmentationSettings
        Flip, rotation, stretch and shift.

    Returns
    -------
    float32 (n, 2, 3)
        From coordinates in the result to coordinates in the frame.
    """
    count = len(zoom)
    stretch = log_uniform(count, 1 / (1 + settings.stretch), 1 + settings.stretch)
    mirror = [1 - 2 * chosen(count, settings.flip).float() for _ in range(2)]
    scale = torch.stack([mirror[0] / stretch, mirror[1] * stretch], 1) / zoom[:, None]
    angle = uniform(count, -settings.rotation, settings.rotation)
    # The frame is two units wide.
    shift = uniform(2 * count, -2 * settings.shift, 2 * settings.shift).view(count, 2)
    matrices: Tensor = get_affine_matrix2d(shift, torch.zeros(count, 2), scale, angle)
    return matrices[:, :2]


def polyp_free_shift(polyps: Tensor, matrices: Tensor) -> Tensor:
    """Find a shift for each frame with which little polyp is left in view.

    Parameters
    ----------
    polyps : bool (n, 1, height, width)
        Where the frames show a polyp.
    matrices : float32 (n, 2, 3)
        The frames' affine maps, whose shift is to be replaced.

    Returns
    -------
    float32 (n, 2)
        Of a few places drawn within the frame, the one with the least polyp.
    """
    count = len(polyps)
    places = uniform(count * _CROP_TRIES * 2, -_CROP_REACH, _CROP_REACH).view(-1, 2)
    tried = matrices.repeat_interleave(_CROP_TRIES, 0)
    tried[:, :, 2] = places
    size = [len(tried), 1, _CROP_SIDE, _CROP_SIDE]
    grid = F.affine_grid(tried, size, align_corners=False).to(polyps.device)
    # Outside of the frame is no picture: to be avoided as well, only less.
    inside = (grid.abs() <= 1).all(3).float().mean((1, 2))
    seen = F.grid_sample(
        polyps.float().repeat_interleave(_CROP_TRIES, 0), grid, mode="nearest", align_corners=False
    ).mean((1, 2, 3))
    best = (seen - 0.02 * inside).view(count, _CROP_TRIES).argmin(1).cpu()
    return places.view(count, _CROP_TRIES, 2)[torch.arange(count), best]


def sampling_grid(matrices: Tensor, side: int, elastic: float) -> Tensor:
    """Compose the affine maps with elastic displacements.

    Parameters
    ----------
    matrices : float32 (n, 2, 3)
        From :func:`random_matrices`.
    side : int
        Side of the result, in pixels.
    elastic : float
        Standard deviation of the displacement at its strongest, as a share of
        the result's side.

    Returns
    -------
    float32 (n, side, side, 2)
        Where each pixel looks.
    """
    count = len(matrices)
    grid = F.affine_grid(matrices, [count, 1, side, side], align_corners=False)
    if elastic == 0:
        return grid
    # Kornia's elastic transform smooths one random value per pixel, which takes 16 ms a frame of
    # 256 x 256 on one core; these few values and their interpolation take 1 ms.
    strength = uniform(count, 0, 2 * elastic).view(count, 1, 1, 1)
    points = strength * torch.randn(count, 2, _ELASTIC_POINTS, _ELASTIC_POINTS)
    # In the frame's coordinates, where a magnified frame spans less.
    points = torch.einsum("nij,njhw->nihw", matrices[:, :, :2], points)
    displacement = F.interpolate(points, (side, side), mode="bicubic", align_corners=False)
    return grid + displacement.permute(0, 2, 3, 1)


def take_views(
    images: Tensor, labels: Tensor, soft: Tensor | None, grid: Tensor, zoom: Tensor
) -> SampledViews:
    """Read frames through a sampling grid.

    Polyp and ignore are read as two maps beside the image and the label is the
    one that holds most of a pixel, so that 255 never mixes with 1.

    Parameters
    ----------
    images : uint8 (n, 3, size, size)
        RGB.
    labels : uint8 (n, 1, size, size)
        0 background, 1 polyp, 255 ignore.
    soft : uint8 (n, 1, size, size), optional
        Soft labels, 255 for 1; without them, polyps have 1 and all else 0.
    grid : float32 (n, side, side, 2)
        From :func:`sampling_grid`.
    zoom : float32 (n,)
        Magnification of each frame: where it is reduced by more than 1.5, it is
        made smaller first, with antialiasing.

    Returns
    -------
    SampledViews
        At the size of the grid.
    """
    polyp, ignore = (labels == 1).float(), (labels == IGNORE).float()
    maps = torch.cat([images / 255, polyp, ignore, polyp if soft is None else soft / 255], 1)
    size, side = images.shape[-1], grid.shape[1]
    grid = grid.to(images.device)
    read = []
    for own, looks, reduction in zip(maps, grid, (size / side / zoom).tolist(), strict=True):
        frame = own[None]
        if reduction > _LARGEST_PLAIN_REDUCTION:
            smaller = [max(1, round(size / reduction))] * 2
            frame = F.interpolate(
                frame, smaller, mode="bilinear", antialias=True, align_corners=False
            )
        read.append(F.grid_sample(frame, looks[None], padding_mode="border", align_corners=False))
    inside = (grid.abs() <= 1).all(3)[:, None]
    # Rounding may leave a weighted mean of ones a little above 1.
    taken = (torch.cat(read) * inside).clamp_(0, 1)
    frames, polyp, ignore, soft = taken.split([3, 1, 1, 1], 1)
    background = 1 - polyp - ignore
    most = (polyp > background).to(torch.uint8)
    most.masked_fill_(ignore > torch.maximum(polyp, background), IGNORE)
    return SampledViews(frames, most, soft, inside)
