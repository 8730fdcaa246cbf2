from __future__ import annotations

import json

import numpy as np
import pytest
from pycocotools import mask as rle
from pycocotools.coco import COCO
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QMessageBox

from napari_microaunet.curation.dataset import open_dataset
from napari_microaunet.curation.session import MaskOrigin
from napari_microaunet.exchange.formats import FORMATS

HAND = MaskOrigin.HAND


@pytest.fixture
def used(use, folder):
    """Five frames with masks, three of them accepted, one of these as negative."""
    used = use()
    used.open(folder)
    used.choose_model("bright")
    used.prelabel_all()
    for index, key in ((0, Qt.Key.Key_Q), (1, Qt.Key.Key_N), (2, Qt.Key.Key_Q)):
        used.go_to(index)
        used.press(key)
    used.settle()
    return used


def choose(used, key, include="accepted"):
    used.export.format.value = next(one for one in FORMATS if one.key == key)
    used.export.include.value = include


def test_accepted_masks_reach_coco_as_its_own_tools_read_it(used, qtbot, tmp_path):
    choose(used, "coco")
    qtbot.waitUntil(lambda: "for 3 frames" in used.export.preview.toPlainText(), timeout=30_000)
    used.export.write(tmp_path / "out")
    used.wait_for_job()
    assert "Exported 3 frames" in used.export.summary.text()
    files = sorted((tmp_path / "out").rglob("instances*.json"))
    assert len(files) == 2  # training and validation
    images = [(coco, image) for coco in map(COCO, map(str, files)) for image in coco.imgs.values()]
    assert len(images) == 3
    frames = used.work.sequence.frames
    for index in (0, 1, 2):
        height, width = frames[index].height, frames[index].width
        ((coco, image),) = (one for one in images if frames[index].name in one[1]["file_name"])
        found = np.zeros((height, width), bool)
        for annotation in coco.imgToAnns[image["id"]]:
            found |= rle.decode(coco.annToRLE(annotation)).astype(bool)
        np.testing.assert_array_equal(found, used.mask(index)[:height, :width] > 0)
    assert not used.mask(1).any()


def test_what_goes_in_can_be_chosen(used, qtbot, tmp_path):
    choose(used, "labels", "all")
    qtbot.waitUntil(lambda: "for 5 frames" in used.export.preview.toPlainText(), timeout=30_000)
    used.export.selected_only.value = True
    used.review.queue.selectAll()
    qtbot.waitUntil(lambda: "for 5 frames" in used.export.preview.toPlainText(), timeout=30_000)
    used.go_to(4)
    used.review.queue.clearSelection()
    used.review.queue.selectRow(used.review.queue.table.row_of(4))
    qtbot.waitUntil(lambda: "for 1 frame" in used.export.preview.toPlainText(), timeout=30_000)
    used.export.write(tmp_path / "out")
    used.wait_for_job()
    assert "Exported 1 frames" in used.bench.message


def test_nothing_to_export_is_said_before_the_button_is_pressed(use, qtbot, folder):
    used = use()
    used.open(folder)
    qtbot.waitUntil(lambda: "no frame to export" in used.export.remarks.text(), timeout=30_000)


def test_an_earlier_export_is_replaced_only_when_asked(used, monkeypatch, tmp_path, errors):
    choose(used, "coco")
    used.export.write(tmp_path / "out")
    used.wait_for_job()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    monkeypatch.setattr(QMessageBox, "question", lambda *_: QMessageBox.StandardButton.No)
    monkeypatch.setattr(
        "qtpy.QtWidgets.QFileDialog.getSaveFileName", lambda *_, **__: (str(tmp_path / "out"), "")
    )
    used.press(Qt.Key.Key_X, Qt.KeyboardModifier.AltModifier)
    used.wait_for_job()
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    used.export.write(tmp_path / "other")
    used.wait_for_job()
    assert any("holds something else" in error for error in errors())
    assert (tmp_path / "other" / "thesis.txt").read_text() == "mine"


def test_labels_come_back_and_accepted_masks_stay_unless_the_user_says_so(
    used, monkeypatch, tmp_path
):
    choose(used, "labels", "all")
    used.export.write(tmp_path / "out")
    used.wait_for_job()
    exported = [used.mask(index) for index in range(5)]
    used.go_to(3)
    used.layer.data_setitem((np.array([3]), np.array([5]), np.array([5])), 7)
    used.go_to(0)
    used.press(Qt.Key.Key_Delete)
    used.settle()
    monkeypatch.setattr(
        "napari_microaunet.widgets.export_section.may_replace",
        lambda _parent, masks, _indices: {3: masks.chunks.digest(3)},
    )
    used.export.read(tmp_path / "out")
    used.wait_for_job()
    np.testing.assert_array_equal(used.mask(3), exported[3])
    assert used.masks.origin(3) is MaskOrigin.FILE


