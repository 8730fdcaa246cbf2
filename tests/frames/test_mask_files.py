from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from napari_microaunet.errors import InputError
from napari_microaunet.frames import open_frames
from napari_microaunet.frames.masks import read_mask_file, write_mask_file


def disc(size=64):
    y, x = np.mgrid[:size, :size]
    return (y - 30) ** 2 + (x - 34) ** 2 < 15**2


@given(labels=arrays(np.uint8, st.tuples(st.integers(1, 30), st.integers(1, 30))))
@settings(max_examples=50, deadline=None)
def test_what_is_written_is_read(tmp_path_factory, labels):
    path = tmp_path_factory.mktemp("mask") / "mask.png"
    write_mask_file(path, labels)
    np.testing.assert_array_equal(read_mask_file(path), labels)
    assert [file.name for file in path.parent.iterdir()] == ["mask.png"]


def test_frame_with_nothing_but_glare_to_ignore_stays_so(tmp_path):
    labels = np.where(disc(), np.uint8(255), np.uint8(0))
    write_mask_file(tmp_path / "mask.png", labels)
    np.testing.assert_array_equal(read_mask_file(tmp_path / "mask.png"), labels)


def test_mask_that_cannot_be_written_leaves_the_old_one(tmp_path):
    write_mask_file(tmp_path / "mask.png", disc().astype(np.uint8))
    with pytest.raises(TypeError):
        write_mask_file(tmp_path / "mask.png", np.zeros((4, 4), complex))
    np.testing.assert_array_equal(read_mask_file(tmp_path / "mask.png"), disc())
    assert [file.name for file in tmp_path.iterdir()] == ["mask.png"]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tif", ".webp"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_black_and_white(tmp_path, suffix, mode):
    image = Image.fromarray(np.where(disc(), np.uint8(255), np.uint8(0))).convert(mode)
    image.save(tmp_path / f"mask{suffix}")
    mask = read_mask_file(tmp_path / f"mask{suffix}")
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, disc())


def test_gray_edges_of_jpeg_are_cut_at_127(tmp_path):
    blurred = np.where(disc(), 250, 0) * 0.9 + np.random.default_rng(0).integers(0, 20, (64, 64))
    Image.fromarray(blurred.astype(np.uint8)).save(tmp_path / "mask.jpg", quality=60)
    np.testing.assert_array_equal(read_mask_file(tmp_path / "mask.jpg"), disc())


@pytest.mark.parametrize("colour", [(255, 0, 0), (255, 255, 0), (255, 0, 255)])
@pytest.mark.parametrize("colours", [2, 256])
def test_a_palette_that_was_chosen_for_the_picture(tmp_path, colour, colours):
    picture = np.where(disc()[..., np.newaxis], np.uint8(colour), np.uint8(0))
    image = Image.fromarray(picture).quantize(colours)
    assert image.getpalette()[:3] == list(colour)  # the polyp has index 0
    image.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask_file(tmp_path / "mask.png"), disc())


def test_gray_edges_in_a_png(tmp_path):
    Image.fromarray(np.where(disc(128), np.uint8(255), np.uint8(0))).resize((64, 64)).save(
        tmp_path / "mask.png"
    )
    mask = read_mask_file(tmp_path / "mask.png")
    assert set(np.unique(mask)) == {0, 1}


@pytest.mark.parametrize("stray", [(11,), (9, 11), tuple(range(7, 15))])
def test_stray_grays_beside_white_are_no_labels(tmp_path, stray):
    values = np.where(disc(), np.uint8(255), np.uint8(0))
    values[0, : len(stray)] = stray  # so in 75 of the PNG masks of CVC-ClinicDB
    Image.fromarray(values).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask_file(tmp_path / "mask.png"), disc())


@pytest.mark.parametrize("mode", ["1", "P"])
def test_one_bit_and_black_and_white_palette(tmp_path, mode):
    Image.fromarray(disc()).convert(mode).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask_file(tmp_path / "mask.png"), disc())


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255)])
def test_coloured_mask(tmp_path, colour):
    pixels = disc()[:, :, np.newaxis] * np.array(colour, np.uint8)
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask_file(tmp_path / "mask.png"), disc())


def test_mask_in_the_alpha_channel(tmp_path):
    pixels = np.full((64, 64, 4), 255, np.uint8)
    pixels[:, :, 3] = disc() * 255
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask_file(tmp_path / "mask.png"), disc())


@pytest.mark.parametrize("values", [(1,), (1, 2, 3), (1, 255), (4, 9), (127,)])
@pytest.mark.parametrize("kind", ["gray", "16 bit", "colours"])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_label_images_of_other_programs(tmp_path, values, kind, suffix):
    labels = np.zeros((40, 40), np.uint8)
    for number, value in enumerate(values):
        labels[number * 10 : number * 10 + 8, 5:30] = value
    image = Image.fromarray(labels.astype(np.uint16) if kind == "16 bit" else labels)
    if kind == "colours":
        image.putpalette(np.random.default_rng(0).integers(0, 255, 768, np.uint8).tobytes())
    image.save(tmp_path / f"mask{suffix}")
    np.testing.assert_array_equal(read_mask_file(tmp_path / f"mask{suffix}"), labels)


def test_16_bit_black_and_white(tmp_path):
    Image.fromarray(disc().astype(np.uint16) * 65535).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask_file(tmp_path / "mask.png"), disc())


def test_empty_mask_is_a_mask(tmp_path, write_image):
    write_image(tmp_path / "images" / "a.png")
    write_image(tmp_path / "masks" / "a.png", np.zeros((20, 30), np.uint8))
    sequence = open_frames(tmp_path)
    assert sequence.has_masks
    assert sequence.read_mask(0).max() == 0


def test_mask_of_another_size_is_named_and_the_frame_stays(tmp_path, write_image):
    write_image(tmp_path / "images" / "a.png")
    write_image(tmp_path / "masks" / "a.png", np.zeros((10, 30), np.uint8))
    sequence = open_frames(tmp_path)
    with pytest.raises(InputError, match=r"mask of frame a .*30 x 10 px"):
        sequence.read_mask(0)
    assert sequence.read(0).shape == (20, 30, 3)


def test_unreadable_mask_is_named(tmp_path, write_image):
    write_image(tmp_path / "images" / "a.png")
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "a.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"mask of frame a .*empty"):
        open_frames(tmp_path).read_mask(0)
