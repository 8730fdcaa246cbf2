"""The training loop on small frames: what it leaves, resuming, several processes."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import shutil
import socket
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file
from shapely import Polygon
from small_frames import SIDE, write_frames
from small_training import RECIPE, small_recipe
from typer.testing import CliRunner

from napari_microaunet.cli import app
from napari_microaunet.curation.dataset import open_dataset
from napari_microaunet.curation.manifest import write_manifest
from napari_microaunet.distillation import material, trainer, training_state
from napari_microaunet.distillation.recipe import changed
from napari_microaunet.distillation.run_folder import RunFolder, load_tensors, save_tensors
from napari_microaunet.distillation.trainer import TrainingError, train
from napari_microaunet.distillation.watched import PICTURE
from napari_microaunet.errors import InputError
from napari_microaunet.frames.masks import read_mask_file, write_mask_file
from napari_microaunet.networks.checkpoint import load_checkpoint, read_card, save_checkpoint
from napari_microaunet.networks.library import find_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from napari_microaunet.distillation.recipe import Recipe
    from napari_microaunet.distillation.trainer import Outcome
    from napari_microaunet.distillation.training_frames import TrainingFrames


@pytest.fixture(scope="module", autouse=True)
def without_curves() -> Iterator[None]:
    """Save the second that each picture takes; test_curves.py draws one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "draw_curves", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_frames(tmp_path_factory.mktemp("small") / "frames")


def run(
    recipe: Recipe,
    folder: Path,
    cancelled: Callable[[], bool] = lambda: False,
) -> Outcome:
    run_folder = RunFolder(folder, recipe)
    dataset = run_folder.dataset()
    told: set[str] = set()
    return train(
        recipe,
        dataset,
        run_folder,
        device="cpu",
        report=lambda event: told.add(event["event"]),
        cancelled=lambda: "started" in told and cancelled(),
    )


def losses(folder: Path) -> list[dict[str, float]]:
    return [line["losses"] for line in metrics(folder) if "losses" in line]


def metrics(folder: Path) -> list[dict]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").rpartition("\n")[0]
    return [json.loads(line) for line in lines.splitlines()]


def after(steps: int, folder: Path) -> Callable[[], bool]:
    """Cancel a run of so few steps that each of them has its line of metrics."""
    return lambda: (folder / "metrics.jsonl").is_file() and len(losses(folder)) >= steps


def assert_same(one: Path, other: Path) -> None:
    """Compare all that two runs leave: every number of metrics, weights and optimiser."""
    timeless = [
        [{k: v for k, v in line.items() if k != "minutes"} for line in metrics(folder)]
        for folder in (one, other)
    ]
    assert timeless[0] == timeless[1]
    for name in ("state.safetensors", "kept.safetensors"):
        first, second = (load_file(folder / name) for folder in (one, other))
        assert first.keys() == second.keys()
        assert all(np.array_equal(first[key], second[key]) for key in first)


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert run(small_recipe(data), folder).finished
    return folder


def test_both_stages_leave_their_losses(whole: Path) -> None:
    first, *_, last = losses(whole)
    assert set(first) == {"segmentation", "boundary", "features", "loss"}
    assert set(last) == {"segmentation", "divergence", "contrast", "loss"}
    assert all(np.isfinite(list(line.values())).all() for line in losses(whole))


def test_the_cosine_moves_weight_from_features_to_probabilities(whole: Path) -> None:
    # Half of six steps: the stage is done by 0, 1/3 and 2/3; half a cosine gives 1, 3/4, 1/4.
    imitation = losses(whole)[:3]
    features = [line["features"] for line in imitation]
    assert features[1] / features[0] == pytest.approx(0.75, rel=0.2)
    assert features[2] / features[0] == pytest.approx(0.25, rel=0.2)
    assert ["divergence" in line for line in imitation] == [False, True, True]
    assert imitation[2]["divergence"] / imitation[1]["divergence"] == pytest.approx(3, rel=0.3)


def test_best_weights_are_a_model(whole: Path) -> None:
    network, card = load_checkpoint(whole / "kept.safetensors")
    assert card.input_size == (64, 64)
    assert network.widths == card.widths


