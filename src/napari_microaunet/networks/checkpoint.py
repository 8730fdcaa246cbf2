"""Checkpoints: weights in safetensors, with a model card in the file's header.

Nothing is ever unpickled. A file whose hash, shapes or card do not fit is refused by name.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator
from safetensors import SafetensorError, safe_open

from napari_microaunet.atomic import replacing
from napari_microaunet.errors import InputError, first_problem
from napari_microaunet.networks import Network, build

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import nn

    from napari_microaunet.networks.segmentation_network import SegmentationNetwork

CARD_KEY = "model_card"  # among the metadata of a file
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80")  # PyTorch's zip archives, and bare pickles

# Keys of `ModelCard.metrics`: the name of the frames, one of these, what follows for one size of
# polyps, and what follows for the ends of the interval.
FIGURES = ("mean Dice", "mean IoU", "polyps found", "negatives flagged")
INTERVAL_LOW, INTERVAL_HIGH = ", 95 % interval, low", ", 95 % interval, high"

Share = Annotated[float, Field(ge=0, le=1)]
Side = Annotated[int, Field(ge=32, le=2048)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
# Far above every network here; without a bound, a foreign card could ask for all memory.
Width = Annotated[int, Field(ge=1, le=1024)]
# It becomes a part of file names.
Sha256 = Annotated[str, Field(pattern="^([0-9a-f]{64})?$")]


@dataclass(frozen=True)
class Figure:
    """One figure of a model card.

    Attributes
    ----------
    frames : str
        What it was measured on; empty where the card's words are not ours.
    name : str
        What was measured: one of `FIGURES`, perhaps for one size of polyps.
    value : float
        The figure.
    low, high : float or None
        Its 95 % interval, where the card has one.
    """

    frames: str
    name: str
    value: float
    low: float | None
    high: float | None


class ModelCard(BaseModel):
    """What a checkpoint says of itself.

    Attributes
    ----------
    name : str
        The name shown in lists of models.
    network : str
        Which network the weights belong to, one of ``networks.NETWORKS``.
    widths : tuple of 6 ints
        Channels of the network's stages.
    input_size : tuple of 2 ints
        Height and width, in pixels, that frames are resized to, 32 to 2048.
    mean, std : tuple of 3 floats
        Normalisation of red, green and blue in [0, 1]: ``(value - mean) / std``.
    standardise : bool
        Whether mean and standard deviation are each frame's own instead: scopes differ in light
        and colour (`prelabel.preprocessing.prepare`).
    threshold : float
        Probability from which a pixel belongs to a polyp, unless the user says otherwise.
    least_peak : float
        Probability that a polyp must reach somewhere to be kept, likewise.
    mirror_images : {0, 1, 3}
        Over how many mirror images beside the frame probabilities are averaged, likewise: none,
        left to right, or upside down and both ways, too.
    description : str
        What the model is, how it was trained and what it is bad at.
    training_data : dict of str to str
        Data sets by name, each with a hash of the list of frames used: this training's, and those
        of the weights that it started from.
    metrics : dict of str to float
        Figures measured on validation frames, with the ends of their intervals; `figures`
        brings these together.
    parent : str
        Hash of the weights that training started from; empty if from none.
    recipe : dict
        Settings of the training; paths in it are names alone. Empty where nobody has noted it.
    licence : str
        Terms of the weights.
    created : str
        Date of the training's end, ISO 8601.
    sha256 : str
        Hash of the weights: names, dtypes, shapes and bytes of all tensors by name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=100)]
    network: Network
    widths: tuple[Width, Width, Width, Width, Width, Width]
    input_size: tuple[Side, Side] = (256, 256)
    mean: tuple[Finite, Finite, Finite] = (0.485, 0.456, 0.406)
    std: tuple[Positive, Positive, Positive] = (0.229, 0.224, 0.225)
    standardise: bool = False
    threshold: Share = 0.5
    least_peak: Share = 0.0
    mirror_images: Literal[0, 1, 3] = 0
    description: str = ""
    training_data: dict[str, str] = {}
    metrics: dict[str, float] = {}
    parent: Sha256 = ""
    recipe: dict[str, JsonValue] = {}
    licence: str = ""
    created: str = ""
    sha256: Sha256 = ""

    @model_validator(mode="before")
    @classmethod
    def _read_augment(cls, card: Any) -> Any:
        """Understand cards of before December 2026, which said yes or no to all three images."""
        if isinstance(card, dict) and "augment" in card:
            card = {**card, "mirror_images": 3 if card["augment"] else 0}
            del card["augment"]
        return card

    def figures(self) -> list[Figure]:
        """List what `metrics` says, each figure with its interval."""
        return [
            Figure(
                *_frames_and_name(name),
                value,
                self.metrics.get(name + INTERVAL_LOW),
                self.metrics.get(name + INTERVAL_HIGH),
            )
            for name, value in self.metrics.items()
            if not name.endswith((INTERVAL_LOW, INTERVAL_HIGH))
        ]


