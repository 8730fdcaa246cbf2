"""Views: each one used as often as the echo says, and all of them fixed by seed and step."""

from __future__ import annotations

import pytest
import torch

from napari_microaunet.distillation.augmentation.augment import Augmentation
from napari_microaunet.distillation.augmentation.settings import AugmentationSettings
from napari_microaunet.distillation.training_frames import Batches, TrainingFrames
from napari_microaunet.distillation.views import Views

SIDE = 32
# Nothing but the resize, so that a view can be told by its colour.
PLAIN = AugmentationSettings(**dict.fromkeys(AugmentationSettings.model_fields, 0))
SIZE, COUNT = 6, 60  # ten batches


def views(echo: int, settings: AugmentationSettings = PLAIN, *, seed: int = 1, chunks: int = 1):
    """Return views of frames of one colour each, with labels and soft labels of that value."""
    values = torch.arange(COUNT, dtype=torch.uint8).view(COUNT, 1, 1, 1)
    frames = TrainingFrames(
        images=(4 * values).expand(-1, 3, SIDE, SIDE).contiguous(),
        labels=(values % 2).expand(-1, 1, SIDE, SIDE).contiguous(),
        names=tuple(map(str, range(COUNT))),
        sources=("made",) * COUNT,
        kinds=("polyp",) * COUNT,
        problems={},
    )
    soft = (4 * values).expand(-1, 1, SIDE, SIDE).contiguous()
    batches = Batches(frames, SIZE, seed, negatives=0, unlabelled=0)
    augmentation = Augmentation(settings)
    device = torch.device("cpu")
    return Views(
        frames, soft, batches, augmentation, seed=seed, chunks=chunks, echo=echo, device=device
    )


def numbers(found: Views, step: int, part: int = 0) -> list[int]:
    frames = found.at(step, part, SIDE).frames
    return (frames[:, 0].mean((1, 2)) * 63.75).round().int().tolist()


@pytest.mark.parametrize("echo", [1, 2, 3, 4])
def test_every_view_is_used_as_often_as_the_echo_says(echo: int) -> None:
    found = views(echo)
    used = [number for step in range(10 * echo) for number in numbers(found, step)]
    fourth = numbers(views(1), 3)
    assert [used.count(number) for number in fourth] == [echo] * SIZE


@pytest.mark.parametrize("echo", [2, 3])
def test_no_two_steps_see_the_same_batch(echo: int) -> None:
    found = views(echo)
    batches = [tuple(numbers(found, step)) for step in range(3 * echo, 9 * echo)]
    assert len(set(batches)) == len(batches)


def test_labels_follow_their_frames() -> None:
    found = views(3)
    for step in range(12):
        frames, labels, soft = found.at(step, 0, SIDE)
        told = (frames[:, 0].mean((1, 2)) * 63.75).round().int()
        assert torch.equal(labels.float().mean((1, 2, 3)).int(), told % 2)
        assert soft is not None
        assert torch.allclose(soft, frames[:, :1], atol=1e-3)


@pytest.mark.parametrize("echo", [1, 3])
def test_a_step_does_not_depend_on_what_came_before(echo: int) -> None:
    in_order, at_once = views(echo, AugmentationSettings()), views(echo, AugmentationSettings())
    for step in range(7):
        expected = in_order.at(step, 0, SIDE)
        noise = torch.rand(3)
    torch.manual_seed(99)
    found = at_once.at(6, 0, SIDE)
    assert torch.equal(found.frames, expected.frames)
    assert torch.equal(found.labels, expected.labels)
    assert torch.equal(torch.rand(3), noise)


def test_echoes_of_a_view_are_turned() -> None:
    found = views(4, AugmentationSettings())
    frames = torch.cat([found.at(step, 0, SIDE).frames for step in range(16, 24)])
    different = {tuple(frame.flatten()[:50].tolist()) for frame in frames}
    # Six views of two batches, and seldom the same turn twice.
    assert len(different) > 3 * 12


def test_parts_make_up_the_batch() -> None:
    whole, parted = views(1), views(1, chunks=2)
    together = sorted(numbers(parted, 5, 0) + numbers(parted, 5, 1))
    assert together == sorted(numbers(whole, 5))
