from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
from numbered_frames import numbered_picture
from PIL import Image


@pytest.fixture(scope="session")
def make_video():
    def make(
        path,
        codec,
        *,
        frames=60,
        key_every=12,
        b_frames=0,
        times=None,
        rotation=None,
        codec_options=None,
        container_options=None,
    ):
        """Encode numbered pictures; ``times`` in ms makes a variable frame rate."""
        with av.open(str(path), "w", options=container_options or {}) as container:
            stream = container.add_stream(codec, rate=25, options=codec_options or {})
            stream.width, stream.height = 128, 96
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            stream.codec_context.gop_size = key_every
            stream.codec_context.max_b_frames = b_frames
            stream.codec_context.time_base = Fraction(1, 1000 if times else 25)
            if rotation is not None:
                stream.set_display_rotation(rotation)
            for number in range(frames):
                frame = av.VideoFrame.from_ndarray(numbered_picture(number))
                frame.pts = times[number] if times else number
                frame.time_base = stream.codec_context.time_base
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path

    return make


@pytest.fixture
def write_image():
    def write(path, pixels=None, size=(20, 30), **options):
        """Write an image, some smooth colours unless pixels are given."""
        if pixels is None:
            y, x = np.mgrid[: size[0], : size[1]]
            pixels = np.stack([x * 5, y * 7, x * 0 + 90], axis=-1).astype(np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, **options)
        return pixels

    return write
