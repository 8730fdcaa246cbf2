"""Scissors: a line that follows edges from click to click, until it encloses a polyp."""

from __future__ import annotations

from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from napari.layers import Shapes
from skimage.measure import approximate_polygon

from napari_microaunet.editing.labels import free_labels, polyps_in
from napari_microaunet.editing.scissors import EdgePaths, fill_loop
from napari_microaunet.widgets.edit_tools.in_passing import InPassing
from napari_microaunet.widgets.edit_tools.mode import ClickMode
from napari_microaunet.widgets.jobs import Job
from napari_microaunet.widgets.mask_layer import geometry_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from napari_microaunet.editing.labels import Mask
    from napari_microaunet.widgets.edit_tools.edits import Edits

    Point = tuple[float, float]
    Points = NDArray[np.intp]

# How long the thread sleeps at most before it looks whether the mode has been left, in seconds.
_NAP_S = 0.1
_COLOUR = "white"
# Width of the line on the screen, in pixels, when the mode is entered.
_LINE_WIDTH = 2.0
# The line is drawn with fewer vertices, which are off by no more than this, in pixels.
_DRAWN_TO = 0.5
_LEAST_CLICKS = 3
_UNFINISHED = "Scissors: close the line first (Enter), or leave it (Escape)."


class _Wanted(NamedTuple):
    """A path to be found: to a click, or to where the mouse is."""

    loop: int
    start: Point
    end: Point
    is_click: bool


