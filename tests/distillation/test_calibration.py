from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.metrics import calibration_binning

from napari_microaunet.distillation.calibration import calibration, count_pixels
from napari_microaunet.frames import FieldOfView
from napari_microaunet.prelabel.probability import ProbabilityMap


def whole(values):
    """Make a map that covers a frame of its own size."""
    values = np.asarray(values, np.uint8)
    return ProbabilityMap(values, FieldOfView(0, 0, *values.shape), values.shape)


def test_error_and_brier_score_by_hand():
    # Probabilities 0, 0.2, 0.8, 0.8 and 1; the last two bins hold two and one of them.
    values = whole([[0, 51, 204, 204, 255]])
    result = calibration(count_pixels(values, np.array([[0, 1, 1, 0, 2]], np.uint8)))
    # 0.8 claims 1.6 polyp pixels of two, and one is.
    assert result.expected_error == pytest.approx((0 + 0.8 + (1.6 - 1) + 0) / 5)
    assert result.brier == pytest.approx((0 + 0.8**2 + 0.2**2 + 0.8**2 + 0) / 5)
    filled = {i: bin_ for i, bin_ in enumerate(result.bins) if bin_.pixels}
    assert list(filled) == [0, 3, 12, 14]
    assert filled[12].pixels == 2
    assert filled[12].probability == pytest.approx(0.8)
    assert filled[12].polyp_share == 0.5
    assert (filled[14].low, filled[14].high) == (pytest.approx(14 / 15), 1)
    assert result.bins[7].probability is result.bins[7].polyp_share is None


def test_bins_are_those_of_monai():
    random = np.random.default_rng(0)
    values = random.choice([v for v in range(256) if v % 17], (40, 50)).astype(np.uint8)
    labels = (random.random((40, 50)) < (values / 255) ** 2).astype(np.uint8)
    result = calibration(count_pixels(whole(values), labels))
    claimed, true, pixels = (
        tensor[0, 0].numpy()
        for tensor in calibration_binning(
            torch.from_numpy(values / 255)[None, None],
            torch.from_numpy(labels)[None, None].double(),
            num_bins=15,
        )
    )
    np.testing.assert_array_equal([bin_.pixels for bin_ in result.bins], pixels)
    np.testing.assert_allclose([bin_.probability for bin_ in result.bins], claimed, rtol=1e-5)
    np.testing.assert_allclose([bin_.polyp_share for bin_ in result.bins], true, rtol=1e-5)
    assert result.expected_error == pytest.approx((np.abs(claimed - true) * pixels).sum() / 2000)


def test_honest_probabilities_have_little_error_and_boastful_ones_much():
    random = np.random.default_rng(0)
    values = random.integers(0, 256, (300, 300)).astype(np.uint8)
    labels = (random.random((300, 300)) < values / 255).astype(np.uint8)
    honest = calibration(count_pixels(whole(values), labels))
    boastful = calibration(count_pixels(whole(np.where(values > 127, 255, 0)), labels))
    assert honest.expected_error < 0.02
    assert boastful.expected_error == pytest.approx(0.25, abs=0.02)
    assert boastful.brier > honest.brier


def test_ignored_pixels_and_those_outside_the_field_of_view_count_nowhere():
    reference = np.zeros((60, 80), np.uint8)
    reference[20:40, 30:50] = 1
    field = FieldOfView(10, 20, 50, 60)
    values = np.full((20, 20), 200, np.uint8)
    plain = count_pixels(ProbabilityMap(values, field, (60, 80)), reference)
    # The map's values stand for 2 x 2 native pixels each; the polyp covers 10 x 10 of them.
    assert plain.sum() == 400
    assert plain[200].tolist() == [300, 100]
    reference[:10] = reference[:, 60:] = 7
    np.testing.assert_array_equal(
        count_pixels(ProbabilityMap(values, field, (60, 80)), reference), plain
    )
    reference[10:20] = 255
    counts = count_pixels(ProbabilityMap(values, field, (60, 80)), reference)
    assert counts[200].tolist() == [200, 100]
    reference[:] = 255
    assert calibration(count_pixels(ProbabilityMap(values, field, (60, 80)), reference)) is None


def test_counts_of_frames_add_up():
    left, right = whole([[10, 250]]), whole([[90, 170]])
    reference = np.array([[0, 1]], np.uint8)
    both = whole([[10, 250, 90, 170]])
    np.testing.assert_array_equal(
        count_pixels(left, reference) + count_pixels(right, reference),
        count_pixels(both, np.tile(reference, 2)),
    )
