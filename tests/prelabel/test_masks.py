from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from scipy import ndimage

from napari_microaunet.frames.field_of_view import FieldOfView
from napari_microaunet.prelabel.masks import MaskSettings, at_native_size, mask_from
from napari_microaunet.prelabel.probability import ProbabilityMap, quantise

KEEP_ALL = MaskSettings(smallest_area=0, fill_holes=False)


def probability_map(values, shape=None, field=None):
    values = np.asarray(values, np.uint8)
    shape = shape or values.shape
    return ProbabilityMap(values, field or FieldOfView(0, 0, *shape), shape)


def discs(*centre_radius_value, side=256):
    rows, columns = np.ogrid[:side, :side]
    values = np.zeros((side, side), np.uint8)
    for row, column, radius, value in centre_radius_value:
        values[np.hypot(rows - row, columns - column) <= radius] = value
    return values


def test_a_map_at_native_size_is_thresholded_as_it_is():
    values = np.zeros((40, 50), np.uint8)
    values[5:10, 6:20] = 128
    values[20, 20] = 127
    mask = mask_from(probability_map(values), KEEP_ALL)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, values >= 128)


def test_a_polyp_keeps_its_place_and_size_in_the_frame():
    field = FieldOfView(24, 200, 1000, 1200)
    values = discs((64, 192, 30, 255))
    mask = mask_from(probability_map(values, (1024, 1280), field), KEEP_ALL)
    rows, columns = np.nonzero(mask)
    assert mask.shape == (1024, 1280)
    # Centre of value 64 of 256 along 976 rows from row 24 on, in native pixels.
    assert rows.mean() == pytest.approx(24 + 64.5 / 256 * 976 - 0.5, abs=0.5)
    assert columns.mean() == pytest.approx(200 + 192.5 / 256 * 1000 - 0.5, abs=0.5)
    wanted = np.count_nonzero(values) * (976 / 256) * (1000 / 256)
    assert np.count_nonzero(mask) == pytest.approx(wanted, rel=0.01)


def test_nothing_outside_the_field_of_view_is_polyp():
    field = FieldOfView(10, 20, 90, 100)
    mask = mask_from(probability_map(np.full((32, 32), 255), (120, 130), field), KEEP_ALL)
    inside = np.zeros((120, 130), bool)
    inside[10:90, 20:100] = True
    np.testing.assert_array_equal(mask > 0, inside)


def test_polyps_are_numbered_from_largest_to_smallest():
    values = discs((60, 60, 10, 200), (150, 60, 25, 200), (60, 180, 18, 200))
    mask = mask_from(probability_map(values), KEEP_ALL)
    assert mask[150, 60] == 1
    assert mask[60, 180] == 2
    assert mask[60, 60] == 3
    assert mask.max() == 3


def test_only_the_largest_polyp_is_left_where_asked():
    values = discs((60, 60, 10, 255), (150, 60, 25, 140))
    mask = mask_from(probability_map(values), MaskSettings(largest_only=True))
    assert mask[150, 60] == 1
    assert mask[60, 60] == 0


def test_small_polyps_are_dropped_by_their_share_of_the_field_of_view():
    values = discs((60, 60, 5, 255), (150, 150, 30, 255))
    small = np.count_nonzero(values[:100]) / values.size
    for shape in ((256, 256), (768, 768)):
        kept = mask_from(probability_map(values, shape), MaskSettings(smallest_area=small * 0.9))
        dropped = mask_from(probability_map(values, shape), MaskSettings(smallest_area=small * 1.1))
        assert kept.max() == 2
        assert dropped.max() == 1


def test_holes_are_filled_and_bays_are_not():
    values = discs((100, 100, 40, 255))
    values[90:110, 90:110] = 0
    values[:, 200:240] = 255
    values[60:80, 200:230] = 0  # open to the left
    values[0:20, 210:230] = 0  # open to the frame's edge
    left = mask_from(probability_map(values), KEEP_ALL)
    filled = mask_from(probability_map(values), MaskSettings(smallest_area=0))
    assert left[100, 100] == 0
    assert filled[100, 100] > 0
    assert filled[70, 215] == 0
    assert filled[5, 220] == 0


def test_pixels_that_touch_at_a_corner_are_one_polyp():
    values = np.zeros((10, 10), np.uint8)
    values[3, 3] = values[4, 4] = 255
    assert mask_from(probability_map(values), KEEP_ALL).max() == 1


