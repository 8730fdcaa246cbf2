"""The teacher's labels of frames, made once before a training."""

from __future__ import annotations

import hashlib
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from napari_microaunet.distillation.run_folder import load_tensors, save_tensors
from napari_microaunet.frames.masks import IGNORE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_microaunet.distillation.learner import Normalised
    from napari_microaunet.distillation.training_frames import TrainingFrames
    from napari_microaunet.networks.checkpoint import ModelCard

_AT_ONCE = 8
_FLIPS = ((), (3,))  # axes of (batch, channels, height, width)
# What a teacher is sure of. Where it overlooks part of a polyp it often says 0.05 to 0.2: taught by
# 0.2 and less, a fifth of an unseen hospital's polyp pixels became background; by 0.02, a
# twenty-fifth (64 frames of CVC, a teacher without CVC).
_SURELY_POLYP, _SURELY_BACKGROUND = 0.8, 0.02


@torch.no_grad()
def soft_labels(
    teacher: Normalised,
    card: ModelCard,
    frames: TrainingFrames,
    folder: Path,
    *,
    progress: Callable[[int, int], None],
    cancelled: Callable[[], bool],
) -> Tensor:
    """Return the teacher's probabilities for packed frames, those in a mirror averaged in.

    They are kept in a file, 0.1 MB a frame of 320 x 320, for other runs with the same teacher and
    the same frames.

    Parameters
    ----------
    teacher : Normalised
        In evaluation mode.
    card : ModelCard
        Says the teacher's hash, and how frames are brought to it.
    frames : TrainingFrames
        The n frames, of height and width ``packed``.
    folder : Path
        Where the labels are kept.
    progress : callable
        Called with the number of frames done and of all.
    cancelled : callable
        Asked now and then.

    Returns
    -------
    uint8 Tensor, shape (n, 1, packed, packed)
        255 for probability 1.

    Raises
    ------
    CancelledError
        If `cancelled` says so.
    """
    seen_as = card.input_size, card.mean, card.std, card.standardise
    identity = hashlib.sha256(f"{card.sha256} {seen_as} {frames.sha256}".encode()).hexdigest()
    file = folder / f"soft_labels-{identity[:16]}.safetensors"
    if file.is_file():
        return load_tensors(file)[0]["soft_labels"]
    images, device = frames.images, teacher.mean.device
    packed = images.shape[2:]
    labels = torch.empty(len(images), 1, *packed, dtype=torch.uint8)
    for start in range(0, len(images), _AT_ONCE):
        if cancelled():
            raise CancelledError
        inputs = images[start : start + _AT_ONCE].to(device).float() / 255
        views = [torch.sigmoid(teacher(inputs.flip(axes)).logits).flip(axes) for axes in _FLIPS]
        mean = torch.stack(views).mean(0)
        labels[start : start + _AT_ONCE] = (mean * 255).round().to(torch.uint8).cpu()
        progress(min(start + _AT_ONCE, len(images)), len(images))
    save_tensors(file, {"soft_labels": labels}, {})
    return labels


def pseudo_labels(labels: Tensor, soft: Tensor) -> Tensor:
    """Fill in labels of frames that have none from the teacher's probabilities.

    A pixel is polyp from probability 0.8 on, background up to 0.02, and else stays out of the
    losses: pseudo-labels (Lee 2013, ICML workshop on challenges in representation learning) of
    what a teacher is sure of. Frames in which it is sure of no polyp stay as they are: one that it
    overlooks must not become a frame without polyps. So do frames less than half of which it is
    sure are background: from them a network would learn to mark everything.

    Parameters
    ----------
    labels : uint8 Tensor, shape (n, 1, height, width)
        0 background, 1 polyp, 255 ignore; 255 everywhere in a frame without a mask.
    soft : uint8 Tensor, shape (n, 1, height, width)
        The teacher's probabilities, 255 for 1.

    Returns
    -------
    uint8 Tensor, shape (n, 1, height, width)
        Frames with a mask stay as they are, too.
    """
    sure = torch.full_like(soft, IGNORE)
    sure[soft <= 255 * _SURELY_BACKGROUND] = 0
    sure[soft >= 255 * _SURELY_POLYP] = 1
    per_frame = (1, 2, 3)
    filled = (
        (labels == IGNORE).all(per_frame, keepdim=True)
        & (sure == 1).any(per_frame, keepdim=True)
        & ((sure == 0).float().mean(per_frame, keepdim=True) >= 0.5)
    )
    return torch.where(filled, sure, labels)
