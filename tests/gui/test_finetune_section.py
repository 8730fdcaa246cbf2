"""Fine-tuning as a lab member sees it, in a real window with a real process beside it."""

from __future__ import annotations

import json
import shutil

import psutil
import pytest
from pointing import Mouse
from pycocotools.coco import COCO
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QMessageBox
from small_frames import write_frames

from napari_microaunet.curation.incoming import name_in_dataset
from napari_microaunet.distillation.jobs import (
    FinetuneJob,
    FinetuneRequest,
    JobState,
    jobs_folder,
    list_jobs,
)
from napari_microaunet.distillation.recipe import finetuning_recipe
from napari_microaunet.exchange.formats import find_format
from napari_microaunet.frames.masks import read_mask_file
from napari_microaunet.networks.library import find_model, list_models
from napari_microaunet.widgets import finetune_section
from napari_microaunet.widgets.prelabel_section import Which


@pytest.fixture(autouse=True)
def no_jobs():
    yield
    for job in list_jobs():
        job.discard()
    shutil.rmtree(jobs_folder(), ignore_errors=True)


@pytest.fixture
def yes(monkeypatch):
    monkeypatch.setattr(QMessageBox, "question", lambda *_: QMessageBox.StandardButton.Yes)


@pytest.mark.timeout(600)
def test_the_whole_round(use, qtbot, tmp_path, yes, errors):
    folder = write_frames(tmp_path / "frames", polyps=28, negatives=0, unlabelled=0)
    exact = shutil.move(folder / "masks", tmp_path / "exact")
    used = use()
    used.open(folder / "images")
    used.prelabel_all()
    for index, frame in enumerate(used.work.sequence.frames[:24]):
        used.go_to(index)
        used.masks.edit(index, read_mask_file(exact / f"{frame.name}.png"), "brush")
        used.press(Qt.Key.Key_Q)

    tune = used.dock.sections["Fine-tune"]
    counted = "24 accepted frames with polyps, 0 without; 4 not accepted."
    qtbot.waitUntil(lambda: tune.data.text() == counted)
    tune.settings.minutes.value = 1
    tune.settings.teacher.value = "teacher"
    tune.settings.advanced["batch.size"].value = 8
    tune.start_button.click()
    run = tune.run
    qtbot.waitUntil(lambda: run.job is not None, timeout=120_000)
    assert run.job.request.changes == {"batch.size": 8}
    qtbot.waitUntil(lambda: run.state is JobState.RUNNING, timeout=120_000)
    used.go_to(3)  # the annotator goes on working
    qtbot.waitUntil(lambda: "left" in run.status.text(), timeout=120_000)
    assert "cores busy" in run.load.text()
    assert "steps fit" in run.plan.text()
    assert run.plan.isVisibleTo(tune)
    pictures = run.strip.pictures
    assert pictures.count() > 0
    before = pictures.item(0).icon().pixmap(96, 96).toImage()
    qtbot.waitUntil(
        lambda: pictures.item(0).icon().pixmap(96, 96).toImage() != before, timeout=120_000
    )
    qtbot.waitUntil(lambda: run.state is JobState.FINISHED, timeout=240_000)
    qtbot.waitUntil(lambda: tune.result.isVisibleTo(tune), timeout=10_000)
    assert any(word in tune.result.verdict.text() for word in ("etter", "forgotten"))
    assert tune.result.table.rowCount() > 3
    assert "a draft" in run.status.text()

    name = tune.result.name.text()
    tune.result.name.setText("student")
    tune.result.promote_button.click()
    used.wait_for_job()
    assert "There is a model called student already" in errors()[-1]
    tune.result.name.setText(name)
    tune.result.promote_button.click()
    used.wait_for_job()
    assert f"in use as {name}" in run.status.text()
    tune.result.draft_button.click()  # rolls back
    assert "a draft" in run.status.text()
    assert name not in [model.name for model in list_models()]
    tune.result.name.setText("ward 3")
    tune.result.promote_button.click()
    used.wait_for_job()
    assert find_model("ward 3").path.is_file()
    used.choose_model("ward 3")
    used.prelabel.which.value = Which.RANGE
    used.prelabel.first.value = 24  # the rest, which nobody has accepted
    used.prelabel_all()
    assert "Pre-labelled 4" in used.bench.message
    used.export.format.value = find_format("coco")
    used.export.divide.value = False
    used.export.write(tmp_path / "coco")
    used.wait_for_job()
    (file,) = (tmp_path / "coco").rglob("instances*.json")
    assert len(COCO(str(file)).imgs) == 24
    assert len(errors()) == 1  # that of the name
    find_model("ward 3").path.unlink()


