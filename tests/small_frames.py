"""Frames of 96 x 96 pixels with polyps that a network can learn in seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from napari_microaunet.frames.masks import write_mask_file

if TYPE_CHECKING:
    from pathlib import Path

SIDE = 96


def write_frames(folder: Path, polyps: int = 24, negatives: int = 4, unlabelled: int = 4) -> Path:
    """Write images/ and masks/, negative/ and unlabelled/, of frames that resemble no other."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    for kind, count in (("images", polyps), ("negative", negatives), ("unlabelled", unlabelled)):
        (folder / kind).mkdir(parents=True)
        for number in range(count):
            random = np.random.default_rng([len(kind), number])
            coarse = random.integers(60, 255, (6, 6, 3)).astype(np.uint8)
            frame = np.array(Image.fromarray(coarse).resize((SIDE, SIDE)))
            row, column, radius = random.integers((30, 30, 10), (66, 66, 25))
            polyp = (rows - row) ** 2 + (columns - column) ** 2 < radius**2
            if kind != "negative":
                frame[polyp] = frame[polyp] // 2 + (90, 30, 30)
            Image.fromarray(frame).save(folder / kind / f"{number}.png")
            if kind == "images":
                (folder / "masks").mkdir(exist_ok=True)
                write_mask_file(folder / "masks" / f"{number}.png", polyp.astype(np.uint8))
    return folder
