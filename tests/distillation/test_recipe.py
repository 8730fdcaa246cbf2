"""Recipes: what a TOML file may say, and what is refused in which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_microaunet.distillation.recipe import changed, finetuning_recipe, read_recipe
from napari_microaunet.errors import InputError

ENOUGH = 'title = "a"\ndata = "frames"\nbudget.steps = 3\n'
OURS = sorted((Path(__file__).parents[2] / "training" / "recipes").glob("*.toml"))


def written(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_our_recipes_can_be_read(path: Path) -> None:
    assert read_recipe(path).data.is_absolute()


def test_the_package_has_its_recipe_and_it_can_be_changed() -> None:
    recipe = changed(finetuning_recipe(), {"batch.size": 4, "seed": 7})
    assert (recipe.batch.size, recipe.seed) == (4, 7)
    with pytest.raises(InputError, match=r"no teacher\.model"):
        changed(recipe, {"teacher.model": "expert"})  # it has no teacher to change


def test_paths_are_relative_to_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "mine.safetensors").touch()
    text = ENOUGH + 'start = "mine.safetensors"\nteacher.model = "expert"\n'
    recipe = read_recipe(written(tmp_path, text))
    assert recipe.data == tmp_path / "frames"
    assert recipe.start == str(tmp_path / "mine.safetensors")
    assert recipe.teacher is not None
    assert recipe.teacher.model == "expert"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (ENOUGH + "sede = 1", "sede"),
        (ENOUGH + "imitation.tempreature = 2", "imitation.tempreature"),
        (ENOUGH + "budget.minutes = 3", "one of minutes, epochs and steps"),
        (ENOUGH.replace("budget.steps = 3", ""), "budget"),
        (ENOUGH + 'network = "unet"', "network"),
        (ENOUGH + "batch.negatives = 1.0", "batch.negatives"),
        (ENOUGH + "optimiser.clip = inf", "optimiser.clip: Input should be a finite number"),
        (ENOUGH + "imitation.temperature = 1e200", "imitation.temperature"),
        (ENOUGH + "seed = 18446744073709551616", "seed"),
        (ENOUGH + "batch.unlabelled = 0.6\nreplay.share = 0.4", "no room for labelled frames"),
        (ENOUGH + "size.side = 128", "first is larger than side"),
        (
            ENOUGH + 'teacher = {model = "t", soft_labels = "once"}\nimitation.features = 1',
            "each view",
        ),
        (ENOUGH + 'teacher = {model = "t", pseudo_labels = true}', "once"),
        ("title = ", "no TOML"),
        ("seed = 1", "title"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, says: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(InputError, match=says) as caught:
        read_recipe(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_recipe(tmp_path / "none.toml")