def test_a_run_is_stopped_goes_on_and_is_found_again(use, qtbot, tmp_path, yes):
    frames = write_frames(tmp_path / "frames", polyps=24)
    used = use()
    tune = used.dock.sections["Fine-tune"]
    tune.settings.teacher.value = None
    tune.settings.minutes.value = 30
    tune.use_folder(frames)
    used.wait_for_job()
    assert "24 frames with polyps, 4 without, 4 not labelled" in tune.data.text()
    tune.start_button.click()
    run = tune.run
    qtbot.waitUntil(lambda: "left" in run.status.text(), timeout=120_000)
    run.stop_button.click()
    qtbot.waitUntil(lambda: run.state is JobState.STOPPED, timeout=30_000)
    assert run.stop_button.text() == "Go on"
    assert "can go on" in run.status.text()
    run.stop_button.click()
    qtbot.waitUntil(lambda: run.job.state is JobState.RUNNING, timeout=60_000)

    used.viewer.window.remove_dock_widget("all")
    again = type(used)(used.viewer, qtbot).dock.sections["Fine-tune"]
    assert again.run.job.folder == run.job.folder
    qtbot.waitUntil(lambda: "left" in again.run.status.text(), timeout=120_000)
    again.run.discard_button.click()
    assert list_jobs() == []
    assert again.run.job is None


def test_a_run_waits_while_frames_are_stepped_through_and_drawn_on(use, qtbot, tmp_path):
    used = use(show=True)
    used.open(write_frames(tmp_path / "frames") / "images")
    tune = used.dock.sections["Fine-tune"]
    request = FinetuneRequest(title="beside", dataset=tmp_path / "frames", minutes=30)
    job = FinetuneJob.new(request)
    job.start()
    tune.run.refresh(job.folder.name)
    qtbot.waitUntil(lambda: tune.run.state is JobState.RUNNING, timeout=60_000)
    process = psutil.Process(json.loads((job.folder / "process.json").read_bytes())["number"])

    def waits():
        return process.status() == psutil.STATUS_STOPPED

    tune.give_way._painted.setInterval(2000)  # the system takes its time to halt a process
    assert not waits()
    used.viewer.dims.set_current_step(0, 1)
    qtbot.waitUntil(waits, timeout=1500)
    qtbot.waitUntil(lambda: not waits(), timeout=5000)
    used.layer.mode = "paint"
    Mouse(used).drag((10, 10), (12, 20))
    qtbot.waitUntil(waits, timeout=1500)
    used.viewer.window.remove_dock_widget("all")
    qtbot.waitUntil(lambda: not waits(), timeout=1500)
    process.suspend()  # as a window that is killed at a step leaves it
    qtbot.waitUntil(waits, timeout=1500)
    type(used)(used.viewer, qtbot)
    qtbot.waitUntil(lambda: not waits(), timeout=1500)
    job.discard()


def test_a_run_that_does_not_listen_is_ended_and_can_go_on(use, qtbot, tmp_path):
    used = use()
    tune = used.dock.sections["Fine-tune"]
    tune.run._patience.setInterval(100)
    request = FinetuneRequest(
        title="deaf", dataset=write_frames(tmp_path / "frames"), teacher=None, minutes=30
    )
    job = FinetuneJob.new(request)
    job.start()
    tune.run.refresh(job.folder.name)
    qtbot.waitUntil(lambda: tune.run.state is JobState.RUNNING, timeout=60_000)
    tune.run.job.stop_file = tmp_path / "where nobody looks"
    tune.run.stop_button.click()
    qtbot.waitUntil(lambda: tune.run.state is JobState.KILLED, timeout=30_000)
    assert "by force; it can go on" in tune.run.status.text()
    assert tune.run.stop_button.text() == "Go on"


