"""Augmented batches, each used several times."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from napari_microaunet.distillation.augmentation.augment import Augmentation
    from napari_microaunet.distillation.training_frames import Batches, TrainingFrames


class ViewBatch(NamedTuple):
    """Views of frames, as `Augmentation` returns them.

    Attributes
    ----------
    frames : float32 Tensor, shape (batch, 3, side, side)
        RGB in [0, 1].
    labels : uint8 Tensor, shape (batch, 1, side, side)
        0 background, 1 polyp, 255 ignore.
    soft : float32 Tensor, shape (batch, 1, side, side), or None
        The teacher's probabilities, where it labelled the frames once.
    """

    frames: Tensor
    labels: Tensor
    soft: Tensor | None


class Views:
    """The views that each step of a training looks at: a function of seed and step.

    Augmentation costs a tiny network about as much as a step does. With an echo of n, a new batch
    of views is made every n steps and each view is used n times, turned or mirrored anew: data
    echoing after augmentation (Choi et al. 2019, arXiv 1907.05550). A step mixes the last n
    batches, so that no two steps see the same one.

    Parameters
    ----------
    frames : TrainingFrames
        What is looked at.
    soft_labels : uint8 Tensor, shape (n, 1, kept, kept), optional
        The teacher's probabilities for them, 255 for 1.
    batches : Batches
        Which frames.
    augmentation : Augmentation
        How.
    seed : int
        Of everything drawn.
    chunks : int
        In how many parts a step is computed.
    echo : int
        How often a view is used.
    device : torch.device
        Where views are made.
    """

    def __init__(
        self,
        frames: TrainingFrames,
        soft_labels: Tensor | None,
        batches: Batches,
        augmentation: Augmentation,
        *,
        seed: int,
        chunks: int,
        echo: int,
        device: torch.device,
    ) -> None:
        self._frames = frames
        self._soft_labels = soft_labels
        self._batches = batches
        self._augmentation = augmentation
        self._seed = seed
        self._chunks = chunks
        self._echo = echo
        self._device = device
        self._made: dict[tuple[int, int, int], ViewBatch] = {}

    def at(self, step: int, part: int, side: int) -> ViewBatch:
        """Return one part of a step's batch, and leave torch's generator fixed by step and part.

        Parameters
        ----------
        step : int
            From 0.
        part : int
            Number of the part, from 0.
        side : int
            Height and width of the views, in pixels.
        """
        newest = step // self._echo
        wanted = [max(0, newest - age) for age in range(self._echo)]
        self._made = {
            key: views for key, views in self._made.items() if key[0] in wanted and key[2] == side
        }
        for number in wanted:
            if (number, part, side) not in self._made:
                self._made[number, part, side] = self._make(number, part, side)
        torch.manual_seed(_mixed(self._seed, 1, step, part))
        if self._echo == 1:
            return self._made[newest, part, side]
        sources = [self._made[number, part, side] for number in wanted]
        turns, mirrored = int(torch.randint(4, ())), bool(torch.rand(()) < 0.5)

        def mix(parts: list[Tensor]) -> Tensor:
            # Row r comes from the batch of age (r + step) mod n, from each batch once per n steps.
            rows = torch.stack([parts[(r + step) % self._echo][r] for r in range(len(parts[0]))])
            rows = rows.flip(3) if mirrored else rows
            return rows.rot90(turns, (2, 3))

        soft = [views.soft for views in sources if views.soft is not None]
        return ViewBatch(
            mix([views.frames for views in sources]),
            mix([views.labels for views in sources]),
            mix(soft) if soft else None,
        )

    def _make(self, number: int, part: int, side: int) -> ViewBatch:
        torch.manual_seed(_mixed(self._seed, 0, number, part))
        chosen = self._batches.indices(number)[part :: self._chunks]
        images, labels = (
            part_of[chosen].to(self._device)
            for part_of in (self._frames.images, self._frames.labels)
        )
        soft = None if self._soft_labels is None else self._soft_labels[chosen].to(self._device)
        negatives = self._frames.negatives[chosen]
        return ViewBatch(
            *self._augmentation(images, labels, soft, side, negatives, (images, labels, soft))
        )


def _mixed(*numbers: int) -> int:
    """Mix numbers into one seed; Python's own hash differs between versions."""
    return int.from_bytes(hashlib.sha256(repr(numbers).encode()).digest()[:8]) >> 1
