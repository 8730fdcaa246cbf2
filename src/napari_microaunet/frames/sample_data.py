"""The sample data: where it lies, and how it is made.

``python -m napari_microaunet.frames.sample_data FOLDER`` writes it anew.
"""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from napari_microaunet.errors import InputError


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


def sample_data_folder() -> Path:
    """Find the sample data, in an installed package or in a checkout.

    Returns
    -------
    Path
        Folder with ``frames/images``, ``frames/masks``, ``clip.mp4`` and ``clip-masks.tif``.

    Raises
    ------
    InputError
        If it is in neither place.
    """
    package = Path(__file__).parents[1]
    for place in (package / "sample_data", package.parents[1] / "sample_data"):
        if (place / "frames").is_dir():
            return place
    raise InputError(f"The sample data is missing from {package}; install napari-microaunet again.")


def write_sample_data(folder: Path) -> None:
    """Render the sample data into a folder; files of the same names are replaced.

    Parameters
    ----------
    folder : Path
        Made if need be. It gets ``frames/images`` and ``frames/masks`` (0 and 255, named as
        the frames), ``clip.mp4`` (H.264) and ``clip-masks.tif`` (uint8 labels, one page per
        frame).
    """
    from napari_microaunet.frames.rendered import render_frame

    images, masks = folder / "frames" / "images", folder / "frames" / "masks"
    images.mkdir(parents=True, exist_ok=True)
    masks.mkdir(parents=True, exist_ok=True)
    for number, (seed, height, width, polyps, suffix) in enumerate(_STILLS, start=1):
        frame, mask = render_frame(seed, height, width, polyps)
        name = f"sample_{number:02d}"
        Image.fromarray(frame).save(images / f"{name}{suffix}", quality=_JPEG_QUALITY)
        Image.fromarray(np.where(mask > 0, np.uint8(255), np.uint8(0))).save(masks / f"{name}.png")
    _write_clip(folder)


def _write_clip(folder: Path) -> None:
    import av
    import tifffile

    from napari_microaunet.frames.rendered import render_clip

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


if __name__ == "__main__":
    write_sample_data(Path(sys.argv[1]))
