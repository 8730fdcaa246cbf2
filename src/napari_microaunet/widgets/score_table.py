"""Two models' scores side by side, as fine-tuning and comparing show them."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QSizePolicy,
    QTableWidget,
    QTableWidgetItem,
)

from napari_microaunet.distillation.comparison import proves_nothing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Part = dict[str, Any]

_ROW_HEIGHT = 22
_LEAST_WIDTH = 40


class ScoreTable(QTableWidget):
    """A small table to read: as high as its rows, as wide as the dock.

    Parameters
    ----------
    columns : sequence of str
        Their headings; that of the rows' titles is not among them.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        super().__init__(0, len(columns) + 1)
        self.setHorizontalHeaderLabels(["", *columns])
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setWordWrap(False)
        self.verticalHeader().hide()
        self.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        self.verticalHeader().setDefaultSectionSize(_ROW_HEIGHT)
        # As wide as the dock, not wider: what titles have no room for is in their tooltips.
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        for turn_off in (self.setHorizontalScrollBarPolicy, self.setVerticalScrollBarPolicy):
            turn_off(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        header = self.horizontalHeader()
        header.setMinimumSectionSize(_LEAST_WIDTH)
        header.setTextElideMode(Qt.TextElideMode.ElideRight)
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)

    def show_rows(self, rows: Sequence[Sequence[str]]) -> None:
        """Show other rows.

        Parameters
        ----------
        rows : sequence of sequence of str
            Of each the title, then the text of its cells; a title alone is a heading.
        """
        self.clearSpans()
        self.setRowCount(len(rows))
        for number, (title, *cells) in enumerate(rows):
            for column, text in enumerate((title, *cells)):
                item = QTableWidgetItem(text)
                if column > 0:
                    item.setTextAlignment(Qt.AlignmentFlag.AlignCenter)
                self.setItem(number, column, item)
            self.item(number, 0).setToolTip(f"<qt>{escape(title)}</qt>")
            if not cells:
                self.setSpan(number, 0, 1, self.columnCount())
                font = self.item(number, 0).font()
                font.setBold(True)
                self.item(number, 0).setFont(font)
        head = self.horizontalHeader().sizeHint().height()
        self.setFixedHeight(head + len(rows) * _ROW_HEIGHT + 2 * self.frameWidth())


def score_rows(
    one: Part, other: Part, difference: Part, only: Sequence[str] = ()
) -> list[tuple[str, str, str, str]]:
    """Return the rows for two models on the same frames; what was not measured is left out.

    Parameters
    ----------
    one, other : dict
        Of `Summary`, by column.
    difference : dict
        Of `Comparison`, for the third column.
    only : sequence of str, optional
        Titles of the rows that are wanted; all by default.

    Returns
    -------
    list of tuple of 4 str
        Title, the two scores, the interval of their difference.
    """
    scores: list[tuple[str, Callable[[Part], Part | None], Part | None]] = [
        ("Dice", lambda summary: summary["dice"], difference["dice"]),
        *(
            (f"Dice, {size}", lambda summary, size=size: _by_size(summary, size), None)
            for size in one["by_size"]
        ),
        ("boundary F", lambda summary: summary["boundary_f"], None),
        ("polyps found", lambda summary: summary["positives_found"], None),
        (
            "false alarms",
            lambda summary: summary["negatives_flagged"],
            difference["negatives_flagged"],
        ),
    ]
    rows = []
    for name, of, change in scores:
        first, second = of(one), of(other)
        if first is None or second is None or (only and name not in only):
            continue
        said = "" if change is None else f"{change['low']:+.2f} to {change['high']:+.2f}"
        rows.append((name, f"{first['mean']:.3f}", f"{second['mean']:.3f}", said))
    return rows


def _by_size(summary: Part, size: str) -> Part | None:
    of_size = summary["by_size"].get(size)
    return None if of_size is None else of_size["dice"]


def in_doubt(difference: Part) -> str:
    """Say how far a difference in Dice may be off.

    Parameters
    ----------
    difference : dict
        Of `Comparison`.
    """
    dice = difference["dice"]
    possible = f"anything from {dice['low']:+.3f} to {dice['high']:+.3f} is possible."
    return proves_nothing(difference["groups"]) or possible


def clear_sign(difference: Part | None, groups: int) -> int:
    """Tell what a difference comes to: 1 or -1 where its interval leaves no doubt, else 0.

    Parameters
    ----------
    difference : dict or None
        Of `Interval`.
    groups : int
        How many videos or scenes it is over; of fewer than `FEWEST_GROUPS` none leaves no doubt.
    """
    if difference is None or proves_nothing(groups):
        return 0
    return int(difference["low"] > 0) - int(difference["high"] < 0)
