"""One fine-tuning as it happens: stage, time left, load, curves, held-out frames."""

from __future__ import annotations

from collections import Counter
from itertools import chain, count, islice
from pathlib import Path
from typing import TYPE_CHECKING

from magicgui.widgets import ComboBox
from napari.utils.notifications import show_error, show_info
from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QFormLayout, QHBoxLayout, QLabel, QProgressBar, QPushButton, QWidget

from napari_microaunet.distillation.jobs import FinetuneJob, JobState, jobs_folder, list_jobs
from napari_microaunet.errors import InputError
from napari_microaunet.networks.library import list_models
from napari_microaunet.widgets.finetune_curves import FinetuneCurves
from napari_microaunet.widgets.finetune_strip import FinetuneStrip
from napari_microaunet.widgets.progress_row import duration
from napari_microaunet.widgets.section import as_wide_as_the_dock, hint

if TYPE_CHECKING:
    from napari_microaunet.distillation.events import Event

_LOOK_MS, _CATCH_UP_MS = 500, 20
# A run ends itself within a second, unless it hangs.
_PATIENCE_MS = 5000
# Taken in at once: a night's events would stop the window for a second.
_MOST_EVENTS = 500
_ALIVE = (JobState.RUNNING, JobState.QUEUED)


class FinetuneRun(QWidget):
    """Choose one of the runs on this machine; watch it, stop it, go on with it.

    Attributes
    ----------
    changed : Signal()
        Another run is shown, or the one on show has come to another state.
    frame_wanted : Signal(str)
        This frame of the dataset is to be shown.
    discarded : Signal()
        The run on show is to be deleted.
    gone_on : Signal(FinetuneJob)
        A run that had stopped was started again.
    """

    changed = Signal()
    frame_wanted = Signal(str)
    discarded = Signal()
    gone_on = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.job: FinetuneJob | None = None
        self.state: JobState | None = None
        self._position = 0
        self._graphics = ""
        self._patience = QTimer(
            self, interval=_PATIENCE_MS, singleShot=True, timeout=self._stop_by_force
        )
        self.runs = ComboBox(label="Run", choices=_run_choices)
        self.status = QLabel(wordWrap=True)
        self.plan = QLabel(objectName="quiet", wordWrap=True)
        self.load = QLabel(objectName="quiet")
        self.bar = QProgressBar(textVisible=False, maximum=1000)
        self.bar.setFixedHeight(8)
        self.stop_button = QPushButton("Stop")
        self.stop_button.clicked.connect(self._stop_or_go_on)
        self.discard_button = QPushButton("Discard")
        self.discard_button.clicked.connect(self.discarded)
        self._curves: FinetuneCurves | None = None  # a tenth of a second: made for the first run
        self._theme = "dark"
        self.strip = FinetuneStrip()
        self.strip.frame_wanted.connect(self.frame_wanted)
        as_wide_as_the_dock(self.runs.native)
        hint(self.runs.native, "Runs on this machine, the latest first.")
        hint(
            self.stop_button,
            "Stop within a second; it can go on later. At most the last minute is trained again.",
        )
        hint(
            self.discard_button,
            "Delete the run, its draft and the frames written for it, also while it trains.\n"
            "Models in use stay.",
        )
        hint(
            self.plan,
            "How the run makes do with its minutes. Where few steps fit, it begins with small\n"
            "frames or keeps the encoder as it is; what you set under Advanced stays.",
        )
        hint(self.load, "What the run takes of this machine, measured now.")
        progress = QHBoxLayout()
        progress.addWidget(self.bar, 1)
        progress.addWidget(self.stop_button)
        progress.addWidget(self.discard_button)
        layout = QFormLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setVerticalSpacing(5)
        layout.addRow(self.runs.label, self.runs.native)
        layout.addRow(progress)
        for row in (self.status, self.plan, self.load, self.strip):
            layout.addRow(row)
        self._layout = layout
        self._timer = QTimer(self, interval=_LOOK_MS, timeout=self._look)
        self.runs.changed.connect(self.show_run)

    @property
    def curves(self) -> FinetuneCurves:
        """The curves of the run."""
        if self._curves is None:
            self._curves = FinetuneCurves()
            self._curves.restyle(self._theme)
            hint(
                self._curves,
                "Left the loss, right the scores on validation frames, over minutes. The star is\n"
                "the best so far, whose weights are kept; a line marks the preference stage.",
            )
            self._layout.addRow(self._curves)
        return self._curves

    def restyle(self, theme_name: str) -> None:
        """Take on the colours of napari's theme."""
        self._theme = theme_name
        if self._curves is not None:
            self._curves.restyle(theme_name)

    def refresh(self, name: str | None = None) -> None:
        """Look for runs anew, and show one of them.

        Parameters
        ----------
        name : str, optional
            Which one; the latest by default.
        """
        with self.runs.changed.blocked():
            self.runs.reset_choices()
            self.runs.value = self.runs.choices[0] if name is None else name
        self.show_run(self.runs.value)

    def show_run(self, name: str | None) -> None:
        """Show another run from its beginning.

        Parameters
        ----------
        name : str or None
            Of its folder; None for none.
        """
        self._position, self.state, self._graphics = 0, None, ""
        self._patience.stop()
        self.strip.clear()
        self.plan.hide()
        try:
            self.job = None if name is None else FinetuneJob(jobs_folder() / name)
        except InputError as error:
            self.job = None
            show_error(str(error))
        self.setVisible(self.job is not None)
        if self.job is None:
            self._timer.stop()
            self.changed.emit()
            return
        self.curves.clear()
        self._timer.start(_CATCH_UP_MS)
        self._look()

    def look_no_more(self) -> None:
        """Stop watching: the window closes."""
        self._timer.stop()
        self._patience.stop()

    def _look(self) -> None:
        """Take in what the run has told since the last look."""
        job = self.job
        if job is None:
            return
        events = list(islice(job.events(self._position), _MOST_EVENTS))
        behind = len(events) == _MOST_EVENTS
        self._timer.setInterval(_CATCH_UP_MS if behind else _LOOK_MS)
        if events:
            self._position = events[-1]["position"]
            self.curves.add(events)
            self.strip.add(events, job.run_folder)
            self._tell(events)
        if behind:
            return
        state = job.state
        self._show_load(job)
        if state is not self.state:
            self.state = state
            self._on_state(state)

    def _tell(self, events: list[Event]) -> None:
        """Say how far the run is, by the last event that tells."""
        for event in events:
            if event["event"] == "time box":
                self.plan.setText(f"About {event['steps']} steps fit: {event['title']}")
                self.plan.show()
            if event["event"] == "out of memory" and self.state is JobState.RUNNING:
                show_info(
                    "The graphics card's memory is full: going on with "
                    f"{event['chunk']} frames at once."
                )
        for event in reversed(events):
            match event:
                case {"event": "step", "progress": progress, "stage": stage, "minutes": minutes}:
                    left = minutes * (1 - progress) / progress * 60 if progress else 0.0
                    whose = "Teacher" if event.get("part") == "teacher" else "Student"
                    self.bar.setValue(round(1000 * progress))
                    self.status.setText(f"{whose}, {stage} stage · {duration(left)} left")
                    if memory := event.get("graphics_memory"):
                        used, of = (one / 2**30 for one in memory)
                        self._graphics = f" · graphics memory {used:.1f} of {of:.0f} GiB"
                    return
                case {"event": name, "done": done, "total": total}:
                    self.bar.setValue(round(1000 * done / max(1, total)))
                    self.status.setText(f"{name.capitalize()}: {done} of {total}")
                    return

    def _show_load(self, job: FinetuneJob) -> None:
        load = job.load()
        self.load.setVisible(load is not None)
        if load is not None:
            self.load.setText(
                f"{load.cores:.1f} cores busy · {load.memory / 2**30:.1f} GiB{self._graphics}"
            )

    def _on_state(self, state: JobState) -> None:
        alive = state in _ALIVE
        self.stop_button.setText("Stop" if alive else "Go on")
        self.stop_button.setEnabled(state is not JobState.FINISHED)
        if not alive:
            self._timer.stop()
            self.load.hide()
            self.tell_how_it_ended()
        elif state is JobState.QUEUED:
            self.status.setText("Starting, or waiting for another run to end")
        self.changed.emit()

    def tell_how_it_ended(self) -> None:
        """Say anew what has become of a run that is over."""
        if self.job is not None and self.state is not None and self.state not in _ALIVE:
            self.status.setText(_ended(self.job, self.state))

    def _stop_or_go_on(self) -> None:
        job = self.job
        if job is None:
            return
        if job.state in _ALIVE:
            self.stop_button.setEnabled(False)
            self.status.setText("Stopping")
            job.ask_to_stop()
            self._patience.start()
        else:
            try:
                job.start()
            except InputError as error:
                show_error(str(error))
                return
            self.state = None
            self.gone_on.emit(job)
        self._timer.start(_LOOK_MS)

    def _stop_by_force(self) -> None:
        """End a process that was asked to stop and is too busy to listen."""
        if self.job is not None and self.job.stop_file.exists():
            self.job.kill()


