"""``make weights`` and ``make table``: whether what they would do is in order. Nothing is run."""

from __future__ import annotations

import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the sources of a machine on which nothing has been trained."""
    if shutil.which("make") is None:
        pytest.skip("no make on this machine")
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    for name in ("scripts", "training/recipes"):
        shutil.copytree(ROOT / name, folder / name)
    return folder


def planned(checkout: Path, target: str) -> list[list[str]]:
    """Return the commands of a target, in words."""
    result = subprocess.run(  # noqa: S603
        ["make", "--dry-run", target],  # noqa: S607
        cwd=checkout,
        check=False,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return [line.split() for line in result.stdout.splitlines()]


def made_in_order(checkout: Path, commands: list[list[str]]) -> set[str]:
    """Return what trainings leave in ``training/``; each has what it needs by then."""
    made: set[str] = set()
    for words in commands:
        if "training/pack.py" in words:
            made.add("cache/dataset")
        if "training/imagenet_expert.py" in words:
            made |= {f"cache/imagenet-{name}.safetensors" for name in ("expert", "expert-lite2")}
        if "training/average.py" in words:
            *sources, average = (f"runs/{Path(word).name}" for word in words[-3:])
            assert set(sources) <= made, f"{average} needs {sources}"
            made.add(average)
        if "train" in words:
            recipe = words[words.index("train") + 1]
            missing = needed_by(checkout / recipe) - made
            assert not missing, f"{recipe} needs {missing}"
            made.add(f"runs/{Path(words[-1]).name}")
    return made


def needed_by(recipe: Path) -> set[str]:
    """Return the frames, weights and runs in ``training/`` that a recipe names."""
    content = tomllib.loads(recipe.read_text(encoding="utf-8"))
    names = (content["data"], content.get("start", ""), content.get("teacher", {}).get("model", ""))
    places = [Path(name.removeprefix("../")) for name in names if name.startswith("../")]
    kept = {place.name for place in places if place.parts[0] == "runs"}
    assert kept <= {"model.safetensors"}, f"no run leaves what {recipe} wants"
    return {str(place.parent if place.parts[0] == "runs" else place) for place in places}


def test_make_weights_makes_every_bundled_model(checkout: Path) -> None:
    commands = planned(checkout, "weights")
    bundled = [words[-1] for words in commands if "training/bundle.py" in words]
    assert sorted(bundled) == ["expert", "student", "teacher"]


@pytest.mark.parametrize(
    "name", ["student-fair", "student-fair-plain", "malunet-gently", "expert-lite2-again"]
)
def test_every_training_comes_after_what_it_starts_from_and_who_teaches_it(
    checkout: Path, name: str
) -> None:
    commands = planned(checkout, f"training/runs/{name}/model.safetensors")
    assert f"runs/{name}" in made_in_order(checkout, commands)


def test_what_is_trained_is_not_trained_again_where_its_recipe_is_newer(checkout: Path) -> None:
    trained = checkout / "training" / "runs" / "malunet-labels" / "model.safetensors"
    trained.parent.mkdir(parents=True)
    trained.touch()
    os.utime(trained, (0, 0))
    commands = planned(checkout, trained.relative_to(checkout).as_posix())
    shutil.rmtree(trained.parent)
    assert not [words for words in commands if "train" in words]


def test_make_table_trains_from_what_is_there_and_scores_what_it_trained(checkout: Path) -> None:
    commands = planned(checkout, "table")
    steps = {words[2]: n for n, words in enumerate(commands) if "training/table.py" in words}
    assert list(steps) == ["run", "score"]
    made = made_in_order(checkout, commands[: steps["run"]])
    assert needed_by(checkout / "training" / "recipes" / "table.toml") <= made
