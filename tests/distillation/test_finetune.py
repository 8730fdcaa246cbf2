"""Fine-tuning from the command line on small frames: what a lab member gets."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from threading import Thread
from typing import TYPE_CHECKING

import pytest
import torch
from small_frames import write_frames
from typer.testing import CliRunner

from napari_microaunet.cli import app, main
from napari_microaunet.curation.dataset import open_dataset
from napari_microaunet.distillation import time_box, trainer
from napari_microaunet.distillation.finetune import finetune
from napari_microaunet.distillation.recipe import Budget, finetuning_recipe
from napari_microaunet.frames.sample_data import sample_data_folder
from napari_microaunet.networks import build
from napari_microaunet.networks.checkpoint import ModelCard, read_card, save_checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module", autouse=True)
def without_curves() -> Iterator[None]:
    """Save the second that each picture takes; test_curves.py draws one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "draw_curves", lambda *_: None)
        yield


def save_model(path: Path, network: str, size: tuple[int, int], *, mirror_images: int = 0) -> None:
    untrained = build(network)
    card = ModelCard(
        name=f"small {path.stem}",
        network=network,
        widths=untrained.widths,
        input_size=size,
        threshold=0.4,
        mirror_images=mirror_images,
        training_data={"frames": "of the parent"},
    )
    save_checkpoint(path, untrained, card)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with frames, a student of 64 x 64 pixels and a teacher of 96 x 96.

    One of the frames cannot be read.
    """
    folder = tmp_path_factory.mktemp("finetuning")
    write_frames(folder / "frames")
    (folder / "frames" / "unlabelled" / "broken.png").write_bytes(b"no image")
    torch.manual_seed(0)
    save_model(folder / "student.safetensors", "microaunet", (64, 64), mirror_images=1)
    save_model(folder / "teacher.safetensors", "malunet", (96, 96))
    return folder


def command(folder: Path, out: Path, *more: str) -> list[str]:
    return [
        *("finetune", str(folder / "frames"), "--out", str(out), "--device", "cpu"),
        *("--from", str(folder / "student.safetensors")),
        *("--teacher", str(folder / "teacher.safetensors"), *more),
    ]


FINISHED = ("--epochs", "3", "--adapt-teacher", "--set", "optimiser.learning_rate=1e-3")


@pytest.fixture(scope="module")
def done(folder: Path) -> tuple[Path, list[dict]]:
    out = folder / "out"
    result = CliRunner().invoke(app, command(folder, out, *FINISHED, "--events"))
    assert result.exit_code == 0, result.output
    return out, [json.loads(line) for line in result.stdout.splitlines()]


def test_events_tell_the_whole_story(done) -> None:
    _, events = done
    assert {event.get("part") for event in events} >= {"teacher", "student"}
    names = [event["event"] for event in events]
    for expected in ("recipe", "reading", "started", "soft labels", "step", "validation"):
        assert expected in names
    assert names[-2:] == ["scoring", "report"]


def test_the_new_model_knows_where_it_comes_from(done, folder: Path) -> None:
    out, _ = done
    card, parent = (
        read_card(p) for p in (out / "model.safetensors", folder / "student.safetensors")
    )
    assert card.parent == parent.sha256
    assert card.threshold == parent.threshold
    assert card.mirror_images == 1
    rendered = open_dataset(sample_data_folder() / "replay")
    assert card.training_data == {
        "frames 2": open_dataset(folder / "frames").content_hash("training"),
        "frames": "of the parent",
        "replay": rendered.content_hash("training"),
    }
    assert "frames mean Dice" in card.metrics
    # The whole recipe, without the folders of the machine that it was trained on.
    run = json.loads((out / "student" / "recipe.json").read_text())
    assert str(folder) in json.dumps(run)
    assert str(folder) not in json.dumps(card.recipe)
    short = {"data": "frames", "start": "student.safetensors"}
    assert card.recipe == run | short | {"teacher": run["teacher"] | {"model": "kept.safetensors"}}


def test_the_recipe_can_be_changed_for_the_student_alone(done) -> None:
    out, _ = done
    rates = {
        part: json.loads((out / part / "recipe.json").read_text())["optimiser"]["learning_rate"]
        for part in ("student", "teacher")
    }
    assert rates == {"student": 1e-3, "teacher": finetuning_recipe().optimiser.learning_rate}


def test_before_and_after_are_on_frames_that_took_no_part(done) -> None:
    out, _ = done
    report = json.loads((out / "report.json").read_text())
    manifest = json.loads((out / "student" / "manifest.json").read_text())
    held_out = [f for f in manifest["frames"] if f["split"] == "validation" and f.get("mask")]
    assert report["held_out"]["after"]["positives"] == len(held_out) > 0
    assert report["reference"]["before"]["positives"] == 10
    change = (
        report["held_out"]["after"]["dice"]["mean"] - report["held_out"]["before"]["dice"]["mean"]
    )
    assert report["held_out"]["difference"]["dice"]["mean"] == pytest.approx(change)
    frames = report["held_out"]["frames"]
    names = {frame["name"] for frame in held_out}
    gains = [frame["after"] - frame["before"] for frame in frames if frame["name"] in names]
    assert sum(gains) / len(gains) == pytest.approx(change)


def test_the_same_command_again_changes_nothing(done, folder: Path) -> None:
    out, _ = done
    weights = read_card(out / "model.safetensors").sha256
    more = [folder / "frames" / kind / "more.png" for kind in ("images", "masks")]
    for file in more:  # the split is frozen
        shutil.copy(file.with_name("0.png"), file)
    result = CliRunner().invoke(app, command(folder, out, *FINISHED))
    for file in more:
        file.unlink()
    assert result.exit_code == 0, result.output
    assert read_card(out / "model.safetensors").sha256 == weights
    assert "Dice per frame" in result.stdout
    assert "left out: Frame unlabelled/broken" in result.stderr


def test_it_is_said_where_so_few_groups_prove_nothing(done, folder: Path) -> None:
    out, _ = done
    report = json.loads((out / "report.json").read_text())
    assert report["held_out"]["difference"]["negative_groups"] < 6
    said = CliRunner().invoke(app, command(folder, out, *FINISHED)).stdout
    assert "Difference of false alarms" in said
    assert "prove nothing" in " ".join(said.split())


def test_a_recipe_is_fitted_to_its_minutes_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(step_time: float, stop_at: str) -> list[dict]:
        monkeypatch.setattr(time_box, "measure", lambda *_: step_time)
        events: list[dict] = []
        finetune(
            folder / "frames",
            tmp_path / "out",
            Budget(minutes=10),
            start=str(folder / "student.safetensors"),
            teacher=None,
            device="cpu",
            report=events.append,
            cancelled=lambda: bool(events) and events[-1]["event"] == stop_at,
        )
        return events

    slow = run(step_time=100.0, stop_at="step")
    box = next(event for event in slow if event["event"] == "time box")
    assert box["part"] == "student"
    assert box["title"].startswith("encoder kept")
    # However quick the machine is when it goes on: the run stays what it was.
    again = run(step_time=1e-6, stop_at="started")
    assert "time box" not in [event["event"] for event in again]
    recipes = [e["recipe"] for e in (*slow, *again) if e["event"] == "recipe"]
    assert recipes[0] == recipes[1]
    assert recipes[0]["optimiser"]["encoder_factor"] == 0


def test_it_can_be_stopped_while_it_scores(done, folder: Path) -> None:
    out, _ = done
    (out / "report.json").unlink()
    events: list[dict] = []
    result = finetune(
        folder / "frames",
        out,
        Budget(epochs=3),
        changes={"optimiser.learning_rate": 1e-3},
        start=str(folder / "student.safetensors"),
        teacher=str(folder / "teacher.safetensors"),
        adapt_teacher=True,
        device="cpu",
        report=events.append,
        cancelled=lambda: bool(events) and events[-1]["event"] == "scoring",
    )
    assert result is None
    assert not (out / "report.json").exists()


def test_a_terminated_command_goes_on(folder: Path, tmp_path: Path) -> None:
    arguments = command(folder, tmp_path / "out", "--epochs", "3", "--events")
    metrics = tmp_path / "out" / "student" / "metrics.jsonl"
    over = False

    def terminate() -> None:
        while not (metrics.is_file() and metrics.stat().st_size) and not over:
            time.sleep(0.002)
        os.kill(os.getpid(), signal.SIGTERM)

    # Should the command not listen to the signal, that must not end the tests.
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    thread = Thread(target=terminate)
    thread.start()
    result = CliRunner().invoke(app, arguments)
    over = True
    thread.join()
    signal.signal(signal.SIGTERM, before)
    assert result.exit_code == 130
    assert "goes on" in result.stderr
    assert not (tmp_path / "out" / "model.safetensors").exists()
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    started = next(json.loads(x) for x in result.stdout.splitlines() if '"started"' in x)
    assert started["step"] > 0
    assert "unlabelled/broken" in started["problems"]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--out", "{folder}/frames/run"), "among the frames"),
        (("--from", "{folder}/wide.safetensors"), "96 x 64 pixels"),
        (("--teacher", "nobody"), "no model named 'nobody'"),
        (("--device", "quantum"), 'no device "quantum"'),
        (("--reference", "{folder}/frames/unlabelled"), "holds no frames with masks"),
        (("--reference", "{folder}/nowhere"), "does not exist"),
        (("--epochs", "1", "--minutes", "1"), "either --minutes or --epochs"),
        (("--set", "optimiser.learning_rate"), "has no value"),
        (("--set", "optimiser.learning_speed=1"), "learning_speed"),
        (("--set", "optimizer.learning_rate=1"), "no optimizer.learning_rate"),
        (("--set", "optimiser.learning_rate=fast"), "optimiser.learning_rate"),
        (("--out", "{folder}/out", "--minutes", "7"), "differs in teacher and budget"),
        (("--out", "{folder}/few/out", "--seed", "3"), "training frames with a polyp"),
        (("--out", "{folder}/none", "--minutes", "inf"), "such as --minutes 10"),
        (("--out", "{folder}/elsewhere"), "elsewhere/model.safetensors is there already"),
    ],
)
def test_refusals_are_one_sentence_and_leave_nothing(
    folder: Path,
    done,
    more: tuple[str, ...],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save_model(folder / "wide.safetensors", "microaunet", (64, 96))
    (folder / "elsewhere").mkdir(exist_ok=True)
    save_model(folder / "elsewhere" / "model.safetensors", "microaunet", (64, 64))
    arguments = command(folder, folder / "none", *(m.format(folder=folder) for m in more))
    if "few" in str(arguments):
        arguments[1] = str(write_frames(folder / "five", polyps=5))
    before = {path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}
    monkeypatch.setattr(sys, "argv", ["microaunet", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    sentence = capsys.readouterr().err.strip().splitlines()[-1]
    assert says in sentence
    assert before == {p for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}


def test_processes_of_torchrun_do_not_fine_tune(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = CliRunner().invoke(app, command(folder, tmp_path / "out"))
    assert "without torchrun" in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_no_fault_of_the_request(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "/disk/state")

    monkeypatch.setattr("napari_microaunet.distillation.finetune.finetune", full)
    result = CliRunner().invoke(app, command(folder, tmp_path / "out"))
    assert result.exit_code == 3
    assert "/disk/state could not be written (No space left on device)" in result.stderr
    assert "the same command goes on" in result.stderr
