from __future__ import annotations

import numpy as np
import pytest
from blobs import IGNORE, disc, masks
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_microaunet.editing.contour import level_of, move_contour
from napari_microaunet.editing.labels import labels_of

SHAPE = (90, 120)


def hill(*tops, shape=SHAPE):
    """A map of (row, column, radius): 255 at the top, 0 at the radius."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    heights = [1 - np.hypot(rows - r, columns - c) / radius for r, c, radius in tops]
    return np.clip(np.max(heights, axis=0) * 255, 0, 255).astype(np.uint8)


def frame(*discs):
    mask = np.zeros(SHAPE, np.uint8)
    for label, row, column, radius in discs:
        mask[disc(SHAPE, row, column, radius)] = label
    return mask


@st.composite
def masks_and_maps(draw):
    """A mask and a smooth map with hills, bays and flat parts, as networks give them."""
    mask = draw(masks())
    random = np.random.default_rng(draw(st.integers(0, 1000)))
    field = ndimage.gaussian_filter(random.normal(size=mask.shape), draw(st.floats(0, 4)))
    field = field / max(field.std(), 1e-6) * 60 + draw(st.integers(0, 255))
    return mask, np.clip(field, 0, 255).astype(np.uint8)


@given(masks_and_maps(), st.integers(1, 255), st.integers(1, 255), st.sampled_from([1, 3, 254]))
@settings(max_examples=400, deadline=None)
def test_a_higher_level_gives_a_part_of_what_a_lower_one_gives(made, one, other, label):
    mask, probability = made
    low, high = sorted((one, other))
    wide = move_contour(mask, label, probability, low)
    narrow = move_contour(mask, label, probability, high)
    assert not ((narrow == label) & (wide != label)).any()


@given(masks_and_maps(), st.integers(1, 255), st.sampled_from([1, 3, 254]))
@settings(max_examples=300, deadline=None)
def test_only_the_polyp_moves_and_only_by_what_the_model_believes(made, level, label):
    mask, probability = made
    before = mask.copy()
    moved = move_contour(mask, label, probability, level)
    np.testing.assert_array_equal(mask, before)
    assert moved.dtype == np.uint8
    others = (mask != 0) & (mask != label)
    np.testing.assert_array_equal(moved[others], mask[others])
    assert set(np.unique(moved[~others])) <= {0, label}
    polyp = moved == label
    # All of it reaches the level but filled holes, and all of the old polyp that does is in it.
    believed = probability >= level
    region = ndimage.binary_fill_holes(believed | others)
    assert not (polyp & ~region).any()
    assert not ((mask == label) & believed & ~polyp).any()
    if not ((mask == label) & believed).any():
        assert not polyp.any()


@given(masks_and_maps(), st.sampled_from([1, 3, 254]))
@settings(max_examples=60, deadline=None)
def test_the_slider_starts_where_the_outline_moves_least(made, label):
    mask, probability = made
    level = level_of(mask, label, probability)

    def fit(level):
        polyp, own = move_contour(mask, label, probability, level) == label, mask == label
        return np.count_nonzero(polyp & own) / max(1, np.count_nonzero(polyp | own))

    fits = [fit(level) for level in range(1, 256)]
    if level is None:
        assert max(fits) == 0
    else:
        assert fit(level) == max(fits) > 0


@given(masks_and_maps(), st.integers(1, 255), st.sampled_from([1, 3]))
@settings(max_examples=100, deadline=None)
def test_a_polyp_from_the_map_stays_as_it_is_at_its_own_level(made, level, label):
    mask, probability = made
    moved = move_contour(mask, label, probability, level)
    if (moved == label).any() and set(labels_of(mask)) <= {label}:
        start = level_of(moved, label, probability)
        np.testing.assert_array_equal(move_contour(moved, label, probability, start), moved)


def test_the_outline_moves_along_the_models_belief():
    probability = hill((45, 60, 40))
    mask = frame((3, 48, 57, 18))
    for level, radius in ((51, 32), (128, 20), (204, 8)):
        moved = move_contour(mask, 3, probability, level)
        assert abs(np.count_nonzero(moved == 3) - np.pi * radius**2) < 0.06 * np.pi * radius**2
        assert moved[45, 60] == 3
    assert not move_contour(frame((3, 48, 40, 5)), 3, probability, 250).any()


def test_on_a_large_frame_the_start_is_found_as_well():
    probability = np.kron(hill((45, 60, 40)), np.ones((20, 20), np.uint8))
    mask = (probability >= 140).astype(np.uint8)
    assert abs(level_of(mask, 1, probability) - 140) <= 3
    mask[:, :] = 0
    mask[1000:1003, 1300:1303] = 1  # of which a few pixels would tell nothing
    assert level_of(mask, 1, probability) is not None


def test_the_start_of_a_pre_label_is_its_threshold():
    probability = hill((45, 60, 40))
    mask = (probability >= 140).astype(np.uint8)
    assert level_of(mask, 1, probability) in {139, 140}


def test_where_the_model_sees_nothing_the_slider_has_no_start():
    assert level_of(frame((1, 45, 60, 10)), 1, np.zeros(SHAPE, np.uint8)) is None
    assert level_of(frame((1, 45, 60, 10)), 2, hill((45, 60, 40))) is None


def test_another_hill_does_not_come_in_before_the_valley_is_reached():
    probability = hill((45, 30, 30), (45, 80, 30))  # they meet at 42
    mask = frame((1, 45, 30, 10))
    assert not (move_contour(mask, 1, probability, 50)[:, 60:] == 1).any()
    assert (move_contour(mask, 1, probability, 30)[45, 70:90] == 1).all()


def test_two_polyps_on_one_hill_each_keep_to_their_side():
    probability = hill((45, 40, 60), (45, 80, 60))
    mask = frame((1, 45, 40, 10), (2, 45, 80, 10))
    moved = move_contour(mask, 1, probability, 60)
    assert (moved[45, 31:58] == 1).all()
    assert not (moved[:, 63:] == 1).any()
    np.testing.assert_array_equal(moved == 2, mask == 2)


def test_a_tiny_polyp_next_to_a_large_one_can_grow():
    probability = hill((45, 60, 80))
    mask = frame((1, 45, 40, 20), (2, 45, 90, 0.5))
    moved = move_contour(mask, 2, probability, 100)
    assert np.count_nonzero(moved == 2) > 100


def test_holes_of_doubt_are_filled_and_glare_is_kept_and_passed():
    probability = np.full(SHAPE, 200, np.uint8)
    probability[:, :20] = probability[:, 100:] = probability[:20] = probability[70:] = 10
    probability[40:50, 50:60] = 20
    mask = frame((1, 45, 30, 5))
    mask[20:70, 70:73] = IGNORE  # glare across the polyp
    moved = move_contour(mask, 1, probability, 128)
    assert moved[45, 55] == 1
    assert moved[45, 90] == 1
    assert (moved[20:70, 70:73] == IGNORE).all()
    assert np.count_nonzero(moved == 1) == 50 * 77


def test_sizes_levels_and_numbers_that_do_not_fit_are_refused():
    mask, probability = frame((1, 45, 30, 5)), hill((45, 30, 20))
    with pytest.raises(ValueError, match="differ"):
        move_contour(mask, 1, probability[:-1], 100)
    for level in (0, 256):
        with pytest.raises(ValueError, match="level"):
            move_contour(mask, 1, probability, level)
    with pytest.raises(ValueError, match="number"):
        level_of(mask, IGNORE, probability)
