"""The process of one job: ``python -m napari_microaunet.distillation.job_process FOLDER``.

It waits until no other job trains, fine-tunes, and writes what happens to the job's folder
(see `jobs`). It ends by itself when the job is asked to stop.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from napari_microaunet.distillation.jobs import FinetuneJob, JobState
from napari_microaunet.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_microaunet.distillation.events import Event

_ASK_EVERY_S = 0.2

_log = logging.getLogger(__name__)


def run(job: FinetuneJob) -> JobState:
    """Do what a job asks for, when its turn has come.

    Parameters
    ----------
    job : FinetuneJob
        Its events are written to its folder.

    Returns
    -------
    JobState
        How it ended; the last event says it too.
    """
    with job.events_file.open("a", encoding="utf-8") as file:

        def tell(event: Event) -> None:
            file.write(json.dumps(event) + "\n")
            file.flush()

        lock = FileLock(job.folder.parent / ".running.lock")
        how, sentence = _in_turn(job, lock, tell)
        tell({"event": "ended", "how": how, "sentence": sentence})
    return how


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
    run(FinetuneJob(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
