"""How masks are drawn over the frame: filled, as an outline, or both."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from napari.layers import Labels
from qtpy.QtCore import QObject, QTimer

from napari_microaunet.widgets.mask_layer import MaskLayer, geometry_of, mask_colours

if TYPE_CHECKING:
    from napari import Viewer

# An outline is one pixel wide, and one more for as many rows of the largest frame.
_ROWS_PER_PIXEL = 500
_FILL_OPACITY, _BOTH_OPACITY, _OUTLINE_OPACITY = 0.45, 0.25, 0.9
# While a stroke is being drawn, the outline of the other layer may lag as long.
_REDRAW_MS = 60


class OverlayStyle(Enum):
    """Ways of drawing masks."""

    FILLED = "filled"
    OUTLINE = "outline"
    BOTH = "both"


class Overlay(QObject):
    """Draws one layer of masks in the style asked for.

    napari draws a Labels layer filled or as contours, so "both" takes a second
    layer over the same data, which cannot be edited.

    Parameters
    ----------
    viewer : Viewer
        Holds the layers.
    masks : MaskLayer
        The masks.
    style : OverlayStyle
        How to draw them at first.
    """

    def __init__(self, viewer: Viewer, masks: MaskLayer, style: OverlayStyle) -> None:
        super().__init__()
        self._viewer = viewer
        self._masks = masks
        self._outline: Labels | None = None
        self._width = 1 + masks.layer.data.shape[-2] // _ROWS_PER_PIXEL
        self._redraw = QTimer(
            self, interval=_REDRAW_MS, singleShot=True, timeout=self._refresh_outline
        )
        masks.layer.events.labels_update.connect(self._on_change)
        masks.layer.events.set_data.connect(self._on_change)
        masks.layer.events.visible.connect(self._show_outline)
        self.set_style(style)

    def set_style(self, style: OverlayStyle) -> None:
        """Draw the masks in another way."""
        self._style = style
        layer = self._masks.layer
        layer.contour = self._width if style is OverlayStyle.OUTLINE else 0
        layer.opacity = {
            OverlayStyle.FILLED: _FILL_OPACITY,
            OverlayStyle.OUTLINE: _OUTLINE_OPACITY,
            OverlayStyle.BOTH: _BOTH_OPACITY,
        }[style]
        if style is OverlayStyle.BOTH:
            # napari takes its time for a new layer: after what has changed so far is drawn.
            QTimer.singleShot(0, self._add_outline)
        self._show_outline()

    def remove_outline(self) -> None:
        """Take the second layer away, if it is there."""
        if self._outline is not None and self._outline in self._viewer.layers:
            self._viewer.layers.remove(self._outline)
        self._outline = None

    def _add_outline(self) -> None:
        layers, wanted = self._viewer.layers, self._style is OverlayStyle.BOTH
        if not wanted or self._outline in layers or self._masks.layer not in layers:
            return
        layer, active = self._masks.layer, self._viewer.layers.selection.active
        self._outline = Labels(
            layer.data,
            name=f"{layer.name} (outline)",
            colormap=mask_colours(),
            opacity=_OUTLINE_OPACITY,
            visible=layer.visible,
            **geometry_of(layer),
        )
        # Before the viewer has it: each would have napari trace the outlines once more.
        self._outline.contour = self._width
        self._outline.editable = False
        self._viewer.add_layer(self._outline)
        self._viewer.layers.selection.active = active

    def _show_outline(self) -> None:
        # Hidden rather than removed: napari takes long to remove a layer and to add one.
        if self._outline is not None:
            both = self._style is OverlayStyle.BOTH
            self._outline.visible = both and self._masks.layer.visible

    def _on_change(self) -> None:
        if self._outline is not None and self._outline.visible:
            self._redraw.start()

    def _refresh_outline(self) -> None:
        if self._outline is not None:
            self._outline.refresh()
