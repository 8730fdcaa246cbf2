from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Labels
from napari.utils.notifications import notification_manager
from PIL import Image
from pointing import press
from qtpy.QtCore import Qt

from napari_microaunet.curation.session import MaskOrigin, ReviewState
from napari_microaunet.editing.labels import areas_of
from napari_microaunet.frames.masks import read_mask_file
from napari_microaunet.frames.sample_data import sample_data_folder
from napari_microaunet.widgets.edit_tools.propagation import Direction

ALT, CONTROL = Qt.KeyboardModifier.AltModifier, Qt.KeyboardModifier.ControlModifier
PROPAGATE, APPLY, COPY = (Qt.Key.Key_G, ALT), (Qt.Key.Key_E, ALT), (Qt.Key.Key_Q, ALT)
UNDO = (Qt.Key.Key_Z, CONTROL)

HEIGHT, WIDTH, STEP = 288, 384, 6


@pytest.fixture
def clip(tmp_path):
    """Seven frames in which a polyp moves to the left, one of another size; and their masks."""
    frames = sample_data_folder() / "frames"
    target = tmp_path / "clip"
    target.mkdir()
    with Image.open(next((frames / "images").glob("sample_01.*"))) as opened:
        picture = np.asarray(opened.convert("RGB"))
    truth = read_mask_file(next((frames / "masks").glob("sample_01.*")))
    rows, columns = np.nonzero(truth == 1)
    top = int(np.clip(rows.mean() - HEIGHT / 2, 0, picture.shape[0] - HEIGHT))
    left = int(np.clip(columns.mean() - WIDTH / 2 - 20, 0, picture.shape[1] - WIDTH - 7 * STEP))
    masks = []
    for number in range(7):
        box = slice(top, top + HEIGHT), slice(left + number * STEP, left + number * STEP + WIDTH)
        frame = picture[box][: HEIGHT - 40] if number == 6 else picture[box]
        Image.fromarray(frame).save(target / f"frame_{number}.png")
        masks.append(truth[box])
    return target, masks


def native(used, index):
    return used.masks.chunks.mask(index)


def dice(one, other):
    return 2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other))


def begin(use, clip, **options):
    used = use(**options)
    used.open(clip[0])
    used.masks.edit(0, clip[1][0], "drawn by the test")
    return used


def propagate(used):
    press(used, *PROPAGATE)
    assert used.bench.job is not None, used.edit.said.text()
    used.wait_for_job()


def extra_layers(used):
    return [layer for layer in used.viewer.layers if layer not in (used.work.image, used.layer)]


def test_masks_go_on_to_the_next_frames_once_they_are_applied(use, clip):
    used = begin(use, clip, show=True)
    panel = used.edit.propagation
    before = native(used, 0)
    propagate(used)
    # Shown, not written; the frame of another size ends it.
    assert list(panel.proposed) == [1, 2, 3, 4, 5]
    assert not any(native(used, index).any() for index in range(1, 7))
    (preview,) = extra_layers(used)
    assert isinstance(preview, Labels)
    assert not preview.editable
    assert used.bench.shown == 0
    assert used.viewer.layers.selection.active is used.layer
    proposed = np.asarray(preview.data[3])[:HEIGHT, :WIDTH]
    assert dice(proposed > 0, clip[1][3] == 1) > 0.9
    assert panel.table.rowCount() == 6
    assert "size" in panel.table.item(5, 2).text()
    assert 0 < float(panel.table.item(0, 1).text()) <= 1

    press(used, *APPLY)
    assert not extra_layers(used)
    for index in range(1, 6):
        assert dice(native(used, index) > 0, clip[1][index] == 1) > 0.9
        status = used.masks.session.status(index)
        assert status.origin is MaskOrigin.PROPAGATED
        assert status.state is ReviewState.PRELABELLED
    np.testing.assert_array_equal(native(used, 0), before)
    assert not native(used, 6).any()
    assert used.bench.shown == 0
    # One step of review takes all of it back, and brings all of it again.
    change = used.masks.session.undo_review(write=used.masks.set)
    assert change.masks == (1, 2, 3, 4, 5)
    assert not any(native(used, index).any() for index in range(1, 7))
    used.masks.session.redo_review(write=used.masks.set)
    assert all(native(used, index).any() for index in range(1, 6))


def test_napari_undo_takes_back_a_propagated_frame_and_the_threshold_leaves_it(use, clip):
    used = begin(use, clip)
    used.go_to(4)
    used.prelabel.run_shown()
    used.wait_for_job()
    used.settle()
    models = native(used, 4)
    used.go_to(0)
    propagate(used)
    press(used, *APPLY)
    carried = native(used, 4)
    assert (carried != models).any()
    used.prelabel.threshold.value += 0.2
    used.settle()
    used.go_to(4)
    np.testing.assert_array_equal(native(used, 4), carried)
    used.go_to(2)
    press(used, *UNDO)
    assert not native(used, 2).any()
    assert native(used, 3).any()


def test_decided_and_corrected_frames_are_kept_unless_the_user_says_so(use, clip):
    used = begin(use, clip)
    session, panel = used.masks.session, used.edit.propagation
    dab = np.zeros((HEIGHT, WIDTH), np.uint8)
    dab[5:20, 5:20] = 1
    used.go_to(2)
    used.masks.edit(2, dab, "drawn by the test")
    session.exclude([3], "blur")
    used.masks.edit(4, clip[1][4], "drawn by the test")
    session.accept([4])
    used.go_to(0)
    propagate(used)
    # An accepted frame is followed rather than replaced, an excluded one is left out.
    assert sorted(panel.proposed) == [1, 2, 5]
    assert "by hand" in panel.table.item(1, 2).text()
    panel.apply_button.click()
    np.testing.assert_array_equal(native(used, 2), dab)
    np.testing.assert_array_equal(native(used, 4), clip[1][4])
    assert session.status(4).state is ReviewState.ACCEPTED
    assert native(used, 1).any()
    assert native(used, 5).any()

    propagate(used)
    panel.also_corrected.setChecked(True)
    # What is changed while the user looks is not replaced.
    used.masks.edit(5, dab, "drawn by the test")
    panel.apply_button.click()
    assert dice(native(used, 2) > 0, clip[1][2] == 1) > 0.9
    np.testing.assert_array_equal(native(used, 5), dab)
    assert "changed meanwhile" in used.edit.said.text()


