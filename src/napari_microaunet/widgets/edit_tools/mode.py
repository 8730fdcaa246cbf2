"""Ways of working with the mouse in the picture, of which one is on at a time."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from app_model.types import KeyBinding
from qtpy.QtCore import QObject, Signal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari.components import LayerList
    from napari.layers import Labels, Layer
    from napari.utils.events import Event
    from numpy.typing import NDArray

    from napari_microaunet.widgets.edit_tools.edits import Edits

# A mouse that moves further between press and release drags, in pixels of the screen.
_STILL = 4


class Mode(QObject):
    """A way of working that is entered and left. Lives in the GUI thread.

    It is left when the frame on show or the sequence changes, when another one
    is entered and when the user removes its layer. Layers that it shows are
    gone afterwards.

    Parameters
    ----------
    edits : Edits
        What is edited.

    Attributes
    ----------
    title : str
        What it is called.
    help : str
        What to do in it, in one line.
    switched : Signal(bool)
        It has been entered or left.
    """

    title: ClassVar[str]
    help: ClassVar[str]
    switched = Signal(bool)

    def __init__(self, edits: Edits) -> None:
        super().__init__()
        self.edits = edits
        self.is_on = False
        self._layers: list[Layer] = []
        self._bound: list[tuple[Layer, str, Callable | None]] = []
        bench = edits.bench
        bench.shown_changed.connect(self.leave)
        edits.masks_changed.connect(self.leave)
        bench.viewer.layers.events.removed.connect(self._on_removed)

    def toggle(self) -> None:
        """Enter the mode, or leave it."""
        if self.is_on:
            self.leave()
        else:
            self.enter()

    def enter(self) -> None:
        """Enter the mode, if there is anything to do in it."""
        if self.is_on or not self.edits.can_edit():
            return
        if self.edits.mode is not None:
            self.edits.mode.leave()
        if not self.begin():
            return
        self.is_on, self.edits.mode = True, self
        self.edits.say(self.help)
        self.switched.emit(True)

    def leave(self) -> None:
        """Leave the mode with all that was done in it."""
        if not self.is_on:
            return
        self.is_on, self.edits.mode = False, None
        for layer, key, before in self._bound:
            layer.bind_key(key, before, overwrite=True)
        self._bound.clear()
        self.end()
        self.hide_layer()
        self.switched.emit(False)

    def begin(self) -> bool:
        """Begin, unless there is nothing to do; then the user is told so."""
        raise NotImplementedError

    def end(self) -> None:
        """Finish what was begun; the layer that is shown is removed afterwards."""

    def bind(self, layer: Layer, key: str, action: Callable[[], object]) -> None:
        """Bind a key on a layer until the mode is left."""

        def press(_layer: object) -> None:
            action()

        self._bound.append((layer, key, layer.keymap.get(KeyBinding.from_str(key))))
        layer.bind_key(key, press, overwrite=True)

    @property
    def layer(self) -> Layer | None:
        """The layer that the mode shows, the first of several; None if it shows none."""
        return next(iter(self._layers), None)

    def in_layer(self, points: NDArray[np.floating]) -> NDArray[np.floating]:
        """Put points, (n, 2) in the frame on show, where layers over the frames have them."""
        if self.edits.masks.layer.ndim < 3:
            return points
        return np.insert(points.astype(float), 0, self.edits.index, axis=1)

    def show_layer(self, layer: Layer, *, active: bool = False) -> None:
        """Show a layer until the mode is left; by default, the active layer stays the same."""
        layers = self.edits.bench.viewer.layers
        before = layers.selection.active
        self._layers.append(layer)
        layers.append(layer)
        if not active:
            layers.selection.active = before

    def hide_layer(self, layer: Layer | None = None) -> None:
        """Remove a layer that is shown, or all of them."""
        shown = list(self._layers) if layer is None else [layer]
        layers, work = self.edits.bench.viewer.layers, self.edits.bench.work
        for one in shown:
            self._layers.remove(one)
            if one not in layers:
                continue
            active = layers.selection.active
            # napari makes the layer below the active one.
            remove_layer(layers, one)
            if active is not one:
                layers.selection.active = active
            elif work is not None and work.masks is not None:
                layers.selection.active = work.masks.layer

    def _on_removed(self, event: Event) -> None:
        if event.value in self._layers:
            self._layers.remove(event.value)
            self.leave()


def remove_layer(layers: LayerList, layer: Layer) -> None:
    """Remove a layer without holding up the window.

    napari collects garbage when a layer goes: through all objects of the process, some 200 ms
    with the libraries of this plugin loaded. Only what has come since is looked through here;
    Python's own collection finds the rest later.
    """
    gc.freeze()
    try:
        layers.remove(layer)
    finally:
        gc.unfreeze()


class ClickMode(Mode):
    """A mode in which clicks in the picture are taken in; drags still move the picture.

    It is left when the user takes up another tool of napari's or another layer.
    """

    def __init__(self, edits: Edits) -> None:
        super().__init__(edits)
        self._masks: Labels | None = None
        self._tool_before = "pan_zoom"
        self._double_clicks: list[Callable] = []
        self._setting_up = False

    def begin(self) -> bool:
        """Take in the clicks on the layer of masks."""
        viewer, layer = self.edits.bench.viewer, self.edits.masks.layer
        self._masks, self._tool_before = layer, str(layer.mode)
        viewer.layers.selection.active = layer
        layer.mode = "pan_zoom"
        layer.mouse_drag_callbacks.append(self._on_press)
        layer.mouse_move_callbacks.append(self._on_move)
        # napari would zoom in.
        self._double_clicks = list(viewer.mouse_double_click_callbacks)
        viewer.mouse_double_click_callbacks[:] = [self._on_double_click]
        layer.events.mode.connect(self._on_other_tool)
        viewer.layers.selection.events.active.connect(self._on_other_layer)
        self.bind(layer, "Escape", self.leave)
        return True

    def end(self) -> None:
        """Give the mouse back to napari."""
        viewer, layer = self.edits.bench.viewer, self._masks
        viewer.layers.selection.events.active.disconnect(self._on_other_layer)
        viewer.mouse_double_click_callbacks[:] = self._double_clicks
        if layer is not None:
            layer.events.mode.disconnect(self._on_other_tool)
            layer.mouse_drag_callbacks.remove(self._on_press)
            layer.mouse_move_callbacks.remove(self._on_move)
            if layer.mode == "pan_zoom":
                layer.mode = self._tool_before
        self._masks = None

    def clicked(self, point: tuple[float, float], secondary: bool) -> None:
        """Take in a click at (row, column); `secondary` with the right button or Shift."""
        raise NotImplementedError

    def moved(self, point: tuple[float, float]) -> None:
        """Take in where the mouse is, while no button is pressed."""

    def double_clicked(self) -> None:
        """Take in a double click, whose clicks have come in already."""

    @contextmanager
    def own_layers(self) -> Iterator[None]:
        """Show layers meanwhile, without being left for it."""
        self._setting_up = True
        try:
            yield
        finally:
            self._setting_up = False

    def show_layer(self, layer: Layer, *, active: bool = False) -> None:
        """Show a layer until the mode is left; the active layer stays the same."""
        with self.own_layers():
            super().show_layer(layer, active=active)

    def hide_layer(self, layer: Layer | None = None) -> None:
        """Remove a layer that is shown, or all of them."""
        with self.own_layers():
            super().hide_layer(layer)

    def _point(self, event: Event) -> tuple[float, float]:
        row, column = self.edits.masks.layer.world_to_data(event.position)[-2:]
        return float(row), float(column)

    def _on_press(self, _layer: object, event: Event) -> Iterator[None]:
        start, point = np.array(event.pos), self._point(event)
        secondary = event.button == 2 or "Shift" in event.modifiers
        yield
        while event.type == "mouse_move":
            if np.abs(np.array(event.pos) - start).max() > _STILL:
                return
            yield
        # A fast mouse may be released far away without having been seen to move.
        if np.abs(np.array(event.pos) - start).max() <= _STILL:
            self.clicked(point, secondary)

    def _on_move(self, _layer: object, event: Event) -> None:
        self.moved(self._point(event))

    def _on_double_click(self, _viewer: object, _event: Event) -> None:
        self.double_clicked()

    def _on_other_tool(self) -> None:
        if self._masks is not None and self._masks.mode != "pan_zoom":
            self.leave()

    def _on_other_layer(self) -> None:
        active = self.edits.bench.viewer.layers.selection.active
        if not self._setting_up and active is not self._masks:
            self.leave()
