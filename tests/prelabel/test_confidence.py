from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_microaunet.frames import FieldOfView
from napari_microaunet.prelabel.confidence import confidence
from napari_microaunet.prelabel.masks import MaskSettings
from napari_microaunet.prelabel.probability import ProbabilityMap


def probability_map(values):
    values = np.asarray(values, np.uint8)
    return ProbabilityMap(values, FieldOfView(0, 0, *values.shape), values.shape)


def test_a_clear_polyp_is_trusted_more_than_a_vague_one():
    clear, vague = np.zeros((2, 32, 32), np.uint8)
    clear[8:20, 8:20] = 250
    vague[8:20, 8:20] = 150
    assert confidence(probability_map(clear), MaskSettings(0.5)) == pytest.approx(250 / 255)
    assert confidence(probability_map(vague), MaskSettings(0.5)) == pytest.approx(150 / 255)


def test_an_empty_mask_is_trusted_unless_something_looked_like_a_polyp():
    nothing, something = np.zeros((2, 32, 32), np.uint8)
    something[4, 4] = 102
    assert confidence(probability_map(nothing), MaskSettings(0.5)) == 1
    assert confidence(probability_map(something), MaskSettings(0.5)) == pytest.approx(0.6)
    dropped = MaskSettings(0.3, least_peak=0.5)  # for want of a peak
    assert confidence(probability_map(something), dropped) == pytest.approx(0.6)


def test_what_is_dropped_does_not_speak_for_the_mask():
    small, both = np.zeros((2, 256, 256), np.uint8)
    small[20:26, 20:26] = 240  # 36 pixels, where a polyp has at least 66
    assert confidence(probability_map(small), MaskSettings(0.5)) == pytest.approx(1 - 240 / 255)
    both[60:120, 60:120] = 250
    both[200:220, 200:220] = 140  # as large as a polyp, but pale
    sure, one = MaskSettings(0.5, least_peak=0.7), MaskSettings(0.5, largest_only=True)
    assert confidence(probability_map(both), sure) == pytest.approx(250 / 255)
    assert confidence(probability_map(both), one) == pytest.approx(250 / 255)
    assert confidence(probability_map(both), MaskSettings(0.5)) < 240 / 255


@given(arrays(np.uint8, (8, 9)), st.floats(0, 1))
def test_it_is_a_share_and_at_least_the_threshold_where_something_is_marked(values, threshold):
    trust = confidence(probability_map(values), MaskSettings(threshold))
    assert 0 <= trust <= 1
    if (values >= max(1, 255 * threshold)).any():
        assert trust >= threshold - 1e-9
