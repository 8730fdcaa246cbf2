from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_microaunet.frames import FieldOfView
from napari_microaunet.prelabel.confidence import confidence
from napari_microaunet.prelabel.masks import MaskSettings, mask_from
from napari_microaunet.prelabel.probability import ProbabilityMap


def trust(values, settings, scale=1):
    """Return the confidence in a frame of so many times the size of its map."""
    shape = tuple(scale * side for side in values.shape)
    probability = ProbabilityMap(values, FieldOfView(0, 0, *shape), shape)
    return confidence(probability, mask_from(probability, settings), settings.threshold)


def test_a_clear_polyp_is_trusted_more_than_a_vague_one():
    clear, vague = np.zeros((2, 32, 32), np.uint8)
    clear[8:20, 8:20] = 250
    vague[8:20, 8:20] = 150
    assert trust(clear, MaskSettings(0.5)) == pytest.approx(250 / 255)
    assert trust(vague, MaskSettings(0.5)) == pytest.approx(150 / 255)


def test_an_empty_mask_is_trusted_unless_something_looked_like_a_polyp():
    nothing, something = np.zeros((2, 32, 32), np.uint8)
    something[4, 4] = 102
    assert trust(nothing, MaskSettings(0.5)) == 1
    assert trust(something, MaskSettings(0.5)) == pytest.approx(0.6)
    dropped = MaskSettings(0.3, least_peak=0.5)  # for want of a peak
    assert trust(something, dropped) == pytest.approx(0.6)


def test_what_is_dropped_does_not_speak_for_the_mask():
    small, both = np.zeros((2, 256, 256), np.uint8)
    small[20:26, 20:26] = 240  # 36 pixels, where a polyp has at least 66
    assert trust(small, MaskSettings(0.5)) == pytest.approx(1 - 240 / 255)
    both[60:120, 60:120] = 250
    both[200:220, 200:220] = 140  # as large as a polyp, but pale
    sure, one = MaskSettings(0.5, least_peak=0.7), MaskSettings(0.5, largest_only=True)
    assert trust(both, sure) == pytest.approx(250 / 255)
    assert trust(both, one) == pytest.approx(250 / 255)
    assert trust(both, MaskSettings(0.5)) < 240 / 255


@given(arrays(np.uint8, (8, 9)), st.floats(0, 1))
def test_it_is_a_share_and_at_least_the_threshold_where_something_is_marked(values, threshold):
    found = trust(values, MaskSettings(threshold, smallest_area=0))
    assert 0 <= found <= 1
    if (values >= max(1, 255 * threshold)).any():
        assert found >= threshold - 1e-9


@pytest.mark.parametrize("scale", [1, 2, 5])
@given(arrays(np.uint8, (8, 9)), st.floats(0, 1), st.floats(0, 0.3), st.floats(0, 1))
def test_an_empty_mask_is_trusted_by_what_it_left_out_at_any_size(
    scale, values, threshold, area, peak
):
    settings = MaskSettings(threshold, area, least_peak=peak)
    shape = tuple(scale * side for side in values.shape)
    probability = ProbabilityMap(values, FieldOfView(0, 0, *shape), shape)
    found, mask = trust(values, settings, scale), mask_from(probability, settings)
    if mask.any():
        assert found >= threshold - 1e-9
    else:
        assert found == pytest.approx(1 - values.max() / 255)
