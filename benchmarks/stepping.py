"""How long the next frame takes while an annotator steps, with and without read-ahead.

``python benchmarks/stepping.py --json stepping.json`` makes a folder of 1,000 JPEG files of
mixed sizes and a video of 10,000 frames, steps through both at an even pace, and prints the
time from a step to its pixels, and the memory, side by side. ``--window`` steps a napari window
instead and takes the time until it is drawn.
"""

from __future__ import annotations

import json
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import av
import numpy as np
import psutil
import typer
from PIL import Image
from rich.console import Console
from rich.table import Table

from napari_microaunet.frames import open_frames
from napari_microaunet.frames.canvas import canvas
from napari_microaunet.frames.rendered import render_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_microaunet.frames import FrameSequence

# Height and width: as in Kvasir-SEG, and what current processors record.
SIZES = ((576, 720), (1024, 1280), (1072, 1920), (528, 622), (720, 1280), (1080, 1350))
VIDEO_SIZE = (1024, 1280)
MEBIBYTE = 2**20


@dataclass(frozen=True)
class Figures:
    """One walk through a sequence; times in milliseconds, memory in MiB."""

    source: str
    way: str
    read_ahead: bool
    steps: int
    opening: float
    median: float
    percentile_95: float
    longest: float
    memory_before: float
    memory_half_way: float
    memory_after: float


def make_folder(folder: Path, count: int) -> None:
    """Write JPEG files of mixed sizes, no two of which are the same picture."""
    frames = [render_frame(seed, height, width)[0] for seed, (height, width) in enumerate(SIZES)]
    for number in range(count):
        frame = np.roll(frames[number % len(frames)], 7 * number, axis=1)
        Image.fromarray(frame).save(folder / f"frame{number}.jpg", quality=90)


def make_video(path: Path, count: int) -> None:
    """Encode a moving picture with B-frames and a key frame every ten seconds."""
    frame, _ = render_frame(0, *VIDEO_SIZE)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.height, stream.width = VIDEO_SIZE
        stream.pix_fmt = "yuv420p"
        stream.codec_context.max_b_frames = 2
        for number in range(count):
            moved = np.roll(frame, (2 * number, 3 * number), axis=(0, 1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(moved)))
        container.mux(stream.encode())


def ways(length: int, steps: int) -> dict[str, Sequence[int]]:
    """Give the frames to visit, in order, for each way of going through a sequence."""
    start = length // 2
    return {
        "forward": range(min(length, steps)),
        "backward": range(start, max(0, start - steps), -1),
        "jumps": np.random.default_rng(0).integers(0, length, min(steps, 50)).tolist(),
    }


def shown_by_array(sequence: FrameSequence, *, read_ahead: bool) -> Callable[[int], object]:
    """Show a frame by fetching its pixels, as the viewer does."""
    stack = canvas(sequence, read_ahead=read_ahead)
    return lambda index: np.asarray(stack[index])


def shown_by_window(sequence: FrameSequence, *, read_ahead: bool) -> Callable[[int], object]:
    """Show a frame in a napari window, up to the paint event."""
    import napari
    from qtpy.QtWidgets import QApplication

    viewer = napari.current_viewer() or napari.Viewer()
    viewer.layers.clear()
    viewer.add_image(canvas(sequence, read_ahead=read_ahead), rgb=True, cache=False)

    def show(index: int) -> None:
        viewer.dims.set_current_step(0, index)
        QApplication.processEvents()

    return show


def walk(
    path: Path, way: str, steps: int, pace: float, *, read_ahead: bool, window: bool
) -> Figures:
    """Open a source and step through it at an even pace, in seconds from step to step."""
    process = psutil.Process()
    start = time.perf_counter()
    sequence = open_frames(path)
    opening = time.perf_counter() - start
    show = (shown_by_window if window else shown_by_array)(sequence, read_ahead=read_ahead)
    times, memory = [], [process.memory_info().rss]
    for index in ways(len(sequence), steps)[way]:
        start = time.perf_counter()
        show(int(index))
        times.append(time.perf_counter() - start)
        memory.append(process.memory_info().rss)
        time.sleep(max(0.0, pace - times[-1]))
    milliseconds = np.array(times) * 1000
    return Figures(
        f"{path.name}, {len(sequence)} frames",
        way,
        read_ahead,
        len(times),
        opening * 1000,
        float(np.median(milliseconds)),
        float(np.percentile(milliseconds, 95)),
        float(milliseconds.max()),
        memory[0] / MEBIBYTE,
        memory[len(memory) // 2] / MEBIBYTE,
        memory[-1] / MEBIBYTE,
    )


def table_of(figures: list[Figures]) -> Table:
    """Put both ways of reading side by side."""
    table = Table(title="From a step to its frame, ms; memory of the process, MiB")
    for heading in ("source", "way", "read-ahead", "median", "95 %", "longest", "opening"):
        table.add_column(heading)
    table.add_column("memory before, half way, after")
    for row in figures:
        times = (row.median, row.percentile_95, row.longest, row.opening)
        memory = (row.memory_before, row.memory_half_way, row.memory_after)
        table.add_row(
            row.source,
            f"{row.way}, {row.steps} steps",
            "yes" if row.read_ahead else "no",
            *(f"{value:.1f}" for value in times),
            " ".join(f"{value:.0f}" for value in memory),
        )
    return table


def main(
    *,
    images: Annotated[int, typer.Option(help="Files in the folder that is made.")] = 1000,
    frames: Annotated[int, typer.Option(help="Frames of the video that is made.")] = 10_000,
    source: Annotated[
        list[Path] | None, typer.Option(help="Step through this instead; may be repeated.")
    ] = None,
    steps: Annotated[int, typer.Option(help="At most so many steps each way.")] = 1000,
    pace: Annotated[float, typer.Option(help="Seconds from one step to the next.")] = 0.1,
    window: Annotated[bool, typer.Option(help="Step in a napari window.")] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the figures here.")
    ] = None,
) -> None:
    """Print how long frames take to come, with and without read-ahead."""
    with tempfile.TemporaryDirectory() as made:
        sources = source or [Path(made) / "folder", Path(made) / "video.mp4"]
        if not source:
            sources[0].mkdir()
            make_folder(sources[0], images)
            make_video(sources[1], frames)
        # A process each, so that none inherits the memory of another.
        with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
            waiting = [
                pool.submit(walk, path, way, steps, pace, read_ahead=ahead, window=window)
                for path in sources
                for way in ("forward", "backward", "jumps")
                for ahead in (False, True)
            ]
            figures = [future.result() for future in waiting]
    Console().print(table_of(figures))
    if json_file is not None:
        rows = [asdict(row) for row in figures]
        json_file.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
