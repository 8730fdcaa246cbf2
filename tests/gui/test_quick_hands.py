"""Keys that come before something else has ended: a stroke, a mask that is being computed."""

from __future__ import annotations

import numpy as np
import pytest
from pointing import Mouse, press
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication
from skimage.draw import disk

from napari_microaunet.curation.session import MaskOrigin, ReviewState
from napari_microaunet.prelabel.masks import MaskSettings, mask_from

LEFT, RIGHT = Qt.MouseButton.LeftButton, Qt.MouseButton.RightButton
SHIFT = Qt.KeyboardModifier.ShiftModifier


@pytest.fixture
def begun(use, folder):
    """The dock on frames, of which the one on show has a disc."""
    used = use(show=True)
    used.open(folder)
    height, width = used.masks.chunks.mask(0).shape
    mask = np.zeros((height, width), np.uint8)
    mask[disk((height * 0.5, width * 0.4), height * 0.15)] = 1
    used.masks.edit(0, mask, "drawn by the test")
    return used, Mouse(used), (height * 0.5, width * 0.4)


@pytest.mark.parametrize("button", [LEFT, RIGHT], ids=["drag", "encircle"])
def test_a_stroke_stays_on_its_frame(begun, errors, button):
    used, mouse, (row, column) = begun
    press(used, Qt.Key.Key_8)
    assert used.layer.mode == "paint"
    canvas = used.viewer.window._qt_viewer.canvas.native
    mouse.move(row, column)
    QTest.mousePress(canvas, button, pos=mouse._at((row, column)))
    if button is RIGHT:
        # napari's encircling stroke goes on without the button.
        QTest.mouseRelease(canvas, button, pos=mouse._at((row, column)))
        mouse.move(row + 40, column + 40)
    assert used.masks.is_drawing
    before = [used.masks.chunks.digest(index) for index in range(1, 5)]
    for key in (Qt.Key.Key_Q, Qt.Key.Key_PageDown, Qt.Key.Key_Period):
        press(used, key)
    used.viewer.dims.set_current_step(0, 3)
    QApplication.processEvents()
    assert used.bench.shown == 0
    assert used.work.session.status(0).state is ReviewState.EDITED
    if button is RIGHT:
        press(used, Qt.Key.Key_Escape)
    else:
        QTest.mouseRelease(canvas, button, pos=mouse._at((row, column)))
    QApplication.processEvents()
    assert not used.masks.is_drawing
    press(used, Qt.Key.Key_Q)
    assert used.work.session.status(0).state is ReviewState.ACCEPTED
    assert used.bench.shown == 1
    assert [used.masks.chunks.digest(index) for index in range(1, 5)] == before


def test_accept_takes_the_mask_that_is_being_snapped(begun):
    used, mouse, place = begun
    before = used.masks.chunks.digest(0)
    mouse.move(*place)
    press(used, Qt.Key.Key_E, SHIFT)
    assert used.bench.edits_underway
    press(used, Qt.Key.Key_Q)
    assert used.bench.shown == 1
    assert used.masks.chunks.digest(0) != before
    assert used.work.session.status(0).state is ReviewState.ACCEPTED


def test_accept_takes_the_mask_of_the_last_click(begun):
    used, mouse, (row, column) = begun
    press(used, Qt.Key.Key_Q, SHIFT)
    masks = [used.masks.chunks.digest(0)]
    for away in (90, 110):
        mouse.click(row, column + away)
    press(used, Qt.Key.Key_Q)
    assert used.bench.shown == 1
    assert not used.bench.edits_underway
    assert used.masks.chunks.digest(0) not in masks
    assert used.work.session.status(0).state is ReviewState.ACCEPTED
    used.layer.undo()
    used.layer.undo()
    assert used.masks.chunks.digest(0) == masks[0]


def test_a_mask_that_comes_when_its_frame_has_been_left_is_written_there(begun):
    used, mouse, place = begun
    before = [used.masks.chunks.digest(index) for index in range(5)]
    mouse.move(*place)
    press(used, Qt.Key.Key_E, SHIFT)
    used.viewer.dims.set_current_step(0, 2)  # as napari's own slider does
    used.qtbot.waitUntil(lambda: not used.bench.edits_underway, timeout=20_000)
    after = [used.masks.chunks.digest(index) for index in range(5)]
    assert after[0] != before[0]
    assert after[1:] == before[1:]
    assert "frame 0, which you have left" in used.viewer.status


