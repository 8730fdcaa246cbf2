from __future__ import annotations

import threading

import numpy as np
import pytest
import tifffile
from PIL import Image
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QMenu

from napari_microaunet.curation.session import MaskOrigin, ReviewState
from napari_microaunet.frames.rendered import render_frame
from napari_microaunet.prelabel.masks import mask_from
from napari_microaunet.widgets.prelabel_section import Which
from napari_microaunet.widgets.review_table import AREA, CONFIDENCE, NAME, REMARKS, STATE

UNSEEN, PRELABELLED, EDITED, ACCEPTED, EXCLUDED = ReviewState


def stroke(used, row=100, column=120, label=7):
    used.layer.brush_size = 31
    used.layer.paint((used.bench.shown, row, column), label)


def text(used, index, column):
    """What the table says of a frame."""
    table = used.review.queue.table
    return table.data(table.index(table.row_of(index), column))


def select(used, *indices):
    """Select rows as clicks with Ctrl held down do."""
    queue = used.review.queue
    queue._select(sorted(queue.table.row_of(index) for index in indices))


def choose_reason(used, key):
    """Press a number key in the list of reasons."""
    menus = [w for w in QApplication.topLevelWidgets() if isinstance(w, QMenu) and w.isVisible()]
    used.qtbot.keyClick(menus[-1], key)


def test_accepting_walks_through_the_frames(prelabelled):
    used = prelabelled
    assert used.states == [PRELABELLED] * 5
    masks = [used.mask(index) for index in range(5)]
    assert "0 of 5" in used.review.progress.text()
    used.press(Qt.Key.Key_Q)
    assert used.states == [ACCEPTED, *[PRELABELLED] * 4]
    assert used.bench.shown == 1
    used.review.accept_button.click()
    assert used.bench.shown == 2
    used.qtbot.waitUntil(lambda: "2 of 5" in used.review.progress.text(), timeout=20_000)
    assert used.review.bar.value() == 2
    assert text(used, 0, STATE) == "accepted"
    # What is done already is not stopped at.
    used.work.session.accept([3])
    used.press(Qt.Key.Key_Q)
    assert used.bench.shown == 4
    used.press(Qt.Key.Key_Q)
    assert used.states == [ACCEPTED] * 5
    assert "All frames of the queue are done" in used.review.message.text()
    for index, mask in enumerate(masks):
        np.testing.assert_array_equal(used.mask(index), mask)
    # Accepted masks are out of the sliders' reach.
    used.prelabel.threshold.value += 0.1
    used.settle()
    np.testing.assert_array_equal(used.mask(2), masks[2])
    assert used.states == [ACCEPTED] * 5


def test_changing_an_accepted_mask_makes_it_edited_until_that_is_undone(prelabelled):
    used = prelabelled
    used.press(Qt.Key.Key_Q)
    used.go_to(0)
    stroke(used)
    assert used.states[0] is EDITED
    used.layer.undo()
    assert used.states[0] is ACCEPTED


def test_a_negative_frame_is_emptied_and_comes_back_with_either_undo(prelabelled):
    used = prelabelled
    mask = used.mask(0)
    assert mask.any()
    used.press(Qt.Key.Key_N)
    assert used.bench.shown == 1
    assert not used.mask(0).any()
    assert used.states[0] is ACCEPTED
    used.qtbot.waitUntil(lambda: text(used, 0, STATE) == "negative", timeout=20_000)
    used.press(Qt.Key.Key_U)
    assert used.bench.shown == 0
    np.testing.assert_array_equal(used.mask(0), mask)
    assert used.masks.origin(0) is MaskOrigin.MODEL
    assert used.states[0] is PRELABELLED
    used.press(Qt.Key.Key_U, Qt.KeyboardModifier.ShiftModifier)
    assert not used.mask(0).any()
    assert used.states[0] is ACCEPTED
    # napari's own undo brings the mask back as well, and with it the frame to the queue.
    used.layer.undo()
    np.testing.assert_array_equal(used.mask(0), mask)
    assert used.states[0] is not ACCEPTED


