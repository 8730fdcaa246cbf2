"""Which of two models is better on the user's own frames."""

from __future__ import annotations

from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicgui.widgets import ComboBox
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog, QFormLayout, QLabel, QPushButton, QWidget

from napari_microaunet.curation.dataset import open_dataset
from napari_microaunet.distillation.side_by_side import side_by_side
from napari_microaunet.widgets.score_table import ScoreTable, clear_sign, in_doubt, score_rows
from napari_microaunet.widgets.section import as_wide_as_the_dock, hint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_microaunet.distillation.side_by_side import SideBySide
    from napari_microaunet.networks.library import Model
    from napari_microaunet.widgets.jobs import Cancelled, Told
    from napari_microaunet.widgets.workbench import Workbench

_MOST_LETTERS = 7  # of a model's name above a column


class ModelComparison(QWidget):
    """Choose another model and frames with masks, see both models' scores and the difference."""

    def __init__(self, bench: Workbench) -> None:
        super().__init__()
        self._bench = bench
        self._model: Model | None = None
        self._models: Sequence[Model] = ()
        self.other = ComboBox(label="Other model", choices=self._choices)
        hint(self.other.native, "The model that the one selected above is compared with.")
        self.button = QPushButton("Compare on a dataset…")
        hint(
            self.button,
            "Score both models on a curated dataset, or a folder with images/ and masks/, each at\n"
            "its own threshold and least peak. Of a curated dataset the held-out frames are taken.",
        )
        self.button.clicked.connect(self._ask)
        self.verdict = QLabel(
            wordWrap=True, objectName="subheading", textFormat=Qt.TextFormat.PlainText
        )
        self.table = ScoreTable(["", "", "difference"])
        hint(
            self.table,
            "Scores of both models on the same frames, and the 95 % interval of the first model's\n"
            "minus the second's. An interval that holds 0 leaves open which is better.",
        )
        as_wide_as_the_dock(self.other.native)
        for widget in (self.verdict, self.table):
            widget.hide()
        layout = QFormLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setVerticalSpacing(5)
        layout.addRow(self.other.label, self.other.native)
        layout.addRow(self.button)
        layout.addRow(self.verdict)
        layout.addRow(self.table)
        bench.job_changed.connect(self._update)

    def offer(self, model: Model, models: Sequence[Model]) -> None:
        """Compare this model from now on; what was found before stays on show.

        Parameters
        ----------
        model : Model
            The model.
        models : sequence of Model
            The library.
        """
        self._model, self._models = model, models
        self.other.reset_choices()
        self._update()

    def compare(self, folder: Path) -> None:
        """Compare the two models in the background.

        Parameters
        ----------
        folder : Path
            A curated dataset, or frames with masks.
        """
        first, second = self._model, self.other.value
        if first is None or second is None:
            return

        def run(progress: Told, cancelled: Cancelled) -> SideBySide:
            dataset = open_dataset(folder, cancelled=cancelled)
            return side_by_side(first, second, dataset, progress=progress, cancelled=cancelled)

        def end(found: SideBySide | None) -> None:
            if found is not None:
                self._show(first.name, second.name, asdict(found))

        self._bench.run_with_progress(f"Comparing {first.name} and {second.name}", run, end)

    def _ask(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Frames to compare the models on")
        if folder:
            self.compare(Path(folder))

    def _show(self, first: str, second: str, found: dict[str, Any]) -> None:
        self.verdict.setText(comparison_verdict(first, second, found))
        for column, name in enumerate((first, second), start=1):
            heading = self.table.horizontalHeaderItem(column)
            heading.setText(name if len(name) <= _MOST_LETTERS else f"{name[:_MOST_LETTERS]}…")
            heading.setToolTip(f"<qt>{escape(name)}</qt>")
        self.table.show_rows(score_rows(found["first"], found["second"], found["difference"]))
        for widget in (self.verdict, self.table):
            widget.show()

    def _choices(self, _widget: object) -> list[tuple[str, Model]]:
        others = (model for model in self._models if model != self._model)
        return [(model.name, model) for model in others]

    def _update(self) -> None:
        self.button.setEnabled(self._bench.job is None and self.other.value is not None)


def comparison_verdict(first: str, second: str, found: dict[str, Any]) -> str:
    """Say in words which of two models is better.

    Parameters
    ----------
    first, second : str
        Names of the models.
    found : dict
        Of `SideBySide`.
    """
    difference = found["difference"]
    dice, alarms = difference["dice"], difference["negatives_flagged"]
    said = f"{found['frames']}: "
    sign = clear_sign(dice, difference["groups"])
    if dice is None:
        said += "none shows a polyp, so nobody can say which model outlines them better."
    elif sign:
        better, worse = (first, second) if sign > 0 else (second, first)
        said += f"{better} is better than {worse}, Dice +{abs(dice['mean']):.3f}."
    else:
        said += (
            f"neither is clearly better. {first} has {dice['mean']:+.3f} Dice, "
            f"{in_doubt(difference)}"
        )
    if clear_sign(alarms, difference["negative_groups"]):
        more, fewer = (first, second) if alarms["mean"] > 0 else (second, first)
        said += (
            f" {more} marks {100 * abs(alarms['mean']):.0f} % more of the frames without a polyp "
            f"than {fewer}."
        )
    if found["problems"]:
        said += f" {len(found['problems'])} frames could not be scored."
    return said
