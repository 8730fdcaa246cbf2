"""What a scope and its processor add to the picture: borders, boxes, text, highlights.

Other hospitals' frames differ in these more than in their mucosa. What is drawn is drawn into
the frames that are given.
"""

from __future__ import annotations

import math

import torch
from kornia.filters import gaussian_blur2d
from torch import Tensor
from torch.nn import functional as F

from napari_microaunet.distillation.augmentation.draws import (
    chosen,
    log_uniform,
    per_frame,
    uniform,
)

# Height and width of one letter, and of the cell around it, in strokes.
_LETTER = (5, 3)
_MOST_BOXES = 3


def draw_glare(frames: Tensor, probability: float) -> None:
    """Draw highlights where frames are bright, as wet mucosa shows them.

    Parameters
    ----------
    frames : float32 (n, 3, side, side)
        RGB in [0, 1], drawn into.
    probability : float
        Of each frame to have some.
    """
    some = chosen(len(frames), probability)
    if not some.any():
        return
    shiny = frames[some]
    count, _, side, _ = shiny.shape
    # Peaks of smooth noise: blobs of all sizes, longer than wide as often as not.
    cells = [max(2, int(side / float(torch.empty(()).uniform_(5, 12)))) for _ in range(2)]
    noise = torch.randn(count, 1, *cells).to(frames.device)
    noise = F.interpolate(noise, (side, side), mode="bicubic", align_corners=False)
    grey = shiny.mean(1, keepdim=True)
    level = grey.mean((2, 3), keepdim=True).clamp(min=0.05)
    height = noise + (grey / level - 1).clamp(-1, 0.5)
    peak = per_frame(uniform(count, 1.9, 2.8), shiny)
    spots = ((height - peak) * 6).clamp(0, 1) * (grey > 0.1)
    deviation = side / 400
    spots = gaussian_blur2d(spots, 2 * math.ceil(3 * deviation) + 1, (deviation, deviation))
    frames[some] = torch.lerp(shiny, torch.ones_like(shiny), spots)


def draw_border(frames: Tensor, probability: float) -> Tensor:
    """Draw the dark border around the picture: a rounded shape, or cut corners.

    Parameters
    ----------
    frames : float32 (n, 3, side, side)
        RGB in [0, 1], drawn into.
    probability : float
        Of each frame to have one.

    Returns
    -------
    bool (n, 1, side, side)
        What the border covers.
    """
    count, _, side, _ = frames.shape
    some = chosen(count, probability)
    at = torch.linspace(-1, 1, side)
    offset = uniform(2 * count, -0.08, 0.08).view(2, count, 1)
    across, down = (at - offset[0]).abs()[:, None, :], (at - offset[1]).abs()[:, :, None]
    # From an exponent of 2, a circle, to 8, almost a square.
    exponent = log_uniform(count, 2, 8).view(count, 1, 1)
    radius = uniform(count, 0.95, 1.25).view(count, 1, 1)
    rounded = across**exponent + down**exponent > radius**exponent
    cut = across + down > 1.45 * radius
    covered = torch.where(chosen(count, 0.5).view(count, 1, 1), rounded, cut)
    covered &= some.view(count, 1, 1)
    covered = covered[:, None].to(frames.device)
    dark = per_frame(uniform(count, 0, 0.06), frames)
    frames.copy_(torch.where(covered, dark, frames))
    return covered


def draw_boxes(frames: Tensor, probability: float) -> Tensor:
    """Draw opaque boxes of one colour, most of them at an edge or in a corner.

    Parameters
    ----------
    frames : float32 (n, 3, side, side)
        RGB in [0, 1], drawn into.
    probability : float
        Of each frame to have some.

    Returns
    -------
    bool (n, 1, side, side)
        What the boxes cover.
    """
    covered = torch.zeros_like(frames[:, :1], dtype=torch.bool)
    for index in chosen(len(frames), probability).nonzero()[:, 0].tolist():
        for _ in range(int(torch.randint(1, _MOST_BOXES + 1, ()))):
            height, width = (
                int(frames.shape[-1] * float(torch.empty(()).uniform_(0.03, most)))
                for most in (0.3, 0.4)
            )
            rows, columns = _place(frames.shape[-1], height, width)
            colour = 0.9 * torch.rand(3, 1, 1)
            frames[index, :, rows, columns] = colour.to(frames.device)
            covered[index, :, rows, columns] = True
    return covered


def draw_text(frames: Tensor, probability: float) -> None:
    """Draw lines of random letters; their strokes are thin, what lies behind stays labelled.

    Parameters
    ----------
    frames : float32 (n, 3, side, side)
        RGB in [0, 1], drawn into.
    probability : float
        Of each frame to have some.
    """
    side = frames.shape[-1]
    for index in chosen(len(frames), probability).nonzero()[:, 0].tolist():
        lines, letters = int(torch.randint(1, 6, ())), int(torch.randint(3, 14, ()))
        strokes = (torch.rand(lines, letters, *_LETTER) < 0.5).float()
        strokes = F.pad(strokes, (0, 1, 0, 2)).transpose(1, 2).flatten(2).flatten(0, 1)
        # Strokes are one to two pixels wide at a side of 256.
        thickness = side / 256 * float(torch.empty(()).uniform_(0.8, 1.8))
        height, width = (min(side, max(1, round(n * thickness))) for n in strokes.shape)
        strokes = F.interpolate(
            strokes[None, None], (height, width), mode="bilinear", antialias=True
        )[0].to(frames.device)
        rows, columns = _place(side, height, width)
        behind = frames[index, :, rows, columns]
        bright = float(torch.empty(()).uniform_(0.5, 1))
        frames[index, :, rows, columns] = behind * (1 - strokes) + bright * strokes


def _place(side: int, height: int, width: int) -> tuple[slice, slice]:
    """Draw a place: in a corner, at the left or right edge, or anywhere."""
    top = int(torch.randint(0, side - height + 1, ()))
    left = int(torch.randint(0, side - width + 1, ()))
    if torch.rand(()) < 0.7:
        left = 0 if torch.rand(()) < 0.5 else side - width
        if torch.rand(()) < 0.5:
            top = 0 if torch.rand(()) < 0.5 else side - height
    return slice(top, top + height), slice(left, left + width)