def test_a_negative_that_was_taken_back_does_not_come_back_by_the_threshold(prelabelled):
    used = prelabelled
    mask = used.mask(0)
    used.press(Qt.Key.Key_N)
    used.go_to(0)
    used.press(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert used.states[0] is PRELABELLED
    before = used.prelabel.threshold.value
    used.prelabel.threshold.value = 0.95
    used.settle()
    assert not used.mask(0).any()
    assert used.states[0] is PRELABELLED
    used.prelabel.threshold.value = before
    used.settle()
    np.testing.assert_array_equal(used.mask(0), mask)
    assert used.states[0] is PRELABELLED


def test_a_mask_that_was_given_up_is_not_accepted_by_the_threshold(prelabelled):
    used = prelabelled
    before, mask = used.prelabel.threshold.value, used.mask(3)
    used.work.session.accept([3])
    used.prelabel.threshold.value += 0.1
    used.settle()
    used.answer("Replace them")
    used.prelabel_all()
    assert (used.mask(3) != mask).any()
    assert used.states[3] is PRELABELLED
    used.prelabel.threshold.value = before
    used.settle()
    np.testing.assert_array_equal(used.mask(3), mask)
    assert used.states[3] is PRELABELLED


def test_a_deleted_mask_is_a_decision_until_it_is_taken_back(use, folder):
    used = use(show=True)
    used.open(folder)
    control, alt = Qt.KeyboardModifier.ControlModifier, Qt.KeyboardModifier.AltModifier
    used.press(Qt.Key.Key_G)
    used.wait_for_job()
    used.settle()
    used.press(Qt.Key.Key_A, alt)
    used.press(Qt.Key.Key_Delete)
    assert not used.mask(0).any()
    assert used.states[0] is EDITED
    for state in (PRELABELLED, UNSEEN):
        used.press(Qt.Key.Key_Z, control)
        assert used.states[0] is state
    assert used.masks.origin(0) is MaskOrigin.NONE
    used.press(Qt.Key.Key_Q)
    assert used.states[0] is UNSEEN
    assert "no mask yet" in used.review.message.text()
    used.press(Qt.Key.Key_G)
    used.wait_for_job()
    used.settle()
    used.press(Qt.Key.Key_Delete)
    assert used.states[0] is EDITED
    used.press(Qt.Key.Key_Q)
    assert used.states[0] is ACCEPTED


def test_a_frame_without_a_mask_is_not_accepted_by_mistake(use, folder):
    used = use()
    used.open(folder)
    used.press(Qt.Key.Key_Q)
    assert used.states == [UNSEEN] * 5
    assert used.bench.shown == 0
    assert "no mask yet" in used.review.message.text()
    used.press(Qt.Key.Key_N)
    assert used.states[0] is ACCEPTED
    used.press(Qt.Key.Key_U)
    assert used.states == [UNSEEN] * 5
    assert used.masks.origin(0) is MaskOrigin.NONE


def test_a_frame_is_excluded_for_a_reason(prelabelled):
    used = prelabelled
    mask = used.mask(0)
    used.press(Qt.Key.Key_X, Qt.KeyboardModifier.ShiftModifier)
    choose_reason(used, Qt.Key.Key_2)
    assert used.work.session.status(0).reason == "blur"
    assert used.states[0] is EXCLUDED
    assert used.bench.shown == 1
    assert text(used, 0, REMARKS) == "blur"
    np.testing.assert_array_equal(used.mask(0), mask)
    used.review.exclude_button.click()
    choose_reason(used, Qt.Key.Key_6)
    used.review.answer.setText("patient's name in the picture")
    used.qtbot.keyClick(used.review.answer, Qt.Key.Key_Return)
    assert text(used, 1, REMARKS) == "patient's name in the picture"
    used.press(Qt.Key.Key_U)
    assert used.states[:2] == [EXCLUDED, PRELABELLED]
    used.press(Qt.Key.Key_U)
    assert used.states[0] is PRELABELLED


def test_a_decision_is_taken_back_long_after(prelabelled):
    used = prelabelled
    used.press(Qt.Key.Key_Q)
    used.press(Qt.Key.Key_Q)
    used.go_to(0)
    used.press(Qt.Key.Key_R, Qt.KeyboardModifier.ShiftModifier)
    assert used.states[:2] == [PRELABELLED, ACCEPTED]
    used.press(Qt.Key.Key_U)
    assert used.states[:2] == [ACCEPTED, ACCEPTED]


def test_notes_are_written_in_a_line_and_undone(prelabelled):
    used = prelabelled
    used.press(Qt.Key.Key_Y, Qt.KeyboardModifier.ShiftModifier)
    used.review.answer.setText("ask Dr. Grimm")
    used.qtbot.keyClick(used.review.answer, Qt.Key.Key_Return)
    assert text(used, 0, REMARKS) == "ask Dr. Grimm"
    assert used.review.answer.isHidden()
    used.press(Qt.Key.Key_Y, Qt.KeyboardModifier.ShiftModifier)
    assert used.review.answer.text() == "ask Dr. Grimm"
    used.review.answer.setText("no")
    used.qtbot.keyClick(used.review.answer, Qt.Key.Key_Escape)
    assert text(used, 0, REMARKS) == "ask Dr. Grimm"
    used.press(Qt.Key.Key_U)
    assert text(used, 0, REMARKS) == ""


def test_a_note_that_was_not_ended_is_kept(prelabelled, tmp_path):
    used, session = prelabelled, prelabelled.work.session
    note = Qt.Key.Key_Y, Qt.KeyboardModifier.ShiftModifier
    used.press(*note)
    used.review.answer.setText("flat, at 3 o'clock")
    used.press(*note)
    assert used.review.answer.text() == "flat, at 3 o'clock"  # as if Enter had been pressed
    used.go_to(1)
    used.press(*note)
    used.review.answer.setText("sessile")
    used.press(Qt.Key.Key_X, Qt.KeyboardModifier.ShiftModifier)
    choose_reason(used, Qt.Key.Key_6)
    assert used.review.answer.text() == ""
    used.review.answer.setText("not yet decided")
    used.go_to(2)
    used.press(*note)
    used.review.answer.setText("ask Dr. Grimm")
    tifffile.imwrite(tmp_path / "stack.tif", np.full((3, 90, 120, 3), 90, np.uint8))
    used.open(tmp_path / "stack.tif")
    assert used.review.answer.isHidden()
    used.press(*note)
    used.review.answer.setText("too dark")
    other = used.work.session
    used.leave()
    assert [status.note for status in session.statuses[:4]] == [
        "flat, at 3 o'clock",
        "sessile",
        "ask Dr. Grimm",
        "",
    ]
    assert [status.note for status in other.statuses] == ["too dark", "", ""]
    assert EXCLUDED not in [status.state for status in session.statuses]


def test_a_question_is_in_sight_and_names_its_frames(use, folder, qtbot):
    used = use(show=True)
    used.open(folder)
    used.dock.foldables["Review"].unfold(False)
    used.go_to(2)
    used.press(Qt.Key.Key_Y, Qt.KeyboardModifier.ShiftModifier)
    qtbot.waitUntil(lambda: not used.review.answer.visibleRegion().isEmpty(), timeout=5_000)
    assert used.dock.window().focusWidget() is used.review.answer
    # As one goes on, it is still about that frame.
    used.viewer.dims.set_current_step(0, 3)
    assert used.review._asked.text() == "Note, frame 2"
    used.review.answer.setText("ask Dr. Grimm")
    qtbot.keyClick(used.review.answer, Qt.Key.Key_Return)
    assert used.work.session.status(2).note == "ask Dr. Grimm"


def test_several_frames_are_decided_on_at_once_and_undone_at_once(prelabelled):
    used = prelabelled
    masks = [used.mask(index) for index in range(5)]
    used.go_to(1)
    select(used, 1, 2, 4)
    used.press(Qt.Key.Key_N)
    assert used.states == [PRELABELLED, ACCEPTED, ACCEPTED, PRELABELLED, ACCEPTED]
    assert [bool(used.mask(index).any()) for index in range(5)] == [True, False, False, True, False]
    assert used.bench.shown == 1
    assert "3 frames" in used.review.message.text()
    used.press(Qt.Key.Key_U)
    assert used.states == [PRELABELLED] * 5
    for index, mask in enumerate(masks):
        np.testing.assert_array_equal(used.mask(index), mask)
    used.press(Qt.Key.Key_U, Qt.KeyboardModifier.ShiftModifier)
    assert used.states[4] is ACCEPTED
    assert not used.mask(4).any()


@pytest.mark.parametrize("go_on", [Qt.Key.Key_PageDown, Qt.Key.Key_Right], ids=["queue", "slider"])
def test_rows_selected_for_one_decision_are_not_for_a_later_one(prelabelled, go_on):
    used = prelabelled
    used.review.queue.selectAll()
    used.press(Qt.Key.Key_Y, Qt.KeyboardModifier.ShiftModifier)
    used.review.answer.setText("from one film")
    used.qtbot.keyClick(used.review.answer, Qt.Key.Key_Return)
    assert all(text(used, index, REMARKS) == "from one film" for index in range(5))
    used.press(go_on)
    assert used.bench.shown == 1
    assert used.review.queue.selected == [1]
    used.press(Qt.Key.Key_N)
    assert used.states == [PRELABELLED, ACCEPTED, *[PRELABELLED] * 3]


@pytest.mark.parametrize("at_once", [0, 4])
def test_frames_whose_masks_are_yet_to_follow_are_accepted_as_they_will_be(
    prelabelled, monkeypatch, at_once
):
    """In a job, where they are many."""
    monkeypatch.setattr("napari_microaunet.widgets.review_decisions._MOST_AT_ONCE", at_once)
    used = prelabelled
    used.prelabel.threshold.value += 0.1
    wanted = [mask_from(used.work.prelabels.map(i), used.bench.settings) for i in range(5)]
    select(used, *range(5))
    used.press(Qt.Key.Key_Q)
    used.wait_for_job()
    used.settle()
    assert used.states == [ACCEPTED] * 5
    for index, mask in enumerate(wanted):
        np.testing.assert_array_equal(used.masks.chunks.mask(index), mask)
        threshold = used.work.session.status(index).threshold
        assert threshold == pytest.approx(used.bench.settings.threshold)


def test_strokes_made_while_masks_follow_are_neither_lost_nor_accepted(prelabelled, monkeypatch):
    drawn = threading.Event()

    def in_its_time(*arguments):
        if threading.current_thread() is not threading.main_thread():
            drawn.wait(20)
        return mask_from(*arguments)

    monkeypatch.setattr("napari_microaunet.widgets.review_decisions._MOST_AT_ONCE", 0)
    monkeypatch.setattr("napari_microaunet.widgets.prelabels.mask_from", in_its_time)
    used = prelabelled
    used.prelabel.threshold.value += 0.1
    select(used, *range(5))
    used.press(Qt.Key.Key_Q)
    job = used.bench.job
    # One that has followed already, and one that was yet to follow.
    stroke(used)
    used.viewer.dims.set_current_step(0, 2)
    stroke(used)
    strokes = [used.mask(0), used.mask(2)]
    assert used.bench.job is job
    drawn.set()
    used.wait_for_job()
    used.settle()
    assert used.states == [EDITED, ACCEPTED, EDITED, ACCEPTED, ACCEPTED]
    np.testing.assert_array_equal(used.mask(0), strokes[0])
    np.testing.assert_array_equal(used.mask(2), strokes[1])
    assert used.review.message.text() == (
        "3 frames accepted. 2 frames were changed meanwhile: look at them again."
    )


def test_the_table_says_what_is_known_of_each_frame(prelabelled):
    used = prelabelled
    frames = used.work.sequence.frames
    for index, frame in enumerate(frames):
        assert text(used, index, NAME) == frame.name
        assert text(used, index, STATE) == "pre-labelled"
        trust = used.work.prelabels.confidence(index)
        assert text(used, index, CONFIDENCE) == f"{trust:.2f}"
    used.qtbot.waitUntil(lambda: text(used, 2, AREA) != "", timeout=20_000)
    share = 100 * np.count_nonzero(used.mask(2)) / (frames[2].height * frames[2].width)
    assert float(text(used, 2, AREA)) == pytest.approx(share, abs=0.06)


def test_table_and_picture_follow_each_other(prelabelled):
    used = prelabelled
    queue = used.review.queue
    used.go_to(3)
    assert queue.selected == [3]
    assert text(used, 3, 0).startswith("▸")
    # Changes that come in meanwhile take the user nowhere else.
    used.work.session.note([0], "meanwhile")
    choose(used, used.review.panel.order, "Least confident first")
    choose(used, used.review.panel.order, "Sequence")
    used.qtbot.keyClick(queue, Qt.Key.Key_Down)
    used.review.panel._on_refresh()
    used.qtbot.waitUntil(lambda: used.bench.shown == 4, timeout=20_000)
    used.press(Qt.Key.Key_PageUp)
    assert used.bench.shown == 3
    used.press(Qt.Key.Key_PageDown)
    used.press(Qt.Key.Key_PageDown)
    assert used.bench.shown == 4
    # Letters that are pressed in the table act as in the picture.
    used.qtbot.keyClick(queue, Qt.Key.Key_Q)
    assert used.states[4] is ACCEPTED
    assert used.bench.shown == 0
    # Of several selected rows none is gone to.
    select(used, 1, 2)
    used.qtbot.wait(200)
    assert used.bench.shown == 0
    assert queue.selected == [1, 2]


def test_keys_in_the_table_are_for_frames_and_not_for_the_polyp_under_the_cursor(prelabelled):
    used = prelabelled
    queue, keys = used.review.queue, Qt.Key
    shift, alt = Qt.KeyboardModifier.ShiftModifier, Qt.KeyboardModifier.AltModifier
    control = Qt.KeyboardModifier.ControlModifier
    before = used.mask(0)
    rows, columns = np.nonzero(before)
    used.viewer.cursor.position = used.layer.data_to_world((0, rows[0], columns[0]))
    queue.setFocus()
    deleting = (keys.Key_Delete,), (keys.Key_Backspace,), (keys.Key_Delete, control)
    tools = (keys.Key_Period,), (keys.Key_I, alt), (keys.Key_E, shift), (keys.Key_Shift,)
    for key in (*deleting, *tools):
        used.qtbot.keyClick(queue, *key)
        used.wait_for_job()
        np.testing.assert_array_equal(used.mask(0), before)
    for key, shown in ((keys.Key_PageDown, 1), (keys.Key_Right, 2), (keys.Key_PageUp, 1)):
        used.qtbot.keyClick(queue, key)
        assert used.bench.shown == shown
    used.settle()
    used.qtbot.keyClick(queue, keys.Key_N)
    assert used.states[1] is ACCEPTED
    assert not used.mask(1).any()
    used.qtbot.keyClick(queue, keys.Key_U)
    assert used.mask(1).any()
    used.qtbot.keyClick(queue, keys.Key_T, alt)
    assert not used.layer.visible
    used.qtbot.keyClick(queue, keys.Key_T, alt)
    # In the picture, they are for the polyp.
    used.go_to(0)
    used.press(keys.Key_Delete)
    assert (used.mask(0) != before).any()
    used.qtbot.keyClick(queue, keys.Key_Z, control)
    np.testing.assert_array_equal(used.mask(0), before)
    # A tool may be taken in hand from there, too.
    used.qtbot.keyClick(queue, keys.Key_8)
    assert used.layer.mode == "paint"
    used.qtbot.keyClick(queue, keys.Key_E)
    assert used.layer.mode == "erase"


def test_masks_are_hidden_and_shown(prelabelled):
    used = prelabelled
    used.press(Qt.Key.Key_T, Qt.KeyboardModifier.AltModifier)
    assert not used.layer.visible
    used.press(Qt.Key.Key_T, Qt.KeyboardModifier.AltModifier)
    assert used.layer.visible


def test_the_picture_says_how_far_its_frame_has_come(prelabelled):
    used = prelabelled
    overlay = used.viewer.canvas.overlays.text
    assert overlay.visible
    assert overlay.text == "pre-labelled"
    used.press(Qt.Key.Key_Q)
    used.go_to(0)
    assert overlay.text == "accepted"
    used.work.session.exclude([0], "glare")
    used.qtbot.waitUntil(lambda: overlay.text == "excluded: glare", timeout=20_000)


def test_a_session_opens_again_with_its_decisions(prelabelled, use, folder):
    used = prelabelled
    used.press(Qt.Key.Key_Q)
    used.press(Qt.Key.Key_N)
    used.press(Qt.Key.Key_X, Qt.KeyboardModifier.ShiftModifier)
    choose_reason(used, Qt.Key.Key_1)
    masks = [used.mask(index) for index in range(5)]
    used.viewer.window.remove_dock_widget(used.dock)
    again = use()
    again.open(folder)
    assert again.states == [ACCEPTED, ACCEPTED, EXCLUDED, PRELABELLED, PRELABELLED]
    assert again.bench.shown == 3
    for index, mask in enumerate(masks):
        np.testing.assert_array_equal(again.mask(index), mask)


@pytest.mark.usefixtures("prelabelled")
def test_nothing_can_be_decided_without_frames_or_in_a_second_window(use, folder):
    other = use()
    assert not other.review.accept_button.isEnabled()
    assert "Open frames" in other.review.message.text()
    other.press(Qt.Key.Key_Q)
    other.open(folder)
    assert not other.review.accept_button.isEnabled()
    assert "looked at" in other.review.message.text()
    for key in (Qt.Key.Key_Q, Qt.Key.Key_N, Qt.Key.Key_U):
        other.press(key)
    assert other.states == [PRELABELLED] * 5
    assert len(other.review.queue.table.frames) == 5


def order(used):
    return used.review.queue.table.frames.tolist()


def choose(used, box, words):
    """Choose an entry as a user does, who may choose the same one again."""
    box.setCurrentIndex(box.findText(words))
    box.activated.emit(box.currentIndex())


def test_the_least_confident_frame_comes_first_and_the_queue_is_followed(prelabelled):
    used = prelabelled
    panel = used.review.panel
    choose(used, panel.order, "Least confident first")
    trust = [used.work.prelabels.confidence(index) for index in range(5)]
    wanted = sorted(range(5), key=trust.__getitem__)
    assert order(used) == wanted
    used.go_to(wanted[0])
    for index in wanted[1:]:
        used.press(Qt.Key.Key_Q)
        assert used.bench.shown == index
        assert used.review.queue.selected == [index]
    used.press(Qt.Key.Key_PageUp)
    assert used.bench.shown == wanted[3]


def test_filters_and_search_leave_some_frames(prelabelled):
    used = prelabelled
    panel = used.review.panel
    used.work.session.note([4], "Ask Dr. Grimm")
    used.work.session.exclude([3], "glare")
    used.press(Qt.Key.Key_Q)
    choose(used, panel.filter, "to do")
    used.qtbot.waitUntil(lambda: order(used) == [1, 2, 4], timeout=20_000)
    # What has just been decided on stays as long as it is looked at.
    used.work.session.accept([1])
    used.qtbot.wait(600)
    assert order(used) == [1, 2, 4]
    used.go_to(2)
    used.qtbot.waitUntil(lambda: order(used) == [2, 4], timeout=20_000)
    choose(used, panel.filter, "excluded")
    assert order(used) == [2, 3]
    choose(used, panel.filter, "all")
    panel.search.setText("grimm")
    used.qtbot.waitUntil(lambda: order(used) == [2, 4], timeout=20_000)


def test_models_that_disagree_most_come_first(prelabelled, use, folder):
    used = prelabelled
    session = used.work.session
    choose(used, used.review.panel.order, "Models disagree")
    used.wait_for_job()
    differ = [status.disagreement for status in session.statuses]
    assert all(session.has_map(index, "compared") for index in range(5))
    assert max(differ) > 0.05
    wanted = sorted(range(5), key=lambda index: -differ[index])
    used.qtbot.waitUntil(lambda: order(used) == wanted, timeout=20_000)
    assert states_and_masks_are_untouched(used)
    # The order is kept with the session; another pre-label makes what was found out of date.
    used.viewer.window.remove_dock_widget(used.dock)
    again = use()
    again.open(folder)
    assert order(again) == wanted
    again.prelabel.which.value = Which.SHOWN
    shown = again.bench.shown
    again.prelabel_all()
    assert again.work.session.status(shown).disagreement is None


def states_and_masks_are_untouched(used):
    return used.states == [PRELABELLED] * 5 and all(used.mask(index).any() for index in range(5))


def test_findings_and_near_duplicates_come_first(use, tmp_path):
    """Frames of one clip, in which the polyp vanishes once and a frame stands still."""
    image, _ = render_frame(3, height=120, width=160, polyps=1)
    target = tmp_path / "clip"
    target.mkdir()
    mask = np.zeros((120, 160), np.uint8)
    for number in range(6):
        shifted = np.roll(image, 3 * min(number, 4), axis=1)
        Image.fromarray(shifted).save(target / f"frame_{number}.png")
    used = use()
    used.open(target)
    mask[40:80, 40:100] = 1
    for number in (0, 1, 3, 4, 5):
        used.work.session.put_mask(number, mask, MaskOrigin.HAND)
    used.work.session.put_mask(2, np.zeros_like(mask), MaskOrigin.HAND)
    areas = lambda: [status.area for status in used.work.session.statuses]  # noqa: E731
    used.qtbot.waitUntil(lambda: None not in areas(), timeout=20_000)
    choose(used, used.review.panel.order, "Findings first")
    used.wait_for_job()
    used.qtbot.waitUntil(lambda: order(used)[:2] == [2, 5], timeout=20_000)
    assert text(used, 2, REMARKS) == "No polyp here, but one polyp in frames 1 and 3."
    used.go_to(2)
    used.qtbot.waitUntil(
        lambda: "No polyp here" in used.viewer.canvas.overlays.text.text, timeout=20_000
    )
    choose(used, used.review.panel.filter, "with findings")
    assert order(used) == [2, 5]
    choose(used, used.review.panel.filter, "all")
    # What is mended is no finding any more, but its place in the queue stays while it is on show.
    used.masks.edit(2, mask, "test")
    used.qtbot.waitUntil(lambda: text(used, 2, REMARKS) == "", timeout=20_000)
    assert order(used)[:2] == [2, 5]
    used.go_to(5)
    used.review.panel._on_refresh()
    assert order(used)[0] == 5
    choose(used, used.review.panel.order, "Near-duplicates together")
    assert set(order(used)) == set(range(6))
