from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_microaunet.distillation.scores import count_overlap
from napari_microaunet.distillation.thresholds import (
    OperatingPoint,
    ThresholdCurve,
    choose_operating_point,
    overlaps_at,
)
from napari_microaunet.frames import FieldOfView
from napari_microaunet.prelabel.masks import MaskSettings, mask_from
from napari_microaunet.prelabel.probability import ProbabilityMap

LEFT, RIGHT = np.s_[20:40, 10:30], np.s_[20:40, 60:80]  # 400 pixels each


def claims(**probability_of):
    """Make a map of 100 x 100 with the given probabilities in its left and right square."""
    values = np.zeros((100, 100), np.uint8)
    for side, square in (("left", LEFT), ("right", RIGHT)):
        values[square] = round(255 * probability_of.get(side, 0))
    return ProbabilityMap(values, FieldOfView(0, 0, 100, 100), (100, 100))


def polyp_at(*squares):
    reference = np.zeros((100, 100), np.uint8)
    for square in squares:
        reference[square] = 1
    return reference


def curve_of(settings, *frames):
    curve = ThresholdCurve(settings)
    for probability, reference in frames:
        curve.add(overlaps_at(probability, reference, settings))
    return curve.points()


@given(
    values=arrays(np.uint8, (8, 8), elements=st.sampled_from([0, 60, 130, 200, 250])),
    reference=arrays(np.uint8, (24, 24), elements=st.sampled_from([0, 1, 255])),
    settings=st.lists(
        st.builds(
            MaskSettings,
            threshold=st.sampled_from([0.0, 0.2, 0.5, 1.0]),
            smallest_area=st.sampled_from([0.0, 0.02, 0.2]),
            fill_holes=st.booleans(),
            largest_only=st.booleans(),
            least_peak=st.sampled_from([0.0, 0.6, 0.9]),
        ),
        max_size=8,
    ),
)
def test_overlaps_are_those_of_the_masks(values, reference, settings):
    probability = ProbabilityMap(values, FieldOfView(2, 3, 22, 24), (24, 24))
    masks = [mask_from(probability, one) for one in settings]
    expected = [count_overlap(mask, reference) for mask in masks]
    assert overlaps_at(probability, reference, settings) == expected


def test_a_reference_of_another_size_is_refused():
    with pytest.raises(ValueError, match="one size"):
        overlaps_at(claims(left=1), np.zeros((50, 100), np.uint8), [MaskSettings()])


def test_curve_by_hand():
    settings = [*map(MaskSettings, (0.3, 0.4, 0.5, 0.8, 0.9)), MaskSettings(0.3, least_peak=0.5)]
    frames = [
        # Finds its polyp up to 0.8, and marks as much beside it up to 0.4.
        (claims(left=0.8, right=0.4), polyp_at(LEFT)),
        # Finds one of two polyps up to 0.4.
        (claims(left=0.4), polyp_at(LEFT, RIGHT)),
        (claims(right=0.8), polyp_at()),
        (claims(left=0.35), polyp_at()),
        (claims(), polyp_at()),
    ]
    beside, one_of_two = 2 * 400 / 1200, 2 * 400 / 1200
    assert curve_of(settings, *frames) == (
        OperatingPoint(
            0.3, 0.0, pytest.approx((beside + one_of_two) / 2), 1.0, pytest.approx(2 / 3)
        ),
        OperatingPoint(
            0.4, 0.0, pytest.approx((beside + one_of_two) / 2), 1.0, pytest.approx(1 / 3)
        ),
        OperatingPoint(0.5, 0.0, 0.5, 0.5, pytest.approx(1 / 3)),
        OperatingPoint(0.8, 0.0, 0.5, 0.5, pytest.approx(1 / 3)),
        OperatingPoint(0.9, 0.0, 0.0, 0.0, 0.0),
        # The square of 0.4 beside the first polyp is dropped, and so is all of the second frame's.
        OperatingPoint(0.3, 0.5, 0.5, 0.5, pytest.approx(1 / 3)),
    )


def test_specks_below_the_smallest_area_flag_nothing():
    values = np.zeros((100, 100), np.uint8)
    values[50:53, 50:53] = 255
    speck = ProbabilityMap(values, FieldOfView(0, 0, 100, 100), (100, 100))
    for smallest, flagged in ((0.001, 0), (0.0009, 1)):
        curve = curve_of([MaskSettings(smallest_area=smallest)], (speck, polyp_at()))
        assert curve == (OperatingPoint(0.5, 0.0, None, None, flagged),)


