from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Labels

from napari_microaunet.curation.session import MaskOrigin
from napari_microaunet.frames.masks import read_mask_file
from napari_microaunet.prelabel.masks import MaskSettings, mask_from
from napari_microaunet.prelabel.predictor import Predictor
from napari_microaunet.widgets.overlay import OverlayStyle
from napari_microaunet.widgets.prelabel_section import Which


def expected(sequence, index, model, settings):
    found = Predictor(model).predict_frame(sequence.read(index), sequence.field_of_view(index))
    return mask_from(found, settings)


def stroke(used, row=100, column=120, label=7):
    """Paint a dot on the frame on show, as a mouse press does."""
    used.layer.brush_size = 31
    used.layer.paint((used.bench.shown, row, column), label)


def test_a_folder_is_prelabelled_changed_undone_saved_and_opened_again(
    use, folder, bright_model, tmp_path
):
    used = use()
    used.open(folder)
    assert len(used.work.sequence) == 5
    assert used.layer.data.shape == (5, *used.work.sequence.canvas_shape)

    used.prelabel_all()
    settings = used.bench.settings
    assert settings.threshold == pytest.approx(bright_model.card.threshold, abs=0.01)
    assert {status.threshold for status in used.work.session.statuses} == {settings.threshold}
    for index, frame in enumerate(used.work.sequence.frames):
        mask = expected(used.work.sequence, index, bright_model, settings)
        assert mask.any()
        np.testing.assert_array_equal(used.mask(index)[: frame.height, : frame.width], mask)
        assert not used.mask(index)[frame.height :].any()
        assert not used.mask(index)[:, frame.width :].any()

    before = used.mask(0)
    used.prelabel.threshold.value += 0.1
    higher = used.mask(0)
    assert 0 < np.count_nonzero(higher) < np.count_nonzero(before)
    used.layer.undo()
    np.testing.assert_array_equal(used.mask(0), before)
    used.layer.redo()
    np.testing.assert_array_equal(used.mask(0), higher)

    used.work.mask_folder = tmp_path / "case" / "masks"
    used.frames.save_masks_button.click()
    used.wait_for_job()
    for index, frame in enumerate(used.work.sequence.frames):
        saved = read_mask_file(tmp_path / "case" / "masks" / f"{frame.name}.png")
        mask = expected(used.work.sequence, index, bright_model, used.bench.settings)
        np.testing.assert_array_equal(saved, mask)

    sequence, settings = used.work.sequence, used.bench.settings
    used.leave(forget=True)
    again = use()
    again.open(folder)
    again.settle()
    for index, frame in enumerate(again.work.sequence.frames):
        mask = expected(sequence, index, bright_model, settings)
        assert again.masks.origin(index) is MaskOrigin.FILE
        np.testing.assert_array_equal(again.mask(index)[: frame.height, : frame.width], mask)


def test_undo_takes_back_the_prelabel_of_the_frame_on_show(use, folder):
    used = use()
    used.open(folder)
    used.prelabel_all()
    used.go_to(3)
    others = [used.mask(index) for index in (0, 1, 2, 4)]
    used.layer.undo()
    assert not used.mask(3).any()
    assert used.masks.origin(3) is MaskOrigin.NONE
    for index, mask in zip((0, 1, 2, 4), others, strict=True):
        np.testing.assert_array_equal(used.mask(index), mask)
    # The threshold does not bring back what was undone.
    used.prelabel.threshold.value += 0.1
    used.settle()
    assert not used.mask(3).any()


def test_a_dragged_slider_is_one_undo_step(use, folder):
    used = use()
    used.open(folder)
    used.prelabel_all()
    before = used.mask(0)
    for _ in range(8):
        used.prelabel.threshold.value += 0.02
    assert (used.mask(0) != before).any()
    used.layer.undo()
    np.testing.assert_array_equal(used.mask(0), before)


def test_painting_after_a_prelabel_is_undone_alone(use, folder):
    used = use()
    used.open(folder)
    used.prelabel_all()
    used.go_to(1)
    before = used.mask(1)
    stroke(used)
    assert (used.mask(1) != before).any()
    used.layer.undo()
    np.testing.assert_array_equal(used.mask(1), before)


