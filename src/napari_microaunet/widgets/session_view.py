"""How a session is looked at, kept with it: it opens again exactly where it was left."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer

from napari_microaunet.widgets.fit import cursor_stays

if TYPE_CHECKING:
    from napari.layers import Labels

    from napari_microaunet.widgets.workbench import Workbench

# A view that is still being moved is not worth keeping.
_REST_MS = 500
_CAMERA, _TOOL = "camera", "tool"


class SessionView(QObject):
    """Keeps zoom, place and tool with the session being worked on, and brings them back.

    The frame on show and the settings of masks are kept where they change.

    Parameters
    ----------
    bench : Workbench
        Whose viewer and session they are.
    """

    def __init__(self, bench: Workbench) -> None:
        super().__init__(bench)
        self._bench = bench
        self._rest = QTimer(self, interval=_REST_MS, singleShot=True, timeout=self._keep)
        camera = bench.viewer.camera
        camera.events.zoom.connect(self._moved)
        camera.events.center.connect(self._moved)
        bench.work_changed.connect(self._follow_tool)
        self._layer: Labels | None = None

    def restore(self) -> None:
        """Show what was on show when the session was left."""
        work, viewer = self._bench.work, self._bench.viewer
        if work is None or work.session is None or work.masks is None:
            return
        self._bench.go_to(work.session.shown)
        camera: dict[str, Any] | None = work.session.setting(_CAMERA)
        tool: dict[str, Any] | None = work.session.setting(_TOOL)
        # A newer napari may know neither the view nor the tool of an older one.
        with suppress(KeyError, TypeError, ValueError):
            if camera is not None:
                with cursor_stays(viewer):
                    viewer.camera.zoom = camera["zoom"]
                    viewer.camera.center = camera["centre"]
            if tool is not None and not work.session.read_only:
                layer = work.masks.layer
                layer.brush_size, layer.selected_label = tool["brush"], tool["label"]
                layer.mode = tool["mode"]

    def _follow_tool(self) -> None:
        work = self._bench.work
        layer = None if work is None or work.masks is None else work.masks.layer
        if layer is not None and layer is not self._layer:
            for event in (
                layer.events.mode,
                layer.events.brush_size,
                layer.events.selected_label,
            ):
                event.connect(self._moved)
        self._layer = layer

    def _moved(self) -> None:
        if self._layer is not None:
            self._rest.start()

    def _keep(self) -> None:
        work, camera = self._bench.work, self._bench.viewer.camera
        if work is None or work.session is None or work.masks is None:
            return
        layer = work.masks.layer
        work.session.set_setting(
            _CAMERA, {"zoom": float(camera.zoom), "centre": [float(x) for x in camera.center]}
        )
        work.session.set_setting(
            _TOOL,
            {
                "mode": str(layer.mode),
                "brush": float(layer.brush_size),
                "label": int(layer.selected_label),
            },
        )
