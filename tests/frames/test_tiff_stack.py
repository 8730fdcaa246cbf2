from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import dask.array
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, TiffImagePlugin

from napari_microaunet.errors import InputError
from napari_microaunet.frames import open_frames
from napari_microaunet.frames.arrays import ArraySequence

GRAY = np.random.default_rng(0).integers(0, 255, (7, 20, 30), np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 255, (7, 20, 30, 3), np.uint8)
PLANES = np.moveaxis(COLOUR, 3, 1)
AS_COLOUR = np.repeat(GRAY[..., np.newaxis], 3, axis=3)


def assert_frames(sequence, expected):
    assert len(sequence) == len(expected)
    assert sequence.canvas_shape == expected.shape[1:3]
    for index in random.Random(0).sample(range(len(expected)), len(expected)):
        frame = sequence.read(index)
        assert frame.dtype == np.uint8
        np.testing.assert_array_equal(frame, expected[index])
    assert sequence.problems == {}


STACKS = {
    "plain gray": (GRAY, {}, AS_COLOUR),
    "plain colour": (COLOUR, {"photometric": "rgb"}, COLOUR),
    "plain planes": (PLANES, {"photometric": "rgb", "planarconfig": "separate"}, COLOUR),
    "pages of planes": (PLANES, {"photometric": "minisblack"}, COLOUR),
    "ImageJ gray": (GRAY, {"imagej": True, "metadata": {"axes": "TYX"}}, AS_COLOUR),
    "ImageJ slices": (GRAY, {"imagej": True, "metadata": {"axes": "ZYX"}}, AS_COLOUR),
    "ImageJ colour": (COLOUR, {"imagej": True, "metadata": {"axes": "TYXS"}}, COLOUR),
    "ImageJ channels": (PLANES, {"imagej": True, "metadata": {"axes": "TCYX"}}, COLOUR),
    "compressed": (COLOUR, {"photometric": "rgb", "compression": "zlib"}, COLOUR),
    "compressed planes": (PLANES, {"photometric": "minisblack", "compression": "zlib"}, COLOUR),
    "tiles": (COLOUR, {"photometric": "rgb", "tile": (16, 16)}, COLOUR),
    "big": (GRAY, {"bigtiff": True}, AS_COLOUR),
    "big-endian": (GRAY, {"byteorder": ">"}, AS_COLOUR),
    "with alpha": (
        np.concatenate([COLOUR, GRAY[..., np.newaxis]], axis=3),
        {"photometric": "rgb"},
        COLOUR,
    ),
    "16 bit": (GRAY.astype(np.uint16) * 257, {}, AS_COLOUR),
    "16 bit big-endian": (GRAY.astype(np.uint16) * 257, {"byteorder": ">"}, AS_COLOUR),
    "12 of 16 bit": (GRAY.astype(np.uint16) * 16, {}, AS_COLOUR),
    "real numbers": ((GRAY / 254).astype(np.float32), {}, None),
}


@pytest.mark.parametrize("kind", STACKS)
def test_stacks(tmp_path, kind):
    values, options, expected = STACKS[kind]
    tifffile.imwrite(tmp_path / "clip.tif", values, **options)
    if expected is None:
        expected = np.repeat(np.round(values * 255).astype(np.uint8)[..., np.newaxis], 3, axis=3)
    assert_frames(open_frames(tmp_path / "clip.tif"), expected)


@pytest.mark.parametrize(
    ("values", "axes", "expected"),
    [
        (GRAY, "TYX", AS_COLOUR),
        (GRAY.astype(np.uint16) * 257, "TYX", AS_COLOUR),
        (COLOUR, "TYXS", COLOUR),
        (PLANES, "TCYX", COLOUR),
        (GRAY[:, np.newaxis, np.newaxis], "TCZYX", AS_COLOUR),
    ],
)
def test_ome(tmp_path, values, axes, expected):
    path = tmp_path / "clip.ome.tiff"
    tifffile.imwrite(path, values, metadata={"axes": axes}, photometric=None)
    sequence = open_frames(path)
    assert sequence.name == "clip"
    assert sequence.frames[3].name == "clip_000003"
    assert sequence.frames[3].source == path
    assert_frames(sequence, expected)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("name", ["clip.tif", "clip.ome.tif"])