def _frames_and_name(figure: str) -> tuple[str, str]:
    """Divide the name of a figure into what it was measured on, and what was measured."""
    for name in FIGURES:
        frames, found, size = figure.rpartition(f" {name}")
        if found:
            return frames, f"{name}{size}"
    return "", figure


def save_checkpoint(
    path: Path, network: nn.Module, card: ModelCard, *, half: bool = False
) -> ModelCard:
    """Write the weights of ``network`` and their card, atomically.

    Parameters
    ----------
    path : Path
        The file to write, ``.safetensors``.
    network : torch.nn.Module
        Its ``state_dict`` is written.
    card : ModelCard
        The card; its ``sha256`` is filled in here.
    half : bool
        Whether the weights of convolutions and linear layers are stored in half precision.

    Returns
    -------
    ModelCard
        The card as written.
    """
    from safetensors.numpy import save

    weights = {
        name: np.ascontiguousarray(
            (tensor.half() if half and tensor.ndim > 1 else tensor).detach().cpu().numpy()
        )
        for name, tensor in network.state_dict().items()
    }
    card = card.model_copy(update={"sha256": _hash(weights)})
    content = save(weights, metadata={CARD_KEY: card.model_dump_json()})
    with replacing(path) as file:
        file.write(content)
    return card


def read_card(path: Path) -> ModelCard:
    """Read the card in a checkpoint's header; the weights are not read.

    Raises
    ------
    InputError
        If the file is missing, is no checkpoint, or its card does not fit.
    """
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise InputError(
            f"{path}: the model cannot be read ({error.strerror}); check the path."
        ) from error
    try:
        with safe_open(path, framework="numpy") as tensors:
            text = (tensors.metadata() or {}).get(CARD_KEY)
    except SafetensorError as error:
        # Asked only now: a sound file may begin like a pickle, with the length of its header.
        if start.startswith(_PICKLE_STARTS):
            raise InputError(
                f"{path}: this is a pickled file, which could run code when opened; only "
                ".safetensors checkpoints of this package are read."
            ) from error
        raise InputError(
            f"{path}: this is no complete .safetensors file ({error}); get the file again."
        ) from error
    if text is None:
        raise InputError(
            f"{path}: the file holds weights but no model card of this package; only models made "
            "or exported by MicroAUNet can be used."
        )
    try:
        return ModelCard.model_validate_json(text)
    except ValidationError as error:
        raise InputError(
            f"{path}: the model card does not fit this version of the package "
            f"({first_problem(error)}); update the package or get the model again."
        ) from error


def load_checkpoint(path: Path) -> tuple[SegmentationNetwork, ModelCard]:
    """Build the network of a checkpoint and load its weights.

    Returns
    -------
    network : SegmentationNetwork
        In evaluation mode, on the CPU, in single precision.
    card : ModelCard
        What the file says of itself.

    Raises
    ------
    InputError
        If the file is missing, foreign, pickled or truncated, or if its hash, shapes or
        card do not fit.
    """
    import torch

    card = read_card(path)
    weights = read_weights(path, card)
    try:
        network = build(card.network, card.widths)
        network.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{path}: the weights do not fit the network {card.network!r} with widths "
            f"{card.widths} ({reason[:200]}); get the file again."
        ) from error
    if not all(bool(torch.isfinite(tensor).all()) for tensor in network.state_dict().values()):
        raise InputError(
            f"{path}: some weights are no numbers, so the model cannot mark anything; train it "
            "again, or get another file."
        )
    return network.eval(), card


def read_weights(path: Path, card: ModelCard) -> dict[str, NDArray[np.generic]]:
    """Read the weights of a checkpoint, by their names.

    Raises
    ------
    InputError
        If they are not those of the card, or of a kind that numpy does not know.
    """
    from safetensors.numpy import load_file

    try:
        weights: dict[str, NDArray[np.generic]] = load_file(path)
    except (TypeError, AttributeError, SafetensorError) as error:
        raise InputError(
            f"{path}: the weights cannot be read ({error}); only half and single precision can."
        ) from error
    if _hash(weights) != card.sha256:
        raise InputError(
            f"{path}: the weights are not the ones that the model card was written for (their "
            "hash differs); get the file again."
        )
    return weights


def _hash(weights: Mapping[str, NDArray[np.generic]]) -> str:
    digest = hashlib.sha256()
    for name in sorted(weights):
        array = np.ascontiguousarray(weights[name])
        digest.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
