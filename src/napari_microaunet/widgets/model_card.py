"""A model's card as people read it: facts, and figures with their intervals."""

from __future__ import annotations

from html import escape
from itertools import groupby
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QGridLayout, QLabel, QSizePolicy, QVBoxLayout, QWidget

from napari_microaunet.networks.card_facts import card_facts
from napari_microaunet.widgets.score_table import ScoreTable
from napari_microaunet.widgets.section import hint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_microaunet.networks.checkpoint import Figure
    from napari_microaunet.networks.library import Model


class ModelCardView(QWidget):
    """What one model is, what it was trained from and by, how good it was.

    Attributes
    ----------
    facts : dict of str to QLabel
        The facts by what they are about.
    figures : ScoreTable
        The figures on the card.
    """

    def __init__(self) -> None:
        super().__init__()
        self.facts: dict[str, QLabel] = {}
        self.figures = ScoreTable(["value", "95 %"])
        hint(
            self.figures,
            "Measured when the model was made, on frames that it had not learned from, each\n"
            "with its 95 % interval.",
        )
        self._layout = QGridLayout()
        self._layout.setVerticalSpacing(3)
        self._layout.setColumnStretch(1, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(self._layout)
        layout.addWidget(self.figures)

    def show_model(self, model: Model, models: Sequence[Model]) -> None:
        """Show another model.

        Parameters
        ----------
        model : Model
            The model.
        models : sequence of Model
            The library, for the lineage.
        """
        for row, (about, fact) in enumerate(card_facts(model, models)):
            if about not in self.facts:
                self.facts[about] = _label()
                self._layout.addWidget(QLabel(about), row, 0, Qt.AlignmentFlag.AlignTop)
                self._layout.addWidget(self.facts[about], row, 1)
            self.facts[about].setText(fact)
            # For words that are too long to be shown; Qt would take some texts for HTML.
            self.facts[about].setToolTip(f"<qt>{escape(fact)}</qt>")
        self.facts["Weights"].setToolTip(f"SHA-256 {model.card.sha256}")
        figures = model.card.figures()
        self.figures.show_rows(_rows(figures))
        self.figures.setVisible(bool(figures))


def _label() -> QLabel:
    """Make a label for what a card says, which may be anything of any length."""
    label = QLabel(wordWrap=True, textFormat=Qt.TextFormat.PlainText)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    # A long word, such as a data set's name, does not make the dock wider.
    policy = label.sizePolicy()
    policy.setHorizontalPolicy(QSizePolicy.Policy.Ignored)
    label.setSizePolicy(policy)
    return label


def _rows(figures: Sequence[Figure]) -> list[tuple[str, ...]]:
    """Put figures under the names of the frames that they are from."""
    rows: list[tuple[str, ...]] = []
    for frames, group in groupby(figures, key=lambda figure: figure.frames):
        if frames:
            rows.append((frames,))
        for figure in group:
            known = figure.low is not None and figure.high is not None
            interval = f"{figure.low:.2f} to {figure.high:.2f}" if known else ""
            rows.append((figure.name, f"{figure.value:.3f}", interval))
    return rows