def test_runs_with_the_same_settings_are_told_apart(use, tmp_path):
    frames = write_frames(tmp_path / "frames")
    jobs = [FinetuneJob.new(FinetuneRequest(title="student, 10 min", dataset=frames))]
    tune = use().dock.sections["Fine-tune"]
    jobs.append(FinetuneJob.new(FinetuneRequest(title="student, 10 min", dataset=frames)))
    for job in jobs:
        tune.run.refresh(job.folder.name)
        assert tune.run.job.folder == job.folder
    assert tune.run.runs.native.count() == 2


def test_a_frame_of_a_session_is_shown_there_and_never_in_the_copy(use, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(finetune_section, "show_info", told.append)
    frames = write_frames(tmp_path / "ward", polyps=3, negatives=0, unlabelled=0)
    used = use()
    used.open(frames / "images")
    tune = used.dock.sections["Fine-tune"]
    session = used.work.session
    job = FinetuneJob.new(FinetuneRequest(title="of a session", session=session.folder))
    tune.run.refresh(job.folder.name)
    name = name_in_dataset(used.work.sequence.name, used.work.sequence.frames[2].name)
    tune.run.frame_wanted.emit(name)
    assert used.bench.shown == 2
    other = job.request.model_copy(update={"session": tmp_path / "elsewhere.microaunet"})
    job = FinetuneJob.new(other)
    tune.run.refresh(job.folder.name)
    used.go_to(0)
    tune.run.frame_wanted.emit(name)
    assert used.bench.shown == 0
    assert "elsewhere.microaunet" in told[-1]


def test_settings_are_those_of_the_chosen_model(use):
    settings = use().dock.sections["Fine-tune"].settings
    rate = settings.advanced["optimiser.learning_rate"]
    layers = settings.advanced["optimiser.encoder_factor"]
    layers.value = layers.choices[1]
    assert rate.value == finetuning_recipe().optimiser.learning_rate
    settings.model.value = find_model("expert")
    of_expert = finetuning_recipe("expert").optimiser
    assert (rate.value, layers.value) == (of_expert.learning_rate, of_expert.encoder_factor)
    assert "optimiser.learning_rate" not in settings.changes()
    rate.value = 1e-3
    settings.model.value = find_model("student")
    assert settings.changes()["optimiser.learning_rate"] == 1e-3  # the user's own stays


@pytest.mark.parametrize("again", [False, True], ids=["a new one", "one gone on with"])
def test_a_run_that_is_not_to_go_on_stops_with_the_window(use, qtbot, tmp_path, yes, again):
    frames = write_frames(tmp_path / "frames")
    used = use()
    tune = used.dock.sections["Fine-tune"]
    tune.settings.teacher.value = None
    tune.settings.minutes.value = 30
    tune.settings.goes_on.value = False
    tune.use_folder(frames)
    used.wait_for_job()
    tune.start_button.click()
    qtbot.waitUntil(lambda: "left" in tune.run.status.text(), timeout=120_000)
    (job,) = list_jobs()
    if again:
        tune.run.stop_button.click()
        qtbot.waitUntil(lambda: tune.run.state is JobState.STOPPED, timeout=30_000)
        tune._started_here.clear()  # as in the next window
        tune.run.stop_button.click()
        qtbot.waitUntil(lambda: tune.run.state is JobState.RUNNING, timeout=60_000)
    used.viewer.window.remove_dock_widget("all")
    qtbot.waitUntil(lambda: job.state is JobState.STOPPED, timeout=30_000)
    assert not job.model_file.exists()


def test_too_few_frames_are_refused_in_words_and_leave_nothing(use, qtbot, tmp_path, yes, errors):
    used = use()
    tune = used.dock.sections["Fine-tune"]
    tune.use_folder(write_frames(tmp_path / "few", polyps=4))
    used.wait_for_job()
    tune.start_button.click()
    used.wait_for_job()
    assert any("at least 10 are needed" in error for error in errors())
    assert list_jobs() == []
