"""What light, sensor and processor do to the colours and the sharpness of a frame.

Kornia's operators are called with factors drawn here for each frame. Its
containers would draw them as well, but apply an operator to every frame and
then keep some: 27 ms a frame for JPEG on one core in place of 5.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from kornia.enhance import (
    adjust_gamma,
    adjust_hue,
    adjust_saturation_with_gray_subtraction,
    jpeg_codec_differentiable,
)
from kornia.filters import gaussian_blur2d, motion_blur, unsharp_mask
from torch import Tensor
from torch.nn import functional as F

from napari_microaunet.distillation.augmentation.draws import (
    chosen,
    log_uniform,
    per_frame,
    uniform,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_microaunet.distillation.augmentation.settings import AugmentationSettings

# Mean of the lit pixels beyond which no frame is darkened or brightened: behind these a polyp
# can hardly be told any more.
_DARKEST, _BRIGHTEST = 0.2, 0.6
_LIT = 0.06
# Standard deviation of the blur and length of the motion, as shares of the side.
_BLUR = (0.002, 0.008)
_LONGEST_MOTION = 0.04
# To which share of its resolution a frame may fall, how far it may be sharpened, and the
# qualities of JPEG.
_LOW_RESOLUTION = (0.35, 0.8)
_MOST_SHARPENING = 1.5
_JPEG_QUALITY = (20, 90)


def change_colours(frames: Tensor, settings: AugmentationSettings) -> Tensor:
    """Change hue, saturation, gamma, brightness, white balance, light and black level.

    Parameters
    ----------
    frames : float32 (n, 3, side, side)
        RGB in [0, 1].
    settings : AugmentationSettings
        How far.

    Returns
    -------
    float32 (n, 3, side, side)
        RGB in [0, 1].
    """
    count, _, side, _ = frames.shape
    lit = (frames.amax(1, keepdim=True) > _LIT).float()
    before = _mean(frames, lit)
    if settings.hue:
        turn = math.radians(settings.hue)
        frames = adjust_hue(frames, uniform(count, -turn, turn))
    if settings.saturation:
        factor = uniform(count, 1 - settings.saturation, 1 + settings.saturation)
        frames = adjust_saturation_with_gray_subtraction(frames, factor)
    if settings.gamma:
        exponent = log_uniform(count, 1 / (1 + settings.gamma), 1 + settings.gamma)
        frames = adjust_gamma(frames, exponent)
    most = 1 + settings.white_balance
    balance = log_uniform(3 * count, 1 / most, most).view(count, 3, 1, 1)
    missing = uniform(count, 0, settings.uneven_light).view(count, 1, 1, 1)
    light = 1 - missing * torch.rand(count, 1, 3, 3)
    light = F.interpolate(light, (side, side), mode="bilinear", align_corners=True)
    frames = frames * (balance.to(frames.device) * light.to(frames.device))
    level = _mean(frames, lit)
    factor = uniform(count, 1 - settings.brightness, 1 + settings.brightness)
    wanted = per_frame(factor, frames) * level
    # A frame that came darker or brighter than the limits may stay as it came.
    wanted = wanted.clamp(before.clamp(max=_DARKEST), before.clamp(min=_BRIGHTEST))
    # Where nothing is lit there is no mean, and the gain is 1.
    gain = (wanted + 1e-6) / (level + 1e-6)
    offset = per_frame(uniform(count, -settings.black_level, settings.black_level), frames)
    return (frames * gain + offset).clamp(0, 1)


def change_sharpness(frames: Tensor, settings: AugmentationSettings) -> Tensor:
    """Blur, shake, enlarge, add noise, sharpen and compress, in the order a processor would.

    Parameters
    ----------
    frames : float32 (n, 3, side, side)
        RGB in [0, 1].
    settings : AugmentationSettings
        How often, and the noise.

    Returns
    -------
    float32 (n, 3, side, side)
        RGB in [0, 1].
    """
    frames = _on_some(frames, settings.blur, _defocus)
    frames = _on_some(frames, settings.motion_blur, _shake)
    frames = _on_some(frames, settings.low_resolution, _enlarge)
    if settings.noise:
        deviation = per_frame(uniform(len(frames), 0, settings.noise), frames)
        frames = (frames + torch.randn_like(frames) * deviation).clamp(0, 1)
    frames = _on_some(frames, settings.sharpen, _sharpen)
    frames = _on_some(frames, settings.jpeg, _compress)
    return frames.clamp(0, 1)


def _on_some(frames: Tensor, probability: float, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Change the frames that the probability falls on."""
    some = chosen(len(frames), probability)
    if some.any():
        frames[some] = change(frames[some])
    return frames


def _defocus(frames: Tensor) -> Tensor:
    least, most = (frames.shape[-1] * share for share in _BLUR)
    deviation = uniform(len(frames), least, most)[:, None].expand(-1, 2)
    blurred: Tensor = gaussian_blur2d(frames, 2 * math.ceil(2 * most) + 1, deviation)
    return blurred


def _shake(frames: Tensor) -> Tensor:
    longest = max(1, int(frames.shape[-1] * _LONGEST_MOTION / 2))
    length = 2 * int(torch.randint(1, longest + 1, ())) + 1
    angle = uniform(len(frames), 0, 360).to(frames.device)
    shaken: Tensor = motion_blur(frames, length, angle, torch.zeros_like(angle), mode="bilinear")
    return shaken


def _enlarge(frames: Tensor) -> Tensor:
    side = frames.shape[-1]
    enlarged = []
    for frame, share in zip(
        frames.split(1), uniform(len(frames), *_LOW_RESOLUTION).tolist(), strict=True
    ):
        smaller = F.interpolate(frame, [round(side * share)] * 2, mode="bilinear", antialias=True)
        enlarged.append(F.interpolate(smaller, [side] * 2, mode="bilinear"))
    return torch.cat(enlarged)


def _sharpen(frames: Tensor) -> Tensor:
    amount = per_frame(uniform(len(frames), 0, _MOST_SHARPENING), frames)
    return torch.lerp(frames, unsharp_mask(frames, 5, (1.0, 1.0)), amount).clamp(0, 1)


def _compress(frames: Tensor) -> Tensor:
    decoded: Tensor = jpeg_codec_differentiable(frames, uniform(len(frames), *_JPEG_QUALITY))
    return decoded


def _mean(frames: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean level, (n, 1, 1, 1)."""
    total = 3 * weights.sum((1, 2, 3), keepdim=True).clamp(min=1)
    return (frames * weights).sum((1, 2, 3), keepdim=True) / total