class ScissorsMode(ClickMode):
    """Clicks along the outline of a polyp, joined by the edges of the picture."""

    title = "Scissors"
    help = (
        "Scissors: click along the outline; Enter or a double click closes it, "
        "Backspace takes a click back, Escape leaves."
    )

    def __init__(self, edits: Edits) -> None:
        super().__init__(edits)
        self._job: Job | None = None
        self._wanted: SimpleQueue[_Wanted] = SimpleQueue()
        # Results that belong to an earlier loop are of no use.
        self._loop = 0
        self._clicks: list[Point] = []
        self._paths: dict[tuple[Point, Point], Points] = {}
        self._to_mouse: Points | None = None
        # Fills what has been closed, on its frame, wherever the user has gone.
        self._filling = InPassing(edits)

    @property
    def actions(self) -> dict[str, Callable[[], object]]:
        """What it does on keys."""
        return {"scissors": self.toggle}

    def begin(self) -> bool:
        """Look for edges in a thread and take in clicks."""
        super().begin()
        layer = self.edits.masks.layer
        self.bind(layer, "Enter", self.close_loop)
        self.bind(layer, "Backspace", self.take_back)
        read, wanted = self.edits.reader(), SimpleQueue[_Wanted]()
        self._wanted = wanted

        def work(cancelled: Callable[[], bool]) -> Iterator[tuple[_Wanted, Points]]:
            paths = EdgePaths(read())
            while not cancelled():
                for one in _waiting(wanted):
                    yield one, paths.path(one.start, one.end)

        def end(complete: bool) -> None:
            # An error has been shown, or the mode has been left, and may have been entered anew.
            if not complete and self._wanted is wanted:
                self.leave()

        self._job = Job("Scissors", work)
        self._job.item.connect(self._on_path)
        self._job.ended.connect(end)
        self._job.start(in_passing=True)
        self._start_over()
        return True

    def end(self) -> None:
        """Forget the line and end the thread."""
        if self._job is not None:
            self._job.cancel()
        self._job = None
        self._start_over()
        super().end()

    def clicked(self, point: Point, secondary: bool) -> None:
        """Let the line go on to here; the right button takes the last click back."""
        if secondary:
            self.take_back()
        elif point not in self._clicks:
            self._clicks.append(point)
            self._to_mouse = None
            self._want_clicks()
            self._draw()

    def double_clicked(self) -> None:
        """Close the line."""
        self.close_loop()

    def moved(self, point: Point) -> None:
        """Lead the line to the mouse."""
        if self._clicks:
            self._wanted.put(_Wanted(self._loop, self._clicks[-1], point, False))

    def take_back(self) -> None:
        """Take the last click back."""
        if self._clicks:
            self._clicks.pop()
            self._to_mouse = None
            self._draw()

    def close_loop(self) -> None:
        """Make what the line encloses a polyp, or part of the polyp that it overlaps."""
        if len(self._clicks) < _LEAST_CLICKS:
            self.edits.say(f"Scissors: click at least {_LEAST_CLICKS} times before closing.")
            return
        edits, mask, read = self.edits, self.edits.mask, self.edits.reader()
        pairs, known = [*self._pairs(), (self._clicks[-1], self._clicks[0])], dict(self._paths)
        label: int | None = None
        is_new = False

        def fill() -> Mask:
            nonlocal label, is_new
            paths = EdgePaths(read())  # those that follow the mouse are their own thread's
            line = np.concatenate(
                [known[pair] if pair in known else paths.path(*pair) for pair in pairs]
            )
            enclosed = fill_loop(np.zeros_like(mask), 1, line) > 0
            overlapped = np.bincount(mask[enclosed & polyps_in(mask)])
            is_new = not overlapped.size
            label = next(iter(free_labels(mask)), None) if is_new else int(overlapped.argmax())
            return mask if label is None else fill_loop(mask, label, line)

        def told(changed: bool) -> None:
            if label is None:
                edits.say("Scissors: a frame holds 254 polyps at most.")
            elif not changed:
                edits.say("Scissors: the line encloses nothing that is not polyp already.")
            else:
                edits.choose(label)
                edits.say(f"Scissors: polyp {label}{', a new one' if is_new else ''}.")

        if self._filling.start(self.title, fill, told):
            self._start_over()

    def _pairs(self) -> list[tuple[Point, Point]]:
        """List what is to be joined: each click and the next."""
        return list(zip(self._clicks, self._clicks[1:], strict=False))

    def _want_clicks(self) -> None:
        for start, end in self._pairs():
            if (start, end) not in self._paths:
                self._wanted.put(_Wanted(self._loop, start, end, True))

    def _on_path(self, item: tuple[_Wanted, Points]) -> None:
        wanted, path = item
        if not self.is_on or wanted.loop != self._loop:
            return
        if wanted.is_click:
            self._paths[wanted.start, wanted.end] = path
        elif self._clicks and wanted.start == self._clicks[-1]:
            self._to_mouse = path
        self._draw()

    def _start_over(self) -> None:
        self._loop += 1
        self._clicks.clear()
        self._paths.clear()
        self._to_mouse = None
        self._draw()

    def _draw(self) -> None:
        """Show the line as far as it is known; straight where it is not."""
        # Until it is closed, the mask is not yet what the user means it to be.
        self.edits.bench.edits_underway.unfinished = _UNFINISHED if self._clicks else None
        if not self._clicks:
            self.hide_layer()
            return
        parts = [self._paths.get(pair, np.array(pair)) for pair in self._pairs()] or [
            np.array(self._clicks)
        ]
        if self._to_mouse is not None:
            parts.append(self._to_mouse)
        line = np.concatenate(parts)
        if len(line) < 2:
            return
        line = self.in_layer(approximate_polygon(line, _DRAWN_TO))
        if isinstance(self.layer, Shapes):
            self.layer.data = [line]
        else:
            masks = self.edits.masks.layer
            self.show_layer(
                Shapes(
                    [line],
                    shape_type="path",
                    name=f"{masks.name} (scissors)",
                    edge_width=_LINE_WIDTH * self.edits.pixel(),
                    edge_color=_COLOUR,
                    **geometry_of(masks),
                )
            )


def _waiting(queue: SimpleQueue[_Wanted]) -> list[_Wanted]:
    """Take all that waits, but of the places of the mouse only the last."""
    try:
        wanted = [queue.get(timeout=_NAP_S)]
    except Empty:
        return []
    while not queue.empty():
        wanted.append(queue.get())
    return [one for one in wanted[:-1] if one.is_click] + wanted[-1:]
