from __future__ import annotations

import json
import threading

import pytest
from app_model.types import KeyBinding
from napari.settings import get_settings
from napari.utils.notifications import notification_manager
from qtpy.QtCore import Qt
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import QDialogButtonBox

from napari_microaunet.errors import InputError
from napari_microaunet.widgets.jobs import Job
from napari_microaunet.widgets.keys import ACTIONS, load_keys, save_keys, user_keys_file
from napari_microaunet.widgets.keys_dialog import KeysDialog, menu_keys
from napari_microaunet.widgets.overlay import OverlayStyle


@pytest.fixture(autouse=True)
def no_own_keys():
    yield
    user_keys_file().unlink(missing_ok=True)


def press(used, key):
    """Press a key where a user would: in the canvas."""
    canvas = used.viewer.window._qt_viewer.canvas.native
    used.qtbot.keyClick(canvas, *key)


def test_no_key_is_one_of_naparis_own(make_napari_viewer):
    taken = {
        key
        for command, keys in get_settings().shortcuts.shortcuts.items()
        # Shapes and Points layers have keys of their own for any letter one could choose.
        if not any(word in command for word in ("shape", "points", "vertex", "add_", "direct"))
        for key in keys
    }
    ours = [KeyBinding.from_str(action.key) for action in ACTIONS]
    assert len(set(ours)) == len(ours)
    assert not taken & set(ours)
    in_menus = menu_keys(make_napari_viewer().window._qt_window)
    # Save a screenshot; open the menu Help; leave napari.
    assert {KeyBinding.from_str(key) for key in ("Alt+S", "Alt+H", "Ctrl+Q")} <= in_menus
    assert not in_menus & set(ours)


def test_keys_do_what_the_dock_does(use, folder):
    used = use()
    used.open(folder)
    assert used.viewer.layers.selection.active is used.layer
    press(used, (Qt.Key.Key_G,))
    used.wait_for_job()
    used.settle()
    assert used.mask(0).any()
    assert not used.mask(1).any()
    threshold = used.prelabel.threshold.value
    press(used, (Qt.Key.Key_K,))
    assert used.prelabel.threshold.value == pytest.approx(threshold + 0.05)
    press(used, (Qt.Key.Key_J,))
    assert used.prelabel.threshold.value == pytest.approx(threshold)
    press(used, (Qt.Key.Key_H,))
    assert used.prelabel.style.value is OverlayStyle.OUTLINE
    press(used, (Qt.Key.Key_W,))
    assert used.prelabel.live.value
    press(used, (Qt.Key.Key_W,))
    press(used, (Qt.Key.Key_H, Qt.KeyboardModifier.ShiftModifier))
    assert not used.prelabel.fill_holes.value
    press(used, (Qt.Key.Key_G, Qt.KeyboardModifier.ShiftModifier))
    used.wait_for_job()
    used.settle()
    assert all(used.mask(index).any() for index in range(5))


def test_keys_act_with_the_image_selected_and_leave_naparis_alone(use, folder):
    used = use()
    used.open(folder)
    used.viewer.layers.selection.active = used.work.image
    press(used, (Qt.Key.Key_H,))
    assert used.prelabel.style.value is OverlayStyle.OUTLINE
    used.viewer.layers.selection.active = used.layer
    press(used, (Qt.Key.Key_2,))
    assert used.layer.mode == "paint"


def test_keys_that_cannot_act_say_why(use, folder, qtbot):
    used, go_on = use(), threading.Event()
    used.open(folder)
    keys = (
        (Qt.Key.Key_G,),
        (Qt.Key.Key_G, Qt.KeyboardModifier.ShiftModifier),
        (Qt.Key.Key_X, Qt.KeyboardModifier.AltModifier),
    )
    used.bench.run(Job("Something long", lambda _: [go_on.wait(20)]))
    for key in keys:
        told = len(notification_manager.records)
        press(used, key)
        assert "Something long is still running" in notification_manager.records[told].message
    go_on.set()
    used.wait_for_job()
    second = use()
    second.open(folder)
    for key in (*keys[:2], (Qt.Key.Key_M, Qt.KeyboardModifier.ShiftModifier)):
        told = len(notification_manager.records)
        press(second, key)
        assert notification_manager.records[told].message == second.work.session.notice


