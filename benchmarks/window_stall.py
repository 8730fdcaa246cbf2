"""How long the window stands still: python benchmarks/window_stall.py [--frames 1000] [--json F].

With ``--dataset DIR`` (frames with masks, such as ../shared/data/cvc-clinicdb) also while a model
is fine-tuned beside it.

Opens a real napari window on a folder of 1280 x 1024 JPEG frames, does with it what an annotator
does, and lets a timer in the event loop record how long the loop was kept from turning. The same
steps in a window without the plugin are the part that napari and the graphics driver take.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import napari
import numpy as np
from PIL import Image
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication
from rich.console import Console
from rich.table import Table

from napari_microaunet.curation.session import MaskOrigin
from napari_microaunet.distillation.jobs import FinetuneJob, FinetuneRequest, spare_threads
from napari_microaunet.frames import open_frames
from napari_microaunet.frames.rendered import render_frame
from napari_microaunet.widgets.mask_files import save_masks
from napari_microaunet.widgets.napari_io import layers_of
from napari_microaunet.widgets.overlay import OverlayStyle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from napari_microaunet.widgets.give_way import GiveWay
    from napari_microaunet.widgets.workbench import Workbench


_TICK_MS = 5


class StallMeter:
    """Records how long the event loop was kept from turning.

    Attributes
    ----------
    gaps : list of float
        Milliseconds between one turn of a 5 ms timer and the next.
    """

    def __init__(self) -> None:
        self.gaps: list[float] = []
        self._last = time.perf_counter()
        self._timer = QTimer()
        self._timer.setInterval(_TICK_MS)
        self._timer.timeout.connect(self._tick)
        self._timer.start()

    def restart(self) -> None:
        """Forget what was recorded."""
        self.gaps = []
        self._last = time.perf_counter()

    def _tick(self) -> None:
        now = time.perf_counter()
        self.gaps.append(1000 * (now - self._last))
        self._last = now


class MaskClock:
    """Measures how long after a frame has come on show its mask is written."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._shown = -1
        self._since = 0.0
        self._delays: list[float] = []
        bench.shown_changed.connect(self._on_shown)
        bench.frame_changed.connect(self._on_frame)

    def figures(self) -> dict[str, float]:
        """Summarise what was measured so far."""
        return summary(self._delays)

    def _on_shown(self, index: int) -> None:
        self._shown, self._since = index, time.perf_counter()

    def _on_frame(self, index: int) -> None:
        work = self._bench.work
        if index != self._shown or work is None or work.masks is None:
            return
        if work.masks.origin(index) is MaskOrigin.MODEL:
            self._delays.append(1000 * (time.perf_counter() - self._since))
            self._shown = -1


def spin(until: Callable[[], bool], every: Callable[[], object] | None = None) -> None:
    """Let the window live until something holds, doing something five times a second."""
    due = time.perf_counter()
    while not until():
        QApplication.processEvents()
        time.sleep(0.001)
        if every is not None and time.perf_counter() > due:
            every()
            due = time.perf_counter() + 0.2


def spin_for(seconds: float, every: Callable[[], object] | None = None) -> None:
    """Let the window live for a while."""
    end = time.perf_counter() + seconds
    spin(lambda: time.perf_counter() > end, every)


def make_frames(folder: Path, count: int) -> None:
    """Write frames of 1280 x 1024: four rendered ones, shifted."""
    rendered = [render_frame(seed, 1024, 1280)[0] for seed in (131, 118, 134, 145)]
    for number in range(count):
        frame = np.roll(rendered[number % 4], 7 * number, axis=1)
        Image.fromarray(frame).save(folder / f"frame_{number:05d}.jpg", quality=90)


