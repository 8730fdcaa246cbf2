"""Turns frames into random views: the steps in their order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from napari_microaunet.distillation.augmentation.camera import change_colours, change_sharpness
from napari_microaunet.distillation.augmentation.draws import chosen, log_uniform
from napari_microaunet.distillation.augmentation.geometry import (
    SampledViews,
    polyp_free_shift,
    random_matrices,
    sampling_grid,
    take_views,
)
from napari_microaunet.distillation.augmentation.pasting import can_donate, paste, take_polyps
from napari_microaunet.distillation.augmentation.scope_look import (
    draw_border,
    draw_boxes,
    draw_glare,
    draw_text,
)
from napari_microaunet.frames.masks import IGNORE

if TYPE_CHECKING:
    from napari_microaunet.distillation.augmentation.settings import AugmentationSettings

# Magnification of polyp-free crops.
_CROP_ZOOM = (1.5, 3.0)


class Augmentation:
    """Turns packed frames into random views of training size.

    The steps: geometry, polyps pasted into negative frames, colours, what a scope
    adds, sharpness. All numbers come from torch's global generators:
    ``torch.manual_seed`` before a call fixes its result.

    Parameters
    ----------
    settings : AugmentationSettings
        How strongly frames are changed.
    """

    def __init__(self, settings: AugmentationSettings) -> None:
        self.settings = settings

    @torch.no_grad()
    def __call__(
        self,
        images: Tensor,
        labels: Tensor,
        soft: Tensor | None,
        side: int,
        negatives: Tensor,
        donors: tuple[Tensor, Tensor, Tensor | None] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Make one view of each frame.

        Parameters
        ----------
        images : uint8 (n, 3, size, size)
            RGB frames, square as they are packed.
        labels : uint8 (n, 1, size, size)
            0 background, 1 polyp, 255 ignore. A frame without a mask is 255
            throughout, and stays so.
        soft : uint8 (n, 1, size, size) or None
            The teacher's probabilities, 255 for 1.
        side : int
            Side of the views, in pixels, at least 32.
        negatives : bool (n,)
            Which frames are known to show no polyp; into those with a mask, polyps of
            the donors are pasted.
        donors : tuple of images, labels and soft labels or None, optional
            Frames as above, any number of them, whose polyps are pasted: best
            positive frames drawn for this alone, but the same frames again will do.
            Frames without a mask, without a polyp, or with one that the edge or the
            scope's border cuts donate nothing. Without soft labels, their labels stand in.
            Without donors nothing is pasted.

        Returns
        -------
        frames : float32 (n, 3, side, side)
            RGB in [0, 1], not normalised. Outside of the frame is black.
        labels : uint8 (n, 1, side, side)
            0, 1 and 255; background outside of the frame and under what is opaque.
        soft : float32 (n, 1, side, side) or None
            In [0, 1]; 0 outside of the frame and under what is opaque.
        """
        settings = self.settings
        negatives = negatives.cpu()
        without_mask = (labels == IGNORE).flatten(1).all(1).cpu()
        views = self._views(images, labels, soft, side, negatives)
        targets = chosen(len(images), settings.paste) & negatives & ~without_mask
        if donors is not None and targets.any():
            views = self._with_polyps(views, targets, donors)
        frames = change_colours(views.frames, settings)
        draw_glare(frames, settings.glare)
        covered = draw_border(frames, settings.border)
        covered |= draw_boxes(frames, settings.boxes)
        draw_text(frames, settings.text)
        frames = change_sharpness(frames, settings)
        seen = views.labels.masked_fill(covered, 0)
        seen[without_mask] = IGNORE
        return frames, seen, None if soft is None else views.soft.masked_fill(covered, 0)

    def _views(
        self, images: Tensor, labels: Tensor, soft: Tensor | None, side: int, negatives: Tensor
    ) -> SampledViews:
        """Draw the geometry of each frame and look through it."""
        settings, count = self.settings, len(images)
        polyps = labels == 1
        crop = chosen(count, settings.polyp_free_crop)
        crop &= polyps.flatten(1).any(1).cpu() & ~negatives
        zoom = log_uniform(count, 1 / (1 + settings.zoom_out), 1 + settings.zoom_in)
        zoom = torch.where(crop, log_uniform(count, *_CROP_ZOOM), zoom)
        matrices = random_matrices(zoom, settings)
        if crop.any():
            matrices[crop, :, 2] = polyp_free_shift(polyps[crop], matrices[crop])
        grid = sampling_grid(matrices, side, settings.elastic)
        return take_views(images, labels, soft, grid, zoom)

    def _with_polyps(
        self, views: SampledViews, targets: Tensor, donors: tuple[Tensor, Tensor, Tensor | None]
    ) -> SampledViews:
        """Paste polyps of donors, drawn at random, into the targets, bool (n,)."""
        images, labels, soft = donors
        able = can_donate(images, labels).nonzero()[:, 0]
        if len(able) == 0:
            return views
        able = able[torch.randint(len(able), (int(targets.sum()),)).to(able.device)]
        polyps = take_polyps(
            images[able],
            labels[able],
            None if soft is None else soft[able],
            views.frames.shape[-1],
            self.settings,
        )
        pasted = paste(SampledViews(*(part[targets] for part in views)), polyps)
        for whole, part in zip(views, pasted, strict=True):
            whole[targets] = part
        return views
