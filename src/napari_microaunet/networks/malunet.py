"""MALUNet, the teacher (arXiv 2211.01784): 0.175 M parameters in its paper.

Written from the description. The two matrices of each external attention are
NOT tied here. The public code ties them by shared storage, which comes apart
when the model moves to a GPU; untied, the count of all stored parameters is
177,943, the figure that stands closest to the published one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_microaunet.networks.segmentation_network import SegmentationNetwork, upsample

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTHS = (8, 16, 24, 32, 48, 64)
"""Channels of the six stages (arXiv 2211.01784, section 3)."""

_GROUPS = 4  # of every group norm, and of the dilated convolutions


class SeparableConvolution(nn.Sequential):
    """Depthwise convolution, group norm, pointwise convolution."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, inputs, kernel, padding=kernel // 2, groups=inputs),
            nn.GroupNorm(_GROUPS, inputs),
            nn.Conv2d(inputs, outputs, 1),
        )


class ExternalAttention(nn.Module):
    """External attention: pixels look up a learned memory of ``4 * channels`` rows.

    Attention is a softmax over pixels, then normalised over the memory's rows
    (double normalisation, arXiv 2105.02358, section 3.2).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        memory = 4 * channels
        self.query = nn.Conv2d(channels, channels, 1)
        self.keys = nn.Conv1d(channels, memory, 1, bias=False)
        self.values = nn.Conv1d(memory, channels, 1, bias=False)
        self.output = nn.Sequential(
            nn.Conv2d(channels, channels, 1, bias=False), nn.GroupNorm(_GROUPS, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, height, width) to the same shape."""
        attention = torch.softmax(self.keys(self.query(x).flatten(2)), dim=-1)
        attention = attention / (1e-9 + attention.sum(dim=1, keepdim=True))
        looked_up: Tensor = self.output(self.values(attention).view_as(x))
        return F.gelu(looked_up + x)


class GatedUnit(nn.Module):
    """A sigmoid branch (3x3) times a GELU branch (5x5), projected, plus a 1x1 shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.gate = SeparableConvolution(inputs, inputs, 3)
        self.content = SeparableConvolution(inputs, inputs, 5)
        self.projection = SeparableConvolution(inputs, outputs, 3)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, height, width) to (batch, outputs, height, width)."""
        gated = torch.sigmoid(self.gate(x)) * F.gelu(self.content(x))
        shortcut: Tensor = self.shortcut(x)
        return F.gelu(self.projection(gated)) + shortcut


class DilatedGatedAttention(nn.Module):
    """Four groups of depthwise 3x3 with dilations 7, 5, 2 and 1, fused, then a gated unit."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        width = inputs // _GROUPS
        self.dilated = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation, groups=width)
            for dilation in (7, 5, 2, 1)
        )
        self.norm = nn.GroupNorm(_GROUPS, inputs)
        self.fuse = nn.Conv2d(inputs, inputs, 1)
        self.unit = GatedUnit(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, height, width) to (batch, outputs, height, width)."""
        parts = [
            layer(part) for layer, part in zip(self.dilated, x.chunk(_GROUPS, dim=1), strict=True)
        ]
        return self.unit(self.fuse(F.gelu(self.norm(torch.cat(parts, dim=1)))))  # type: ignore[no-any-return]


class SequentialBridge(nn.Module):
    """Spatial attention, then channel attention over the five skips, both with residuals."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(2, 1, 7, padding=9, dilation=3)
        self.neighbours = nn.Conv1d(1, 1, 3, padding=1, bias=False)
        self.connected = nn.ModuleList(nn.Linear(sum(widths), width) for width in widths)

    def forward(self, skips: list[Tensor]) -> list[Tensor]:
        """Weigh five skips; shapes stay as they are."""
        weighted = []
        for skip in skips:
            over_channels = torch.cat(
                [skip.mean(dim=1, keepdim=True), skip.amax(dim=1, keepdim=True)], dim=1
            )
            weighted.append(skip + torch.sigmoid(self.spatial(over_channels)) * skip)
        averages = torch.cat([skip.mean(dim=(2, 3)) for skip in weighted], dim=1)
        shared = self.neighbours(averages.unsqueeze(1)).squeeze(1)
        return [
            skip + torch.sigmoid(layer(shared))[:, :, None, None] * skip
            for skip, layer in zip(weighted, self.connected, strict=True)
        ]


class MALUNet(SegmentationNetwork):
    """The teacher network.

    Parameters
    ----------
    widths : sequence of 6 ints
        Channels after each encoder stage, each a multiple of four.
    """

    def __init__(self, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__(widths)
        if any(width % _GROUPS for width in widths):
            raise ValueError(f"MALUNet needs widths that are multiples of four, got {self.widths}")
        self.skip_widths = self.widths[:5]
        self.decoded_width = self.widths[0]
        first, second, third, fourth, fifth, sixth = widths
        self.encoder = nn.ModuleList(
            [
                nn.Conv2d(3, first, 3, padding=1),
                nn.Conv2d(first, second, 3, padding=1),
                nn.Conv2d(second, third, 3, padding=1),
                nn.Sequential(ExternalAttention(third), DilatedGatedAttention(third, fourth)),
                nn.Sequential(ExternalAttention(fourth), DilatedGatedAttention(fourth, fifth)),
                nn.Sequential(ExternalAttention(fifth), DilatedGatedAttention(fifth, sixth)),
            ]
        )
        self.encoder_norms = nn.ModuleList(nn.GroupNorm(_GROUPS, width) for width in widths[:5])
        self.bridge = SequentialBridge(widths[:5])
        self.decoder = nn.ModuleList(
            [
                nn.Sequential(DilatedGatedAttention(sixth, fifth), ExternalAttention(fifth)),
                nn.Sequential(DilatedGatedAttention(fifth, fourth), ExternalAttention(fourth)),
                nn.Sequential(DilatedGatedAttention(fourth, third), ExternalAttention(third)),
                nn.Conv2d(third, second, 3, padding=1),
                nn.Conv2d(second, first, 3, padding=1),
            ]
        )
        self.decoder_norms = nn.ModuleList(
            nn.GroupNorm(_GROUPS, width) for width in reversed(widths[:5])
        )
        self.head = nn.Conv2d(first, 1, 1)

    @property
    def encoder_parts(self) -> tuple[nn.Module, ...]:
        """All modules that only `encode` uses."""
        return (self.encoder, self.encoder_norms)

    def encode(self, frames: Tensor) -> list[Tensor]:
        """Return the five skips (1/2 to 1/32 of the input's size) and the deepest features."""
        features = []
        x = frames
        for stage, norm in zip(self.encoder, self.encoder_norms, strict=False):
            x = F.gelu(F.max_pool2d(norm(stage(x)), 2))
            features.append(x)
        return [*features, F.gelu(self.encoder[-1](x))]

    def decode(self, features: Sequence[Tensor]) -> Tensor:
        """Return the last decoder features, at half the input's size."""
        *skips, x = features
        for stage, norm, skip in zip(
            self.decoder, self.decoder_norms, reversed(self.bridge(skips)), strict=True
        ):
            x = F.gelu(upsample(norm(stage(x)), skip)) + skip
        return x