def test_more_polyps_than_labels_leave_the_largest_and_never_the_ignore_label():
    values = np.zeros((80, 80), np.uint8)
    values[::4, ::4] = 255  # 400 single pixels
    values[40:43, 40:43] = 255
    mask = mask_from(probability_map(values), KEEP_ALL)
    assert mask[41, 41] == 1
    assert mask.max() == 254
    assert len(np.unique(mask)) == 255


def test_an_empty_map_gives_an_empty_mask():
    assert not mask_from(probability_map(np.zeros((64, 64)), (500, 700)), KEEP_ALL).any()


def test_probability_zero_is_never_polyp():
    values = discs((30, 30, 4, 1), side=64)
    mask = mask_from(probability_map(values), MaskSettings(threshold=0, smallest_area=0))
    np.testing.assert_array_equal(mask > 0, values > 0)


def test_a_polyp_needs_its_peak_and_keeps_its_rim():
    values = np.zeros((64, 64), np.uint8)
    values[10:20, 10:20] = 140
    values[13:16, 13:16] = 240  # sure in its middle
    values[40:60, 40:60] = 150  # pale all over
    both = mask_from(probability_map(values), MaskSettings(0.5))
    sure = mask_from(probability_map(values), MaskSettings(0.5, least_peak=0.9))
    assert both.max() == 2
    np.testing.assert_array_equal(sure, both == 2)


@pytest.mark.parametrize(
    "setting", [{"threshold": 1.2}, {"smallest_area": -0.1}, {"least_peak": 2}]
)
def test_settings_outside_their_range_are_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        MaskSettings(**setting)


@settings(max_examples=200)
@given(data=st.data())
def test_working_on_a_part_gives_what_the_whole_field_of_view_gives(data):
    h, w = data.draw(st.tuples(st.integers(4, 40), st.integers(4, 40)))
    field_height, field_width = data.draw(st.tuples(st.integers(2, 150), st.integers(2, 150)))
    top, left = data.draw(st.tuples(st.integers(0, 20), st.integers(0, 20)))
    field = FieldOfView(top, left, top + field_height, left + field_width)
    spots = data.draw(arrays(np.uint8, (h, w), elements=st.sampled_from([0, 0, 0, 0, 90, 255])))
    threshold = data.draw(st.floats(0.02, 0.98))
    fill = data.draw(st.booleans())
    shape = (field.bottom + 7, field.right + 3)
    mask = mask_from(
        ProbabilityMap(spots, field, shape), MaskSettings(threshold, 0, fill_holes=fill)
    )

    whole = Image.fromarray(spots).resize((field_width, field_height), Image.Resampling.BILINEAR)
    values = np.zeros(shape)
    values[field.top : field.bottom, field.left : field.right] = np.asarray(whole)
    surely = values >= 255 * threshold + 1
    perhaps = values >= 255 * threshold - 1
    if fill:
        surely, perhaps = ndimage.binary_fill_holes(surely), ndimage.binary_fill_holes(perhaps)
    polyp = mask > 0
    if mask.max() < 254:  # beyond that the smallest are left out
        assert not (surely & ~polyp).any()
    assert not (polyp & ~perhaps).any()


@given(arrays(np.uint8, (24, 24)), st.floats(0, 1), st.floats(0, 1))
def test_a_higher_threshold_never_adds_polyp(values, one, other):
    low, high = sorted((one, other))
    wide = mask_from(probability_map(values, (50, 60)), MaskSettings(low, 0, fill_holes=False))
    narrow = mask_from(probability_map(values, (50, 60)), MaskSettings(high, 0, fill_holes=False))
    if wide.max() < 254:
        assert not ((narrow > 0) & (wide == 0)).any()


def test_probabilities_survive_storage_to_half_a_step():
    probabilities = np.linspace(0, 1, 1001, dtype=np.float32)
    stored = quantise(probabilities)
    assert stored[0] == 0
    assert stored[-1] == 255
    assert np.abs(stored / 255 - probabilities).max() <= 0.5 / 255 + 1e-6


def test_a_map_at_native_size_reaches_the_threshold_where_the_mask_is():
    values = np.random.default_rng(0).integers(0, 256, (32, 40), np.uint8)
    probability = ProbabilityMap(values, FieldOfView(7, 11, 107, 151), (120, 160))
    native = at_native_size(probability)
    mask = mask_from(probability, MaskSettings(0.4, 0, fill_holes=False))
    np.testing.assert_array_equal(native >= 0.4 * 255, mask > 0)
    assert not native[:7].any()
    assert not native[107:].any()