def test_a_replaced_mask_comes_back_however_soon_one_draws(prelabelled):
    used = prelabelled
    drawn = np.zeros_like(used.masks.chunks.mask(3))
    drawn[20:40, 20:60] = 5
    used.masks.put(3, used.masks.chunks.encode(drawn), MaskOrigin.HAND, undoable=False)
    used.answer("Replace them")
    used.prelabel_all()
    assert used.masks.origin(3) is MaskOrigin.MODEL
    used.viewer.dims.set_current_step(0, 3)
    replaced = used.masks.chunks.mask(3)
    edited = replaced.copy()
    edited[:9, :9] = 1
    used.masks.edit(3, edited, "a tool of quick hands")  # before the frame has been looked at
    used.layer.undo()
    np.testing.assert_array_equal(used.masks.chunks.mask(3), replaced)
    used.layer.undo()
    np.testing.assert_array_equal(used.masks.chunks.mask(3), drawn)


def test_a_model_that_is_chosen_leaves_the_masks_of_another_alone(prelabelled):
    used = prelabelled
    before = [used.mask(index) for index in range(5)]
    used.choose_model("expert")
    used.settle()
    assert used.prelabel.threshold.value != used.work.session.status(0).threshold
    for index in range(5):
        np.testing.assert_array_equal(used.mask(index), before[index])
    used.prelabel.threshold.value = 0.9
    used.settle()
    np.testing.assert_array_equal(used.mask(2), before[2])


def test_masks_that_wait_for_the_sliders_do_not_take_those_of_another_model(prelabelled):
    used = prelabelled
    for index in (1, 2, 0):
        used.go_to(index)
    used.prelabel.threshold.value = 0.62
    used.settle()
    before = [used.mask(index) for index in range(5)]
    used.choose_model("expert")
    used.settle()
    for index in range(5):
        used.go_to(index)
        np.testing.assert_array_equal(used.mask(index), before[index])


def follows(used, index, threshold):
    """Tell whether the mask of a frame is what its map gives at a threshold."""
    settings = MaskSettings.of(used.prelabel.model.value.card)
    settings = MaskSettings(threshold, settings.smallest_area, least_peak=settings.least_peak)
    expected = mask_from(used.work.prelabels.map(index), settings)
    return np.array_equal(used.masks.chunks.mask(index), expected)


def test_masks_that_were_looked_at_leave_as_the_sliders_have_them(prelabelled, tmp_path):
    used = prelabelled
    for index in (1, 2, 0):
        used.go_to(index)
    used.prelabel.threshold.value = 0.62
    used.settle()
    assert [follows(used, index, 0.62) for index in range(5)] == [True, False, False, True, True]
    used.export.include.value = "all"
    used.export.write(tmp_path / "out")
    used.wait_for_job()
    used.qtbot.waitUntil(lambda: (tmp_path / "out").is_dir(), timeout=20_000)
    assert all(follows(used, index, 0.62) for index in range(5))


def test_masks_that_did_not_follow_do_so_when_the_session_is_opened_again(prelabelled, use, folder):
    used = prelabelled
    for index in (1, 2, 0):
        used.go_to(index)
    used.prelabel.threshold.value = 0.62
    used.settle()
    used.leave()
    again = use()
    again.open(folder)
    again.settle()
    assert all(follows(again, index, 0.62) for index in range(5))


def test_a_slider_that_moves_while_masks_follow_for_an_export_counts(prelabelled, tmp_path):
    used = prelabelled
    for index in (1, 2, 0):
        used.go_to(index)
    used.prelabel.threshold.value = 0.62
    used.settle()
    used.export.include.value = "all"
    used.export.write(tmp_path / "out")
    used.prelabel.threshold.value = 0.7
    used.wait_for_job()
    used.qtbot.waitUntil(lambda: (tmp_path / "out").is_dir(), timeout=20_000)
    used.settle()
    assert all(follows(used, index, 0.7) for index in range(5))


def test_what_another_model_says_of_masks_that_were_looked_at_is_not_lost(prelabelled, use, folder):
    used = prelabelled
    for index in (1, 2, 0):
        used.go_to(index)
        used.qtbot.waitUntil(lambda: not used.work.prelabels._looked_at.isActive(), timeout=5_000)
    used.choose_model("teacher")
    used.settle()
    used.prelabel.run()
    assert not used.prelabel.model.enabled  # its settings make the masks of the whole run
    used.wait_for_job()
    assert used.prelabel.model.enabled
    used.settle()
    threshold = used.bench.settings.threshold
    used.leave()
    again = use()
    again.open(folder)
    again.settle()
    assert [again.work.session.status(index).model for index in range(5)] == ["teacher"] * 5
    assert all(follows(again, index, threshold) for index in range(5))
