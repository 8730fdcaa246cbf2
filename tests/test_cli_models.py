"""The library of models as it is used in a terminal."""

from __future__ import annotations

import io
import json

import onnx
import pytest

from napari_microaunet.networks.checkpoint import ModelCard, load_checkpoint, save_checkpoint
from napari_microaunet.networks.library import find_model, list_models, user_models


@pytest.fixture
def shared(model, tmp_path):
    """A file that somebody has sent, of a model that was trained from the student."""
    path = tmp_path / "ward 3.safetensors"
    card = ModelCard(
        name="Ward [3]",
        network=model.card.network,
        widths=model.card.widths,
        threshold=0.35,
        description="Learned from [bold]our[/bold] frames.",
        training_data={"ward": "abc" * 20},
        metrics={
            "ward mean Dice": 0.71,
            "ward mean Dice, 95 % interval, low": 0.6,
            "ward mean Dice, 95 % interval, high": 0.8,
        },
        parent=model.card.sha256,
        recipe={"budget": {"minutes": 10.0, "steps": None}, "teacher": {"model": "expert"}},
    )
    network, _ = load_checkpoint(model.path)
    network.head.bias.data += 1
    save_checkpoint(path, network, card)
    yield path
    for file in user_models().glob("ward*"):
        file.unlink()


def names():
    return [model.name for model in list_models()]


def told(text):
    """What a table says, without its lines."""
    return " ".join(text.replace("│", " ").replace("┃", " ").split())


def test_a_file_is_imported_seen_renamed_exported_and_deleted(microaunet, shared, tmp_path, model):
    before = names()
    assert microaunet("models", "import", shared, "--name", "ward")[0] == 0
    assert sorted(names()) == sorted([*before, "ward"])
    code, stdout, _ = microaunet("models", "show", "ward")
    assert code == 0
    for fact in (
        "Ward [3]",
        "[bold]our[/bold]",
        "probability 0.35",
        "10.0 minutes, taught by expert",
        "0.710 (0.600 to 0.800)",
    ):
        assert fact in told(stdout)
    lineage = told(stdout).partition("Lineage")[2]
    assert lineage.strip().startswith("ward ← student ← weights")
    code, stdout, _ = microaunet("models", "show", "ward", "--json")
    assert json.loads(stdout)["recipe"]["budget"]["minutes"] == 10

    assert microaunet("models", "rename", "ward", "ward b")[0] == 0
    out = tmp_path / "new" / "copy.safetensors"
    assert microaunet("models", "export", "ward b", "--out", out)[0] == 0
    assert out.read_bytes() == shared.read_bytes()
    code, _, stderr = microaunet("models", "export", "student", "--out", out)
    assert code == 2
    assert "there already" in stderr
    assert out.read_bytes() == shared.read_bytes()
    assert microaunet("models", "export", "student", "--out", out, "--overwrite")[0] == 0
    assert find_model(str(out)).card == find_model("student").card

    assert microaunet("models", "delete", "ward b", "--yes")[0] == 0
    assert names() == before
    assert shared.is_file()


def test_the_list_shows_whole_names_however_narrow_it_is(microaunet, shared, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    microaunet("models", "import", shared, "--name", "ward-7-of-december")
    code, stdout, _ = microaunet("models")
    assert code == 0
    cells = [line.split("│")[1] for line in stdout.splitlines() if line.startswith("│")]
    assert "ward-7-of-december" in told("".join(cells)).replace(" ", "")


def test_an_onnx_graph_says_how_frames_are_prepared(microaunet, tmp_path):
    out = tmp_path / "student.onnx"
    assert microaunet("models", "onnx", "student", "--out", out)[0] == 0
    (entry,) = onnx.load(out).metadata_props
    assert json.loads(entry.value)["mean"] == list(find_model("student").card.mean)


@pytest.mark.parametrize(("answer", "kept"), [("n\n", True), ("", True), ("y\n", False)])
def test_deleting_is_asked_about(microaunet, shared, monkeypatch, answer, kept):
    microaunet("models", "import", shared, "--name", "ward")
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    code, _, stderr = microaunet("models", "delete", "ward")
    assert ("ward" in names()) is kept
    assert code == (1 if kept else 0)
    assert "cannot be undone" in stderr


def test_what_does_not_fit_is_one_sentence_and_changes_nothing(microaunet, shared, tmp_path):
    damaged, pickled = tmp_path / "damaged.safetensors", tmp_path / "pickled.pt"
    content = bytearray(shared.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    pickled.write_bytes(b"PK\x03\x04 and what runs when it is opened")
    before = {path: path.read_bytes() for path in user_models().iterdir()}
    for arguments, reason in (
        (("import", damaged), "damaged.safetensors"),
        (("import", pickled), "pickled"),
        (("import", tmp_path / "gone.safetensors"), "cannot be read"),
        (("import", shared, "--name", "Student"), "called Student already"),
        (("import", shared, "--name", "a/b"), "cannot be a model's name"),
        (("rename", "student", "mine 2"), "only your own"),
        (("rename", "mine", "bright/"), "cannot be a model's name"),
        (("delete", "student", "--yes"), "only your own"),
        (("delete", "nobody", "--yes"), "no model named"),
        (("show", "nobody"), "no model named"),
        (("export", "mine", "--out", tmp_path / "mine.pt"), "safetensors"),
    ):
        code, stdout, stderr = microaunet("models", *arguments)
        assert (code, stdout) == (2, ""), arguments
        assert reason in stderr
        assert len(stderr.strip().splitlines()) == 1
    assert {path: path.read_bytes() for path in user_models().iterdir()} == before
