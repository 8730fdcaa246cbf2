"""The queue of frames as a table: one row per frame, drawn only where it is seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import (
    QAbstractTableModel,
    QItemSelection,
    QItemSelectionModel,
    QModelIndex,
    Qt,
    QTimer,
    Signal,
)
from qtpy.QtGui import QColor, QFont, QKeyEvent, QPainter, QPixmap
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableView

from napari_microaunet.curation.session import ReviewState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from napari_microaunet.curation.session import FrameStatus, Session

NUMBER, NAME, STATE, CONFIDENCE, AREA, REMARKS = range(6)
_HEADINGS = ("#", "Name", "State", "Conf.", "Area", "Remarks")
_HEADING_HINTS = (
    "Number of the frame, as napari's slider counts them",
    "Name of the frame",
    "How far the work on the frame has come",
    "Confidence of the pre-label: the lower, the more it needs you",
    "Share of the frame that is marked as polyp, in percent",
    "What was found in the order of the sequence, why the frame is excluded, what you noted",
)
# Wide enough for what stands in them in napari's font; names and remarks take what is left.
_WIDTHS = {NUMBER: 38, NAME: 66, STATE: 96, CONFIDENCE: 38, AREA: 38}
_NUMERIC = (NUMBER, CONFIDENCE, AREA)
_ROW_HEIGHT = 20
_ROWS_IN_SIGHT = 9
_MARK_SIZE = 10
# Holding an arrow key down runs through rows faster than napari shows frames.
_ARRIVED_MS = 40
_OUR_KEYS = (Qt.Key.Key_Up, Qt.Key.Key_Down, Qt.Key.Key_Home, Qt.Key.Key_End)
_ENTER = (Qt.Key.Key_Return, Qt.Key.Key_Enter)

STATE_COLOURS = {
    ReviewState.UNSEEN: "#9e9e9e",
    ReviewState.PRELABELLED: "#4c8dff",
    ReviewState.EDITED: "#e0a100",
    ReviewState.ACCEPTED: "#2fae4e",
    ReviewState.EXCLUDED: "#e5534b",
}
"""Colour of each state, which can be told apart on dark and on light."""

STATE_WORDS = {
    ReviewState.UNSEEN: "no mask",
    ReviewState.PRELABELLED: "pre-labelled",
    ReviewState.EDITED: "edited",
    ReviewState.ACCEPTED: "accepted",
    ReviewState.EXCLUDED: "excluded",
}
"""Each state in the words of the window."""


def state_word(status: FrameStatus) -> str:
    """Say in a word how far the work on a frame has come."""
    if status.state is ReviewState.ACCEPTED and status.polyps == 0:
        return "negative"
    return STATE_WORDS[status.state]


class ReviewTable(QAbstractTableModel):
    """Frames of a session in the order of the queue. Reads a status only when it is drawn.

    Attributes
    ----------
    frames : int array
        Numbers of the frames, in the order of the rows.
    shown : int
        Number of the frame on show.
    """

    def __init__(self) -> None:
        super().__init__()
        self.frames: NDArray[np.int64] = np.zeros(0, np.int64)
        self._session: Session | None = None
        self._row_of: NDArray[np.int64] = np.zeros(0, np.int64)
        self._findings: Mapping[int, str] = {}
        self.shown = -1
        self._marks = {state: _mark(colour) for state, colour in STATE_COLOURS.items()}
        self._bold = QFont()
        self._bold.setBold(True)

    def show_frames(
        self, session: Session | None, frames: Sequence[int], findings: Mapping[int, str]
    ) -> None:
        """Show other frames, or the same in another order.

        Parameters
        ----------
        session : Session or None
            What their statuses are asked of.
        frames : sequence of int
            Numbers of the frames.
        findings : mapping of int to str
            What was found about frames, in a sentence.
        """
        self.beginResetModel()
        self._session, self._findings = session, findings
        self.frames = np.asarray(frames, np.int64)
        self._row_of = np.full(0 if session is None else len(session.sequence), -1, np.int64)
        self._row_of[self.frames] = np.arange(len(self.frames))
        self.endResetModel()

    def shows(
        self, session: Session | None, frames: Sequence[int], findings: Mapping[int, str]
    ) -> bool:
        """Tell whether it shows just these frames already."""
        same = session is self._session and findings == self._findings
        return same and np.array_equal(frames, self.frames)

    def update_frames(self, indices: Iterable[int]) -> None:
        """Draw the rows of frames anew whose status has changed."""
        rows = [row for row in map(self.row_of, indices) if row >= 0]
        if rows:
            first, last = self.index(min(rows), 0), self.index(max(rows), REMARKS)
            self.dataChanged.emit(first, last)

    def set_shown(self, index: int) -> None:
        """Mark the row of the frame on show."""
        before, self.shown = self.shown, index
        self.update_frames([before])
        self.update_frames([index])

    def row_of(self, index: int) -> int:
        """Find the row of a frame; -1 if it is not in the queue."""
        return int(self._row_of[index]) if 0 <= index < len(self._row_of) else -1

    # Qt's side

    def rowCount(self, parent: QModelIndex | None = None) -> int:  # noqa: N802 - Qt's name
        """Count the frames."""
        return 0 if parent is not None and parent.isValid() else len(self.frames)

    def columnCount(self, parent: QModelIndex | None = None) -> int:  # noqa: N802 - Qt's name
        """Count the columns."""
        return 0 if parent is not None and parent.isValid() else len(_HEADINGS)

    def headerData(  # noqa: N802 - Qt's name
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        """Give the headings."""
        if orientation == Qt.Orientation.Horizontal:
            if role == Qt.ItemDataRole.DisplayRole:
                return _HEADINGS[section]
            if role == Qt.ItemDataRole.ToolTipRole:
                return _HEADING_HINTS[section]
            if role == Qt.ItemDataRole.TextAlignmentRole and section == REMARKS:
                return int(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        return None

    def data(self, where: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Give what is drawn in a cell."""
        column, index = where.column(), int(self.frames[where.row()])
        if role == Qt.ItemDataRole.TextAlignmentRole and column in _NUMERIC:
            return int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        if role == Qt.ItemDataRole.FontRole and column == NUMBER and index == self.shown:
            return self._bold
        if self._session is None:
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return self._text(self._session.status(index), column)
        if role == Qt.ItemDataRole.DecorationRole and column == STATE:
            return self._marks[self._session.status(index).state]
        if role == Qt.ItemDataRole.ToolTipRole and column in (NAME, STATE, REMARKS):
            return self._text(self._session.status(index), column)
        return None

    def _text(self, status: FrameStatus, column: int) -> str:
        if column == NUMBER:
            return f"▸ {status.index}" if status.index == self.shown else str(status.index)
        if column == NAME:
            return status.name
        if column == STATE:
            return state_word(status)
        if column == CONFIDENCE:
            return "" if status.confidence is None else f"{status.confidence:.2f}"
        if column == AREA:
            return self._area(status)
        parts = status.reason, self._findings.get(status.index), status.note
        return " · ".join(part for part in parts if part)

    def _area(self, status: FrameStatus) -> str:
        if not status.area or self._session is None:
            return ""
        frame = self._session.sequence.frames[status.index]
        return f"{100 * status.area / (frame.height * frame.width):.1f}"


