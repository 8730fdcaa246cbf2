from __future__ import annotations

from itertools import islice, pairwise

import numpy as np
import pytest
from PIL import Image

from napari_microaunet.frames.field_of_view import find_field_of_view
from napari_microaunet.frames.rendered import render_clip, render_frame

SMALL = {"height": 128, "width": 160}


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_a_seed_decides_everything():
    frame, mask = render_frame(11, **SMALL)
    again, mask_again = render_frame(11, **SMALL)
    other, other_mask = render_frame(12, **SMALL)
    np.testing.assert_array_equal(frame, again)
    np.testing.assert_array_equal(mask, mask_again)
    assert np.abs(frame.astype(int) - other).mean() > 10
    assert overlap(mask > 0, other_mask > 0) < 0.9


@pytest.mark.parametrize("shape", [(32, 32), (97, 131), (131, 64), (128, 224)])
def test_frame_and_mask_have_the_size_asked_for(shape):
    frame, mask = render_frame(3, *shape)
    assert frame.shape == (*shape, 3)
    assert mask.shape == shape
    assert frame.dtype == mask.dtype == np.uint8
    assert frame.std() > 20


def test_a_size_too_small_is_refused():
    with pytest.raises(ValueError, match="at least 32"):
        render_frame(3, 31, 200)


def test_the_scene_is_the_same_at_every_size():
    _, small = render_frame(3, 120, 150)
    _, large = render_frame(3, 240, 300)
    shrunk = np.asarray(Image.fromarray(large).resize((150, 120), Image.Resampling.NEAREST))
    assert overlap(small > 0, shrunk > 0) > 0.9


@pytest.mark.parametrize("seed", range(10))
def test_a_polyp_is_in_view_and_in_the_picture(seed):
    frame, mask = render_frame(seed, **SMALL)
    share = (mask > 0).mean()
    assert set(np.unique(mask)) == {0, 1}
    assert 0.008 < share < 0.4
    top, left, bottom, right = find_field_of_view([frame])
    outside = mask.copy()
    outside[top:bottom, left:right] = 0
    assert outside.sum() < 0.02 * mask.sum()


@pytest.mark.parametrize("seed", [9, 19])
def test_without_polyps_the_mask_is_empty(seed):
    frame, mask = render_frame(seed, polyps=0, **SMALL)
    assert not mask.any()
    assert frame.std() > 20


def test_two_polyps_have_labels_of_their_own():
    _, mask = render_frame(118, polyps=2, **SMALL)
    assert set(np.unique(mask)) == {0, 1, 2}


def test_the_edge_of_a_mask_is_an_edge_of_the_picture():
    """Brightness changes more across the outlines of polyps than elsewhere in the picture."""
    ratios = []
    for seed in range(6):
        frame, mask = render_frame(seed, **SMALL)
        grey = frame.mean(axis=2)
        down, across = np.gradient(grey)
        slope = np.hypot(down, across)
        rows, columns = np.gradient((mask > 0).astype(float))
        outline = np.hypot(rows, columns) > 0
        lit = grey > 30
        ratios.append(slope[outline & lit].mean() / slope[lit & ~outline].mean())
    assert np.median(ratios) > 1.3


def test_a_clip_moves_smoothly_and_its_masks_with_it():
    clip = list(render_clip(7, 4, **SMALL))
    frames = np.stack([frame for frame, _ in clip]).astype(int)
    masks = np.stack([mask for _, mask in clip]) > 0
    assert frames.shape == (4, 128, 160, 3)
    for before, after in pairwise(masks):
        assert 0.5 < overlap(before, after) < 1
    step = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3))
    assert (step > 0.5).all()
    assert (step < 30).all()


def test_a_longer_clip_begins_as_a_shorter_one():
    short = list(render_clip(7, 2, **SMALL))
    endless = list(islice(render_clip(7, **SMALL), 2))
    for (frame, mask), (frame_again, mask_again) in zip(short, endless, strict=True):
        np.testing.assert_array_equal(frame, frame_again)
        np.testing.assert_array_equal(mask, mask_again)
