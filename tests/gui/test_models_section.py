"""The library of models as a user handles it, in a real window."""

from __future__ import annotations

import shutil
from importlib.metadata import version

import numpy as np
import onnxruntime
import pytest
import torch
from platformdirs import user_cache_path
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog, QInputDialog, QMessageBox
from small_frames import write_frames

from napari_microaunet.networks.checkpoint import load_checkpoint, save_checkpoint
from napari_microaunet.networks.library import find_model, list_models, user_models
from napari_microaunet.networks.onnx_export import onnx_file
from napari_microaunet.widgets.model_comparison import comparison_verdict


@pytest.fixture
def shared(model, tmp_path):
    """A file that somebody has sent: the student's weights under a card of their own."""
    student, path = find_model("student"), tmp_path / "ward 3.safetensors"
    card = student.card.model_copy(
        update={
            "name": "Ward",
            "description": "Learned from <b>our</b> frames.",
            "threshold": 0.55,
            "least_peak": 0.0,
            "mirror_images": 3,
            "standardise": True,
            "parent": find_model("teacher").card.sha256,
            "training_data": {"ward_frames": "abcdef" * 10},
            "recipe": {"budget": {"minutes": 10.0}, "teacher": {"model": "expert"}, "seed": 4},
        }
    )
    card = save_checkpoint(path, load_checkpoint(student.path)[0], card)
    # Its ONNX graph has been made already, which takes a while.
    cache = user_cache_path("napari-microaunet", appauthor=False) / version("napari-microaunet")
    cache.mkdir(parents=True, exist_ok=True)
    shutil.copy(onnx_file(student), cache / f"{card.sha256}.onnx")
    yield path
    for file in user_models().glob("ward*"):
        file.unlink()


@pytest.fixture
def answers(monkeypatch):
    """What the user chooses in dialogs; what they were asked is kept."""

    class Answers:
        file, name, yes = "", "", True
        asked = ()

    def question(_parent, _title, text):
        Answers.asked = (*Answers.asked, text)
        button = QMessageBox.StandardButton
        return button.Yes if Answers.yes else button.No

    for dialog in ("getOpenFileName", "getSaveFileName"):
        monkeypatch.setattr(QFileDialog, dialog, lambda *_: (str(Answers.file), ""))
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(Answers.file))
    monkeypatch.setattr(QInputDialog, "getText", lambda *_: (Answers.name, bool(Answers.name)))
    monkeypatch.setattr(QMessageBox, "question", question)
    return Answers


def listed(section):
    tree = section.models
    return [tree.topLevelItem(row).text(0) for row in range(tree.topLevelItemCount())]


def add(used, answers, file, name):
    answers.file, answers.name = file, name
    section = used.dock.sections["Models"]
    section.import_button.click()
    used.wait_for_job()
    return section


def rows(table):
    """The texts of a table's cells by the title of their row."""
    cells = [
        [item.text() if (item := table.item(row, column)) else "" for column in range(4)]
        for row in range(table.rowCount())
    ]
    return {title: texts for title, *texts in cells}


def test_a_model_is_imported_seen_renamed_exported_and_deleted(
    use, shared, answers, tmp_path, errors, qtbot
):
    used, before = use(), [model.name for model in list_models()]
    section = add(used, answers, shared, "ward 3")
    assert listed(section)[:3] == ["student", "teacher", "expert"]
    assert sorted(listed(section)) == sorted([*before, "ward 3"])
    assert section.model.name == "ward 3"
    facts = {about: label.text() for about, label in section.card.facts.items()}
    assert facts["Title"] == "Ward"
    assert facts["About"] == "Learned from <b>our</b> frames."
    assert facts["Network"].endswith("256 pixels, every frame at mean 0 and standard deviation 1")
    assert facts["Marks from"] == "probability 0.55, least peak 0.00, averaged over mirror images"
    assert facts["Lineage"].startswith("ward 3 ← teacher ← weights ")
    assert facts["Data"].startswith("ward_frames (abcdef")
    assert facts["Recipe"] == "10.0 minutes, taught by expert, seed 4"
    shown = rows(section.card.figures)
    assert "Kvasir-SEG" in shown
    student = find_model("student").card.metrics
    assert shown["negatives flagged"][0] == f"{student['PolypGen negatives flagged']:.3f}"

    # A new name in one list is a new name in all of them; who uses the model goes on using it.
    used.choose_model("ward 3")
    used.prelabel.threshold.value = 0.61
    answers.name = "ward 4"
    qtbot.keyClick(section.models, Qt.Key.Key_F2)
    assert section.model.name == used.prelabel.model.value.name == "ward 4"
    assert used.prelabel.threshold.value == pytest.approx(0.61)
    assert "ward 3" not in [model.name for model in used.prelabel.model.choices]

    answers.file = tmp_path / "copy.safetensors"
    section.export_button.click()
    used.wait_for_job()
    assert answers.file.read_bytes() == shared.read_bytes()
    assert str(answers.file) in section.told.text()
    answers.file = tmp_path / "graph"  # the ending is added
    section.onnx_button.click()
    used.wait_for_job()
    frames = np.random.default_rng(0).normal(size=(1, 3, 64, 64)).astype(np.float32)
    graph = onnxruntime.InferenceSession(
        tmp_path / "graph.onnx", providers=["CPUExecutionProvider"]
    )
    (found,) = graph.run(None, {"image": frames})
    with torch.inference_mode():
        expected = load_checkpoint(shared)[0](torch.from_numpy(frames)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)

    answers.yes = False
    qtbot.keyClick(section.models, Qt.Key.Key_Delete)
    assert "ward 4" in listed(section)
    answers.yes = True
    qtbot.keyClick(section.models, Qt.Key.Key_Delete)
    assert sorted(listed(section)) == sorted(before)
    assert "ward 4" in answers.asked[-1]
    assert "cannot be undone" in answers.asked[-1]
    assert used.prelabel.model.value.name == section.model.name == "student"
    assert used.prelabel.threshold.value == pytest.approx(find_model("student").card.threshold)
    assert not errors()


