from __future__ import annotations

import csv
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from napari.layers import Labels
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog

from napari_microaunet.curation.session import annotator_name, set_annotator_name
from napari_microaunet.prelabel.masks import mask_from
from napari_microaunet.widgets.activity import Activity
from napari_microaunet.widgets.review_canvas import differences


def stroke(used, row=100, column=120, label=7):
    used.layer.brush_size = 31
    used.layer.paint((used.bench.shown, row, column), label)


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self):
        self.now = 1000.0
        self.moves = 0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(prelabelled):
    """Have the section count by a clock of ours, from nothing."""
    ours = Clock()
    prelabelled.review._activity.stop()
    session = prelabelled.work.session
    for index in range(5):
        session.add_time(index, -session.status(index).seconds)
    prelabelled.review._activity = Activity(prelabelled.bench, ours)
    return ours


def move(used, clock, seconds):
    """Let time pass, then move the cursor over the picture."""
    clock.now += seconds
    clock.moves += 1
    used.viewer.cursor.position = (used.bench.shown, 10 + clock.moves, 20)


def test_time_counts_for_the_frame_on_show_without_pauses(prelabelled, clock):
    used = prelabelled
    session = used.work.session
    for seconds in (1.5, 1.0, 300.0, 2.5):
        move(used, clock, seconds)
    assert session.status(0).seconds == pytest.approx(5.0)
    clock.now += 0.5
    used.go_to(2)
    assert session.status(0).seconds == pytest.approx(5.5)
    clock.now += 4
    used.press(Qt.Key.Key_Q)
    assert session.status(2).seconds == pytest.approx(4)
    assert session.status(2).seconds_editing == 0
    assert session.status(3).seconds == 0


def test_time_up_to_a_stroke_is_editing(prelabelled, clock):
    used = prelabelled
    session = used.work.session
    move(used, clock, 3)
    clock.now += 5
    stroke(used)
    used.qtbot.waitUntil(lambda: session.status(0).strokes == 1, timeout=20_000)
    clock.now += 1
    used.press(Qt.Key.Key_Q)
    assert session.status(0).seconds == pytest.approx(9)
    assert session.status(0).seconds_editing == pytest.approx(5)


def test_drawing_is_editing_and_moving_the_view_is_not(prelabelled, clock):
    used = prelabelled
    session = used.work.session
    event = SimpleNamespace(type="mouse_press")
    for mode, editing in (("pan_zoom", 0), ("paint", 4)):
        used.layer.mode = mode
        drag = used.review._activity._on_drag(used.viewer, event)
        next(drag)
        event.type = "mouse_move"
        for _ in range(2):
            move(used, clock, 2)
            next(drag)
        event.type = "mouse_release"
        with pytest.raises(StopIteration):
            next(drag)
        used.review._activity.flush()
        assert session.status(0).seconds_editing == pytest.approx(editing)


def test_costs_are_listed_by_model_and_annotator_and_saved(
    prelabelled, clock, tmp_path, monkeypatch
):
    used = prelabelled
    panel = used.review.costs
    heading = panel.parentWidget().findChild(type(used.review.undo_button), "heading")
    heading.click()
    for seconds in (2, 4, 9):
        move(used, clock, seconds)
        used.press(Qt.Key.Key_Q)
    panel.annotator.setText("Ada")
    panel.annotator.editingFinished.emit()
    assert annotator_name() == "Ada"
    used.press(Qt.Key.Key_N)
    used.dock.window().show()
    panel.refresh()
    cells = [
        [panel.table.item(row, column).text() for column in range(4)]
        for row in range(panel.table.rowCount())
    ]
    assert cells[0][0] == "bright"
    assert cells[0][2:] == ["3", "4.0"]
    assert cells[1][1:3] == ["Ada", "1"]
    file = tmp_path / "costs.csv"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(file), ""))
    panel.save_button.click()
    with file.open(newline="") as table:
        rows = list(csv.DictReader(table))
    assert [row["annotator"] for row in rows].count("Ada") == 1
    assert len(rows) == 4
    set_annotator_name("")


