from __future__ import annotations

import errno
import gc
import shutil
import threading
import time
from weakref import ref

import numpy as np
import pytest
import tifffile
from napari.layers import Labels
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QMessageBox

from napari_microaunet.curation.session import MaskOrigin, ReviewState, Session
from napari_microaunet.curation.session.chunk_files import ChunkFiles
from napari_microaunet.errors import InputError
from napari_microaunet.frames import open_frames
from napari_microaunet.frames.masks import read_mask_file, write_mask_file
from napari_microaunet.frames.sample_data import sample_data_folder
from napari_microaunet.prelabel.masks import mask_from
from napari_microaunet.widgets import looking_on
from napari_microaunet.widgets.jobs import Job
from napari_microaunet.widgets.mask_files import find_masks, masks_from_folder
from napari_microaunet.widgets.napari_io import FRAME_SEQUENCE
from napari_microaunet.widgets.overlay import OverlayStyle


def save_to(used, folder):
    used.work.mask_folder = folder
    used.frames.save_masks()
    used.wait_for_job()


def test_a_new_user_finds_two_buttons(use):
    used = use()
    assert used.frames.open_button.isEnabled()
    assert used.frames.open_button.text() == "Open frames…"
    assert not used.prelabel.run_button.isEnabled()
    assert not used.frames.save_masks_button.isEnabled()
    assert not used.dock.progress.isVisibleTo(used.dock)
    menu = used.frames.open_button.menu()
    assert [action.text() for action in menu.actions() if action.text()] == [
        "Folder of images…",
        "Video or TIFF stack…",
        "Sample frames",
        "Sample video",
        "Go on with",
    ]


@pytest.mark.parametrize(("entry", "count"), [("Sample frames", 12), ("Sample video", 96)])
def test_the_samples_open_from_the_dock_without_masks(use, qtbot, entry, count):
    used = use()
    menu = used.frames.open_button.menu()
    next(action for action in menu.actions() if action.text() == entry).trigger()
    qtbot.waitUntil(lambda: used.work is not None and used.masks is not None, timeout=60_000)
    assert len(used.work.sequence) == count
    assert f"{count} frames" in used.frames.summary.text()
    assert not used.mask(0).any()


def test_masks_beside_the_frames_are_shown_and_kept(use, folder, exact_masks):
    shutil.copytree(exact_masks, folder.with_name("masks"))
    used = use()
    used.open(folder)
    for index, frame in enumerate(used.work.sequence.frames):
        exact = read_mask_file(exact_masks / f"{frame.name}.png")
        np.testing.assert_array_equal(used.mask(index)[: frame.height, : frame.width], exact)
        assert used.masks.origin(index) is MaskOrigin.FILE
    # Undo does not take away what was on disk.
    used.layer.undo()
    assert used.mask(0).any()


def test_masks_of_a_chosen_folder_round_trip(use, folder, tmp_path):
    rng = np.random.default_rng(3)
    used = use()
    used.open(folder)
    drawn = []
    for index, frame in enumerate(used.work.sequence.frames[:3]):
        used.go_to(index)
        mask = np.zeros((frame.height, frame.width), np.uint8)
        mask[20:90, 30:80], mask[200:240, 50:60], mask[5:9, 5:9] = 1, 2, 255
        mask[-1, -1] = rng.integers(1, 9)
        rows, columns = np.nonzero(mask)
        with used.layer.block_history():
            used.layer.data_setitem((np.full(rows.size, index), rows, columns), mask[rows, columns])
        drawn.append(mask)
    save_to(used, tmp_path / "mine")
    assert sorted(file.stem for file in (tmp_path / "mine").iterdir()) == [
        frame.name for frame in used.work.sequence.frames[:3]
    ]

    used.leave(forget=True)
    again = use()
    again.open(folder)
    again.frames.read_masks(tmp_path / "mine")
    again.wait_for_job()
    for index, mask in enumerate(drawn):
        height, width = mask.shape
        np.testing.assert_array_equal(again.mask(index)[:height, :width], mask)
    assert again.masks.origin(4) is MaskOrigin.NONE


def test_a_frame_found_to_hold_no_polyp_is_saved_as_an_empty_mask(use, folder, tmp_path):
    used = use()
    used.open(folder)
    used.prelabel_all()
    used.layer.fill((0, 0, 0), 3)
    used.layer.data_setitem(tuple(np.nonzero(np.asarray(used.layer.data[:1]))), 0)
    assert not used.mask(0).any()
    save_to(used, tmp_path / "masks")
    saved = read_mask_file(tmp_path / "masks" / f"{used.work.sequence.frames[0].name}.png")
    assert not saved.any()


def test_a_mask_of_the_wrong_size_is_refused_by_name(use, folder, errors, tmp_path):
    used = use()
    used.open(folder)
    (tmp_path / "wrong").mkdir()
    write_mask_file(tmp_path / "wrong" / "sample_02.png", np.ones((10, 10), np.uint8))
    used.frames.read_masks(tmp_path / "wrong")
    used.wait_for_job()
    assert any("sample_02" in message and "10 x 10" in message for message in errors())
    assert not used.mask(1).any()


