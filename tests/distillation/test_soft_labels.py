"""What the teacher's labels make of frames without a mask."""

from __future__ import annotations

import torch

from napari_microaunet.distillation.soft_labels import pseudo_labels


def test_a_teacher_fills_in_what_it_is_sure_of_where_nobody_drew() -> None:
    soft = torch.tensor([[255, 204, 203, 51, 6, 5, 4, 2, 1, 0, 0]] * 4, dtype=torch.uint8)
    soft[2, :3] = 128  # sure of no polyp
    soft[3, 5:] = 6  # sure of no background
    labels = torch.full_like(soft, 255)
    labels[1, 0] = 0  # somebody looked at this one
    filled = pseudo_labels(*(part[:, None, None] for part in (labels, soft)))
    assert filled[0].flatten().tolist() == [1, 1, 255, 255, 255, 0, 0, 0, 0, 0, 0]
    assert filled[1:, 0, 0].equal(labels[1:])