def test_between_accepted_frames_and_backwards(use, clip):
    used = begin(use, clip)
    panel, session = used.edit.propagation, used.masks.session
    used.go_to(3)
    panel.direction.setCurrentIndex(panel.direction.findData(Direction.BETWEEN))
    press(used, *PROPAGATE)
    assert "no accepted frame before" in used.edit.said.text()
    used.masks.edit(5, clip[1][5], "drawn by the test")
    session.accept([0, 5])
    propagate(used)
    assert sorted(panel.proposed) == [1, 2, 3, 4]
    assert used.bench.shown == 3
    panel.discard_button.click()
    assert not extra_layers(used)
    assert not native(used, 2).any()
    assert not panel.proposed

    used.go_to(5)
    panel.direction.setCurrentIndex(panel.direction.findData(Direction.PREVIOUS))
    panel.count.setValue(2)
    propagate(used)
    assert sorted(panel.proposed) == [3, 4]
    # A row leads to its frame.
    panel.table.selectRow(0)
    assert used.bench.shown == 3


def test_a_propagation_is_cancelled_and_keeps_what_there_is_so_far(use, clip, qtbot):
    used = begin(use, clip)
    press(used, *PROPAGATE)
    job = used.bench.job
    qtbot.waitUntil(lambda: job.done > 0, timeout=60_000)
    press(used, Qt.Key.Key_C, Qt.KeyboardModifier.ShiftModifier)
    used.wait_for_job()
    proposed = set(used.edit.propagation.proposed)
    assert 1 in proposed
    press(used, *APPLY)
    assert {index for index in range(1, 7) if native(used, index).any()} == proposed


def test_asking_again_while_a_job_runs_leaves_what_was_proposed(use, clip):
    used = begin(use, clip)
    propagate(used)
    proposed = set(used.edit.propagation.proposed)
    used.go_to(3)
    used.prelabel.run_shown()
    assert used.bench.job is not None
    press(used, *PROPAGATE)
    assert "still running" in notification_manager.records[-1].message
    used.wait_for_job()
    used.go_to(0)
    press(used, *APPLY)
    assert {
        index for index in range(1, 7) if used.masks.origin(index) is MaskOrigin.PROPAGATED
    } == {*proposed - {3}}


def test_while_it_runs_nothing_is_written_and_discarding_ends_it(use, clip, qtbot):
    used = begin(use, clip)
    panel = used.edit.propagation
    press(used, *PROPAGATE)
    job = used.bench.job
    qtbot.waitUntil(lambda: 0 < job.done < job.total, timeout=60_000)
    press(used, *APPLY)
    assert "still running" in notification_manager.records[-1].message
    assert panel.proposed
    assert not any(native(used, index).any() for index in range(1, 7))
    used.wait_for_job()
    assert list(panel.proposed) == [1, 2, 3, 4, 5]
    press(used, *APPLY)
    assert all(native(used, index).any() for index in range(1, 6))

    panel.also_corrected.setChecked(True)
    press(used, *PROPAGATE)
    job = used.bench.job
    qtbot.waitUntil(lambda: 0 < job.done < job.total, timeout=60_000)
    panel.discard_button.click()
    assert job.is_cancelled()
    used.wait_for_job()
    assert not panel.proposed
    assert not extra_layers(used)
    assert "discarded" in used.edit.said.text()


def test_a_propagation_cancelled_at_once_does_not_repeat_why_the_last_one_stopped(use, clip):
    used = begin(use, clip)
    propagate(used)
    used.edit.propagation.discard_button.click()
    press(used, *PROPAGATE)
    used.bench.cancel()
    used.wait_for_job()
    assert used.edit.said.text() == "Propagate: no frame was reached."


def test_the_mask_of_the_previous_frame_is_copied_in_one_undo_step(use, clip):
    used = begin(use, clip)
    press(used, *COPY)
    assert "first frame" in used.edit.said.text()
    used.go_to(1)
    press(used, *COPY)
    np.testing.assert_array_equal(native(used, 1), clip[1][0])
    assert used.masks.origin(1) is MaskOrigin.HAND
    press(used, *UNDO)
    assert not native(used, 1).any()
    used.go_to(5)
    used.masks.edit(5, clip[1][5], "drawn by the test")
    used.go_to(6)
    press(used, *COPY)
    assert "size" in used.edit.said.text()
    assert not areas_of(native(used, 6))


def test_a_frame_on_show_that_cannot_be_read_is_in_nobodys_way(use, clip):
    (clip[0] / "frame_6.png").write_bytes(b"no image")
    used = begin(use, clip)
    panel = used.edit.propagation
    used.edit.propagation.run()
    used.viewer.dims.set_current_step(0, 6)
    used.wait_for_job()
    assert 6 in used.work.sequence.problems
    assert list(panel.proposed) == [1, 2, 3, 4, 5]
    panel.apply()
    assert all(native(used, index).any() for index in range(1, 6))


def test_the_preview_goes_with_the_dock(use, clip):
    used = begin(use, clip)
    propagate(used)
    used.viewer.window.remove_dock_widget(used.dock)
    assert len(used.viewer.layers) == 2
