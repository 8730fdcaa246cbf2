"""The masks of a sequence in napari: who made each of them, and an undo that survives.

napari's undo is one stack for all frames. Every mask that a model makes for
the frame on show is one step on it. Masks of frames that are not on show are
put into the data directly, which leaves other people's steps on the stack, and
become a step of their own when their frame has come on show: undo then takes
back what the user sees. A frame that already has steps on the stack is never
written directly, because that would make its steps wrong.
"""

from __future__ import annotations

from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils import DirectLabelColormap
from qtpy.QtCore import QObject, Signal

from napari_microaunet.frames.mask_chunks import MaskChunks
from napari_microaunet.frames.masks import IGNORE
from napari_microaunet.widgets.napari_io import FRAME_SEQUENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari import Viewer
    from napari.layers import Image, Labels
    from numpy.typing import NDArray
    from zarr.core.buffer import Buffer

    from napari_microaunet.frames import FrameSequence

# Seen well on red mucosa; polyps are numbered from largest to smallest.
_COLOURS = ("#00e5ff", "#b6ff00", "#ff4dff", "#ffd400", "#7c9cff", "#ff8a00")
_IGNORE_COLOUR = "#9e9e9e"


class MaskState(Enum):
    """Who made the mask of a frame."""

    NONE = "no mask"
    MODEL = "pre-labelled"
    FILE = "mask from a file"
    HAND = "corrected by hand"


