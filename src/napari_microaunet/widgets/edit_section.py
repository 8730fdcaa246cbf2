"""Edit: brushes, mask tools and outline tools for the mask on show."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QGridLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_microaunet.widgets.edit_tools.boundary import BoundaryMode
from napari_microaunet.widgets.edit_tools.brushes import Brushes
from napari_microaunet.widgets.edit_tools.clicks import ClickRefinement
from napari_microaunet.widgets.edit_tools.contour_slider import ContourSlider
from napari_microaunet.widgets.edit_tools.edits import Edits
from napari_microaunet.widgets.edit_tools.mask_tools import MaskTools
from napari_microaunet.widgets.edit_tools.propagation import Propagation
from napari_microaunet.widgets.edit_tools.scissors import ScissorsMode
from napari_microaunet.widgets.edit_tools.snapping import Snap
from napari_microaunet.widgets.section import hint

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_microaunet.widgets.edit_tools.mode import Mode
    from napari_microaunet.widgets.workbench import Workbench

_ICON_SIZE = 12


class EditSection(QWidget):
    """Correct the mask on show."""

    title = "Edit"

    def __init__(self, bench: Workbench) -> None:
        super().__init__()
        self.edits = Edits(bench)
        self.polyp = QComboBox()
        hint(
            self.polyp,
            "The polyp that the buttons work on: the one that the cursor rested on last, or the\n"
            "largest. Keys work on the polyp under the cursor.",
        )
        self.all_polyps = QCheckBox("All polyps")
        hint(self.all_polyps, "Buttons and keys work on all polyps of the frame.", "all_polyps")
        self.said = QLabel(wordWrap=True)
        # Room for three lines at all times: what is below does not jump.
        self.said.setMinimumHeight(3 * self.said.fontMetrics().lineSpacing())
        self.said.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.brushes = Brushes(self.edits)
        self.mask_tools = MaskTools(self.edits)
        self.contour = ContourSlider(self.edits)
        self.boundary = BoundaryMode(self.edits)
        self.snap = Snap(self.edits)
        self.clicks = ClickRefinement(self.edits)
        self.scissors = ScissorsMode(self.edits)
        self.propagation = Propagation(self.edits)
        self._parts = (
            self.brushes,
            self.mask_tools,
            self.contour,
            self.boundary,
            self.snap,
            self.clicks,
            self.scissors,
            self.propagation,
        )
        self._could_edit = False
        self.boundary_button = _mode_button(
            self.boundary,
            "Outlines become polygons, whose vertices are dragged; the mask follows at once.\n"
            "Enter or another frame keeps the changes, Escape discards them.",
            "boundary",
        )
        self.snap_button = QPushButton("Snap")
        hint(
            self.snap_button,
            "The outline goes to the strongest edge of the picture near it.",
            "snap",
        )
        self.snap_button.clicked.connect(lambda: self.snap.run())
        self.clicks_button = _mode_button(
            self.clicks,
            "Click on what is missing from a polyp; with the right button or Shift, on what does\n"
            "not belong to it. Far from every polyp, a click begins a new one.",
            "clicks",
        )
        self.scissors_button = _mode_button(
            self.scissors,
            "Click along an outline: the line between follows the edges of the picture. Enter or\n"
            "a double click makes what it encloses a polyp, or adds it to the one it overlaps.",
            "scissors",
        )

        which = QGridLayout()
        which.addWidget(self.polyp, 0, 0)
        which.addWidget(self.all_polyps, 0, 1)
        which.setColumnStretch(0, 1)
        self._tools = QWidget()
        tools = QVBoxLayout(self._tools)
        tools.setContentsMargins(0, 0, 0, 0)
        tools.setSpacing(5)
        tools.addLayout(which)
        tools.addWidget(self.brushes)
        tools.addWidget(QLabel("Mask", objectName="subheading"))
        tools.addWidget(self.mask_tools)
        tools.addWidget(QLabel("Outline", objectName="subheading"))
        tools.addWidget(self.contour)
        outline = QGridLayout()
        outline.setSpacing(4)
        outline.addWidget(self.boundary_button, 0, 0)
        outline.addWidget(self.snap_button, 0, 1)
        outline.addWidget(self.clicks_button, 1, 0)
        outline.addWidget(self.scissors_button, 1, 1)
        tools.addLayout(outline)
        tools.addWidget(QLabel("Other frames", objectName="subheading"))
        tools.addWidget(self.propagation)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 0, 8, 0)
        layout.setSpacing(5)
        layout.addWidget(self.said)
        layout.addWidget(self._tools)

        self.polyp.activated.connect(self._on_polyp)
        self.all_polyps.toggled.connect(self._on_all_polyps)
        self.edits.changed.connect(self._update)
        self.edits.chosen_changed.connect(self._update)
        self.edits.said.connect(self.said.setText)
        self._update()

    @property
    def actions(self) -> dict[str, Callable[[], object]]:
        """What the section does on keys."""
        actions: dict[str, Callable[[], object]] = {"all_polyps": self.all_polyps.toggle}
        for part in self._parts:
            actions |= part.actions
        return actions

    def _on_polyp(self) -> None:
        self.edits.choose(self.polyp.currentData())

    def _on_all_polyps(self, every: bool) -> None:
        self.edits.all_polyps = every
        self.polyp.setEnabled(not every)

    def _update(self) -> None:
        problem, areas = self.edits.problem, self.edits.areas
        self._tools.setEnabled(problem is None)
        if problem is not None:
            self.said.setText(problem)
        elif not self._could_edit:
            self.said.setText("")
        self._could_edit = problem is None
        self.polyp.clear()
        for label, area in areas.items():
            self.polyp.addItem(self._icon(label), f"Polyp {label} · {area:,} px", label)
        if areas:
            self.polyp.setCurrentIndex(self.polyp.findData(self.edits.chosen))
        else:
            self.polyp.addItem("no polyp")

    def _icon(self, label: int) -> QIcon:
        """Draw a square in the colour that a polyp has in the picture."""
        pixmap = QPixmap(_ICON_SIZE, _ICON_SIZE)
        pixmap.fill(QColor.fromRgbF(*self.edits.masks.layer.get_color(label)[:3]))
        return QIcon(pixmap)


def _mode_button(mode: Mode, text: str, action: str) -> QPushButton:
    """Make a button that is down while a mode is on."""
    button = QPushButton(mode.title)
    button.setCheckable(True)
    hint(button, text, action)

    def press() -> None:
        mode.toggle()
        # The mode may have had a reason not to be entered.
        button.setChecked(mode.is_on)

    button.clicked.connect(press)
    mode.switched.connect(button.setChecked)
    return button
