"""Render the sample data and the frames that fine-tuning replays, into a folder.

``python scripts/render_sample_data.py FOLDER``; files of the same names are replaced.
"""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import tifffile
from PIL import Image

from napari_microaunet.curation.dataset import open_dataset
from napari_microaunet.curation.manifest import MANIFEST_NAME, write_manifest
from napari_microaunet.frames.masks import write_mask_file
from napari_microaunet.frames.rendered import render_clip, render_frame


class _Still(NamedTuple):
    seed: int
    height: int
    width: int
    polyps: int
    suffix: str


# Sizes as polyp sets have them. JPEG as recorded frames come, two small ones without loss.
_STILLS = (
    _Still(12, 576, 720, 1, ".jpg"),
    _Still(122, 480, 640, 1, ".jpg"),
    _Still(131, 530, 622, 1, ".jpg"),
    _Still(118, 576, 720, 2, ".jpg"),
    _Still(151, 288, 384, 1, ".png"),
    _Still(119, 480, 640, 0, ".jpg"),
    _Still(134, 1024, 1280, 1, ".jpg"),
    _Still(107, 530, 622, 1, ".jpg"),
    _Still(146, 576, 720, 1, ".jpg"),
    _Still(44, 480, 640, 1, ".jpg"),
    _Still(129, 288, 384, 0, ".png"),
    _Still(145, 530, 622, 1, ".jpg"),
)
_JPEG_QUALITY = 95
_CLIP_SEED, _CLIP_LENGTH, _CLIP_HEIGHT, _CLIP_WIDTH = 7, 96, 288, 360
_CLIP_RATE = 25
# Of the 300 that the bundled models learned from, see training/pack.py.
_REPLAY_SEEDS = range(1000, 1060)
_REPLAY_HEIGHT, _REPLAY_WIDTH, _REPLAY_QUALITY = 288, 360, 88


def write_stills(folder: Path) -> None:
    """Write ``images`` and ``masks`` (0 and 255, named as the frames)."""
    images, masks = folder / "images", folder / "masks"
    images.mkdir(parents=True, exist_ok=True)
    masks.mkdir(exist_ok=True)
    for number, (seed, height, width, polyps, suffix) in enumerate(_STILLS, start=1):
        frame, mask = render_frame(seed, height, width, polyps)
        name = f"sample_{number:02d}"
        Image.fromarray(frame).save(images / f"{name}{suffix}", quality=_JPEG_QUALITY)
        Image.fromarray(np.where(mask > 0, np.uint8(255), np.uint8(0))).save(masks / f"{name}.png")


def write_clip(folder: Path) -> None:
    """Write ``clip.mp4`` (H.264) and ``clip-masks.tif`` (uint8 labels, one page per frame)."""
    labels = []
    with av.open(folder / "clip.mp4", "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(_CLIP_RATE), options={"crf": "20"})
        stream.height, stream.width, stream.pix_fmt = _CLIP_HEIGHT, _CLIP_WIDTH, "yuv420p"
        for frame, mask in render_clip(_CLIP_SEED, _CLIP_LENGTH, _CLIP_HEIGHT, _CLIP_WIDTH):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            labels.append(mask)
        container.mux(stream.encode())
    tifffile.imwrite(
        folder / "clip-masks.tif", np.stack(labels), compression="zlib", metadata={"axes": "TYX"}
    )


def write_replay(folder: Path) -> None:
    """Write a curated dataset, where all frames are for training."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "masks").mkdir(exist_ok=True)
    (folder / MANIFEST_NAME).unlink(missing_ok=True)
    for seed in _REPLAY_SEEDS:
        frame, mask = render_frame(seed, _REPLAY_HEIGHT, _REPLAY_WIDTH, int(seed % 4 != 0))
        Image.fromarray(frame).save(folder / "images" / f"{seed}.jpg", quality=_REPLAY_QUALITY)
        write_mask_file(folder / "masks" / f"{seed}.png", mask)
    manifest = open_dataset(folder).manifest
    update = {"split": "training", "source": "rendered"}
    frames = tuple(frame.model_copy(update=update) for frame in manifest.frames)
    write_manifest(folder / MANIFEST_NAME, manifest.model_copy(update={"frames": frames}))


if __name__ == "__main__":
    target = Path(sys.argv[1])
    write_stills(target / "frames")
    write_clip(target)
    write_replay(target / "replay")
