"""Contour slider: the outline of one polyp moves along what the model said of the frame."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QGridLayout, QLabel, QSlider, QWidget

from napari_microaunet.editing.contour import level_of, move_contour
from napari_microaunet.widgets.section import hint

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_microaunet.editing.labels import Mask
    from napari_microaunet.widgets.edit_tools.edits import Edits

# A slider that rests as long has been let go: the next move is another undo step.
_SETTLED_MS = 700
# Finding where the slider belongs takes some tens of milliseconds: not while the user steps on.
_REST_MS = 400
# One press of a key, in levels of the map, of which there are 255.
_KEY_STEP = 8
_TITLE = "Contour"


@dataclass(frozen=True, eq=False)
class _Drag:
    """What the moves of a drag start from, the mask as it is now, and whether they have made it."""

    index: int
    label: int
    start: Mask
    digest: bytes
    has_written: bool


class ContourSlider(QWidget):
    """A slider for the chosen polyp.

    Parameters
    ----------
    edits : Edits
        What is edited.
    """

    def __init__(self, edits: Edits) -> None:
        super().__init__()
        self._edits = edits
        self._drag: _Drag | None = None
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(1, 255)
        self.value = QLabel()
        self.value.setMinimumWidth(self.value.fontMetrics().horizontalAdvance("0.00"))
        self.reason = QLabel(wordWrap=True)
        self.reason.hide()
        hint(
            self.slider,
            "The outline of the chosen polyp moves to where the model's probability is this.\n"
            "Left: larger. Right: smaller.",
            "contour_down",
            "contour_up",
        )
        layout = QGridLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(QLabel(_TITLE), 0, 0)
        layout.addWidget(self.slider, 0, 1)
        layout.addWidget(self.value, 0, 2)
        layout.addWidget(self.reason, 1, 0, 1, 3)
        self._settled = QTimer(self, interval=_SETTLED_MS, singleShot=True, timeout=self._end_drag)
        self._rest = QTimer(self, interval=_REST_MS, singleShot=True, timeout=self._show_level)
        self.slider.valueChanged.connect(self._on_value)
        edits.changed.connect(self._on_changed)
        edits.chosen_changed.connect(self._on_changed)
        self._on_changed()

    @property
    def actions(self) -> dict[str, Callable[[], object]]:
        """What it does on keys."""
        return {
            "contour_down": lambda: self.step(-_KEY_STEP),
            "contour_up": lambda: self.step(_KEY_STEP),
        }

    def step(self, by: int) -> None:
        """Move the outline of the polyp under the cursor by so many levels."""
        if not self._edits.can_edit():
            return
        self._edits.pointed_at()
        if self._rest.isActive():
            self._show_level()
        if self.slider.isEnabled():
            self.slider.setValue(self.slider.value() + by)
        else:
            self._edits.say(f"{_TITLE}: {self.reason.text()}")

    def _on_value(self, level: int) -> None:
        self.value.setText(f"{level / 255:.2f}")
        edits = self._edits
        label, probability = edits.chosen, edits.probability()
        if edits.problem or probability is None:
            return
        index, drag = edits.index, self._drag
        digest = edits.masks.chunks.digest(index)
        if drag is None or not self._is_of_now(drag) or drag.digest != digest:
            if label is None:
                return
            # Smaller, the largest polyp would no longer be chosen by itself.
            edits.choose(label)
            drag = self._drag = _Drag(index, label, edits.mask, digest, False)
        label = drag.label
        moved = move_contour(drag.start, label, probability, level)
        # What is on show may be a step of somebody else's: only the drag's own is replaced.
        has_written = edits.apply(_TITLE, moved, drag.has_written)
        digest = edits.masks.chunks.digest(index)
        self._drag = replace(drag, digest=digest, has_written=has_written)
        self._settled.start()
        edits.say(f"{_TITLE}, polyp {label}: probability {level / 255:.2f}.")

    def _end_drag(self) -> None:
        if self.slider.isSliderDown():
            self._settled.start()
            return
        self._drag = None
        self._rest.start()

    def _is_of_now(self, drag: _Drag) -> bool:
        """Tell whether a drag is of the frame on show and its chosen polyp, which it may erase."""
        edits = self._edits
        is_chosen = drag.label == edits.chosen or drag.label not in edits.areas
        return drag.index == edits.index and is_chosen

    def _on_changed(self) -> None:
        if self._drag is not None and not self._is_of_now(self._drag):
            self._settled.stop()
            self._drag = None
        reason = self._reason()
        self.slider.setEnabled(reason is None)
        self.reason.setVisible(reason is not None)
        self.reason.setText(reason or "")
        if not self._settled.isActive():
            self._rest.start()

    def _reason(self) -> str | None:
        """Say why there is nothing to move, if so."""
        edits, work = self._edits, self._edits.bench.work
        if edits.problem:
            return "There is nothing to edit yet."
        if work is None or work.prelabels is None or edits.index not in work.prelabels:
            return "Pre-label this frame first: it has no probability map."
        if edits.chosen is None and self._drag is None:
            return "There is no polyp on this frame."
        return None

    def _show_level(self) -> None:
        """Put the slider where the chosen polyp is now."""
        self._rest.stop()
        edits = self._edits
        if self._reason() is not None or self._settled.isActive():
            return
        label, probability = edits.chosen, edits.probability()
        if label is None or probability is None:
            return
        level = level_of(edits.mask, label, probability)
        if level is None:
            self.slider.setEnabled(False)
            self.reason.setVisible(True)
            self.reason.setText("The model saw nothing at this polyp.")
            return
        self.slider.blockSignals(True)
        self.slider.setValue(level)
        self.slider.blockSignals(False)
        self.value.setText(f"{level / 255:.2f}")