def box(frame, top):
    mask = np.zeros((frame.height, frame.width), np.uint8)
    mask[top : top + 40, 30:90] = 1
    return mask


@pytest.fixture
def four_kinds(use, folder):
    """A session, opened again, with masks by hand, propagated, from a file, accepted; and a fifth.

    No frame has steps in napari's history. Returns the dock in use and the masks.
    """
    used = use()
    used.open(folder)
    session, frames = used.work.session, used.work.sequence.frames
    origins = MaskOrigin.HAND, MaskOrigin.PROPAGATED, MaskOrigin.FILE, MaskOrigin.HAND
    for index, origin in enumerate((*origins, MaskOrigin.MODEL)):
        session.put_mask(index, box(frames[index], 20 + 10 * index), origin)
    session.accept([3])
    used.leave()
    again = use()
    again.open(folder)
    masks = [again.mask(index) for index in range(5)]
    assert all(mask.any() for mask in masks)
    return again, masks


def test_masks_that_the_user_keeps_are_not_replaced_by_files(four_kinds, exact_masks):
    used, masks = four_kinds
    asked = used.answer("Keep")
    used.frames.read_masks(exact_masks)
    used.wait_for_job()
    assert "4 of 5 frames" in asked[0]
    for index in range(4):
        np.testing.assert_array_equal(used.mask(index), masks[index])
    assert used.states[3] is ReviewState.ACCEPTED
    assert used.masks.origin(4) is MaskOrigin.FILE
    assert used.bench.message == "Read 1 masks. 4 frames kept theirs."


