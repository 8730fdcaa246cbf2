"""A strip of held-out frames that fills in while a model learns: outlines before and now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QPointF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QIcon, QPainter, QPen, QPixmap, QPolygonF
from qtpy.QtWidgets import (
    QLabel,
    QListWidget,
    QListWidgetItem,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_microaunet.widgets.section import hint

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from napari_microaunet.distillation.events import Event
    from napari_microaunet.distillation.watched import Outlines

_SHOWN = 96  # height and width of a picture in the strip, in pixels
_LINE = 1.5  # width of an outline in it
# Distinct on mucosa, also for the colour-blind (Okabe and Ito, Color Universal Design, 2008).
_COLOURS = {"before": "#e69f00", "now": "#56b4e9", "your mask": "#2ecc71"}
_KEY = '<span style="color:{1}">▬</span> {0}'


class FinetuneStrip(QWidget):
    """Pictures of held-out frames, side by side.

    Attributes
    ----------
    frame_wanted : Signal(str)
        This frame of the dataset is to be shown.
    """

    frame_wanted = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.pictures = QListWidget()
        self.pictures.setFlow(QListWidget.Flow.LeftToRight)
        self.pictures.setIconSize(QSize(_SHOWN, _SHOWN))
        bar = self.pictures.horizontalScrollBar().sizeHint().height()
        self.pictures.setFixedHeight(_SHOWN + bar + 12)
        self.pictures.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.pictures.itemActivated.connect(self._want)
        self.pictures.itemClicked.connect(self._want)
        hint(
            self.pictures,
            "Frames that the model does not learn from: what it marked before, what it marks now,\n"
            "and your mask. A click or Enter shows one in the window.",
        )
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addWidget(QLabel("  ".join(_KEY.format(*one) for one in _COLOURS.items())))
        layout.addWidget(self.pictures)
        self._reference: list[Outlines] = []
        self._before: list[Outlines] = []
        self._sheet = QPixmap()
        self.clear()

    def clear(self) -> None:
        """Show nothing."""
        self.pictures.clear()
        self.hide()

    def add(self, events: Iterable[Event], run_folder: Path) -> None:
        """Take in what has happened since.

        Parameters
        ----------
        events : iterable of Event
            In their order; other than those of watched frames are passed over.
        run_folder : Path
            Of the fine-tuning; the pictures lie in it.
        """
        now: list[Outlines] | None = None
        for event in events:
            match event:
                case {"event": "watching", "names": names, "part": part}:
                    self._reference, self._before = event["reference"], event["before"]
                    self._sheet = QPixmap(str(run_folder / part / "watched.jpg"))
                    self._show(names)
                    now = self._before
                case {"event": "watched", "outlines": outlines}:
                    now = outlines
        if now is not None and self._reference:
            for number, outlines in enumerate(now):
                self.pictures.item(number).setIcon(QIcon(self._drawn(number, outlines)))

    def _show(self, names: list[str]) -> None:
        self.pictures.clear()
        for name in names:
            item = QListWidgetItem(self.pictures)
            item.setData(Qt.ItemDataRole.UserRole, name)
            item.setToolTip(name)
            item.setSizeHint(QSize(_SHOWN + 6, _SHOWN + 6))
        self.show()

    def _drawn(self, number: int, now: Outlines) -> QPixmap:
        """Draw one frame with its outlines."""
        side = self._sheet.height()
        picture = self._sheet.copy(number * side, 0, side, side)
        painter = QPainter(picture)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        drawn = {"your mask": self._reference[number], "before": self._before[number], "now": now}
        for of, outlines in drawn.items():
            painter.setPen(QPen(QColor(_COLOURS[of]), _LINE * side / _SHOWN))
            for outline in outlines:
                points = [QPointF(column * side, row * side) for row, column in outline]
                painter.drawPolygon(QPolygonF(points))
        painter.end()
        return picture

    def _want(self, item: QListWidgetItem) -> None:
        self.frame_wanted.emit(item.data(Qt.ItemDataRole.UserRole))
