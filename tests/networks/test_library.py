from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_microaunet.errors import InputError
from napari_microaunet.networks import build, onnx_export
from napari_microaunet.networks.checkpoint import ModelCard, load_checkpoint, save_checkpoint
from napari_microaunet.networks.library import (
    Model,
    add_model,
    delete_model,
    export_graph,
    export_model,
    find_model,
    lineage_of,
    list_models,
    rename_model,
    user_models,
)
from napari_microaunet.networks.onnx_export import onnx_file


@pytest.fixture
def checkpoint(tmp_path):
    network = build("microaunet")
    path = tmp_path / "model.safetensors"
    card = ModelCard(name="new", network="microaunet", widths=network.widths)
    save_checkpoint(path, network, card)
    return path


def names():
    return [model.name for model in list_models()]


def test_a_model_is_added_renamed_and_deleted(checkpoint):
    before = names()
    model = add_model(checkpoint, "Ward 3 spring")
    assert sorted(names()) == sorted([*before, "Ward 3 spring"])
    assert model.card.sha256 == find_model("Ward 3 spring").card.sha256
    renamed = rename_model(model, "Ward 3 (v2)")
    assert "Ward 3 (v2)" in names()
    assert "Ward 3 spring" not in names()
    renamed = rename_model(renamed, "ward 3 (V2)")
    assert "ward 3 (V2)" in names()
    delete_model(renamed)
    assert names() == before
    assert checkpoint.is_file()


@pytest.mark.parametrize("name", ["", "../evil", "a/b", ".hidden", "x" * 61, "a\0b", "end."])
def test_names_that_are_no_plain_file_names_are_refused(checkpoint, name):
    before = names()
    with pytest.raises(InputError, match="cannot be a model's name"):
        add_model(checkpoint, name)
    assert names() == before


def test_names_are_given_once_and_bundled_models_stay(checkpoint):
    with pytest.raises(InputError, match="called Student already"):
        add_model(checkpoint, "Student")
    student = find_model("student")
    for change in (lambda: rename_model(student, "mine too"), lambda: delete_model(student)):
        with pytest.raises(InputError, match="only your own models"):
            change()
    assert student.path.is_file()


def test_a_damaged_file_never_reaches_the_library(checkpoint):
    content = bytearray(checkpoint.read_bytes())
    content[-1] ^= 1
    checkpoint.write_bytes(content)
    with pytest.raises(InputError, match=r"model\.safetensors"):
        add_model(checkpoint, "broken")
    assert not (user_models() / "broken.safetensors").exists()


def test_the_name_of_a_damaged_file_is_taken(checkpoint):
    damaged = user_models() / "Kept.safetensors"
    damaged.parent.mkdir(parents=True, exist_ok=True)
    damaged.write_bytes(b"perhaps somebody can mend it")
    with pytest.raises(InputError, match="called kept already"):
        add_model(checkpoint, "kept")
    assert damaged.read_bytes().startswith(b"perhaps")
    damaged.unlink()


def test_an_exported_file_is_the_model_and_replaces_nothing(checkpoint, tmp_path):
    model, target = find_model(str(checkpoint)), tmp_path / "new folder" / "copy.safetensors"
    export_model(model, target)
    assert target.read_bytes() == checkpoint.read_bytes()
    target.write_bytes(b"mine")
    with pytest.raises(InputError, match="there already"):
        export_model(model, target)
    assert target.read_bytes() == b"mine"
    export_model(model, target, overwrite=True)
    assert find_model(str(target)).card == model.card
    assert list(target.parent.iterdir()) == [target]


def test_exports_do_not_go_into_the_library_nor_under_other_endings(checkpoint, tmp_path):
    student = find_model("student")
    for export, target, reason in (
        (export_model, user_models() / "new.safetensors", "library"),
        (export_graph, student.path.with_name("student.onnx"), "library"),
        (export_model, tmp_path / "model.pt", "does not end in .safetensors"),
        (export_graph, tmp_path / "model", "does not end in .onnx"),
    ):
        with pytest.raises(InputError, match=reason):
            export(student, target, overwrite=True)
        assert not target.exists()


def test_a_damaged_model_is_not_passed_on(checkpoint, tmp_path):
    content = bytearray(checkpoint.read_bytes())
    content[-1] ^= 1
    checkpoint.write_bytes(content)
    with pytest.raises(InputError, match=r"model\.safetensors"):
        export_model(find_model(str(checkpoint)), tmp_path / "copy.safetensors")
    assert not (tmp_path / "copy.safetensors").exists()


def test_an_onnx_graph_gives_what_the_model_gives_and_carries_its_card(tmp_path):
    model, target = find_model("student"), tmp_path / "graph.onnx"
    export_graph(model, target)
    (entry,) = onnx.load(target).metadata_props
    assert entry.key == "model_card"
    assert ModelCard.model_validate_json(entry.value) == model.card
    images = np.random.default_rng(0).normal(size=(2, 3, 64, 96)).astype(np.float32)
    session = onnxruntime.InferenceSession(target, providers=["CPUExecutionProvider"])
    (found,) = session.run(["logits"], {"image": images})
    with torch.inference_mode():
        expected = load_checkpoint(model.path)[0](torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_graph_outlives_a_new_name_and_goes_with_the_last_of_its_weights(checkpoint, monkeypatch):
    # Made of a network, it would take a while; what matters here is the file.
    monkeypatch.setattr(onnx_export, "export_onnx", lambda _, path: path.write_bytes(b"graph"))
    model = add_model(checkpoint, "graph")
    kept = onnx_file(model)
    model = rename_model(model, "graph 2")
    twin = add_model(checkpoint, "twin")
    assert onnx_file(model) == onnx_file(twin) == kept
    delete_model(model)
    assert kept.is_file()
    delete_model(twin)
    assert not kept.exists()


GONE = "f" * 64


def weights(number):
    """Give the hash of the weights of a model of the library."""
    return f"{number:064x}"


def library(*parents):
    """Make models of which each names another's weights as its parent, or weights of none."""
    cards = [
        ModelCard(name="x", network="microaunet", widths=(8,) * 6, sha256=weights(i), parent=parent)
        for i, parent in enumerate(parents)
    ]
    return [Model(f"model {i}", Path(f"{i}.safetensors"), card) for i, card in enumerate(cards)]


def test_lineage_goes_back_to_what_nobody_knows():
    models = library("", weights(0), weights(1), GONE)
    lineage = lineage_of(models[2].card, models)
    assert [model.name for model in lineage.ancestors] == ["model 1", "model 0"]
    assert lineage.unknown == ""
    assert lineage_of(models[3].card, models).unknown == GONE
    assert lineage_of(models[2].card, models[:1]).unknown == weights(1)


@given(st.lists(st.integers(-1, 6), min_size=1, max_size=6))
def test_lineage_ends_whatever_cards_say_of_each_other(numbers):
    models = library(*("" if number < 0 else weights(number) for number in numbers))
    for model in models:
        lineage = lineage_of(model.card, models)
        line = [model, *lineage.ancestors]
        assert len({one.card.sha256 for one in line}) == len(line)
        named = [one.card.parent for one in line]
        assert named == [*(one.card.sha256 for one in lineage.ancestors), lineage.unknown]
        strangers = {one.card.sha256 for one in models} - {one.card.sha256 for one in line}
        assert lineage.unknown not in strangers
