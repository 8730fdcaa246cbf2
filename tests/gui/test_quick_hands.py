"""Keys that come before something else has ended: a stroke, a mask that is being computed."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from napari.utils.notifications import notification_manager
from pointing import Mouse, press
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication
from skimage.draw import disk

from napari_microaunet.curation.session import MaskOrigin, ReviewState
from napari_microaunet.frames.masks import read_mask_file
from napari_microaunet.prelabel.masks import MaskSettings, mask_from
from napari_microaunet.widgets.edit_tools import scissors

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


@pytest.mark.parametrize("by", ["polygon", "scissors"])
def test_a_line_that_is_not_closed_keeps_its_frame(begun, by):
    used, mouse, (row, column) = begun
    before = [used.masks.chunks.digest(index) for index in range(5)]
    keys, what = (
        ((Qt.Key.Key_3,), "Escape takes back a polygon")
        if by == "polygon"
        else ((Qt.Key.Key_Z, SHIFT), "close the line first (Enter)")
    )
    for key in (Qt.Key.Key_Escape, Qt.Key.Key_Return):
        press(used, *keys)
        for down, across in ((-90, -90), (-90, 90), (90, 90), (90, -90)):
            mouse.click(row + down, column + across)
        for other in (Qt.Key.Key_Q, Qt.Key.Key_PageDown, Qt.Key.Key_Period):
            told = len(notification_manager.records)
            press(used, other)
            assert what in notification_manager.records[told].message
        used.viewer.dims.set_current_step(0, 3)
        QApplication.processEvents()
        assert used.bench.shown == 0
        assert used.work.session.status(0).state is ReviewState.EDITED
        assert used.masks.chunks.digest(0) == before[0]
        press(used, key)
    used.qtbot.waitUntil(lambda: used.masks.chunks.digest(0) != before[0], timeout=20_000)
    press(used, Qt.Key.Key_Q)
    assert used.bench.shown == 1
    assert used.work.session.status(0).state is ReviewState.ACCEPTED
    assert [used.masks.chunks.digest(index) for index in range(1, 5)] == before[1:]


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


@pytest.fixture
def replaced(prelabelled):
    """The dock on frames of which the fourth has lost a mask by hand to a model, and that mask."""
    used = prelabelled
    drawn = np.zeros_like(used.masks.chunks.mask(3))
    drawn[20:40, 20:60] = 5
    used.masks.put(3, used.masks.chunks.encode(drawn), MaskOrigin.HAND, undoable=False)
    used.answer("Replace them")
    used.prelabel_all()
    assert used.masks.origin(3) is MaskOrigin.MODEL
    return used, drawn


@pytest.mark.parametrize("by", ["a slider", "no polyp"])
def test_a_replaced_mask_comes_back_however_soon_it_is_written_over(replaced, by):
    used, drawn = replaced
    if by == "a slider":
        used.prelabel.threshold.value = 0.62
    used.viewer.dims.set_current_step(0, 3)  # before it has followed, or been looked at
    if by == "no polyp":
        press(used, Qt.Key.Key_N)  # goes on, to a frame that has not been looked at either
    for _ in range(2):
        assert (used.masks.chunks.mask(3) != drawn).any()
        used.layer.undo()
    np.testing.assert_array_equal(used.masks.chunks.mask(3), drawn)
    assert used.masks.origin(3) is MaskOrigin.HAND


def test_a_replaced_mask_comes_back_however_soon_one_draws(replaced):
    used, drawn = replaced
    used.viewer.dims.set_current_step(0, 3)
    replaced = used.masks.chunks.mask(3)
    edited = replaced.copy()
    edited[:9, :9] = 1
    used.masks.edit(3, edited, "a tool of quick hands")  # before the frame has been looked at
    used.layer.undo()
    np.testing.assert_array_equal(used.masks.chunks.mask(3), replaced)
    used.layer.undo()
    np.testing.assert_array_equal(used.masks.chunks.mask(3), drawn)


def test_a_corrected_mask_that_is_given_up_is_an_undo_step_at_once(prelabelled, use, folder):
    used = prelabelled
    used.go_to(3)
    corrected = used.masks.chunks.mask(3)
    corrected[20:40, 20:60] = 5
    used.masks.edit(3, corrected, "corrected by the test")
    used.go_to(0)
    used.answer("Replace them")
    used.prelabel_all()
    assert used.masks.origin(3) is MaskOrigin.MODEL
    assert follows(used, 3, used.bench.settings.threshold)
    used.layer.undo()
    assert used.bench.shown == 3
    np.testing.assert_array_equal(used.masks.chunks.mask(3), corrected)
    assert used.masks.origin(3) is MaskOrigin.HAND


def test_a_line_that_is_closed_as_its_frame_is_left_is_filled_there(begun, monkeypatch):
    used, mouse, (row, column) = begun
    is_left, fill = threading.Event(), scissors.fill_loop
    monkeypatch.setattr(scissors, "fill_loop", lambda *given: is_left.wait(20) and fill(*given))
    before = [used.masks.chunks.digest(index) for index in range(5)]
    area = np.count_nonzero(used.masks.chunks.mask(0))
    press(used, Qt.Key.Key_Z, SHIFT)
    assert used.edit.scissors.is_on
    for down, across in ((-90, -90), (-90, 90), (90, 90), (90, -90)):
        mouse.click(row + down, column + across)
    press(used, Qt.Key.Key_Return)
    used.viewer.dims.set_current_step(0, 2)  # as napari's own slider does
    is_left.set()
    used.qtbot.waitUntil(lambda: not used.bench.edits_underway, timeout=20_000)
    after = [used.masks.chunks.digest(index) for index in range(5)]
    assert after[1:] == before[1:]
    assert np.count_nonzero(used.masks.chunks.mask(0)) > area
    assert "frame 0, which you have left" in used.viewer.status
    used.layer.undo()
    assert used.masks.chunks.digest(0) == before[0]


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


def follows(used, index, threshold, model="bright"):
    """Tell whether the mask of a frame is what its map gives at a threshold."""
    card = next(one for one in used.prelabel.model.choices if one.name == model).card
    settings = MaskSettings(threshold, least_peak=card.least_peak)
    expected = mask_from(used.work.prelabels.map(index), settings)
    return np.array_equal(used.masks.chunks.mask(index), expected)


@pytest.fixture
def waiting(prelabelled):
    """Frames 1 and 2 have undo steps and are yet to follow the threshold, 0.62."""
    used = prelabelled
    for index in (1, 2, 0):
        used.go_to(index)
    used.prelabel.threshold.value = 0.62
    used.settle()
    assert [follows(used, index, 0.62) for index in range(5)] == [True, False, False, True, True]
    return used


def test_masks_that_wait_for_the_sliders_follow_those_of_their_own_model(waiting):
    used = waiting
    used.choose_model("expert")
    used.settle()
    for index in range(5):
        used.go_to(index)
        assert follows(used, index, 0.62)
        assert used.work.session.status(index).threshold == 0.62


def test_a_model_that_is_chosen_at_once_takes_no_mask_from_the_last_slider(prelabelled):
    used = prelabelled
    used.prelabel.threshold.value = 0.62
    used.choose_model("expert")  # before any mask but that on show has followed
    used.prelabel.threshold.value = 0.9
    used.settle()
    assert all(follows(used, index, 0.62) for index in range(5))


@pytest.mark.parametrize("leave", ["accept", "export", "save", "close"])
def test_masks_of_another_model_leave_as_its_sliders_had_them(
    waiting, use, folder, tmp_path, leave
):
    used = waiting
    used.choose_model("expert")
    if leave == "accept":
        used.review.queue.selectAll()
        press(used, Qt.Key.Key_Q)
        assert used.states == [ReviewState.ACCEPTED] * 5
    elif leave == "export":
        used.export.include.value = "all"
        used.export.write(tmp_path / "out")
        used.wait_for_job()
    elif leave == "save":
        used.work.mask_folder = tmp_path / "masks"
        used.frames.save_masks_button.click()
        used.wait_for_job()
        for index, frame in enumerate(used.work.sequence.frames):
            saved = read_mask_file(tmp_path / "masks" / f"{frame.name}.png")
            np.testing.assert_array_equal(saved, used.masks.chunks.mask(index))
    else:
        used.leave()
        used = use()
        used.open(folder)
    used.settle()
    assert all(follows(used, index, 0.62) for index in range(5))


def test_a_model_runs_with_its_sliders_as_they_are_shown(waiting):
    used = waiting
    card = used.prelabel.model.value.card
    threshold = card.threshold
    used.choose_model("expert")
    # Where the model that is chosen next has them: then they do not move.
    used.prelabel.threshold.value, used.prelabel.least_peak.value = threshold, card.least_peak
    used.choose_model("bright")
    assert used.prelabel.threshold.value == threshold
    used.prelabel_all()
    for index in range(5):
        used.go_to(index)
        assert follows(used, index, threshold)


def damage(file):
    file.write_bytes(file.read_bytes()[:-9])


def put_in_its_place(file):
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize("how", [damage, put_in_its_place])
def test_a_map_that_cannot_be_read_is_told_of_once_and_stops_nothing(
    prelabelled, use, folder, errors, how
):
    used = prelabelled
    used.work.session.flush()
    maps = next(used.work.session.folder.rglob("maps*"))
    used.leave()
    how(next(maps.rglob("c.3.*")))
    used = use()
    used.open(folder)
    name = used.work.sequence.frames[3].name
    for threshold in (0.62, 0.64):  # as a slider that is dragged
        used.prelabel.threshold.value = threshold
    used.settle()
    assert [follows(used, index, 0.64) for index in (0, 1, 2, 4)] == [True] * 4
    (said,) = errors()
    assert name in said
    assert str(maps.parent) in said
    used.go_to(3)
    used.prelabel.threshold.value = 0.66  # now it is on show
    used.prelabel.threshold.value = 0.68
    used.review.queue.selectAll()
    press(used, Qt.Key.Key_Q)
    used.settle()
    assert errors() == [said]
    assert used.states == [ReviewState.ACCEPTED] * 5
    assert [follows(used, index, 0.68) for index in (0, 1, 2, 4)] == [True] * 4


def test_masks_that_were_looked_at_leave_as_the_sliders_have_them(waiting, tmp_path):
    used = waiting
    used.export.include.value = "all"
    used.export.write(tmp_path / "out")
    used.wait_for_job()
    used.qtbot.waitUntil(lambda: (tmp_path / "out").is_dir(), timeout=20_000)
    assert all(follows(used, index, 0.62) for index in range(5))


@pytest.mark.parametrize("earlier", [False, True], ids=["this version", "an earlier one"])
def test_masks_that_did_not_follow_do_so_when_the_session_is_opened_again(
    waiting, use, folder, earlier
):
    used = waiting
    if earlier:
        used.work.session.set_setting("masks behind settings", "bright")
    used.leave()
    again = use()
    again.open(folder)
    again.settle()
    assert all(follows(again, index, 0.62) for index in range(5))


def test_a_slider_that_moves_while_masks_follow_for_an_export_counts(waiting, tmp_path):
    used = waiting
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
    assert all(follows(again, index, threshold, "teacher") for index in range(5))
