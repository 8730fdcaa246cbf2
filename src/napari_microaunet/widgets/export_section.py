"""Export: masks for other tools, and from them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from magicgui.widgets import CheckBox, ComboBox
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import (
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QMessageBox,
    QPlainTextEdit,
    QPushButton,
    QWidget,
)

from napari_microaunet.curation.deidentify import Deidentifier
from napari_microaunet.curation.incoming import incoming_frames
from napari_microaunet.curation.manifest import MANIFEST_NAME
from napari_microaunet.curation.session import MaskOrigin
from napari_microaunet.curation.writer import WriteOptions, write_dataset
from napari_microaunet.errors import InputError
from napari_microaunet.exchange.export import MARK, export, preview
from napari_microaunet.exchange.formats import FORMATS
from napari_microaunet.exchange.importing import read_for_session
from napari_microaunet.exchange.labelled import labels_of_session
from napari_microaunet.widgets.jobs import Job
from napari_microaunet.widgets.prelabel_jobs import follow_settings
from napari_microaunet.widgets.section import (
    as_wide_as_the_dock,
    hint,
    may_replace,
    primary_button,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qtpy.QtGui import QShowEvent
    from zarr.core.buffer import Buffer

    from napari_microaunet.curation.incoming import Include
    from napari_microaunet.curation.writer import WriteResult
    from napari_microaunet.exchange.export import Preview, Summary
    from napari_microaunet.exchange.labelled import LabelSet
    from napari_microaunet.widgets.jobs import Cancelled, Told
    from napari_microaunet.widgets.workbench import Workbench

# In the words of the window.
_INCLUDE: dict[str, Include] = {
    "accepted frames": "accepted",
    "accepted, corrected or read from files": "edited",
    "all that have a mask": "all",
}
_LINES_IN_SIGHT = 7
# A preview is asked for when choices and decisions have rested for so long.
_REST_MS = 300


class ExportSection(QWidget):
    """Choose a format and what goes in, see what will be written, write it."""

    title = "Export"

    def __init__(self, bench: Workbench) -> None:
        super().__init__()
        self._bench = bench
        self._looking: Job | None = None
        self.actions: dict[str, Callable[[], object]] = {"export": self.export}

        self.export_button = primary_button("Export…")
        hint(
            self.export_button,
            "Write the masks for other tools into a folder that appears when it is whole.\n"
            "The frames and the session stay as they are.",
            "export",
        )
        self.export_button.clicked.connect(self.export)
        self.format = ComboBox(label="Format", choices=[(one.title, one) for one in FORMATS])
        self.include = ComboBox(label="Frames", choices=list(_INCLUDE.items()))
        self.selected_only = CheckBox(text="Only rows selected in the queue", label="")
        self.divide = CheckBox(text="Divide into training and validation", value=True, label="")
        self.preview = QPlainTextEdit(readOnly=True)
        self.preview.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        self.preview.setFixedHeight(_LINES_IN_SIGHT * self.preview.fontMetrics().lineSpacing() + 12)
        self.remarks = QLabel(wordWrap=True)
        self.summary = QLabel(wordWrap=True, objectName="subheading")
        self.summary.hide()
        self.import_button = QPushButton("Import labels…")
        self.import_button.clicked.connect(self.import_labels)
        self.dataset_button = QPushButton("Add to dataset…")
        self.dataset_button.clicked.connect(self._ask_for_dataset)
        self.deidentify = CheckBox(text="De-identify frames of the dataset", label="")
        as_wide_as_the_dock(self.format.native, self.include.native)
        self._add_hints()

        layout = QFormLayout(self)
        layout.setContentsMargins(8, 0, 8, 0)
        layout.setVerticalSpacing(5)
        layout.addRow(self.export_button)
        for row in (self.format, self.include):
            layout.addRow(row.label, row.native)
        layout.addRow(self.selected_only.native)
        layout.addRow(self.divide.native)
        layout.addRow(self.preview)
        layout.addRow(self.remarks)
        buttons = QHBoxLayout()
        buttons.setSpacing(4)
        buttons.addWidget(self.import_button)
        buttons.addWidget(self.dataset_button)
        layout.addRow(buttons)
        layout.addRow(self.deidentify.native)
        layout.addRow(self.summary)

        self._rest = QTimer(self, interval=_REST_MS, singleShot=True, timeout=self._look)
        for choice in (self.format, self.include, self.selected_only, self.divide):
            choice.changed.connect(self._update)
        bench.work_changed.connect(self._update)
        bench.job_changed.connect(self._update)
        bench.status_changed.connect(self._on_status)
        bench.selected_changed.connect(self._on_selected)
        self._update()

    def export(self) -> None:
        """Ask for a folder and write into it."""
        work, chosen = self._bench.work, self.format.value
        if work is None or work.session is None or self._bench.is_busy():
            return
        suggested = work.sequence.path.absolute().parent / f"{work.sequence.name}-{chosen.key}"
        target, _ = QFileDialog.getSaveFileName(
            self,
            "Export into a new folder",
            str(suggested),
            options=QFileDialog.Option.DontConfirmOverwrite,
        )
        if target and self._may_write_to(Path(target)):
            self.write(Path(target))

    def write(self, target: Path) -> None:
        """Write into a folder; an earlier export there is replaced.

        Parameters
        ----------
        target : Path
            The folder.
        """
        choose, chosen, bench = self._chooser(), self.format.value, self._bench
        if choose is None:
            return

        def run(progress: Told, cancelled: Cancelled) -> Summary:
            labels = choose(self.divide.value and chosen.divides, cancelled)
            return export(
                labels, chosen, target, overwrite=True, progress=progress, cancelled=cancelled
            )

        def end(summary: Summary | None) -> None:
            if summary is not None:
                self._tell(_told(summary))

        def start() -> None:
            bench.run_with_progress(f"Exporting to {target.name}", run, end, bench.work)

        # Masks that nobody has decided on go out as the sliders have them.
        if self.include.value == "all":
            follow_settings(bench, lambda _: start())
        else:
            start()

    def import_labels(self) -> None:
        """Ask for labels in the chosen format and read them."""
        work = self._bench.work
        if work is None or self._bench.is_busy() or self._bench.is_read_only():
            return
        start = str(work.sequence.path.absolute().parent)
        path = QFileDialog.getExistingDirectory(self, f"Import {self.format.value.title}", start)
        if path:
            self.read(Path(path))

    def read(self, path: Path) -> None:
        """Read labels of the chosen format, all of them or none.

        Parameters
        ----------
        path : Path
            The folder, or a file.
        """
        bench, chosen = self._bench, self.format.value
        work, prelabels = bench.start_masks()
        session = work.open_session()

        def run(progress: Told, cancelled: Cancelled) -> dict[int, Buffer | None]:
            progress(0, len(work.sequence))
            return read_for_session(session, chosen, path, progress=progress, cancelled=cancelled)

        def end(found: dict[int, Buffer | None] | None) -> None:
            if found is None:
                return
            others = [index for index in sorted(found) if not session.holds(index, found[index])]
            # Not before all is read: there is nothing to ask about labels that do not fit.
            permitted = may_replace(self, work.masks, others)
            if permitted is None:
                return
            taken = [
                index
                for index in others
                if not prelabels.masks.is_users(index) or index in permitted
            ]
            with session.step("Import labels"):
                for index in taken:
                    session.forget_former_acceptance(index)
                    prelabels.masks.set(index, found[index], MaskOrigin.FILE, undoable=True)
            same = len(found) - len(others)
            there = f" {same} were there already." if same else ""
            self._tell(f"Imported {len(taken)} masks from {path.name}.{there}")

        bench.run_with_progress(f"Importing {path.name}", run, end, work)

    def add_to_dataset(self, folder: Path) -> None:
        """Write the chosen frames to a curated dataset, a new one or one that grows.

        Parameters
        ----------
        folder : Path
            Where it is or will be.
        """
        work = self._bench.work
        if work is None or work.session is None:
            return
        session, include, names = work.session, self.include.value, self._names()
        options = WriteOptions(deidentifier=Deidentifier() if self.deidentify.value else None)

        def run(progress: Told, cancelled: Cancelled) -> WriteResult:
            frames = [
                frame
                for frame in incoming_frames(session, include)
                if names is None or session.sequence.frames[frame.index].name in names
            ]
            progress(0, len(frames))
            return write_dataset(
                frames,
                folder,
                options,
                append=(folder / MANIFEST_NAME).is_file(),
                progress=progress,
                cancelled=cancelled,
            )

        def end(result: WriteResult | None) -> None:
            if result is not None:
                self._tell(_told_of_dataset(result, folder))

        self._bench.run_with_progress(f"Writing the dataset {folder.name}", run, end, work)

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 - Qt's name
        """Look what would be written, now that somebody can see it."""
        super().showEvent(event)
        self._rest.start()

    def _may_write_to(self, target: Path) -> bool:
        if not (target / MARK).is_file():
            return True  # `export` refuses what is no earlier export
        answer = QMessageBox.question(
            self, "Replace the export?", f"{target} holds an earlier export. Replace it?"
        )
        return bool(answer == QMessageBox.StandardButton.Yes)

    def _chooser(self) -> Callable[[bool, Cancelled], LabelSet] | None:
        """Return what chooses the frames, in another thread; None where there is no session."""
        work = self._bench.work
        if work is None or work.session is None:
            return None
        session, include, names = work.session, self.include.value, self._names()
        return lambda divide, cancelled: labels_of_session(
            session, include, names=names, divide=divide, cancelled=cancelled
        )

    def _names(self) -> frozenset[str] | None:
        """Return the names of the frames selected in the queue, if only these are wanted."""
        work = self._bench.work
        if work is None or not self.selected_only.value:
            return None
        return frozenset(work.sequence.frames[index].name for index in self._bench.selected())

    def _ask_for_dataset(self) -> None:
        work = self._bench.work
        if work is None:
            return
        suggested = work.sequence.path.absolute().parent / f"{work.sequence.name}-dataset"
        folder, _ = QFileDialog.getSaveFileName(
            self,
            "A new dataset, or one to add to",
            str(suggested),
            options=QFileDialog.Option.DontConfirmOverwrite,
        )
        if folder:
            self.add_to_dataset(Path(folder))

    def _tell(self, text: str) -> None:
        """Say what came of it, here and where other jobs do."""
        self._bench.message = text
        self.summary.setText(text)
        self.summary.show()

    def _on_status(self, _indices: object) -> None:
        self._rest.start()

    def _on_selected(self) -> None:
        if self.selected_only.value:
            self._rest.start()

    def _look(self) -> None:
        """Find out in the background what would be written."""
        choose, chosen = self._chooser(), self.format.value
        if choose is None or not self.isVisibleTo(self.window()):
            return
        if self._looking is not None:
            self._rest.start()
            return

        def look(cancelled: Cancelled) -> Iterator[Preview | str]:
            try:
                yield preview(choose(False, cancelled), chosen)
            except InputError as error:
                yield str(error)

        def end(_complete: bool) -> None:
            self._looking = None

        self._looking = Job("Looking what would be exported", look)
        self._looking.item.connect(self._show)
        self._looking.ended.connect(end)
        self._looking.start(in_passing=True)

    def _show(self, found: Preview | str) -> None:
        if isinstance(found, str):
            self.preview.setPlainText("")
            self.remarks.setText(found)
            return
        lines = [*found.first_files, f"{found.files} files for {found.frames} frames"]
        self.preview.setPlainText("\n".join(lines))
        self.remarks.setText("\n".join(found.warnings))

    def _update(self) -> None:
        work, idle = self._bench.work, self._bench.job is None
        there = work is not None and work.session is not None
        self.export_button.setEnabled(there and idle)
        self.dataset_button.setEnabled(there and idle)
        self.import_button.setEnabled(there and idle and self._bench.may_change)
        self.divide.visible = self.format.value.divides
        if not there:
            self.preview.setPlainText("")
            self.remarks.setText("")
        self._rest.start()

    def _add_hints(self) -> None:
        hint(self.format.native, "What reads the masks; each keeps what its files can hold.")
        hint(
            self.include.native,
            "Accepted frames are what somebody has answered for. Excluded ones never go out.\n"
            "An accepted frame without a polyp is kept as a negative. Added to a dataset, all\n"
            "means every frame: masks that nobody has reviewed stay behind.",
        )
        hint(self.selected_only.native, "Of these frames, only those selected in the queue.")
        hint(
            self.divide.native,
            "By video, folder and likeness: frames that resemble each other are never divided.",
        )
        hint(self.preview, "What will be written, the first frames by name.")
        hint(
            self.import_button,
            "Read a folder of masks in the chosen format for the frames that are open:\n"
            "all of them or, where one does not fit, none.",
        )
        hint(
            self.dataset_button,
            "Copy the chosen frames and masks into a curated dataset, which fine-tuning reads.\n"
            "It says where each label came from; its split is never changed by later frames.",
        )
        hint(
            self.deidentify.native,
            "Blank everything around the picture, burnt-in text included, and drop metadata.\n"
            "Text over the picture itself stays: look at the result.",
        )


def _told(summary: Summary) -> str:
    lost = "".join(f" Lost: {warning}" for warning in summary.warnings)
    return (
        f"Exported {summary.frames} frames with {summary.polyps} polyps, {summary.negatives} "
        f"without, to {summary.target}.{lost}"
    )


def _told_of_dataset(result: WriteResult, folder: Path) -> str:
    left_out = "".join(f" Left out: {why}" for why in list(result.left_out.values())[:1])
    more = len(result.left_out) - 1
    return (
        f"{len(result.added)} frames added to {folder}, {len(result.updated)} updated, "
        f"{len(result.unchanged)} as they were.{left_out}"
        + (f" (and {more} more)" if more > 0 else "")
    )
