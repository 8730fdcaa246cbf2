"""What came of a fine-tuning: before and after, frames that changed most, what to do with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QSizePolicy,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_microaunet.widgets.section import hint

if TYPE_CHECKING:
    from collections.abc import Callable

    Part = dict[str, Any]

_MOST_FRAMES = 10
_ROWS_IN_SIGHT = 5
_ROW_HEIGHT = 22


class FinetuneResult(QWidget):
    """The report of one job, and the buttons that decide about its model.

    Attributes
    ----------
    promoted : Signal(str)
        The model is to be used under this name.
    discarded : Signal()
        The job is to be deleted.
    frame_wanted : Signal(str)
        This frame of the dataset is to be shown.
    """

    promoted = Signal(str)
    discarded = Signal()
    frame_wanted = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.verdict = QLabel(wordWrap=True, objectName="subheading")
        self.table = QTableWidget(0, 3)
        self.table.setHorizontalHeaderLabels(["before", "after", "change, 95 %"])
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        self.table.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        self.table.verticalHeader().setDefaultSectionSize(_ROW_HEIGHT)
        # As wide as the dock, not wider.
        self.table.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        columns = self.table.horizontalHeader()
        columns.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        columns.setStretchLastSection(True)
        self.frames = QListWidget()
        row = self.frames.fontMetrics().lineSpacing() + 4
        self.frames.setFixedHeight(_ROWS_IN_SIGHT * row)
        self.frames.itemActivated.connect(
            lambda item: self.frame_wanted.emit(item.data(Qt.ItemDataRole.UserRole))
        )
        hint(
            self.frames,
            "The held-out frames that changed most, for better and for worse, by Dice before and\n"
            "after. Enter or a double click shows one.",
        )
        self.name = QLineEdit(placeholderText="Name of the new model")
        hint(self.name, "What the new model will be called in every list of models.")
        self.promote_button = QPushButton("Use it")
        hint(self.promote_button, "Put the new model into every list of models. Nothing replaces.")
        self.promote_button.clicked.connect(self._promote)
        self.name.returnPressed.connect(self._promote)
        self.discard_button = QPushButton("Discard")
        hint(self.discard_button, "Delete the run and its model. Models in use stay.")
        self.discard_button.clicked.connect(self.discarded)

        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in (self.verdict, self.table, self.frames):
            layout.addWidget(widget)
        row_of_buttons = QHBoxLayout()
        for widget in (self.name, self.promote_button, self.discard_button):
            row_of_buttons.addWidget(widget)
        layout.addLayout(row_of_buttons)

    def show_report(self, report: dict[str, Any], suggestion: str) -> None:
        """Show what came of a job.

        Parameters
        ----------
        report : dict
            `Job.report`.
        suggestion : str
            A name for the new model.
        """
        held_out, reference = report["held_out"], report["reference"]
        self.verdict.setText(verdict(held_out, reference))
        rows = [
            *_rows("", held_out),
            *_rows("reference: ", reference, only=("Dice", "negatives flagged")),
        ]
        self.table.setRowCount(len(rows))
        self.table.setVerticalHeaderLabels([title for title, *_ in rows])
        for number, (_, *cells) in enumerate(rows):
            for column, text in enumerate(cells):
                item = QTableWidgetItem(text)
                item.setTextAlignment(Qt.AlignmentFlag.AlignCenter)
                self.table.setItem(number, column, item)
        head = self.table.horizontalHeader().sizeHint().height()
        self.table.setFixedHeight(head + len(rows) * _ROW_HEIGHT + 12)
        self.frames.clear()
        for frame in _most_changed(held_out["frames"]):
            change = frame["after"] - frame["before"]
            sign = "▲" if change > 0 else "▼"
            text = f"{sign} {frame['before']:.2f} to {frame['after']:.2f}  {frame['name']}"
            item = QListWidgetItem(text, self.frames)
            item.setData(Qt.ItemDataRole.UserRole, frame["name"])
        self.name.setText(suggestion)

    def _promote(self) -> None:
        self.promoted.emit(self.name.text().strip())


def verdict(held_out: Part, reference: Part) -> str:
    """Say in words whether a new model is better, and what it forgot.

    Parameters
    ----------
    held_out, reference : dict
        Of a report: before, after and difference.
    """
    change = held_out["difference"]["dice"]
    if change is None:
        said = "There were no held-out frames with a polyp: nobody can say whether it is better."
    elif change["low"] > 0:
        said = f"Better on held-out frames: Dice {change['mean']:+.3f}."
    elif change["high"] < 0:
        said = f"NOT better: Dice fell by {-change['mean']:.3f} on held-out frames."
    else:
        said = (
            f"Not clearly better: Dice {change['mean']:+.3f}, anything from {change['low']:+.3f} "
            f"to {change['high']:+.3f} is possible."
        )
    alarms = held_out["difference"]["negatives_flagged"]
    if alarms is not None and alarms["low"] > 0:
        said += f" It marks {100 * alarms['mean']:.0f} % more of the frames without a polyp."
    lost = reference["difference"]["dice"]
    if lost is not None and lost["high"] < 0:
        said += f" It has forgotten: Dice {lost['mean']:+.3f} on the reference frames."
    return said


def _rows(title: str, part: Part, only: tuple[str, ...] = ()) -> list[tuple[str, str, str, str]]:
    """Return the rows for one set of frames: title, before, after, interval of the change."""
    before, after, difference = part["before"], part["after"], part["difference"]
    scores: list[tuple[str, Callable[[Part], Part | None], Part | None]] = [
        ("Dice", lambda summary: summary["dice"], difference["dice"]),
        *(
            (f"{size} polyps", lambda summary, size=size: _by_size(summary, size), None)
            for size in before["by_size"]
        ),
        ("boundary F", lambda summary: summary["boundary_f"], None),
        ("polyps found", lambda summary: summary["positives_found"], None),
        (
            "negatives flagged",
            lambda summary: summary["negatives_flagged"],
            difference["negatives_flagged"],
        ),
    ]
    rows = []
    for name, of, change in scores:
        one, other = of(before), of(after)
        if one is None or other is None or (only and name not in only):
            continue
        said = "" if change is None else f"{change['low']:+.2f} to {change['high']:+.2f}"
        rows.append((f"{title}{name}", f"{one['mean']:.3f}", f"{other['mean']:.3f}", said))
    return rows


def _by_size(summary: Part, size: str) -> Part | None:
    of_size = summary["by_size"].get(size)
    return None if of_size is None else of_size["dice"]


def _most_changed(frames: list[Part]) -> list[Part]:
    """Return the most improved frames, then the most harmed ones, each at most ten."""
    better = [one for one in frames if one["after"] > one["before"]][:_MOST_FRAMES]
    worse = [one for one in reversed(frames) if one["after"] < one["before"]][:_MOST_FRAMES]
    return better + worse
