"""Checkpoints come back as they were written, and nothing else is let in."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_tensors

from napari_microaunet.errors import InputError
from napari_microaunet.networks import build
from napari_microaunet.networks.checkpoint import (
    Figure,
    ModelCard,
    load_checkpoint,
    read_card,
    save_checkpoint,
)
from napari_microaunet.networks.library import find_model, list_models, user_models
from napari_microaunet.networks.microaunet import WIDTHS

if TYPE_CHECKING:
    from pathlib import Path

CARD = ModelCard(
    name="Test student", network="microaunet", widths=WIDTHS, metrics={"mean Dice": 0.5}
)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(3)
    path = tmp_path / "test student.safetensors"
    save_checkpoint(path, build("microaunet"), CARD)
    return path


def change_header(path: Path, **changes: object) -> None:
    """Rewrite the model card of a checkpoint, weights as they are."""
    card = json.loads(read_card(path).model_dump_json()) | changes
    save_file(load_file(path), path, metadata={"model_card": json.dumps(card)})


def test_what_was_saved_is_loaded(checkpoint: Path) -> None:
    torch.manual_seed(3)
    expected = build("microaunet").state_dict()
    network, card = load_checkpoint(checkpoint)
    assert card.model_copy(update={"sha256": ""}) == CARD
    assert not network.training
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_no_partial_file_is_left_beside_the_checkpoint(checkpoint: Path) -> None:
    assert [path.name for path in checkpoint.parent.iterdir()] == [checkpoint.name]


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_checkpoint(path)
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message
    return message


def test_a_pickled_file_is_refused_unopened(tmp_path: Path) -> None:
    path = tmp_path / "pickled.safetensors"
    torch.save(build("microaunet").state_dict(), path)
    assert "pickled" in refused(path)


@pytest.mark.parametrize("kept", [0, 5, 500, -1])
def test_a_truncated_file_is_refused(checkpoint: Path, kept: int) -> None:
    checkpoint.write_bytes(checkpoint.read_bytes()[:kept])
    assert "no complete" in refused(checkpoint)


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file({"weight": np.zeros(3, np.float32)}, path)
    assert "no model card" in refused(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert "cannot be read" in refused(tmp_path / "gone.safetensors")


def test_changed_weights_are_refused(checkpoint: Path) -> None:
    content = bytearray(checkpoint.read_bytes())
    content[-1] ^= 1
    checkpoint.write_bytes(content)
    assert "hash" in refused(checkpoint)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"network": "malunet"}, "do not fit"),
        ({"widths": [8, 16, 24, 32, 48, 64]}, "do not fit"),
        ({"network": "unet"}, "network"),
        ({"threshold": 2.0}, "threshold"),
        ({"std": [1.0, 0.0, 1.0]}, "std.1"),
        ({"mean": [0.5, float("nan"), 0.5]}, "mean.1"),
        ({"input_size": [256, 100_000]}, "input_size.1"),
        ({"surprise": 1}, "surprise"),
        ({"widths": [8, 16, 16, 16, 24, 10**9]}, "widths.5"),
        ({"sha256": "../elsewhere"}, "sha256"),
        ({"parent": "A" * 64}, "parent"),
        ({"mirror_images": 2}, "mirror_images"),
    ],
)
def test_a_card_that_does_not_fit_is_refused(
    checkpoint: Path, changes: dict[str, object], reason: str
) -> None:
    change_header(checkpoint, **changes)
    assert reason in refused(checkpoint)


def test_a_recipe_is_read_back_and_files_from_before_there_were_any_are_read(
    checkpoint: Path,
) -> None:
    recipe = {"seed": 3, "budget": {"minutes": 10.0, "steps": None}}
    change_header(checkpoint, recipe=recipe)
    assert read_card(checkpoint).recipe == recipe
    card = json.loads(read_card(checkpoint).model_dump_json())
    del card["recipe"]
    save_file(load_file(checkpoint), checkpoint, metadata={"model_card": json.dumps(card)})
    assert load_checkpoint(checkpoint)[1].recipe == {}


@pytest.mark.parametrize(("augment", "images"), [(True, 3), (False, 0)])
def test_cards_that_say_yes_or_no_to_mirror_images_are_read(
    checkpoint: Path, augment: bool, images: int
) -> None:
    card = json.loads(read_card(checkpoint).model_dump_json())
    del card["mirror_images"]
    card = json.dumps(card | {"augment": augment})
    save_file(load_file(checkpoint), checkpoint, metadata={"model_card": card})
    assert load_checkpoint(checkpoint)[1].mirror_images == images


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    network = build("microaunet")
    with torch.no_grad():
        next(network.parameters()).view(-1)[0] = float("nan")
    save_checkpoint(tmp_path / "diverged.safetensors", network, CARD)
    assert "no numbers" in refused(tmp_path / "diverged.safetensors")


def test_weights_of_a_kind_that_numpy_does_not_know_are_refused(checkpoint: Path) -> None:
    card = read_card(checkpoint).model_dump_json()
    tensors = {"weight": torch.zeros(3).to(torch.float8_e5m2)}
    save_tensors(tensors, checkpoint, metadata={"model_card": card})
    with pytest.raises(InputError, match="only half and single precision"):
        load_checkpoint(checkpoint)


def test_figures_come_with_their_intervals() -> None:
    card = CARD.model_copy(
        update={
            "metrics": {
                "CVC mean Dice": 0.75,
                "CVC mean Dice, 95 % interval, low": 0.5,
                "CVC mean Dice, 95 % interval, high": 0.875,
                "our CVC mean Dice, small polyps": 0.25,
                "steps": 7.0,
            }
        }
    )
    assert card.figures() == [
        Figure("CVC", "mean Dice", 0.75, 0.5, 0.875),
        Figure("our CVC", "mean Dice, small polyps", 0.25, None, None),
        Figure("", "steps", 7.0, None, None),
    ]


def test_the_library_lists_user_models_from_the_data_folder(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    user_models().mkdir(parents=True)
    shutil.copy(checkpoint, user_models() / "mine.safetensors")
    (user_models() / "broken.safetensors").write_bytes(b"nothing")
    assert "mine" in [model.name for model in list_models()]
    assert "broken" not in [model.name for model in list_models()]
    assert find_model("mine").card.name == "Test student"
    assert not find_model("mine").bundled


def test_a_model_can_be_given_as_a_path(checkpoint: Path) -> None:
    assert find_model(str(checkpoint)).name == "test student"


@pytest.mark.parametrize("name", ["nothing", "../nothing", ""])
def test_an_unknown_model_is_named_with_the_known_ones(name: str) -> None:
    with pytest.raises(InputError, match="There is no model named"):
        find_model(name)


def test_a_header_as_long_as_a_pickle_begins_is_no_pickle(tmp_path):
    # A safetensors file begins with the length of its header: 0x80 is also a pickle's first byte.
    network, path = build("microaunet"), tmp_path / "model.safetensors"
    firsts = set()
    for padding in range(0, 256, 8):  # headers are padded to multiples of eight
        card = ModelCard(
            name="x", network="microaunet", widths=network.widths, description="-" * padding
        )
        save_checkpoint(path, network, card)
        firsts.add(path.read_bytes()[0])
        assert read_card(path).description == card.description
    assert 0x80 in firsts
