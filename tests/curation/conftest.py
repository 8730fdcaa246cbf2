from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from PIL import Image

from napari_microaunet.frames.rendered import render_frame


@pytest.fixture(scope="session")
def rendered():
    """Give a rendered frame of 192 x 240 by its seed."""
    return cache(lambda seed: render_frame(seed, 192, 240)[0])


@pytest.fixture
def write_frame():
    def write(path, seed, mask=None):
        """Write a frame of 24 x 32 that resembles no other, and its mask if one is given."""
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = np.random.default_rng(seed).integers(40, 255, (6, 8, 3)).astype(np.uint8)
        Image.fromarray(coarse).resize((32, 24), Image.Resampling.BICUBIC).save(path)
        if mask is not None:
            mask.parent.mkdir(parents=True, exist_ok=True)
            polyp = np.zeros((24, 32), np.uint8)
            polyp[5:9, 7 : 20 + seed % 5] = 255
            Image.fromarray(polyp).save(mask)

    return write


@pytest.fixture
def write_set(write_frame):
    def write(folder, count, masks=True):
        """Write a set of stills in the layout of Kvasir-SEG."""
        for seed in range(count):
            mask = folder / "masks" / f"{seed}.png" if masks else None
            write_frame(folder / "images" / f"{seed}.png", seed, mask)
        return folder

    return write
