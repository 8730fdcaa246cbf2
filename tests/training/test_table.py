"""The table of variants: every row can be trained, and rows are compared frame by frame."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from small_frames import write_frames

from napari_microaunet.curation.dataset import open_dataset
from napari_microaunet.distillation.recipe import read_recipe
from napari_microaunet.distillation.scores import FrameScore, score_frame
from napari_microaunet.frames import open_frames

if TYPE_CHECKING:
    from types import ModuleType

    from napari_microaunet.distillation.recipe import Recipe

TRAINING = Path(__file__).parents[2] / "training"


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    monkeypatch.syspath_prepend(str(TRAINING))
    module = import_module("table")
    monkeypatch.setattr(module, "RUNS", tmp_path)
    (tmp_path / "table").mkdir()
    return module


def recipes_of(table: ModuleType, name: str) -> dict[str, Recipe]:
    """Return the recipe of every row of a table, with seed 2."""
    base = read_recipe(table.TABLES[name].recipe)
    return {
        row: table.recipe_of(
            base, variant, 2, variant.teacher and Path(f"{variant.teacher}.safetensors")
        )
        for row, variant in table.TABLES[name].variants.items()
    }


@pytest.mark.parametrize("name", [file.stem for file in TRAINING.glob("recipes/table*.toml")])
def test_every_variant_is_a_training_of_the_same_steps(table: ModuleType, name: str) -> None:
    base = read_recipe(table.TABLES[name].recipe)
    assert base.validation.keep == "last"  # none are chosen on the frames that score them
    recipes = recipes_of(table, name)
    for section in ("budget", "augmentation", "optimiser"):
        assert len({repr(getattr(recipe, section)) for recipe in recipes.values()}) == 1
    assert {recipe.seed for recipe in recipes.values()} == {2}
    variants = table.TABLES[name].variants
    for row, variant in variants.items():
        assert variant.without in {"", *variants}, row
        assert variant.teacher is None or variant.teacher in table.TABLES["table"].teachers, row
        assert (recipes[row].teacher is None) == (variant.teacher is None)
    assert recipes["plain"] == base.model_copy(
        update={"seed": 2, "teacher": None, "imitation": recipes["plain"].imitation}
    )
    assert recipes["plain"].imitation.share == 1


def test_the_variants_are_what_they_are_called(table: ModuleType) -> None:
    recipes = recipes_of(table, "table")
    assert len({repr(recipe.size) for recipe in recipes.values()}) == 1
    assert recipes["expert-fresh-views"].batch.echo == 1
    assert recipes["expert-boundary"].imitation.boundary > 0
    assert recipes["expert"].imitation.boundary == 0
    assert "lite2" in recipes_of(table, "table-encoder")["plain-lite2"].start
    sizes = recipes_of(table, "table-size")
    assert sizes["plain-320"].size.side == 320
    assert sizes["plain"].start == sizes["plain-320"].start
    unlabelled = recipes_of(table, "table-unlabelled")
    assert unlabelled["expert-pseudo-labels"].teacher.pseudo_labels
    assert not unlabelled["expert-as-sure"].teacher.pseudo_labels


def test_all_runs_have_the_teacher_of_the_first(
    table: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, of_table = tmp_path / "trained.safetensors", table.TABLES["table"]
    monkeypatch.setitem(of_table.teachers, "expert", file)
    assert table.kept_teacher(of_table, "expert") is None
    file.write_bytes(b"first")
    table.kept_teacher(of_table, "expert")
    file.write_bytes(b"second")
    assert table.kept_teacher(of_table, "expert").read_bytes() == b"first"


def test_a_run_is_finished_when_its_last_validation_is_over(
    table: ModuleType, tmp_path: Path
) -> None:
    run = tmp_path / "table" / "plain-1"
    run.mkdir()
    assert not table.finished(run)
    (run / "kept.safetensors").write_bytes(b"weights")
    lines = [{"event": "validation", "step": 2, "progress": 0.5}]
    lines.append({"event": "step", "step": 4, "progress": 1.0})
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert not table.finished(run)
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"event": "validation", "step": 4, "progress": 1.0}) + "\n")
    assert table.finished(run)


def test_difference_pairs_frames_and_seeds(table: ModuleType) -> None:
    mask = np.ones((4, 4), np.uint8)
    frame = score_frame("frame", 1.0, mask, mask)

    def run(*dice: float) -> dict[str, list[FrameScore]]:
        kvasir, cvc = (
            [replace(frame, group=f"{number}", dice=value) for number, value in enumerate(part)]
            for part in (dice[:2], dice[2:])
        )
        return {table.KVASIR: kvasir, table.CVC: cvc}

    first = {1: run(0.9, 0.8, 0.7), 2: run(0.5, 0.6, 0.7), 3: run(0.0, 0.0, 0.0)}
    second = {1: run(0.8, 0.8, 0.5), 2: run(0.6, 0.3, 0.6), 4: run(0.0, 0.0, 0.0)}
    # Means over the two common seeds: (0.1 - 0.1) / 2, (0 + 0.3) / 2, (0.2 + 0.1) / 2.
    found = table.difference(first, second)
    assert found.mean == pytest.approx((0 + 0.15 + 0.15) / 3)
    assert (found.low, found.high) == (pytest.approx(0), pytest.approx(0.15))
    assert table.difference({3: first[3]}, second) is None


def test_all_frames_of_a_data_set_that_nobody_learned_from_judge(
    table: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = open_frames(write_frames(tmp_path / "frames") / "images")
    parts = [
        import_module("bundle").ValidationSet(title, frames, [3, 5], {}, without_polyps=False)
        for title in (table.KVASIR, table.CVC)
    ]
    monkeypatch.setattr(table, "validation_sets", lambda _: parts)
    kvasir, cvc = table.judging_sets(table.TABLES["table-elsewhere"], tmp_path)
    assert kvasir.indices == [3, 5]
    assert cvc.indices == list(range(len(frames)))
    assert table.judging_sets(table.TABLES["table"], tmp_path) == parts


def test_masks_of_a_source_are_forgotten_where_they_would_teach(
    table: ModuleType, tmp_path: Path
) -> None:
    dataset = open_dataset(write_frames(tmp_path / "frames"))
    (source,) = {frame.source for frame in dataset.frames}
    assert table.without_masks(dataset, "another").frames == dataset.frames
    forgetful = table.without_masks(dataset, source)
    assert forgetful.indices("training", labelled=True) == [
        index for index in dataset.indices("training") if dataset.frames[index].negative
    ]
    validation = dataset.indices("validation")
    assert [forgetful.frames[index] for index in validation] == [
        dataset.frames[index] for index in validation
    ]


def test_halves_share_no_group(table: ModuleType, tmp_path: Path) -> None:
    frames = open_frames(write_frames(tmp_path / "frames") / "images")
    names = [frame.name for frame in frames.frames]
    groups = {name: f"clip {number // 3}" for number, name in enumerate(names)}
    part = import_module("bundle").ValidationSet(
        "all", frames, list(range(3, 20)), groups, without_polyps=False
    )
    one, two = table.halves(part)
    assert sorted(one.indices + two.indices) == part.indices
    assert len(one.indices) == 9  # three of the six clips
    assert not {groups[names[i]] for i in one.indices} & {groups[names[i]] for i in two.indices}
