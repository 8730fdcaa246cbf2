"""Fine-tunings in processes of their own, which windows start, watch, stop and find again.

::

    JOBS/
    ├── .running.lock          held by the one job that trains; the others wait
    └── ID/
        ├── request.json       what was asked
        ├── process.json       the process that is at it, or was
        ├── events.jsonl       what happened, a JSON object a line
        ├── errors.txt         what the process wrote to stderr
        ├── stop               there while the job is asked to stop
        ├── models/            the models that it needs, as they were
        ├── dataset/           frames to learn from that were written for this job
        └── run/               the folder of `finetune`

Who starts a job adds ``{"event": "queued"}``; the process adds ``{"event": "began"}`` when its turn
has come, and ``{"event": "ended", "how": ..., "sentence": ...}`` in the end. One that is gone
without that was killed. Either way the same job can go on.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import psutil
from platformdirs import user_data_path
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from napari_microaunet.atomic import replacing
from napari_microaunet.distillation.recipe import Value
from napari_microaunet.errors import InputError, first_problem
from napari_microaunet.networks.checkpoint import read_card
from napari_microaunet.networks.library import (
    Model,
    add_model,
    delete_model,
    find_model,
    list_models,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_microaunet.distillation.events import Event

PROCESS_MODULE = "napari_microaunet.distillation.job_process"
# A tenth of the window's share where both want a core.
_NICENESS = 10
# How the lines begin that tell where a job stands.
_TURNS = (b'{"event": "queued"', b'{"event": "began"', b'{"event": "ended"')
# How long a process that was killed may take to be gone.
_GONE_S = 5.0


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "waiting for another one"
    RUNNING = "running"
    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"
    KILLED = "killed"


class FinetuneRequest(BaseModel):
    """What is asked of a job; see `finetune`.

    Attributes
    ----------
    title : str
        What the job is called.
    dataset : Path or None
        A curated dataset, or another folder with masks; None for one that was written to
        ``dataset/`` in the job's folder.
    start : str
        Model to start from: its name in the library, or its file.
    teacher : str or None
        Model that teaches; None for labels alone.
    adapt_teacher : bool
        Whether the teacher is fine-tuned first.
    minutes : float
        Time to train.
    reference : Path or None
        Frames that show what is forgotten; the package's sample frames by default.
    session : Path or None
        The session whose frames were written to ``dataset/``.
    device : str
        "auto", "cpu", "cuda", "cuda:1" or "mps".
    threads : int
        Processor cores to use.
    seed : int
        Of everything drawn.
    changes : dict of str to value
        What differs from the package's recipe; see `recipe.changed`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: Annotated[str, Field(min_length=1, max_length=100)]
    dataset: Path | None = None
    start: str = "student"
    teacher: str | None = "expert"
    adapt_teacher: bool = False
    minutes: Annotated[float, Field(gt=0)] = 10.0
    reference: Path | None = None
    session: Path | None = None
    device: str = "auto"
    threads: Annotated[int, Field(ge=1)] = 1
    seed: Annotated[int, Field(ge=0)] = 1
    changes: dict[str, Value] = {}


@dataclass(frozen=True)
class Load:
    """What a job takes of the machine.

    Attributes
    ----------
    cores : float
        Processor cores that were busy with it since the last look.
    memory : int
        Bytes.
    """

    cores: float
    memory: int


def jobs_folder() -> Path:
    """Return the folder of all jobs; it need not exist."""
    return user_data_path("napari-microaunet", appauthor=False) / "jobs"


def spare_threads() -> int:
    """Return how many cores a job may use so that one is left to the window."""
    return max(1, (os.cpu_count() or 1) - 1)


