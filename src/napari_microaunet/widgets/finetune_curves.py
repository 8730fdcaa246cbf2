"""Curves of a fine-tuning while it runs: losses by stage, validation scores with the best."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import pyqtgraph
from napari.utils.theme import get_theme
from qtpy.QtWidgets import QHBoxLayout, QSizePolicy, QWidget

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_microaunet.distillation.events import Event

_HEIGHT = 150
_LOSS = "loss"
# Distinct in both themes, also for the colour-blind (Okabe and Ito, Color Universal Design, 2008).
_BLUE, _ORANGE, _GREEN, _PINK = "#56b4e9", "#e69f00", "#009e73", "#cc79a7"
_SCORES = {
    "dice": ("Dice", _BLUE),
    "positives_found": ("polyps found", _GREEN),
    "negatives_flagged": ("negatives flagged", _ORANGE),
}


class FinetuneCurves(QWidget):
    """Two plots side by side, over the minutes of the training."""

    def __init__(self) -> None:
        super().__init__()
        self.losses = pyqtgraph.PlotWidget(title="loss")
        self.scores = pyqtgraph.PlotWidget(title="validation")
        self.scores.setYRange(0, 1)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for plot in (self.losses, self.scores):
            plot.setFixedHeight(_HEIGHT)
            plot.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            plot.setMouseEnabled(False, False)
            plot.hideButtons()
            plot.setMenuEnabled(False)
            layout.addWidget(plot)
        self.scores.addLegend(offset=(1, -1), labelTextSize="7pt")
        self._points: dict[str, tuple[list[float], list[float]]] = {}
        self._lines: dict[str, pyqtgraph.PlotDataItem] = {}
        self._stages: dict[str, float] = {}
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._points = defaultdict(lambda: ([], []))
        self._stages = {}
        self._lines = {}
        for plot in (self.losses, self.scores):
            plot.clear()
        self._lines[_LOSS] = self.losses.plot(pen=pyqtgraph.mkPen(_BLUE, width=2))
        for key, (title, colour) in _SCORES.items():
            pen = pyqtgraph.mkPen(colour, width=2)
            self._lines[key] = self.scores.plot(pen=pen, name=title, symbol="o", symbolSize=4)
        self._best = self.scores.plot(pen=None, symbol="star", symbolSize=12, symbolBrush=_PINK)

    def add(self, events: Iterable[Event]) -> None:
        """Take in what has happened since.

        Parameters
        ----------
        events : iterable of Event
            In their order; other than steps and validations are passed over.
        """
        best: tuple[float, float] | None = None
        touched: set[str] = set()
        for event in events:
            if event.get("part") == "teacher":
                continue
            match event:
                case {"event": "step", "minutes": minutes, "losses": losses, "stage": stage}:
                    self._point(_LOSS, minutes, losses["loss"])
                    touched.add(_LOSS)
                    if stage not in self._stages:
                        self._mark(stage, minutes)
                case {"event": "validation", "minutes": minutes}:
                    for key in _SCORES:
                        if event[key] is not None:
                            self._point(key, minutes, event[key])
                            touched.add(key)
                    if event["best"]:
                        best = minutes, event["dice"]
        for key in touched:
            self._lines[key].setData(*self._points[key])
        if best is not None:
            self._best.setData([best[0]], [best[1]])

    def restyle(self, theme_name: str) -> None:
        """Take on the colours of napari's theme."""
        theme = get_theme(theme_name)
        text = theme.text.as_hex()
        self.scores.plotItem.legend.setLabelTextColor(text)
        for plot, title in ((self.losses, "loss"), (self.scores, "validation")):
            plot.setBackground(theme.background.as_hex())
            plot.setTitle(title, color=text, size="8pt")
            for side in ("left", "bottom"):
                axis = plot.getAxis(side)
                axis.setPen(theme.secondary.as_hex())
                axis.setTextPen(text)

    def _point(self, key: str, minutes: float, value: float) -> None:
        across, up = self._points[key]
        across.append(minutes)
        up.append(value)

    def _mark(self, stage: str, minutes: float) -> None:
        """Draw where a stage begins, but for the first."""
        if self._stages:
            self.losses.addItem(pyqtgraph.InfiniteLine(minutes, pen=pyqtgraph.mkPen(_PINK)))
        self._stages[stage] = minutes