def test_masks_replaced_by_labels_come_back_with_ctrl_z(used, tmp_path):
    choose(used, "labels", "all")
    used.export.write(tmp_path / "out")
    used.wait_for_job()
    folder = used.work.sequence.path
    for index in (3, 4):
        used.work.session.put_mask(index, np.ones_like(used.masks.chunks.mask(index)), HAND)
    used.leave()
    again = used.reopen()
    again.viewer.layers.clear()
    again.open(folder)
    before = {index: again.mask(index) for index in (3, 4)}
    choose(again, "labels", "all")
    again.go_to(3)
    again.answer("Replace")
    again.export.read(tmp_path / "out")
    again.wait_for_job()
    for index, mask in before.items():
        again.go_to(index)
        assert (again.mask(index) != mask).any()
        again.press(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
        np.testing.assert_array_equal(again.mask(index), mask)
        assert again.masks.origin(index) is HAND


def known(used):
    """What anybody can see of the frames, once it has been counted."""
    session = used.work.session
    session.flush()
    return [
        (one.state, one.origin, one.annotator, one.changed, one.changed_pixels)
        for one in session.statuses
    ]


def test_masks_that_are_there_already_stay_as_they_were_decided_on(used, monkeypatch, tmp_path):
    session = used.work.session
    choose(used, "labels", "all")
    used.export.write(tmp_path / "out")
    used.wait_for_job()
    used.go_to(3)
    before = known(used)
    asked = []
    monkeypatch.setattr(QMessageBox, "exec", lambda box: asked.append(box.text()))
    session.annotator = "Ben"
    used.export.read(tmp_path / "out")
    used.wait_for_job()
    assert asked == []
    assert used.export.summary.text() == "Imported 2 masks from out. 3 were there already."
    assert known(used)[:3] == before[:3]
    assert [session.origin(index) for index in (3, 4)] == [MaskOrigin.FILE] * 2
    used.press(Qt.Key.Key_U)
    assert known(used) == before


def test_an_import_that_is_taken_back_leaves_no_trace(used, tmp_path):
    session = used.work.session
    choose(used, "labels", "all")
    used.export.write(tmp_path / "out")
    used.wait_for_job()
    used.go_to(0)
    corrected = used.masks.chunks.mask(0).copy()
    corrected[:9, :9] = 1
    used.masks.edit(0, corrected, "test")
    session.accept([0, 3])
    before = known(used)
    session.annotator = "Ben"
    used.answer("Replace")
    used.export.read(tmp_path / "out")
    used.wait_for_job()
    assert session.origin(0) is MaskOrigin.FILE
    used.go_to(4)
    used.press(Qt.Key.Key_U)
    assert known(used) == before


def test_labels_of_other_frames_change_nothing_and_say_why(used, tmp_path, errors):
    choose(used, "coco", "all")
    used.export.divide.value = False
    used.export.write(tmp_path / "out")
    used.wait_for_job()
    (file,) = (tmp_path / "out").rglob("instances*.json")
    content = json.loads(file.read_text())
    for image in content["images"]:
        image["file_name"], image["frame"] = "nobody.png", "nobody"
    file.write_text(json.dumps(content))
    before = [used.mask(index) for index in range(5)]
    used.export.read(tmp_path / "out")
    used.wait_for_job()
    assert any("nobody" in error for error in errors())
    for index, mask in enumerate(before):
        np.testing.assert_array_equal(used.mask(index), mask)


def test_accepted_frames_become_a_dataset_that_grows(used, tmp_path):
    used.export.add_to_dataset(tmp_path / "dataset")
    used.wait_for_job()
    assert "3 frames added" in used.bench.message
    dataset = open_dataset(tmp_path / "dataset")
    splits = {frame.name: frame.split for frame in dataset.frames}
    assert sum(frame.negative for frame in dataset.frames) == 1
    used.go_to(3)
    used.press(Qt.Key.Key_Q)
    used.export.add_to_dataset(tmp_path / "dataset")
    used.wait_for_job()
    assert "1 frames added" in used.bench.message
    dataset = open_dataset(tmp_path / "dataset")
    assert len(dataset.frames) == 4
    assert splits.items() <= {frame.name: frame.split for frame in dataset.frames}.items()
    index = next(i for i, frame in enumerate(dataset.frames) if not frame.negative)
    frames = [frame.name for frame in used.work.sequence.frames]
    shown = frames.index(dataset.frames[index].name.rsplit("/", 1)[-1])
    height, width = dataset.mask(index).shape
    np.testing.assert_array_equal(dataset.mask(index), used.mask(shown)[:height, :width])