def measure(folder: Path, dataset: Path | None) -> dict[str, dict[str, float]]:
    """Measure the longest and the 99th percentile of the gaps in each phase, in milliseconds."""
    figures: dict[str, dict[str, float]] = {}
    viewer = napari.Viewer()
    meter = StallMeter()

    def phase(name: str, *steps: Callable[[], object]) -> None:
        meter.restart()
        start = time.perf_counter()
        for run in steps:
            run()
        figures[name] = summary(meter.gaps) | {"seconds": round(time.perf_counter() - start, 1)}

    def add_image() -> None:
        for data, options, _ in layers_of(open_frames(folder)):
            viewer.add_image(data, **options)
        spin_for(1)

    def add_labels() -> None:
        viewer.add_labels(np.zeros((1, 1024, 1280), np.uint8))
        spin_for(1)

    # The first layer of each kind takes napari longer still: it compiles its shaders.
    add_image()
    add_labels()
    viewer.layers.clear()
    phase("napari alone: an image layer", add_image)
    phase("napari alone: a labels layer", add_labels)
    phase("napari alone: stepping", lambda: spin_for(6, lambda: step(viewer)))
    viewer.layers.clear()

    _, dock = viewer.window.add_plugin_dock_widget("napari-microaunet", "MicroAUNet")
    spin_for(2)
    bench = dock.bench
    prelabel: Any = dock.sections["Pre-label"]

    def finish() -> None:
        spin(lambda: bench.job is None)

    def finish_stepping() -> None:
        spin(lambda: bench.job is None, lambda: step(viewer))

    def look_on() -> None:
        spin_for(6)

    def go_on() -> None:
        spin_for(6, lambda: step(viewer))

    phase("open the folder", lambda: bench.open(folder), finish, look_on)
    prelabel.live.value = True
    phase("live mode, first frames", lambda: spin_for(3, lambda: step(viewer)))
    arrivals = MaskClock(bench)
    phase("live mode, stepping", go_on)
    prelabel.live.value = False
    figures["live mode: frame shown to mask written"] = arrivals.figures()
    phase("pre-label all, looking on", prelabel.run, finish)
    phase("stepping afterwards", go_on)
    moves: list[float] = []
    phase("threshold dragged", lambda: moves.extend(drag(prelabel.threshold)))
    figures["threshold moved to mask written"] = summary(moves)
    phase("masks follow, looking on", look_on)
    phase("pre-label again, stepping", prelabel.run, go_on, bench.cancel, finish)
    for style in (OverlayStyle.OUTLINE, OverlayStyle.BOTH, OverlayStyle.FILLED):
        phase(f"drawn {style.value}", partial(set_style, prelabel, style), look_on)
    target = folder.with_name("masks")
    phase("save, stepping", lambda: save_masks(bench, target), finish_stepping)
    if dataset is not None:
        tune = dock.sections["Fine-tune"]
        run = tune.run
        job = FinetuneJob.new(
            FinetuneRequest(title="stalls", dataset=dataset, minutes=10, threads=spare_threads())
        )
        job.start()
        run.refresh(job.folder.name)
        phase("fine-tuning starts", partial(spin, lambda: "stage" in run.status.text()))
        phase("fine-tuning beside, looking on", partial(spin_for, 20))
        stepping = partial(spin_for, 8, lambda: step(viewer))
        figures |= beside(job, tune.give_way, meter, stepping)
        job.discard()
    viewer.close()
    return figures


def beside(
    job: FinetuneJob, give_way: GiveWay, meter: StallMeter, go_on: Callable[[], None]
) -> dict[str, dict[str, float]]:
    """Step beside a fine-tuning in three ways, in turns: no machine is always as fast."""
    gaps: dict[str, list[float]] = {"suspended": [], "never waiting": [], "waiting": []}
    for _ in range(3):
        for how, seen in gaps.items():
            give_way.job = job if how == "waiting" else None  # which would resume it
            (job.suspend if how == "suspended" else job.resume)()
            meter.restart()
            go_on()
            seen += meter.gaps
    return {f"fine-tuning {how}, stepping": summary(seen) for how, seen in gaps.items()}


def step(viewer: napari.Viewer) -> None:
    """Show the next frame."""
    viewer.dims.set_current_step(0, viewer.dims.current_step[0] + 1)


def drag(slider: Any) -> Iterator[float]:
    """Drag a slider up and down, fifty positions in all; give the milliseconds each took."""
    for position in np.concatenate([np.linspace(0.3, 0.8, 25), np.linspace(0.8, 0.4, 25)]):
        start = time.perf_counter()
        slider.value = float(position)
        yield 1000 * (time.perf_counter() - start)
        spin_for(0.05)


def summary(milliseconds: Sequence[float]) -> dict[str, float]:
    """Summarise durations."""
    return {
        "longest_ms": round(max(milliseconds), 1),
        "p99_ms": round(float(np.percentile(milliseconds, 99)), 1),
        "median_ms": round(float(np.median(milliseconds)), 1),
    }


def set_style(prelabel: Any, style: OverlayStyle) -> None:
    """Draw masks in another way."""
    prelabel.style.value = style


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--dataset", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "images"
        folder.mkdir()
        make_frames(folder, arguments.frames)
        figures = measure(folder, arguments.dataset)
    table = Table("while", "longest, ms", "99 % below, ms", "median, ms", "lasted, s")
    for name, figure in figures.items():
        table.add_row(name, *(f"{value:.0f}" for value in figure.values()))
    Console(width=100).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
