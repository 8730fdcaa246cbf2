"""What the accepted frames have cost, by model and annotator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari.utils.notifications import show_error
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QFileDialog,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QLineEdit,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_microaunet.curation.session import (
    set_annotator_name,
    summarise,
    write_edit_costs,
)
from napari_microaunet.errors import InputError
from napari_microaunet.widgets.section import hint

if TYPE_CHECKING:
    from qtpy.QtGui import QShowEvent

    from napari_microaunet.curation.session import EditCostSummary
    from napari_microaunet.widgets.workbench import Workbench

_HEADINGS = ("Model", "Annotator", "Frames", "s", "Strokes", "Pixels")
_HEADING_HINTS = (
    "The model whose pre-label was taken last",
    "Who accepted the frames",
    "Frames that were accepted",
    "Seconds at work on a frame, without pauses: the median",
    "Strokes and other edits of a frame: the median",
    "Pixels that differ between the mask that the work began with and the accepted one: the median",
)
_NAMES = (0, 1)
_ROWS_IN_SIGHT = 3


class EditCostPanel(QWidget):
    """A small table of costs, and the name of who is at work.

    Parameters
    ----------
    bench : Workbench
        Whose session it is about.
    """

    def __init__(self, bench: Workbench) -> None:
        super().__init__()
        self._bench = bench
        self.annotator = QLineEdit()
        hint(self.annotator, "Your name: decisions and their costs are signed with it.")
        self.annotator.editingFinished.connect(self._rename)
        self.table = QTableWidget(0, len(_HEADINGS))
        self.table.setHorizontalHeaderLabels(_HEADINGS)
        for column, text in enumerate(_HEADING_HINTS):
            self.table.horizontalHeaderItem(column).setToolTip(text)
        self.table.verticalHeader().hide()
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        self.table.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        columns = self.table.horizontalHeader()
        columns.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        columns.setMinimumSectionSize(20)
        for column in _NAMES:
            columns.setSectionResizeMode(column, QHeaderView.ResizeMode.Stretch)
        self.table.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        row = self.table.verticalHeader().defaultSectionSize()
        self.table.setFixedHeight((_ROWS_IN_SIGHT + 1) * row)
        self.save_button = QPushButton("Save as CSV…")
        hint(self.save_button, "Write one line for each accepted frame, to be used elsewhere.")
        self.save_button.clicked.connect(self.save)
        name = QHBoxLayout()
        name.addWidget(QLabel("Annotator"))
        name.addWidget(self.annotator)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(5)
        layout.addLayout(name)
        layout.addWidget(self.table)
        layout.addWidget(self.save_button)

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 - Qt's name
        """Count when somebody looks."""
        super().showEvent(event)
        self.refresh()

    def refresh(self) -> None:
        """Count anew, if anybody can see it."""
        session = self._bench.session
        self.annotator.setEnabled(session is not None and not session.read_only)
        self.save_button.setEnabled(session is not None)
        if not self.isVisible():
            return
        if session is not None and not self.annotator.hasFocus():
            self.annotator.setText(session.annotator)
        summaries = [] if session is None else summarise(session.edit_costs())
        self.table.setRowCount(len(summaries))
        for row, summary in enumerate(summaries):
            for column, text in enumerate(_cells(summary)):
                item = QTableWidgetItem(text)
                item.setToolTip(text)
                if column not in _NAMES:
                    item.setTextAlignment(
                        Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
                    )
                self.table.setItem(row, column, item)

    def save(self) -> None:
        """Ask for a file and write what each accepted frame has cost."""
        session = self._bench.session
        if session is None:
            return
        suggested = session.folder.with_name(f"{session.sequence.name} edit costs.csv")
        file, _ = QFileDialog.getSaveFileName(
            self, "Save the edit costs", str(suggested), "Tables (*.csv)"
        )
        if file:
            try:
                write_edit_costs(session.edit_costs(), Path(file))
            except InputError as error:
                show_error(str(error))

    def _rename(self) -> None:
        session, name = self._bench.session, self.annotator.text().strip()
        if session is None or session.read_only or not name or name == session.annotator:
            return
        for work in self._bench.works:
            if work.session is not None:
                work.session.annotator = name
        try:
            set_annotator_name(name)
        except InputError as error:
            show_error(str(error))


def _cells(summary: EditCostSummary) -> list[str]:
    return [
        summary.model or "none",
        summary.annotator or "",
        str(summary.frames),
        f"{summary.median_seconds:.1f}",
        f"{summary.median_strokes:g}",
        f"{summary.median_changed_pixels:g}",
    ]
