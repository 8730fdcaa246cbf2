"""Run folders: what they refuse, and files that a kill cut short."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from small_training import small_recipe

from napari_microaunet.curation import FrameRecord, Manifest
from napari_microaunet.distillation.run_folder import RunFolder, load_tensors, save_tensors
from napari_microaunet.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path


MANIFEST = Manifest(
    name="frames",
    frames=(FrameRecord(name="a", image="a.png", group="a", split="training", source="frames"),),
)


def begun(folder: Path) -> RunFolder:
    """Return the folder of a training that has begun."""
    run = RunFolder(folder, small_recipe(folder.parent / "frames"))
    with run.locked():
        run.begin(MANIFEST)
    return run


def test_the_same_recipe_opens_its_folder_again(tmp_path: Path) -> None:
    begun(tmp_path / "run").add_metrics({"step": 1})
    again = RunFolder(tmp_path / "run", small_recipe(tmp_path / "frames"))
    assert again.metrics() == [{"step": 1}]
    assert again.manifest() == MANIFEST


def test_another_recipe_is_told_apart_by_what_differs(tmp_path: Path) -> None:
    begun(tmp_path / "run")
    other = small_recipe(tmp_path / "frames", seed=2, budget={"steps": 7})
    with pytest.raises(InputError, match="differs in seed and budget"):
        RunFolder(tmp_path / "run", other)


def test_until_a_training_begins_its_recipe_can_be_corrected(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run", small_recipe(tmp_path / "frmaes")).locked():
        pass  # it was refused
    assert RunFolder(tmp_path / "run", small_recipe(tmp_path / "frames")).manifest() is None


def test_a_kill_while_the_recipe_is_written_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".recipe.json.0.part").touch()
    begun(tmp_path / "run").manifest_file.unlink()
    assert begun(tmp_path / "run").manifest() == MANIFEST


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(InputError, match=r"other files, such as thesis\.txt"):
        RunFolder(tmp_path, small_recipe(tmp_path / "frames"))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_folder_among_the_frames_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path / "frames", tmp_path / "frames" / "run"):
        with pytest.raises(InputError, match="among the frames"):
            RunFolder(folder, small_recipe(tmp_path / "frames"))
    assert not (tmp_path / "frames").exists()


def test_two_trainings_at_once_in_one_folder_are_refused(tmp_path: Path) -> None:
    first, second = begun(tmp_path / "run"), begun(tmp_path / "run")
    with first.locked(), pytest.raises(InputError, match="right now"), second.locked():
        pass
    with second.locked():
        pass


@pytest.mark.parametrize("content", ["{", '{"title": "a", "sede": 1}', "\xff"])
def test_a_damaged_recipe_is_named(tmp_path: Path, content: str) -> None:
    run = begun(tmp_path / "run")
    run.recipe_file.write_text(content, encoding="latin-1")
    with pytest.raises(InputError, match=r"recipe\.json is damaged or from another version"):
        begun(tmp_path / "run")


def test_a_recipe_from_before_a_setting_was_added_still_fits(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    recipe = json.loads(run.recipe_file.read_text(encoding="utf-8"))
    del recipe["size"]["kept"]
    run.recipe_file.write_text(json.dumps(recipe), encoding="utf-8")
    begun(tmp_path / "run")


def test_a_line_cut_short_is_left_out(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    for step in (1, 2, 3):
        run.add_metrics({"step": step})
    with run.metrics_file.open("a") as file:
        file.write('{"step": 4')
    assert [line["step"] for line in run.metrics()] == [1, 2, 3]
    run.forget_metrics_after(2)
    assert run.metrics_file.read_text() == "".join(json.dumps({"step": s}) + "\n" for s in (1, 2))


@pytest.mark.parametrize("damage", ["\0\0\n", "garbage\n", "\xff\n"])
def test_damaged_metrics_are_named(tmp_path: Path, damage: str) -> None:
    run = begun(tmp_path / "run")
    run.metrics_file.write_text(damage + '{"step": 1}\n', encoding="latin-1")
    with pytest.raises(InputError, match=r"metrics\.jsonl is damaged"):
        run.metrics()


def test_tensors_and_facts_come_back(tmp_path: Path) -> None:
    tensors = {"a/b": torch.arange(6.0).view(2, 3), "count": torch.tensor(3)}
    save_tensors(tmp_path / "state", tensors, {"step": 7, "best": None})
    found, facts = load_tensors(tmp_path / "state")
    assert facts == {"step": 7, "best": None}
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", b"\x08" + bytes(7) + b"{}      "])
def test_a_damaged_state_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state").write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        load_tensors(tmp_path / "state")
