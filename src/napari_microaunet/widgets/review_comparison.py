"""Comparing the mask on show with what another model would have made."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from magicgui.widgets import ComboBox
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QWidget

from napari_microaunet.frames.masks import IGNORE
from napari_microaunet.networks.library import Model, list_models
from napari_microaunet.prelabel.masks import MaskSettings, mask_from
from napari_microaunet.prelabel.probability import ProbabilityMap
from napari_microaunet.widgets.choices import keep_choice
from napari_microaunet.widgets.prelabel_jobs import Predictors
from napari_microaunet.widgets.review_canvas import Comparison
from napari_microaunet.widgets.review_jobs import compare_shown
from napari_microaunet.widgets.section import hint

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_microaunet.prelabel.predictor import Predictor
    from napari_microaunet.widgets.jobs import Job
    from napari_microaunet.widgets.workbench import Workbench

_FIRST = "teacher"


class ComparisonRow(QWidget):
    """Choose another model, and draw where its mask differs.

    Parameters
    ----------
    bench : Workbench
        Whose frame on show is compared.

    Attributes
    ----------
    said : Signal(str)
        What there is to see, in a sentence.
    """

    said = Signal(str)

    def __init__(self, bench: Workbench) -> None:
        super().__init__()
        self._bench = bench
        self._predictors = Predictors()
        self._drawing = Comparison(bench.viewer)
        self._asking: Job | None = None
        self.model = ComboBox(label="Compare with", choices=_models)
        self.button = QPushButton("Compare", checkable=True)
        hint(
            self.model.native,
            "The model that masks are compared with, here and in the order by disagreement.",
        )
        hint(
            self.button,
            "Show where the other model's mask differs from the one on show. Again: no longer.",
            "compare",
        )
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(QLabel(self.model.label))
        layout.addWidget(self.model.native, 1)
        layout.addWidget(self.button)
        self.button.toggled.connect(self._compare)
        self.model.changed.connect(self._compare)
        bench.work_changed.connect(self._on_work)
        bench.models_changed.connect(self._on_models)
        bench.shown_changed.connect(self._compare)
        bench.frame_changed.connect(self._on_frame)
        bench.closing.connect(self._drawing.remove)
        self._on_work()

    def other_model(self) -> tuple[Model, Callable[[], Predictor]]:
        """Give the other model and what makes it ready to run."""
        model = self.model.value
        return model, partial(self._predictors.get, model, "auto")

    def _on_work(self) -> None:
        work = self._bench.work
        masks = None if work is None else work.masks
        self.setEnabled(masks is not None and not masks.session.read_only)
        self.model.reset_choices()
        if masks is None:
            self._drawing.remove()
        self._compare()

    def _on_models(self) -> None:
        if not keep_choice(self.model):
            self._compare()

    def _on_frame(self, index: int) -> None:
        if index == self._bench.shown:
            self._compare()

    def _compare(self) -> None:
        """Draw where the other model's mask differs from the one on show, if that is wanted."""
        self._drawing.hide()
        work, index = self._bench.work, self._bench.shown
        if not (self.isEnabled() and self.button.isChecked()):
            return
        if work is None or work.masks is None or index in work.sequence.problems:
            return
        model = self.model.value
        kept = work.masks.session.map(index, "compared")
        if kept is None or kept.card_sha256 != model.card.sha256:
            self._ask()
            return
        frame = work.sequence.frames[index]
        probability = ProbabilityMap(kept.values, kept.field, (frame.height, frame.width))
        # Every model has settings of its own.
        own = MaskSettings.of(model.card)
        settings = replace(self._bench.settings, threshold=own.threshold, least_peak=own.least_peak)
        mask, other = work.masks.chunks.mask(index), mask_from(probability, settings)
        self._drawing.show(work.masks.layer, mask, other)
        self.said.emit(
            f"{model.name}: white is its outline and what it alone marks, dark what it leaves "
            f"out. Dice with the mask on show {_dice(mask, other):.2f}."
        )

    def _ask(self) -> None:
        if self._asking is None:
            self._asking = compare_shown(self._bench, *self.other_model())
            self._asking.ended.connect(self._on_asked)
            self._asking.start(in_passing=True)

    def _on_asked(self, complete: bool) -> None:
        self._asking = None
        if complete:
            # The user may have gone on to another frame meanwhile.
            self._compare()


def _models(_widget: object) -> list[tuple[str, Model]]:
    """List all models, the one that the student is best compared with first."""
    models = sorted(list_models(), key=lambda model: model.name != _FIRST)
    return [(model.name, model) for model in models]


def _dice(mask: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Dice of all polyps in two masks, without what the first ignores; 1 where there are none."""
    counted = mask != IGNORE
    ours, theirs = (mask > 0) & counted, (other > 0) & counted
    both = np.count_nonzero(ours & theirs)
    either = np.count_nonzero(ours) + np.count_nonzero(theirs)
    return 2 * both / either if either else 1.0
