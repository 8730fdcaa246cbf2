"""What takes part in a training: the network that learns, and its teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_microaunet.distillation.losses import FeatureAdapters
from napari_microaunet.distillation.preference import Projection
from napari_microaunet.errors import InputError
from napari_microaunet.networks import build
from napari_microaunet.networks.checkpoint import ModelCard, load_checkpoint
from napari_microaunet.networks.library import find_model
from napari_microaunet.networks.segmentation_network import upsample
from napari_microaunet.prelabel.preprocessing import LEAST_DEVIATION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_microaunet.distillation.recipe import Recipe
    from napari_microaunet.networks.segmentation_network import SegmentationNetwork


class Outputs(NamedTuple):
    """What a network makes of a batch of frames.

    Attributes
    ----------
    logits : Tensor
        Float (batch, 1, height, width), at the size of the frames.
    skips : list of 5 Tensors
        Encoder features at 1/2 to 1/32 of that size.
    decoded : Tensor
        Last decoder features, at half of that size.
    """

    logits: Tensor
    skips: list[Tensor]
    decoded: Tensor


class Normalised(nn.Module):
    """A network that takes frames in [0, 1] and normalises them as its card says.

    Parameters
    ----------
    network : SegmentationNetwork
        Kept as it is, in channels-last order.
    card : ModelCard
        Its mean and standard deviation are used, or it says that they are the frame's own.
    input_size : tuple of 2 ints, optional
        Height and width that frames are brought to first, for a network that is not to learn
        another; its logits come back at the frames' own size.
    """

    network: SegmentationNetwork
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: SegmentationNetwork,
        card: ModelCard,
        input_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.input_size = input_size
        # Twice as fast as the default layout for depthwise convolutions on a CPU.
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.standardise = card.standardise
        self.register_buffer("mean", torch.tensor(card.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(card.std).view(1, 3, 1, 1), persistent=False)

    def forward(self, frames: Tensor) -> Outputs:
        """Run the network on float frames (batch, 3, height, width) in [0, 1]."""
        inputs = frames
        if self.input_size is not None:
            inputs = F.interpolate(frames, self.input_size, mode="bilinear", antialias=True)
        mean, std = self.mean, self.std
        if self.standardise:
            std, mean = torch.std_mean(inputs, dim=(2, 3), keepdim=True, correction=0)
            std = std.clamp(min=LEAST_DEVIATION)
        inputs = ((inputs - mean) / std).contiguous(memory_format=torch.channels_last)
        features = self.network.encode(inputs)
        decoded = self.network.decode(features)
        logits = upsample(self.network.head(decoded), frames)
        return Outputs(logits, features[:5], decoded)


class Learner(nn.Module):
    """The network that learns, with the parts that are thrown away after the training.

    Parameters
    ----------
    normalised : Normalised
        The network.
    teacher_widths : sequence of 5 ints, optional
        Channels of the teacher's skips, where features are aligned.
    dimensions : int, optional
        Of the pixel embeddings, where there is a contrastive loss.
    keep_encoder : bool
        Whether the encoder stays as it is.
    """

    def __init__(
        self,
        normalised: Normalised,
        teacher_widths: Sequence[int] | None = None,
        dimensions: int | None = None,
        *,
        keep_encoder: bool = False,
    ) -> None:
        super().__init__()
        self.normalised = normalised
        if keep_encoder:
            # Not in training mode either: its batch norms' averages stay with its weights.
            for part in normalised.network.encoder_parts:
                part.eval().requires_grad_(False)
        self.adapters = (
            None
            if teacher_widths is None
            else FeatureAdapters(normalised.network.skip_widths, teacher_widths)
        )
        self.projection = (
            None if dimensions is None else Projection(normalised.network.decoded_width, dimensions)
        )

    def forward(self, frames: Tensor, *, embed: bool, adapt: bool) -> LearnerOutputs:
        """Return logits, adapted skips if wanted, and pixel embeddings if wanted."""
        logits, skips, decoded = self.normalised(frames)
        return LearnerOutputs(
            logits,
            self.adapters(skips) if adapt and self.adapters is not None else None,
            self.projection(decoded) if embed and self.projection is not None else None,
        )


class LearnerOutputs(NamedTuple):
    """What the learner makes of a batch of frames.

    Attributes
    ----------
    logits : Tensor
        Float (batch, 1, height, width).
    skips : list of 5 Tensors or None
        The student's skips in the teacher's widths.
    embeddings : Tensor or None
        Unit vectors (batch, dimensions, height / 2, width / 2).
    """

    logits: Tensor
    skips: list[Tensor] | None
    embeddings: Tensor | None


def load_start(recipe: Recipe) -> tuple[ModelCard, SegmentationNetwork]:
    """Return the network to train and the card of the weights that it starts from.

    Whether frames are standardised is as the recipe has it, where it says so.

    Raises
    ------
    InputError
        If these weights cannot be used, or are of another network.
    """
    if not recipe.start:
        network = build(recipe.network)
        card = ModelCard(
            name=recipe.title,
            network=recipe.network,
            widths=network.widths,
            standardise=bool(recipe.standardise),
        )
        return card, network
    model = find_model(recipe.start)
    network, card = load_checkpoint(model.path)
    if card.network != recipe.network:
        raise InputError(
            f"{model.path} holds weights of {card.network}, and {recipe.network} is to be "
            "trained; start from another model."
        )
    if recipe.standardise is not None:
        card = card.model_copy(update={"standardise": recipe.standardise})
    return card, network.train()


def load_teacher(recipe: Recipe) -> tuple[ModelCard, SegmentationNetwork] | None:
    """Return the card and the network of the teacher, where the recipe names one.

    Raises
    ------
    InputError
        If it cannot be used.
    """
    if recipe.teacher is None:
        return None
    network, card = load_checkpoint(find_model(recipe.teacher.model).path)
    return card, network


def parameter_groups(learner: Learner, recipe: Recipe) -> list[dict[str, Any]]:
    """Give the encoder a learning rate of its own; ``peak`` is the rate at its highest."""
    rate = recipe.optimiser.learning_rate
    parts = learner.normalised.network.encoder_parts
    encoder = {parameter for part in parts for parameter in part.parameters()}
    others = [parameter for parameter in learner.parameters() if parameter not in encoder]
    return [
        {
            "params": [p for p in learner.parameters() if p in encoder],
            "peak": rate * recipe.optimiser.encoder_factor,
        },
        {"params": others, "peak": rate},
    ]
