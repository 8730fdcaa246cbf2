"""Two models' scores side by side, as fine-tuning and comparing show them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QSizePolicy,
    QTableWidget,
    QTableWidgetItem,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Part = dict[str, Any]

_ROW_HEIGHT = 22


class ScoreTable(QTableWidget):
    """A small table to read: as high as its rows, as wide as the dock.

    Parameters
    ----------
    columns : sequence of str
        Their headings.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        super().__init__(0, len(columns))
        self.setHorizontalHeaderLabels(list(columns))
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        self.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        self.verticalHeader().setDefaultSectionSize(_ROW_HEIGHT)
        # As wide as the dock, not wider.
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        header = self.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setStretchLastSection(True)

    def show_rows(self, rows: Sequence[Sequence[str]]) -> None:
        """Show other rows.

        Parameters
        ----------
        rows : sequence of sequence of str
            Of each the title, then the text of its cells.
        """
        self.setRowCount(len(rows))
        self.setVerticalHeaderLabels([title for title, *_ in rows])
        for number, (_, *cells) in enumerate(rows):
            for column, text in enumerate(cells):
                item = QTableWidgetItem(text)
                item.setTextAlignment(Qt.AlignmentFlag.AlignCenter)
                self.setItem(number, column, item)
        head = self.horizontalHeader().sizeHint().height()
        self.setFixedHeight(head + len(rows) * _ROW_HEIGHT + 12)


def score_rows(
    one: Part, other: Part, difference: Part, title: str = "", only: Sequence[str] = ()
) -> list[tuple[str, str, str, str]]:
    """Return the rows for two models on the same frames; what was not measured is left out.

    Parameters
    ----------
    one, other : dict
        Of `Summary`, by column.
    difference : dict
        Of `Comparison`, for the third column.
    title : str
        Goes before the title of every row.
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
            (f"{size} polyps", lambda summary, size=size: _by_size(summary, size), None)
            for size in one["by_size"]
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
        first, second = of(one), of(other)
        if first is None or second is None or (only and name not in only):
            continue
        said = "" if change is None else f"{change['low']:+.2f} to {change['high']:+.2f}"
        rows.append((f"{title}{name}", f"{first['mean']:.3f}", f"{second['mean']:.3f}", said))
    return rows


def _by_size(summary: Part, size: str) -> Part | None:
    of_size = summary["by_size"].get(size)
    return None if of_size is None else of_size["dice"]


def clear_sign(difference: Part | None) -> int:
    """Tell what a difference comes to: 1 or -1 where its interval leaves no doubt, else 0."""
    if difference is None:
        return 0
    return int(difference["low"] > 0) - int(difference["high"] < 0)
