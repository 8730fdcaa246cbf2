"""The process of one job: ``python -m napari_microaunet.distillation.job_process FOLDER``.

It waits until no other job trains, fine-tunes, and writes what happens to the job's folder
(see `jobs`). It ends within a second when the job is asked to stop, or as soon as a file that it is
writing then is whole.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from napari_microaunet.distillation.jobs import FinetuneJob, JobState
from napari_microaunet.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_microaunet.distillation.events import Event

_ASK_EVERY_S = 0.1
# Together with the asking less than a second. A step of the student takes half of it, one of the
# expert several seconds, which are not worth waiting for.
_GRACE_S = 0.6
_SAVING_S = 3.0  # more for a file that is being written: mostly the state that it goes on from
_PARTS = ".*.part"  # files that are being written (`atomic`)

_log = logging.getLogger(__name__)


class _Events:
    """The file that tells what happens to a job, until the job has ended."""

    def __init__(self, job: FinetuneJob) -> None:
        self._file = job.events_file.open("a", encoding="utf-8")
        self._lock = threading.Lock()

    def tell(self, event: Event) -> None:
        """Write an event, unless the last one has been written."""
        with self._lock:
            if not self._file.closed:
                self._file.write(json.dumps(event) + "\n")
                self._file.flush()

    def end(self, how: JobState, sentence: str) -> None:
        """Write the last event."""
        self.tell({"event": "ended", "how": how, "sentence": sentence})
        with self._lock:
            self._file.close()


def run(job: FinetuneJob, *, ends_process: bool = False) -> JobState:
    """Do what a job asks for, when its turn has come.

    Parameters
    ----------
    job : FinetuneJob
        Its events are written to its folder.
    ends_process : bool
        Whether the process ends as soon as the job is asked to stop, whatever it is at, but
        for a file that is half written.

    Returns
    -------
    JobState
        How it ended; the last event says it too.
    """
    events = _Events(job)
    if ends_process:
        threading.Thread(target=_end_in_time, args=(job, events), daemon=True).start()
    how, sentence = _in_turn(job, FileLock(job.folder.parent / ".running.lock"), events.tell)
    events.end(how, sentence)
    return how


def _end_in_time(job: FinetuneJob, events: _Events) -> None:
    """End the process in the middle of a step if need be: files are there whole or not at all."""
    while not job.stop_file.exists():
        time.sleep(_ASK_EVERY_S)
    time.sleep(_GRACE_S)
    last = time.monotonic() + _SAVING_S
    try:
        while any(job.run_folder.rglob(_PARTS)) and time.monotonic() < last:
            time.sleep(_ASK_EVERY_S)
        kept = any(job.run_folder.rglob("state.safetensors"))
        where = "go on from its last checkpoint" if kept else "be started again"
        events.end(JobState.STOPPED, f"Stopped; it can {where}.")
    finally:
        os._exit(0)  # also where the disk is full, or the folder gone


def _in_turn(
    job: FinetuneJob, lock: FileLock, tell: Callable[[Event], None]
) -> tuple[JobState, str]:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        while not lock.is_locked:
            if job.stop_file.exists():
                return JobState.STOPPED, "Stopped while it waited for another job."
            try:
                lock.acquire(timeout=0)
            except Timeout:
                time.sleep(_ASK_EVERY_S)
    with lock:
        tell({"event": "began"})
        for part in job.run_folder.rglob(_PARTS):  # of files that a stop cut short
            part.unlink()
        return _finetune(job, tell)


def _finetune(job: FinetuneJob, tell: Callable[[Event], None]) -> tuple[JobState, str]:
    import torch

    from napari_microaunet.distillation.finetune import finetune
    from napari_microaunet.distillation.recipe import Budget
    from napari_microaunet.distillation.trainer import TrainingError

    request = job.request
    torch.set_num_threads(request.threads)
    try:
        result = finetune(
            job.dataset,
            job.run_folder,
            Budget(minutes=request.minutes),
            start=request.start,
            teacher=request.teacher,
            adapt_teacher=request.adapt_teacher,
            reference=request.reference,
            seed=request.seed,
            changes=request.changes,
            device=request.device,
            report=tell,
            cancelled=job.stop_file.exists,
        )
    except (InputError, TrainingError) as error:
        return JobState.FAILED, str(error)
    except OSError as error:
        return (
            JobState.FAILED,
            f"{error.filename or job.folder} could not be used ({error.strerror or error}): check "
            "the free space and the permissions, then go on with the job.",
        )
    except Exception as error:  # noqa: BLE001 - whatever it is, the window is told
        _log.exception("The job failed")
        return (
            JobState.FAILED,
            f"The training failed unexpectedly: {error}. {job.errors_file} has the details.",
        )
    if result is None:
        return JobState.STOPPED, "Stopped; it can go on from where it was."
    return JobState.FINISHED, ""


def main() -> None:
    """Run the job whose folder is the only argument."""
    logging.basicConfig()
    run(FinetuneJob(Path(sys.argv[1])), ends_process=True)


if __name__ == "__main__":
    main()
