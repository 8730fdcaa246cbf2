"""Tasks on frames spread over the workers of a dask.distributed cluster.

Nothing but paths and options travels to a worker, and small results back: workers open the model
and the frames by their paths, which lie on a drive that all machines share, and keep them open
for the next block.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from math import ceil
from threading import Lock
from typing import TYPE_CHECKING
from uuid import uuid4

from napari_microaunet.errors import InputError
from napari_microaunet.frames import open_frames
from napari_microaunet.networks.checkpoint import read_card
from napari_microaunet.networks.library import BUNDLED, Model
from napari_microaunet.prelabel.predictor import Predictor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import Any

    from distributed import Client

    from napari_microaunet.frames.sequence import FrameSequence
    from napari_microaunet.prelabel.predictor import FrameTask, Result

# About a second of work for a core: much against going to the block's first frame in a video
# (0.2 s where key frames are ten seconds apart), little to do again when a worker is killed.
BLOCK_FRAMES = 32
# Seconds that a scheduler has to answer. Workers have longer: batch systems start them along with
# the command, and on network drives Python is slow to start.
_PATIENCE = 10
_PATIENCE_FOR_WORKERS = 60
# Models and sequences that a worker keeps open: of the last runs, when several share a cluster.
_KEPT = 4
_PACKAGE = "napari-microaunet"

_opening = Lock()


class ClusterPredictor:
    """A model that is run by the workers of a dask.distributed cluster; a `TaskRunner`.

    Parameters
    ----------
    scheduler : str
        Address of the cluster's scheduler, such as ``tcp://lab:8786``.
    model : Model
        From the model library. A bundled one is taken from the worker's own package.
    backend, device, batch, mirror_images
        As for `Predictor`; the workers' devices are meant.

    Raises
    ------
    InputError
        If distributed is not installed, or no scheduler answers at the address.
    """

    def __init__(
        self,
        scheduler: str,
        model: Model,
        backend: str = "auto",
        device: str = "auto",
        batch: int | None = None,
        mirror_images: int | None = None,
    ) -> None:
        _find_scheduler(scheduler)
        self._scheduler = scheduler
        self._model = model
        self._backend = backend
        self._device = device
        self._batch = batch
        self._mirror_images = mirror_images

    def carry_out(
        self,
        task: FrameTask[Result],
        sequence: FrameSequence,
        indices: Sequence[int],
        results: dict[int, Result],
        *,
        progress: Callable[[int, int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> None:
        """Do a task in blocks of consecutive frames; see `TaskRunner.carry_out`.

        A block whose worker dies is done again by another one. However this ends, blocks that
        nobody has begun are taken off the cluster.

        Parameters
        ----------
        task, sequence, indices, results
            As for `FrameTask`.
        progress, cancelled : callable, optional
            As for `Predictor.predict`, but called once for each block that is done.

        Raises
        ------
        InputError
            If the cluster has no workers, runs another version of the package, or goes away;
            if a worker cannot use the model, the frames or a device, or has died of the same
            block time and again. A worker is named.
        OSError
            If a worker cannot read or write a file.
        """
        from concurrent.futures import CancelledError

        from distributed import Client, KilledWorker, as_completed

        job = _Job(
            run=uuid4().hex,
            version=_own_version(),
            frames=sequence.path.absolute(),
            frames_hash=_hash(sequence),
            model=self._model.name,
            weights=None if self._model.bundled else self._model.path.absolute(),
            card=self._model.card.model_dump_json(),
            backend=self._backend,
            device=self._device,
            batch=self._batch,
            mirror_images=self._mirror_images,
        )
        # Whole batches: on a graphics card the last bit may depend on what else is in the batch.
        size = ceil(BLOCK_FRAMES / (self._batch or 1)) * (self._batch or 1)
        blocks = [list(indices[start : start + size]) for start in range(0, len(indices), size)]
        with Client(self._scheduler, timeout=_PATIENCE) as client:
            _check_workers(client, self._scheduler)
            futures = {client.submit(_work_on, job, task, block): block for block in blocks}
            try:
                for future in as_completed(futures):
                    results.update(future.result())
                    if progress is not None:
                        progress(len(results), len(indices))
                    if cancelled is not None and cancelled():
                        return
            except KilledWorker as error:
                first = sequence.frames[futures[future][0]].name
                raise InputError(
                    f"Several workers died, one after the other, of the {size} frames from {first} "
                    "on: look into their logs, and give them more memory if they ran out of it."
                ) from error
            except CancelledError as error:
                raise InputError(
                    f"The scheduler at {self._scheduler} has gone: start it again, and then this "
                    "command with --overwrite."
                ) from error
            finally:
                client.cancel(list(futures))


@dataclass(frozen=True)
class _Job:
    """What a worker needs to know to open what a run is about.

    Attributes
    ----------
    run : str
        Unlike that of any other run: files may have changed since then, and dask would hand out
        what it remembers of equal tasks.
    version : str
        Of this package.
    frames : Path
        What frames are opened from.
    frames_hash : str
        Tells other frames under that path.
    model : str
        Its name.
    weights : Path or None
        Its checkpoint; None for a bundled model.
    card : str
        The checkpoint's card, which holds the hash of the weights, as JSON.
    backend, device, batch, mirror_images
        As for `Predictor`.
    """

    run: str
    version: str
    frames: Path
    frames_hash: str
    model: str
    weights: Path | None
    card: str
    backend: str
    device: str
    batch: int | None
    mirror_images: int | None


def _work_on(job: _Job, task: FrameTask[Any], block: Sequence[int]) -> dict[int, Any]:
    """Do one block; runs on a worker."""
    from distributed import get_worker

    results: dict[int, Any] = {}
    try:
        with _opening:  # once, also where a worker does several blocks at a time
            predictor, sequence = _opened(job)
        task(predictor, sequence, block, results)
    except InputError as error:
        raise InputError(f"Worker {get_worker().address}: {error}") from error
    except OSError as error:
        reason = f"{error.strerror or error}, on worker {get_worker().address}"
        raise OSError(error.errno, reason, error.filename) from error
    return results


@lru_cache(maxsize=_KEPT)
def _opened(job: _Job) -> tuple[Predictor, FrameSequence]:
    """Open the model and the frames of a run; refuse others than the client's."""
    if job.version != _own_version():
        raise InputError(_other_version(job.version, _own_version()))
    path = job.weights or BUNDLED / f"{job.model}.safetensors"
    card = read_card(path)
    if card.model_dump_json() != job.card:
        raise InputError(
            f"{path} holds another model here than where the command was given: copy that one to "
            "a drive that all machines share."
        )
    sequence = open_frames(job.frames)
    if _hash(sequence) != job.frames_hash:
        raise InputError(
            f"{job.frames} holds other frames here than where the command was given: put them on a "
            "drive that all machines share."
        )
    model = Model(job.model, path, card)
    return Predictor(model, job.backend, job.device, job.batch, job.mirror_images), sequence


