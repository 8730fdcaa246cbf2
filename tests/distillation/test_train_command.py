"""How ``microaunet train`` ends where a training goes wrong: one sentence and exit code 3."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch
from small_frames import write_frames

from napari_microaunet.distillation import model_file, trainer
from napari_microaunet.networks.checkpoint import load_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Command = Callable[..., tuple[int, str, str]]

RECIPE = """
title = "brief"
data = "frames"
budget.steps = 3
batch.size = 4
size = { side = 48, first = 48 }
imitation.share = 1.0
validation = { times = 3, frames = 4 }
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(trainer, "draw_curves", lambda *_: None)  # a second
    write_frames(tmp_path / "frames", negatives=0, unlabelled=0)
    (tmp_path / "brief.toml").write_text(RECIPE)
    return tmp_path / "brief.toml"


def goes_wrong(microaunet: Command, recipe: Path) -> tuple[str, list[dict[str, Any]]]:
    """Return the sentence that the command ends with, and the events before it."""
    out = recipe.parent / "run"
    code, stdout, said = microaunet("train", recipe, "--out", out, "--device", "cpu", "--events")
    assert code == 3
    assert said.count("\n") == 1
    assert "Error" not in said
    assert not (out / "model.safetensors").exists()
    return said, [json.loads(line) for line in stdout.splitlines()]


@pytest.mark.filterwarnings("ignore:invalid value")  # what the spoilt weights say of a frame
def test_a_loss_that_is_no_number_leaves_the_best_weights_and_names_them(
    microaunet: Command, recipe: Path
) -> None:
    with recipe.open("a") as file:  # at first no step at all, then one of 7e29
        file.write("optimiser = { learning_rate = 1e30, clip = 1e30, warm_up = 0.5, last = 0 }\n")
    said, events = goes_wrong(microaunet, recipe)
    best = recipe.parent / "run" / "kept.safetensors"
    assert "stopped being a number at step 3" in said
    assert "half the learning rate" in said
    assert f"The best weights are in {best}." in said
    told = [one for one in events if one["event"] == "validation"]
    assert [(one["step"], one["best"]) for one in told] == [(1, True), (2, False)]
    weights = load_checkpoint(best)[0].parameters()
    assert all(part.abs().max() < 100 for part in weights)


def test_a_reader_that_goes_away_stops_the_training_politely(recipe: Path) -> None:
    recipe.write_text(RECIPE.replace("budget.steps = 3", "budget.minutes = 60"))
    script = "from napari_microaunet.cli import main; main()"
    run = recipe.parent / "run"
    command = [sys.executable, "-c", script, "train", recipe, "--out", run, "--events"]
    with subprocess.Popen(  # noqa: S603 - our own command
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout:
            if '"event": "step"' in line:
                break
        process.stdout.close()
        said = process.stderr.read()
    assert process.returncode == 130
    assert said == "Stopped; the same command goes on.\n"
    assert (run / "state.safetensors").is_file()


def test_a_graphics_card_that_is_full_when_the_model_is_scored(
    microaunet: Command, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    with monkeypatch.context() as patch:
        patch.setattr(model_file, "Predictor", full)
        said, events = goes_wrong(microaunet, recipe)
    assert said.startswith("The memory of the graphics card is full")
    assert events[-1] == {"event": "finished", "step": 3}
    # Nothing is lost: the same command goes on with the scoring.
    code, *_ = microaunet("train", recipe, "--out", recipe.parent / "run", "--device", "cpu")
    assert code == 0
    load_checkpoint(recipe.parent / "run" / "model.safetensors")
