"""The clock of the edit-cost meter: how long the annotator was at work on each frame."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject

from napari_microaunet.curation.session.edit_costs import LONGEST_PAUSE_S

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from napari import Viewer
    from napari.utils.events import Event

    from napari_microaunet.widgets.workbench import Workbench

# The session hears of the time no more often, unless the frame changes or is decided on.
_BATCH_S = 2.0
# Modes of napari's layers in which a drag moves the view and not the mask.
_NOT_EDITING = ("pan_zoom", "transform", "pick")


class Activity(QObject):
    """Counts the time between signs of life for the frame on show.

    Signs of life are moves of the cursor over the picture, strokes and other
    edits, decisions, another frame, another view. Between two signs that are
    further apart than `LONGEST_PAUSE_S` there was a pause. Time counts as editing while
    a stroke is being drawn, and up to the moment that a tool has changed the
    mask.

    Parameters
    ----------
    bench : Workbench
        Whose frame on show the time is counted for, in its session.
    clock : callable
        Gives the time in seconds, ever growing.
    """

    def __init__(self, bench: Workbench, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(bench)
        self._bench = bench
        self._clock = clock
        self._last = clock()
        self._index = bench.shown
        self._strokes = 0
        self._dragging = False
        # Seconds that the session has not heard of yet: of all, and of editing.
        self._waiting = {False: 0.0, True: 0.0}
        viewer = bench.viewer
        viewer.cursor.events.position.connect(self._on_sign)
        viewer.camera.events.zoom.connect(self._on_sign)
        viewer.mouse_drag_callbacks.append(self._on_drag)
        bench.shown_changed.connect(self._on_shown)
        bench.work_changed.connect(self._on_work)
        bench.status_changed.connect(self._on_status)
        bench.closing.connect(self.stop)
        self._on_work()

    def flush(self) -> None:
        """Let the session know of all the time up to now."""
        self._sign()
        self._hand_over()

    def stop(self) -> None:
        """Let the session know, then count no more."""
        self.flush()
        viewer = self._bench.viewer
        viewer.cursor.events.position.disconnect(self._on_sign)
        viewer.camera.events.zoom.disconnect(self._on_sign)
        viewer.mouse_drag_callbacks.remove(self._on_drag)
        self._bench.shown_changed.disconnect(self._on_shown)
        self._bench.work_changed.disconnect(self._on_work)
        self._bench.status_changed.disconnect(self._on_status)
        self._bench.closing.disconnect(self.stop)

    def _sign(self, editing: bool = False) -> None:
        now = self._clock()
        elapsed, self._last = now - self._last, now
        if elapsed > LONGEST_PAUSE_S:
            return
        if sum(self._waiting.values()) + elapsed > LONGEST_PAUSE_S:
            self._hand_over()
        self._waiting[editing or self._dragging] += elapsed
        if sum(self._waiting.values()) >= _BATCH_S:
            self._hand_over()

    def _hand_over(self) -> None:
        work = self._bench.work
        waiting, self._waiting = self._waiting, {False: 0.0, True: 0.0}
        if work is None or work.session is None:
            return
        for editing, seconds in waiting.items():
            if seconds > 0:
                work.session.add_time(self._index, seconds, editing=editing)

    def _on_sign(self, _event: Event) -> None:
        self._sign()

    def _on_drag(self, viewer: Viewer, event: Event) -> Generator[None]:
        layer = viewer.layers.selection.active
        self._sign()
        self._dragging = str(getattr(layer, "mode", _NOT_EDITING[0])) not in _NOT_EDITING
        yield
        while event.type == "mouse_move":
            yield
        self._sign()
        self._dragging = False

    def _on_shown(self, index: int) -> None:
        self.flush()
        self._begin(index)

    def _on_work(self) -> None:
        # The time on what was worked on before is lost with it, at most a batch.
        self._waiting = {False: 0.0, True: 0.0}
        self._last = self._clock()
        self._begin(self._bench.shown)

    def _begin(self, index: int) -> None:
        session = self._bench.session
        self._index = index
        self._strokes = 0 if session is None else session.status(index).strokes

    def _on_status(self, indices: Sequence[int]) -> None:
        session = self._bench.session
        if self._index not in indices or session is None:
            return
        strokes = session.status(self._index).strokes
        if strokes > self._strokes:
            self._strokes = strokes
            self._sign(editing=True)