def _hash(sequence: FrameSequence) -> str:
    """Hash the names and sizes of all frames."""
    digest = hashlib.sha256()
    for frame in sequence.frames:
        digest.update(f"{frame.name}\0{frame.height}\0{frame.width}\0".encode())
    return digest.hexdigest()


def _find_scheduler(address: str) -> None:
    """Refuse an address where no scheduler answers; a `Client` might wait there for ever."""
    try:
        from distributed import rpc
        from distributed.security import Security
    except ImportError as error:
        raise InputError(
            'For --scheduler the package distributed is needed: pip install "napari-microaunet'
            '[cluster]".'
        ) from error

    async def kind() -> str:
        security = Security().get_connection_args("client")
        async with rpc(address, connection_args=security) as process:
            return str((await process.identity())["type"])

    try:
        found = asyncio.run(asyncio.wait_for(kind(), _PATIENCE))
    except (OSError, TypeError, ValueError) as error:  # TypeError: TLS without certificates
        reason = "nothing of dask is there" if isinstance(error, OSError) else error
        raise InputError(
            f"No scheduler answers at {address!r} ({reason}): give the address that "
            "`dask scheduler` shows, such as tcp://lab:8786."
        ) from error
    if found != "Scheduler":
        raise InputError(
            f"At {address} is a {found.lower()}: give the address that `dask scheduler` shows."
        )


def _check_workers(client: Client, address: str) -> None:
    """Refuse a cluster without workers, or with workers of another version."""
    try:
        client.wait_for_workers(1, timeout=_PATIENCE_FOR_WORKERS)
    except TimeoutError as error:
        raise InputError(
            f"The scheduler at {address} has no workers: start some with `dask worker {address} "
            "--nthreads 1`."
        ) from error
    # Asked for with nothing of this package, which may be missing there.
    for worker, found in client.run(version, _PACKAGE, on_error="return").items():
        if found != _own_version():
            raise InputError(f"Worker {worker}: {_other_version(_own_version(), found)}")


def _own_version() -> str:
    return version(_PACKAGE)


def _other_version(wanted: str, found: object) -> str:
    return (
        f"it has {_PACKAGE} {found} and not {wanted} as where the command was given: install the "
        "same version on all machines."
    )
