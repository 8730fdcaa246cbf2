"""How often a training looks at each kind of frame, and how its teacher looks at them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
import torch
from lightning_fabric import Fabric
from small_frames import write_frames
from small_training import small_recipe

from napari_microaunet.curation.dataset import open_dataset
from napari_microaunet.distillation import material
from napari_microaunet.distillation.learner import load_teacher
from napari_microaunet.errors import InputError
from napari_microaunet.networks.library import find_model

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from napari_microaunet.distillation.recipe import Recipe
    from napari_microaunet.distillation.training_frames import Batches, TrainingFrames

TAUGHT = {"model": "teacher", "soft_labels": "once"}
FILLED = TAUGHT | {"pseudo_labels": True}


def gather(recipe: Recipe, cache: Path) -> material.Material:
    return material.gather_material(
        recipe,
        open_dataset(recipe.data),
        load_teacher(recipe),
        Fabric(accelerator="cpu"),
        cache,
        chunks=1,
        report=lambda _: None,
        cancelled=lambda: False,
    )


@pytest.mark.parametrize(
    ("teacher", "unlabelled", "expected"),
    [
        (None, 4, {"polyp": 0.7, "negative": 0.3}),
        (TAUGHT, 0, {"polyp": 0.7, "negative": 0.3}),
        (TAUGHT, 4, {"polyp": 0.49, "negative": 0.21, "unlabelled": 0.3}),
        (FILLED, 0, {"polyp": 0.7, "negative": 0.3}),
        (FILLED, 4, {"polyp": 0.4, "negative": 0.3, "unlabelled": 0.3}),
    ],
)
def test_frames_without_a_mask_leave_the_mix_of_those_with_one_as_it_is(
    teacher: Mapping[str, object] | None,
    unlabelled: int,
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
    data = write_frames(tmp_path / "frames", unlabelled=unlabelled)
    batch = {"size": 8, "negatives": 0.3, "unlabelled": 0.3}
    gather(small_recipe(data, teacher=teacher, batch=batch, imitation={}), tmp_path)
    assert {kind: count / 200 for kind, count in drawn.items()} == pytest.approx(expected, abs=0.01)


def test_a_teacher_that_looks_at_every_view_sees_it_at_its_own_size(tmp_path: Path) -> None:
    recipe = small_recipe(write_frames(tmp_path / "frames"))
    teacher = gather(recipe, tmp_path).teacher
    assert teacher is not None
    seen: list[torch.Size] = []
    first = next(teacher.network.encoder.children())
    first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[2:]))
    assert teacher(torch.rand(1, 3, 64, 64)).logits.shape == (1, 1, 64, 64)
    assert seen == [find_model("teacher").card.input_size]


def test_a_weight_for_frames_that_do_not_exist_is_refused(tmp_path: Path) -> None:
    data = write_frames(tmp_path / "frames")
    batch = {"size": 8, "source_weights": {"fames": 0.5}}
    with pytest.raises(InputError, match=r'weighs frames of "fames".* but of frames;'):
        gather(small_recipe(data, batch=batch), tmp_path)
