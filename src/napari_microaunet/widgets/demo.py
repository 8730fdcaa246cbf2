"""``python -m napari_microaunet.widgets.demo FRAMES``: the window, with frames pre-labelled.

With ``--screenshot FILE`` it saves a picture of the window when all is done, and ends.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import napari
from napari.qt import get_qapp
from qtpy.QtCore import QTimer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_microaunet.widgets.dock import MicroAUNetDock
    from napari_microaunet.widgets.work import Work

_POLL = 100  # milliseconds
_SETTLE = 1000  # milliseconds from the last mask to the picture: napari draws thumbnails meanwhile


def main(arguments: Sequence[str] | None = None) -> int:
    """Open the window; return the exit code: 1 if the frames could not be pre-labelled."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("frames", type=Path, help="a folder of frames, a TIFF stack or a video")
    parser.add_argument("--screenshot", type=Path, help="save a picture here, then end")
    parser.add_argument("--theme", default="dark", choices=("dark", "light"))
    options = parser.parse_args(arguments)

    viewer = napari.Viewer(title="MicroAUNet")
    viewer.theme = options.theme
    viewer.window.resize(1600, 1000)
    _, dock = viewer.window.add_plugin_dock_widget("napari-microaunet", "MicroAUNet")
    steps = _steps(dock, options.frames)
    done = False

    def go_on() -> None:
        nonlocal done
        if dock.bench.job is not None:
            return
        if next(steps, None) is None:
            timer.stop()
            done = dock.bench.work is not None
            if options.screenshot is not None:
                QTimer.singleShot(_SETTLE, finish)

    def finish() -> None:
        if done:
            viewer.screenshot(str(options.screenshot), canvas_only=False, flash=False)
        viewer.close()
        get_qapp().quit()

    timer = QTimer(interval=_POLL, timeout=go_on)
    timer.start()
    napari.run()
    return 0 if done else 1


def _steps(dock: MicroAUNetDock, frames: Path) -> Iterator[str]:
    """Do what a user would do; each step is taken when no job is running."""
    # Masks beside the frames would be kept, as a user's own are.
    dock.bench.open(frames, masks=False)
    yield "opening"
    while dock.bench.work is not None and dock.bench.work.masks is None:
        yield "waiting for the masks' layer"
    if dock.bench.work is not None:
        dock.sections["Pre-label"].actions["prelabel"]()
        yield "pre-labelling"
        for _ in range(2):  # from filled over outline to both
            dock.sections["Pre-label"].actions["overlay"]()
        dock.bench.go_to(_surest(dock.bench.work))
        yield "drawing"


def _surest(work: Work) -> int:
    """Find the frame with a polyp whose mask can be trusted most."""
    masks, prelabels = work.masks, work.prelabels
    if masks is None or prelabels is None:
        return 0
    marked = [index for index in range(len(work.sequence)) if masks.chunks[index] is not None]
    return max(marked, key=lambda index: prelabels.confidence(index) or 0.0, default=0)


if __name__ == "__main__":
    sys.exit(main())
