"""What all networks have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Sequence

Widths = tuple[int, int, int, int, int, int]


class SegmentationNetwork(nn.Module):
    """An encoder of five skips, a decoder to half the size, and a head.

    Parameters
    ----------
    widths : sequence of 6 ints
        Channels of the encoder's stages, for the model card.

    Attributes
    ----------
    widths : tuple of 6 ints
        As given.
    skip_widths : tuple of 5 ints
        Channels of the skips.
    decoded_width : int
        Channels of the last decoder features.
    encoder : torch.nn.ModuleList
        The part that may come pre-trained.
    head : torch.nn.Module
        Maps the last decoder features to one logit per pixel.

    Notes
    -----
    ``forward`` takes normalised frames, float (batch, 3, H, W) with H, W >= 32,
    and returns logits, float (batch, 1, H, W).
    """

    widths: Widths
    skip_widths: tuple[int, ...]
    decoded_width: int
    encoder: nn.ModuleList
    head: nn.Module

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        if len(widths) != 6:
            raise ValueError(f"{type(self).__name__} has six stages, got {len(widths)} widths")
        first, second, third, fourth, fifth, sixth = widths
        self.widths = first, second, third, fourth, fifth, sixth

    @property
    def encoder_parts(self) -> tuple[nn.Module, ...]:
        """All modules that only `encode` uses."""
        return (self.encoder,)

    def encode(self, frames: Tensor) -> list[Tensor]:
        """Return the skips at 1/2 to 1/32 of the input's size; deeper features may follow."""
        raise NotImplementedError

    def decode(self, features: Sequence[Tensor]) -> Tensor:
        """Return the last decoder features, at half the input's size, of encoded frames."""
        raise NotImplementedError

    def forward(self, frames: Tensor) -> Tensor:
        """Return the logits of ``frames``."""
        return upsample(self.head(self.decode(self.encode(frames))), frames)


def upsample(x: Tensor, like: Tensor) -> Tensor:
    """Resize ``x`` bilinearly to the height and width of ``like``."""
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)
