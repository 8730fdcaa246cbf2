"""Brush, eraser, picker and ignore brush: napari's own tools, on the label that is meant."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QGridLayout, QLabel, QPushButton, QSlider, QWidget

from napari_microaunet.editing.labels import IGNORE, free_labels
from napari_microaunet.widgets.section import hint

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Labels

    from napari_microaunet.widgets.edit_tools.edits import Edits

# In pixels of the frame; napari's own control goes no further either without being typed into.
_LARGEST_BRUSH = 150


class Brushes(QWidget):
    """Buttons that put a brush into the hand.

    Parameters
    ----------
    edits : Edits
        What is edited.
    """

    def __init__(self, edits: Edits) -> None:
        super().__init__()
        self._edits = edits
        self._layer: Labels | None = None
        self.brush = QPushButton("Brush")
        self.eraser = QPushButton("Eraser")
        self.picker = QPushButton("Picker")
        self.ignore = QPushButton("Ignore")
        self.new_polyp = QPushButton("New polyp")
        self.size = QSlider(Qt.Orientation.Horizontal)
        self.size.setRange(1, _LARGEST_BRUSH)
        self._size_shown = QLabel()
        # Room for three digits: the slider keeps its length.
        self._size_shown.setMinimumWidth(self._size_shown.fontMetrics().horizontalAdvance("000 px"))
        hint(
            self.brush,
            "Paint the polyp under the cursor, or the chosen one. napari's own key: 2.",
            "brush",
        )
        hint(self.eraser, "Paint background. napari's own key: 1.")
        hint(self.picker, "The next strokes go to the polyp that is clicked. napari's own key: 5.")
        hint(
            self.ignore,
            "Paint what training and scores leave out: glare, instruments, blur.",
            "ignore_brush",
        )
        hint(self.new_polyp, "Paint a polyp of its own, with a number that is free.", "new_polyp")
        hint(self.size, "Width of the brushes in pixels of the frame. napari's own keys: [ and ].")
        self._tools = {
            self.brush: self.take_brush,
            self.eraser: partial(self._take, "erase"),
            self.picker: partial(self._take, "pick"),
            self.ignore: self.take_ignore_brush,
        }
        layout = QGridLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        for column, (button, take) in enumerate(self._tools.items()):
            button.setCheckable(True)
            button.clicked.connect(take)
            button.clicked.connect(self._update)
            layout.addWidget(button, 0, column)
        self.new_polyp.clicked.connect(self.take_new_polyp)
        layout.addWidget(self.new_polyp, 1, 0)
        layout.addWidget(self.size, 1, 1, 1, 2)
        layout.addWidget(self._size_shown, 1, 3)
        self.size.valueChanged.connect(self._on_size)
        edits.bench.work_changed.connect(self._follow_layer)
        edits.bench.shown_changed.connect(self._on_frame)
        self._follow_layer()

    @property
    def actions(self) -> dict[str, Callable[[], object]]:
        """What it does on keys."""
        return {
            "brush": self.take_brush,
            "ignore_brush": self.take_ignore_brush,
            "new_polyp": self.take_new_polyp,
        }

    def take_brush(self) -> None:
        """Paint the polyp that is pointed at or, where there is none, the first one."""
        if self._edits.can_edit():
            label = self._edits.pointed_at() or 1
            self._take("paint", label)
            self._edits.say(f"Brush: polyp {label}.")

    def take_ignore_brush(self) -> None:
        """Paint what is to be ignored."""
        if self._edits.can_edit():
            self._take("paint", IGNORE)
            self._edits.say("Brush: ignore.")

    def take_new_polyp(self) -> None:
        """Paint another polyp."""
        if not self._edits.can_edit():
            return
        free = free_labels(self._edits.mask)
        if not free:
            self._edits.say("A frame holds 254 polyps at most.")
            return
        self._take("paint", free[0])
        self._edits.say(f"Brush: new polyp, number {free[0]}.")

    def _take(self, mode: str, label: int | None = None) -> None:
        if not self._edits.can_edit():
            return
        layer = self._edits.masks.layer
        self._edits.bench.viewer.layers.selection.active = layer
        if label is not None:
            layer.selected_label = label
        layer.mode = mode

    def _on_frame(self) -> None:
        """Let a brush for a polyp of the former frame paint one that this frame has."""
        layer, areas, chosen = self._layer, self._edits.areas, self._edits.chosen
        # In an empty frame any number will do: it may be that of the polyp in frames around it.
        if layer is not None and chosen and layer.selected_label not in (*areas, IGNORE):
            layer.selected_label = chosen
            if layer.mode != "pan_zoom":
                self._edits.say(f"Brush: polyp {chosen}.")

    def _on_size(self, size: int) -> None:
        if self._layer is not None and round(self._layer.brush_size) != size:
            self._layer.brush_size = size

    def _on_paint(self) -> None:
        """Show that what was painted beside the frame is not kept."""
        edits = self._edits
        if edits.problem is None and edits.mask.shape != edits.masks.chunks.canvas_shape:
            edits.masks.layer.refresh()

    def _follow_layer(self) -> None:
        work = self._edits.bench.work
        layer = None if work is None or work.masks is None else work.masks.layer
        if layer is not None and layer is not self._layer:
            for event in (layer.events.mode, layer.events.brush_size, layer.events.selected_label):
                event.connect(self._update)
            layer.events.paint.connect(self._on_paint, position="last")
        self._layer = layer
        self._update()

    def _update(self) -> None:
        """Show what is in the hand."""
        layer = self._layer
        mode = "" if layer is None else str(layer.mode)
        ignores = layer is not None and layer.selected_label == IGNORE
        self.brush.setChecked(mode == "paint" and not ignores)
        self.ignore.setChecked(mode == "paint" and ignores)
        self.eraser.setChecked(mode == "erase")
        self.picker.setChecked(mode == "pick")
        if layer is not None:
            # A brush may be larger than the slider can say: it must not answer with its largest.
            self.size.blockSignals(True)
            self.size.setValue(round(layer.brush_size))
            self.size.blockSignals(False)
            self._size_shown.setText(f"{round(layer.brush_size)} px")
