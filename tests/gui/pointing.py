"""A mouse and a keyboard in the picture, for tests of the Edit section."""

from __future__ import annotations

import numpy as np
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication


class Mouse:
    """Moves over the canvas; places are (row, column) of the frame on show."""

    def __init__(self, used):
        self._used = used
        # As large as on a real screen: at the size it opens with, the docks leave little room.
        used.viewer.window.resize(1500, 950)
        self._canvas = used.viewer.window._qt_viewer.canvas

    def _at(self, point):
        """Where a place of the frame is on the canvas, which has to be in view."""
        QApplication.processEvents()
        view = self._canvas.view
        origin = np.array(self._canvas._map_canvas2world((0, 0), view)[-2:])
        other = np.array(self._canvas._map_canvas2world((100, 100), view)[-2:])
        world = self._used.layer.data_to_world((self._used.bench.shown, *point))[-2:]
        row, column = (np.array(world) - origin) / (other - origin) * 100
        assert 0 <= row < self._canvas.native.height()
        assert 0 <= column < self._canvas.native.width()
        return QPoint(round(column), round(row))

    def move(self, *point):
        """Move there; keys then mean the polyp that is there."""

        used = self._used

        def is_there():
            at = self._at(point)
            # Where the mouse is already, Qt sends nothing.
            QTest.mouseMove(self._canvas.native, QPoint(at.x() + 1, at.y()))
            QTest.mouseMove(self._canvas.native, at)
            QApplication.processEvents()
            where = self._used.layer.world_to_data(self._used.viewer.cursor.position)[-2:]
            # Within two pixels of the canvas, where the frame is drawn smaller than it is.
            return np.abs(np.subtract(where, point)).max() < 2 / min(1, used.viewer.camera.zoom)

        # A window that has just opened may still be finding its size.
        self._used.qtbot.waitUntil(is_there, timeout=20_000)

    def click(self, *point, button=Qt.MouseButton.LeftButton, held=Qt.KeyboardModifier.NoModifier):
        at = self._at(point)
        self.move(*point)
        QTest.mouseClick(self._canvas.native, button, held, at)
        QApplication.processEvents()

    def double_click(self, *point):
        self.click(*point)
        at = self._at(point)
        QTest.mouseDClick(self._canvas.native, Qt.MouseButton.LeftButton, pos=at)
        QApplication.processEvents()

    def drag(self, start, end, steps=4):
        self.move(*start)
        native, left = self._canvas.native, Qt.MouseButton.LeftButton
        QTest.mousePress(native, left, pos=self._at(start))
        for share in np.linspace(0, 1, steps + 1)[1:]:
            between = (1 - share) * np.array(start) + share * np.array(end)
            # QTest.mouseMove would say that no button is held.
            _move_with_button(native, self._at(tuple(between)), left)
            QApplication.processEvents()
        QTest.mouseRelease(native, left, pos=self._at(end))
        QApplication.processEvents()


def press(used, key, held=Qt.KeyboardModifier.NoModifier):
    """Press a key where a user would: in the canvas."""
    used.qtbot.keyClick(used.viewer.window._qt_viewer.canvas.native, key, held)
    QApplication.processEvents()


def _move_with_button(widget, at, button):
    from qtpy.QtCore import QEvent, QPointF
    from qtpy.QtGui import QMouseEvent

    local = QPointF(at)
    event = QMouseEvent(
        QEvent.Type.MouseMove,
        local,
        QPointF(widget.mapToGlobal(at)),
        Qt.MouseButton.NoButton,
        button,
        Qt.KeyboardModifier.NoModifier,
    )
    QApplication.sendEvent(widget, event)
