"""Shows frames of different sizes as large as they fit, until the user chooses a view."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari import Viewer

    from napari_microaunet.widgets.work import Work


class FitToFrame:
    """Zooms to the frame on show: on a canvas for the largest, the others would be small.

    A view that the user has zoomed or moved stays as it is.

    Parameters
    ----------
    viewer : Viewer
        Whose camera is moved.
    """

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self._fitted: tuple[tuple[float, ...], float] | None = None
        self._size: tuple[int, int] | None = None

    def start(self, work: Work, index: int) -> None:
        """Fit a frame of a sequence that has just been opened."""
        self._fitted, self._size = self._view(), None
        self.follow(work, index)

    def follow(self, work: Work, index: int) -> None:
        """Fit a frame that has come on show, unless the user has chosen a view."""
        frame = work.sequence.frames[index]
        size = frame.height, frame.width
        if size == self._size or self._fitted != self._view() or self._viewer.dims.ndisplay != 2:
            return
        self._size = size
        self._viewer.reset_view()
        camera, extent = self._viewer.camera, self._viewer.layers.extent
        # All layers fit now, hidden ones, too, so a frame that takes this share of it does as well.
        whole = (extent.world[1] - extent.world[0] + extent.step)[-2:]
        camera.zoom *= min(whole / (work.image.scale[-2:] * size))
        middle = ((frame.height - 1) / 2, (frame.width - 1) / 2)
        camera.center = (0, *work.image.data_to_world((0,) * (work.image.ndim - 2) + middle)[-2:])
        self._fitted = self._view()

    def _view(self) -> tuple[tuple[float, ...], float]:
        return self._viewer.camera.center, self._viewer.camera.zoom
