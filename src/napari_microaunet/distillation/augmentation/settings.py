"""How strongly frames are changed: a section of the training recipe."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Probability = Annotated[float, Field(ge=0, le=1)]


class AugmentationSettings(BaseModel):
    """Strengths and probabilities; 0 switches a part off, all 0 only resizes.

    A probability is that of one frame. A strength is the end of the range from
    which the amount is drawn for each frame.

    Attributes
    ----------
    flip : float
        Probability of mirroring left to right and, drawn apart, top to bottom.
    rotation : float
        Largest angle to either side, in degrees, up to 180.
    zoom_in, zoom_out : float
        A frame is magnified up to ``1 + zoom_in`` times or reduced up to
        ``1 + zoom_out`` times, at most 3 times.
    stretch : float
        Width is multiplied and height divided by up to ``1 + stretch``, or the other way
        round, at most by 1.5.
    shift : float
        Largest shift along each axis, as a share of the side, up to 0.5.
    elastic : float
        Standard deviation of the elastic displacement at its strongest, as a share of
        the side. Up to 0.1, where the picture begins to fold over.
    polyp_free_crop : float
        Probability that a frame with a polyp is cropped to a part with as little of it
        as can be found.
    paste : float
        Probability that polyps of another frame are pasted into a negative one.
    border : float
        Probability of cut corners or a round border.
    boxes : float
        Probability of opaque coloured boxes.
    text : float
        Probability of burnt-in text.
    glare : float
        Probability of highlights.
    uneven_light : float
        Share of the light that may be missing in parts of the frame, below 1.
    hue : float
        Largest turn of the hue, in degrees, up to 180.
    saturation, brightness : float
        Both are multiplied by up to ``1 + strength`` and down to ``1 - strength``.
    white_balance : float
        Red, green and blue are each multiplied or divided by up to ``1 + white_balance``.
    gamma : float
        The exponent is at most ``1 + gamma`` and at least its inverse.
    black_level : float
        Largest amount added to or taken off every value, as a share of white.
    blur, motion_blur, low_resolution, sharpen, jpeg : float
        Probabilities of a defocused, shaken, enlarged, sharpened or compressed frame.
    noise : float
        Standard deviation of the noise at its strongest, as a share of white.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    flip: Probability = 0.5
    rotation: Annotated[float, Field(ge=0, le=180)] = 180
    zoom_in: Annotated[float, Field(ge=0, le=2)] = 0.7
    zoom_out: Annotated[float, Field(ge=0, le=2)] = 0.3
    stretch: Annotated[float, Field(ge=0, le=0.5)] = 0.2
    shift: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    elastic: Annotated[float, Field(ge=0, le=0.1)] = 0.03
    polyp_free_crop: Probability = 0.15
    paste: Probability = 0.5
    border: Probability = 0.35
    boxes: Probability = 0.15
    text: Probability = 0.2
    glare: Probability = 0.25
    uneven_light: Annotated[float, Field(ge=0, lt=1)] = 0.5
    hue: Annotated[float, Field(ge=0, le=180)] = 15
    saturation: Probability = 0.6
    brightness: Annotated[float, Field(ge=0, lt=1)] = 0.45
    white_balance: Probability = 0.28
    gamma: Probability = 0.5
    black_level: Annotated[float, Field(ge=0, le=0.5)] = 0.08
    blur: Probability = 0.3
    motion_blur: Probability = 0.1
    low_resolution: Probability = 0.15
    sharpen: Probability = 0.15
    jpeg: Probability = 0.3
    noise: Annotated[float, Field(ge=0, le=0.2)] = 0.03
