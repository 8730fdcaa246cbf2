"""What pre-labelling costs on this machine: the networks, the whole pipeline, its memory.

What is compared is timed in turns within one run, so that whatever else the
machine does meets all of it alike. Frames are of our own making.
"""

from __future__ import annotations

import io
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
from PIL import Image

from napari_microaunet.frames import open_frames
from napari_microaunet.frames.field_of_view import FieldOfView
from napari_microaunet.frames.rendered import render_frame
from napari_microaunet.networks.checkpoint import ModelCard, save_checkpoint
from napari_microaunet.networks.library import BUNDLED_NAMES, Model, find_model
from napari_microaunet.networks.onnx_export import export_onnx, graph_beside
from napari_microaunet.prelabel.backends import BACKENDS, open_backend
from napari_microaunet.prelabel.masks import MaskSettings, mask_from
from napari_microaunet.prelabel.output import OutputOptions, write_prelabels
from napari_microaunet.prelabel.predictor import Predictor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from napari_microaunet.networks.microaunet import MicroAUNet
    from napari_microaunet.prelabel.backends import Backend

_BATCH = 8


@dataclass(frozen=True)
class Size:
    """How much is timed.

    Attributes
    ----------
    rounds : int
        Turns that each network takes.
    frames : int
        Frames of the pipeline, in `chunks` turns with the plain loop.
    chunks : int
        How many turns those are.
    frame_shape : (int, int)
        Height and width of the frames.
    memory_frames : (int, int)
        Lengths of the two sequences whose peak memory is compared.
    as_published : bool
        Whether the student as its public code has it takes part, whose graph takes half a minute.
    """

    rounds: int = 20
    frames: int = 1000
    chunks: int = 4
    frame_shape: tuple[int, int] = (1024, 1280)
    memory_frames: tuple[int, int] = (100, 2000)
    as_published: bool = True


QUICK = Size(
    rounds=1,
    frames=8,
    chunks=2,
    frame_shape=(128, 160),
    memory_frames=(4, 8),
    as_published=False,
)


@dataclass(frozen=True)
class NetworkCost:
    """One network on one backend: medians.

    Attributes
    ----------
    network, backend : str
        What ran on what.
    cores : int
        How many cores it might use.
    latency_ms : float
        Milliseconds for one pass over one frame alone; mirror images want one each besides.
    frames_per_second : float
        Frames passed once, in batches of 8; with several calls at once where the backend is best
        used so.
    """

    network: str
    backend: str
    cores: int
    latency_ms: float
    frames_per_second: float


@dataclass(frozen=True)
class PipelineCost:
    """From frames on disk to masks on disk, ours against a plain loop.

    Attributes
    ----------
    frames, height, width : int
        What was processed; JPEG files.
    pipeline_per_second, plain_per_second : float
        Frames per second.
    speedup : float
        The one over the other.
    """

    frames: int
    height: int
    width: int
    pipeline_per_second: float
    plain_per_second: float
    speedup: float


@dataclass(frozen=True)
class MemoryCost:
    """Peak resident memory of ``microaunet prelabel``.

    Attributes
    ----------
    frames : int
        Length of the sequence.
    peak_mb : float
        In units of 10**6 bytes.
    """

    frames: int
    peak_mb: float


@dataclass(frozen=True)
class Report:
    """Everything that was measured, and on what machine."""

    machine: dict[str, str | float]
    networks: list[NetworkCost]
    pipeline: PipelineCost
    memory: list[MemoryCost]


def run_bench(size: Size, tell: Callable[[str], None]) -> Report:
    """Measure everything.

    Parameters
    ----------
    size : Size
        How much is timed.
    tell : callable
        Told what is being measured now.

    Returns
    -------
    Report
    """
    machine = _machine()
    with tempfile.TemporaryDirectory(prefix="microaunet-bench-") as name:
        folder = Path(name)
        tell("networks")
        cases = [(n, backend, find_model(n)) for n in BUNDLED_NAMES for backend in BACKENDS]
        if size.as_published:
            cases.append(("student as published", "onnx", _on_file(student_as_published(), folder)))
        networks = time_networks(cases, size.rounds)
        tell("frames to work on")
        encoded = _encoded_frames(size.frame_shape)
        tell("pipeline and plain loop")
        pipeline = time_pipeline(size, encoded, folder)
        memory = []
        for count in size.memory_frames:
            tell(f"memory for {count} frames")
            memory.append(MemoryCost(count, measure_memory(count, encoded, folder)))
    return Report(machine, networks, pipeline, memory)


