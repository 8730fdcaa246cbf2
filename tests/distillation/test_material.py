"""How often a training looks at each kind of frame."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
from lightning_fabric import Fabric
from small_frames import write_frames
from small_training import small_recipe

from napari_microaunet.curation.dataset import open_dataset
from napari_microaunet.distillation import material
from napari_microaunet.distillation.learner import load_teacher

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from napari_microaunet.distillation.training_frames import Batches, TrainingFrames

TAUGHT = {"model": "teacher", "soft_labels": "once"}


@pytest.mark.parametrize(
    ("teacher", "expected"),
    [
        (None, {"polyp": 0.7, "negative": 0.3}),
        (TAUGHT, {"polyp": 0.35, "negative": 0.15, "unlabelled": 0.5}),
        (TAUGHT | {"pseudo_labels": True}, {"polyp": 0.2, "negative": 0.3, "unlabelled": 0.5}),
    ],
)
def test_frames_without_a_mask_leave_the_mix_of_those_with_one_as_it_is(
    teacher: Mapping[str, object] | None,
    expected: dict[str, float],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: Counter[str] = Counter()

    def count(frames: TrainingFrames, _: object, batches: Batches, *__: object, **___: object):
        for step in range(25):
            drawn.update(frames.kinds[index] for index in batches.indices(step).tolist())

    monkeypatch.setattr(material, "Views", count)
    monkeypatch.setattr(
        material, "soft_labels", lambda _, __, frames, *___, **____: frames.labels * 0 + 255
    )
    data = write_frames(tmp_path / "frames")
    batch = {"size": 8, "negatives": 0.3, "unlabelled": 0.5}
    recipe = small_recipe(data, teacher=teacher, batch=batch, imitation={})
    material.gather_material(
        recipe,
        open_dataset(data),
        load_teacher(recipe),
        Fabric(accelerator="cpu"),
        tmp_path,
        chunks=1,
        report=lambda _: None,
        cancelled=lambda: False,
    )
    assert {kind: count / 200 for kind, count in drawn.items()} == pytest.approx(expected, abs=0.01)
