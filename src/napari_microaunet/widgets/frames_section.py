"""Frames: open them or pick a layer; masks from files and back."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from napari.utils.notifications import show_error
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QMenu,
    QMessageBox,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_microaunet.curation.session import recent_sessions
from napari_microaunet.errors import InputError
from napari_microaunet.frames.sample_data import sample_data_folder
from napari_microaunet.widgets.jobs import Job
from napari_microaunet.widgets.mask_files import find_masks, masks_from_folder, save_masks
from napari_microaunet.widgets.napari_io import spare_frames
from napari_microaunet.widgets.section import hint, may_replace, primary_button

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_microaunet.frames import FrameSequence
    from napari_microaunet.widgets.workbench import Workbench

_PROBLEMS_IN_SIGHT = 4
_FILES = "Videos and TIFF stacks (*.mp4 *.avi *.mov *.mkv *.m4v *.webm *.tif *.tiff);;All files (*)"


class FramesSection(QWidget):
    """Where frames and masks come from and where masks go."""

    title = "Frames"

    def __init__(self, bench: Workbench) -> None:
        super().__init__()
        self._bench = bench
        self.actions = {
            "open_folder": self.open_folder,
            "open_file": self.open_file,
            "open_masks": self.open_masks,
            "save_masks": self.save_masks,
        }

        self.open_button = primary_button("Open frames…")
        menu = QMenu(self.open_button)
        menu.addAction("Folder of images…", self.open_folder)
        menu.addAction("Video or TIFF stack…", self.open_file)
        menu.addSeparator()
        menu.addAction("Sample frames", lambda: self._open_sample("frames/images"))
        menu.addAction("Sample video", lambda: self._open_sample("clip.mp4"))
        self._recent = menu.addMenu("Go on with")
        self._recent.setToolTipsVisible(True)  # two sessions may have one name
        self._recent.aboutToShow.connect(self._list_recent)
        self.open_button.setMenu(menu)
        hint(
            self.open_button,
            "Show a folder of images of any sizes, a video or a TIFF stack.\n"
            "Masks that lie beside the images are read as well.\n"
            "A folder or file dropped on the window does the same.",
            "open_folder",
            "open_file",
        )

        self.layers = QComboBox()
        hint(
            self.layers,
            "The image layer whose frames are labelled: any RGB or gray picture,\n"
            "or a stack of them along the first axis.",
        )
        self.layers.activated.connect(self._choose)
        self.summary = QLabel(wordWrap=True)
        self.saving = QLabel(wordWrap=True)
        hint(
            self.saving,
            "Masks, decisions and the place you are at are saved by themselves, within a second,\n"
            "in a folder of their own. The frames are never written to.",
        )
        self.problems = QListWidget(textElideMode=Qt.TextElideMode.ElideRight)
        self.problems.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        hint(
            self.problems,
            "Frames that cannot be read, and why: they are shown gray and left out.\n"
            "A double click shows one.",
        )
        self.problems.itemActivated.connect(self._show_problem)

        self.open_masks_button = QPushButton("Open masks…")
        hint(
            self.open_masks_button,
            "Read masks from a folder; each file is named as its frame is.",
            "open_masks",
        )
        self.open_masks_button.clicked.connect(self.open_masks)
        self.save_masks_button = QPushButton("Save masks…")
        hint(
            self.save_masks_button,
            "Write every mask as a PNG of its frame's native size, named as the frame is:\n"
            "0 is background, 1, 2, … the polyps, 255 what is to be ignored.",
            "save_masks",
        )
        self.save_masks_button.clicked.connect(self.save_masks)

        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 0, 8, 0)
        layout.addWidget(self.open_button)
        layout.addWidget(self.layers)
        layout.addWidget(self.summary)
        layout.addWidget(self.saving)
        layout.addWidget(self.problems)
        buttons = QHBoxLayout()
        buttons.addWidget(self.open_masks_button)
        buttons.addWidget(self.save_masks_button)
        layout.addLayout(buttons)

        bench.layers_changed.connect(self._list_layers)
        bench.work_changed.connect(self._update)
        bench.job_changed.connect(self._update)
        bench.problem_changed.connect(self._show_saving)
        self._list_layers()

    def open_folder(self) -> None:
        """Ask for a folder of images and open it."""
        folder = QFileDialog.getExistingDirectory(self, "Open a folder of images")
        if folder:
            self._bench.open(Path(folder))

    def open_file(self) -> None:
        """Ask for a video or a TIFF stack and open it."""
        file, _ = QFileDialog.getOpenFileName(self, "Open a video or a TIFF stack", "", _FILES)
        if file:
            self._bench.open(Path(file))

    def open_masks(self) -> None:
        """Ask for a folder of masks and read them."""
        work = self._bench.work
        if work is None or self._bench.is_read_only():
            return
        folder = QFileDialog.getExistingDirectory(
            self, "Open the masks in a folder", str(self._suggested_folder(work.sequence))
        )
        if folder:
            self.read_masks(Path(folder))

    def read_masks(self, folder: Path) -> None:
        """Read the masks in a folder, asking before masks by the user are replaced."""
        bench, work = self._bench, self._bench.work
        if work is None:
            return
        files: dict[int, Path] = {}

        def look(cancelled: Callable[[], bool]) -> list[None]:
            files.update(find_masks(work.sequence, folder, cancelled))
            return [None]

        def end(complete: bool) -> None:
            if not complete or work is not bench.work:
                return
            permitted = may_replace(self, work.masks, list(files))
            if permitted is None:
                return
            try:
                masks_from_folder(bench, files, permitted)
            except InputError as error:
                show_error(str(error))

        bench.run(Job(f"Looking for masks in {folder.name}", look), end, work)

    def save_masks(self) -> None:
        """Save the masks where they were saved before, or ask where."""
        bench, work = self._bench, self._bench.work
        if work is None:
            return
        folder = work.mask_folder
        if folder is None:
            chosen = QFileDialog.getExistingDirectory(
                self, "Save the masks into a folder", str(self._suggested_folder(work.sequence))
            )
            if not chosen:
                return
            folder = Path(chosen)
        there: list[Path] = []

        def look(cancelled: Callable[[], bool]) -> list[None]:
            files = [folder / f"{frame.name}.png" for frame in work.sequence.frames]
            spare_frames(work.sequence, folder, files)
            if folder != work.mask_folder:
                looked_for = takewhile(lambda _: not cancelled(), files)
                there.extend(file for file in looked_for if file.exists())
            return [None]

        def end(complete: bool) -> None:
            if not complete or work is not bench.work:
                return
            if there and not self._may_replace_files(len(there), folder):
                return
            try:
                save_masks(bench, folder)
            except InputError as error:
                show_error(str(error))

        bench.run(Job(f"Looking into {folder.name}", look), end, work)

    def _may_replace_files(self, count: int, folder: Path) -> bool:
        answer = QMessageBox.question(
            self, "Replace files?", f"{count} masks of these frames are in {folder}. Replace them?"
        )
        return bool(answer == QMessageBox.StandardButton.Yes)

    def _suggested_folder(self, sequence: FrameSequence) -> Path:
        """Where masks of these frames are looked for when they are opened again, if possible."""
        path = sequence.path.absolute()
        if path.name.lower() == "images":
            return path.with_name("masks")
        return (path if path.is_dir() else path.parent) / "masks"

    def _open_sample(self, name: str) -> None:
        try:
            # Their exact masks are for measuring; a first try shall show the model's.
            self._bench.open(sample_data_folder() / name, masks=False)
        except InputError as error:
            show_error(str(error))

    def _list_recent(self) -> None:
        self._recent.clear()
        for session in recent_sessions():
            share = f"{session.done} of {session.frames} done"
            entry = self._recent.addAction(f"{session.name}: {share}, {session.when:%Y-%m-%d}")
            entry.setToolTip(str(session.path))
            # What Qt says of the entry, whether it is checked, is no argument of ours.
            entry.triggered.connect(lambda _, path=session.path: self._bench.open(path))
        if self._recent.isEmpty():
            self._recent.addAction("Nothing yet").setEnabled(False)

    def _show_saving(self) -> None:
        session = self._bench.session
        self.saving.setVisible(session is not None)
        if session is None:
            return
        trouble = session.problem or session.notice
        self.saving.setText(trouble or f"Saved in {session.folder.name}")
        self.saving.setToolTip(str(session.folder))
        self.saving.setObjectName("warning" if trouble else "quiet")
        self.saving.setStyleSheet("")  # has Qt look at the name again

    def _choose(self, row: int) -> None:
        self.layers.clearFocus()
        self._bench.choose_again(self.layers.itemData(row))

    def _show_problem(self, item: QListWidgetItem) -> None:
        self._bench.go_to(item.data(Qt.ItemDataRole.UserRole))

    def _list_layers(self) -> None:
        self.layers.clear()
        for layer in self._bench.images:
            self.layers.addItem(layer.name, layer)
        self._update()

    def _update(self) -> None:
        work, idle = self._bench.work, self._bench.job is None
        self.layers.setVisible(self.layers.count() > 0)
        self.layers.setCurrentIndex(-1 if work is None else self.layers.findData(work.image))
        self.summary.setVisible(work is not None)
        self.summary.setText("" if work is None else _summary(work.sequence))
        self._show_saving()
        self.open_button.setEnabled(idle)
        self.open_masks_button.setEnabled(idle and self._bench.may_change)
        self.save_masks_button.setEnabled(idle and work is not None and work.masks is not None)
        self.problems.clear()
        if work is not None:
            for index, reason in sorted(work.sequence.problems.items()):
                item = QListWidgetItem(f"{work.sequence.frames[index].name}: {reason}")
                item.setToolTip(reason)
                item.setData(Qt.ItemDataRole.UserRole, index)
                self.problems.addItem(item)
        rows = min(self.problems.count(), _PROBLEMS_IN_SIGHT)
        self.problems.setFixedHeight(rows * self.problems.sizeHintForRow(0) + 4 if rows else 0)
        self.problems.setVisible(rows > 0)


def _summary(sequence: FrameSequence) -> str:
    sizes = sorted({(frame.height, frame.width) for frame in sequence.frames})
    size = f"{sizes[0][1]} x {sizes[0][0]}"
    if len(sizes) > 1:
        size += f" to {sizes[-1][1]} x {sizes[-1][0]}"
    count = len(sequence)
    text = f"{count} frame{'s' if count > 1 else ''}, {size} px"
    if sequence.problems:
        text += f"; {len(sequence.problems)} cannot be read:"
    return text