def _machine() -> dict[str, str | float]:
    packages = ("napari-microaunet", "torch", "onnxruntime", "numpy", "pillow")
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "load_before": round(psutil.getloadavg()[0], 2),
        "python": platform.python_version(),
    } | {package: version(package) for package in packages}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(": ")[1] for line in lines if "model name" in line), "")


def student_as_published() -> MicroAUNet:
    """Build the student as its public code has it, untrained.

    Its widths, group norms, GELUs, and a bridge with a full connected layer and a 7x7
    convolution at every pixel.
    """
    from torch import nn

    from napari_microaunet.networks.microaunet import PUBLISHED_WIDTHS, MicroAUNet

    def norm(channels: int) -> nn.Module:
        return nn.GroupNorm(4 if channels % 4 == 0 else 1, channels)

    network = MicroAUNet(PUBLISHED_WIDTHS, norm=norm, activation=nn.GELU)
    skips = sum(PUBLISHED_WIDTHS[:5])
    network.bridge.connected = nn.Sequential(nn.Linear(skips, skips))
    network.bridge.spatial = nn.Conv2d(2, 1, 7, padding=3)
    return network


def _on_file(network: MicroAUNet, folder: Path) -> Model:
    """Write a checkpoint and its graph."""
    file = folder / "as-published.safetensors"
    save_checkpoint(
        file, network, ModelCard(name="as-published", network="microaunet", widths=network.widths)
    )
    model = find_model(str(file))
    export_onnx(network, graph_beside(model))  # of these layers: the checkpoint alone would not do
    return model


def time_networks(cases: Sequence[tuple[str, str, Model]], rounds: int) -> list[NetworkCost]:
    """Time networks in turns, on one core and on all.

    Parameters
    ----------
    cases : sequence of (str, str, Model)
        Name, backend and model.
    rounds : int
        Turns that each case takes.

    Returns
    -------
    list of NetworkCost
    """
    cores = os.cpu_count() or 1
    timed = []
    for name, backend, model in cases:
        single = open_backend(model, backend, "cpu", threads=1)
        wide = open_backend(model, backend, "cpu", threads=cores)
        timed.append(_Timed(name, model, 1, alone=single, together=single, calls=1))
        # ONNX Runtime: several calls of one core each; PyTorch: one call on all cores.
        together, calls = (single, cores) if backend == "onnx" else (wide, 1)
        timed.append(_Timed(name, model, cores, alone=wide, together=together, calls=calls))
    with ThreadPoolExecutor(cores) as pool:
        for _ in range(rounds + 1):
            for case in timed:
                case.take_turn(pool)
    return [case.cost() for case in timed]


@dataclass
class _Timed:
    """One network on one backend and so many cores, and what its turns took."""

    network: str
    model: Model
    cores: int
    alone: Backend
    together: Backend
    calls: int
    latencies: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    def take_turn(self, pool: ThreadPoolExecutor) -> None:
        """Time one frame alone, and batches of frames."""
        if self.alone.name == "torch":
            import torch

            # There is no other way of limiting PyTorch, and other cases have set it since.
            torch.set_num_threads(self.cores)
        shape = (3, *self.model.card.input_size)
        frame = np.zeros((1, *shape), np.float32)
        batches = [np.zeros((_BATCH, *shape), np.float32)] * self.calls
        start = time.perf_counter()
        self.alone.run(frame)
        self.latencies.append(time.perf_counter() - start)
        start = time.perf_counter()
        list(pool.map(self.together.run, batches))
        self.rates.append(len(batches) * _BATCH / (time.perf_counter() - start))

    def cost(self) -> NetworkCost:
        """Return the medians, without the first turn, which was for warming up."""
        return NetworkCost(
            self.network,
            self.alone.name,
            self.cores,
            1000 * statistics.median(self.latencies[1:]),
            statistics.median(self.rates[1:]),
        )


