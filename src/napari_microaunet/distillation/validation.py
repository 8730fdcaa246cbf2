"""A quick look at held-out frames in the course of a training, at the network's size."""

from __future__ import annotations

from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional as F

from napari_microaunet.frames.masks import IGNORE
from napari_microaunet.prelabel.masks import MaskSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_microaunet.distillation.learner import Normalised
    from napari_microaunet.distillation.training_frames import TrainingFrames

_AT_ONCE = 4
_DICE_COUNTS = 3  # times as much as false alarms: this project's choice


@dataclass(frozen=True)
class Validation:
    """How good a network is on held-out frames, at threshold 0.5.

    Attributes
    ----------
    dice : float
        Mean per-frame Dice of the positive frames, in [0, 1].
    positives_found : float
        Share of positive frames where the mask meets the reference.
    negatives_flagged : float or None
        Share of negative frames where a region of at least the smallest area is marked; None
        where there are no negative frames.
    score : float
        What the best weights are chosen by: Dice, and the share of negative frames left alone
        where there are any, the first counting three times.
    """

    dice: float
    positives_found: float
    negatives_flagged: float | None
    score: float


@torch.no_grad()
def validate(
    network: Normalised,
    held_out: TrainingFrames,
    side: int,
    cancelled: Callable[[], bool] = lambda: False,
) -> Validation:
    """Look at every frame once.

    Parameters
    ----------
    network : Normalised
        Left in evaluation mode.
    held_out : TrainingFrames
        With at least one positive frame; frames without a mask are left out.
    side : int
        Height and width that the network is used at, in pixels.
    cancelled : callable, optional
        Asked now and then.

    Raises
    ------
    CancelledError
        If `cancelled` says so.
    """
    network.eval()
    device = network.mean.device
    smallest = MaskSettings().smallest_area * side * side
    dice: list[float] = []
    found: list[bool] = []
    flagged: list[bool] = []
    for start in range(0, len(held_out), _AT_ONCE):
        if cancelled():
            raise CancelledError
        part = slice(start, start + _AT_ONCE)
        frames = held_out.images[part].to(device).float() / 255
        frames = F.interpolate(frames, (side, side), mode="bilinear", antialias=True)
        labels = held_out.labels[part].to(device)
        labels = F.interpolate(labels, (side, side), mode="nearest-exact").flatten(1)
        counted = labels != IGNORE
        marked = (network(frames).logits > 0).flatten(1) & counted
        polyp = (labels > 0) & counted
        both = (marked & polyp).sum(1)
        overlap = 2 * both / (marked.sum(1) + polyp.sum(1)).clamp(min=1)
        # By the masks at their own size: a very small polyp may be lost at this one.
        positive, negative = (
            torch.tensor([of_frame == kind for of_frame in held_out.kinds[part]])
            for kind in ("polyp", "negative")
        )
        dice += overlap[positive].tolist()
        found += (both > 0)[positive].tolist()
        flagged += [
            _holds(of_frame.reshape(side, side), smallest)
            for of_frame in marked[negative].cpu().numpy()
        ]
    mean = sum(dice) / len(dice)
    alarms = sum(flagged) / len(flagged) if flagged else None
    score = mean if alarms is None else (_DICE_COUNTS * mean + 1 - alarms) / (_DICE_COUNTS + 1)
    return Validation(mean, sum(found) / len(found), alarms, score)


def _holds(marked: NDArray[np.bool_], smallest: float) -> bool:
    """Tell whether a connected region of a mask has so many pixels."""
    regions, count = ndimage.label(marked, np.ones((3, 3)))
    return count > 0 and bool(np.bincount(regions.ravel())[1:].max() >= smallest)