@pytest.mark.parametrize(("values", "expected"), [(GRAY, AS_COLOUR), (COLOUR, COLOUR)])
def test_a_stack_that_was_written_frame_by_frame(tmp_path, name, compression, values, expected):
    photometric = "rgb" if values.ndim == 4 else "minisblack"
    with tifffile.TiffWriter(tmp_path / name) as file:
        for frame in values:
            file.write(frame, photometric=photometric, compression=compression)
    assert_frames(open_frames(tmp_path / name), expected)


@pytest.mark.parametrize("at", [1, 2, 3])
def test_pages_of_another_size_are_no_frames(tmp_path, caplog, at):
    pages = list(GRAY[:3])
    pages.insert(at, GRAY[3, :10])
    with tifffile.TiffWriter(tmp_path / "clip.tif") as file:
        for page in pages:
            file.write(page, photometric="minisblack")
    assert_frames(open_frames(tmp_path / "clip.tif"), AS_COLOUR[:3])
    assert f"{tmp_path / 'clip.tif'}: 1 pages of another kind are no frames" in caplog.text


def test_a_thumbnail_before_the_frame_is_one_frame(tmp_path):
    with tifffile.TiffWriter(tmp_path / "clip.tif") as file:
        for page in (GRAY[0, :10], GRAY[1], GRAY[2]):
            file.write(page, photometric="minisblack")
    assert_frames(open_frames(tmp_path / "clip.tif"), AS_COLOUR[:1, :10])


def test_channels_as_pages_that_only_pillow_reads_are_refused(tmp_path):
    pages = [Image.fromarray(plane) for frame in PLANES for plane in frame]
    note = TiffImagePlugin.ImageFileDirectory_v2()
    note[270] = "ImageJ=1.53t\nimages=21\nchannels=3\nframes=7\nhyperstack=true\nmode=composite\n"
    for name, compression in (("plain", None), ("packed", "tiff_lzw")):
        pages[0].save(
            tmp_path / f"{name}.tif",
            save_all=True,
            append_images=pages[1:],
            compression=compression,
            tiffinfo=note,
        )
    assert_frames(open_frames(tmp_path / "plain.tif"), COLOUR)
    with pytest.raises(InputError, match=r"packed\.tif cannot be read .*channels"):
        open_frames(tmp_path / "packed.tif")


def test_a_stack_that_another_program_writes_over_gives_a_reason(tmp_path):
    path = tmp_path / "clip.tif"
    tifffile.imwrite(path, GRAY)
    sequence = open_frames(path)
    first = sequence.read(0)
    with path.open("r+b") as file:
        file.truncate(300)
    with pytest.raises(InputError, match="the stack is damaged there"):
        sequence.read(6)
    np.testing.assert_array_equal(first, AS_COLOUR[0])


def test_of_a_pyramid_the_largest_level_is_read(tmp_path):
    large = GRAY.repeat(4, axis=1).repeat(4, axis=2)
    options = {"tile": (16, 16), "compression": "zlib", "photometric": "minisblack"}
    with tifffile.TiffWriter(tmp_path / "clip.ome.tif") as file:
        file.write(large, subifds=1, metadata={"axes": "TYX"}, **options)
        file.write(large[:, ::2, ::2], subfiletype=1, **options)
    expected = np.repeat(large[..., np.newaxis], 3, axis=3)
    assert_frames(open_frames(tmp_path / "clip.ome.tif"), expected)


def test_deep_pages_that_pillow_reads_are_scaled_alike(tmp_path):
    pages = [Image.fromarray(frame.astype(np.uint16) * 16) for frame in GRAY]
    pages[0].save(
        tmp_path / "a.tif", save_all=True, append_images=pages[1:], compression="tiff_lzw"
    )
    assert_frames(open_frames(tmp_path / "a.tif"), AS_COLOUR)