def test_tooltips_name_the_keys(use):
    used = use()
    assert used.prelabel.run_button.toolTip().endswith("Key: Shift+G")
    assert used.prelabel.threshold.native.toolTip().endswith("Key: J / K")
    assert used.dock.progress.cancel_button.toolTip().endswith("Key: Shift+C")


def test_every_action_is_done_by_a_section(use):
    used = use()
    done = {"focus_dock"}
    for section in used.dock.sections.values():
        done |= set(section.actions)
    assert done == {action.name for action in ACTIONS}


def test_everything_in_the_dock_is_reached_with_tab(use, folder, qtbot):
    used = use(show=True)
    used.open(folder)
    used.dock.focus()
    reached = set()
    for _ in range(150):
        # Without a window manager no window is active, but each knows what has its focus.
        widget = used.dock.window().focusWidget()
        reached.add(widget)
        qtbot.keyClick(widget, Qt.Key.Key_Tab)
    wanted = {
        used.frames.open_button,
        used.frames.save_masks_button,
        used.prelabel.run_button,
        used.prelabel.model.native,
        used.prelabel.fill_holes.native,
        used.prelabel.style.native,
    }
    assert wanted <= reached


def test_the_user_changes_a_key(use, folder, qtbot):
    used = use()

    def change(dialog):
        assert isinstance(dialog, KeysDialog)
        ok = dialog.buttons.button(QDialogButtonBox.StandardButton.Ok)
        dialog.edits["overlay"].setKeySequence(QKeySequence("G"))
        assert not ok.isEnabled()
        assert "G is set for" in dialog.message.text()
        # napari's own of Labels layers, of the viewer, of a menu, and what opens a menu.
        for key in ("B", "V", "Alt+S", "Alt+H"):
            dialog.edits["overlay"].setKeySequence(QKeySequence(key))
            assert not ok.isEnabled()
            assert f"{key} for" in dialog.message.text()
        dialog.edits["overlay"].setKeySequence(QKeySequence(";"))
        assert ok.isEnabled()
        ok.click()

    used.when_asked(change)
    used.dock.change_keys()
    press(used, (Qt.Key.Key_H,))
    assert used.prelabel.style.value is OverlayStyle.FILLED
    press(used, (Qt.Key.Key_Semicolon,))
    assert used.prelabel.style.value is OverlayStyle.OUTLINE
    assert json.loads(user_keys_file().read_text()) == {"overlay": ";"}
    # The next window has it as well.
    other = use()
    press(other, (Qt.Key.Key_Semicolon,))
    assert other.prelabel.style.value is OverlayStyle.OUTLINE


def test_a_key_that_someone_else_has_bound_stays_theirs(use, make_napari_viewer, qtbot):
    used = use()
    viewer = used.viewer
    viewer.window.remove_dock_widget(used.dock)
    pressed = []
    viewer.bind_key("G", lambda _viewer: pressed.append(1))
    again = used.reopen()
    press(again, (Qt.Key.Key_G,))
    assert pressed == [1]
    assert "Shift+G" in again.prelabel.run_button.toolTip()


def test_a_closed_dock_takes_its_keys_along(use):
    used = use()
    used.viewer.window.remove_dock_widget(used.dock)
    assert not used.viewer.keymap


@pytest.mark.parametrize(
    "content", ["[]", "{", '{"overlay": 3}', '{"overlay": "G"}', '{"overlay": "Nonsense"}']
)
def test_a_damaged_table_of_keys_is_refused_by_name(tmp_path, content):
    file = tmp_path / "keys.json"
    file.write_text(content)
    with pytest.raises(InputError):
        load_keys(file)


def test_keys_are_saved_and_loaded(tmp_path):
    keys = {action.name: action.key for action in ACTIONS} | {"live": "Ctrl+Shift+L"}
    save_keys(tmp_path / "deeper" / "keys.json", keys)
    assert load_keys(tmp_path / "deeper" / "keys.json") == keys
    assert load_keys(tmp_path / "none.json")["live"] == "W"
