"""What came of a fine-tuning: before and after, frames that changed most, what to do with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_microaunet.widgets.score_table import ScoreTable, clear_sign, in_doubt, score_rows
from napari_microaunet.widgets.section import hint

if TYPE_CHECKING:
    Part = dict[str, Any]

_MOST_FRAMES = 10
_ROWS_IN_SIGHT = 5


class FinetuneResult(QWidget):
    """The report of one job, and the buttons that decide about its model.

    Attributes
    ----------
    promoted : Signal(str)
        The model is to be used under this name.
    kept : Signal()
        The model is to stay, or to become again, a draft that is in no list of models.
    frame_wanted : Signal(str)
        This frame of the dataset is to be shown.
    """

    promoted = Signal(str)
    kept = Signal()
    frame_wanted = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.verdict = QLabel(wordWrap=True, objectName="subheading")
        self.table = ScoreTable(["before", "after", "change, 95 %"])
        self.frames = QListWidget()
        row = self.frames.fontMetrics().lineSpacing() + 4
        self.frames.setFixedHeight(_ROWS_IN_SIGHT * row)
        self.frames.itemActivated.connect(self._want)
        self.frames.itemClicked.connect(self._want)
        hint(
            self.frames,
            "The held-out frames that changed most, for better and for worse, by Dice before and\n"
            "after. A click or Enter shows one.",
        )
        self.name = QLineEdit(placeholderText="Name of the new model")
        hint(self.name, "What the new model will be called in every list of models.")
        self.promote_button = QPushButton("Promote")
        hint(
            self.promote_button,
            "Put the new model into every list of models, under this name. The model it came from\n"
            "stays; go back to it at any time by choosing it, or by making this one a draft again.",
        )
        self.promote_button.clicked.connect(self._promote)
        self.name.returnPressed.connect(self._promote)
        self.draft_button = QPushButton()
        self.draft_button.clicked.connect(self.kept)

        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in (self.verdict, self.table, self.frames):
            layout.addWidget(widget)
        layout.addWidget(self.name)
        row_of_buttons = QHBoxLayout()
        for widget in (self.promote_button, self.draft_button):
            row_of_buttons.addWidget(widget)
        layout.addLayout(row_of_buttons)

    def show_report(self, report: dict[str, Any], suggestion: str, used_as: str | None) -> None:
        """Show what came of a job.

        Parameters
        ----------
        report : dict
            `Job.report`.
        suggestion : str
            A name for the new model.
        used_as : str or None
            The name that it has in the lists of models; None for a draft.
        """
        self.promote_button.setEnabled(used_as is None)
        self.name.setEnabled(used_as is None)
        self.draft_button.setText("Keep as draft" if used_as is None else "Roll back")
        hint(
            self.draft_button,
            "Leave the new model with its run: it is in no list of models, and can be promoted\n"
            "any day."
            if used_as is None
            else "Take the new model out of every list of models; it stays here as a draft.\n"
            "Where it was chosen, the student takes its place.",
        )
        held_out, reference = report["held_out"], report["reference"]
        said = verdict(held_out, reference)
        if problems := report.get("problems"):
            name = next(iter(problems))
            said += f" {len(problems)} frames could not be read any more, the first is {name}."
        self.verdict.setText(said)
        self.table.show_rows(
            [
                *score_rows(*_sides(held_out)),
                ("on the reference frames",),
                *score_rows(*_sides(reference), only=("Dice", "false alarms")),
            ]
        )
        self.frames.clear()
        for frame in _most_changed(held_out["frames"]):
            change = frame["after"] - frame["before"]
            sign = "▲" if change > 0 else "▼"
            text = f"{sign} {frame['before']:.2f} to {frame['after']:.2f}  {frame['name']}"
            item = QListWidgetItem(text, self.frames)
            item.setData(Qt.ItemDataRole.UserRole, frame["name"])
        self.name.setText(suggestion if used_as is None else used_as)

    def _want(self, item: QListWidgetItem) -> None:
        self.frame_wanted.emit(item.data(Qt.ItemDataRole.UserRole))

    def _promote(self) -> None:
        self.promoted.emit(self.name.text().strip())


def verdict(held_out: Part, reference: Part) -> str:
    """Say in words whether a new model is better, and what it forgot.

    Parameters
    ----------
    held_out, reference : dict
        Of a report: before, after and difference.
    """
    difference = held_out["difference"]
    change = difference["dice"]
    sign = clear_sign(change, difference["groups"])
    if change is None:
        said = "There were no held-out frames with a polyp: nobody can say whether it is better."
    elif sign > 0:
        said = f"Better on held-out frames: Dice {change['mean']:+.3f}."
    elif sign < 0:
        said = f"NOT better: Dice fell by {-change['mean']:.3f} on held-out frames."
    else:
        said = f"Not clearly better: Dice {change['mean']:+.3f}, {in_doubt(difference)}"
    alarms = difference["negatives_flagged"]
    if clear_sign(alarms, difference["negative_groups"]) > 0:
        said += f" It marks {100 * alarms['mean']:.0f} % more of the frames without a polyp."
    lost = reference["difference"]["dice"]
    if clear_sign(lost, reference["difference"]["groups"]) < 0:
        said += f" It has forgotten: Dice {lost['mean']:+.3f} on the reference frames."
    return said


def _sides(part: Part) -> tuple[Part, Part, Part]:
    return part["before"], part["after"], part["difference"]


def _most_changed(frames: list[Part]) -> list[Part]:
    """Return the most improved frames, then the most harmed ones, each at most ten."""
    better = [one for one in frames if one["after"] > one["before"]][:_MOST_FRAMES]
    worse = [one for one in reversed(frames) if one["after"] < one["before"]][:_MOST_FRAMES]
    return better + worse