def test_a_stroke_begun_as_a_frame_comes_on_show_is_one_step(use, folder, qtbot):
    used = use()
    used.open(folder)
    used.prelabel_all()
    used.viewer.dims.set_current_step(0, 3)
    before = used.mask(3)
    # As a drag that lasts longer than a frame has to be looked at until its pre-label is a step.
    with used.layer.block_history():
        stroke(used)
        qtbot.wait(600)
        stroke(used, row=140)
    assert used.masks.origin(3) is MaskOrigin.HAND
    used.settle()
    used.layer.undo()
    np.testing.assert_array_equal(used.mask(3), before)
    assert used.masks.origin(3) is MaskOrigin.MODEL


def test_corrected_frames_keep_their_mask_when_settings_move(use, folder):
    used = use()
    used.open(folder)
    used.prelabel_all()
    used.go_to(2)
    stroke(used)
    corrected = used.mask(2)
    others = [used.mask(index) for index in (0, 1, 3, 4)]
    used.prelabel.threshold.value += 0.1
    used.settle()
    np.testing.assert_array_equal(used.mask(2), corrected)
    assert used.masks.origin(2) is MaskOrigin.HAND
    assert "by hand" in used.prelabel.status.text()
    for index, mask in zip((0, 1, 3, 4), others, strict=True):
        used.go_to(index)
        assert (used.mask(index) != mask).any()


@pytest.mark.parametrize(("reply", "kept"), [("Keep", True), ("Replace", False)])
def test_a_new_run_asks_about_corrected_frames(use, folder, reply, kept):
    used = use()
    used.open(folder)
    used.prelabel_all()
    stroke(used)
    corrected = used.mask(0)
    used.choose_model("teacher")
    asked = used.answer(reply)
    used.prelabel_all()
    assert asked
    # The model that the mask began with, whatever another one has said since.
    threshold = {"bright": 0.5, "teacher": used.prelabel.model.value.card.threshold}
    for index in (0, 1):
        status = used.work.session.status(index)
        model = "bright" if kept and not index else "teacher"
        assert (status.model, status.threshold) == (model, threshold[model])
    assert "1 of 5" in asked[0]
    assert (used.mask(0) == corrected).all() == kept
    used.layer.undo()
    # Replaced: the correction is back. Kept: the correction is undone.
    assert (used.mask(0) == corrected).all() != kept


def test_a_cancelled_question_changes_nothing(use, folder):
    used = use()
    used.open(folder)
    stroke(used)
    before = used.mask(0)
    used.answer("Cancel")
    used.prelabel_all()
    np.testing.assert_array_equal(used.mask(0), before)
    assert not used.mask(1).any()


def test_frames_without_masks_leaves_out_what_was_decided_by_hand(use, folder):
    used = use()
    used.open(folder)
    used.go_to(2)
    stroke(used)
    painted = used.mask(2)
    used.go_to(3)
    stroke(used)
    stroke(used, label=0)
    assert not used.mask(3).any()
    used.prelabel.which.value = Which.WITHOUT_MASKS
    assert used.prelabel.chosen_frames() == [0, 1, 4]
    used.prelabel_all()
    np.testing.assert_array_equal(used.mask(2), painted)
    assert not used.mask(3).any()
    assert all(used.mask(index).any() for index in (0, 1, 4))


@pytest.mark.parametrize(("first", "last"), [(1, 2), (2, 1)])
def test_a_range_is_prelabelled_and_no_more(use, folder, first, last):
    used = use()
    used.open(folder)
    used.prelabel.which.value = Which.RANGE
    used.prelabel.first.value, used.prelabel.last.value = first, last
    assert "1 to 2" in used.prelabel.run_button.text()
    used.prelabel_all()
    assert [bool(used.mask(index).any()) for index in range(5)] == [False, True, True, False, False]


def test_live_mode_labels_the_frame_that_is_stepped_to(use, folder, qtbot):
    used = use()
    used.open(folder)
    used.prelabel.live.value = True
    qtbot.waitUntil(lambda: used.mask(0).any(), timeout=60_000)
    used.viewer.dims.set_current_step(0, 3)
    qtbot.waitUntil(lambda: used.mask(3).any(), timeout=20_000)
    assert not used.mask(1).any()
    # A frame that has been decided on is left alone.
    used.layer.undo()
    used.go_to(0)
    used.go_to(3)
    assert not used.mask(3).any()


