from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageOps

from napari_microaunet.errors import InputError
from napari_microaunet.frames import open_frames
from napari_microaunet.frames.images import read_rgb, read_size, to_uint8
from napari_microaunet.frames.sequence import UnreadableError

ORIENTATION = 0x0112


def smooth(height=24, width=40):
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 5, y * 7, x + y + 60], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff", ".webp", ".PNG"])
def test_lossless_formats_keep_every_pixel(tmp_path, suffix):
    path = tmp_path / f"frame{suffix}"
    Image.fromarray(smooth()).save(path, **({"lossless": True} if suffix == ".webp" else {}))
    sequence = open_frames(path)
    assert (sequence.frames[0].height, sequence.frames[0].width) == (24, 40)
    np.testing.assert_array_equal(sequence.read(0), smooth())


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".JPG"])
def test_jpeg(tmp_path, suffix):
    path = tmp_path / f"frame{suffix}"
    Image.fromarray(smooth()).save(path, format="JPEG", quality=98, subsampling=0)
    assert np.abs(open_frames(path).read(0).astype(int) - smooth()).max() < 12


@given(pixels=arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3))))
@settings(max_examples=30, deadline=None)
@pytest.mark.parametrize("image_format", ["PNG", "BMP", "TIFF"])
def test_any_size_and_content(tmp_path_factory, image_format, pixels):
    path = tmp_path_factory.mktemp("any") / "frame.png"
    Image.fromarray(pixels).save(path, format=image_format)
    assert read_size(path) == pixels.shape[:2]
    np.testing.assert_array_equal(read_rgb(path), pixels)


@pytest.mark.parametrize("orientation", range(9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_orientation(tmp_path, suffix, orientation):
    path = tmp_path / f"frame{suffix}"
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(smooth()).save(path, exif=exif)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert expected.shape[:2] == ((40, 24) if orientation >= 5 else (24, 40))
    sequence = open_frames(path)
    assert (sequence.frames[0].height, sequence.frames[0].width) == expected.shape[:2]
    np.testing.assert_array_equal(sequence.read(0), expected)


@pytest.mark.parametrize("mode", ["L", "RGBA", "I;16"])
def test_orientation_of_tiff_files_that_pillow_maps_into_memory(tmp_path, mode):
    gray = Image.fromarray(smooth()[..., 0])
    path = tmp_path / "frame.tif"
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    image = Image.fromarray(smooth()[..., 0].astype(np.uint16) * 257) if "I" in mode else gray
    image.convert(mode).save(path, exif=exif)
    sequence = open_frames(path)
    assert (sequence.frames[0].height, sequence.frames[0].width) == (40, 24)
    expected = np.asarray(gray.transpose(Image.Transpose.ROTATE_270).convert("RGB"))
    np.testing.assert_array_equal(sequence.read(0), expected)


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        ("L", ".png"),
        ("L", ".jpg"),
        ("1", ".png"),
        ("P", ".png"),
        ("P", ".bmp"),
        ("LA", ".png"),
        ("RGBA", ".png"),
        ("RGBA", ".webp"),
        ("RGBA", ".tif"),
        ("CMYK", ".jpg"),
        ("CMYK", ".tif"),
        ("YCbCr", ".jpg"),
        ("I;16", ".png"),
        ("I;16", ".tif"),
        ("F", ".tif"),
    ],
)
def test_modes(tmp_path, mode, suffix):
    path = tmp_path / f"frame{suffix}"
    if mode == "I;16":
        image = Image.fromarray(smooth()[:, :, 0].astype(np.uint16) * 257)
    else:
        image = Image.fromarray(smooth()).convert(mode)
    image.save(path)
    if mode in {"I;16", "F"}:
        gray = smooth()[:, :, 0] if mode == "I;16" else np.asarray(image)
        brightest = gray.max() if mode == "F" else 255
        expected = np.repeat((gray / brightest * 255)[:, :, np.newaxis], 3, axis=2)
    else:
        expected = np.asarray(image.convert("RGB"))
    frame = open_frames(path).read(0)
    assert frame.shape == (24, 40, 3)
    assert frame.dtype == np.uint8
    assert np.abs(frame.astype(float) - expected).mean() < 4


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_16_bit_files_of_every_sensor_depth_are_bright(tmp_path, bits):
    values = np.linspace(0, 2**bits - 1, 24 * 40).reshape(24, 40).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "frame.png")
    frame = open_frames(tmp_path / "frame.png").read(0)
    np.testing.assert_array_equal(frame[:, :, 1], values >> (bits - 8))


