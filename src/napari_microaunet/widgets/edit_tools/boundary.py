"""Boundary mode: outlines become polygons in a Shapes layer, whose vertices are dragged."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Points, Shapes
from qtpy.QtCore import QTimer
from scipy import ndimage

from napari_microaunet.editing.boundary import Polygon, polygons_of, write_polygons
from napari_microaunet.editing.labels import WITH_DIAGONALS, box_of, labels_of
from napari_microaunet.widgets.edit_tools.locks import VertexLocks
from napari_microaunet.widgets.edit_tools.mode import Mode
from napari_microaunet.widgets.jobs import Job
from napari_microaunet.widgets.mask_layer import geometry_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from napari_microaunet.curation.session import MaskOrigin
    from napari_microaunet.editing.labels import Mask
    from napari_microaunet.widgets.edit_tools.edits import Edits
    from napari_microaunet.widgets.mask_layer import MaskLayer

# While a vertex is dragged, the mask may lag behind its outline as long.
_FOLLOW_MS = 60
# Width of the outlines on the screen, in pixels, when the mode is entered.
_LINE_WIDTH = 2.0
# How far pixels of a mask may lie beside its polygons: 1, and as much for the filling.
_OFF = 2
# Shapes that the user adds are parts of their own.
_ADDED = -1
# How far from a vertex the cursor may be to mean it, and how large a locked one is marked, in
# pixels of the screen.
_REACH, _MARK = 12, 14
# An ellipse becomes a polygon of as many vertices as napari draws it with.
_ELLIPSE_VERTICES = 100
_VERTEX_TOOLS = ("direct", "vertex_insert", "vertex_remove", "select", "pan_zoom")


class BoundaryMode(Mode):
    """Polygons of one polyp or all, which the mask follows.

    All changes in the mode are one undo step. They are in the mask, and so in
    the session, all along: whatever ends the mode, no work is lost.
    """

    title = "Boundary"
    help = (
        "Boundary: drag vertices; 2 adds, 1 removes, Shift+I locks them. "
        "Enter keeps the changes, Escape discards them."
    )

    def __init__(self, edits: Edits) -> None:
        super().__init__(edits)
        self._job: Job | None = None
        self._index = 0
        self._labels: list[int] = []
        self._locks: VertexLocks | None = None
        self._marks: Points | None = None
        self._masks: MaskLayer | None = None
        self._start: tuple[Mask, MaskOrigin] | None = None
        self._outlined_at_start: Mask | None = None
        self._digest = b""
        self._written = self._writing = False
        self._follow = QTimer(self, interval=_FOLLOW_MS, singleShot=True, timeout=self._write)
        edits.changed.connect(self._on_changed)

    @property
    def actions(self) -> dict[str, Callable[[], object]]:
        """What it does on keys."""
        return {"boundary": self.toggle_pointed_at, "lock_vertex": self.lock_pointed_at}

    def toggle_pointed_at(self) -> None:
        """Enter the mode for the polyp under the cursor, or leave it."""
        if not self.is_on and self.edits.can_edit():
            self.edits.pointed_at()
        self.toggle()

    def lock_pointed_at(self) -> None:
        """Lock the vertex under the cursor, or unlock it."""
        if self._locks is None:
            self.edits.say("Locking: enter the boundary mode first.")
            return
        locked = self._locks.toggle(self.edits.cursor(), _REACH * self.edits.pixel())
        if locked is None:
            self.edits.say("Boundary: there is no vertex here to lock.")
            return
        self._mark_locks()
        self.edits.say(f"Boundary: vertex {'locked: it stays here' if locked else 'unlocked'}.")

    def begin(self) -> bool:
        """Have the polygons made in a thread: ragged outlines take long."""
        edits = self.edits
        mask, label = edits.mask, edits.chosen
        if label is None:
            edits.say("Boundary: there is no polyp on this frame.")
            return False
        labels = labels_of(mask) if edits.all_polyps else [label]
        self._masks, self._index = edits.masks, edits.index
        start = self._start = mask, self._masks.origin(self._index)
        self._digest = self._masks.chunks.digest(self._index)
        self._written = False

        def work(_cancelled: Callable[[], bool]) -> Iterator[dict[int, list[Polygon]]]:
            yield {label: polygons_of(mask, label) for label in labels}

        def take(polygons: dict[int, list[Polygon]]) -> None:
            if self._start is start:
                self._show(polygons)

        self._job = Job(self.title, work)
        self._job.item.connect(take)
        self._job.start(in_passing=True)
        return True

    def _show(self, polygons: dict[int, list[Polygon]]) -> None:
        """Show the polygons, ready to be dragged."""
        if self._masks is None or self._start is None:
            return
        self._labels = list(polygons)
        layer = self._make_layer(polygons)
        self.show_layer(layer, active=True)
        self._locks = VertexLocks(layer)
        self._outlined_at_start = self._outlined(self._start[0], self._polygons())
        layer.mode = "direct"
        layer.selected_data = set(range(len(layer.data)))
        self.bind(layer, "Enter", self._on_enter)
        self.bind(layer, "Escape", self._on_escape)
        self.bind(layer, "Control-Z", self._masks.layer.undo)
        layer.events.set_data.connect(self._on_shapes)
        layer.events.data.connect(self._on_shapes)
        layer.events.data.connect(self._on_vertices)
        layer.events.highlight.connect(self._on_selected)

    def end(self) -> None:
        """Write what the mask does not show yet."""
        self.deliver()
        self._locks = self._marks = None
        self._masks = self._start = self._outlined_at_start = None

    def deliver(self) -> None:
        """Write the mask at once if it is yet to follow the polygons."""
        if self._follow.isActive():
            self._write()

    def discard(self) -> None:
        """Leave the mode, and the mask as it was before."""
        self._stop_following()
        if (
            self._masks is not None
            and self._start is not None
            and self._written
            and self._is_ours()
        ):
            with self._own_writing():
                self._masks.write(self._index, *self._start, replace_last=True)
        self.leave()
        self.edits.say("Boundary: changes discarded.")

    def _make_layer(self, polygons: dict[int, list[Polygon]]) -> Shapes:
        masks = self.edits.masks.layer
        rings, colours = [], []
        features: dict[str, list[object]] = {"label": [], "part": [], "hole": []}
        part = 0
        for label, some in polygons.items():
            for polygon in some:
                for number, ring in enumerate((polygon.exterior, *polygon.holes)):
                    rings.append(self.in_layer(ring))
                    colours.append(masks.get_color(label))
                    features["label"].append(label)
                    features["part"].append(part)
                    features["hole"].append(number > 0)
                part += 1
        layer = Shapes(
            rings,
            ndim=masks.ndim,
            shape_type="polygon",
            features=features,
            name=f"{masks.name} (boundary)",
            edge_width=_LINE_WIDTH * self.edits.pixel(),
            edge_color=np.array(colours),
            face_color="transparent",
            **geometry_of(masks),
        )
        first = self._labels[0]
        layer.feature_defaults = _features_of_added(first)
        layer.current_edge_color = masks.get_color(first)
        return layer

    def _polygons(self) -> dict[int, list[Polygon]]:
        """Read the polygons of every polyp from the layer."""
        layer = self.layer
        polygons: dict[int, list[Polygon]] = {label: [] for label in self._labels}
        if not isinstance(layer, Shapes) or self._locks is None:
            return polygons
        features = layer.features
        shapes = [
            _ellipse_within(ring) if kind == "ellipse" else ring
            for ring, kind in zip(self._locks.rings(), layer.shape_type, strict=True)
        ]
        rows = zip(features["label"], features["part"], features["hole"], shapes, strict=False)
        for (label, part), group in groupby(rows, key=lambda row: (int(row[0]), int(row[1]))):
            rings = [(bool(hole), ring[:, -2:]) for _, _, hole, ring in group]
            holes = tuple(ring for hole, ring in rings if hole)
            exteriors = [ring for hole, ring in rings if not hole and len(ring) > 2]
            if part == _ADDED:
                polygons[label] += [Polygon(ring) for ring in exteriors]
            elif exteriors:
                polygons[label].append(Polygon(exteriors[0], holes))
        return polygons

    def _write(self) -> None:
        """Let the mask follow the polygons."""
        self._stop_following()
        masks, start = self._masks, self._start
        if masks is None or start is None or masks.session.read_only or not self._is_ours():
            return
        if self.layer is None:
            return  # it has been taken away, and says nothing of the polyps
        if self._outlined_at_start is None:
            return
        outlined = self._outlined(start[0], self._polygons())
        moved = outlined != self._outlined_at_start
        # Polygons differ from the mask by up to a pixel: what was not moved stays exactly as it is.
        box = box_of(moved, _OFF)
        if self._written or box is not None:
            mask = start[0].copy()
            if box is not None:
                near = ndimage.binary_dilation(moved[box], WITH_DIAGONALS, _OFF)
                mask[box][near] = outlined[box][near]
            with self._own_writing():
                masks.edit(self._index, mask, self.title, again=self._written)
            self._written = True

    @staticmethod
    def _outlined(mask: Mask, polygons: dict[int, list[Polygon]]) -> Mask:
        """Give polyps the outlines of their polygons."""
        for label, some in polygons.items():
            mask = write_polygons(mask, label, some)
        return mask

    @contextmanager
    def _own_writing(self) -> Iterator[None]:
        self._writing = True
        try:
            yield
        finally:
            self._writing = False
            if self._masks is not None:
                self._digest = self._masks.chunks.digest(self._index)

    def _is_ours(self) -> bool:
        """Tell whether the mask is as this mode last saw or wrote it."""
        return self._masks is not None and self._masks.chunks.digest(self._index) == self._digest

    def _on_shapes(self) -> None:
        if not self._follow.isActive():
            self._follow.start()
            self.edits.bench.edits_underway.add(self)

    def _stop_following(self) -> None:
        self._follow.stop()
        self.edits.bench.edits_underway.discard(self)

    def _on_selected(self) -> None:
        """Let shapes that the user adds belong to the polyp whose outlines are selected."""
        layer = self.layer
        if isinstance(layer, Shapes):
            labels = set(layer.features["label"].iloc[list(layer.selected_data)])
            # napari draws them in the colour of the selected ones by itself.
            if len(labels) == 1:
                layer.feature_defaults = _features_of_added(int(labels.pop()))

    def _on_vertices(self) -> None:
        """Keep locks in step with vertices that come and go, and locked ones in their places."""
        if self._locks is not None:
            self._locks.rings()
            # napari tells of a drag just before it lets go of the shape.
            QTimer.singleShot(0, self._put_back)

    def _put_back(self) -> None:
        if self._locks is not None:
            if self._locks.put_back():
                self.edits.say("Boundary: a locked vertex stays where it is.")
            self._mark_locks()

    def _mark_locks(self) -> None:
        """Mark the locked vertices."""
        if self._locks is None or self._masks is None:
            return
        places, marks = self._locks.places(), self._marks
        if marks is not None and np.array_equal(marks.data, places):
            return
        if marks is not None and 0 < len(marks.data) <= len(places):
            marks.data = places
            return
        # napari cannot take points away from a layer that is being sliced asynchronously.
        if marks is not None:
            self._marks = None
            self.hide_layer(marks)
        if len(places):
            self._marks = Points(
                places,
                name=f"{self._masks.layer.name} (locked vertices)",
                symbol="square",
                face_color="transparent",
                border_color="white",
                border_width=0.15,
                size=_MARK * self.edits.pixel(),
                **geometry_of(self._masks.layer),
            )
            self.show_layer(self._marks)

    def _on_changed(self) -> None:
        """Make room for others: the polygons are no longer those of the mask."""
        shown = self.is_on and self.edits.index == self._index
        if shown and not self._writing and not self._is_ours():
            self.leave()

    def _on_enter(self) -> None:
        if self._is_drawing():
            return
        self.leave()
        self.edits.say("Boundary: written, one undo step.")

    def _on_escape(self) -> None:
        if not self._is_drawing():
            self.discard()

    def _is_drawing(self) -> bool:
        """End the drawing of another shape, if there is one in hand."""
        drawing = self.layer is not None and self.layer.mode not in _VERTEX_TOOLS
        if drawing and self.layer is not None:
            # This ends the shape as well.
            self.layer.mode = "direct"
        return drawing


def _features_of_added(label: int) -> dict[str, object]:
    """Give the features of a shape that the user adds to a polyp."""
    return {"label": label, "part": _ADDED, "hole": False}


def _ellipse_within(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Make a polygon of an ellipse, which napari keeps as the corners of a box around it."""
    angles = np.linspace(0, 2 * np.pi, _ELLIPSE_VERTICES, endpoint=False)
    along, across = (corners[1] - corners[0]) / 2, (corners[2] - corners[1]) / 2
    ring = np.outer(np.cos(angles), along) + np.outer(np.sin(angles), across)
    return np.asarray(corners.mean(axis=0) + ring)