def test_another_model_is_compared_on_the_frame_on_show(prelabelled):
    used = prelabelled
    mask = used.mask(0)
    layers = len(used.viewer.layers)
    used.press(Qt.Key.Key_T, Qt.KeyboardModifier.ShiftModifier)
    assert used.review.comparison.button.isChecked()
    used.qtbot.waitUntil(lambda: len(used.viewer.layers) > layers, timeout=60_000)
    assert used.viewer.layers.selection.active is used.layer
    other = next(layer for layer in used.viewer.layers if layer.name == "other model")
    assert isinstance(other, Labels)
    kept = used.work.session.map(0, "compared")
    assert kept.model == used.review.comparison.model.value.name == "teacher"
    np.testing.assert_array_equal(used.mask(0), mask)
    # It follows the frame on show, whatever its size.
    used.go_to(3)
    used.qtbot.waitUntil(lambda: used.work.session.has_map(3, "compared"), timeout=60_000)
    used.qtbot.waitUntil(lambda: other.visible, timeout=20_000)
    frame = used.work.sequence.frames[3]
    assert not np.asarray(other.data[3])[frame.height :].any()
    used.press(Qt.Key.Key_T, Qt.KeyboardModifier.ShiftModifier)
    assert not other.visible


def test_what_is_to_be_ignored_is_not_compared(prelabelled):
    used = prelabelled
    frame = used.work.sequence.frames[0]
    used.review.comparison.button.click()
    used.qtbot.waitUntil(lambda: "Dice" in used.review.message.text(), timeout=60_000)
    other = next(layer for layer in used.viewer.layers if layer.name == "other model")
    used.masks.edit(0, np.full((frame.height, frame.width), 255, np.uint8), "test")
    used.qtbot.waitUntil(
        lambda: "Dice with the mask on show 1.00" in used.review.message.text(), timeout=20_000
    )
    # There is the outline of the other model's, and nothing that one of them alone marks.
    assert set(np.unique(other.data[0])) <= {0, 3}


def test_the_pace_is_that_of_frames_that_were_looked_at(use, tmp_path, qtbot):
    tifffile.imwrite(tmp_path / "clip.tif", np.full((40, 20, 30, 3), 9, np.uint8))
    used = use()
    used.open(tmp_path / "clip.tif")
    used.review._activity.stop()
    session = used.work.session
    session.add_time(0, -session.status(0).seconds)

    def says(text):
        qtbot.waitUntil(lambda: text in used.review.progress.text(), timeout=20_000)

    session.accept(range(12))
    says("12 of 40 done · time left after 10 more")
    for index in range(20, 30):
        session.add_time(index, 20)
        session.accept([index])
    session.accept(range(12))
    says("22 of 40 done · 20 s a frame · about 6 min 0 s left")


def test_differences_are_told_apart():
    mask, other = np.zeros((2, 40, 60), np.uint8)
    mask[10:30, 10:30] = 1
    other[10:30, 20:50] = 3
    found = differences(mask, other)
    assert (found[10:30, 10:20] == 1).all()
    assert (found[12:28, 32:48] == 2).all()
    assert (found[12:28, 22:29] == 0).all()
    assert (found[10, 20:50] == 3).all()
    assert not found[:10].any()


def test_masks_of_another_model_use_its_own_threshold(prelabelled, monkeypatch):
    used = prelabelled
    thresholds = []

    def spy(probability, settings):
        thresholds.append(settings.threshold)
        return mask_from(probability, settings)

    monkeypatch.setattr("napari_microaunet.widgets.review_comparison.mask_from", spy)
    used.review.comparison.button.click()
    used.qtbot.waitUntil(lambda: bool(thresholds), timeout=60_000)
    assert thresholds[0] == used.review.comparison.model.value.card.threshold


def test_removing_all_layers_while_comparing_removes_them(prelabelled):
    used = prelabelled
    used.press(Qt.Key.Key_T, Qt.KeyboardModifier.ShiftModifier)
    used.qtbot.waitUntil(lambda: "other model" in used.viewer.layers, timeout=60_000)
    used.viewer.layers.clear()
    used.qtbot.wait(200)
    assert len(used.viewer.layers) == 0
    assert used.work is None
