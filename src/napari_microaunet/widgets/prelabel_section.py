"""Pre-label: a model gives frames their first masks, settings shape them."""

from __future__ import annotations

from contextlib import ExitStack
from enum import Enum
from typing import TYPE_CHECKING

from magicgui.widgets import CheckBox, ComboBox, Container, FloatSlider, SpinBox
from napari.utils.notifications import show_error
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDoubleSpinBox, QFormLayout, QLabel, QWidget

from napari_microaunet.curation.session import MaskOrigin
from napari_microaunet.errors import InputError
from napari_microaunet.prelabel.masks import MaskSettings
from napari_microaunet.widgets.choices import device_choices, keep_choice, model_choices
from napari_microaunet.widgets.overlay import Overlay, OverlayStyle
from napari_microaunet.widgets.prelabel_jobs import Predictors, prelabel, prelabel_shown
from napari_microaunet.widgets.section import hint, may_replace, primary_button

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_microaunet.prelabel.predictor import Predictor
    from napari_microaunet.widgets.jobs import Job
    from napari_microaunet.widgets.work import Work
    from napari_microaunet.widgets.workbench import Workbench

_MODEL = "model"
_THRESHOLD_STEP, _AREA_STEP, _LARGEST_AREA = 0.05, 0.05, 5.0


class Which(Enum):
    """Which frames are pre-labelled by the button."""

    ALL = "all"
    WITHOUT_MASKS = "those without masks"
    RANGE = "a range"
    SHOWN = "this one"


