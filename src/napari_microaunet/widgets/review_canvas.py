"""What review shows in the picture: the state of the frame, and another model's mask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from napari.utils import DirectLabelColormap
from scipy import ndimage

from napari_microaunet.editing.labels import polyps_in
from napari_microaunet.widgets.mask_layer import geometry_of
from napari_microaunet.widgets.review_table import STATE_COLOURS, state_word

if TYPE_CHECKING:
    from napari import Viewer
    from numpy.typing import NDArray

    from napari_microaunet.curation.session import FrameStatus

_TEXT_SIZE = 13
# What only one of two masks holds, and the outline of the other one.
_ONLY_SHOWN, _ONLY_OTHER, _OUTLINE = 1, 2, 3
_COLOURS: dict[int | None, str] = {
    None: "#00000000",
    0: "#00000000",
    _ONLY_SHOWN: "#000000aa",
    _ONLY_OTHER: "#ffffff66",
    _OUTLINE: "#ffffff",
}
# An outline is one pixel wide, and one more for as many rows.
_ROWS_PER_PIXEL = 400


class StateInPicture:
    """Writes the state of the frame on show into a corner of the canvas.

    Parameters
    ----------
    viewer : Viewer
        Whose canvas it is.
    """

    def __init__(self, viewer: Viewer) -> None:
        # Older than napari 0.9, a viewer has its overlays itself.
        canvas = getattr(viewer, "canvas", None)
        self._overlay: Any = viewer.text_overlay if canvas is None else canvas.overlays.text
        self._ours = False

    def show(self, status: FrameStatus, finding: str) -> None:
        """Show the state of a frame, and what was found about it."""
        overlay = self._overlay
        if not self._ours:
            overlay.position, overlay.font_size = "top_left", _TEXT_SIZE
        parts = [state_word(status), status.reason]
        state = ": ".join(part for part in parts if part)
        overlay.text = f"{state}\n{finding}".strip()
        overlay.color = STATE_COLOURS[status.state]
        overlay.visible = self._ours = True

    def hide(self) -> None:
        """Show nothing."""
        if self._ours:
            # Not made invisible: shown again, OpenGL by software crashes as a new layer is drawn.
            self._overlay.text = ""
            self._ours = False


class Comparison:
    """Draws where another model's mask differs from the one on show.

    Parameters
    ----------
    viewer : Viewer
        Gets a layer for it.
    """

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self._layer: Labels | None = None
        self._masks: Labels | None = None

    def show(
        self,
        masks: Labels,
        mask: NDArray[np.uint8],
        other: NDArray[np.uint8],
    ) -> None:
        """Draw it.

        Parameters
        ----------
        masks : Labels
            The layer of the masks of all frames.
        mask, other : uint8 array, shape (height, width)
            The mask on show and the other model's, at native size.
        """
        canvas = np.zeros(masks.data.shape[-2:], np.uint8)
        height, width = mask.shape
        canvas[:height, :width] = differences(mask, other)
        # The same for every frame, so that it lies where the masks lie; it is hidden before
        # another frame is on show.
        data = np.broadcast_to(canvas, masks.data.shape)
        if self._masks is not masks:
            self.remove()
        if self._layer is None or self._layer not in self._viewer.layers:
            self._masks = masks
            self._layer = self._add(data, masks)
        else:
            self._layer.data = data
            self._layer.visible = True

    def hide(self) -> None:
        """Draw nothing."""
        # Hidden rather than removed: napari takes long to remove a layer and to add one.
        if self._layer is not None:
            self._layer.visible = False

    def remove(self) -> None:
        """Take the layer away."""
        layer, self._layer = self._layer, None
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)

    def _add(self, data: NDArray[np.uint8], masks: Labels) -> Labels:
        active = self._viewer.layers.selection.active
        colours = DirectLabelColormap(color_dict=_COLOURS)
        layer = Labels(
            data, name="other model", colormap=colours, opacity=1.0, **geometry_of(masks)
        )
        layer.editable = False
        self._viewer.add_layer(layer)
        self._viewer.layers.selection.active = active
        return layer


def differences(mask: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Tell where two masks differ.

    Parameters
    ----------
    mask, other : uint8 array, shape (height, width)
        The mask on show and another one.

    Returns
    -------
    uint8 array, shape (height, width)
        1 where only the first marks a polyp, 2 where only the other does, 3 on
        the outline of the other, 0 elsewhere and where the first is to be ignored.
    """
    theirs = other > 0
    found = np.zeros(mask.shape, np.uint8)
    found[polyps_in(mask) & ~theirs] = _ONLY_SHOWN
    found[theirs & (mask == 0)] = _ONLY_OTHER
    width = 1 + mask.shape[0] // _ROWS_PER_PIXEL
    found[theirs & ~ndimage.binary_erosion(theirs, iterations=width, border_value=1)] = _OUTLINE
    return found
