"""A training waits while the window paints: both would be at the same cores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, QTimer

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari import Viewer
    from napari.utils.events import Event

    from napari_microaunet.distillation.jobs import FinetuneJob
    from napari_microaunet.widgets.workbench import Workbench

# A new frame is painted in less, also without a graphics card. The rest is the training's.
_PAINTING_MS = 150


class GiveWay(QObject):
    """Suspends a training for a moment whenever another frame is shown, and while one draws.

    Low priority is not enough: two threads of one core slow each other down however the
    system divides its time.

    Parameters
    ----------
    bench : Workbench
        Whose window is to stay smooth.

    Attributes
    ----------
    job : FinetuneJob or None
        What waits; set by whoever knows which one trains.
    """

    def __init__(self, bench: Workbench) -> None:
        super().__init__(bench)
        self.job: FinetuneJob | None = None
        self._viewer = bench.viewer
        self._painted = QTimer(self, interval=_PAINTING_MS, singleShot=True, timeout=self._resume)
        # First, so that it waits while napari fetches the frame, too.
        self._viewer.dims.events.current_step.connect(self._suspend, position="first")
        self._viewer.mouse_drag_callbacks.append(self._on_drag)
        bench.closing.connect(self._stop)

    def _suspend(self) -> None:
        if self.job is not None:
            if not self._painted.isActive():
                self.job.suspend()
            self._painted.start()

    def _resume(self) -> None:
        if self.job is not None:
            self.job.resume()

    def _on_drag(self, _viewer: Viewer, event: Event) -> Generator[None]:
        self._suspend()
        yield
        while event.type == "mouse_move":
            self._suspend()
            yield

    def _stop(self) -> None:
        self._viewer.dims.events.current_step.disconnect(self._suspend)
        self._viewer.mouse_drag_callbacks.remove(self._on_drag)
        self._painted.stop()
        self._resume()
