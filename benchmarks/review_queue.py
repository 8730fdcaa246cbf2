"""What the queue costs with many frames: to build, to scroll, to update, to follow.

xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/review_queue.py --frames 20000
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtWidgets import QApplication

from napari_microaunet.curation.queue import order_frames, select
from napari_microaunet.curation.session import Session
from napari_microaunet.frames.arrays import ArraySequence
from napari_microaunet.widgets.review_table import ReviewQueue

if TYPE_CHECKING:
    from collections.abc import Callable

_STEPS = 300


def measure(title: str, work: Callable[[], object], times: int = 1) -> None:
    """Print how long something takes, with all that it draws."""
    spent = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        QApplication.processEvents()
        spent.append(1000 * (time.perf_counter() - began))
    median, worst = np.median(spent), max(spent)
    print(f"{title:40} median {median:8.1f} ms, worst {worst:8.1f} ms")  # noqa: T201


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=20_000)
    count = parser.parse_args().frames
    app = QApplication([])
    random = np.random.default_rng(0)
    frames = np.broadcast_to(np.zeros((8, 8, 3), np.uint8), (count, 8, 8, 3))
    with (
        TemporaryDirectory() as folder,
        Session(
            ArraySequence(frames, "frames", "TYXS"), Path(folder) / "frames.microaunet"
        ) as session,
    ):
        for index in range(count):
            session.set_confidence(index, float(random.random()))
        queue = ReviewQueue()
        queue.resize(330, 400)
        queue.show()
        order = random.permutation(count).tolist()
        bar = queue.verticalScrollBar()
        measure("statuses of all frames, first", lambda: session.statuses)
        measure("statuses of all frames", lambda: session.statuses, 5)
        measure("order by confidence", lambda: order_frames("confidence", session.statuses), 5)
        measure("search", lambda: select(session.statuses, text="frame"), 5)
        measure("build", lambda: queue.show_frames(session, order, {}), 5)
        places = iter(np.linspace(0, bar.maximum(), _STEPS).astype(int).tolist())
        measure("scroll by a jump", lambda: bar.setValue(next(places)), _STEPS)
        bar.setValue(0)
        measure("scroll by a wheel's notch", lambda: bar.setValue(bar.value() + 60), _STEPS)
        some = iter(random.integers(0, count, _STEPS).tolist())
        measure("follow the frame on show", lambda: queue.follow(next(some)), _STEPS)
        measure("one status changed", lambda: queue.table.update_frames([order[5]]), _STEPS)
        measure("all statuses changed", lambda: queue.table.update_frames(range(count)), 5)
        measure("select all", queue.selectAll, 5)
        measure("accept all", lambda: session.accept(range(count)))
    app.quit()


if __name__ == "__main__":
    main()
