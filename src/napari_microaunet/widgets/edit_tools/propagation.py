"""Propagate: the mask goes on to the frames beside and between, shown before it is written."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING

from napari.layers import Labels
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QGridLayout,
    QHeaderView,
    QPushButton,
    QSpinBox,
    QTableWidget,
    QTableWidgetItem,
    QWidget,
)

from napari_microaunet.curation.session import MaskOrigin, ReviewState
from napari_microaunet.editing.propagation import LEAST_SCORE, propagate
from napari_microaunet.frames.mask_chunks import MaskChunks
from napari_microaunet.prelabel.masks import at_native_size
from napari_microaunet.prelabel.probability import least_value
from napari_microaunet.widgets.edit_tools.mode import remove_layer
from napari_microaunet.widgets.jobs import Job
from napari_microaunet.widgets.mask_layer import geometry_of, mask_colours
from napari_microaunet.widgets.section import hint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import numpy as np
    from numpy.typing import NDArray
    from zarr.core.buffer import Buffer

    from napari_microaunet.editing.propagation import Propagated
    from napari_microaunet.widgets.edit_tools.edits import Edits
    from napari_microaunet.widgets.work import Work

_TITLE, _COPY = "Propagate", "Copy from previous frame"
_MOST_FRAMES = 500
_LINE_WIDTH = 2
_MOST_ROWS_SHOWN, _ROW_HEIGHT = 8, 24
# The model's level, as `propagate` takes it.
_HIGHEST_LEVEL = 254


class Direction(Enum):
    """Where masks go."""

    NEXT = "to the next frames"
    PREVIOUS = "to the previous frames"
    BETWEEN = "between accepted frames"


class _Keys(Mapping[int, "NDArray[np.uint8]"]):
    """Masks of key frames, decoded one by one: all of them may not fit into memory."""

    def __init__(self, chunks: MaskChunks, indices: Iterable[int]) -> None:
        self._chunks = chunks
        self._compressed = {index: chunks[index] for index in indices}

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        return self._chunks.decode(index, self._compressed[index])

    def __iter__(self) -> Iterator[int]:
        return iter(self._compressed)

    def __len__(self) -> int:
        return len(self._compressed)


class Propagation(QWidget):
    """Runs propagation, shows what it came to, and writes what the user wants of it.

    Parameters
    ----------
    edits : Edits
        What is edited.

    Attributes
    ----------
    proposed : dict of int to Buffer or None
        Masks that wait for the user's word, by frame.
    preview : Labels or None
        The layer that shows them.
    """

    def __init__(self, edits: Edits) -> None:
        super().__init__()
        self._edits = edits
        self.proposed: dict[int, Buffer | None] = {}
        self.preview: Labels | None = None
        self._job: Job | None = None
        self._work: Work | None = None
        self._chunks: MaskChunks | None = None
        self._digests: dict[int, bytes] = {}
        self._may: dict[int, bool] = {}
        self._last_stop = ""
        self.direction = QComboBox()
        for direction in Direction:
            self.direction.addItem(direction.value, direction)
        self.count = QSpinBox()
        self.count.setRange(1, _MOST_FRAMES)
        self.count.setValue(10)
        self.count.setSuffix(" frames")
        self.least = QDoubleSpinBox()
        self.least.setRange(0, 1)
        self.least.setSingleStep(0.05)
        self.least.setValue(LEAST_SCORE)
        self.least.setPrefix("stop below ")
        self.run_button = QPushButton(_TITLE)
        self.copy_button = QPushButton(_COPY)
        self.table = QTableWidget(0, 3)
        self.also_corrected = QCheckBox("Also replace masks that are not the model's")
        self.apply_button = QPushButton("Apply")
        self.discard_button = QPushButton("Discard")
        self._add_hints()
        self._set_up_table()
        self._results = QWidget()
        results = QGridLayout(self._results)
        results.setContentsMargins(0, 0, 0, 0)
        results.setSpacing(4)
        results.addWidget(self.table, 0, 0, 1, 2)
        results.addWidget(self.also_corrected, 1, 0, 1, 2)
        results.addWidget(self.apply_button, 2, 0)
        results.addWidget(self.discard_button, 2, 1)
        self._results.hide()
        layout = QGridLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.direction, 0, 0, 1, 2)
        layout.addWidget(self.count, 1, 0)
        layout.addWidget(self.least, 1, 1)
        layout.addWidget(self.run_button, 2, 0)
        layout.addWidget(self.copy_button, 2, 1)
        layout.addWidget(self._results, 3, 0, 1, 2)

        self.direction.currentIndexChanged.connect(self._update)
        self.run_button.clicked.connect(self.run)
        self.copy_button.clicked.connect(self.copy_from_previous)
        self.apply_button.clicked.connect(self.apply)
        self.discard_button.clicked.connect(self.discard)
        self.also_corrected.toggled.connect(self._update_rows)
        self.table.itemSelectionChanged.connect(self._on_row)
        bench = edits.bench
        bench.job_changed.connect(self._update)
        bench.work_changed.connect(self._on_work)
        bench.status_changed.connect(self._update_rows)
        bench.closing.connect(self._clear)
        bench.viewer.layers.events.removed.connect(self._on_removed)
        self._update()

    @property
    def actions(self) -> dict[str, Callable[[], object]]:
        """What it does on keys."""
        return {
            "propagate": self.run,
            "apply_propagation": self.apply,
            "copy_from_previous": self.copy_from_previous,
        }

    # Running

    def run(self) -> None:
        """Carry the mask on show, or those around it, to other frames."""
        edits = self._edits
        work = edits.bench.work
        if not edits.can_edit() or work is None or work.prelabels is None or edits.bench.is_busy():
            return
        if edits.mode is not None:
            edits.mode.leave()
        keys, targets, problem = self._asked_for(work)
        if problem is not None:
            edits.say(f"{_TITLE}: {problem}")
            return
        self._clear()
        masks, prelabels, sequence = edits.masks, work.prelabels, work.sequence
        level = min(least_value(edits.bench.settings.threshold), _HIGHEST_LEVEL)
        least = self.least.value()
        digests = {index: masks.chunks.digest(index) for index in targets}

        def probability(index: int) -> NDArray[np.uint8] | None:
            found = prelabels.map(index)
            return None if found is None else at_native_size(found)

        def carry(cancelled: Callable[[], bool]) -> Iterator[tuple[Propagated, Buffer | None]]:
            for one in propagate(
                sequence.read,
                _Keys(masks.chunks, keys),
                targets,
                probability,
                level=level,
                least_score=least,
            ):
                if cancelled():
                    return
                yield one, None if one.mask is None else masks.chunks.encode(one.mask)

        def end(_complete: bool) -> None:
            self._job = None
            if self._work is not work:
                # Discarded meanwhile, or its sequence was left.
                return
            reached = len(self.proposed)
            edits.bench.message = f"Propagated to {reached} of {len(targets)} frames."
            if reached:
                edits.say(
                    f"{_TITLE}: {reached} of {len(targets)} frames; look through them, then apply."
                )
            else:
                why = self._last_stop
                self._clear()
                edits.say(f"{_TITLE}: no frame was reached" + (f", {why}." if why else "."))

        job = Job(f"Propagating to {len(targets)} frames", carry, len(targets))
        job.item.connect(self._on_item)
        self._job, self._work, self._digests = job, work, digests
        self._last_stop = ""
        edits.bench.run(job, end, work)

    def _asked_for(self, work: Work) -> tuple[list[int], list[int], str | None]:
        """Say which frames are keys and which are to be reached, or why there are none."""
        edits = self._edits
        shown, count = edits.index, len(work.sequence)
        states = {i: edits.masks.session.status(i).state for i in range(count)}
        accepted = [i for i, state in states.items() if state is ReviewState.ACCEPTED]
        direction = self.direction.currentData()
        if direction is Direction.BETWEEN:
            before = max((i for i in accepted if i <= shown), default=None)
            after = min((i for i in accepted if i > shown), default=None)
            if before is None or after is None:
                side = "before" if before is None else "after"
                return [], [], f"there is no accepted frame {side} this one."
            reached = range(before + 1, after)
            keys = {before, after}
        else:
            if not edits.areas:
                return [], [], "there is no polyp on this frame."
            ahead = direction is Direction.NEXT
            end = shown + (1 if ahead else -1) * self.count.value()
            reached = range(shown + 1, min(end + 1, count)) if ahead else range(max(0, end), shown)
            keys = {shown, *(i for i in accepted if i in reached)}
        targets = [
            i
            for i in reached
            if i not in keys
            and states[i] is not ReviewState.EXCLUDED
            and i not in work.sequence.problems
        ]
        if not targets:
            return [], [], "there is no frame to reach that is neither accepted nor excluded."
        return sorted(keys), targets, None

    def copy_from_previous(self) -> None:
        """Give the frame on show the mask of the one before it, as one undo step."""
        edits = self._edits
        if not edits.can_edit():
            return
        if edits.mode is not None:
            edits.mode.leave()
        if edits.index == 0:
            edits.say(f"{_COPY}: this is the first frame.")
            return
        mask = edits.masks.chunks.mask(edits.index - 1)
        if mask.shape != edits.mask.shape:
            edits.say(f"{_COPY}: the frames differ in size.")
        elif edits.apply(_COPY, mask):
            edits.say(f"{_COPY}: done.")
        else:
            edits.say(f"{_COPY}: the masks are the same already.")

    # What it came to

    def apply(self) -> None:
        """Write the masks that are ticked, as one step of review."""
        edits = self._edits
        if not self._has_masks or not self.proposed:
            edits.say(f"{_TITLE}: there is nothing to apply.")
            return
        if edits.bench.is_busy():
            return
        masks = edits.masks
        written, kept = [], 0
        with masks.session.step(_TITLE):
            for row in range(self.table.rowCount()):
                item = self.table.item(row, 0)
                index = item.data(Qt.ItemDataRole.UserRole)
                if index not in self.proposed or not self._is_ticked(item):
                    continue
                if masks.chunks.digest(index) != self._digests[index]:
                    kept += 1
                    continue
                # Ctrl+Z on its frame takes it back as well.
                masks.set(index, self.proposed[index], MaskOrigin.PROPAGATED, undoable=True)
                written.append(index)
        self._clear()
        text = f"{_TITLE}: {len(written)} masks written"
        edits.say(f"{text}, {kept} frames had changed meanwhile." if kept else f"{text}.")

    def discard(self) -> None:
        """Do without what was proposed."""
        self._clear()
        self._edits.say(f"{_TITLE}: discarded.")

    def _on_item(self, item: tuple[Propagated, Buffer | None]) -> None:
        one, chunk = item
        if not self._has_masks:
            return
        self._last_stop = "" if one.stop is None else one.stop.value
        if one.usable:
            self.proposed[one.index] = chunk
            self._show_preview(one.index, chunk)
        self._add_row(one)

    @property
    def _has_masks(self) -> bool:
        """Whether its frames are worked on still, whichever of them is on show."""
        work = self._edits.bench.work
        return work is not None and work is self._work and work.masks is not None

    def _show_preview(self, index: int, chunk: Buffer | None) -> None:
        """Draw what is proposed as outlines over the frames."""
        work, masks = self._work, self._edits.masks
        if work is None:
            return
        if self._chunks is None:
            self._chunks = MaskChunks(
                work.sequence, masks.layer.ndim == 3, canvas_shape=masks.chunks.canvas_shape
            )
        self._chunks[index] = chunk
        layers = self._edits.bench.viewer.layers
        if self.preview is None:
            active = layers.selection.active
            self.preview = Labels(
                self._chunks.array,
                name=f"{masks.layer.name} (proposed)",
                colormap=mask_colours(),
                **geometry_of(masks.layer),
            )
            self.preview.contour = _LINE_WIDTH
            self.preview.editable = False
            layers.append(self.preview)
            layers.selection.active = active
        elif index == self._edits.index:
            self.preview.refresh()

    def _add_row(self, one: Propagated) -> None:
        # A frame that one side could not reach may come again from the other.
        rows = range(self.table.rowCount())
        row = next((row for row in rows if self._index(row) >= one.index), self.table.rowCount())
        if row == self.table.rowCount() or self._index(row) != one.index:
            self.table.insertRow(row)
        frame = QTableWidgetItem(str(one.index))
        frame.setData(Qt.ItemDataRole.UserRole, one.index)
        if one.usable:
            frame.setCheckState(Qt.CheckState.Checked)
        score = QTableWidgetItem("" if one.mask is None else f"{one.score:.2f}")
        why = "" if one.usable or one.stop is None else one.stop.value
        for column, item in enumerate((frame, score, QTableWidgetItem(why))):
            item.setFlags(item.flags() & ~Qt.ItemFlag.ItemIsEditable)
            item.setToolTip(why)
            self.table.setItem(row, column, item)
        shown = min(self.table.rowCount(), _MOST_ROWS_SHOWN)
        frame_width = 2 * self.table.frameWidth()
        header = self.table.horizontalHeader().sizeHint().height()
        self.table.setFixedHeight(header + shown * _ROW_HEIGHT + frame_width)
        self._update_rows()
        self._results.show()

    def _index(self, row: int) -> int:
        return int(self.table.item(row, 0).data(Qt.ItemDataRole.UserRole))

    def _update_rows(self, _changed: object = None) -> None:
        """Say of every frame whether it may be written."""
        work = self._work
        if not self.proposed or work is None or work.masks is None:
            return
        for row in range(self.table.rowCount()):
            index = self._index(row)
            if index not in self.proposed:
                continue
            status = work.masks.session.status(index)
            decided = status.state.is_decided
            theirs = work.masks.is_users(index) and not decided
            item, why = self.table.item(row, 0), self.table.item(row, 2)
            may = not decided and (not theirs or self.also_corrected.isChecked())
            flags = item.flags()
            enabled = Qt.ItemFlag.ItemIsUserCheckable
            item.setFlags(flags | enabled if may else flags & ~enabled)
            if may != self._may.get(index):
                item.setCheckState(Qt.CheckState.Checked if may else Qt.CheckState.Unchecked)
            self._may[index] = may
            why.setText(status.state.value if decided else status.origin.title if theirs else "")

    @staticmethod
    def _is_ticked(item: QTableWidgetItem) -> bool:
        return item.checkState() == Qt.CheckState.Checked

    def _on_row(self) -> None:
        rows = self.table.selectionModel().selectedRows()
        if rows and self._edits.bench.work is self._work:
            self._edits.bench.go_to(self._index(rows[0].row()))

    def _on_work(self) -> None:
        if self._work is not None and self._edits.bench.work is not self._work:
            self._clear()
        self._update()

    def _on_removed(self, event: object) -> None:
        if self.preview is not None and getattr(event, "value", None) is self.preview:
            self.preview = None
            self._clear()

    def _clear(self) -> None:
        """Forget what was proposed, and its layer, and propose no more."""
        if self._job is not None:
            self._job.cancel()
        preview, self.preview = self.preview, None
        layers = self._edits.bench.viewer.layers
        if preview is not None and preview in layers:
            active = layers.selection.active
            remove_layer(layers, preview)
            if active in layers:
                layers.selection.active = active
        self.proposed.clear()
        self._may.clear()
        self._work = self._chunks = None
        self.table.setRowCount(0)
        self._results.hide()

    def _update(self) -> None:
        between = self.direction.currentData() is Direction.BETWEEN
        self.count.setEnabled(not between)
        self.run_button.setEnabled(self._edits.bench.job is None)
        self.apply_button.setEnabled(self._edits.bench.job is None)

    # Looks

    def _set_up_table(self) -> None:
        table = self.table
        table.setHorizontalHeaderLabels(["frame", "score", ""])
        table.verticalHeader().hide()
        table.setTabKeyNavigation(False)  # Tab leads on to the buttons below
        table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        header = table.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(2, QHeaderView.ResizeMode.Stretch)
        table.verticalHeader().setDefaultSectionSize(_ROW_HEIGHT)

    def _add_hints(self) -> None:
        hint(
            self.direction,
            "Between accepted frames: from the nearest accepted frame before the one on show to\n"
            "the nearest after it. Accepted frames on the way are kept and followed.",
        )
        hint(self.count, "How many frames are reached; fewer where the scene changes.")
        hint(
            self.least,
            "Drift score, the agreement with the true mask to be expected: 1 is perfect. Below\n"
            "this, propagation stops.",
        )
        hint(
            self.run_button,
            "Follow the polyps of this frame through other frames. The masks are shown as\n"
            "outlines first and written when you apply them.",
            "propagate",
        )
        hint(
            self.copy_button,
            "The mask of the previous frame replaces this one's.",
            "copy_from_previous",
        )
        hint(self.table, "Select a row to see its frame. Only ticked frames are written.")
        hint(
            self.also_corrected,
            "Frames with masks from files, by hand or from an earlier propagation may be\n"
            "replaced as well. Accepted and excluded frames never are.",
        )
        hint(
            self.apply_button,
            "Write the ticked frames: one step, which the undo of the review takes back.",
            "apply_propagation",
        )
        hint(self.discard_button, "Leave all masks as they are.")