def test_bundled_models_stay_and_delete_in_the_list_is_not_for_polyps(prelabelled, answers, qtbot):
    used = prelabelled
    section = used.dock.sections["Models"]
    section.select("teacher")
    for button in (section.rename_button, section.delete_button):
        assert not button.isEnabled()
        assert "came with the package" in button.toolTip()
    before = used.mask(used.bench.shown).copy()
    assert before.any()
    answers.name = "mine now"
    for key in (Qt.Key.Key_Delete, Qt.Key.Key_F2):
        qtbot.keyClick(section.models, key)
    assert answers.asked == ()
    assert find_model("teacher").path.is_file()
    np.testing.assert_array_equal(used.mask(used.bench.shown), before)
    section.select("mine")
    assert section.delete_button.isEnabled()
    assert "came with" not in section.delete_button.toolTip()


def test_what_does_not_fit_is_said_and_changes_nothing(use, shared, answers, tmp_path, errors):
    used = use()
    damaged = tmp_path / "damaged.safetensors"
    content = bytearray(shared.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    before = {path: path.read_bytes() for path in user_models().iterdir()}

    section = add(used, answers, damaged, "ward 3")
    assert "damaged.safetensors" in errors()[-1]
    assert section.told.isHidden()
    add(used, answers, shared, "Student")
    assert "called Student already" in errors()[-1]
    add(used, answers, shared, "")  # the question for a name was cancelled
    section.select("mine")
    answers.name = "bright"
    section.rename_button.click()
    assert "called bright already" in errors()[-1]
    assert section.model.name == "mine"
    # The dialog asks whether a file is to be replaced, but not about one with another ending.
    answers.file = tmp_path / "damaged"
    section.export_button.click()
    used.wait_for_job()
    assert "there already" in errors()[-1]
    assert damaged.read_bytes() == bytes(content)
    answers.file = tmp_path
    section.comparison.button.click()
    used.wait_for_job()
    assert "holds no images" in errors()[-1]
    assert len(errors()) == 5
    assert {path: path.read_bytes() for path in user_models().iterdir()} == before


def test_what_is_done_to_its_end_cannot_be_cancelled(use, shared, answers):
    used = use()
    answers.file, answers.name = shared, "ward 3"
    section = used.dock.sections["Models"]
    section.import_button.click()
    assert not used.dock.progress.cancel_button.isEnabled()
    used.bench.cancel()  # as the key does
    used.wait_for_job()
    assert section.model.name == "ward 3"
    assert section.told.text() == "ward 3 is in the lists of models now."


def test_two_models_are_compared_on_a_dataset(use, shared, answers, tmp_path, errors):
    used = use()
    section = add(used, answers, shared, "ward 3")
    comparison = section.comparison
    assert "ward 3" not in [model.name for model in comparison.other.choices]
    comparison.other.value = next(m for m in comparison.other.choices if m.name == "student")
    answers.file = write_frames(tmp_path / "frames", polyps=12, negatives=3, unlabelled=2)
    comparison.button.click()
    used.bench.cancel()
    used.wait_for_job()
    assert comparison.table.isHidden()
    comparison.button.click()
    assert not comparison.button.isEnabled()
    used.wait_for_job()
    assert comparison.verdict.text().startswith("15 labelled frames of frames: ")
    shown = rows(comparison.table)
    first, second, change = shown["Dice"]
    assert 0 < float(first) <= 1
    assert 0 < float(second) <= 1
    assert " to " in change
    assert {"false alarms", "polyps found", "boundary F"} <= shown.keys()
    headings = [comparison.table.horizontalHeaderItem(column).text() for column in (1, 2)]
    assert headings == ["ward 3", "student"]
    assert not errors()


def found(dice, alarms=None, problems=(), groups=9):
    """Make what a comparison comes to, from the ends of its intervals."""
    differences = [
        None if ends is None else {"low": ends[0], "mean": sum(ends) / 2, "high": ends[1]}
        for ends in (dice, alarms)
    ]
    return {
        "frames": "9 labelled frames of ward",
        "difference": dict(zip(("dice", "negatives_flagged"), differences, strict=True))
        | {"groups": groups, "negative_groups": groups},
        "problems": dict.fromkeys(problems, "cannot be read"),
    }


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (found((0.01, 0.03)), "new is better than old, Dice +0.020."),
        (found((-0.03, -0.01)), "old is better than new, Dice +0.020."),
        (found((-0.01, 0.03)), "neither is clearly better. new has +0.010 Dice"),
        (found(None, (0.1, 0.3)), "none shows a polyp"),
        (found((-0.01, 0.03), (0.1, 0.3)), "new marks 20 % more of the frames without a polyp"),
        (found((-0.01, 0.03), (-0.3, -0.1)), "old marks 20 % more of the frames without a polyp"),
        (found((0.01, 0.03), (0.1, 0.3), groups=5), "5 videos or scenes, and fewer than 6 prove"),
        (found((0.01, 0.03), problems=("a", "b")), "2 frames could not be scored"),
    ],
)
def test_the_better_model_is_named_in_words(result, said):
    verdict = comparison_verdict("new", "old", result)
    assert verdict.startswith("9 labelled frames of ward: ")
    assert said in verdict
    assert ("marks" in verdict) is ("marks" in said or "none" in said)