class MaskLayer(QObject):
    """A Labels layer over an image layer, and what is known about its masks.

    Lives in the GUI thread; `chunks` may be read from any.

    Parameters
    ----------
    viewer : Viewer
        Gets the layer.
    image : Image
        The frames that the masks belong to; the masks share its geometry.
    sequence : FrameSequence
        The same frames.
    layer : Labels, optional
        A layer that shows masks of these frames already; a new one by default.
    chunks : MaskChunks, optional
        The masks that the layer is to hold, which count as masks from files;
        by default it is empty.

    Attributes
    ----------
    changed : Signal(int)
        The mask of this frame may have changed, whoever changed it.
    replaced : Signal()
        Somebody has given the layer other data: this object is of no more use.
    layer : Labels
        uint8 labels, shape (N, H, W), or (H, W) for a single picture.
    chunks : MaskChunks
        The masks in it.
    """

    changed = Signal(int)
    replaced = Signal()

    def __init__(
        self,
        viewer: Viewer,
        image: Image,
        sequence: FrameSequence,
        layer: Labels | None = None,
        chunks: MaskChunks | None = None,
    ) -> None:
        super().__init__()
        self._viewer = viewer
        self._sequence = sequence
        self._is_stack = image.ndim == 3
        self.chunks = chunks or MaskChunks(sequence, self._is_stack)
        self._known: dict[int, dict[bytes, MaskState]] = {
            index: {self.chunks.digest(index): MaskState.FILE} for index in self.chunks.filled
        }
        self._painted: set[int] = set()
        self._in_history: set[int] = set()
        self._not_yet_steps: dict[int, Buffer | None] = {}
        self._last_step: tuple[int, bytes] | None = None
        self._writing = False
        self._last_seen: tuple[int, bytes] | None = None
        if layer is None:
            layer = viewer.add_labels(
                self.chunks.array,
                name=f"{image.name} masks",
                # The writer takes names and native sizes from it.
                metadata={FRAME_SEQUENCE: sequence},
                **geometry_of(image),
            )
        else:
            layer.data = self.chunks.array
        layer.colormap = mask_colours()
        self.layer: Labels = layer
        self.layer.events.paint.connect(self._on_paint)
        self.layer.events.set_data.connect(self._on_set_data)
        self.layer.events.data.connect(self._on_data)

    def close(self) -> None:
        """Leave the layer alone from now on."""
        self.layer.events.paint.disconnect(self._on_paint)
        self.layer.events.set_data.disconnect(self._on_set_data)
        self.layer.events.data.disconnect(self._on_data)

    @property
    def shown(self) -> int:
        """Number of the frame on show."""
        return shown_frame(self._viewer, self.layer)

    def state(self, index: int) -> MaskState:
        """Tell who made the mask of a frame, as it is now."""
        state = self._known.get(index, {}).get(self.chunks.digest(index))
        if state is None:
            state = MaskState.HAND if self.chunks.digest(index) else MaskState.NONE
        # Erased by hand: a decision that there is no polyp, not a frame without a mask.
        if state is MaskState.NONE and index in self._painted:
            return MaskState.HAND
        return state

    def write(
        self, index: int, mask: NDArray[np.uint8], state: MaskState, replace_last: bool = False
    ) -> None:
        """Write the mask of a frame as one undo step.

        Parameters
        ----------
        index : int
            Number of the frame.
        mask : uint8 array, shape (height, width)
            Labels at native size.
        state : MaskState
            Who made it.
        replace_last : bool
            Whether a last undo step that was also such a write to this frame
            is replaced: a dragged slider is one step.
        """
        self._not_yet_steps.pop(index, None)
        with self._own_writing():
            if replace_last and self._last_step == (index, self.chunks.digest(index)):
                self.layer.undo()
            known = self._known.setdefault(index, {})
            known.setdefault(self.chunks.digest(index), self.state(index))
            rows, columns = np.nonzero(self.chunks.mask(index) != mask)
            if rows.size:
                # Small types: the undo history holds these arrays. Frames are smaller than 65536.
                place = [rows.astype(np.uint16), columns.astype(np.uint16)]
                if self._is_stack:
                    place.insert(0, np.full(rows.size, index, np.uint32))
                with self.layer.block_history():
                    self.layer.data_setitem(tuple(place), mask[rows, columns])
                self._in_history.add(index)
                if not self.layer.loaded:
                    # An asynchronous slice may have been read before this write.
                    self.layer.refresh()
        self._painted.discard(index)
        known[self.chunks.digest(index)] = state
        self._last_step = (index, self.chunks.digest(index)) if rows.size else None
        self.changed.emit(index)

    def can_put(self, index: int) -> bool:
        """Tell whether a frame can be written directly: it has no steps in the undo history."""
        return index not in self._in_history

    def put(
        self, index: int, chunk: Buffer | None, state: MaskState, undoable: bool = True
    ) -> None:
        """Exchange the mask of a frame that `can_put` in an instant.

        Parameters
        ----------
        index : int
            Number of the frame.
        chunk : Buffer or None
            Its new mask, as `chunks` encodes it.
        state : MaskState
            Who made it.
        undoable : bool
            Whether `make_step` shall turn it into an undo step.
        """
        known = self._known.setdefault(index, {})
        known.setdefault(self.chunks.digest(index), self.state(index))
        if undoable:
            self._not_yet_steps.setdefault(index, self.chunks[index])
        self.chunks[index] = chunk
        known[self.chunks.digest(index)] = state
        if index == self.shown:
            self.layer.refresh()
        self.changed.emit(index)

    def make_step(self, index: int) -> None:
        """Turn a mask that was `put` into an undo step, now that its frame is on show."""
        if index not in self._not_yet_steps or not self.can_put(index):
            return
        mask, state = self.chunks.mask(index), self.state(index)
        self.chunks[index] = self._not_yet_steps.pop(index)
        self.write(index, mask, state)

    @contextmanager
    def _own_writing(self) -> Iterator[None]:
        self._writing = True
        try:
            yield
        finally:
            self._writing = False

    def _on_paint(self) -> None:
        """Take note of a stroke: only the user's are painted while we do not write."""
        if self._writing:
            return
        index = self.shown
        self._painted.add(index)
        # A brush of three dimensions reaches other frames as well.
        many = self.layer.n_edit_dimensions > 2
        self._in_history.update(range(len(self._sequence)) if many else [index])
        self._not_yet_steps.pop(index, None)
        self._last_step = None
        self.changed.emit(index)

    def _on_data(self) -> None:
        if self.layer.data is not self.chunks.array:
            self.replaced.emit()

    def _on_set_data(self) -> None:
        """Notice undo and redo, which napari announces in no other way."""
        if self._writing:
            return
        seen = self.shown, self.chunks.digest(self.shown)
        if seen != self._last_seen:
            self._last_seen = seen
            self.changed.emit(self.shown)


def shown_frame(viewer: Viewer, layer: Image | Labels) -> int:
    """Find which frame of a layer the viewer shows, from its sliders."""
    if layer.ndim < 3:
        return 0
    position = layer.world_to_data(viewer.dims.point)
    return int(np.clip(np.rint(position[0]), 0, layer.data.shape[0] - 1))


def geometry_of(layer: Image | Labels) -> dict[str, Any]:
    """Give the options that put another layer exactly where one is."""
    return {
        name: getattr(layer, name)
        for name in ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")
    }


def mask_colours() -> DirectLabelColormap:
    """Colours of masks: bright ones in turn for the polyps, gray for what is to be ignored."""
    colours: dict[int | None, str] = {None: "transparent", 0: "transparent", IGNORE: _IGNORE_COLOUR}
    for label in range(1, IGNORE):
        colours[label] = _COLOURS[(label - 1) % len(_COLOURS)]
    return DirectLabelColormap(color_dict=colours)