def test_masks_replaced_by_files_come_back_with_either_undo(four_kinds, exact_masks):
    used, masks = four_kinds
    origins = [used.masks.origin(index) for index in range(5)]
    used.answer("Replace")
    used.frames.read_masks(exact_masks)
    used.wait_for_job()
    assert all((used.mask(index) != masks[index]).any() for index in range(5))
    assert used.states[3] is not ReviewState.ACCEPTED
    # U takes back all that the question was about.
    used.press(Qt.Key.Key_U)
    for index in range(4):
        np.testing.assert_array_equal(used.mask(index), masks[index])
        assert used.masks.origin(index) is origins[index]
    assert used.states[3] is ReviewState.ACCEPTED
    used.press(Qt.Key.Key_U, Qt.KeyboardModifier.ShiftModifier)
    # Ctrl+Z does, on each frame, also on the one that was on show.
    for index in range(5):
        used.go_to(index)
        assert (used.mask(index) != masks[index]).any()
        used.press(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
        np.testing.assert_array_equal(used.mask(index), masks[index])
        assert used.masks.origin(index) is origins[index]
    assert used.states[3] is ReviewState.ACCEPTED


def known(used):
    """What is known of the frames but for the time that they were looked at."""
    return [
        (one.state, one.origin, one.annotator, one.changed, one.digest)
        for one in used.work.session.statuses
    ]


def test_masks_that_are_there_already_stay_as_they_were_decided_on(four_kinds, tmp_path):
    used, _ = four_kinds
    save_to(used, tmp_path / "masks")
    before, used.work.session.annotator = known(used), "Ben"
    used.answer("Replace")
    used.frames.read_masks(tmp_path / "masks")
    used.wait_for_job()
    assert known(used)[:4] == before[:4]
    assert used.bench.message == "Read 1 masks. 4 were there already."


def test_a_folder_without_masks_of_these_frames_is_refused(use, folder, errors, tmp_path):
    used = use()
    used.open(folder)
    used.frames.read_masks(tmp_path)
    used.wait_for_job()
    assert any("sample_01.png" in message for message in errors())


@pytest.mark.parametrize("copied", [False, True], ids=["themselves", "copies"])
def test_pictures_of_the_frames_are_never_taken_for_masks(
    use, folder, exact_masks, errors, tmp_path, copied
):
    used = use()
    used.open(folder)
    used.frames.read_masks(folder)
    used.wait_for_job()
    assert any("sample_01.png" in message for message in errors())
    assert all(used.masks.origin(index) is MaskOrigin.NONE for index in range(5))
    # The masks among them are what was meant.
    chosen = shutil.copytree(folder, tmp_path / "copy") if copied else folder
    shutil.copytree(exact_masks, chosen / "masks")
    (chosen / "masks" / "sample_02.png").unlink()
    used.frames.read_masks(chosen)
    used.wait_for_job()
    for index, frame in enumerate(used.work.sequence.frames):
        exact = read_mask_file(exact_masks / f"{frame.name}.png")
        shown = used.mask(index)[: frame.height, : frame.width]
        np.testing.assert_array_equal(shown, 0 if index == 1 else exact)
    assert used.bench.message == "Read 4 masks."


def test_a_cancelled_opening_of_masks_replaces_none_that_the_user_keeps(
    four_kinds, exact_masks, monkeypatch, qtbot
):
    used, masks = four_kinds
    go_on, read = threading.Event(), []

    def stop_at_the_last(file):
        read.append(file)
        assert len(read) < 5 or go_on.wait(20)
        return read_mask_file(file)

    monkeypatch.setattr("napari_microaunet.widgets.mask_files.read_mask_file", stop_at_the_last)
    used.answer("Replace")
    used.frames.read_masks(exact_masks)
    qtbot.waitUntil(lambda: len(read) == 5 and used.bench.job.done == 4, timeout=20_000)
    used.bench.cancel()
    go_on.set()
    used.wait_for_job()
    for index in range(4):
        np.testing.assert_array_equal(used.mask(index), masks[index])
    assert used.states[3] is ReviewState.ACCEPTED


def test_masks_for_a_session_that_cannot_be_opened_are_one_sentence(
    use, errors, tmp_path, qtbot, monkeypatch
):
    def refuse(*_arguments, **_options):
        raise InputError("The session cannot be opened.")

    used = use()
    image = used.viewer.add_image(np.zeros((60, 80), np.uint8), name="mine")
    used.bench.choose(image)
    write_mask_file(
        tmp_path / f"{used.work.sequence.frames[0].name}.png", np.ones((60, 80), np.uint8)
    )
    monkeypatch.setattr("napari_microaunet.widgets.work.Session", refuse)
    with qtbot.captureExceptions() as raised:
        used.frames.read_masks(tmp_path)
        used.wait_for_job()
    assert not raised
    assert errors() == ["The session cannot be opened."]


def test_saving_where_nothing_can_be_written_says_so_and_loses_nothing(
    use, folder, errors, tmp_path
):
    used = use()
    used.open(folder)
    used.prelabel_all()
    before = used.mask(0)
    (tmp_path / "file").write_text("in the way")
    save_to(used, tmp_path / "file" / "masks")
    assert any("cannot be written" in message for message in errors())
    np.testing.assert_array_equal(used.mask(0), before)


@pytest.fixture
def chosen(monkeypatch):
    """What the user is offered as a folder, and the one that is then chosen."""
    offered = []

    def choose(folder):
        def ask(_parent, _title, start):
            offered.append(start)
            return str(folder)

        monkeypatch.setattr(
            "napari_microaunet.widgets.frames_section.QFileDialog.getExistingDirectory", ask
        )
        return offered

    return choose


@pytest.mark.parametrize("linked", [False, True], ids=["itself", "by a link"])
def test_masks_are_never_saved_over_the_frames(
    use, folder, errors, chosen, tmp_path, monkeypatch, linked
):
    # Not even by somebody who says yes to everything.
    monkeypatch.setattr(QMessageBox, "question", lambda *_: QMessageBox.StandardButton.Yes)
    picture = tmp_path / "data" / "a.png"
    picture.parent.mkdir()
    shutil.copy(next(folder.glob("sample_01.*")), picture)
    target = tmp_path / "data"
    if linked:
        target = tmp_path / "linked"
        target.mkdir()
        (target / "a.png").symlink_to(picture)
    before = picture.read_bytes()
    used = use()
    used.open(picture)
    used.prelabel_all()
    offered = chosen(target)
    used.frames.save_masks_button.click()
    used.wait_for_job()
    assert picture.read_bytes() == before
    assert len(errors()) == 1
    assert str(target / "a.png") in errors()[0]
    assert used.work.mask_folder is None
    # What was offered is of use.
    assert offered == [str(tmp_path / "data" / "masks")]
    chosen(offered[0])
    used.frames.save_masks_button.click()
    used.wait_for_job()
    assert read_mask_file(tmp_path / "data" / "masks" / "a.png").any()
    assert used.work.mask_folder == tmp_path / "data" / "masks"


def test_masks_are_not_saved_where_they_would_be_taken_for_frames(use, folder, errors, chosen):
    for file in folder.glob("*.png"):
        file.unlink()  # masks beside those that are left have names of their own
    used = use()
    used.open(folder)
    used.prelabel_all()
    before = sorted(folder.rglob("*"))
    for number, target in enumerate((folder, folder / "mine", folder.parent), 1):
        chosen(target)
        used.frames.save_masks_button.click()
        used.wait_for_job()
        assert len(errors()) == number
        assert f"{target} lies among the frames" in errors()[-1]
    assert sorted(folder.rglob("*")) == before
    assert not list(folder.parent.glob("*.png"))
    # These are known for what they are when the frames are opened again.
    chosen(folder / "masks")
    used.frames.save_masks_button.click()
    used.wait_for_job()
    again = open_frames(folder)
    assert [frame.name for frame in again.frames] == [f.name for f in used.work.sequence.frames]
    assert again.read_mask(0).any()


def test_masks_of_an_array_are_saved_wherever_one_likes(use, tmp_path, errors, monkeypatch):
    monkeypatch.chdir(tmp_path)
    used = use()
    image = used.viewer.add_image(np.full((60, 80), 200, np.uint8), name="mine")
    used.bench.choose(image)
    used.prelabel_all()
    save_to(used, tmp_path)
    assert not errors()
    assert read_mask_file(tmp_path / f"{used.work.sequence.frames[0].name}.png").any()


def test_masks_that_were_opened_are_not_saved_over_without_a_question(
    use, folder, exact_masks, chosen, tmp_path
):
    truth = tmp_path / "truth"
    shutil.copytree(exact_masks, truth)
    before = {file: file.read_bytes() for file in truth.iterdir()}
    used = use()
    used.open(folder)
    used.frames.read_masks(truth)
    used.wait_for_job()
    chosen(truth)
    asked = used.answer("No")
    used.frames.save_masks()
    used.wait_for_job()
    assert str(truth) in asked[0]
    assert {file: file.read_bytes() for file in truth.iterdir()} == before
    # Where they were saved, they are saved again.
    chosen(tmp_path / "mine")
    used.frames.save_masks()
    used.wait_for_job()
    chosen(truth)
    used.masks.edit(0, np.zeros_like(used.masks.chunks.mask(0)), "test")
    used.frames.save_masks()
    used.wait_for_job()
    name = used.work.sequence.frames[0].name
    assert not read_mask_file(tmp_path / "mine" / f"{name}.png").any()
    assert {file: file.read_bytes() for file in truth.iterdir()} == before


def test_a_path_without_frames_is_one_sentence(use, errors, tmp_path, qtbot):
    used = use()
    used.bench.open(tmp_path)
    used.wait_for_job()
    assert len(errors()) == 1
    assert str(tmp_path) in errors()[0]
    assert used.work is None


def test_frames_dropped_on_the_window_bring_their_masks(use, folder, exact_masks, qtbot):
    shutil.copytree(exact_masks, folder.with_name("masks"))
    used = use()
    used.viewer.open(str(folder), plugin="napari-microaunet")
    qtbot.waitUntil(lambda: used.work is not None and used.masks is not None)
    used.wait_for_job()
    labels = [layer for layer in used.viewer.layers if isinstance(layer, Labels)]
    assert labels == [used.layer]
    assert used.viewer.layers.selection.active is used.layer
    assert used.masks.origin(0) is MaskOrigin.FILE
    used.layer.paint((0, 10, 10), 9)
    assert used.masks.origin(0) is MaskOrigin.HAND


def test_a_dock_that_is_closed_and_opened_again_finds_the_masks(use, folder):
    used = use()
    used.open(folder)
    used.prelabel_all()
    masks = [used.mask(index) for index in range(5)]
    used.viewer.window.remove_dock_widget(used.dock)
    again = used.reopen()
    again.qtbot.waitUntil(lambda: again.work is not None and again.masks is not None)
    again.wait_for_job()
    assert len(used.viewer.layers) == 2
    for index, mask in enumerate(masks):
        np.testing.assert_array_equal(again.mask(index), mask)


@pytest.mark.parametrize(
    ("shape", "rgb"),
    [((3, 60, 80, 3), True), ((60, 80, 3), True), ((3, 60, 80), False), ((60, 80), False)],
)
def test_any_picture_can_be_labelled(use, tmp_path, shape, rgb):
    pixels = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
    used = use()
    scale = (1, 0.5, 0.5)[-2 - (shape[0] == 3) :]
    image = used.viewer.add_image(pixels, rgb=rgb, name="mine/yours", scale=scale)
    used.bench.choose(image)
    used.prelabel_all()
    assert used.layer.data.shape == (shape[:-1] if rgb else shape)
    assert np.asarray(used.layer.data).any()
    np.testing.assert_array_equal(used.layer.scale, image.scale)
    used.layer.undo()
    assert not used.masks.chunks.mask(used.bench.shown).any()
    used.layer.redo()
    save_to(used, tmp_path / "masks")
    assert len(list((tmp_path / "masks").iterdir())) == len(used.work.sequence)


def test_a_layer_with_more_axes_is_refused(use, errors):
    used = use()
    image = used.viewer.add_image(np.zeros((2, 3, 20, 20)), name="stack of stacks")
    used.bench.choose(image)
    assert len(errors()) == 1
    assert used.work is None


def test_sequences_keep_their_masks_side_by_side(use, folder, tmp_path):
    used = use()
    used.open(folder)
    used.prelabel_all()
    first, mask = used.work, used.mask(0)
    tifffile.imwrite(tmp_path / "other.tif", np.full((4, 50, 60, 3), 90, np.uint8))
    used.open(tmp_path / "other.tif")
    assert used.work is not first
    assert used.layer.data.shape == (4, 50, 60)
    used.frames._choose(used.frames.layers.findText(first.image.name))
    assert used.work is first
    np.testing.assert_array_equal(used.mask(0), mask)


def test_two_viewers_know_nothing_of_each_other(use, folder):
    one, other = use(), use()
    one.open(folder)
    one.prelabel_all()
    assert other.work is None
    other.open(sample_data_folder() / "clip.mp4")
    assert len(one.work.sequence) == 5
    other.viewer.dims.set_current_step(0, 40)
    assert one.bench.shown == 0
    assert not other.mask(40).any()


def test_a_frame_fills_the_view_until_the_user_chooses_another(use, folder):
    used = use()
    used.open(folder)
    frames = used.work.sequence.frames
    camera = used.viewer.camera
    zooms = []
    for index in (0, 3):
        used.go_to(index)
        assert camera.center[1:] == pytest.approx(
            ((frames[index].height - 1) / 2, (frames[index].width - 1) / 2)
        )
        zooms.append(camera.zoom)
    assert zooms[1] > 1.3 * zooms[0]
    camera.zoom = 7
    used.go_to(0)
    assert camera.zoom == 7


def test_masks_that_another_plugin_puts_into_the_layer_are_taken_over(use, folder, qtbot):
    used = use()
    used.open(folder)
    used.prelabel_all()
    drawn = np.zeros(used.layer.data.shape, np.uint8)
    drawn[1, 40:60, 50:90] = 2
    layer = used.layer
    prelabelled = [used.mask(index).copy() for index in range(5)]
    layer.data = drawn
    qtbot.waitUntil(lambda: used.masks is not None and used.bench.job is None, timeout=60_000)
    assert used.layer is layer
    np.testing.assert_array_equal(used.mask(1), drawn[1])
    assert used.masks.origin(1) is MaskOrigin.FILE
    assert used.masks.origin(0) is MaskOrigin.NONE
    used.press(Qt.Key.Key_U)  # nothing is lost by it
    for index, mask in enumerate(prelabelled):
        np.testing.assert_array_equal(used.mask(index), mask)
    used.press(Qt.Key.Key_U, Qt.KeyboardModifier.ShiftModifier)
    assert used.masks.origin(0) is MaskOrigin.NONE
    used.go_to(0)
    used.prelabel.run_shown()
    used.wait_for_job()
    assert used.mask(0).any()


def test_masks_that_are_put_into_the_layer_unchanged_stay_as_they_were_decided_on(
    four_kinds, qtbot
):
    used, masks = four_kinds
    before, used.work.session.annotator = known(used), "Ben"
    used.layer.data = np.stack([*masks[:4], np.zeros_like(masks[4])])
    qtbot.waitUntil(lambda: used.masks is not None and used.bench.job is None, timeout=60_000)
    assert known(used)[:4] == before[:4]
    assert used.masks.origin(4) is MaskOrigin.NONE


@pytest.fixture
def slow_session(monkeypatch):
    """The first session that is opened takes as long as the test wants: begun, then let go on."""
    begun, go_on = threading.Event(), threading.Event()

    def slowly(*arguments, **options):
        if not begun.is_set():
            begun.set()
            go_on.wait(20)
        return Session(*arguments, **options)

    monkeypatch.setattr("napari_microaunet.widgets.work.Session", slowly)
    return begun, go_on


@pytest.fixture
def two_cases(folder, exact_masks, tmp_path):
    """Two folders of frames with masks beside them."""
    shutil.copytree(exact_masks, folder.with_name("masks"))
    other = tmp_path / "other case"
    shutil.copytree(folder.parent, other)
    (other / "images" / "sample_01.jpg").unlink()
    return folder, other / "images"


def drop(used, folder):
    """Drop a folder on the window, and wait until its frames are worked on."""
    before = used.work
    used.viewer.open(str(folder), plugin="napari-microaunet")
    used.qtbot.waitUntil(lambda: used.work is not before, timeout=20_000)


def wait_for_masks(used):
    used.qtbot.waitUntil(lambda: used.work is not None and bool(used.masks), timeout=20_000)
    used.wait_for_job()


def choose_again(used, work):
    """Choose frames in the list of layers."""
    used.frames._choose(used.frames.layers.findData(work.image))


@pytest.mark.parametrize("by", ["cancel", "another folder"])
def test_masks_whose_takeover_was_cut_short_are_taken_over_later(
    use, two_cases, errors, slow_session, by
):
    begun, go_on = slow_session
    used = use()
    drop(used, two_cases[0])
    first = used.work
    (layer,) = used.bench.mask_layers(first)
    used.qtbot.waitUntil(begun.is_set, timeout=20_000)
    if by == "cancel":
        used.bench.cancel()
        go_on.set()
    else:
        drop(used, two_cases[1])
        go_on.set()
        wait_for_masks(used)
        assert used.layer is not layer
    used.wait_for_job()
    # What would be painted now, nobody would keep.
    assert first.masks is None
    assert not layer.editable
    assert any("cannot be edited" in message for message in errors())
    choose_again(used, first)
    wait_for_masks(used)
    assert used.layer is layer
    assert used.masks.origin(0) is MaskOrigin.FILE
    assert layer.editable
    layer.paint((0, 10, 10), 9)
    assert used.masks.origin(0) is MaskOrigin.HAND


@pytest.mark.parametrize("by", ["cancel", "another folder"])
def test_a_session_that_was_not_waited_for_is_gone_on_with(use, two_cases, slow_session, by):
    begun, go_on = slow_session
    used = use()
    used.bench.open(two_cases[0])
    used.qtbot.waitUntil(begun.is_set, timeout=60_000)
    first = used.work
    if by == "cancel":
        used.bench.cancel()
        go_on.set()
    else:
        drop(used, two_cases[1])
        go_on.set()
        wait_for_masks(used)
        choose_again(used, first)
    wait_for_masks(used)
    assert used.work is first
    assert used.masks.origin(4) is MaskOrigin.FILE
    assert used.layer.editable


def test_masks_of_one_folder_are_never_taken_for_those_of_another(use, two_cases):
    used = use()
    go_on = threading.Event()
    used.bench.run(Job("Something long", lambda _: [go_on.wait(20)]))
    drop(used, two_cases[0])
    first = used.work
    drop(used, two_cases[1])
    used.qtbot.wait(300)
    go_on.set()
    wait_for_masks(used)
    assert used.layer.metadata[FRAME_SEQUENCE] is used.work.sequence
    choose_again(used, first)
    wait_for_masks(used)
    assert used.layer.metadata[FRAME_SEQUENCE] is first.sequence


def test_live_mode_waits_for_masks_that_are_being_taken_over(use, two_cases, slow_session):
    begun, go_on = slow_session
    used = use()
    used.prelabel.live.value = True
    drop(used, two_cases[0])
    used.qtbot.waitUntil(begun.is_set, timeout=20_000)
    used.viewer.dims.set_current_step(0, 2)
    assert used.work.masks is None
    go_on.set()
    wait_for_masks(used)
    assert used.bench.mask_layers(used.work) == [used.layer]
    assert used.masks.origin(2) is MaskOrigin.FILE


def test_labels_that_masks_cannot_hold_are_not_taken_over(use, folder, errors):
    used = use()
    used.open(folder)
    used.prelabel_all()
    masks, layer = [used.mask(index) for index in range(5)], used.layer
    drawn = np.zeros(layer.data.shape, np.uint16)
    drawn[1, 40:60, 50:90] = 256
    layer.data = drawn
    used.wait_for_job()
    assert any("labels outside 0 to 255 on frame sample_02" in message for message in errors())
    used.viewer.layers.remove(layer)
    choose_again(used, used.work)
    wait_for_masks(used)
    for index, mask in enumerate(masks):
        np.testing.assert_array_equal(used.mask(index), mask)


def test_a_dropped_folder_opens_where_it_was_left(use, two_cases):
    used = use()
    used.open(two_cases[0])
    used.go_to(3)
    used.viewer.camera.zoom *= 2
    zoom = used.viewer.camera.zoom
    used.qtbot.wait(1000)
    used.leave()
    for masks in (True, False):
        again = use()
        if not masks:
            shutil.rmtree(two_cases[0].with_name("masks"))
        drop(again, two_cases[0])
        wait_for_masks(again)
        assert again.bench.shown == 3
        assert again.viewer.camera.zoom == pytest.approx(zoom)
        again.leave()


def test_a_closed_dock_opens_nothing_any_more(use, folder, two_cases):
    used = use()
    used.open(two_cases[0])
    closed = used.bench
    used.viewer.window.remove_dock_widget(used.dock)
    again = used.reopen()
    wait_for_masks(again)
    again.open(two_cases[1])
    assert closed.work is None
    assert not again.work.session.read_only
    assert again.bench.mask_layers(again.work) == [again.layer]


def test_a_closed_dock_leaves_no_outlines_behind(use, folder):
    used = use()
    used.open(folder)
    used.prelabel.style.value = OverlayStyle.BOTH
    used.qtbot.waitUntil(lambda: len(used.viewer.layers) == 3)
    layers = [used.work.image, used.layer]
    used.viewer.window.remove_dock_widget(used.dock)
    assert list(used.viewer.layers) == layers


def test_painted_masks_outlive_a_cancelled_takeover(use, folder, qtbot):
    used = use()
    used.open(folder)
    used.prelabel_all()
    masks = [used.mask(index) for index in range(5)]
    used.viewer.window.remove_dock_widget(used.dock)
    again = used.reopen()
    qtbot.waitUntil(lambda: again.bench.job is not None)
    again.bench.cancel()
    again.wait_for_job()
    layer = next(layer for layer in used.viewer.layers if isinstance(layer, Labels))
    for index, mask in enumerate(masks):
        np.testing.assert_array_equal(np.asarray(layer.data[index]), mask)


def test_a_session_opens_where_it_was_left(use, folder, qtbot):
    used = use()
    used.open(folder)
    used.prelabel_all()
    used.go_to(3)
    used.prelabel.threshold.value = 0.61
    used.settle()
    used.layer.mode, used.layer.brush_size = "erase", 23
    used.viewer.camera.zoom *= 2
    zoom, mask = used.viewer.camera.zoom, used.mask(3)
    used.layer.paint((3, 100, 120), 9)
    painted = used.mask(3)
    assert (painted != mask).any()
    qtbot.wait(1000)
    used.leave()

    again = use()
    again.open(folder)
    again.settle()
    assert not again.work.session.read_only
    assert again.bench.shown == 3
    np.testing.assert_array_equal(again.mask(3), painted)
    assert again.masks.origin(3) is MaskOrigin.HAND
    assert again.masks.origin(1) is MaskOrigin.MODEL
    assert again.viewer.camera.zoom == pytest.approx(zoom)
    assert (again.layer.mode, again.layer.brush_size) == ("erase", 23)
    assert again.prelabel.threshold.value == pytest.approx(0.61)
    # The settings still move what the model made, and leave alone what was drawn.
    before = again.mask(1)
    again.prelabel.threshold.value = 0.75
    again.settle()
    np.testing.assert_array_equal(again.mask(3), painted)
    again.go_to(1)
    assert (again.mask(1) != before).any()


def test_a_second_window_looks_on(use, folder, errors):
    used = use()
    used.open(folder)
    used.prelabel_all()
    second = use()
    second.open(folder)
    assert second.work.session.read_only
    assert any("is open" in message for message in errors())
    assert "is open" in second.frames.saving.text()
    assert not second.layer.editable
    np.testing.assert_array_equal(second.mask(0), used.mask(0))
    # What the first one does comes on show in the second, a moment later.
    used.layer.data_setitem((np.array([0]), np.array([3]), np.array([4])), 7)
    used.review.actions["accept"]()
    assert used.work.session.flush()
    accepted = used.states[0]
    used.qtbot.waitUntil(lambda: second.states[0] is accepted, timeout=20_000)
    assert accepted is ReviewState.ACCEPTED
    assert second.mask(0)[3, 4] == 7
    shown = second.layer._slice.image.raw
    assert np.asarray(shown)[3, 4] == 7


def test_a_window_that_looked_on_goes_on_with_what_was_closed_elsewhere(
    use, folder, errors, monkeypatch
):
    other = Session(open_frames(folder), annotator="Ada")
    other.put_mask(0, np.ones(other.chunks.mask(0).shape, np.uint8), MaskOrigin.HAND)
    told = []
    monkeypatch.setattr(looking_on, "show_info", told.append)
    used = use()
    used.open(folder)
    assert used.work.session.read_only

    def open_again():
        before = used.masks
        used.bench.open(folder)
        used.qtbot.waitUntil(lambda: used.masks not in (None, before), timeout=60_000)
        used.wait_for_job()

    open_again()
    assert used.work.session.read_only
    assert told == []
    other.close()
    used.qtbot.waitUntil(lambda: len(told) == 1, timeout=20_000)
    assert "closed elsewhere: open its frames again" in told[0]
    open_again()
    assert not used.work.session.read_only
    assert used.frames.saving.text().startswith("Saved in")
    assert used.layer.editable
    assert used.mask(0).all()
    assert len(used.viewer.layers) == 2
    used.review.actions["accept"]()
    assert used.states[0] is ReviewState.ACCEPTED


@pytest.fixture
def full_disk(monkeypatch):
    """A disk that has no room for masks until told otherwise."""

    def refuse(_files, _slot, _chunk):
        raise OSError(errno.ENOSPC, "No space left on device")

    def fill():
        monkeypatch.setattr(ChunkFiles, "save", refuse)

    yield fill
    monkeypatch.undo()


@pytest.mark.parametrize("gone", ["masks", "frames", "dock"])
def test_work_that_the_disk_refuses_is_gone_on_with(
    use, folder, errors, full_disk, monkeypatch, gone
):
    used = use()
    used.open(folder)
    drawn = [box(frame, 50) for frame in used.work.sequence.frames]
    full_disk()
    used.masks.edit(1, drawn[1], "test")
    session = used.work.session
    if gone == "dock":
        used.leave()
    else:
        used.viewer.layers.remove(used.layer if gone == "masks" else used.work.image)
    assert "kept in memory" in errors()[-1]
    assert not session.read_only
    # Opened again while the disk is still full, with all that was done.
    if gone == "masks":
        used.bench.start_masks()
    elif gone == "frames":
        used.viewer.layers.clear()
        used.open(folder)
    else:
        used.viewer.layers.clear()
        used = use()
        used.open(folder)
    assert used.work.session is session
    np.testing.assert_array_equal(used.masks.chunks.mask(1), drawn[1])
    used.masks.edit(2, drawn[2], "test")
    assert not session.flush()
    used.qtbot.waitUntil(lambda: "full" in errors()[-1] or "room" in errors()[-1])
    monkeypatch.undo()
    used.qtbot.waitUntil(lambda: session.problem is None, timeout=20_000)
    used.go_to(2)
    used.qtbot.waitUntil(lambda: used.frames.saving.text().startswith("Saved in"))
    used.leave()
    assert session.read_only
    with Session(session.sequence, session.folder) as again:
        assert not again.read_only
        for index in (1, 2):
            np.testing.assert_array_equal(again.chunks.mask(index), drawn[index])


def test_a_session_that_was_left_unsaved_is_free_once_it_is_saved(
    use, folder, errors, full_disk, monkeypatch
):
    used = use()
    used.open(folder)
    drawn = box(used.work.sequence.frames[1], 50)
    full_disk()
    used.masks.edit(1, drawn, "test")
    session = used.work.session
    used.leave()
    assert len(errors()) >= 1
    monkeypatch.undo()
    used.qtbot.waitUntil(lambda: session.read_only, timeout=20_000)
    with Session(session.sequence, session.folder) as again:
        assert not again.read_only
        np.testing.assert_array_equal(again.chunks.mask(1), drawn)


def test_masks_taken_away_and_back_tell_of_an_error_once(use, folder, errors, full_disk):
    used = use()
    used.open(folder)
    for _ in range(2):
        used.viewer.layers.remove(used.layer)
        used.bench.start_masks()
    before = len(errors())
    full_disk()
    used.masks.edit(1, box(used.work.sequence.frames[1], 50), "test")
    used.qtbot.waitUntil(lambda: len(errors()) > before, timeout=20_000)
    used.qtbot.wait(100)
    assert len(errors()) == before + 1


def test_the_window_waits_for_a_session_that_is_being_opened(use, folder, qtbot, monkeypatch):
    opened, begun = [], threading.Event()

    def slowly(*arguments, **options):
        opened.append(arguments)
        begun.set()
        time.sleep(0.5)
        return Session(*arguments, **options)

    monkeypatch.setattr("napari_microaunet.widgets.work.Session", slowly)
    used = use()
    used.bench.open(folder)
    qtbot.waitUntil(begun.is_set, timeout=60_000)
    # Pre-labels what is on show at once, and so wants the session.
    used.prelabel.live.value = True
    assert used.masks is not None
    used.wait_for_job()
    assert len(opened) == 1
    assert not used.work.session.read_only


def test_a_session_whose_opening_was_cancelled_before_it_began_stays_closed(
    use, folder, qtbot, monkeypatch
):
    start, cancelled = Job.start, []

    def start_too_late(job):
        if "session" in job.title:
            job.cancel()
            cancelled.append(job.title)
        start(job)

    monkeypatch.setattr(Job, "start", start_too_late)
    used = use()
    used.bench.open(folder)
    qtbot.waitUntil(lambda: bool(cancelled) and used.bench.job is None, timeout=60_000)
    assert used.work.session is None


def test_each_sequence_keeps_its_own_settings_and_model(use, folder, tmp_path, qtbot):
    tifffile.imwrite(tmp_path / "other.tif", np.full((3, 50, 60, 3), 128, np.uint8))
    used = use()
    used.open(folder)
    used.prelabel.threshold.value = 0.5
    first, bright = used.work, used.prelabel.model.value
    used.open(tmp_path / "other.tif")
    second = used.work
    other = next(model for model in used.prelabel.model.choices if model.name != bright.name)
    used.prelabel.model.value = other
    used.prelabel.threshold.value = 0.3
    qtbot.wait(600)
    used.bench.choose(first.image)
    assert used.prelabel.threshold.value == pytest.approx(0.5)
    assert used.prelabel.model.value == bright
    used.prelabel_all()
    for index, frame in enumerate(first.sequence.frames):
        wanted = mask_from(first.prelabels.map(index), used.bench.settings)
        assert wanted.any()
        np.testing.assert_array_equal(used.mask(index)[: frame.height, : frame.width], wanted)
    assert first.session.setting("model") == bright.name
    assert second.session.setting("model") == other.name
    assert second.session.setting("masks")["threshold"] == pytest.approx(0.3)
    used.bench.choose(second.image)
    assert used.prelabel.threshold.value == pytest.approx(0.3)
    assert used.prelabel.model.value == other
    # Sliders move the masks of the sequence that is on show, and no others.
    used.prelabel.threshold.value = 0.9
    used.settle()
    assert first.session.setting("masks")["threshold"] == pytest.approx(0.5)


def test_a_cancelled_job_hands_nothing_over_any_more(use, folder, exact_masks, qtbot):
    used = use()
    used.open(folder)
    files = find_masks(used.work.sequence, exact_masks, lambda: False)
    masks_from_folder(used.bench, files, {})
    job, session = used.bench.job, used.work.session
    # Masks are on their way to the window while it takes the layer away.
    time.sleep(1)
    used.viewer.layers.remove(used.layer)
    with qtbot.captureExceptions() as raised:
        qtbot.waitUntil(lambda: used.bench.job is None, timeout=20_000)
    assert not raised
    assert job.done == 0
    assert session.read_only


def test_frames_that_are_removed_leave_the_memory(use, folder):
    """Qt's connections hold what they were made with, and no garbage collector sees them."""
    used = use(show=True)
    used.open(folder)
    used.prelabel_all()
    used.edit.contour.step(8)
    for button, mode in (
        (used.edit.boundary_button, used.edit.boundary),
        (used.edit.clicks_button, used.edit.clicks),
        (used.edit.scissors_button, used.edit.scissors),
    ):
        button.click()
        used.qtbot.waitUntil(lambda mode=mode: mode.is_on, timeout=60_000)
        button.click()
    used.edit.snap_button.click()
    used.wait_for_job()
    sequence, masks = ref(used.work.sequence), ref(used.masks)
    used.viewer.layers.clear()
    used.qtbot.waitUntil(
        lambda: gc.collect() is not None and sequence() is None and masks() is None, timeout=60_000
    )