def test_ignored_pixels_flag_nothing_and_make_no_polyp():
    reference = polyp_at()
    reference[LEFT] = 255
    settings = [MaskSettings(0.3), MaskSettings(0.9)]
    curve = curve_of(settings, (claims(left=1), reference))
    assert {point.negatives_flagged for point in curve} == {0}
    assert {point.dice for point in curve} == {None}
    reference[RIGHT] = 1
    curve = curve_of(settings, (claims(left=1, right=1), reference))
    assert {point.dice for point in curve} == {1}


def points(dice=None, flagged=None):
    return [
        OperatingPoint(
            threshold, 0.0, dice and dice[i], None if dice is None else 1.0, flagged and flagged[i]
        )
        for i, threshold in enumerate((0.3, 0.5, 0.7, 0.9)[: len(dice or flagged)])
    ]


def chosen(curves, most_negatives_flagged):
    return choose_operating_point(curves, most_negatives_flagged).threshold


def test_the_best_dice_is_chosen_where_nothing_speaks_against_it():
    assert chosen([points(dice=[0.6, 0.8, 0.7, 0.1])], 0.15) == 0.5
    # Averaged: 0.6, 0.7, 0.75, 0.3.
    two = [points(dice=[0.6, 0.8, 0.7, 0.1]), points(dice=[0.6, 0.6, 0.8, 0.5])]
    assert chosen(two, 0.15) == 0.7


def test_of_equal_thresholds_the_highest_is_chosen():
    assert chosen([points(dice=[0.6, 0.8, 0.8, 0.8])], 0.15) == 0.9


def test_negatives_have_the_first_word_where_any_threshold_satisfies_them():
    curves = [points(dice=[0.6, 0.8, 0.7, 0.1]), points(flagged=[0.5, 0.3, 0.15, 0.0])]
    assert chosen(curves, 0.4) == 0.5
    assert chosen(curves, 0.15) == 0.7
    assert chosen(curves, 0.1) == 0.9


def test_a_peak_can_silence_negatives_where_a_threshold_would_cost_dice():
    positive = [
        OperatingPoint(0.5, peak, dice, 1.0, None) for peak, dice in ((0.0, 0.8), (0.9, 0.7))
    ]
    negative = [
        OperatingPoint(0.5, peak, None, None, flag) for peak, flag in ((0.0, 0.4), (0.9, 0.1))
    ]
    point = choose_operating_point([positive, negative], 0.15)
    assert point == OperatingPoint(0.5, 0.9, 0.7, 1.0, 0.1)


def test_settings_that_miss_more_polyps_may_be_left_out():
    curve = [
        OperatingPoint(threshold, 0.0, dice, found, None)
        for threshold, dice, found in ((0.3, 0.5, 1.0), (0.5, 0.6, 0.98), (0.7, 0.7, 0.9))
    ]
    assert choose_operating_point([curve], 0.15).threshold == 0.7
    assert choose_operating_point([curve], 0.15, found_within=0.03).threshold == 0.5
    assert choose_operating_point([curve], 0.15, found_within=0.0).threshold == 0.3
    # What the loud ones find is no measure for the quiet ones.
    loud = points(flagged=[0.4, 0.1, 0.1])
    assert choose_operating_point([curve, loud], 0.15, found_within=0.0).threshold == 0.5


def test_a_share_that_no_threshold_keeps_is_disregarded():
    curves = [points(dice=[0.6, 0.8, 0.7, 0.1]), points(flagged=[0.9, 0.8, 0.7, 0.6])]
    assert chosen(curves, 0.15) == 0.5


def test_curves_that_cannot_be_compared_are_refused():
    with pytest.raises(ValueError, match="positive"):
        choose_operating_point([points(flagged=[0.5, 0.3, 0.15, 0.0])], 0.15)
    other = [OperatingPoint(threshold, 0.0, 0.5, 1.0, None) for threshold in (0.1, 0.2, 0.3, 0.4)]
    with pytest.raises(ValueError, match="same settings"):
        choose_operating_point([points(dice=[0.6, 0.8, 0.7, 0.1]), other], 0.15)