def test_a_run_stops_when_it_is_cancelled(use, tmp_path, qtbot):
    used = use()
    frames = np.random.default_rng(0).integers(0, 255, (400, 64, 64, 3), np.uint8)
    used.viewer.add_image(frames, rgb=True, name="noise")
    qtbot.waitUntil(lambda: used.work is not None)
    used.prelabel.run_button.click()
    job = used.bench.job
    qtbot.waitUntil(lambda: job.done > 3, timeout=60_000)
    row = used.dock.findChild(type(used.dock.progress))
    assert row.isVisibleTo(used.dock)
    row.cancel_button.click()
    with qtbot.waitSignal(job.ended, timeout=10_000) as ended:
        pass
    assert ended.args == [False]
    assert job.done < 400
    assert "stopped after" in used.prelabel.status.text()
    assert used.prelabel.run_button.isEnabled()


@pytest.mark.parametrize("what", ["image", "masks"])
def test_a_layer_may_be_removed_while_a_run_goes_on(use, folder, qtbot, what):
    used = use()
    used.open(folder)
    used.prelabel.run_button.click()
    job = used.bench.job
    used.viewer.layers.remove(used.work.image if what == "image" else used.layer)
    with qtbot.waitSignal(job.ended, timeout=60_000):
        pass
    if what == "image":
        assert used.work is None
        assert not used.prelabel.run_button.isEnabled()
        assert len(used.viewer.layers) == 1
    else:
        assert used.masks is None
        used.prelabel_all()
        assert used.mask(0).any()


def test_layers_are_known_whatever_they_are_called(use, folder):
    used = use()
    used.open(folder)
    used.layer.name = "polyps of Tuesday"
    used.work.image.name = "patient 7"
    assert used.frames.layers.currentText() == "patient 7"
    used.prelabel_all()
    assert used.mask(0).any()


def test_styles_draw_the_same_masks(use, folder, qtbot):
    used = use()
    used.open(folder)
    used.prelabel_all()
    used.prelabel.style.value = OverlayStyle.OUTLINE
    assert used.layer.contour > 0
    used.prelabel.style.value = OverlayStyle.BOTH
    qtbot.waitUntil(lambda: len(used.viewer.layers) == 3)
    labels = [layer for layer in used.viewer.layers if isinstance(layer, Labels)]
    assert used.layer.contour == 0
    assert not labels[-1].editable or not labels[0].editable
    used.go_to(2)
    assert used.viewer.layers.selection.active is used.layer
    used.prelabel.next_style()
    assert used.prelabel.style.value is OverlayStyle.FILLED
    assert [layer for layer in labels if layer.visible] == [used.layer]


def test_settings_move_masks_as_the_library_does(use, folder, bright_model):
    used = use()
    used.open(folder)
    used.prelabel_all()
    used.prelabel.smallest_area.value = 3
    used.prelabel.fill_holes.value = False
    used.prelabel.largest_only.value = True
    settings = MaskSettings(used.prelabel.threshold.value, 0.03, False, True)
    frame = used.work.sequence.frames[0]
    mask = expected(used.work.sequence, 0, bright_model, settings)
    np.testing.assert_array_equal(used.mask(0)[: frame.height, : frame.width], mask)


def test_an_unreadable_frame_is_named_and_stops_nothing(use, folder):
    broken = folder / "sample_02b.jpg"
    broken.write_bytes((folder / "sample_02.jpg").read_bytes()[:9000])
    used = use()
    used.open(folder)
    used.prelabel_all()
    index = [frame.name for frame in used.work.sequence.frames].index("sample_02b")
    assert [bool(used.mask(i).any()) for i in range(6)] == [i != index for i in range(6)]
    assert used.frames.problems.count() == 1
    assert "sample_02b" in used.frames.problems.item(0).text()
    assert "1 could not be read" in used.prelabel.status.text()


def test_confidence_of_the_frame_on_show(use, folder, bright_model):
    from napari_microaunet.prelabel.confidence import confidence

    used = use()
    used.open(folder)
    used.prelabel_all()
    sequence = used.work.sequence
    for index in (0, 4):
        used.go_to(index)
        found = Predictor(bright_model).predict_frame(
            sequence.read(index), sequence.field_of_view(index)
        )
        wanted = used.bench.settings
        trust = confidence(found, mask_from(found, wanted), wanted.threshold)
        assert f"confidence {trust:.2f}" in used.prelabel.status.text()