@pytest.mark.parametrize("other", [COLOUR[0], GRAY[0, :10].astype(np.uint16)])
def test_a_page_that_is_not_like_the_first_gives_a_reason(tmp_path, other):
    pages = [Image.fromarray(GRAY[0].astype(np.uint16) * 16), Image.fromarray(other)]
    pages[0].save(
        tmp_path / "a.tif", save_all=True, append_images=pages[1:], compression="tiff_lzw"
    )
    sequence = open_frames(tmp_path / "a.tif")
    np.testing.assert_array_equal(sequence.read(0), AS_COLOUR[0])
    with pytest.raises(InputError, match="than the first"):
        sequence.read(1)


def test_a_pixel_without_end_does_not_darken_the_others(tmp_path):
    values = GRAY.astype(np.float32)
    values[0, 0, 0] = np.inf
    tifffile.imwrite(tmp_path / "a.tif", values)
    sequence = open_frames(tmp_path / "a.tif")
    assert np.abs(sequence.read(3).astype(int) - AS_COLOUR[3]).max() <= 2


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "CMYK"])
def test_stacks_of_other_programs(tmp_path, compression, mode):
    pages = [Image.fromarray(frame).convert(mode) for frame in COLOUR]
    pages[0].save(
        tmp_path / "clip.tif", save_all=True, append_images=pages[1:], compression=compression
    )
    expected = np.stack([np.asarray(page.convert("RGB")) for page in pages])
    assert_frames(open_frames(tmp_path / "clip.tif"), expected)


def test_jpeg_in_tiff(tmp_path):
    y, x = np.mgrid[:64, :64]
    smooth = np.stack([x, y, x + y], axis=2).astype(np.uint8)
    pages = [Image.fromarray(smooth), Image.fromarray(255 - smooth)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:], compression="jpeg")
    sequence = open_frames(tmp_path / "a.tif")
    assert len(sequence) == 2
    assert np.abs(sequence.read(1).astype(int) - (255 - smooth)).mean() < 5


@pytest.mark.parametrize("name", ["frame.tif", "frame.tiff"])
@pytest.mark.parametrize("values", [GRAY[0], COLOUR[0], PLANES[0]])
def test_single_images(tmp_path, name, values):
    options = {"planarconfig": "separate"} if values.shape[0] == 3 else {}
    photometric = "rgb" if values.ndim == 3 else "minisblack"
    tifffile.imwrite(tmp_path / name, values, photometric=photometric, **options)
    expected = AS_COLOUR[:1] if values.ndim == 2 else COLOUR[:1]
    assert_frames(open_frames(tmp_path / name), expected)


def test_large_uncompressed_stacks_are_not_read_into_memory(tmp_path):
    path = tmp_path / "long.tif"
    tifffile.memmap(path, shape=(3000, 1000, 1000), dtype=np.uint8, photometric="minisblack")[
        2999, 5
    ] = 77
    sequence = open_frames(path)
    assert len(sequence) == 3000
    assert sequence.read(2999)[5].min() == 77


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_threads(tmp_path, compression):
    tifffile.imwrite(tmp_path / "a.tif", COLOUR, photometric="rgb", compression=compression)
    sequence = open_frames(tmp_path / "a.tif")
    indices = [random.Random(0).randrange(7) for _ in range(200)]
    with ThreadPoolExecutor(8) as pool:
        for index, frame in zip(indices, pool.map(sequence.read, indices), strict=True):
            np.testing.assert_array_equal(frame, COLOUR[index])