def test_16_bit_colours(tmp_path):
    colours = smooth().astype(">u2") * 257
    rows = b"".join(b"\0" + row.tobytes() for row in colours)

    def chunk(name, content):
        checked = name + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", 40, 24, 16, 2, 0, 0, 0)
    (tmp_path / "frame.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    np.testing.assert_array_equal(open_frames(tmp_path / "frame.png").read(0), smooth())


def test_transparent_pixels_are_black(tmp_path):
    pixels = np.full((20, 20, 4), 200, np.uint8)
    pixels[:, :10, 3] = 0
    pixels[:, 10:, 3] = 255
    Image.fromarray(pixels).save(tmp_path / "frame.png")
    frame = open_frames(tmp_path / "frame.png").read(0)
    assert frame[:, :10].max() == 0
    assert frame[:, 10:].min() == 200


def test_scaling_of_a_stack_is_the_same_for_every_frame():
    dark, bright = np.array([0, 100], np.uint16), np.array([0, 4000], np.uint16)
    assert to_uint8(dark, 4000).tolist() == [0, 6]
    assert to_uint8(bright, 4000).tolist() == [0, 250]
    # One that is brighter than the frames that were looked at is white.
    assert to_uint8(np.array([0, 4000, 5000], np.uint16), 4000).tolist() == [0, 250, 255]
    assert to_uint8(np.array([False, True])).tolist() == [0, 255]
    assert to_uint8(np.array([-5, 300], np.int16)).tolist() == [0, 75]
    assert to_uint8(np.array([-1.0, 0.5, 1.0, np.nan])).tolist() == [0, 128, 255, 0]
    assert to_uint8(np.array([0, 50_000, 100_000], np.uint32)).tolist() == [0, 128, 255]
    assert to_uint8(np.array([0, 2**31 - 1], np.int32)).tolist() == [0, 255]
    assert to_uint8(np.array([0.0, 300.0, np.inf, -np.inf])).tolist() == [0, 255, 255, 0]


def problem(path):
    """Return why a file beside a good one is not readable, at opening or at reading."""
    Image.fromarray(smooth()).save(path.parent / "a_good_one.png")
    sequence = open_frames(path.parent)
    assert [frame.name for frame in sequence.frames] == ["a_good_one", path.stem]
    np.testing.assert_array_equal(sequence.read(0), smooth())
    with pytest.raises(InputError) as error:
        sequence.read(1)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert list(sequence.problems) == [1]
    return sequence.problems[1]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tif", ".webp"])
class TestDamaged:
    def content(self, suffix):
        buffer = io.BytesIO()
        noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
        name = {".jpg": "JPEG", ".tif": "TIFF"}.get(suffix, suffix[1:].upper())
        Image.fromarray(noise).save(buffer, format=name)
        return buffer.getvalue()

    def test_empty(self, tmp_path, suffix):
        (tmp_path / f"bad{suffix}").write_bytes(b"")
        assert problem(tmp_path / f"bad{suffix}") == "the file is empty"

    def test_other_content(self, tmp_path, suffix):
        (tmp_path / f"bad{suffix}").write_text("a letter, not a picture")
        assert "no image" in problem(tmp_path / f"bad{suffix}")

    @pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
    def test_truncated(self, tmp_path, suffix, share):
        content = self.content(suffix)
        (tmp_path / f"bad{suffix}").write_bytes(content[: int(len(content) * share)])
        reason = problem(tmp_path / f"bad{suffix}")
        assert "damaged" in reason or "no image" in reason

    @given(place=st.floats(0, 1), junk=st.binary(min_size=1, max_size=40))
    @settings(max_examples=60, deadline=None)
    def test_any_damage_gives_a_reason(self, tmp_path_factory, suffix, place, junk):
        content = bytearray(self.content(suffix))
        start = int(place * (len(content) - len(junk)))
        content[start : start + len(junk)] = junk
        path = tmp_path_factory.mktemp("damaged") / f"bad{suffix}"
        path.write_bytes(content)
        for read in (read_size, read_rgb):
            try:
                read(path)
            except UnreadableError as error:
                assert str(error)  # noqa: PT017 - reading may succeed as well


def png_header(width, height):
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    checked = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + checked + struct.pack(">I", 100) + b"IDAT" + bytes(104)


@pytest.mark.parametrize("side", [8193, 20_000, 100_000, 2**31 - 1])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_absurd_sides_are_refused(tmp_path, side):
    (tmp_path / "bomb.png").write_bytes(png_header(side, side))
    assert "8192 px a side are refused" in problem(tmp_path / "bomb.png")


def test_file_that_vanishes_and_comes_back(tmp_path):
    for name in ("a", "b"):
        Image.fromarray(smooth()).save(tmp_path / f"{name}.png")
    sequence = open_frames(tmp_path)
    (tmp_path / "b.png").rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="missing"):
        sequence.read(1)
    assert 1 in sequence.problems
    (tmp_path / "elsewhere").rename(tmp_path / "b.png")
    np.testing.assert_array_equal(sequence.read(1), smooth())
    assert sequence.problems == {}


def test_file_that_is_exchanged_for_one_of_another_size(tmp_path):
    for name in ("a", "b"):
        Image.fromarray(smooth()).save(tmp_path / f"{name}.png")
    sequence = open_frames(tmp_path)
    Image.fromarray(smooth(10, 10)).save(tmp_path / "b.png")
    with pytest.raises(InputError, match="10 x 10"):
        sequence.read(1)
