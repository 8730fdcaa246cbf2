"""The expert: a U-Net on an EfficientNet-Lite encoder, the strongest teacher.

Encoder: EfficientNet-Lite (Tan and Le, arXiv 1905.11946; the Lite variant drops
squeeze-and-excitation and uses ReLU6), without its classification head, so that it can start
from ImageNet weights. Decoder: depthwise-separable convolutions over five skips.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_microaunet.networks.segmentation_network import SegmentationNetwork, upsample

if TYPE_CHECKING:
    from collections.abc import Sequence

LITE0_WIDTHS = (24, 40, 80, 112, 192, 320)
LITE2_WIDTHS = (24, 48, 88, 120, 208, 352)  # 1.1 times as wide, in multiples of 8

_STEM, _FIRST = 32, 16  # channels before and after the first block, the same in all variants
# Blocks of each stage; Lite2 has 1.2 times as many, rounded up, but for the last stage.
_DEPTHS = {LITE0_WIDTHS: (2, 2, 3, 3, 4, 1), LITE2_WIDTHS: (3, 3, 4, 4, 5, 1)}
_KERNELS = (3, 5, 3, 5, 5, 3)
_STRIDES = (2, 2, 2, 1, 2, 1)
_EXPANSION = 6
_DECODER_WIDTHS = (128, 64, 48, 32, 24)
_EPSILON, _MOMENTUM = 1e-3, 0.01  # of the published batch norms


class Expert(SegmentationNetwork):
    """EfficientNet-Lite U-Net.

    Parameters
    ----------
    widths : sequence of 6 ints
        Channels of the encoder's stages after the first block: `LITE0_WIDTHS` or
        `LITE2_WIDTHS`, of EfficientNet-Lite0 and -Lite2. How many blocks each stage has goes with
        them; other channels have the blocks of Lite0.
    """

    def __init__(self, widths: Sequence[int] = LITE2_WIDTHS) -> None:
        super().__init__(widths)
        self.encoder = nn.ModuleList(
            [
                nn.Sequential(
                    *_convolution(3, _STEM, 3, stride=2),
                    nn.ReLU6(inplace=True),
                    InvertedResidual(_STEM, _FIRST, kernel=3, stride=1, expansion=1),
                )
            ]
        )
        inputs = _FIRST
        for outputs, depth, kernel, stride in zip(
            self.widths,
            _DEPTHS.get(self.widths, _DEPTHS[LITE0_WIDTHS]),
            _KERNELS,
            _STRIDES,
            strict=True,
        ):
            blocks = [InvertedResidual(inputs, outputs, kernel, stride, _EXPANSION)]
            blocks += [
                InvertedResidual(outputs, outputs, kernel, 1, _EXPANSION) for _ in range(depth - 1)
            ]
            self.encoder.append(nn.Sequential(*blocks))
            inputs = outputs
        self.skip_widths = (_FIRST, self.widths[0], self.widths[1], self.widths[3], self.widths[5])
        self.decoded_width = _DECODER_WIDTHS[-1]
        self.bottom = _separable(self.widths[5], _DECODER_WIDTHS[0])
        self.decoder = nn.ModuleList(
            nn.Sequential(_separable(above + skip, width), _separable(width, width))
            for above, skip, width in zip(
                _DECODER_WIDTHS[:-1],
                self.skip_widths[-2::-1],
                _DECODER_WIDTHS[1:],
                strict=True,
            )
        )
        self.head = nn.Conv2d(_DECODER_WIDTHS[-1], 1, 1)

    def encode(self, frames: Tensor) -> list[Tensor]:
        """Return the five skips, 1/2 to 1/32 of the input's size."""
        skips = []
        x = frames
        for number, stage in enumerate(self.encoder):
            x = stage(x)
            if number in (0, 1, 2, 4, 6):  # the last stage of each size
                skips.append(x)
        return skips

    def decode(self, features: Sequence[Tensor]) -> Tensor:
        """Return the last decoder features, at half the input's size."""
        *skips, deepest = features
        x: Tensor = self.bottom(deepest)
        for stage, skip in zip(self.decoder, reversed(skips), strict=True):
            x = stage(torch.cat([upsample(x, skip), skip], dim=1))
        return x


class InvertedResidual(nn.Module):
    """Expand, convolve each channel, project; with a residual where the shapes agree.

    The mobile inverted bottleneck of MobileNetV2 (Sandler et al., arXiv 1801.04381).
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = []
        if expansion > 1:
            layers += [*_convolution(inputs, hidden, 1), nn.ReLU6(inplace=True)]
        layers += [
            *_convolution(hidden, hidden, kernel, stride=stride, groups=hidden),
            nn.ReLU6(inplace=True),
            *_convolution(hidden, outputs, 1),
        ]
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Return features of ``outputs`` channels at 1/stride of the size."""
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


class PaddedConvolution(nn.Conv2d):
    """A strided convolution padded as TensorFlow pads even sizes: less before than after.

    The ImageNet weights were trained with this padding.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution at 1/stride of the size."""
        before = (self.kernel_size[0] - 2) // 2
        after = self.kernel_size[0] - 2 - before
        return super().forward(F.pad(x, (before, after, before, after)))


def _convolution(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1
) -> tuple[nn.Module, nn.Module]:
    norm = nn.BatchNorm2d(outputs, eps=_EPSILON, momentum=_MOMENTUM)
    if stride == 1:
        padding = kernel // 2
        return nn.Conv2d(inputs, outputs, kernel, padding=padding, groups=groups, bias=False), norm
    return PaddedConvolution(
        inputs, outputs, kernel, stride=stride, groups=groups, bias=False
    ), norm


def _separable(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )
