"""What an export costs: time, frames a second, memory and bytes, format by format.

``python benchmarks/export.py`` makes a session of 10,000 accepted JPEG frames of 1280x1024, one or
two polyps in most, and exports it. Frames are 16 different files under many names; what is
written is written in full. ``--formats coco --frames 1000`` chooses.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import psutil
import typer
from PIL import Image
from rich.console import Console
from rich.table import Table
from scipy import ndimage

from napari_microaunet.curation.session import MaskOrigin, Session
from napari_microaunet.exchange.export import export
from napari_microaunet.exchange.formats import find_format
from napari_microaunet.exchange.labelled import labels_of_session
from napari_microaunet.frames import open_frames
from napari_microaunet.frames.rendered import render_frame

if TYPE_CHECKING:
    from numpy.typing import NDArray

HEIGHT, WIDTH = 1024, 1280
MEBIBYTE = 2**20
# Frames and masks that differ; more would only take longer to make.
DIFFERENT = 16
SCALE = 4
# Every tenth frame shows no polyp.
NEGATIVES = 10


def make_session(folder: Path, count: int) -> Session:
    """Make a session of accepted frames."""
    pictures, masks = [], []
    for seed in range(DIFFERENT):
        # Rendering at full size would take longer than what is measured.
        frame, mask = render_frame(seed, HEIGHT // SCALE, WIDTH // SCALE, polyps=1 + seed % 2)
        pictures.append(folder / f"{seed}.jpg")
        Image.fromarray(frame).resize((WIDTH, HEIGHT)).save(pictures[-1], quality=90)
        smooth = ndimage.zoom((mask > 0).astype(np.float32), SCALE, order=1) > 0.5
        masks.append(ndimage.label(smooth)[0].astype(np.uint8))
    (folder / "frames").mkdir()
    for number in range(count):
        os.link(pictures[number % DIFFERENT], folder / "frames" / f"{number:05}.jpg")
    session = Session(open_frames(folder / "frames"), folder / "work.microaunet")
    nothing: NDArray[np.uint8] = np.zeros((HEIGHT, WIDTH), np.uint8)
    for number in range(count):
        mask = nothing if number % NEGATIVES == 0 else masks[number % DIFFERENT]
        session.put_mask(number, mask, MaskOrigin.HAND)
    session.accept(range(count))
    session.flush()
    return session


def main(
    frames: Annotated[int, typer.Option(min=1, help="How many.")] = 10_000,
    formats: Annotated[list[str], typer.Option(help="Which; may be given several times.")] = [  # noqa: B006
        "labels",
        "coco",
        "yolo",
        "cvat",
        "ome-tiff",
    ],
    place: Annotated[
        Path | None, typer.Option(help="A folder with room; that for temporary files else.")
    ] = None,
) -> None:
    """Export a long session and print what it took."""
    cores = len(os.sched_getaffinity(0))
    table = Table(
        "format",
        "seconds",
        "frames/s",
        "ms of processor a frame",
        "peak memory",
        "of it before",
        "written",
    )
    folder = Path(tempfile.mkdtemp(prefix="export-", dir=place))
    process = psutil.Process()
    try:
        with make_session(folder, frames) as session:
            for key in formats:
                before = peak = process.memory_info().rss

                def watch(_done: int, _total: int) -> None:
                    nonlocal peak
                    peak = max(peak, process.memory_info().rss)

                start, busy = time.perf_counter(), time.process_time()
                out = folder / key
                export(labels_of_session(session), find_format(key), out, progress=watch)
                seconds = time.perf_counter() - start
                busy = time.process_time() - busy
                written = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
                shutil.rmtree(out)
                table.add_row(
                    key,
                    f"{seconds:.1f}",
                    f"{frames / seconds:.0f}",
                    f"{1000 * busy / frames:.1f}",
                    f"{peak / MEBIBYTE:.0f} MiB",
                    f"{before / MEBIBYTE:.0f} MiB",
                    f"{written / MEBIBYTE:.0f} MiB",
                )
    finally:
        shutil.rmtree(folder)
    console = Console()
    console.print(f"{frames} frames of {WIDTH} x {HEIGHT} on {cores} of {os.cpu_count()} cores")
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
