"""The masks of a sequence in napari: who made each of them, and an undo that survives.

napari's undo is one stack for all frames. Every mask that a model makes for
the frame on show is one step on it. Masks of frames that are not on show are
put into the data directly, which leaves other people's steps on the stack, and
become a step of their own when their frame has come on show: undo then takes
back what the user sees. A frame that already has steps on the stack is never
written directly, because that would make its steps wrong.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils import DirectLabelColormap
from napari.utils.notifications import show_info
from qtpy.QtCore import QObject, Qt, Signal
from qtpy.QtGui import QGuiApplication

from napari_microaunet.curation.session import MaskOrigin
from napari_microaunet.frames.mask_chunks import chunk_digest
from napari_microaunet.frames.masks import IGNORE
from napari_microaunet.widgets.napari_io import FRAME_SEQUENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari import Viewer
    from napari.layers import Image, Labels
    from napari.utils.events import Event
    from numpy.typing import NDArray
    from zarr.core.buffer import Buffer

    from napari_microaunet.curation.session import Session

# Seen well on red mucosa; polyps are numbered from largest to smallest.
_COLOURS = ("#00e5ff", "#b6ff00", "#ff4dff", "#ffd400", "#7c9cff", "#ff8a00")
_IGNORE_COLOUR = "#9e9e9e"
# Ways to move a layer: properties, and events that say that they have changed.
_MOVES = ("scale", "translate", "rotate", "shear", "affine")


class MaskLayer(QObject):
    """A Labels layer over an image layer, and the session that its masks are kept in.

    Lives in the GUI thread.

    Parameters
    ----------
    viewer : Viewer
        Gets the layer.
    image : Image
        The frames that the masks belong to; the masks share its geometry.
    session : Session
        Keeps the masks.
    layer : Labels, optional
        A layer that shall show them; a new one by default.

    Attributes
    ----------
    changed : Signal(int)
        The mask of this frame may have changed, whoever changed it.
    changed_elsewhere : Signal(int)
        Undo or redo has changed this frame, which is not on show.
    replaced : Signal()
        Somebody has given the layer other data: this object is of no more use.
    layer : Labels
        uint8 labels, shape (N, H, W), or (H, W) for a single picture.
    session : Session
        Keeps the masks.
    chunks : MaskChunks
        The masks in it; may be read from any thread.
    """

    changed = Signal(int)
    changed_elsewhere = Signal(int)
    replaced = Signal()

    def __init__(
        self,
        viewer: Viewer,
        image: Image,
        session: Session,
        layer: Labels | None = None,
    ) -> None:
        super().__init__()
        self._viewer = viewer
        self._is_stack = image.ndim == 3
        self.session = session
        self.chunks = session.chunks
        # Frames that have steps in napari's history, and the digests of their masks.
        self._in_history: dict[int, bytes] = {}
        # Masks that were before a `put`, and the digest of what it put.
        self._not_yet_steps: dict[int, tuple[Buffer | None, bytes]] = {}
        self._last_step: tuple[int, bytes] | None = None
        self._writing = False
        self._last_told: tuple[int, bytes] | None = None
        if layer is None:
            layer = viewer.add_labels(
                self.chunks.array,
                name=f"{image.name} masks",
                # The writer takes names and native sizes from it.
                metadata={FRAME_SEQUENCE: session.sequence},
                **geometry_of(image),
            )
        else:
            layer.data = self.chunks.array
        layer.colormap = mask_colours()
        layer.editable = not session.read_only
        self.layer: Labels = layer
        # The viewer's come before those of its layers, which draw.
        self._viewer.mouse_drag_callbacks.append(self._on_press)
        self.layer.events.paint.connect(self._on_paint)
        self.layer.events.labels_update.connect(self._on_update)
        self.layer.events.set_data.connect(self._on_set_data)
        self.layer.events.data.connect(self._on_data)
        self._last_mode = "pan_zoom"
        # Last, so that the buttons of napari are told of what comes of it in the end.
        self.layer.events.mode.connect(self._on_mode, position="last")
        self._image = image
        for change in _MOVES:
            getattr(image.events, change).connect(self._on_moved)

    def close(self) -> None:
        """Leave the layer alone from now on; what is drawn in it would not be kept."""
        self.layer.editable = False
        self._viewer.mouse_drag_callbacks.remove(self._on_press)
        self.layer.events.paint.disconnect(self._on_paint)
        self.layer.events.labels_update.disconnect(self._on_update)
        self.layer.events.set_data.disconnect(self._on_set_data)
        self.layer.events.data.disconnect(self._on_data)
        self.layer.events.mode.disconnect(self._on_mode)
        for change in _MOVES:
            getattr(self._image.events, change).disconnect(self._on_moved)

    @property
    def shown(self) -> int:
        """Number of the frame on show."""
        return shown_frame(self._viewer, self.layer)

    @property
    def is_drawing(self) -> bool:
        """Whether a stroke of the mouse or a polygon has begun and is no undo step yet.

        napari says so in private alone. The encircling stroke of 0.9 goes on without a button.
        """
        begun = self.layer._block_history and not self._writing
        held = QGuiApplication.mouseButtons() != Qt.MouseButton.NoButton
        encircling = getattr(self.layer._overlays.get("brush_stroke"), "active", False)
        # Those of a polygon stay, on whatever frame, also while another tool is taken up.
        vertices = getattr(self.layer._overlays.get("polygon"), "points", [])
        return (begun and (held or encircling)) or bool(vertices)

    def origin(self, index: int) -> MaskOrigin:
        """Tell who made the mask of a frame, as it is now."""
        return self.session.origin(index)

    def is_users(self, index: int) -> bool:
        """Tell whether the user made, asked for, brought or decided on the mask of a frame."""
        return self.session.status(index).is_users

    def write(
        self,
        index: int,
        mask: NDArray[np.uint8],
        origin: MaskOrigin,
        replace_last: bool = False,
    ) -> None:
        """Write the mask of a frame as one undo step.

        Parameters
        ----------
        index : int
            Number of the frame.
        mask : uint8 array, shape (height, width)
            Labels at native size.
        origin : MaskOrigin
            Who made it.
        replace_last : bool
            Whether a last undo step that was also such a write to this frame
            is replaced: a dragged slider is one step.
        """
        self.make_step(index)
        with self._own_writing():
            if replace_last and self._last_step == (index, self.chunks.digest(index)):
                self.layer.undo()
            rows, columns = np.nonzero(self.chunks.mask(index) != mask)
            if rows.size:
                # Small types: the undo history holds these arrays. Frames are smaller than 65536.
                place = [rows.astype(np.uint16), columns.astype(np.uint16)]
                if self._is_stack:
                    place.insert(0, np.full(rows.size, index, np.uint32))
                # With asynchronous slicing, a new layer shows nothing yet: napari then fails to
                # draw, after data and history have been written.
                with self.layer.block_history(), suppress(IndexError):
                    self.layer.data_setitem(tuple(place), mask[rows, columns])
                if not self.layer.loaded:
                    # An asynchronous slice may have been read before this write.
                    self.layer.refresh()
            if rows.size or index in self._in_history:
                self._in_history[index] = self.chunks.digest(index)
        self.session.set_origin(index, origin)
        self._last_step = (index, self.chunks.digest(index)) if rows.size else None
        self._tell(index)

    def edit(self, index: int, mask: NDArray[np.uint8], what: str, again: bool = False) -> None:
        """Write what a tool has made of the mask of a frame, as one edit by hand.

        Parameters
        ----------
        index : int
            Number of the frame.
        mask : uint8 array, shape (height, width)
            Labels at native size.
        what : str
            Name of the tool; it goes into the session's events.
        again : bool
            Whether it takes the place of the last edit, as a dragged slider does.
        """
        if not again:
            self.session.add_stroke(index, what)
        self.write(index, mask, MaskOrigin.HAND, replace_last=again)

    def can_put(self, index: int) -> bool:
        """Tell whether a frame can be written directly: it has no steps in the undo history."""
        return index not in self._in_history

    def put(
        self, index: int, chunk: Buffer | None, origin: MaskOrigin, undoable: bool = True
    ) -> None:
        """Exchange the mask of a frame that `can_put` in an instant.

        Parameters
        ----------
        index : int
            Number of the frame.
        chunk : Buffer or None
            Its new mask, as `chunks` encodes it.
        origin : MaskOrigin
            Who made it.
        undoable : bool
            Whether `make_step` shall turn it into an undo step.
        """
        if undoable:
            before, _ = self._not_yet_steps.get(index, (self.chunks[index], b""))
            # Of several that nobody has looked at, the first one; of the user's none is lost.
            before = self.chunks[index] if self.is_users(index) else before
            self._not_yet_steps[index] = before, chunk_digest(chunk)
        self.session.put_mask(index, chunk, origin)
        if index == self.shown:
            self.layer.refresh()
        self._tell(index)

    def set(
        self, index: int, chunk: Buffer | None, origin: MaskOrigin, undoable: bool = False
    ) -> None:
        """Exchange the mask of any frame: directly, or as an undo step where it has such.

        Parameters
        ----------
        index : int
            Number of the frame.
        chunk : Buffer or None
            Its new mask, as `chunks` encodes it.
        origin : MaskOrigin
            Who made it.
        undoable : bool
            Whether a frame that has no undo steps yet gets one as well.
        """
        if self.can_put(index) and not (undoable and index == self.shown):
            self.put(index, chunk, origin, undoable)
        else:
            self.write(index, self.chunks.decode(index, chunk), origin)

    def look_for_undo(self, shown: int) -> None:
        """Tell of frames that undo or redo has changed while another one was on show.

        napari announces that late if it slices asynchronously: to be called as well
        when the user goes on to another frame.

        Parameters
        ----------
        shown : int
            Number of the frame that was on show meanwhile.
        """
        changed = self._changed_since()
        # A brush of three dimensions is undone on the frame on show and on others at once.
        if shown in changed and self.layer.n_edit_dimensions > 2:
            return
        elsewhere = changed - {shown}
        if elsewhere:
            self.changed_elsewhere.emit(min(elsewhere))

    def make_step(self, index: int) -> None:
        """Turn a mask that was `put` into an undo step, now that its frame is on show."""
        if index not in self._not_yet_steps or not self.can_put(index):
            return
        before, put = self._not_yet_steps.pop(index)
        if self.chunks.digest(index) != put:
            # A stroke that has begun meanwhile, and ends later, would be cut in two.
            return
        mask, origin = self.chunks.mask(index), self.origin(index)
        self.chunks[index] = before
        self.write(index, mask, origin)

    @contextmanager
    def _own_writing(self) -> Iterator[None]:
        self._writing = True
        try:
            yield
        finally:
            self._writing = False

    def _on_press(self, _viewer: Viewer, _event: Event) -> None:
        """Make the step that is due before somebody draws: undo is to lead back beyond it."""
        if not self.is_drawing:
            self.make_step(self.shown)

    def _on_paint(self) -> None:
        """Take note of a stroke: only the user's are painted while we do not write."""
        if self._writing:
            return
        index = self.shown
        self.session.add_stroke(index)
        # A brush of three dimensions reaches other frames as well.
        many = self.layer.n_edit_dimensions > 2
        painted = range(len(self.session.sequence)) if many else [index]
        self._in_history |= {i: self.chunks.digest(i) for i in painted}
        self._not_yet_steps.pop(index, None)
        self._last_step = None
        self._tell(index)

    def _on_update(self) -> None:
        """Take note of what was painted; undo and redo announce themselves otherwise."""
        if self._writing:
            return
        self._changed_since()
        if not self.chunks.digest(self.shown):
            # Erased by hand is a decision that there is no polyp, not a frame without a mask.
            self.session.set_origin(self.shown, MaskOrigin.HAND)

    def _changed_since(self) -> frozenset[int]:
        """List frames with steps whose masks have changed since this was last asked."""
        before = self._in_history
        self._in_history = {index: self.chunks.digest(index) for index in before}
        return frozenset(index for index in before if before[index] != self._in_history[index])

    def _on_mode(self) -> None:
        """Go back to the last tool from napari's for moving a layer, which no undo takes back."""
        if self.layer.mode == "transform":
            self.layer.mode = self._last_mode
            show_info("Masks lie on their frames: they cannot be moved away from them.")
        self._last_mode = str(self.layer.mode)

    def _on_moved(self, event: Event) -> None:
        """Follow the frames, which somebody has moved."""
        setattr(self.layer, event.type, getattr(self._image, event.type))

    def _on_data(self) -> None:
        if self.layer.data is not self.chunks.array:
            self.replaced.emit()

    def _on_set_data(self) -> None:
        """Notice undo and redo, which napari announces in no other way."""
        if self._writing:
            return
        self.look_for_undo(self.shown)
        if (self.shown, self.chunks.digest(self.shown)) != self._last_told:
            self._tell(self.shown)

    def _tell(self, index: int) -> None:
        """Say that a mask has changed, and remember what was said last.

        With asynchronous slicing, napari skips announcements: an undo is not to be taken for what
        it announced before it.
        """
        self._last_told = index, self.chunks.digest(index)
        self.changed.emit(index)


