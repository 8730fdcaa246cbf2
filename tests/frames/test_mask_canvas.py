from __future__ import annotations

import warnings

import numpy as np
import pytest

from napari_microaunet.frames import open_frames
from napari_microaunet.frames.mask_canvas import mask_canvas


@pytest.fixture
def masked(tmp_path, write_image):
    """Four frames: a mask, no mask, a mask that is damaged, a mask."""
    sizes = [(20, 30), (40, 10), (20, 30), (15, 50)]
    for number, size in enumerate(sizes):
        write_image(tmp_path / "images" / f"{number}.png", size=size)
        mask = np.zeros(size, np.uint8)
        mask[3:8, 2:7] = number + 1
        write_image(tmp_path / "masks" / f"{number}.png", mask)
    (tmp_path / "masks" / "1.png").unlink()
    (tmp_path / "masks" / "2.png").write_bytes(b"")
    return open_frames(tmp_path)


def expected(index, value):
    shown = np.zeros((40, 50), np.uint8)
    shown[3:8, 2:7] = value
    return shown


def test_masks_lie_on_the_canvas(masked):
    masks = mask_canvas(masked)
    assert masks.shape == (4, 40, 50)
    assert masks.dtype == np.uint8
    np.testing.assert_array_equal(masks[0], expected(0, 1))
    np.testing.assert_array_equal(masks[3], expected(3, 4))
    assert masks[1].max() == 0


def test_damaged_mask_is_named_once_and_empty(masked):
    masks = mask_canvas(masked)
    with pytest.warns(UserWarning, match=r"mask of frame 2 .*empty"):
        assert masks[2].max() == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert masks[2].max() == 0


def test_painting_keeps_the_rest_of_the_mask_and_the_file(masked):
    masks = mask_canvas(masked)
    masks[0, 30:35, 40:45] = 7
    painted = expected(0, 1)
    painted[30:35, 40:45] = 7
    np.testing.assert_array_equal(masks[0], painted)
    np.testing.assert_array_equal(masked.read_mask(0), expected(0, 1)[:20, :30])
    masks[1, 2, 3] = 1
    assert masks[1].sum() == 1


@pytest.mark.parametrize("look_first", [True, False])
def test_erased_mask_stays_erased(masked, look_first):
    masks = mask_canvas(masked)
    if look_first:
        assert masks[0].max() == 1
    masks[0] = 0
    assert masks[0].max() == 0
    masks[3] = np.zeros((40, 50), np.uint8)
    assert masks[3].max() == 0


def test_frames_without_masks(tmp_path, write_image):
    write_image(tmp_path / "a.png")
    masks = mask_canvas(open_frames(tmp_path))
    assert masks[:].max() == 0
    masks[0, 1:3, 1:3] = 2
    assert np.asarray(masks[0]).sum() == 8


def test_masks_are_read_when_they_are_looked_at(masked, tmp_path):
    masks = mask_canvas(masked)
    np.testing.assert_array_equal(masks[0], expected(0, 1))
    for file in (tmp_path / "masks").iterdir():
        file.unlink()
    np.testing.assert_array_equal(masks[0], expected(0, 1))
    with pytest.warns(UserWarning, match="missing"):
        assert masks[3].max() == 0