class FinetuneJob:
    """One fine-tuning on disk.

    Parameters
    ----------
    folder : Path
        Of the job; see the module.

    Raises
    ------
    InputError
        If it holds no job, or one of another version of the package.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.request = FinetuneRequest.model_validate_json(
                (folder / "request.json").read_bytes()
            )
        except (OSError, ValidationError) as error:
            why = first_problem(error) if isinstance(error, ValidationError) else error.strerror
            raise InputError(
                f"{folder} holds no job that this version can read ({why}); delete the folder, or "
                "use the version that made it."
            ) from error
        self.dataset = self.request.dataset or folder / "dataset"
        self.run_folder = folder / "run"
        self.model_file = self.run_folder / "model.safetensors"
        self.report_file = self.run_folder / "report.json"
        self.events_file = folder / "events.jsonl"
        self.errors_file = folder / "errors.txt"
        self.stop_file = folder / "stop"
        self._process_file = folder / "process.json"
        self._started: subprocess.Popen[bytes] | None = None
        self._last_times: tuple[float, float] | None = None  # of the clock, of the processor
        self._read_to = 0
        self._last: Event | None = None

    @classmethod
    def new(cls, request: FinetuneRequest, jobs: Path | None = None) -> FinetuneJob:
        """Make the folder of a job; `start` starts it.

        The models are copied there: the job still has them where they are renamed, deleted or, by
        another version of the package, replaced before it ends.

        Parameters
        ----------
        request : FinetuneRequest
            What is asked.
        jobs : Path, optional
            Where its folder is made; `jobs_folder` by default.

        Raises
        ------
        InputError
            If there is no such model, or the folder cannot be written.
        """
        now = datetime.now(UTC).strftime("%Y-%m-%d-%H%M%S")
        folder = (jobs_folder() if jobs is None else jobs) / f"{now}-{uuid.uuid4().hex[:6]}"
        models = [find_model(name) for name in (request.start, request.teacher) if name is not None]
        with _writing(folder):
            folder.mkdir(parents=True)
            kept = [str(_copied(model, folder / "models")) for model in models]
            teacher = None if request.teacher is None else kept[1]
            request = request.model_copy(update={"start": kept[0], "teacher": teacher})
            with replacing(folder / "request.json") as file:
                file.write(request.model_dump_json(indent=1).encode())
        return cls(folder)

    def start(self) -> None:
        """Start the job's process, or go on with it; the process outlives this one.

        Raises
        ------
        InputError
            If its folder cannot be written.
        """
        if self.state not in (JobState.RUNNING, JobState.QUEUED):
            with _writing(self.folder):
                self._start()

    def _start(self) -> None:
        self.stop_file.unlink(missing_ok=True)
        with self.events_file.open("a+b") as events:
            cut_short = False
            if events.tell() > 0:
                events.seek(-1, os.SEEK_END)
                cut_short = events.read(1) != b"\n"  # by a full disk: begin a line of its own
            queued = json.dumps({"event": "queued"}).encode() + b"\n"
            events.write(b"\n" + queued if cut_short else queued)
        # In a session of its own: neither Ctrl-C nor a closed terminal reaches it.
        with self.errors_file.open("ab") as errors:
            self._started = subprocess.Popen(  # noqa: S603 - our own module, and a path
                # Not from the folder that the window was started in: it may hold a `queue.py`.
                [sys.executable, "-P", "-m", PROCESS_MODULE, str(self.folder)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )
        process = psutil.Process(self._started.pid)
        _yield_to_others(process)
        try:
            with replacing(self._process_file) as file:
                file.write(json.dumps({"number": process.pid}).encode())
        except OSError:
            self._started.kill()  # nobody would know of it
            raise

    @property
    def made(self) -> datetime:
        """When it was asked for, in local time."""
        return datetime.fromtimestamp((self.folder / "request.json").stat().st_mtime).astimezone()

    @property
    def state(self) -> JobState:
        """Where it stands, as its files and its process say."""
        is_there = self._process() is not None
        # Read afterwards: what a process says last, it says before it is gone.
        last = self._last_turn()
        if last is not None and last["event"] == "ended":
            return JobState(last["how"])
        if is_there:
            waits = last is None or last["event"] == "queued"
            return JobState.QUEUED if waits else JobState.RUNNING
        return JobState.KILLED if self._process_file.is_file() else JobState.STOPPED

    @property
    def sentence(self) -> str:
        """How it ended, in words; empty where there is nothing to say."""
        last = self._last_turn()
        return "" if last is None else last.get("sentence", "")

    def _last_turn(self) -> Event | None:
        """Return the last event that tells where the job stands; reads only what is new."""
        if self.events_file.is_file():
            with self.events_file.open("rb") as file:
                file.seek(self._read_to)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self._read_to += len(line)
                    # Only these are parsed: a night's training tells of every second.
                    if line.startswith(_TURNS):
                        with suppress(ValueError):  # a full disk cut the line before it short
                            self._last = json.loads(line)
        return self._last

    def events(self, start: int = 0) -> Iterator[Event]:
        """Read what happened, without a last line that is not complete.

        Parameters
        ----------
        start : int
            Position in the file to read from, in bytes. Every event has its own end in "position".
        """
        if not self.events_file.is_file():
            return
        with self.events_file.open("rb") as file:
            file.seek(start)
            for line in file:
                start += len(line)
                if line.endswith(b"\n"):
                    with suppress(ValueError):  # a line that a full disk cut short
                        yield json.loads(line) | {"position": start}

    def report(self) -> dict[str, Any] | None:
        """Read the report of a job that has finished; None before."""
        if not self.report_file.is_file():
            return None
        content: dict[str, Any] = json.loads(self.report_file.read_bytes())
        return content

    def load(self) -> Load | None:
        """Measure what the job takes of the machine; None where its process is gone."""
        process = self._process()
        if process is None:
            return None
        try:
            times, memory = process.cpu_times(), process.memory_info().rss
        except psutil.Error:  # it has ended meanwhile
            return None
        spent = times.user + times.system
        now = time.monotonic()
        before, self._last_times = self._last_times, (now, spent)
        if before is None:
            return Load(0.0, memory)
        return Load(max(0.0, spent - before[1]) / max(1e-3, now - before[0]), memory)

    @property
    def used_as(self) -> Model | None:
        """The model in the user's library that it became, however it is called by now."""
        return next(iter(self._in_library()), None)

    def _in_library(self) -> list[Model]:
        """List the models of the user's library with these weights; none of a damaged draft."""
        if not self.model_file.is_file():
            return []
        try:
            weights = read_card(self.model_file).sha256
        except InputError:
            return []
        own = (model for model in list_models() if not model.bundled)
        return [model for model in own if model.card.sha256 == weights]

    def promote(self, name: str) -> Model:
        """Put the new model into the library, where every list of models finds it.

        Parameters
        ----------
        name : str
            What it is to be called.

        Raises
        ------
        InputError
            If it is in the library already, the name cannot be used, or the file is damaged.
        """
        used_as = self.used_as
        if used_as is not None:
            raise InputError(
                f"This model is in use as {used_as.name} already; take it back first, or rename it."
            )
        return add_model(self.model_file, name)

    def take_back(self) -> None:
        """Take the model out of the library, under all its names; it stays here as a draft."""
        for model in self._in_library():
            delete_model(model)

    def ask_to_stop(self) -> None:
        """Ask the job to stop after the step at hand; it can go on later."""
        with suppress(FileNotFoundError):  # another window has discarded it
            self.stop_file.touch()

    def suspend(self) -> None:
        """Have the job's process wait where it is until `resume`; nothing is lost."""
        process = self._process()
        if process is not None:
            with suppress(psutil.Error):  # it has ended meanwhile
                process.suspend()

    def resume(self) -> None:
        """Have the job's process go on, if it was suspended."""
        process = self._process()
        if process is not None:
            with suppress(psutil.Error):
                process.resume()

    def kill(self) -> None:
        """End the job's whole tree of processes; it can go on from its last checkpoint."""
        process = self._process()
        if process is None:
            return
        family = [process, *process.children(recursive=True)]
        for one in family:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(family, timeout=_GONE_S)

    def discard(self) -> None:
        """Stop the job and delete its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _process(self) -> psutil.Process | None:
        """Return the process that is at it; None where it is gone, or another has its number.

        It is known by the job's folder on its command line: its age changes with the clock.
        """
        if self._started is not None:
            self._started.poll()  # else one that has ended stays a zombie
        try:
            kept = json.loads(self._process_file.read_bytes())
            process = psutil.Process(kept["number"])
            same = process.cmdline()[-1:] == [str(self.folder)]
            alive = process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        except (OSError, ValueError, KeyError, psutil.Error):
            return None
        return process if same and alive else None


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{error.filename or folder} cannot be written ({error.strerror}): free some space, "
            "then try again."
        ) from error


def _copied(model: Model, folder: Path) -> Path:
    """Copy a model's file, apart from those of other models, which may have its name."""
    copy = folder / model.card.sha256[:12] / model.path.name
    copy.parent.mkdir(parents=True, exist_ok=True)
    with replacing(copy) as file:
        file.write(model.path.read_bytes())
    return copy


def list_jobs(jobs: Path | None = None) -> list[FinetuneJob]:
    """List all jobs, the latest first; folders that hold none are left out.

    Parameters
    ----------
    jobs : Path, optional
        Where they lie; `jobs_folder` by default.
    """
    found = []
    folder = jobs_folder() if jobs is None else jobs
    for path in sorted(folder.glob("*/request.json"), reverse=True):
        with suppress(InputError):
            found.append(FinetuneJob(path.parent))
    return found


def _yield_to_others(process: psutil.Process) -> None:
    """Lower the priority of a process, so that a window stays smooth beside it."""
    if sys.platform == "win32":
        process.nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)
        return
    process.nice(_NICENESS)
    # On Linux, niceness counts inside a session only; a session's own share is set here.
    group = Path(f"/proc/{process.pid}/autogroup")
    with suppress(OSError):
        group.write_text(str(_NICENESS))