class PrelabelSection(QWidget):
    """Run a model, once or live; shape the masks; draw them."""

    title = "Pre-label"

    def __init__(self, bench: Workbench) -> None:
        super().__init__()
        self._bench = bench
        self._predictors = Predictors()
        self._live_job: Job | None = None
        self._overlays: dict[Work, Overlay] = {}

        self.run_button = primary_button("Pre-label all")
        hint(
            self.run_button,
            "Let the model give the chosen frames their masks.\n"
            "Masks that you drew or corrected are not replaced unless you say so.",
            "prelabel",
        )
        self.run_button.clicked.connect(self.run)

        self.model = ComboBox(label="Model", choices=model_choices)
        self.device = ComboBox(label="Device", choices=device_choices())
        self.which = ComboBox(label="Frames", choices=[(which.value, which) for which in Which])
        self.first = SpinBox(label="from", min=0, max=0)
        self.last = SpinBox(label="to", min=0, max=0)
        self.live = CheckBox(text="Live: pre-label what is shown", label="")
        self.threshold = FloatSlider(label="Threshold", min=0.05, max=0.95, step=0.01)
        self.least_peak = FloatSlider(label="Least peak", min=0.0, max=0.99, step=0.01)
        self.smallest_area = FloatSlider(
            label="Smallest, %", min=0.0, max=_LARGEST_AREA, step=_AREA_STEP
        )
        self.fill_holes = CheckBox(text="Fill holes", label="")
        self.largest_only = CheckBox(text="Largest polyp only", label="")
        self.style = ComboBox(label="Drawn", choices=[(s.value, s) for s in OverlayStyle])
        self.status = QLabel(wordWrap=True)
        # Room for three lines at all times: what is below does not jump.
        self.status.setMinimumHeight(3 * self.status.fontMetrics().lineSpacing())
        self.status.setAlignment(Qt.AlignmentFlag.AlignTop)
        self._add_hints()
        self.range = Container(widgets=[self.first, self.last], layout="horizontal")
        self.range.native.layout().setContentsMargins(0, 0, 0, 0)
        for slider in (self.threshold, self.least_peak, self.smallest_area):
            # magicgui takes the buttons away, and under napari's style the number with them.
            number = slider.native.findChild(QDoubleSpinBox)
            number.setButtonSymbols(QDoubleSpinBox.ButtonSymbols.UpDownArrows)
            number.setStyleSheet("")

        layout = QFormLayout(self)
        layout.setContentsMargins(8, 0, 8, 0)
        layout.setVerticalSpacing(5)
        layout.addRow(self.run_button)
        for row in (self.model, self.device, self.which):
            layout.addRow(row.label, row.native)
        layout.addRow(self.range.native)
        layout.addRow(self.live.native)
        layout.addRow(self.status)
        layout.addRow(QLabel("Masks", objectName="subheading"))
        for row in (self.threshold, self.least_peak, self.smallest_area):
            layout.addRow(row.label, row.native)
        layout.addRow(self.fill_holes.native)
        layout.addRow(self.largest_only.native)
        layout.addRow(self.style.label, self.style.native)

        self._take_settings()
        self.model.changed.connect(self._on_model)
        self.which.changed.connect(self._update)
        self.first.changed.connect(self._update)
        self.last.changed.connect(self._update)
        self.live.changed.connect(self._on_live)
        for setting in (
            self.threshold,
            self.least_peak,
            self.smallest_area,
            self.fill_holes,
            self.largest_only,
        ):
            setting.changed.connect(self._on_setting)
        self.style.changed.connect(self._on_style)
        bench.settings_changed.connect(self._take_settings)
        bench.models_changed.connect(self._on_models)
        bench.work_changed.connect(self._on_work)
        bench.job_changed.connect(self._update)
        bench.shown_changed.connect(self._on_shown)
        bench.frame_changed.connect(self._on_frame)
        bench.closing.connect(self._remove_outlines)
        self._on_model()
        self._on_work()

    @property
    def actions(self) -> dict[str, Callable[[], object]]:
        """What the section does on keys."""
        return {
            "prelabel": self.run,
            "prelabel_frame": self.run_shown,
            "cancel": self._bench.cancel,
            "live": lambda: _switch(self.live),
            "threshold_down": lambda: _step(self.threshold, -_THRESHOLD_STEP),
            "threshold_up": lambda: _step(self.threshold, _THRESHOLD_STEP),
            "smallest_area_down": lambda: _step(self.smallest_area, -_AREA_STEP),
            "smallest_area_up": lambda: _step(self.smallest_area, _AREA_STEP),
            "fill_holes": lambda: _switch(self.fill_holes),
            "largest_only": lambda: _switch(self.largest_only),
            "overlay": self.next_style,
        }

    # Running

    def run(self) -> None:
        """Pre-label the chosen frames."""
        self._prelabel(self.chosen_frames())

    def run_shown(self) -> None:
        """Pre-label the frame on show."""
        if self._bench.work is not None:
            self._prelabel([self._bench.shown])

    def chosen_frames(self) -> list[int]:
        """List the frames that `which` asks for, the one on show first."""
        work = self._bench.work
        if work is None:
            return []
        shown, count = self._bench.shown, len(work.sequence)
        frames = {
            Which.ALL: range(count),
            Which.WITHOUT_MASKS: (i for i in range(count) if not _has_mask(work, i)),
            Which.RANGE: range(self._range[0], self._range[1] + 1),
            Which.SHOWN: [shown],
        }[self.which.value]
        return sorted(frames, key=lambda index: (index != shown, index))

    @property
    def _range(self) -> tuple[int, int]:
        """First and last frame of the range, whichever was typed where."""
        first, last = self.first.value, self.last.value
        return min(first, last), max(first, last)

    def _prelabel(self, indices: list[int]) -> None:
        work = self._bench.work
        if work is None or self._bench.is_busy() or self._bench.is_read_only():
            return
        if not indices:
            self._bench.message = "All frames have masks already."
            self._update()
            return
        try:
            open_predictor = self._predictor()
            permitted = may_replace(self, work.masks, indices)
            if permitted is not None:
                prelabel(self._bench, open_predictor, indices, permitted)
        except InputError as error:
            show_error(str(error))

    def _predictor(self) -> Callable[[], Predictor]:
        model, device = self.model.value, self.device.value
        if model is None:
            raise InputError("There is no model to run: the installation is incomplete.")
        return lambda: self._predictors.get(model, device)

    def _on_live(self) -> None:
        if self.live.value:
            self._prelabel_live()

    def _prelabel_live(self) -> None:
        """Pre-label the frame on show, if it has no mask and no other one is in hand."""
        bench = self._bench
        work, index = bench.work, bench.shown
        live = self.live.value and bench.may_change and self._live_job is None
        if work is None or not live:
            return
        if index in work.sequence.problems or _has_mask(work, index):
            return
        if work.masks is None and bench.job is not None and bench.mask_layers(work):
            # Masks that came with the frames are being taken over: they would be drawn twice.
            return
        if work.prelabels is not None and index in work.prelabels:
            # Its pre-label was undone: it stays so.
            return
        try:
            self._live_job = prelabel_shown(bench, self._predictor())
        except InputError as error:
            self.live.value = False
            show_error(str(error))
            return
        self._live_job.ended.connect(self._on_live_ended)
        self._live_job.start(in_passing=True)

    def _on_live_ended(self, complete: bool) -> None:
        self._live_job = None
        if complete:
            # The user may have gone on to another frame meanwhile.
            self._prelabel_live()

    # Settings

    def next_style(self) -> None:
        """Draw masks in the next way."""
        styles = list(OverlayStyle)
        self.style.value = styles[(styles.index(self.style.value) + 1) % len(styles)]

    def _on_model(self) -> None:
        if self.model.value is not None:
            with self.threshold.changed.blocked(), self.least_peak.changed.blocked():
                self.threshold.value = self.model.value.card.threshold
                self.least_peak.value = self.model.value.card.least_peak
            # Also where they stay where they are: they are another model's now.
            self._on_setting()
            self.model.native.setToolTip(self.model.value.card.description)
            self._keep_model()

    def _on_models(self) -> None:
        if keep_choice(self.model):
            self._keep_model()
        else:
            self._on_model()

    def _keep_model(self) -> None:
        work = self._bench.work
        # Until there are masks, the model that the session was left with is not yet chosen.
        session = None if work is None or work.masks is None else work.session
        if session is not None and self.model.value is not None:
            session.set_setting(_MODEL, self.model.value.name)

    def _take_settings(self) -> None:
        """Show the workbench's settings, and the model that they were used with."""
        settings, session = self._bench.settings, self._bench.session
        name = None if session is None else session.setting(_MODEL)
        model = next((model for model in self.model.choices if model.name == name), None)
        with ExitStack() as blocked:
            for control in (
                self.model,
                self.threshold,
                self.least_peak,
                self.smallest_area,
                self.fill_holes,
                self.largest_only,
            ):
                blocked.enter_context(control.changed.blocked())
            if model is not None:
                self.model.value = model
            self.threshold.value = settings.threshold
            self.least_peak.value = settings.least_peak
            self.smallest_area.value = 100 * settings.smallest_area
            self.fill_holes.value = settings.fill_holes
            self.largest_only.value = settings.largest_only

    def _on_setting(self) -> None:
        self._bench.set_settings(
            MaskSettings(
                threshold=self.threshold.value,
                smallest_area=self.smallest_area.value / 100,
                fill_holes=self.fill_holes.value,
                largest_only=self.largest_only.value,
                least_peak=self.least_peak.value,
            ),
            "" if self.model.value is None else self.model.value.name,
        )

    def _on_style(self) -> None:
        for overlay in self._overlays.values():
            overlay.set_style(self.style.value)

    # What is shown

    def _on_work(self) -> None:
        work = self._bench.work
        for one in [one for one in self._overlays if one.masks is None]:
            self._overlays.pop(one).remove_outline()
        if work is not None and work.masks is not None and work not in self._overlays:
            self._overlays[work] = Overlay(self._bench.viewer, work.masks, self.style.value)
        last = 0 if work is None else len(work.sequence) - 1
        for box in (self.first, self.last):
            box.max = last
        self.first.value, self.last.value = 0, last
        self.model.reset_choices()
        self._keep_model()
        self._update()

    def _remove_outlines(self) -> None:
        for overlay in self._overlays.values():
            overlay.remove_outline()
        self._overlays.clear()

    def _on_shown(self, _index: int) -> None:
        self._show_status()
        self._prelabel_live()

    def _on_frame(self, index: int) -> None:
        if index == self._bench.shown:
            self._show_status()

    def _update(self) -> None:
        bench = self._bench
        work, which = bench.work, self.which.value
        self.range.native.setVisible(which is Which.RANGE)
        count = 0 if work is None else len(work.sequence)
        self.run_button.setText(
            {
                Which.ALL: f"Pre-label all {count} frames" if count > 1 else "Pre-label all",
                Which.WITHOUT_MASKS: "Pre-label frames without masks",
                Which.RANGE: "Pre-label frames {} to {}".format(*self._range),
                Which.SHOWN: "Pre-label this frame",
            }[which]
        )
        self.run_button.setEnabled(bench.may_change and bench.job is None)
        self.live.enabled = bench.may_change
        # Its settings are those that a running job makes masks with.
        self.model.enabled = bench.job is None
        self._show_status()

    def _show_status(self) -> None:
        work, index = self._bench.work, self._bench.shown
        if work is None:
            self.status.setText("Open frames, then pre-label them.")
            return
        lines = [f"Frame {index}: {work.sequence.frames[index].name}"]
        if index in work.sequence.problems:
            lines.append("cannot be read")
        elif work.masks is not None and work.prelabels is not None:
            lines.append(work.masks.origin(index).title)
            trust = work.prelabels.confidence(index)
            if trust is not None:
                lines.append(f"confidence {trust:.2f}")
        self.status.setText("\n".join([" · ".join(lines), self._bench.message]).strip())

    def _add_hints(self) -> None:
        hint(
            self.device.native,
            "What runs the model. Automatic runs the bundled models on the processor, by ONNX\n"
            "Runtime, in some milliseconds per frame (the expert: a tenth of a second); yours by\n"
            "PyTorch, on a graphics card if there is one.",
        )
        hint(
            self.which.native,
            "Which frames the button pre-labels. A frame that you found to hold no polyp\n"
            "counts as one with a mask.",
        )
        for box in (self.first, self.last):
            hint(box.native, "Number of a frame, as napari's slider counts them, from 0.")
        hint(
            self.live.native,
            "Each frame that has no mask gets one as soon as you step to it.",
            "live",
        )
        hint(
            self.threshold.native,
            "Probability from which a pixel is polyp. Lower: larger masks and more of them.\n"
            "Higher: smaller masks and fewer. The model is not run again.",
            "threshold_down",
            "threshold_up",
        )
        hint(
            self.least_peak.native,
            "Regions are dropped that nowhere reach this probability: false alarms are pale.\n"
            "Higher: fewer false alarms, and polyps missed that the model is not sure of.",
        )
        hint(
            self.smallest_area.native,
            "Regions smaller than this share of the picture, in percent, are dropped.",
            "smallest_area_down",
            "smallest_area_up",
        )
        hint(self.fill_holes.native, "Holes inside a polyp become polyp.", "fill_holes")
        hint(
            self.largest_only.native,
            "Only the largest region of each frame is kept: for data with one polyp a frame.",
            "largest_only",
        )
        hint(self.style.native, "How masks are drawn over the frame.", "overlay")
        hint(
            self.status,
            "Confidence is the mean probability inside the mask or, where nothing is marked,\n"
            "that the most suspicious pixel is background: the lower, the more it needs you.",
        )


def _has_mask(work: Work, index: int) -> bool:
    if work.masks is None or work.prelabels is None:
        return False
    return (
        work.masks.origin(index) is not MaskOrigin.NONE
        or work.masks.is_users(index)
        or work.prelabels.wants(index) is not None
    )


def _switch(box: CheckBox) -> None:
    box.value = not box.value


def _step(slider: FloatSlider, by: float) -> None:
    slider.value = min(max(slider.value + by, slider.min), slider.max)