def _encoded_frames(shape: tuple[int, int]) -> list[bytes]:
    """Render a few frames and return them as JPEG files."""
    height, width = shape
    encoded = []
    for seed in range(4):
        file = io.BytesIO()
        Image.fromarray(render_frame(seed, height, width)[0]).save(file, "JPEG", quality=90)
        encoded.append(file.getvalue())
    return encoded


def _write_frames(folder: Path, count: int, encoded: Sequence[bytes]) -> Path:
    folder.mkdir()
    for index in range(count):
        (folder / f"{index:05}.jpg").write_bytes(encoded[index % len(encoded)])
    return folder


def time_pipeline(size: Size, encoded: Sequence[bytes], folder: Path) -> PipelineCost:
    """Time pre-labelling from files to files against a plain loop, in turns.

    Parameters
    ----------
    size : Size
        How many frames in how many turns.
    encoded : sequence of bytes
        JPEG files to choose from.
    folder : Path
        Where to work.

    Returns
    -------
    PipelineCost
    """
    model = find_model("student")
    settings = MaskSettings.of(model.card)
    plain = Predictor(model, "torch", "cpu")
    # PyTorch uses all cores, as it does when nobody says otherwise.
    plain.backend = open_backend(model, "torch", "cpu", threads=os.cpu_count() or 1)
    pipeline_seconds = plain_seconds = 0.0
    per_chunk = size.frames // size.chunks
    for chunk in range(size.chunks):
        frames = _write_frames(folder / f"frames {chunk}", per_chunk, encoded)
        start = time.perf_counter()
        write_prelabels(
            Predictor(model),
            open_frames(frames),
            folder / f"pipeline {chunk}",
            settings,
            OutputOptions(),
        )
        pipeline_seconds += time.perf_counter() - start
        start = time.perf_counter()
        _plain_loop(plain, frames, folder / f"plain {chunk}", settings)
        plain_seconds += time.perf_counter() - start
    done = per_chunk * size.chunks
    return PipelineCost(
        done,
        *size.frame_shape,
        done / pipeline_seconds,
        done / plain_seconds,
        plain_seconds / pipeline_seconds,
    )


def _plain_loop(predictor: Predictor, frames: Path, out: Path, settings: MaskSettings) -> None:
    """Do the same work the way it is done without a pipeline: one thing after the other."""
    out.mkdir()
    for path in sorted(frames.iterdir()):
        frame: NDArray[np.uint8] = np.asarray(Image.open(path).convert("RGB"))
        height, width = frame.shape[:2]
        whole = FieldOfView(0, 0, height, width)
        mask = mask_from(predictor.predict_frame(frame, whole), settings)
        Image.fromarray(mask).save(out / f"{path.stem}.png", compress_level=3)


def measure_memory(count: int, encoded: Sequence[bytes], folder: Path) -> float:
    """Pre-label frames in a process of its own and watch its resident memory.

    Parameters
    ----------
    count : int
        How many frames.
    encoded : sequence of bytes
        JPEG files to choose from.
    folder : Path
        Where to work.

    Returns
    -------
    float
        The peak, in units of 10**6 bytes.
    """
    frames = _write_frames(folder / f"{count} frames", count, encoded)
    command = [
        *(sys.executable, "-c", "from napari_microaunet.cli import main; main()"),
        *("prelabel", str(frames), "--out", str(folder / f"{count} masks")),
    ]
    peak = 0
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:  # noqa: S603 - our own
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                peak = max(peak, watched.memory_info().rss)
            except psutil.NoSuchProcess:  # it has just ended
                break
            time.sleep(0.02)
    if process.returncode:
        raise RuntimeError(f"pre-labelling {count} frames ended with code {process.returncode}")
    return peak / 1e6
