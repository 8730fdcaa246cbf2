"""How a teacher labels frames once, and what its labels make of frames without a mask."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from napari_microaunet.distillation.learner import Outputs
from napari_microaunet.distillation.soft_labels import pseudo_labels, soft_labels
from napari_microaunet.distillation.training_frames import TrainingFrames
from napari_microaunet.networks.checkpoint import ModelCard

if TYPE_CHECKING:
    from pathlib import Path

    from napari_microaunet.distillation.training_frames import Kind


class RedOnTheLeft(nn.Module):
    """A teacher that believes red the less the further to the right it is."""

    mean = torch.zeros(1)

    def forward(self, frames: Tensor) -> Outputs:
        belief = torch.tensor([1.0, 0.5, 0.25, 0.0])
        return Outputs(torch.logit(frames[:, :1] * belief), [], frames)


class Absent(nn.Module):
    """A teacher that must not be asked."""

    mean = torch.zeros(1)

    def forward(self, _: Tensor) -> Outputs:
        raise AssertionError("asked again")


def frames_of_red(red: Tensor) -> TrainingFrames:
    """Return frames without a mask; ``red`` has the shape (n, rows, columns)."""
    images = torch.zeros(len(red), 3, *red.shape[1:], dtype=torch.uint8)
    images[:, 0] = red.to(torch.uint8)
    names = tuple(str(number) for number in range(len(red)))
    labels = torch.full_like(images[:, :1], 255)
    kinds: list[Kind] = ["unlabelled"] * len(red)
    return TrainingFrames(images, labels, names, names, tuple(kinds), {})


CARD = ModelCard(name="stub", network="malunet", widths=(1,) * 6, sha256="a" * 64)


def labels_by(
    teacher: nn.Module, frames: TrainingFrames, folder: Path, card: ModelCard = CARD
) -> Tensor:
    return soft_labels(
        teacher,  # type: ignore[arg-type]
        card,
        frames,
        folder,
        progress=lambda *_: None,
        cancelled=lambda: False,
    )


def test_both_mirror_images_are_averaged_where_they_belong_and_kept(tmp_path: Path) -> None:
    # More frames than go through the teacher at once, each 8 redder than the one before.
    first = torch.tensor([[160, 80, 120, 40], [40, 0, 8, 160]])
    number = torch.arange(10)[:, None, None]
    frames = frames_of_red(first + 8 * number)
    # It believes the frame by 1, 1/2, 1/4, 0 and its mirror image by 0, 1/4, 1/2, 1: together by
    # 1/2, 3/8, 3/8, 1/2.
    expected = torch.tensor([[80, 30, 45, 20], [20, 0, 3, 80]]) + number * torch.tensor(
        [4, 3, 3, 4]
    )
    labels = labels_by(RedOnTheLeft(), frames, tmp_path)
    assert labels.dtype == torch.uint8
    assert labels[:, 0].tolist() == expected.tolist()
    assert labels_by(Absent(), frames, tmp_path).equal(labels)


def test_labels_of_another_teacher_or_of_other_frames_are_made_anew(tmp_path: Path) -> None:
    frames, others = (frames_of_red(torch.full((1, 1, 4), red)) for red in (80, 88))
    labels_by(RedOnTheLeft(), frames, tmp_path)
    for another in ({"sha256": "b" * 64}, {"input_size": (64, 64)}, {"standardise": True}):
        with pytest.raises(AssertionError, match="asked again"):
            labels_by(Absent(), frames, tmp_path, CARD.model_copy(update=another))
    with pytest.raises(AssertionError, match="asked again"):
        labels_by(Absent(), others, tmp_path)


def test_a_teacher_fills_in_what_it_is_sure_of_where_nobody_drew() -> None:
    soft = torch.tensor([[255, 204, 203, 51, 6, 5, 4, 2, 1, 0, 0]] * 4, dtype=torch.uint8)
    soft[2, :3] = 128  # sure of no polyp
    soft[3, 5:] = 6  # sure of no background
    labels = torch.full_like(soft, 255)
    labels[1, 0] = 0  # somebody looked at this one
    filled = pseudo_labels(*(part[:, None, None] for part in (labels, soft)))
    assert filled[0].flatten().tolist() == [1, 1, 255, 255, 255, 0, 0, 0, 0, 0, 0]
    assert filled[1:, 0, 0].equal(labels[1:])
