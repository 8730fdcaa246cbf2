"""What is drawn for each frame, from torch's global generator on the CPU.

On the CPU, so that a seed gives the same geometry whatever the device of the frames.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def uniform(count: int, low: float, high: float) -> Tensor:
    """Draw a value for each of ``count`` frames, float32 (count,)."""
    return torch.empty(count).uniform_(low, high)


def log_uniform(count: int, low: float, high: float) -> Tensor:
    """Draw a factor for each of ``count`` frames, float32 (count,); its logarithm is even."""
    return uniform(count, math.log(low), math.log(high)).exp()


def chosen(count: int, probability: float) -> Tensor:
    """Draw for each of ``count`` frames whether it is meant, bool (count,)."""
    return torch.rand(count) < probability


def per_frame(values: Tensor, frames: Tensor) -> Tensor:
    """Bring one value for each frame to the frames' device, as (count, 1, 1, 1)."""
    return values.to(frames.device)[:, None, None, None]