class ReviewQueue(QTableView):
    """The table on the screen.

    One selected row is the frame on show, both ways; of several rows none is
    gone to, and going on to another frame ends their selection. Other keys are
    left to the dock.

    Attributes
    ----------
    table : ReviewTable
        What it shows.
    go_to : Signal(int)
        The user wants to see this frame.
    entered : Signal()
        The user has chosen a frame with Enter or a double click, to work on it.
    """

    go_to = Signal(int)
    entered = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.table = ReviewTable()
        self.setModel(self.table)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.setShowGrid(False)
        self.setWordWrap(False)
        # Names of frames begin alike and end in a number.
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.setTabKeyNavigation(False)
        rows, columns = self.verticalHeader(), self.horizontalHeader()
        rows.hide()
        # Rows of one height need not be measured one by one.
        rows.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        rows.setDefaultSectionSize(_ROW_HEIGHT)
        columns.setHighlightSections(False)
        columns.setStretchLastSection(True)
        columns.setMinimumSectionSize(20)
        for column, width in _WIDTHS.items():
            self.setColumnWidth(column, width)
        self.setMinimumHeight((_ROWS_IN_SIGHT + 2) * _ROW_HEIGHT)
        self._arrived = QTimer(
            self, interval=_ARRIVED_MS, singleShot=True, timeout=self._on_arrived
        )
        self._following = False
        self.selectionModel().selectionChanged.connect(self._on_selection)
        self.doubleClicked.connect(self._enter)

    @property
    def selected(self) -> list[int]:
        """Numbers of the frames whose rows are selected, in the order of the rows."""
        rows: list[int] = []
        for part in self.selectionModel().selection():
            rows.extend(range(part.top(), part.bottom() + 1))
        return self.table.frames[sorted(set(rows))].tolist()

    def show_frames(
        self, session: Session | None, frames: Sequence[int], findings: Mapping[int, str]
    ) -> None:
        """Show other frames or another order; what is selected and still there stays so."""
        if self.table.shows(session, frames, findings):
            return
        selected, current = self.selected, self._current
        self._following = True
        self.table.show_frames(session, frames, findings)
        rows = sorted(row for row in map(self.table.row_of, selected) if row >= 0)
        self._select(rows)
        self._make_current(self.table.row_of(current))
        self._following = False

    def follow(self, index: int) -> None:
        """Mark, select and bring into sight the row of the frame that has come on show."""
        stays = index == self.table.shown
        if stays and self._arrived.isActive():
            # The user is about to go elsewhere.
            return
        self._arrived.stop()
        self.table.set_shown(index)
        selected = self.selected
        # Several rows are selected for what is done next: going on ends that.
        if len(selected) > 1 and stays:
            return
        row = self.table.row_of(index)
        self._following = True
        if selected != [index]:
            self._select([] if row < 0 else [row])
            self.scrollTo(self.table.index(row, NUMBER))
        self._make_current(row)
        self._following = False

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802 - Qt's name
        """Move through the rows; what else there is on the keyboard is not the table's."""
        key, control = event.key(), Qt.KeyboardModifier.ControlModifier
        if key in _ENTER:
            self._enter()
        elif key in _OUR_KEYS or (key == Qt.Key.Key_A and event.modifiers() == control):
            super().keyPressEvent(event)
        else:
            event.ignore()

    @property
    def _current(self) -> int:
        """Number of the frame that arrow keys go on from; -1 if there is none."""
        where = self.currentIndex()
        return int(self.table.frames[where.row()]) if where.isValid() else -1

    def _make_current(self, row: int) -> None:
        """Have arrow keys go on from a row, without selecting it."""
        no_change = QItemSelectionModel.SelectionFlag.NoUpdate
        self.selectionModel().setCurrentIndex(self.table.index(row, NUMBER), no_change)

    def _select(self, rows: Sequence[int]) -> None:
        """Select these rows, which are in order, and no others."""
        selection = QItemSelection()
        breaks = np.flatnonzero(np.diff(rows) > 1) + 1
        for part in np.split(np.asarray(rows, np.int64), breaks):
            if part.size:
                first, last = self.table.index(part[0], 0), self.table.index(part[-1], REMARKS)
                selection.select(first, last)
        self.selectionModel().select(selection, QItemSelectionModel.SelectionFlag.ClearAndSelect)

    def _on_selection(self) -> None:
        if not self._following:
            self._arrived.start()

    def _on_arrived(self) -> None:
        selected = self.selected
        if len(selected) == 1:
            self.go_to.emit(selected[0])

    def _enter(self) -> None:
        self._arrived.stop()
        current = self._current
        if current >= 0:
            self.go_to.emit(current)
            self.entered.emit()


def _mark(colour: str) -> QPixmap:
    """Paint a disc, the mark of a state."""
    mark = QPixmap(_MARK_SIZE, _MARK_SIZE)
    mark.fill(Qt.GlobalColor.transparent)
    painter = QPainter(mark)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(QColor(colour))
    painter.drawEllipse(0, 0, _MARK_SIZE, _MARK_SIZE)
    painter.end()
    return mark
