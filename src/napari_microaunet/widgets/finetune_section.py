"""Fine-tune: a model learns from the user's own frames, in a process beside the window."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from magicgui.widgets import ComboBox
from napari.utils.notifications import show_error, show_info
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QFileDialog, QFormLayout, QLabel, QMessageBox, QWidget

from napari_microaunet.curation.dataset import open_dataset
from napari_microaunet.curation.incoming import name_in_dataset
from napari_microaunet.curation.learning import frames_to_learn_from, keep_splits
from napari_microaunet.curation.session import ReviewState
from napari_microaunet.curation.writer import WriteOptions, write_dataset
from napari_microaunet.distillation.advice import advise
from napari_microaunet.distillation.jobs import FinetuneJob, JobState, list_jobs
from napari_microaunet.distillation.recipe import changed, finetuning_recipe
from napari_microaunet.errors import InputError
from napari_microaunet.widgets.finetune_result import FinetuneResult
from napari_microaunet.widgets.finetune_run import FinetuneRun, suggested_name
from napari_microaunet.widgets.finetune_settings import FinetuneSettings
from napari_microaunet.widgets.give_way import GiveWay
from napari_microaunet.widgets.jobs import Job
from napari_microaunet.widgets.section import as_wide_as_the_dock, hint, primary_button

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_microaunet.curation.session import Session
    from napari_microaunet.distillation.advice import DatasetAdvice
    from napari_microaunet.frames import FrameSequence
    from napari_microaunet.widgets.jobs import Cancelled, Told
    from napari_microaunet.widgets.workbench import Workbench

_COUNT_MS = 500


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
        self._started_here: list[FinetuneJob] = []
        self.actions: dict[str, Callable[[], object]] = {}

        self.start_button = primary_button("Fine-tune")
        self.start_button.clicked.connect(self.start)
        self.source = ComboBox(label="Frames", choices=[(one.value, one) for one in Source])
        self.data = QLabel(wordWrap=True, objectName="quiet")
        self.settings = FinetuneSettings(bench)
        self.run = FinetuneRun()
        self.run.changed.connect(self._on_run)
        self.run.frame_wanted.connect(self._show_frame)
        self.run.discarded.connect(self.discard)
        self.run.gone_on.connect(self._started_here.append)
        self.give_way = GiveWay(bench)
        self.result = FinetuneResult()
        self.result.promoted.connect(self.promote)
        self.result.kept.connect(self.keep_as_draft)
        self.result.frame_wanted.connect(self._show_frame)
        as_wide_as_the_dock(self.source.native)
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

        layout = QFormLayout(self)
        layout.setContentsMargins(8, 0, 8, 0)
        layout.setVerticalSpacing(5)
        layout.addRow(self.start_button)
        layout.addRow(self.source.label, self.source.native)
        for row in (self.data, self.settings, self.run, self.result):
            layout.addRow(row)

        self._count_soon = QTimer(self, interval=_COUNT_MS, singleShot=True, timeout=self._count)
        self.source.changed.connect(self._on_source)
        bench.work_changed.connect(self._update)
        bench.job_changed.connect(self._update)
        bench.status_changed.connect(self._count_later)
        bench.models_changed.connect(self._on_run)
        bench.closing.connect(self._close)
        bench.viewer.events.theme.connect(self._restyle)
        self._restyle()
        self._update()
        for job in list_jobs():
            job.resume()  # a window that was killed may have left it waiting
        self.run.refresh()

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
        self._update()

        def end(found: DatasetAdvice | None) -> None:
            if found is not None:
                self.data.setText(f"{folder.name}: {_told(found)}")

        self._advise(lambda *_: folder, end)

    def start(self) -> None:
        """Look at the frames, say what speaks against it, then start a run."""
        folder = self._folder if self.source.value is Source.FOLDER else None
        request = self.settings.request(folder)
        if request is None or self._bench.job is not None:
            return
        session = self._bench.session if folder is None else None
        if self.source.value is Source.FOLDER and folder is None:
            self._ask_for_folder()
            return
        if folder is None and session is None:
            show_info("There is no session: open frames and accept some, or choose a dataset.")
            return
        if session is not None:
            request = request.model_copy(update={"session": session.folder})
        try:
            job = FinetuneJob.new(request)
        except InputError as error:
            show_error(str(error))
            return

        def data(told: Told, cancelled: Cancelled) -> Path:
            if session is None:
                return job.dataset
            batch = changed(finetuning_recipe(), request.changes).batch
            most = batch.most_unlabelled if request.teacher and batch.unlabelled > 0 else 0
            options = WriteOptions(name=session.sequence.name)
            frames = frames_to_learn_from(session, most)
            written = write_dataset(
                frames, job.dataset, options, progress=told, cancelled=cancelled
            )
            keep_splits(session, written.manifest)
            left_out.update(written.left_out)
            return job.dataset

        left_out: dict[str, str] = {}
        self._advise(data, lambda found: self._begin(job, found, left_out))

    def _advise(
        self,
        folder: Callable[[Told, Cancelled], Path],
        ended: Callable[[DatasetAdvice | None], None],
    ) -> None:
        """Look at a dataset in the background; None is handed over where that fails."""

        def look(told: Told, cancelled: Cancelled) -> DatasetAdvice:
            before = 0

            def tell(done: int, total: int) -> None:
                nonlocal before
                before = total
                told(done, total)

            dataset = open_dataset(folder(tell, cancelled), cancelled=cancelled)
            return advise(
                dataset, lambda done, total: told(before + done, before + total), cancelled
            )

        self._bench.run_with_progress("Looking at the frames to learn from", look, ended)

    def _begin(
        self, job: FinetuneJob, advice: DatasetAdvice | None, left_out: dict[str, str]
    ) -> None:
        """Start a run, unless something speaks against it."""
        if advice is None or advice.obstacles or not self._accepts(advice):
            job.discard()
            if advice is not None and advice.obstacles:
                show_error(" ".join(advice.obstacles))
            return
        said = _told(advice)
        if left_out:
            name, why = next(iter(left_out.items()))
            said += f" {len(left_out)} frames were left out, the first is {name}: {why}"
        self.data.setText(said)
        try:
            job.start()
        except InputError as error:
            show_error(str(error))
            return
        self._started_here.append(job)
        self.run.refresh(job.folder.name)

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
        self._update()

    def _ask_for_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Frames to learn from")
        if folder:
            self.use_folder(Path(folder))
        elif self._folder is None:
            self.source.value = Source.SESSION

    def _update(self) -> None:
        there = self.source.value is Source.FOLDER or self._bench.session is not None
        self.start_button.setEnabled(there and self._bench.job is None)
        self._count()

    def _count_later(self) -> None:
        self._count_soon.start()

    def _count(self) -> None:
        """Say how many frames of the session there are to learn from."""
        if self.source.value is Source.SESSION:
            self.data.setText("" if self._bench.session is None else _counted(self._bench.session))

    # While it runs, and after

    def _on_run(self) -> None:
        job = self.run.job
        if job is not None and self.run.state is JobState.RUNNING:
            self.give_way.job = job
        report = job.report() if job is not None and self.run.state is JobState.FINISHED else None
        self.result.setVisible(report is not None)
        if job is not None and report is not None:
            used_as = job.used_as
            self.result.show_report(
                report, suggested_name(job), None if used_as is None else used_as.name
            )
        self._update()

    def _close(self) -> None:
        self.run.look_no_more()
        if not self.settings.goes_on.value:
            for job in self._started_here:
                job.ask_to_stop()

    def promote(self, name: str) -> None:
        """Put the new model into every list of models.

        Parameters
        ----------
        name : str
            What it is to be called.
        """
        job = self.run.job
        if job is None or self._bench.is_busy():
            return

        def end(complete: bool) -> None:
            if complete:
                self._bench.models_changed.emit()
                self.run.tell_how_it_ended()
                show_info(f"{name} is in the lists of models now.")

        # The file is checked, which takes PyTorch; its import alone takes seconds.
        work = Job(f"Checking {name}", lambda _cancelled: [job.promote(name)], can_stop=False)
        self._bench.run(work, end)

    def keep_as_draft(self) -> None:
        """Keep the model with its run: out of the lists of models, or taken back from them."""
        job = self.run.job
        if job is None:
            return
        try:
            job.take_back()
        except InputError as error:
            show_error(str(error))
            return
        self._bench.models_changed.emit()
        self.run.tell_how_it_ended()
        show_info("The model is kept as a draft, with its run; it is in no list of models.")

    def discard(self) -> None:
        """Delete the run that is shown, after a question."""
        job = self.run.job
        if job is None:
            return
        answer = QMessageBox.question(
            self, "Discard the run?", f"Delete the run {job.request.title} and its draft?"
        )
        if answer == QMessageBox.StandardButton.Yes:
            job.discard()
            self.run.refresh()

    def _show_frame(self, name: str) -> None:
        """Show a frame of the dataset, among the open frames or in the dataset itself."""
        if self.run.job is None or self._bench.job is not None:
            return
        folder = self.run.job.dataset
        if self.run.job.request.dataset is None:
            self._show_in_session(self.run.job, name)
            return

        def look(_cancelled: Cancelled) -> list[tuple[FrameSequence, int]]:
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

    def _show_in_session(self, run: FinetuneJob, name: str) -> None:
        """Show a frame of the session that a run's frames were copied from, not the copy."""
        session = self._bench.session
        if session is None or session.folder != run.request.session:
            where = run.request.session or "the session that this run learned from"
            show_info(f"Open {where} to see {name}: what you correct is to be kept there.")
            return
        sequence = session.sequence
        names = [name_in_dataset(sequence.name, frame.name) for frame in sequence.frames]
        if name in names:
            self._bench.show_frame(sequence, names.index(name))

    def _restyle(self) -> None:
        self.run.restyle(self._bench.viewer.theme)


def _counted(session: Session) -> str:
    """Say in a line what a session has to learn from."""
    polyps = negatives = others = 0
    for status in session.statuses:
        if status.state is ReviewState.ACCEPTED:
            negatives += status.polyps == 0
            polyps += status.polyps != 0
        elif status.state is not ReviewState.EXCLUDED:
            others += 1
    return f"{polyps} accepted frames with polyps, {negatives} without; {others} not accepted."


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
