"""A few held-out frames that people can watch while a network learns, with what it marks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from skimage.measure import approximate_polygon, find_contours
from torch.nn import functional as F

from napari_microaunet.atomic import replacing
from napari_microaunet.editing.labels import polyps_in
from napari_microaunet.frames.field_of_view import FieldOfView
from napari_microaunet.prelabel.masks import MaskSettings, mask_from
from napari_microaunet.prelabel.probability import ProbabilityMap, quantise

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_microaunet.distillation.learner import Normalised
    from napari_microaunet.distillation.training_frames import TrainingFrames
    from napari_microaunet.networks.checkpoint import ModelCard

# As many as a dock shows in two rows; looking at them costs a small network a tenth of a second.
MOST = 8
# Height and width of each picture, in pixels.
PICTURE = 160
# How far a vertex that is left out may lie off the outline, in pixels of the network's size.
_TOLERANCE = 0.7

# Of one frame: closed polygons of (row, column), each from 0 to 1 of the field of view.
Outlines = list[list[tuple[float, float]]]


class WatchedFrames:
    """Held-out frames, spread over all of them, those with polyps first.

    Parameters
    ----------
    held_out : TrainingFrames
        At most `MOST` of them are taken.
    card : ModelCard
        Says how probabilities become masks.
    side : int
        Height and width that the network is used at, in pixels.

    Attributes
    ----------
    names : tuple of str
        Of the frames.
    """

    def __init__(self, held_out: TrainingFrames, card: ModelCard, side: int) -> None:
        self._frames = held_out.spread(MOST)
        self._settings = MaskSettings.of(card)
        self._side = side
        self.names = self._frames.names

    def write_pictures(self, file: Path) -> None:
        """Write the frames side by side, each of `PICTURE` x `PICTURE` pixels, as JPEG."""
        images = self._frames.images.float()
        small = F.interpolate(images, (PICTURE, PICTURE), mode="bilinear", antialias=True)
        row = torch.cat(list(small), 2).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
        with replacing(file) as written:
            Image.fromarray(row).save(written, "JPEG", quality=90)

    def reference(self) -> list[Outlines]:
        """Return the outlines of the labels, frame by frame."""
        return [_outlines(polyps_in(labels[0].numpy())) for labels in self._frames.labels]

    @torch.no_grad()
    def marked_by(self, network: Normalised) -> list[Outlines]:
        """Return the outlines of what a network marks, frame by frame.

        Parameters
        ----------
        network : Normalised
            Left in evaluation mode.
        """
        network.eval()
        side = self._side
        frames = self._frames.images.to(network.mean.device).float() / 255
        frames = F.interpolate(frames, (side, side), mode="bilinear", antialias=True)
        maps = torch.sigmoid(network(frames).logits)[:, 0].cpu().numpy()
        whole = FieldOfView(0, 0, side, side)
        return [
            _outlines(
                mask_from(ProbabilityMap(quantise(one), whole, (side, side)), self._settings) > 0
            )
            for one in maps
        ]


def _outlines(mask: NDArray[np.bool_]) -> Outlines:
    height, width = mask.shape
    scale = np.array([height, width])
    # A rim of background, so that what touches the edge has a closed outline, too.
    contours: list[Any] = find_contours(np.pad(mask, 1).astype(np.float32), 0.5)
    return [
        [
            (round(float(row), 4), round(float(column), 4))
            for row, column in (approximate_polygon(contour, _TOLERANCE) - 0.5) / scale
        ]
        for contour in contours
    ]