def test_the_command_writes_the_model_of_a_run(data: Path, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "recipe.toml").write_text(f'data = "{data.as_posix()}"\n{RECIPE}')
    arguments = ["train", str(tmp_path / "recipe.toml"), "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(app, [*arguments, "--device", "cpu", "--events"])
    assert result.exit_code == 0, result.output
    card = read_card(tmp_path / "run" / "model.safetensors")
    assert card.sha256 == read_card(whole / "kept.safetensors").sha256
    assert card.description.startswith("6 steps")
    assert "which judged the training" in card.description
    assert "frames mean Dice" in card.metrics


def test_a_stopped_run_ends_with_the_same_numbers(data: Path, whole: Path, tmp_path: Path) -> None:
    recipe = small_recipe(data)
    assert not run(recipe, tmp_path / "run", after(4, tmp_path / "run")).finished
    assert run(recipe, tmp_path / "run").finished
    assert_same(tmp_path / "run", whole)


def test_it_stops_in_the_middle_of_things_and_ends_with_the_same_numbers(
    data: Path, whole: Path, tmp_path: Path
) -> None:
    recipe, folder = small_recipe(data), tmp_path / "run"
    patience = asked = 0

    def impatient() -> bool:
        nonlocal asked
        asked += 1
        return asked > patience

    # Asked once more than the last time, it gets one part of a step or a validation further.
    while not run(recipe, folder, impatient).finished:
        assert asked == patience + 1  # it stopped as soon as it was told
        patience, asked = patience + 1, 0
    assert patience > 4
    assert_same(folder, whole)


def test_a_finished_run_is_not_trained_further(data: Path, whole: Path) -> None:
    before = (whole / "kept.safetensors").read_bytes()
    assert run(small_recipe(data), whole).steps == 6
    assert (whole / "kept.safetensors").read_bytes() == before


def test_best_weights_that_got_lost_are_replaced(data: Path, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run" / "kept.safetensors").unlink()
    outcome = run(small_recipe(data), tmp_path / "run")
    assert outcome.steps == 6
    assert outcome.best is not None
    load_checkpoint(tmp_path / "run" / "kept.safetensors")


def test_a_run_that_dies_between_metrics_and_state_repeats_neither(
    data: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = 0

    def die(path: Path, tensors: dict[str, torch.Tensor], facts: dict[str, object]) -> None:
        nonlocal saved
        if saved == 2:  # before the first step and the second one; next comes the validation
            raise KeyboardInterrupt
        saved += 1
        save_tensors(path, tensors, facts)

    monkeypatch.setattr(trainer, "_SAVE_EVERY", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(training_state, "save_tensors", die)
        with pytest.raises(KeyboardInterrupt):
            run(small_recipe(data), tmp_path / "run")
    assert '"validation"' in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1]
    assert run(small_recipe(data), tmp_path / "run").finished
    assert_same(tmp_path / "run", whole)


# --- other processes ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def processes() -> multiprocessing.context.ForkServerContext:
    """Return what starts processes that need not import everything anew."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["napari_microaunet.distillation.trainer"])
    return context


def run_as(rank: int, of: int, port: int, data: Path, folder: Path) -> None:
    """Train in a process of the environment that torchrun gives it."""
    os.environ |= {
        "TORCHELASTIC_RUN_ID": "test",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        **{name: str(rank) for name in ("RANK", "LOCAL_RANK", "GROUP_RANK")},
        **{name: str(of) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE")},
    }
    torch.set_num_threads(1)
    trainer.draw_curves = lambda *_: None
    run(small_recipe(data), folder)


def test_two_processes_have_the_losses_of_one(data, whole, tmp_path, processes) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    both = [
        processes.Process(target=run_as, args=(rank, 2, port, data, tmp_path / "run"))
        for rank in range(2)
    ]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    for step, (several, one) in enumerate(
        zip(losses(tmp_path / "run"), losses(whole), strict=True)
    ):
        # Sums in another order differ in their last bit, and AdamW's first steps blow that up.
        assert several == pytest.approx(one, rel=1e-5 if step == 0 else 1e-2)


def test_a_killed_run_ends_with_the_same_numbers(data, whole, tmp_path, processes) -> None:
    process = processes.Process(target=run_as, args=(0, 1, 0, data, tmp_path / "run"))
    process.start()
    begun = after(1, tmp_path / "run")
    while process.is_alive() and not begun():
        time.sleep(0.005)
    process.kill()
    process.join()
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # as if it had been cut short while it wrote
    assert run(small_recipe(data), tmp_path / "run").finished
    assert_same(tmp_path / "run", whole)


# --- what is refused ----------------------------------------------------------------------


def test_another_recipe_is_refused_in_the_same_folder(data: Path, whole: Path) -> None:
    with pytest.raises(InputError, match="differs in seed"):
        run(small_recipe(data, seed=2), whole)


def test_too_few_frames_are_refused_until_there_are_enough(tmp_path: Path) -> None:
    data = write_frames(tmp_path / "frames", polyps=6)
    with pytest.raises(InputError, match="10 are needed"):
        run(small_recipe(data), tmp_path / "run")
    shutil.rmtree(data)
    write_frames(data)
    assert run(small_recipe(data, teacher=None, budget={"steps": 1}), tmp_path / "run").finished


def test_until_it_begins_a_training_can_be_asked_for_otherwise(data: Path, tmp_path: Path) -> None:
    slip = {"size": 8, "source_weights": {"fames": 0.5}}
    with pytest.raises(InputError, match="correct the name"):
        run(small_recipe(data, batch=slip), tmp_path / "run")
    assert run(small_recipe(data, teacher=None, budget={"steps": 1}), tmp_path / "run").finished


@pytest.mark.parametrize(
    ("split", "teacher", "changes", "unused"),
    [
        ("validation", {"model": "teacher"}, {}, 4),
        ("training", None, {}, 4),
        ("training", {"model": "teacher"}, {"batch.most_unlabelled": 1}, 3),
        ("training", {"model": "teacher"}, {"batch.unlabelled": 0.0}, 4),
        ("training", {"model": "teacher"}, {}, 0),
    ],
)
def test_frames_without_a_mask_that_nobody_looks_at_are_counted(
    data: Path, tmp_path: Path, split: str, teacher: dict | None, changes: dict, unused: int
) -> None:
    manifest = open_dataset(data).manifest
    frames = tuple(
        frame if frame.labelled else frame.model_copy(update={"split": split})
        for frame in manifest.frames
    )
    dataset = open_dataset(data, manifest.model_copy(update={"frames": frames}))
    recipe = changed(small_recipe(data, teacher=teacher), changes)
    events: list[dict] = []
    train(
        recipe,
        dataset,
        RunFolder(tmp_path / "run", recipe),
        device="cpu",
        report=events.append,
        cancelled=lambda: bool(events) and events[-1]["event"] == "started",
    )
    assert events[-2]["event"] == "started"
    assert events[-2]["unused_frames"] == unused


@pytest.mark.parametrize("device", ["quantum", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(data: Path, tmp_path: Path, device: str) -> None:
    recipe = small_recipe(data)
    with pytest.raises(InputError, match="There is no device"):
        train(recipe, open_dataset(data), RunFolder(tmp_path, recipe), device=device)


def test_a_frame_that_changes_before_the_first_state_is_noticed(tmp_path: Path) -> None:
    data = write_frames(tmp_path / "frames")
    recipe = small_recipe(data)
    run(recipe, tmp_path / "run", cancelled=lambda: True)
    (tmp_path / "run" / "state.safetensors").unlink()  # as if it had been killed at once
    mask = next(iter(sorted((data / "masks").iterdir())))
    write_mask_file(mask, np.zeros_like(read_mask_file(mask)))
    with pytest.raises(InputError, match=f"1 frames of .* have changed.*{mask.stem}"):
        run(recipe, tmp_path / "run")


def test_a_dataset_that_was_mended_by_hand_goes_on_after_a_stop(tmp_path: Path) -> None:
    data = write_frames(tmp_path / "frames")
    write_manifest(data / "manifest.json", open_dataset(data).manifest)
    masks = sorted((data / "masks").iterdir())
    labels = read_mask_file(masks[0])
    labels[:3] = 255
    write_mask_file(masks[0], labels)
    (data / "images" / f"{masks[1].stem}.png").unlink()
    recipe = small_recipe(data)
    assert not run(recipe, tmp_path / "run", cancelled=lambda: True).finished
    assert run(recipe, tmp_path / "run").finished
    write_mask_file(masks[0], np.zeros_like(labels))
    with pytest.raises(InputError, match=f"1 frames of .* have changed.*{masks[0].stem}"):
        run(recipe, tmp_path / "run")


def test_a_state_that_does_not_fit_is_refused(data: Path, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    state = tmp_path / "run" / "state.safetensors"
    tensors, facts = load_tensors(state)
    save_tensors(state, tensors | {"learner/new": torch.zeros(1)}, facts)
    with pytest.raises(InputError, match="does not fit this version"):
        run(small_recipe(data), tmp_path / "run")


def test_a_loss_that_is_no_number_stops_the_training(data: Path, tmp_path: Path) -> None:
    recipe = small_recipe(
        data, optimiser={"learning_rate": 1e30, "clip": 1e30, "warm_up": 0.0}, teacher=None
    )
    with pytest.raises(TrainingError, match="at step"):
        run(recipe, tmp_path / "run")


# --- how a training ends ------------------------------------------------------------------


def test_early_stopping_ends_before_the_budget(data: Path, tmp_path: Path) -> None:
    recipe = small_recipe(
        data,
        budget={"steps": 40},
        optimiser={"learning_rate": 1e-12},
        teacher=None,
        imitation={"share": 1.0},
        validation={"times": 40, "frames": 4, "patience": 2},
    )
    steps = run(recipe, tmp_path / "run").steps
    assert steps < 40
    assert run(recipe, tmp_path / "run").steps == steps


def test_a_time_budget_ends_by_the_clock(data, tmp_path, monkeypatch) -> None:
    ticks = itertools.count(0, 0.02)  # seconds from one look at the clock to the next
    monkeypatch.setattr(trainer, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    recipe = small_recipe(data, budget={"minutes": 0.01}, teacher=None)
    assert not run(recipe, tmp_path / "run", after(1, tmp_path / "run")).finished
    outcome = run(recipe, tmp_path / "run")
    assert outcome.finished
    assert 0.01 <= outcome.minutes < 1


def test_a_budget_of_less_than_a_step_is_one_step(data: Path, tmp_path: Path) -> None:
    outcome = run(small_recipe(data, budget={"epochs": 0.01}, teacher=None), tmp_path / "run")
    assert (outcome.finished, outcome.steps) == (True, 1)
    assert outcome.best is not None


def test_soft_labels_are_made_once_and_resumed_with(data: Path, tmp_path: Path) -> None:
    recipe = small_recipe(
        data, teacher={"model": "teacher", "soft_labels": "once"}, imitation={"share": 0.5}
    )
    run(recipe, tmp_path / "whole")
    (labels,) = tmp_path.glob("soft_labels-*.safetensors")
    made = labels.stat().st_mtime_ns
    run(recipe, tmp_path / "run", after(2, tmp_path / "run"))
    assert run(recipe, tmp_path / "run").finished
    assert labels.stat().st_mtime_ns == made
    assert all("divergence" in line for line in losses(tmp_path / "run"))
    assert_same(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize("changes", ["start", "teacher", "replay"])
def test_a_run_does_not_go_on_with_other_weights_or_replayed_frames(
    changes: str, data: Path, tmp_path: Path
) -> None:
    replayed = write_frames(tmp_path / "replayed", polyps=2, negatives=0, unlabelled=0)
    for name in ("student", "teacher"):
        shutil.copy(find_model(name).path, tmp_path / f"{name}.safetensors")
    recipe = small_recipe(
        data,
        start=str(tmp_path / "student.safetensors"),
        teacher={"model": str(tmp_path / "teacher.safetensors")},
        replay={"share": 0.2, "data": replayed},
    )
    assert not run(recipe, tmp_path / "run", after(2, tmp_path / "run")).finished
    if changes == "replay":
        for mask in (replayed / "masks").iterdir():
            write_mask_file(mask, np.ones((SIDE, SIDE), np.uint8))
    else:
        file = tmp_path / f"{'student' if changes == 'start' else 'teacher'}.safetensors"
        network, card = load_checkpoint(file)
        torch.nn.init.zeros_(network.head.bias)
        save_checkpoint(file, network, card)
    says = {"start": "starts from", "teacher": "teaches", "replay": "replayed"}[changes]
    with pytest.raises(InputError, match=f"cannot go on: the .* {says}"):
        run(recipe, tmp_path / "run")


def test_frames_are_standardised_for_the_weights_that_were_taught_so(
    data: Path, tmp_path: Path
) -> None:
    brief = {"teacher": None, "budget": {"steps": 1}, "imitation": {"share": 1.0}}
    plain = small_recipe(data, **brief)
    told = small_recipe(data, standardise=True, **brief)
    run(plain, tmp_path / "plain")
    run(told, tmp_path / "told")
    assert losses(tmp_path / "plain") != losses(tmp_path / "told")
    start = str(tmp_path / "told" / "kept.safetensors")
    run(small_recipe(data, start=start, **brief), tmp_path / "further")
    run(small_recipe(data, start=start, standardise=False, **brief), tmp_path / "otherwise")
    standardised = {
        folder: read_card(tmp_path / folder / "kept.safetensors").standardise
        for folder in ("plain", "told", "further", "otherwise")
    }
    assert standardised == {"plain": False, "told": True, "further": True, "otherwise": False}


def test_pseudo_labels_teach_where_nobody_drew(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sure(_: object, __: object, frames: TrainingFrames, *___: object, **____: object):
        half = torch.zeros_like(frames.labels)
        half[:, :, half.shape[2] // 2 :] = 255
        return half

    monkeypatch.setattr(material, "soft_labels", sure)
    segmentation = []
    for filled in (False, True):
        teacher = {"model": "teacher", "soft_labels": "once", "pseudo_labels": filled}
        recipe = small_recipe(
            data,
            teacher=teacher,
            budget={"steps": 1},
            batch={"size": 8, "unlabelled": 0.9, "negatives": 0.0},
            imitation={"share": 1.0},
        )
        run(recipe, tmp_path / f"{filled}")
        segmentation.append(losses(tmp_path / f"{filled}")[0]["segmentation"])
    # Half a frame is easier to guess than the polyps of the one labelled frame.
    assert segmentation[1] < segmentation[0] - 0.1


def test_a_full_graphics_card_is_tried_with_fewer_frames_at_once(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_step, most = trainer._Training._take_step, 2

    def with_little_memory(training: trainer._Training, progress: float) -> None:
        if training.recipe.batch.chunk > most:
            raise torch.OutOfMemoryError
        take_step(training, progress)

    monkeypatch.setattr(trainer._Training, "_take_step", with_little_memory)
    recipe, events = small_recipe(data), []
    folder = RunFolder(tmp_path / "run", recipe)
    outcome = train(recipe, open_dataset(data), folder, device="cpu", report=events.append)
    assert outcome.finished
    assert [one["chunk"] for one in events if one["event"] == "out of memory"] == [2]
    RunFolder(tmp_path / "run", recipe)  # the same request goes on with it

    most = 0
    folder = RunFolder(tmp_path / "none", recipe)
    with pytest.raises(TrainingError, match="graphics card is full"):
        train(recipe, open_dataset(data), folder, device="cpu")


@pytest.mark.parametrize(("name", "network"), [("student", "microaunet"), ("teacher", "malunet")])
def test_a_kept_encoder_stays_as_it_is_also_when_it_goes_on(
    name: str, network: str, data: Path, tmp_path: Path
) -> None:
    kept = {"optimiser.encoder_factor": 0, "network": network, "start": name}
    recipe = changed(small_recipe(data), kept)
    start, _ = load_checkpoint(find_model(name).path)
    assert not run(recipe, tmp_path / "run", after(3, tmp_path / "run")).finished
    assert run(recipe, tmp_path / "run").finished
    new, _ = load_checkpoint(tmp_path / "run" / "kept.safetensors")
    before, after_it = start.state_dict(), new.state_dict()
    encoder = {name for name in before if name.startswith("encoder")}
    assert encoder
    assert all(torch.equal(before[name], after_it[name]) for name in encoder)
    assert any(not torch.equal(before[name], after_it[name]) for name in before.keys() - encoder)


def test_held_out_frames_can_be_watched(data: Path, tmp_path: Path) -> None:
    recipe = small_recipe(data)
    run_folder = RunFolder(tmp_path / "run", recipe)
    events: list[dict] = []
    train(recipe, open_dataset(data), run_folder, device="cpu", report=events.append)
    (watching,) = [event for event in events if event["event"] == "watching"]
    watched = [event for event in events if event["event"] == "watched"]
    assert [event["step"] for event in watched] == [2, 4, 6]
    held_out = {f.name for f in run_folder.manifest().frames if f.split == "validation"}
    names = watching["names"]
    assert set(names) <= held_out
    assert all(len(event["outlines"]) == len(names) for event in watched)
    assert len(watching["before"]) == len(names)
    with Image.open(run_folder.watched_file) as pictures:
        assert pictures.size == (len(names) * PICTURE, PICTURE)
    # The first frame shows a disc: its outline lies within the frame and encloses the disc's area.
    number = int(names[0].rpartition("/")[2])
    mask = read_mask_file(data / "masks" / f"{number}.png") > 0
    (outline,) = watching["reference"][0]
    assert Polygon(outline).area == pytest.approx(mask.mean(), rel=0.1)
