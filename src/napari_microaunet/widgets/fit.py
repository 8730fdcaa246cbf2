"""Shows frames of different sizes as large as they fit, until the user chooses a view."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

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
        camera, extent = self._viewer.camera, self._viewer.layers.extent
        with cursor_stays(self._viewer):
            self._viewer.reset_view()
            # All layers fit now, hidden ones, too, so a frame that takes this share of it does.
            whole = (extent.world[1] - extent.world[0] + extent.step)[-2:]
            camera.zoom *= min(whole / (work.image.scale[-2:] * size))
            middle = (0,) * (work.image.ndim - 2) + ((frame.height - 1) / 2, (frame.width - 1) / 2)
            camera.center = (0, *work.image.data_to_world(middle)[-2:])
        self._fitted = self._view()

    def _view(self) -> tuple[tuple[float, ...], float]:
        return self._viewer.camera.center, self._viewer.camera.zoom


@contextmanager
def cursor_stays(viewer: Viewer) -> Iterator[None]:
    """Keep the cursor where it is on the screen while the camera is moved.

    napari asks where the mouse is when that moves, and only then: without this, keys would act on
    what lay below it before.

    Parameters
    ----------
    viewer : Viewer
        Whose camera is moved; only two dimensions are looked at.
    """
    camera = viewer.camera
    centre, zoom = np.array(camera.center[-2:]), camera.zoom
    yield
    *others, row, column = viewer.cursor.position
    moved = np.array(camera.center[-2:]) + ((row, column) - centre) * zoom / camera.zoom
    viewer.cursor.position = (*others, *moved.tolist())
