"""Jobs as a window sees them: real processes on small frames."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
import torch
from small_frames import write_frames
from test_finetune import save_model

from napari_microaunet.distillation import job_process, jobs
from napari_microaunet.distillation.jobs import FinetuneJob, FinetuneRequest, JobState, list_jobs
from napari_microaunet.errors import InputError
from napari_microaunet.networks.library import (
    add_model,
    delete_model,
    find_model,
    list_models,
    rename_model,
)

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("jobs")
    write_frames(folder / "frames")
    torch.manual_seed(0)
    save_model(folder / "student.safetensors", "microaunet", (64, 64))
    return folder


def request(frames: Path, **changes: object) -> FinetuneRequest:
    settings = {
        "title": "small",
        "dataset": frames / "frames",
        "start": str(frames / "student.safetensors"),
        "teacher": None,
        "minutes": 0.05,
        "device": "cpu",
        "reference": frames / "frames",
    }
    return FinetuneRequest.model_validate(settings | changes)


def wait(until: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def happened(job: FinetuneJob, event: str) -> bool:
    return any(one["event"] == event for one in job.events())


def test_a_job_is_stopped_found_again_and_goes_on_while_another_waits(
    frames: Path, tmp_path: Path
) -> None:
    first = FinetuneJob.new(request(frames, minutes=60), tmp_path)
    second = FinetuneJob.new(request(frames, dataset=tmp_path / "nowhere"), tmp_path)
    first.start()
    wait((first.run_folder / "student" / "state.safetensors").exists)  # after the first step
    assert first.state is JobState.RUNNING
    second.start()
    wait(lambda: happened(second, "queued"))
    assert second.state is JobState.QUEUED

    # Another window finds it, and its process is not that window's child.
    found = {job.folder: job for job in list_jobs(tmp_path)}[first.folder]
    assert found.state is JobState.RUNNING
    assert found.request == first.request
    found.ask_to_stop()
    wait(lambda: found.state is JobState.STOPPED)
    assert "can go on" in found.sentence
    assert not found.model_file.exists()
    wait(lambda: second.state is JobState.FAILED)
    assert "nowhere" in second.sentence

    seen = max(event["position"] for event in first.events())
    first.start()
    wait(lambda: any(event["event"] == "started" for event in first.events(seen)))
    started = next(event for event in first.events(seen) if event["event"] == "started")
    assert started["step"] > 0
    first.discard()
    assert first.state is not JobState.RUNNING
    assert not first.folder.exists()


@pytest.mark.skipif(not hasattr(os, "getpriority"), reason="niceness is a matter of POSIX")
def test_a_job_gives_way_to_the_window_and_a_killed_one_is_seen_as_such(
    frames: Path, tmp_path: Path
) -> None:
    job = FinetuneJob.new(request(frames, minutes=60), tmp_path)
    job.start()
    wait(lambda: happened(job, "started"))
    process = psutil.Process(json.loads((job.folder / "process.json").read_text())["number"])
    assert process.nice() > psutil.Process().nice()
    process.kill()
    wait(lambda: job.state is JobState.KILLED)
    assert FinetuneJob(job.folder).state is JobState.KILLED


def test_a_job_stops_in_the_middle_of_a_step_and_goes_on(frames: Path, tmp_path: Path) -> None:
    slow = {"batch.size": 24, "batch.chunk": 24, "size.side": 256}  # long enough to stop within
    job = FinetuneJob.new(request(frames, minutes=60, changes=slow), tmp_path)
    job.start()
    wait(lambda: happened(job, "step"))
    job.ask_to_stop()
    wait(lambda: job.state is JobState.STOPPED)
    assert sum(event["event"] == "step" for event in job.events()) == 1
    # From its last checkpoint, or from where it was if the stop came between two parts of a step.
    assert "it can go on from" in job.sentence
    left = job.run_folder / "student" / ".state.pt.0123.part"
    left.touch()
    seen = max(event["position"] for event in job.events())
    job.start()
    wait(lambda: any(event["event"] == "step" for event in job.events(seen)))
    assert not left.exists()
    job.discard()


def test_a_job_that_ends_leaves_a_model_and_a_report(frames: Path, tmp_path: Path) -> None:
    job = FinetuneJob.new(request(frames), tmp_path)
    assert job_process.run(job) is JobState.FINISHED
    assert job.state is JobState.FINISHED
    assert job.model_file.is_file()
    report = job.report()
    assert report is not None
    # Of the 24 frames with a polyp, which are the reference as well, the others teach.
    assert report["reference"]["before"]["positives"] == 2


def test_a_job_keeps_the_models_that_it_needs(
    frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "napari_microaunet.networks.library.user_data_path", lambda *_, **__: tmp_path
    )
    mine = add_model(frames / "student.safetensors", "ward 3")
    job = FinetuneJob.new(
        request(frames, start=str(mine.path), teacher="ward 3"), tmp_path / "jobs"
    )
    rename_model(mine, "ward 4")
    delete_model(find_model("ward 4"))
    kept = find_model(FinetuneJob(job.folder).request.start)
    assert kept.card == mine.card
    assert job.request.teacher == job.request.start
    # Another version of the package may have other weights of that name.
    bundled = FinetuneJob.new(request(frames, start="student"), tmp_path).request.start
    assert Path(bundled).is_relative_to(tmp_path)
    assert find_model(bundled).card == find_model("student").card
    with pytest.raises(InputError, match="no model named 'ward 4'"):
        FinetuneJob.new(request(frames, start="ward 4"), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_models_of_the_same_file_name_stay_apart(frames: Path, tmp_path: Path) -> None:
    files = [tmp_path / run / "model.safetensors" for run in ("one", "two")]
    for file in files:
        file.parent.mkdir()
        save_model(file, "microaunet", (64, 64))
    asked = request(frames, start=str(files[0]), teacher=str(files[1]))
    kept = FinetuneJob.new(asked, tmp_path / "jobs").request
    assert find_model(kept.start).card == find_model(str(files[0])).card
    assert kept.teacher is not None
    assert find_model(kept.teacher).card == find_model(str(files[1])).card


def test_a_job_runs_nothing_that_lies_where_the_window_was_started(
    frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "filelock.py").write_text("raise SystemExit('of somebody else')")
    monkeypatch.chdir(tmp_path)
    job = FinetuneJob.new(request(frames, dataset=tmp_path / "nowhere"), tmp_path / "jobs")
    job.start()
    wait(lambda: job.state not in (JobState.QUEUED, JobState.RUNNING))
    assert job.state is JobState.FAILED
    assert "nowhere" in job.sentence


def test_a_job_that_ends_between_two_looks_is_not_taken_for_killed(
    frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = FinetuneJob.new(request(frames), tmp_path)
    (job.folder / "process.json").write_text('{"number": 1}')
    job.events_file.write_text('{"event": "began"}\n')

    def ends_meanwhile() -> None:
        with job.events_file.open("a") as file:
            file.write('{"event": "ended", "how": "stopped", "sentence": "Stopped."}\n')

    monkeypatch.setattr(job, "_process", ends_meanwhile)
    assert job.state is JobState.STOPPED


def test_a_model_that_is_taken_back_is_in_the_library_under_no_name(
    frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "napari_microaunet.networks.library.user_data_path", lambda *_, **__: tmp_path
    )
    job = FinetuneJob.new(request(frames), tmp_path / "jobs")
    job.model_file.parent.mkdir()
    shutil.copy(frames / "student.safetensors", job.model_file)
    add_model(job.model_file, "imported by hand")
    job.take_back()
    job.promote("promoted")
    add_model(job.model_file, "imported again")
    job.take_back()
    assert job.used_as is None
    assert not [model for model in list_models() if not model.bundled]
    job.model_file.write_bytes(b"damaged")
    assert job.used_as is None


def test_a_process_that_nobody_would_know_of_is_ended(
    frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = FinetuneJob.new(request(frames), tmp_path)

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(jobs, "replacing", full)
    with pytest.raises(InputError, match="No space left"):
        job.start()
    assert job._started is not None
    assert job._started.wait(30) != 0
    assert job.state is not JobState.RUNNING


def test_a_job_that_has_ended_is_not_taken_for_one_that_waits(frames: Path, tmp_path: Path) -> None:
    job = FinetuneJob.new(request(frames, dataset=tmp_path / "nowhere"), tmp_path)
    job.start()
    states = set()
    wait(lambda: states.add(job.state) or JobState.FAILED in states)
    end = time.monotonic() + 2  # in which its process ends, too
    while time.monotonic() < end:
        states.add(job.state)
        assert job.state is JobState.FAILED
        time.sleep(0.02)
    assert states <= {JobState.QUEUED, JobState.RUNNING, JobState.FAILED}


def test_what_goes_wrong_is_said_in_a_sentence(
    frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = write_frames(tmp_path / "few", polyps=3)
    job = FinetuneJob.new(request(frames, dataset=few), tmp_path / "jobs")
    assert job_process.run(job) is JobState.FAILED
    assert "training frames with a polyp" in job.sentence

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "/disk/state")

    monkeypatch.setattr("napari_microaunet.distillation.finetune.finetune", full)
    assert job_process.run(job) is JobState.FAILED
    assert "/disk/state could not be used (No space left on device)" in job.sentence


def test_folders_without_a_job_are_refused_and_not_listed(frames: Path, tmp_path: Path) -> None:
    job = FinetuneJob.new(request(frames), tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "request.json").write_text('{"title": "old", "epochs": 3}')
    assert [one.folder for one in list_jobs(tmp_path)] == [job.folder]
    for name in ("other", "old"):
        with pytest.raises(InputError, match=f"{name} holds no job"):
            FinetuneJob(tmp_path / name)


def test_a_half_written_event_is_left_for_later(frames: Path, tmp_path: Path) -> None:
    job = FinetuneJob.new(request(frames), tmp_path)
    job.events_file.write_text('{"event": "began"}\n{"event": "end')
    assert [event["event"] for event in job.events()] == ["began"]


def test_an_event_that_a_full_disk_cut_short_stands_in_nobodys_way(
    frames: Path, tmp_path: Path
) -> None:
    job = FinetuneJob.new(request(frames, dataset=tmp_path / "nowhere"), tmp_path)
    job.events_file.write_text('{"event": "began"}\n{"event": "ended", "ho')
    job.start()
    wait(lambda: job.state is JobState.FAILED)
    assert FinetuneJob(job.folder).state is JobState.FAILED
    names = [event["event"] for event in job.events()]
    assert [names[0], names[1], names[2], names[-1]] == ["began", "queued", "began", "ended"]


def test_one_core_is_left_to_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, spare in ((1, 1), (2, 1), (8, 7)):
        monkeypatch.setattr(jobs.os, "cpu_count", lambda cores=cores: cores)
        assert jobs.spare_threads() == spare