def shown_frame(viewer: Viewer, layer: Image | Labels) -> int:
    """Find which frame of a layer the viewer shows, from its sliders."""
    if layer.ndim < 3:
        return 0
    return int(np.clip(_at_sliders(viewer, layer), 0, layer.data.shape[0] - 1))


def shows_nothing(viewer: Viewer, layer: Image | Labels) -> bool:
    """Tell whether the sliders are beyond the frames of a layer: another one has more of them."""
    return layer.ndim > 2 and not 0 <= _at_sliders(viewer, layer) < layer.data.shape[0]


def _at_sliders(viewer: Viewer, layer: Image | Labels) -> float:
    return float(np.rint(layer.world_to_data(viewer.dims.point)[0]))


def geometry_of(layer: Image | Labels) -> dict[str, Any]:
    """Give the options that put another layer exactly where one is."""
    return {name: getattr(layer, name) for name in (*_MOVES, "units", "axis_labels")}


def mask_colours() -> DirectLabelColormap:
    """Colours of masks: bright ones in turn for the polyps, gray for what is to be ignored."""
    colours: dict[int | None, str] = {None: "transparent", 0: "transparent", IGNORE: _IGNORE_COLOUR}
    for label in range(1, IGNORE):
        colours[label] = _COLOURS[(label - 1) % len(_COLOURS)]
    return DirectLabelColormap(color_dict=colours)
