"""What goes wrong with a fine-tuning on a bad day, as its user is told: real processes."""

from __future__ import annotations

import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from small_frames import write_frames
from test_finetune import save_model
from test_jobs import happened, request, wait

from napari_microaunet.distillation import job_process, trainer
from napari_microaunet.distillation.jobs import FinetuneJob, JobState
from napari_microaunet.errors import InputError
from napari_microaunet.networks import build
from napari_microaunet.networks.checkpoint import load_checkpoint, read_card, save_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="module", autouse=True)
def without_curves() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "draw_curves", lambda *_: None)
        yield


def make_frames(folder: Path) -> Path:
    write_frames(folder / "frames")
    torch.manual_seed(0)
    save_model(folder / "student.safetensors", "microaunet", (64, 64))
    return folder


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    return make_frames(tmp_path)


@pytest.fixture(scope="module")
def stopped_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the folder of a job that was stopped in the middle, and a copy of all around it."""
    place = make_frames(tmp_path_factory.mktemp("stopped") / "place")
    job = FinetuneJob.new(request(place, minutes=60), place / "jobs")
    with ThreadPoolExecutor() as pool:
        ended = pool.submit(job_process.run, job)
        wait(lambda: happened(job, "step"))
        job.ask_to_stop()
        assert ended.result() is JobState.STOPPED
    return job.folder, Path(shutil.copytree(place, place.with_name("kept")))


@pytest.fixture
def stopped(stopped_once: tuple[Path, Path]) -> FinetuneJob:
    """Return the stopped job, with everything as it was when it stopped."""
    folder, kept = stopped_once
    place = kept.with_name("place")
    shutil.rmtree(place)
    shutil.copytree(kept, place)
    return FinetuneJob(folder)


def goes_on_wrongly(job: FinetuneJob) -> str:
    """Go on with a job that cannot go on, and return what its user is told."""
    job.stop_file.unlink(missing_ok=True)
    assert job_process.run(job) is JobState.FAILED
    assert not job.model_file.exists()
    assert "Traceback" not in job.sentence
    return job.sentence


@pytest.mark.parametrize("what", ["changed", "gone"])
def test_a_dataset_that_changes_under_the_run(stopped: FinetuneJob, what: str) -> None:
    images = stopped.dataset / "images"
    kept = (images / "3.png").read_bytes()
    if what == "changed":
        shutil.copy(images / "4.png", images / "3.png")
    else:
        (images / "3.png").unlink()
    said = goes_on_wrongly(stopped)
    assert "1 frames of" in said
    assert "the first is images/3" in said or "the first is 3" in said
    (images / "3.png").write_bytes(kept)
    stopped.start()  # with the former file back it goes on
    wait(lambda: stopped.state is JobState.RUNNING)
    stopped.discard()


def test_held_out_frames_that_vanish_meanwhile_are_left_out_and_named(
    frames: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = FinetuneJob.new(request(frames, reference=None), frames / "jobs")
    train = trainer.train
    gone: list[str] = []

    def train_and_lose(recipe, dataset, run, **more):
        outcome = train(recipe, dataset, run, **more)
        held_out = dataset.indices("validation", labelled=True)
        gone.append(dataset.frames[held_out[0]].name)
        dataset.sequence.frames[held_out[0]].source.unlink()
        return outcome

    monkeypatch.setattr("napari_microaunet.distillation.finetune.train", train_and_lose)
    assert job_process.run(job) is JobState.FINISHED
    report = job.report()
    assert report is not None
    assert list(report["problems"]) == gone


def test_a_loss_that_is_no_number_keeps_the_last_good_weights(frames: Path) -> None:
    # So large a step that the weights overflow: what a user gets who sets the learning rate so.
    changes = {"optimiser.learning_rate": 1e30, "optimiser.clip": 1e30}
    job = FinetuneJob.new(request(frames, minutes=60, changes=changes), frames / "jobs")
    assert job_process.run(job) is JobState.FAILED
    assert "stopped being a number at step" in job.sentence
    assert "half the learning rate" in job.sentence
    assert not job.model_file.exists()
    assert read_card(frames / "student.safetensors").name == "small student"


def test_a_run_folder_of_another_version(stopped: FinetuneJob) -> None:
    recipe = stopped.run_folder / "student" / "recipe.json"
    recipe.write_text(recipe.read_text().replace('"seed"', '"dice_roll"'))
    said = goes_on_wrongly(stopped)
    assert str(recipe) in said
    assert "another version" in said
    assert "start a new training" in said


def other_widths(path: Path) -> None:
    network, card = load_checkpoint(path)
    widths = tuple(width + 8 for width in network.widths)
    path.unlink()
    save_checkpoint(path, network, card.model_copy(update={"widths": widths}))


def other_network(path: Path) -> None:
    card = read_card(path)
    path.unlink()
    save_checkpoint(path, build("malunet"), card)


def no_checkpoint(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04 what PyTorch pickles")


@pytest.mark.parametrize("spoil", [other_widths, other_network, no_checkpoint])
def test_a_model_to_start_from_that_is_of_another_architecture(
    frames: Path, spoil: Callable[[Path], None]
) -> None:
    model = frames / "student.safetensors"
    job = FinetuneJob.new(request(frames), frames / "jobs")
    spoil(Path(job.request.start))
    assert goes_on_wrongly(job).startswith(job.request.start)
    no_checkpoint(model)
    with pytest.raises(InputError, match=f"^{re.escape(str(model))}"):
        FinetuneJob.new(request(frames), frames / "jobs")


def test_weights_of_another_network_under_a_stopped_run(stopped: FinetuneJob) -> None:
    save_model(Path(stopped.request.start), "malunet", (64, 64))
    said = goes_on_wrongly(stopped)
    assert "differs in network" in said
    assert "choose another folder" in said


def test_a_full_disk_while_training(frames: Path, mount: Callable[[str], Path]) -> None:
    drive = mount("1m")
    job = FinetuneJob.new(request(frames, minutes=1), drive)
    filled = drive / "other"
    with filled.open("wb") as file:
        file.write(bytes(2**20 - 250_000))
    assert job_process.run(job) is JobState.FAILED
    assert "No space left on device" in job.sentence
    assert "free space" in job.sentence
    filled.unlink()
    job.start()
    wait(lambda: job.state is JobState.RUNNING)
    job.discard()
