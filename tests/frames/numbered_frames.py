"""Pictures that tell their number, so that a test sees which frame it got."""

from __future__ import annotations

import numpy as np


def numbered_picture(number, height=96, width=128):
    """A moving gradient with the frame's number as a bar code on top."""
    y, x = np.mgrid[:height, :width]
    channels = (x * 2 + number * 3, y * 2 + number * 5, x + y + number * 7)
    picture = np.stack(channels, axis=-1).astype(np.uint8)
    for bit in range(12):
        picture[:16, bit * 10 : bit * 10 + 10] = 255 * (number >> bit & 1)
    return picture


def read_number(picture):
    return sum(
        1 << bit for bit in range(12) if picture[2:12, bit * 10 + 3 : bit * 10 + 7].mean() > 128
    )
