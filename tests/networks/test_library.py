from __future__ import annotations

import pytest

from napari_microaunet.errors import InputError
from napari_microaunet.networks import build
from napari_microaunet.networks.checkpoint import ModelCard, save_checkpoint
from napari_microaunet.networks.library import (
    add_model,
    delete_model,
    find_model,
    list_models,
    rename_model,
    user_models,
)


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
