"""MicroAUNet, the student: six encoder stages, one bridge over five skips, five decoder stages.

Written from the description in arXiv 2511.01143. The paper's budget is 24,900
parameters and 0.148 G multiply-adds at 256x256; the widths of its public code
(8, 16, 24, 32, 48, 64) cost 3.4 times those parameters, mostly in one fully
connected layer of the bridge, which is factored in two here. Norms are batch
norms, which fold into convolutions when the network runs, and the activation is
ReLU, because on a CPU such a network is bound by memory traffic and not by
multiply-adds.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_microaunet.networks.segmentation_network import SegmentationNetwork, upsample

WIDTHS = (8, 16, 16, 16, 24, 24)
"""Channels of the six stages that keep the network inside the paper's budget."""

PUBLISHED_WIDTHS = (8, 16, 24, 32, 48, 64)
"""Channels of the six stages in the paper's public code."""

MakeNorm = Callable[[int], nn.Module]


class BatchNorm(nn.BatchNorm2d):
    """Batch norm that also trains where a channel has a single value.

    The deepest stage of a 32x32 frame in a batch of one is one pixel, whose
    variance does not exist; the running statistics stand in for it.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x`` of shape (batch, channels, height, width)."""
        if self.training and x.shape[0] * x.shape[2] * x.shape[3] == 1:
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(x)


class SeparableDilatedConvolution(nn.Sequential):
    """Depthwise-separable dilated convolution (DWD).

    Depthwise 3x3 with a dilation, norm, activation, pointwise 1x1, norm and,
    unless what follows brings its own, activation.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        dilation: int,
        norm: MakeNorm,
        activation: type[nn.Module],
        *,
        last_activation: bool = True,
    ) -> None:
        super().__init__(
            nn.Conv2d(
                inputs, inputs, 3, padding=dilation, dilation=dilation, groups=inputs, bias=False
            ),
            norm(inputs),
            activation(),
            nn.Conv2d(inputs, outputs, 1, bias=False),
            norm(outputs),
        )
        if last_activation:
            self.append(activation())


class SeparableDilatedBlock(nn.Module):
    """DWD block: a DWD of dilation 2, then one of dilation 1, with a residual."""

    def __init__(
        self, inputs: int, outputs: int, norm: MakeNorm, activation: type[nn.Module]
    ) -> None:
        super().__init__()
        self.body = nn.Sequential(
            SeparableDilatedConvolution(inputs, outputs, 2, norm, activation),
            SeparableDilatedConvolution(outputs, outputs, 1, norm, activation),
        )
        self.residual = _residual(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, height, width) to (batch, outputs, height, width)."""
        return self.body(x) + self.residual(x)  # type: ignore[no-any-return]


class GatedAttention(nn.Module):
    """Lightweight gated attention (LDGA).

    Depthwise 3x3, norm and pointwise 1x1 make features; a 1x1 convolution to
    one channel and a sigmoid gate them in space; a pointwise projection and a
    residual follow.
    """

    def __init__(self, inputs: int, outputs: int, norm: MakeNorm) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False),
            norm(inputs),
            nn.Conv2d(inputs, inputs, 1),
        )
        self.gate = nn.Conv2d(inputs, 1, 1)
        self.projection = nn.Conv2d(inputs, outputs, 1)
        self.residual = _residual(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, height, width) to (batch, outputs, height, width)."""
        features = self.features(x)
        gated = features * torch.sigmoid(self.gate(features))
        return self.projection(gated) + self.residual(x)  # type: ignore[no-any-return]


class AttentionBridge(nn.Module):
    """Channel and spatial attention over the five skips, side by side (LSCAB).

    ``out = t + (alpha * channel + beta * spatial) * t`` for every skip ``t``.
    All parameters are shared by the skips. The one fully connected layer is a
    product of two thin ones: at the public widths it alone would hold 16.5
    thousand parameters. The shared 7x7 convolution has a stride of two and its
    map is resized back: at stride one it would be the dearest layer of the
    network.
    """

    def __init__(self, widths: Sequence[int], rank: int) -> None:
        super().__init__()
        self.widths = list(widths)
        total = sum(widths)
        self.neighbours = nn.Conv1d(1, 1, 3, padding=1, bias=False)
        self.connected = nn.Sequential(nn.Linear(total, rank, bias=False), nn.Linear(rank, total))
        self.spatial = nn.Conv2d(2, 1, 7, stride=2, padding=3)
        self.alpha = nn.Parameter(torch.ones(()))
        self.beta = nn.Parameter(torch.ones(()))

    def forward(self, skips: list[Tensor]) -> list[Tensor]:
        """Weigh five skips; shapes stay as they are."""
        averages = torch.cat([skip.mean(dim=(2, 3)) for skip in skips], dim=1)
        channel = torch.sigmoid(self.connected(self.neighbours(averages.unsqueeze(1)).squeeze(1)))
        weighted = []
        for skip, weights in zip(skips, channel.split(self.widths, dim=1), strict=True):
            over_channels = torch.cat(
                [skip.mean(dim=1, keepdim=True), skip.amax(dim=1, keepdim=True)], dim=1
            )
            spatial = torch.sigmoid(upsample(self.spatial(over_channels), skip))
            attention = self.alpha * weights[:, :, None, None] + self.beta * spatial
            weighted.append(skip + attention * skip)
        return weighted


class MicroAUNet(SegmentationNetwork):
    """The student network.

    Parameters
    ----------
    widths : sequence of 6 ints
        Channels after each encoder stage.
    bridge_rank : int
        Inner width of the bridge's factored fully connected layer.
    norm : callable
        Makes the norm for a number of channels.
    activation : type of torch.nn.Module
        The activation.
    """

    def __init__(
        self,
        widths: Sequence[int] = WIDTHS,
        bridge_rank: int = 8,
        *,
        norm: MakeNorm = BatchNorm,
        activation: type[nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__(widths)
        self.skip_widths = self.widths[:5]
        self.decoded_width = self.widths[0]
        self.encoder = nn.ModuleList(
            [SeparableDilatedConvolution(3, widths[0], 1, norm, activation, last_activation=False)]
        )
        for inputs, outputs in itertools.pairwise(widths):
            self.encoder.append(
                nn.Sequential(
                    SeparableDilatedBlock(inputs, outputs, norm, activation),
                    GatedAttention(outputs, outputs, norm),
                    norm(outputs),
                )
            )
        self.bridge = AttentionBridge(widths[:5], bridge_rank)
        self.decoder = nn.ModuleList(
            nn.Sequential(
                GatedAttention(inputs, inputs, norm),
                SeparableDilatedBlock(inputs, outputs, norm, activation),
                norm(outputs),
            )
            for inputs, outputs in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.activation = activation()
        self.head = nn.Conv2d(widths[0], 1, 1)

    def encode(self, frames: Tensor) -> list[Tensor]:
        """Return the five skips (1/2 to 1/32 of the input's size) and the deepest features."""
        features = []
        x = frames
        for stage in self.encoder[:-1]:
            x = self.activation(F.max_pool2d(stage(x), 2))
            features.append(x)
        return [*features, self.activation(self.encoder[-1](x))]

    def decode(self, features: Sequence[Tensor]) -> Tensor:
        """Return the last decoder features, at half the input's size."""
        *skips, x = features
        for stage, skip in zip(self.decoder, reversed(self.bridge(skips)), strict=True):
            x = self.activation(upsample(stage(x), skip)) + skip
        return x


def _residual(inputs: int, outputs: int) -> nn.Module:
    return nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1, bias=False)
