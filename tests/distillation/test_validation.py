"""The look at held-out frames in the course of a training, with numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from napari_microaunet.distillation.learner import Outputs
from napari_microaunet.distillation.training_frames import TrainingFrames
from napari_microaunet.distillation.validation import Validation, validate

SIDE = 32


class RedIsPolyp(nn.Module):
    """A network that marks what is brighter than half in red."""

    mean = torch.zeros(1)

    def forward(self, frames: Tensor) -> Outputs:
        return Outputs(frames[:, :1] - 0.5, [], frames)


def looked_at(*frames: tuple[str, slice, slice, slice], side: int = SIDE) -> Validation:
    """Validate on frames of a kind; rows that are marked, that are polyp, and to ignore."""
    images = torch.zeros(len(frames), 3, SIDE, SIDE, dtype=torch.uint8)
    labels = torch.zeros(len(frames), 1, SIDE, SIDE, dtype=torch.uint8)
    for number, (_, marked, polyp, ignored) in enumerate(frames):
        images[number, 0, marked] = 255
        labels[number, 0, polyp] = 1
        labels[number, 0, ignored] = 255
    names = tuple(str(number) for number in range(len(frames)))
    kinds = tuple(kind for kind, *_ in frames)
    held_out = TrainingFrames(images, labels, names, names, kinds, {})  # type: ignore[arg-type]
    return validate(RedIsPolyp(), held_out, side)  # type: ignore[arg-type]


NONE, ALL = slice(0), slice(None)


def test_dice_and_false_alarms_by_hand() -> None:
    found = looked_at(
        ("polyp", slice(0, 12), slice(8, 16), NONE),  # 2 * 4 / (12 + 8)
        ("polyp", NONE, slice(8, 16), NONE),
        ("negative", slice(4), NONE, NONE),
        ("negative", NONE, NONE, NONE),
        ("negative", NONE, NONE, NONE),
        ("negative", NONE, NONE, NONE),
    )
    assert found.dice == pytest.approx(0.2)
    assert found.positives_found == 0.5
    assert found.negatives_flagged == 0.25
    assert found.score == pytest.approx((3 * 0.2 + 0.75) / 4)


def test_specks_are_no_false_alarm_however_many() -> None:
    # Of 64 x 64 pixels the smallest polyp has 5: two lines of 4 are none, one of 8 is.
    side = 64
    images = torch.zeros(3, 3, side, side, dtype=torch.uint8)
    images[0, 0, 8, 8:12] = images[0, 0, 20, 20:24] = images[1, 0, 8, 8:16] = images[2] = 255
    labels = torch.zeros(3, 1, side, side, dtype=torch.uint8)
    labels[2] = 1
    kinds = ("negative", "negative", "polyp")
    frames = TrainingFrames(images, labels, kinds, kinds, kinds, {})
    assert validate(RedIsPolyp(), frames, side).negatives_flagged == 0.5  # type: ignore[arg-type]


def test_without_negatives_dice_is_the_score() -> None:
    found = looked_at(("polyp", slice(4), slice(4), NONE))
    assert found == Validation(1.0, 1.0, None, 1.0)


def test_pixels_to_ignore_and_frames_without_a_mask_count_nowhere() -> None:
    found = looked_at(
        ("polyp", slice(0, 12), slice(0, 4), slice(4, 16)),
        ("negative", slice(4), NONE, slice(8)),
        ("unlabelled", ALL, NONE, ALL),
    )
    assert (found.dice, found.negatives_flagged) == (1.0, 0.0)


def test_a_polyp_that_is_lost_at_the_networks_size_is_a_missed_one() -> None:
    found = looked_at(("polyp", NONE, slice(1), NONE), side=8)
    assert (found.dice, found.positives_found, found.negatives_flagged) == (0.0, 0.0, None)
