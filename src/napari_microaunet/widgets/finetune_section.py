"""Fine-tune: a model learns from the user's own frames, in a process beside the window."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from magicgui.widgets import CheckBox, ComboBox, SpinBox
from napari.utils.notifications import show_error, show_info
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import (
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QMessageBox,
    QProgressBar,
    QPushButton,
    QWidget,
)

from napari_microaunet.curation.dataset import open_dataset
from napari_microaunet.curation.incoming import incoming_frames
from napari_microaunet.curation.writer import write_dataset
from napari_microaunet.distillation.advice import look_at
from napari_microaunet.distillation.jobs import (
    FinetuneJob,
    FinetuneRequest,
    JobState,
    jobs_folder,
    list_jobs,
    spare_threads,
)
from napari_microaunet.errors import InputError
from napari_microaunet.networks.library import add_model, list_models
from napari_microaunet.widgets.finetune_curves import FinetuneCurves
from napari_microaunet.widgets.finetune_result import FinetuneResult
from napari_microaunet.widgets.jobs import Job, with_progress
from napari_microaunet.widgets.prelabel_section import device_choices, model_choices
from napari_microaunet.widgets.progress_row import duration
from napari_microaunet.widgets.section import as_wide_as_the_dock, hint, primary_button

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_microaunet.distillation.advice import DatasetAdvice
    from napari_microaunet.distillation.trainer import Event
    from napari_microaunet.frames import FrameSequence
    from napari_microaunet.widgets.workbench import Workbench

_LOOK_MS = 500
_ALIVE = (JobState.RUNNING, JobState.QUEUED)


class Source(Enum):
    """Where the frames to learn from come from."""

    SESSION = "accepted frames of this session"
    FOLDER = "a dataset or folder…"


class FinetuneSection(QWidget):
    """Choose frames, model and time; watch; decide about the new model."""

    title = "Fine-tune"

    def __init__(self, bench: Workbench) -> None:
        super().__init__()
        self._bench = bench
        self._folder: Path | None = None
        self._run: FinetuneJob | None = None
        self._position = 0
        self._state: JobState | None = None
        self.actions: dict[str, Callable[[], object]] = {}

        self.start_button = primary_button("Fine-tune")
        self.start_button.clicked.connect(self.start)
        self.source = ComboBox(label="Frames", choices=[(one.value, one) for one in Source])
        self.data = QLabel(wordWrap=True, objectName="quiet")
        self.model = ComboBox(label="Model", choices=model_choices)
        self.teacher = ComboBox(label="Teacher", choices=_teacher_choices, nullable=False)
        self.teacher.value = next(
            (value for value in self.teacher.choices if value == "expert"), None
        )
        self.adapt = CheckBox(text="Teach the teacher first", label="")
        self.minutes = SpinBox(label="Minutes", min=1, max=24 * 60, value=10)
        self.device = ComboBox(label="Device", choices=device_choices())
        self.goes_on = CheckBox(text="Goes on when the window is closed", value=True, label="")

        self.runs = ComboBox(label="Run", choices=self._run_choices)
        self.status = QLabel(wordWrap=True)
        self.bar = QProgressBar(textVisible=False, maximum=1000)
        self.bar.setFixedHeight(8)
        self.stop_button = QPushButton("Stop")
        self.stop_button.clicked.connect(self._stop_or_go_on)
        self.curves = FinetuneCurves()
        self.result = FinetuneResult()
        self.result.promoted.connect(self.promote)
        self.result.discarded.connect(self.discard)
        self.result.frame_wanted.connect(self._show_frame)
        as_wide_as_the_dock(
            *(one.native for one in (self.source, self.model, self.teacher, self.device, self.runs))
        )
        self._add_hints()

        layout = QFormLayout(self)
        layout.setContentsMargins(8, 0, 8, 0)
        layout.setVerticalSpacing(5)
        layout.addRow(self.start_button)
        layout.addRow(self.source.label, self.source.native)
        layout.addRow(self.data)
        for row in (self.model, self.teacher):
            layout.addRow(row.label, row.native)
        layout.addRow(self.adapt.native)
        for row in (self.minutes, self.device):
            layout.addRow(row.label, row.native)
        layout.addRow(self.goes_on.native)
        layout.addRow(self.runs.label, self.runs.native)
        progress = QHBoxLayout()
        progress.addWidget(self.bar, 1)
        progress.addWidget(self.stop_button)
        layout.addRow(progress)
        layout.addRow(self.status)
        layout.addRow(self.curves)
        layout.addRow(self.result)

        self._timer = QTimer(self, interval=_LOOK_MS)
        self._timer.timeout.connect(self._look)
        self.source.changed.connect(self._on_source)
        self.runs.changed.connect(self._watch)
        bench.work_changed.connect(self._update)
        bench.job_changed.connect(self._update)
        bench.closing.connect(self._close)
        bench.viewer.events.theme.connect(self._restyle)
        self._restyle()
        self._watch(self.runs.value)

    # Before

    def use_folder(self, folder: Path) -> None:
        """Learn from a curated dataset or a folder, and say what is in it.

        Parameters
        ----------
        folder : Path
            The folder.
        """
        self._folder = folder
        with self.source.changed.blocked():
            self.source.value = Source.FOLDER

        def end(found: list[DatasetAdvice]) -> None:
            if found:
                self.data.setText(f"{folder.name}: {_told(found[0])}")

        self._advise(lambda: folder, end)

    def start(self) -> None:
        """Look at the frames, say what speaks against it, then start a run."""
        model = self.model.value
        if model is None or self._bench.job is not None:
            return
        request = FinetuneRequest(
            title=f"{model.name}, {self.minutes.value} min",
            dataset=self._folder if self.source.value is Source.FOLDER else None,
            start=str(model.path),
            teacher=self.teacher.value,
            adapt_teacher=self.adapt.value and self.teacher.value is not None,
            minutes=self.minutes.value,
            device=self.device.value,
            threads=spare_threads(),
        )
        work = self._bench.work
        if self.source.value is Source.FOLDER:
            if self._folder is None:
                self._ask_for_folder()
                return
            run = FinetuneJob.new(request)
            folder = self._folder
            self._advise(lambda: folder, lambda found: self._begin(run, found))
            return
        if work is None or work.session is None:
            show_info("There is no session: open frames and accept some, or choose a dataset.")
            return
        session, run = work.session, FinetuneJob.new(request)

        def write() -> Path:
            write_dataset(incoming_frames(session, "all"), run.dataset)
            return run.dataset

        self._advise(write, lambda found: self._begin(run, found))

    def _advise(
        self, folder: Callable[[], Path], ended: Callable[[list[DatasetAdvice]], None]
    ) -> None:
        """Look at a dataset in the background; nothing is handed over where that fails."""
        found: list[DatasetAdvice] = []

        def look(_cancelled: Callable[[], bool]) -> Iterator[int]:
            dataset = open_dataset(folder())
            job.total = len(dataset.frames)
            yield from with_progress(lambda told: found.append(look_at(dataset, told)))

        job = Job("Looking at the frames to learn from", look)
        self._bench.run(job, lambda complete: ended(found if complete else []))

    def _begin(self, run: FinetuneJob, found: list[DatasetAdvice]) -> None:
        """Start a run, unless something speaks against it."""
        advice = found[0] if found else None
        if advice is None or advice.obstacles or not self._accepts(advice):
            run.discard()
            if advice is not None and advice.obstacles:
                show_error(" ".join(advice.obstacles))
            return
        self.data.setText(_told(advice))
        run.start()
        self.runs.reset_choices()
        self.runs.value = run.folder.name
        self._watch(run.folder.name)

    def _accepts(self, advice: DatasetAdvice) -> bool:
        if not advice.warnings:
            return True
        answer = QMessageBox.question(
            self, "Fine-tune all the same?", "\n\n".join((*advice.warnings, "Start all the same?"))
        )
        return bool(answer == QMessageBox.StandardButton.Yes)

    def _on_source(self) -> None:
        if self.source.value is Source.FOLDER:
            self._ask_for_folder()
        else:
            self.data.setText("")
        self._update()

    def _ask_for_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Frames to learn from")
        if folder:
            self.use_folder(Path(folder))
        elif self._folder is None:
            self.source.value = Source.SESSION

    # While it runs

    @property
    def run(self) -> FinetuneJob | None:
        """The run that is shown."""
        return self._run

    def _run_choices(self, _widget: object = None) -> list[tuple[str, str | None]]:
        runs = list_jobs()
        if not runs:
            return [("none yet", None)]
        return [(f"{run.folder.name[:10]} {run.request.title}", run.folder.name) for run in runs]

    def _watch(self, name: str | None) -> None:
        """Show another run from its beginning."""
        self._position, self._state = 0, None
        self.curves.clear()
        try:
            self._run = None if name is None else FinetuneJob(jobs_folder() / name)
        except InputError as error:
            self._run = None
            show_error(str(error))
        self._timer.start()
        self._look()

    def _look(self) -> None:
        """Take in what the run has told since the last look."""
        run = self._run
        there = run is not None
        for widget in (self.runs.native, self.bar, self.stop_button, self.status, self.curves):
            widget.setVisible(there)
        if run is None:
            self._timer.stop()
            self.result.hide()
            return
        events = list(run.events(self._position))
        if events:
            self._position = events[-1]["position"]
            self.curves.add(events)
            self._tell(events)
        state = run.state
        if state is not self._state:
            self._state = state
            self._on_state(run, state)

    def _tell(self, events: list[Event]) -> None:
        """Say how far the run is, by the last event that tells."""
        for event in reversed(events):
            match event:
                case {"event": "step", "progress": progress, "stage": stage, "minutes": minutes}:
                    left = minutes * (1 - progress) / progress * 60 if progress else 0.0
                    whose = "Teacher" if event.get("part") == "teacher" else "Student"
                    self.bar.setValue(round(1000 * progress))
                    self.status.setText(f"{whose}, {stage} stage · {duration(left)} left")
                    return
                case {"event": name, "done": done, "total": total}:
                    self.bar.setValue(round(1000 * done / max(1, total)))
                    self.status.setText(f"{name.capitalize()}: {done} of {total}")
                    return
                case {"event": "out of memory", "chunk": chunk}:
                    show_info(
                        f"The graphics card's memory is full: going on with {chunk} frames at once."
                    )

    def _on_state(self, run: FinetuneJob, state: JobState) -> None:
        alive = state in _ALIVE
        self.stop_button.setText("Stop" if alive else "Go on")
        self.stop_button.setEnabled(state is not JobState.FINISHED)
        if not alive:
            self._timer.stop()
            self.status.setText(_ended(run, state))
        elif state is JobState.QUEUED:
            self.status.setText("Starting, or waiting for another run to end")
        report = run.report() if state is JobState.FINISHED else None
        self.result.setVisible(report is not None)
        if report is not None:
            self.result.show_report(
                report, f"{Path(run.request.start).stem} {run.folder.name[:10]}"
            )
        self._update()

    def _stop_or_go_on(self) -> None:
        run = self._run
        if run is None:
            return
        if run.state in _ALIVE:
            self.stop_button.setEnabled(False)
            self.status.setText("Stopping after the step at hand")
            run.ask_to_stop()
        else:
            run.start()
            self._state = None
        self._timer.start()

    def _close(self) -> None:
        self._timer.stop()
        if self._run is not None and not self.goes_on.value:
            self._run.ask_to_stop()

    # After

    def promote(self, name: str) -> None:
        """Put the new model into every list of models.

        Parameters
        ----------
        name : str
            What it is to be called.
        """
        if self._run is None:
            return
        try:
            model = add_model(self._run.model_file, name)
        except InputError as error:
            show_error(str(error))
            return
        self._bench.models_changed.emit()
        show_info(f"{model.name} is in the lists of models now.")

    def discard(self) -> None:
        """Delete the run that is shown, after a question."""
        run = self._run
        if run is None:
            return
        answer = QMessageBox.question(
            self, "Discard the run?", f"Delete the run {run.request.title} and its model?"
        )
        if answer == QMessageBox.StandardButton.Yes:
            run.discard()
            self.runs.reset_choices()
            self._watch(self.runs.value)

    def _show_frame(self, name: str) -> None:
        """Show a frame of the dataset, among the open frames or in the dataset itself."""
        if self._run is None:
            return
        folder = self._run.dataset

        def look(_cancelled: Callable[[], bool]) -> list[tuple[FrameSequence, int]]:
            dataset = open_dataset(folder)
            names = [record.name for record in dataset.frames]
            return [(dataset.sequence, names.index(name))] if name in names else []

        found: list[tuple[FrameSequence, int]] = []

        def end(complete: bool) -> None:
            if complete and found:
                self._bench.show_frame(*found[0])

        job = Job(f"Looking for {name}", look)
        job.item.connect(found.append)
        self._bench.run(job, end)

    def _update(self) -> None:
        there = self.source.value is Source.FOLDER or (
            self._bench.work is not None and self._bench.work.session is not None
        )
        self.start_button.setEnabled(there and self._bench.job is None)

    def _restyle(self) -> None:
        self.curves.restyle(self._bench.viewer.theme)

    def _add_hints(self) -> None:
        hint(
            self.start_button,
            "Teach a copy of the model with your frames, in a process beside this window.\n"
            "The model itself stays as it is; whether the new one is better is shown in the end.",
        )
        hint(
            self.source.native,
            "Accepted frames teach with their masks; the teacher gives the others soft labels.\n"
            "Excluded frames and ignored regions take no part.",
        )
        hint(self.model.native, "The model that is taught further.")
        hint(
            self.teacher.native,
            "The model that teaches beside your labels. The expert knows most; without a teacher\n"
            "the frames that are not reviewed teach nothing.",
        )
        hint(
            self.adapt.native,
            "The teacher learns from your frames first, in two fifths of the time:\n"
            "for frames that look unlike those it knows.",
        )
        hint(self.minutes.native, "Time to train; reading and scoring come on top.")
        hint(self.device.native, "A graphics card is many times as fast.")
        hint(
            self.goes_on.native,
            "The run is found again when the window is opened next. Otherwise it is stopped, and\n"
            "can go on from where it was.",
        )
        hint(self.runs.native, "Runs on this machine, the latest first.")
        hint(self.stop_button, "Stop after the step at hand; it can go on later.")
        hint(
            self.curves,
            "Left the loss, right the scores on validation frames, over minutes; the star is the\n"
            "best so far, whose weights are kept. A line across marks the preference stage.",
        )


def _teacher_choices(_widget: object) -> list[tuple[str, str | None]]:
    return [*((model.name, model.name) for model in list_models()), ("none", None)]


def _told(advice: DatasetAdvice) -> str:
    """Say in a line what a dataset holds."""
    polyps, negatives, unlabelled = (
        sum(kind.values()) for kind in (advice.polyps, advice.negatives, advice.unlabelled)
    )
    held_out = sum(
        kind.get(split, 0)
        for kind in (advice.polyps, advice.negatives)
        for split in ("validation", "test")
    )
    return (
        f"{polyps} frames with polyps, {negatives} without, {unlabelled} not labelled, in "
        f"{advice.groups} videos or scenes; {held_out} are held out."
    )


def _ended(run: FinetuneJob, state: JobState) -> str:
    if state is JobState.FINISHED:
        return "Finished."
    if state is JobState.KILLED:
        return f"The run was killed; it can go on. {run.errors_file} may say why."
    return run.sentence or "Not started."
