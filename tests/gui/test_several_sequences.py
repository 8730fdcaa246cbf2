"""Several sequences in one window: keys act on the one that is seen."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from napari.layers import Labels
from napari.layers._layer_actions import _duplicate_layer
from qtpy.QtCore import Qt

from napari_microaunet.curation.session import ReviewState, annotator_name, set_annotator_name

UNDO = Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier


def box(work, index, top=20):
    frame = work.sequence.frames[index]
    mask = np.zeros((frame.height, frame.width), np.uint8)
    mask[top : top + 10, 10:40] = 1
    return mask


@pytest.fixture
def two(use, folder, tmp_path):
    """The dock on three frames of a stack, opened after the five of `folder`, which are below."""
    tifffile.imwrite(tmp_path / "stack.tif", np.full((3, 90, 120, 3), 90, np.uint8))
    used = use(show=True)
    used.open(folder)
    below = used.work
    below.masks.edit(0, box(below, 0), "test")
    used.open(tmp_path / "stack.tif")
    used.masks.edit(0, box(used.work, 0), "test")
    return used, below, used.work


def choose(used, work):
    used.frames._choose(used.frames.layers.findData(work.image))


def seen(used):
    """The layers that are in sight."""
    return [layer for layer in used.viewer.layers if layer.visible]


def test_keys_act_on_the_frames_that_are_seen(two, qtbot):
    used, below, above = two
    assert seen(used) == [above.image, above.masks.layer]
    before = above.masks.chunks.digest(0)
    choose(used, below)
    assert seen(used) == [below.image, below.masks.layer]
    assert used.viewer.layers.selection.active is below.masks.layer
    used.press(*UNDO)
    assert above.masks.chunks.digest(0) == before
    assert not below.masks.chunks.digest(0)
    # Who hides masks on purpose finds them so, whatever was on show in between.
    below.masks.layer.visible = False
    choose(used, below)
    choose(used, above)
    choose(used, below)
    assert seen(used) == [below.image]

    # Each is shown where it was left, and as large as it fits though others are larger.
    used.viewer.dims.set_current_step(0, 4)
    assert used.bench.shown == 4
    choose(used, above)
    assert used.viewer.dims.current_step[0] == used.bench.shown == 0
    height, width = above.sequence.canvas_shape
    canvas = np.array(used.viewer.window._qt_viewer.canvas.size)
    assert used.viewer.camera.zoom == pytest.approx(0.95 * min(canvas / (height, width)), rel=0.02)
    choose(used, below)
    assert used.bench.shown == 4
    # The slider is as long as the longest: beyond the end of the others it goes back.
    choose(used, above)
    used.viewer.dims.set_current_step(0, 4)
    assert used.viewer.dims.current_step[0] == used.bench.shown == 2
    used.press(Qt.Key.Key_N)
    assert above.session.status(2).state is ReviewState.ACCEPTED
    assert not any(status.state.is_decided for status in below.session.statuses)

    used.viewer.layers.remove(above.image)
    assert used.work is below
    assert below.image.visible


@pytest.mark.parametrize("how", ["open", "drop"])
def test_frames_that_are_open_are_not_opened_once_more(two, folder, qtbot, how):
    used, below, above = two
    before = list(used.viewer.layers)
    if how == "open":
        used.bench.open(folder)
    else:
        used.viewer.open(str(folder), plugin="napari-microaunet")
    qtbot.waitUntil(lambda: used.work is below, timeout=20_000)
    used.wait_for_job()
    assert list(used.viewer.layers) == before
    assert not used.work.session.read_only
    assert seen(used) == [below.image, below.masks.layer]
    choose(used, above)
    assert not used.work.session.read_only


def test_masks_that_were_taken_away_come_back_with_their_frames(two, qtbot):
    used, below, _ = two
    digest = below.masks.chunks.digest(0)
    used.viewer.layers.remove(below.masks.layer)
    for _ in range(2):  # another sequence was on show; they are
        choose(used, below)
        qtbot.waitUntil(lambda: below.masks is not None, timeout=20_000)
        used.wait_for_job()
        assert below.masks.chunks.digest(0) == digest
        assert below.masks.layer.editable
        used.viewer.layers.remove(below.masks.layer)


def test_a_copy_of_the_masks_is_nobodys(two):
    used, _, work = two
    layers, digest = used.viewer.layers, work.masks.chunks.digest(0)
    for layer in (work.masks.layer, work.image):
        layers.selection = {layer}
        _duplicate_layer(layers)
    used.qtbot.wait(100)
    assert used.work is work
    (copy,) = (one for one in layers if isinstance(one, Labels) and one.name.endswith("copy"))
    np.testing.assert_array_equal(np.asarray(copy.data[0]), used.mask(0))
    copy.paint((0, 60, 60), 2)
    assert np.asarray(copy.data[0])[60, 60] == 2
    assert work.masks.chunks.digest(0) == digest


def test_a_name_signs_in_all_sequences_that_are_open(two):
    used, below, above = two
    before = annotator_name()
    used.review.costs.annotator.setText("Ada")
    used.review.costs.annotator.editingFinished.emit()
    set_annotator_name(before)
    assert above.session.annotator == below.session.annotator == "Ada"