def test_threads_on_pages_that_pillow_reads(tmp_path):
    pages = [Image.fromarray(frame) for frame in COLOUR]
    pages[0].save(
        tmp_path / "a.tif", save_all=True, append_images=pages[1:], compression="tiff_lzw"
    )
    sequence = open_frames(tmp_path / "a.tif")
    indices = [random.Random(0).randrange(7) for _ in range(200)]
    with ThreadPoolExecutor(8) as pool:
        for index, frame in zip(indices, pool.map(sequence.read, indices), strict=True):
            np.testing.assert_array_equal(frame, COLOUR[index])


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_truncated_stack(tmp_path, compression):
    path = tmp_path / "clip.tif"
    tifffile.imwrite(path, COLOUR, photometric="rgb", compression=compression)
    with tifffile.TiffFile(path) as file:
        cut = file.pages[4].dataoffsets[0] + 10
        # Directories are at the end of a file; a copy that broke off lacks data in between.
    content = bytearray(path.read_bytes())
    end = cut + 500
    content[cut:end] = b"\xff" * (end - cut)
    path.write_bytes(content)
    sequence = open_frames(path)
    np.testing.assert_array_equal(sequence.read(3), COLOUR[3])
    np.testing.assert_array_equal(sequence.read(6), COLOUR[6])
    if compression:
        with pytest.raises(InputError, match=r"clip_000004 .*damaged"):
            sequence.read(4)
        assert list(sequence.problems) == [4]


def refusal(path):
    with pytest.raises(InputError) as error:
        open_frames(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("content", [b"", b"no image", b"II*\0\0\0\0\0"])
def test_no_tiff(tmp_path, content):
    (tmp_path / "bad.tif").write_bytes(content)
    refusal(tmp_path / "bad.tif")


def test_cut_before_the_directories(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", COLOUR, photometric="rgb", compression="zlib")
    content = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(content[: len(content) // 10])
    refusal(tmp_path / "a.tif")


@given(
    changes=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=4)), max_size=5),
    length=st.floats(0.2, 1),
    near_start=st.booleans(),
)
@settings(max_examples=80, deadline=None)
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_any_damage_gives_a_reason(tmp_path_factory, compression, changes, length, near_start):
    path = tmp_path_factory.mktemp("damaged") / "clip.tif"
    tifffile.imwrite(path, COLOUR, photometric="rgb", compression=compression)
    content = bytearray(path.read_bytes())
    for place, junk in changes:
        start = int(place * ((400 if near_start else len(content)) - 4))
        content[start : start + len(junk)] = junk
    path.write_bytes(content[: int(length * len(content))])
    with suppress(InputError):
        sequence = open_frames(path)
        for index in range(min(3, len(sequence))):
            with suppress(InputError):
                assert sequence.read(index).shape == (*sequence.canvas_shape, 3)


@pytest.mark.parametrize("dtype", [np.complex64, np.int64, np.float64])
def test_unusual_numbers(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "a.tif", GRAY.astype(dtype))
    if dtype == np.complex64:
        assert "complex64" in refusal(tmp_path / "a.tif")
    else:
        assert open_frames(tmp_path / "a.tif").read(0).max() > 200


def test_volumes_over_time_are_refused(tmp_path):
    for slices in (3, 5):  # three are no colours either
        stack = np.zeros((4, slices, 20, 30), np.uint8)
        tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True, metadata={"axes": "TZYX"})
        assert str(stack.shape) in refusal(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (GRAY, AS_COLOUR),
        (COLOUR, COLOUR),
        (PLANES, COLOUR),
        (GRAY[0], AS_COLOUR[:1]),
        (COLOUR[0], COLOUR[:1]),
        (GRAY[:3], AS_COLOUR[:3]),
        (GRAY[:1], AS_COLOUR[:1]),
        (GRAY > 99, np.where(AS_COLOUR > 99, 255, 0)),
        (dask.array.from_array(COLOUR, chunks=(1, 20, 30, 3)), COLOUR),
        (zarr.array(COLOUR), COLOUR),
    ],
    ids=lambda value: f"{type(value).__module__}{value.shape}",
)
def test_arrays(array, expected):
    sequence = ArraySequence(array, "layer")
    assert_frames(sequence, expected)
    assert sequence.frames[-1].name == f"layer_{len(expected) - 1:06d}"


@pytest.mark.parametrize("shape", [(5,), (0, 20, 30), (2, 4, 5, 20, 30), (3, 9000, 10)])
def test_arrays_that_are_no_frames(shape):
    with pytest.raises(InputError, match="layer"):
        ArraySequence(np.zeros(shape, np.uint8), "layer")
