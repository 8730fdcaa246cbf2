"""What all tools of the Edit section work on: the mask on show, and one polyp of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from napari_microaunet.editing.labels import areas_of, label_at
from napari_microaunet.prelabel.masks import at_native_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari.utils.events import Event
    from numpy.typing import NDArray

    from napari_microaunet.editing.labels import Mask
    from napari_microaunet.frames import FrameSequence
    from napari_microaunet.widgets.edit_tools.mode import Mode
    from napari_microaunet.widgets.mask_layer import MaskLayer
    from napari_microaunet.widgets.workbench import Workbench

# How far from a polyp the cursor may be to mean it, in pixels of the screen.
_REACH = 12
# A cursor that rests on a polyp as long has chosen it; one that passes over it has not.
_REST_MS = 150


class Edits(QObject):
    """The mask on show as the tools see it. Lives in the GUI thread.

    Parameters
    ----------
    bench : Workbench
        Whose frames are edited.

    Attributes
    ----------
    bench : Workbench
        Whose frames are edited.
    all_polyps : bool
        Whether tools that can do so work on all polyps of the frame.
    mode : Mode or None
        The way of working with the mouse that is on; there is one at a time.
    changed : Signal()
        Another frame or another mask is on show, or there is another `problem`.
    masks_changed : Signal()
        The masks of another sequence are being worked on, or none.
    chosen_changed : Signal()
        Another polyp of it has been chosen.
    said : Signal(str)
        What a tool has done, or why it did nothing.
    """

    changed = Signal()
    masks_changed = Signal()
    chosen_changed = Signal()
    said = Signal(str)

    def __init__(self, bench: Workbench) -> None:
        super().__init__()
        self.bench = bench
        self.all_polyps = False
        self.mode: Mode | None = None
        self._chosen: int | None = None
        self._forget_masks()
        self._rest = QTimer(
            self, interval=_REST_MS, singleShot=True, timeout=self._choose_under_cursor
        )
        viewer = bench.viewer
        viewer.mouse_move_callbacks.append(self._on_move)
        viewer.mouse_drag_callbacks.append(self._on_press)
        bench.work_changed.connect(self._on_work)
        bench.shown_changed.connect(self._on_frame)
        bench.frame_changed.connect(self._on_changed)
        bench.closing.connect(self._close)

    def _close(self) -> None:
        self._rest.stop()
        if self.mode is not None:
            self.mode.leave()
        self.bench.viewer.mouse_move_callbacks.remove(self._on_move)
        self.bench.viewer.mouse_drag_callbacks.remove(self._on_press)
        self._forget_masks()

    def _forget_masks(self) -> None:
        """Keep nothing of a sequence that has been left."""
        self._last_masks: MaskLayer | None = None
        self._mask: tuple[object, Mask, dict[int, int]] | None = None
        self._probability: tuple[object, NDArray[np.uint8]] | None = None
        # The frame that was read last, whatever thread reads it.
        self._frame: tuple[FrameSequence, int, NDArray[np.uint8]] | None = None

    # What there is to edit

    @property
    def problem(self) -> str | None:
        """Why nothing can be edited, in a sentence; None if it can."""
        work = self.bench.work
        if work is None or work.masks is None:
            return "There is nothing to edit yet: open frames first."
        if work.masks.session.read_only:
            return work.masks.session.notice
        if self.index in work.sequence.problems:
            return "This frame cannot be read, so its mask cannot be edited."
        return None

    @property
    def index(self) -> int:
        """Number of the frame on show."""
        return self.bench.shown

    @property
    def masks(self) -> MaskLayer:
        """The masks; only while there is no `problem`."""
        work = self.bench.work
        if work is None or work.masks is None:
            raise RuntimeError("there are no masks: ask `problem` first")
        return work.masks

    @property
    def mask(self) -> Mask:
        """The mask on show, uint8 labels of shape (height, width); not to be written to."""
        return self._read_mask()[0]

    @property
    def areas(self) -> dict[int, int]:
        """Pixels of every polyp on show, by its number; empty while there is a `problem`."""
        return {} if self.problem else self._read_mask()[1]

    def probability(self) -> NDArray[np.uint8] | None:
        """Return the map of the frame on show, uint8 of shape (height, width), if it has one."""
        work = self.bench.work
        if work is None or work.prelabels is None or self.index not in work.prelabels:
            return None
        kept = work.prelabels.map(self.index)
        if kept is None:
            return None
        # The session keeps the values of a map that is read again as another array.
        key = (work, self.index, kept.values.tobytes())
        if self._probability is None or self._probability[0] != key:
            self._probability = key, at_native_size(kept)
        return self._probability[1]

    def reader(self) -> Callable[[], NDArray[np.uint8]]:
        """Give what reads the frame on show, uint8 RGB; to be called in a thread, it takes long."""
        work, index = self.bench.work, self.index
        if work is None:
            raise RuntimeError("there are no frames: ask `problem` first")
        sequence = work.sequence

        def read() -> NDArray[np.uint8]:
            kept = self._frame
            if kept is None or kept[0] is not sequence or kept[1] != index:
                kept = sequence, index, sequence.read(index)
                if self.bench.work is work:  # else it would hold frames that have been removed
                    self._frame = kept
            return kept[2]

        return read

    def _read_mask(self) -> tuple[Mask, dict[int, int]]:
        masks = self.masks
        key = (masks, self.index, masks.chunks.digest(self.index))
        if self._mask is None or self._mask[0] != key:
            mask = masks.chunks.mask(self.index)
            mask.flags.writeable = False
            self._mask = key, mask, areas_of(mask)
        return self._mask[1], self._mask[2]

    # Which polyp

    @property
    def chosen(self) -> int | None:
        """The polyp that buttons work on: the last one pointed at, or the largest."""
        areas = self.areas
        if self._chosen in areas:
            return self._chosen
        return max(areas, key=lambda label: areas[label], default=None)

    def choose(self, label: int | None) -> None:
        """Choose another polyp; None for the largest."""
        before, self._chosen = self.chosen, label
        if self.chosen != before:
            self.chosen_changed.emit()

    def cursor(self) -> tuple[float, float]:
        """Where the cursor is in the frame, as (row, column) with pixel centres at integers."""
        layer = self.masks.layer
        return tuple(layer.world_to_data(self.bench.viewer.cursor.position)[-2:])

    def pixel(self) -> float:
        """Size of a pixel of the screen, in pixels of the frame."""
        return 1 / (self.bench.viewer.camera.zoom * float(self.masks.layer.scale[-1]))

    def at(self, point: tuple[float, float]) -> int | None:
        """Find the polyp at a place of the frame, or so close that it is meant."""
        return label_at(self.mask, point, _REACH * self.pixel())

    def under_cursor(self) -> int | None:
        """Find the polyp under the cursor, or close to it."""
        return None if self.problem else self.at(self.cursor())

    def pointed_at(self) -> int | None:
        """Choose the polyp under the cursor, if there is one, and return the chosen one."""
        label = self.under_cursor()
        if label is not None:
            self.choose(label)
        return self.chosen

    # What tools do

    def apply(self, title: str, mask: Mask, again: bool = False) -> bool:
        """Give the frame on show the mask that a tool has made, as one undo step.

        Parameters
        ----------
        title : str
            Name of the tool.
        mask : uint8 array, shape (height, width)
            Labels at native size.
        again : bool
            Whether it takes the place of the last such step, as when a slider
            is dragged.

        Returns
        -------
        bool
            Whether anything was changed.
        """
        if not again and np.array_equal(mask, self.mask):
            return False
        self.masks.edit(self.index, mask, title, again)
        return True

    def say(self, text: str) -> None:
        """Tell the user in the dock and below the picture, where the eyes are."""
        self.bench.viewer.status = text
        self.said.emit(text)

    def can_edit(self) -> bool:
        """Tell whether there is a mask to edit; if not, the user is told why."""
        problem = self.problem
        if problem is not None:
            self.say(problem)
        return problem is None and not self.bench.is_drawing()

    # What happens in the window

    def _on_work(self) -> None:
        """Tell other masks from other layers, of which the workbench says the same."""
        work = self.bench.work
        masks = None if work is None else work.masks
        is_other = masks is not self._last_masks
        if is_other or work is None:  # a thread may have read a frame since its masks went
            self._forget_masks()
        if is_other:
            self._last_masks = masks
            self.masks_changed.emit()
            self._on_frame()

    def _on_frame(self) -> None:
        self._rest.stop()
        self._chosen = None
        self.changed.emit()

    def _on_changed(self, index: int) -> None:
        if index == self.index:
            self.changed.emit()

    def _on_move(self, _viewer: object, _event: Event) -> None:
        self._rest.start()

    def _on_press(self, _viewer: object, _event: Event) -> Iterator[None]:
        # As a generator it is called once more, on release: the mask is then as the press left it.
        yield
        self._choose_under_cursor()

    def _choose_under_cursor(self) -> None:
        label = self.under_cursor()
        if label is not None:
            self.choose(label)
