"""What is on the screen, and what holds whatever napari's own settings are."""

from __future__ import annotations

import numpy as np
import pytest

from napari_microaunet.curation.session import MaskOrigin, Session
from napari_microaunet.widgets.overlay import OverlayStyle


def colour_share(viewer, colour, tolerance=40):
    """Share of the canvas that is near a colour."""
    pixels = viewer.screenshot(canvas_only=True, flash=False)[..., :3].astype(int)
    return float((np.abs(pixels - colour).max(axis=2) < tolerance).mean())


def test_frames_and_masks_are_on_the_canvas(use, folder):
    used = use(show=True)
    used.open(folder)
    before = used.viewer.screenshot(canvas_only=True, flash=False)[..., :3].astype(int)
    # Not blank: the picture is there, red before blue.
    assert before.std() > 20
    assert before[..., 0].mean() > before[..., 2].mean() + 10
    used.prelabel_all()
    after = used.viewer.screenshot(canvas_only=True, flash=False)[..., :3].astype(int)
    share = np.count_nonzero(used.mask(0)) / used.mask(0).size
    changed = (np.abs(after - before).max(axis=2) > 10).mean()
    assert changed > 0.3 * share > 0
    used.prelabel.style.value = OverlayStyle.OUTLINE
    used.layer.opacity = 1
    outline = colour_share(used.viewer, (0, 229, 255))
    assert 0 < outline < share


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_the_dock_follows_the_theme(use, theme):
    used = use(show=True)
    used.viewer.theme = theme
    button = used.frames.open_button
    used.qtbot.waitExposed(button)
    shown = button.grab().toImage().pixelColor(12, 8)
    wanted = {"dark": (69, 96, 196), "light": (160, 184, 255)}[theme]
    assert np.abs(np.subtract((shown.red(), shown.green(), shown.blue()), wanted)).max() < 12


def displayed(used):
    """What the layer draws."""
    return np.asarray(used.layer._slice.image.raw)


def test_masks_are_drawn_as_stored_with_asynchronous_slicing(use, folder, asynchronous, qtbot):
    used = use(show=True)
    used.open(folder)
    used.prelabel_all()
    for index in (3, 1, 4):
        used.viewer.dims.set_current_step(0, index)
        used.prelabel.threshold.value = 0.4 + 0.05 * index
        qtbot.waitUntil(lambda index=index: used.layer.loaded and used.bench.shown == index)
        used.settle()
        qtbot.waitUntil(
            lambda index=index: np.array_equal(displayed(used), used.mask(index)), timeout=10_000
        )
        assert used.masks.origin(index) is MaskOrigin.MODEL
    before = used.mask(4)
    used.layer.brush_size = 40
    used.layer.paint((4, 60, 60), 9)
    assert used.masks.origin(4) is MaskOrigin.HAND
    used.layer.undo()
    np.testing.assert_array_equal(used.mask(4), before)


def test_masks_are_drawn_as_stored_whatever_comes_on_show_first(use, folder):
    used = use()
    used.open(folder)
    used.prelabel.run_button.click()
    # Stepping on while the run goes on and masks come in.
    while used.bench.job is not None:
        used.viewer.dims.set_current_step(0, (used.bench.shown + 1) % 5)
        used.qtbot.wait(20)
    for index in range(5):
        used.go_to(index)
        assert used.mask(index).any()
        np.testing.assert_array_equal(displayed(used), used.mask(index))


def test_closing_the_window_ends_what_runs(use, qtbot):
    used = use()
    frames = np.random.default_rng(0).integers(0, 255, (300, 64, 64, 3), np.uint8)
    used.viewer.add_image(frames, rgb=True)
    qtbot.waitUntil(lambda: used.work is not None)
    used.prelabel.run_button.click()
    job = used.bench.job
    qtbot.waitUntil(lambda: job.done > 0, timeout=60_000)
    used.viewer.close()
    qtbot.waitUntil(lambda: job.is_cancelled(), timeout=10_000)


@pytest.mark.parametrize("floating", [False, True])
def test_the_windows_own_close_button_gives_the_session_back(use, folder, qtbot, floating):
    used = use(show=True)
    used.open(folder)
    used.prelabel_all()
    used.prelabel.style.value = OverlayStyle.BOTH
    qtbot.waitUntil(lambda: len(used.viewer.layers) == 3)
    used.masks.edit(0, np.ones_like(used.masks.chunks.mask(0)), "test")
    session, window = used.work.session, used.viewer.window._qt_window
    used.dock.parentWidget().setFloating(floating)
    # As the X does, for which napari asks first: not by the viewer.
    with qtbot.waitSignal(window.destroyed, timeout=20_000):
        window.close()
    # Else the fixture would close it once more.
    used.viewer.window._teardown()
    del used.viewer.window._qt_window
    assert session.read_only
    with Session(session.sequence, session.folder) as again:
        assert not again.read_only
        assert again.chunks.mask(0).all()
        assert again.origin(0) is MaskOrigin.HAND
