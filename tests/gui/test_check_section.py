from __future__ import annotations

import shutil
import threading
import time
from concurrent.futures import CancelledError

import numpy as np
import pytest
from PIL import Image
from qtpy.QtCore import Qt

from napari_microaunet.frames.masks import write_mask_file
from napari_microaunet.widgets.jobs import Job


@pytest.fixture
def faulty(folder, exact_masks, tmp_path):
    """Frames with masks: one is listed twice, one has a mask of another size."""
    dataset = tmp_path / "faulty"
    shutil.copytree(folder, dataset / "images")
    shutil.copytree(exact_masks, dataset / "masks")
    files = sorted((dataset / "images").iterdir())
    shutil.copy(files[3], files[3].with_name(f"twin{files[3].suffix}"))
    write_mask_file(dataset / "masks" / f"{files[1].stem}.png", np.ones((40, 50), np.uint8))
    return dataset, files


def texts(item):
    return [item.child(row).text(0) for row in range(item.childCount())]


def test_findings_are_listed_and_show_their_frames(use, faulty, qtbot, tmp_path):
    dataset, files = faulty
    used = use()
    check = used.dock.sections["Check"]
    check.check(dataset)
    used.wait_for_job()
    assert "2 errors" in check.summary.text() or "1 error" in check.summary.text()
    headings = {
        check.findings.topLevelItem(row).text(0): check.findings.topLevelItem(row)
        for row in range(check.findings.topLevelItemCount())
    }
    (size,) = (item for text, item in headings.items() if "another size" in text)
    assert files[1].stem in texts(size)[0]
    (twins,) = (item for text, item in headings.items() if "exact duplicates" in text)
    assert "twin" in texts(twins)[0]

    check.findings.setCurrentItem(size.child(0))
    qtbot.keyClick(check.findings, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: used.work is not None and used.masks is not None, timeout=60_000)
    used.wait_for_job()
    assert used.work.sequence.frames[used.bench.shown].name.endswith(files[1].stem)
    check.findings.itemActivated.emit(twins.child(0).child(0), 0)
    first = used.bench.shown
    check.findings.itemActivated.emit(twins.child(0).child(1), 0)
    shown = {used.work.sequence.frames[index].name for index in (first, used.bench.shown)}
    assert {name.rsplit("/", 1)[-1] for name in shown} == {"twin", files[3].stem}

    check.save_report(tmp_path / "report.html")
    used.wait_for_job()
    assert "another size" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_clean_dataset_has_no_errors_and_a_folder_without_images_says_why(use, tmp_path, errors):
    used = use()
    check = used.dock.sections["Check"]
    (tmp_path / "images").mkdir()
    check.check(tmp_path)
    used.wait_for_job()
    assert any("holds no images" in error for error in errors())
    assert not check.report_button.isEnabled()
    random = np.random.default_rng(0)
    (tmp_path / "masks").mkdir()
    for number in range(12):
        coarse = random.integers(60, 220, (9, 9, 3)).astype(np.uint8)
        frame = Image.fromarray(coarse).resize((160, 120), Image.Resampling.BICUBIC)
        frame.save(tmp_path / "images" / f"{number}.png")
        mask = np.zeros((120, 160), np.uint8)
        mask[40:80, 50:90] = 1
        write_mask_file(tmp_path / "masks" / f"{number}.png", mask)
    check.check(tmp_path)
    used.wait_for_job()
    assert "12 frames" in check.summary.text()
    assert "error" not in check.summary.text()


def test_a_frame_asked_for_while_something_runs_does_not_come_later(use, folder):
    used = use()
    used.open(folder)
    go_on = threading.Event()
    used.bench.run(Job("Something long", lambda _: [go_on.wait(20)]))
    used.bench.show_frame(used.work.sequence, 3)
    go_on.set()
    used.wait_for_job()
    assert used.bench.shown == 0
    # Nor does one whose folder could not be opened.
    gone, there = used.work.sequence, folder.with_name("moved")
    used.viewer.layers.clear()
    folder.rename(there)
    used.bench.show_frame(gone, 3)
    used.wait_for_job()
    there.rename(folder)
    used.open(folder)
    assert used.bench.shown == 0


def test_a_check_is_cancelled_while_the_folder_is_looked_over(use, folder, monkeypatch):
    begun = threading.Event()

    def look_over(_folder, *, cancelled):
        begun.set()
        while not cancelled():
            time.sleep(0.01)
        raise CancelledError

    monkeypatch.setattr("napari_microaunet.widgets.check_section.open_dataset", look_over)
    used = use()
    used.dock.sections["Check"].check(folder)
    used.qtbot.waitUntil(begun.is_set, timeout=20_000)
    used.bench.cancel()
    used.wait_for_job()
