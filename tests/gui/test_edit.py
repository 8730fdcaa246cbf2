from __future__ import annotations

import numpy as np
import pytest
from napari.utils.notifications import notification_manager
from PIL import Image
from pointing import Mouse, press
from qtpy.QtCore import Qt
from skimage.draw import disk

from napari_microaunet.curation.session import MaskOrigin, ReviewState
from napari_microaunet.editing import masks
from napari_microaunet.editing.contour import level_of, move_contour
from napari_microaunet.editing.labels import areas_of, labels_of
from napari_microaunet.editing.tools import MASK_TOOLS
from napari_microaunet.prelabel.masks import at_native_size

ALT = Qt.KeyboardModifier.AltModifier
UNDO = (Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
REDO = (Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.ShiftModifier)

KEYS = {
    "grow": (Qt.Key.Key_Period,),
    "shrink": (Qt.Key.Key_Comma,),
    "smooth": (Qt.Key.Key_Slash,),
    "fill_holes": (Qt.Key.Key_O, ALT),
    "remove_specks": (Qt.Key.Key_R, ALT),
    "keep_largest": (Qt.Key.Key_B, ALT),
    "split": (Qt.Key.Key_D, ALT),
    "merge": (Qt.Key.Key_M, ALT),
    "renumber": (Qt.Key.Key_N, ALT),
    "delete": (Qt.Key.Key_Delete,),
    "polyp_to_ignore": (Qt.Key.Key_I, ALT),
    "ignore_to_polyp": (Qt.Key.Key_Y, ALT),
    "ignore_to_background": (Qt.Key.Key_U, ALT),
}


def native(used, index=None):
    """The mask of a frame at its own size."""
    return used.masks.chunks.mask(used.bench.shown if index is None else index)


def draw(used, mask):
    """Give the frame on show a mask by hand."""
    used.masks.edit(used.bench.shown, mask, "drawn by the test")


def example(shape):
    """Polyp 1 with a hole, a speck and glare at it; polyp 2, smaller, beside it."""
    height, width = shape
    mask = np.zeros(shape, np.uint8)
    mask[disk((height * 0.5, width * 0.3), height * 0.2)] = 1
    mask[disk((height * 0.5, width * 0.3), height * 0.03)] = 0
    mask[disk((height * 0.85, width * 0.3), 4)] = 1
    mask[disk((height * 0.4, width * 0.3), height * 0.04)] = 255
    mask[disk((height * 0.5, width * 0.7), height * 0.1)] = 2
    return mask


def shown_as(used):
    """What the window shows of the frame, at its own size."""
    mask = native(used)
    shown = np.asarray(used.layer._slice.image.raw)
    return shown[: mask.shape[0], : mask.shape[1]]


def test_every_mask_tool_works_on_the_polyp_under_the_cursor_and_is_one_undo_step(use, folder):
    used = use(show=True)
    used.open(folder)
    mouse = Mouse(used)
    assert set(KEYS) == set(MASK_TOOLS)
    for number, (name, tool) in enumerate(MASK_TOOLS.items()):
        # Frames of several sizes in turn.
        used.go_to(number % 5)
        start = example(native(used).shape)
        draw(used, start)
        height, width = start.shape
        # Polyp 2 is the smaller one: it is not taken unless it is pointed at.
        label = 2 if name in ("grow", "shrink", "merge", "delete", "renumber") else 1
        mouse.move(height * 0.58, width * (0.7 if label == 2 else 0.3))
        wanted = tool.function(start, label, **{one.name: one.default for one in tool.parameters})
        press(used, *KEYS[name])
        np.testing.assert_array_equal(native(used), wanted)
        assert tool.title in used.edit.said.text()
        changed = not np.array_equal(wanted, start)
        assert changed or "nothing" in used.edit.said.text()
        used.qtbot.waitUntil(lambda: np.array_equal(shown_as(used), native(used)), timeout=20_000)
        if changed:
            press(used, *UNDO)
            np.testing.assert_array_equal(native(used), start)
            press(used, *REDO)
            np.testing.assert_array_equal(native(used), wanted)
            press(used, *UNDO)
        press(used, *UNDO)
        assert not native(used).any()


def test_buttons_take_the_chosen_polyp_their_numbers_and_all_polyps_on_demand(use, folder):
    used = use()
    used.open(folder)
    start = example(native(used).shape)
    draw(used, start)
    edit = used.edit
    assert edit.edits.chosen == 1
    edit.polyp.setCurrentIndex(edit.polyp.findData(2))
    edit.polyp.activated.emit(edit.polyp.currentIndex())
    edit.mask_tools.boxes["grow", "pixels"].setValue(5)
    edit.mask_tools.buttons["grow"].click()
    np.testing.assert_array_equal(native(used), masks.grow(start, 2, 5))
    assert used.masks.origin(0) is MaskOrigin.HAND
    assert used.masks.session.status(0).state is ReviewState.EDITED
    used.layer.undo()
    edit.all_polyps.setChecked(True)
    edit.mask_tools.buttons["delete"].click()
    assert not labels_of(native(used))
    assert (native(used) == 255).any()
    edit.mask_tools.buttons["grow"].click()
    assert "no" in edit.said.text()


def test_a_polyp_stays_chosen_under_its_new_number(use, folder):
    used = use()
    used.open(folder)
    draw(used, example(native(used).shape))
    used.edit.edits.choose(2)
    used.edit.mask_tools.buttons["renumber"].click()
    assert used.edit.edits.chosen == 1  # "this one first"
    used.edit.mask_tools.buttons["delete"].click()
    assert areas_of(native(used)).keys() == {2}
    assert (native(used) == 2).sum() == (example(native(used).shape) == 1).sum()
    # Nor is another one chosen where it becomes the smaller one.
    two = np.zeros(native(used).shape, np.uint8)
    two[10:31, 10:31], two[10:30, 50:70] = 1, 2
    draw(used, two)
    used.edit.edits.choose(None)
    for _ in range(2):
        used.edit.mask_tools.buttons["shrink"].click()
    assert (native(used) == 2).sum() == 400


def test_what_takes_a_polyp_away_wants_the_cursor_on_it(use, folder):
    used = use(show=True)
    used.open(folder)
    start = example(native(used).shape)
    draw(used, start)
    height, width = start.shape
    mouse = Mouse(used)
    mouse.move(height * 0.05, width * 0.95)
    for key in (KEYS["delete"], KEYS["polyp_to_ignore"]):
        press(used, *key)
        np.testing.assert_array_equal(native(used), start)
        assert "no polyp under the cursor" in used.edit.said.text()
    start[start == 2] = 0
    draw(used, start)
    press(used, *KEYS["delete"])  # the only one there is
    assert not labels_of(native(used))
    left = native(used)
    press(used, *KEYS["ignore_to_background"])  # "Ignored regions that touch the polyp"
    np.testing.assert_array_equal(native(used), left)
    assert "there is no polyp on this frame" in used.edit.said.text()


def test_a_brush_paints_a_polyp_of_the_frame_on_show(use, folder):
    used = use()
    used.open(folder)
    draw(used, example(native(used).shape))
    used.edit.brushes.new_polyp.click()
    assert used.layer.selected_label == 3
    used.go_to(1)
    assert used.layer.selected_label == 3  # there is none yet
    draw(used, example(native(used).shape))
    used.go_to(2)
    used.edit.brushes.eraser.click()
    used.go_to(1)
    assert used.layer.selected_label == 1  # also for napari's own keys
    used.edit.edits.choose(2)
    used.edit.brushes.take_brush()
    used.go_to(0)
    assert used.layer.selected_label == 2  # which is there, too
    used.edit.brushes.take_ignore_brush()
    used.go_to(2)
    assert used.layer.selected_label == 255


def test_brushes_come_into_the_hand_with_the_right_label(use, folder):
    used = use(show=True)
    used.open(folder)
    start = example(native(used).shape)
    draw(used, start)
    height, width = start.shape
    mouse, brushes = Mouse(used), used.edit.brushes
    mouse.move(height * 0.5, width * 0.7)
    press(used, Qt.Key.Key_9)
    assert (used.layer.mode, used.layer.selected_label) == ("paint", 255)
    assert brushes.ignore.isChecked()
    assert not brushes.brush.isChecked()
    # Back to the polyp under the cursor.
    press(used, Qt.Key.Key_8)
    assert (used.layer.mode, used.layer.selected_label) == ("paint", 2)
    assert brushes.brush.isChecked()
    press(used, Qt.Key.Key_0)
    assert used.layer.selected_label == 3
    brushes.size.setValue(9)
    assert used.layer.brush_size == 9
    mouse.click(height * 0.15, width * 0.5)
    assert areas_of(native(used))[3] == pytest.approx(np.pi * 4.5**2, rel=0.25)
    assert used.edit.edits.chosen == 3
    brushes.eraser.click()
    assert used.layer.mode == "erase"
    mouse.click(height * 0.15, width * 0.5)
    assert 3 not in labels_of(native(used))
    brushes.picker.click()
    mouse.click(height * 0.5, width * 0.7)
    assert used.layer.selected_label == 2
    used.layer.brush_size = 40
    assert brushes.size.value() == 40
    # Larger than the slider can say.
    used.layer.brush_size = 200
    assert used.layer.brush_size == 200
    assert brushes._size_shown.text() == "200 px"


def test_paint_beside_a_small_frame_is_not_kept(use, folder, slicing):
    used = use()
    used.open(folder)
    canvas = used.layer.data.shape[1:]
    small = next(i for i, frame in enumerate(used.work.sequence.frames) if frame.height < canvas[0])
    used.go_to(small)
    start = example(native(used).shape)
    draw(used, start)
    used.masks.session.accept([small])
    used.layer.brush_size = 9
    used.layer.paint((small, canvas[0] - 10, 10), 1)
    np.testing.assert_array_equal(native(used), start)
    assert used.states[small] is ReviewState.ACCEPTED
    height, width = start.shape

    def beside():
        shown = used.layer._slice.image.raw
        return shown[height:].any() or shown[:, width:].any()

    used.qtbot.waitUntil(lambda: not beside(), timeout=20_000)
    assert not used.mask(small)[height:].any()
    # Half on the frame, half beside it: the former is kept.
    used.layer.paint((small, height, 10), 2)
    assert native(used)[-1, 10] == 2
    assert not used.mask(small)[height:].any()
    used.qtbot.waitUntil(lambda: not beside(), timeout=20_000)
    used.layer.undo()
    np.testing.assert_array_equal(native(used), start)


def test_the_contour_slider_moves_one_polyp_in_one_undo_step(use, folder, slicing):
    used = use(show=True)
    used.open(folder)
    contour = used.edit.contour
    assert not contour.slider.isEnabled()
    assert "Pre-label" in contour.reason.text()
    used.prelabel_all()
    used.go_to(1)
    assert contour.slider.isEnabled()
    start = native(used)
    label = used.edit.edits.chosen
    probability = at_native_size(used.work.prelabels.map(1))
    used.qtbot.waitUntil(lambda: not contour._rest.isActive(), timeout=20_000)
    level = contour.slider.value()
    contour.slider.setSliderDown(True)
    for value in (level + 20, level + 60, level + 25):
        contour.slider.setValue(value)
    moved = native(used)
    np.testing.assert_array_equal(moved, move_contour(start, label, probability, level + 25))
    assert 0 < np.count_nonzero(moved) < np.count_nonzero(start)
    used.qtbot.waitUntil(lambda: np.array_equal(shown_as(used), moved), timeout=20_000)
    contour.slider.setSliderDown(False)
    used.qtbot.waitUntil(lambda: contour._drag is None, timeout=20_000)
    # Another drag is another step.
    press(used, Qt.Key.Key_J, ALT)
    press(used, Qt.Key.Key_J, ALT)
    larger = native(used)
    assert np.count_nonzero(larger) > np.count_nonzero(moved)
    press(used, *UNDO)
    np.testing.assert_array_equal(native(used), moved)
    press(used, *UNDO)
    np.testing.assert_array_equal(native(used), start)
    press(used, *REDO)
    np.testing.assert_array_equal(native(used), moved)
    # The threshold leaves a frame alone that was edited.
    used.prelabel.threshold.value += 0.1
    used.settle()
    np.testing.assert_array_equal(native(used), moved)


def test_a_contour_drag_ends_with_its_polyp_and_its_frame(use, folder):
    used = use()
    used.open(folder)
    used.prelabel_all()
    used.go_to(1)
    contour, edits = used.edit.contour, used.edit.edits
    whole = native(used)
    probability = at_native_size(used.work.prelabels.map(1))
    columns = np.nonzero(whole == 1)[1]
    halves = np.where((whole == 1) & (np.arange(whole.shape[1]) > columns.mean()), 2, whole)
    draw(used, halves.astype(np.uint8))
    halves = native(used)
    edits.choose(2)
    contour.slider.setValue(200)
    one_moved = native(used)
    np.testing.assert_array_equal(one_moved, move_contour(halves, 2, probability, 200))
    edits.choose(1)
    contour.slider.setValue(180)
    both_moved = native(used)
    np.testing.assert_array_equal(both_moved, move_contour(one_moved, 1, probability, 180))
    # Each is a step of its own.
    used.layer.undo()
    np.testing.assert_array_equal(native(used), one_moved)
    used.layer.undo()
    np.testing.assert_array_equal(native(used), halves)
    # On another frame, a key goes on from where its own polyp is.
    contour.slider.setValue(240)
    used.viewer.dims.set_current_step(0, 2)
    start, label = native(used), edits.chosen
    contour.step(8)
    probability = at_native_size(used.work.prelabels.map(2))
    level = level_of(start, label, probability) + 8
    np.testing.assert_array_equal(native(used), move_contour(start, label, probability, level))


def test_a_contour_drag_that_begins_with_no_change_leaves_the_step_before_it(use, folder):
    used = use()
    used.open(folder)
    used.prelabel.run_shown()
    used.wait_for_job()
    used.settle()
    contour, start = used.edit.contour, native(used)
    probability = at_native_size(used.work.prelabels.map(0))
    label = used.edit.edits.chosen
    level = next(
        level
        for level in range(100, 156)
        if level != contour.slider.value()
        and np.array_equal(move_contour(start, label, probability, level), start)
    )
    contour.slider.setValue(level)
    np.testing.assert_array_equal(native(used), start)
    contour.slider.setValue(level + 60)
    assert (native(used) != start).any()
    used.layer.undo()
    np.testing.assert_array_equal(native(used), start)
    used.layer.undo()
    assert not native(used).any()


def test_nothing_can_be_edited_without_frames_or_in_a_second_window(use, folder):
    used = use()
    assert not used.edit._tools.isEnabled()
    assert "open frames" in used.edit.said.text()
    used.open(folder)
    assert used.edit._tools.isEnabled()
    draw(used, example(native(used).shape))
    used.work.session.flush()
    second = use()
    second.open(folder)
    assert not second.edit._tools.isEnabled()
    assert "looked at, but not changed" in second.edit.said.text()
    before = native(second)
    press(second, Qt.Key.Key_Period)
    np.testing.assert_array_equal(native(second), before)


def test_undo_of_a_frame_that_is_not_on_show_brings_it_on_show(use, folder, slicing):
    used = use(show=True)
    used.open(folder)
    used.prelabel_all()
    used.go_to(1)
    before = native(used, 1)
    mouse = Mouse(used)
    used.layer.mode, used.layer.brush_size = "paint", 30
    mouse.drag((40, 40), (80, 60))
    painted = native(used, 1)
    assert (painted != before).any()
    press(used, Qt.Key.Key_Q)
    assert used.bench.shown == 2
    used.settle()
    mouse.drag((40, 40), (80, 60))
    told = len(notification_manager.records)
    press(used, *UNDO)
    assert used.bench.shown == 2
    assert used.states[1] is ReviewState.ACCEPTED
    # The pre-label of the frame on show is its own step.
    press(used, *UNDO)
    assert used.bench.shown == 2
    assert len(notification_manager.records) == told
    press(used, *UNDO)
    used.qtbot.waitUntil(lambda: used.bench.shown == 1, timeout=20_000)
    np.testing.assert_array_equal(native(used), before)
    assert used.states[1] is not ReviewState.ACCEPTED
    assert "frame 1," in notification_manager.records[-1].message
    assert len(notification_manager.records) == told + 1
    used.qtbot.waitUntil(lambda: np.array_equal(shown_as(used), native(used)), timeout=20_000)
    # Redo is of the frame that is on show now, then of the other one again.
    press(used, *REDO)
    assert used.bench.shown == 1
    np.testing.assert_array_equal(native(used), painted)
    assert used.states[1] is ReviewState.ACCEPTED
    used.qtbot.waitUntil(lambda: np.array_equal(shown_as(used), native(used)), timeout=20_000)
    press(used, *REDO)
    used.qtbot.waitUntil(lambda: used.bench.shown == 2, timeout=20_000)
    # Going to frames and painting on them says nothing.
    for index in (1, 3, 2, 1):
        used.go_to(index)
        mouse.drag((60, 40), (90, 60))
        assert used.bench.shown == index
    assert len(notification_manager.records) == told + 2


def test_an_undo_is_told_of_where_napari_has_skipped_what_came_before_it(prelabelled):
    """As it does while it slices asynchronously and is still at it."""
    masks = prelabelled.masks
    first = masks.chunks.mask(0).copy()
    first[:10, :10] = 1
    masks.edit(0, first, "drawn by the test")
    prelabelled.layer.refresh()
    second = first.copy()
    second[:30, :30] = 1
    with prelabelled.layer.events.set_data.blocker():
        masks.edit(0, second, "drawn by the test")
    told = []
    masks.changed.connect(told.append)
    prelabelled.layer.undo()
    np.testing.assert_array_equal(masks.chunks.mask(0), first)
    assert told == [0]


@pytest.mark.parametrize("tool", ["paint", "pan_zoom"])
def test_masks_are_not_moved_away_from_their_frames(use, folder, tool):
    used = use(show=True)
    used.open(folder)
    draw(used, example(native(used).shape))
    mouse = Mouse(used)
    used.layer.mode = tool
    before, height, width = native(used), *native(used).shape
    mouse.move(height / 2, width / 2)
    press(used, Qt.Key.Key_7)  # napari's tool for moving a layer, beside the brush
    assert used.layer.mode == tool
    last = notification_manager.records[-1].message
    assert last == "Masks lie on their frames: they cannot be moved away from them."
    mouse.drag((height / 2, width / 2), (height / 2 + 12, width / 2 + 20))
    assert used.layer.affine == used.work.image.affine
    if tool == "pan_zoom":
        np.testing.assert_array_equal(native(used), before)


def test_masks_follow_frames_that_are_moved(use, folder):
    used = use()
    used.open(folder)
    used.work.image.affine = [[1, 0, 0, 0], [0, 1, 0, 5], [0, 0, 1, -7], [0, 0, 0, 1]]
    used.work.image.scale = (1, 2, 2)
    assert used.layer.affine == used.work.image.affine
    assert tuple(used.layer.scale) == (1, 2, 2)


def test_keys_mean_what_is_under_the_cursor_after_a_frame_of_another_size(use, tmp_path):
    for name, side in (("a", 200), ("b", 400)):
        noise = np.random.default_rng(0).integers(60, 200, (side, side, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{name}.png")
    used = use(show=True)
    used.open(tmp_path)
    mouse = Mouse(used)
    used.bench._fit.start(used.work, 0)
    two = np.zeros((400, 400), np.uint8)
    two[disk((300, 300), 30)], two[disk((150, 150), 30)] = 1, 2
    used.go_to(1)
    draw(used, two)
    used.go_to(0)
    mouse.move(150, 150)  # where the next frame, shown half as large, has its place (300, 300)
    used.go_to(1)
    assert used.edit.edits.cursor() == pytest.approx((300, 300), abs=5)
    press(used, Qt.Key.Key_Delete)
    assert set(np.unique(native(used))) == {0, 2}
