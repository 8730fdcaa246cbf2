"""The picture of a training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from napari_microaunet.distillation.curves import draw_curves

if TYPE_CHECKING:
    from pathlib import Path


def step(number: int, stage: str, **losses: float) -> dict[str, object]:
    return {"event": "step", "step": number, "stage": stage, "losses": losses}


def validation(number: int, flagged: float | None) -> dict[str, object]:
    scores = {"dice": 0.5, "positives_found": 0.9, "negatives_flagged": flagged}
    return {"event": "validation", "step": number, **scores}


def test_a_run_of_two_stages_is_drawn_anew_each_time(tmp_path: Path) -> None:
    lines = [step(1, "imitation", loss=2, features=1), validation(1, None)]
    draw_curves(lines, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as first:
        early = np.asarray(first)
    draw_curves([*lines, step(9, "preference", loss=1, contrast=0.1)], tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as second:
        assert second.size == early.shape[1::-1]
        assert (np.asarray(second) != early).any()
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]
