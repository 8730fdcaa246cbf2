"""Any order of keys leaves window, session and a session that is opened again in agreement."""

from __future__ import annotations

import numpy as np
import pytest
from pointing import Mouse, press
from qtpy.QtCore import Qt
from skimage.draw import disk

from napari_microaunet.curation.session import Session
from napari_microaunet.editing.labels import polyps_in
from napari_microaunet.frames import open_frames

NONE, SHIFT = Qt.KeyboardModifier.NoModifier, Qt.KeyboardModifier.ShiftModifier
ALT, CONTROL = Qt.KeyboardModifier.AltModifier, Qt.KeyboardModifier.ControlModifier
MASK_TOOLS = [(Qt.Key.Key_Period, NONE), (Qt.Key.Key_Comma, NONE), (Qt.Key.Key_Slash, NONE)]
MASK_TOOLS += [(getattr(Qt.Key, f"Key_{letter}"), ALT) for letter in "ORBDMNIYU"]
MASK_TOOLS += [(Qt.Key.Key_Delete, NONE), (Qt.Key.Key_A, ALT)]
OUTLINE = [(Qt.Key.Key_J, ALT), (Qt.Key.Key_K, ALT), (Qt.Key.Key_Q, ALT)]
MODES = [(Qt.Key.Key_B, SHIFT), (Qt.Key.Key_Q, SHIFT), (Qt.Key.Key_Z, SHIFT)]
MODES += [(Qt.Key.Key_Return, NONE), (Qt.Key.Key_Escape, NONE), (Qt.Key.Key_8, NONE)]
REVIEW = [(Qt.Key.Key_Q, NONE), (Qt.Key.Key_N, NONE), (Qt.Key.Key_R, SHIFT)]
REVIEW += [(Qt.Key.Key_U, NONE), (Qt.Key.Key_U, SHIFT), (Qt.Key.Key_H, ALT)]
STEPS = [(Qt.Key.Key_Left, NONE), (Qt.Key.Key_Right, NONE), (Qt.Key.Key_PageDown, NONE)]
UNDO = [(Qt.Key.Key_Z, CONTROL), (Qt.Key.Key_Z, CONTROL | SHIFT)]
# Some tools empty a frame, on which nothing else has anything to do.
KINDS = [MASK_TOOLS[:3], MASK_TOOLS, OUTLINE, MODES, REVIEW, STEPS, UNDO]


def agree(used):
    """The layer shows what the session holds, and nothing lies beyond a frame's size."""
    for index, frame in enumerate(used.work.sequence.frames):
        mask = used.masks.chunks.mask(index).copy()
        assert mask.shape == (frame.height, frame.width)
        shown = used.mask(index)
        np.testing.assert_array_equal(shown[: frame.height, : frame.width], mask)
        assert not shown[frame.height :].any()
        assert not shown[:, frame.width :].any()


@pytest.mark.parametrize("seed", [1, 2])
def test_forty_keys_and_drags_in_any_order_leave_everything_in_agreement(use, folder, seed):
    used = use(show=True)
    used.open(folder)
    used.prelabel_all()
    mouse = Mouse(used)
    rng = np.random.default_rng(seed)
    for index, frame in enumerate(used.work.sequence.frames):
        used.go_to(index)
        height, width = frame.height, frame.width
        mask = used.masks.chunks.mask(index).copy()
        mask[disk((height * 0.5, width * 0.3), height * 0.2)] = 1
        mask[disk((height * 0.5, width * 0.7), height * 0.1)] = 2
        used.masks.edit(index, mask, "drawn by the test")
    session = used.work.session
    seen = set()
    for _ in range(40):
        frame = used.work.sequence.frames[used.bench.shown]
        place = rng.uniform(0.3, 0.7, 2) * (frame.height, frame.width)
        used.viewer.reset_view()  # a drag without a tool moves the picture
        mouse.move(*place)
        if rng.random() < 0.25:
            # A dab of the brush, a click of the mode that is on, a vertex or a shape that moves.
            if used.edit.edits.mode is None:
                press(used, Qt.Key.Key_8)
            mouse.drag(place, place + rng.uniform(-3, 20, 2))
            mouse.click(*place)
        else:
            keys = KINDS[rng.integers(len(KINDS))]
            press(used, *keys[rng.integers(len(keys))])
        used.qtbot.waitUntil(lambda: not used.edit.clicks.is_busy, timeout=20_000)
        used.settle()
        agree(used)
        seen |= {status.state for status in session.statuses}
    # They did something, beside the five masks that were drawn before.
    assert len(seen) > 1
    assert sum(status.strokes for status in session.statuses) > 10
    if used.edit.edits.mode is not None:
        used.edit.edits.mode.leave()
    agree(used)
    masks = [session.chunks.mask(status.index) for status in session.statuses]
    used.leave()
    # The last seconds count when the dock is closed.
    left = session.statuses, session.shown
    with Session(open_frames(folder)) as again:
        assert again.remarks == []
        assert (again.statuses, again.shown) == left
        for status, mask in zip(again.statuses, masks, strict=True):
            np.testing.assert_array_equal(again.chunks.mask(status.index), mask)
            assert status.area == np.count_nonzero(polyps_in(mask))