def _run_choices(_widget: object = None) -> list[tuple[str, str | None]]:
    runs = list_jobs()
    if not runs:
        return [("none yet", None)]
    # Labels must differ: a list takes equal ones for one.
    labels: Counter[str] = Counter()
    choices: list[tuple[str, str | None]] = []
    for run in runs:
        label = f"{run.made:%d %b %H:%M} {run.request.title}"
        labels[label] += 1
        again = f" ({labels[label]})" if labels[label] > 1 else ""
        choices.append((label + again, run.folder.name))
    return choices


def _ended(job: FinetuneJob, state: JobState) -> str:
    if state is JobState.FINISHED:
        used_as = job.used_as
        return "Finished: a draft." if used_as is None else f"Finished: in use as {used_as.name}."
    if state is JobState.KILLED and job.stop_file.exists():
        return "Stopped by force; it can go on from its last checkpoint."
    if state is JobState.KILLED:
        return f"The run was killed; it can go on. {job.errors_file} may say why."
    return job.sentence or "Not started."


def suggested_name(job: FinetuneJob) -> str:
    """Return a name for the model of a run that is free: the model it came from, and the day."""
    name = f"{Path(job.request.start).stem} {job.made:%Y-%m-%d}"
    taken = {model.name.casefold() for model in list_models()}
    others = (f"{name} {number}" for number in count(2))
    return next(one for one in chain([name], others) if one.casefold() not in taken)
