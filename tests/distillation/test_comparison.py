from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_microaunet.distillation.comparison import changes, compare
from napari_microaunet.distillation.scores import score_frame
from napari_microaunet.errors import InputError


def model(dices, groups=None, false_alarms=()):
    """Score frames of 1000 pixels in a row, so that their Dice is nearly what is asked for."""
    reference = np.zeros((1, 1000), np.uint8)
    reference[0, :400] = 1
    scores = []
    for i, dice in enumerate(dices):
        predicted = np.zeros((1, 1000), np.uint8)
        predicted[0, 400 - round(400 * dice) : 800 - round(400 * dice)] = 1
        score = score_frame(f"frame {i}", 0.5, predicted, reference)
        scores.append(score if groups is None else replace(score, group=groups[i]))
    for i, flagged in enumerate(false_alarms):
        predicted = np.full((1, 1000), flagged, np.uint8)
        scores.append(score_frame(f"negative {i}", 0.5, predicted, np.zeros_like(predicted)))
    return scores


@pytest.fixture(scope="module", autouse=True)
def without_boundary_scores():
    """Dice is all that is compared; outlines would take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("napari_microaunet.distillation.scores.outline_distances", lambda *_: None)
        yield


def test_differences_by_hand():
    better = model([0.6, 0.7, 0.8, 0.9, 1.0, 0.75], false_alarms=[1, 0, 0, 0])
    worse = model([0.5, 0.5, 0.5, 0.5, 0.5, 0.5], false_alarms=[1, 1, 1, 0])
    result = compare(better, worse)
    assert (result.positives, result.negatives) == (6, 4)
    assert result.dice.mean == pytest.approx((0.1 + 0.2 + 0.3 + 0.4 + 0.5 + 0.25) / 6)
    # Of the 2^6 ways to give six differences a sign, two are as one-sided as this.
    assert result.dice_p_value == pytest.approx(2 / 64)
    assert result.negatives_flagged.mean == -2 / 4
    turned = compare(worse, better)
    assert turned.dice.mean == pytest.approx(-result.dice.mean)
    assert turned.dice.low == pytest.approx(-result.dice.high, abs=0.01)
    assert turned.dice_p_value == result.dice_p_value


def test_a_small_difference_is_found_although_frames_differ_much():
    random = np.random.default_rng(0)
    hard = random.uniform(0.2, 0.9, 300)
    result = compare(model(hard + 0.02 + random.normal(0, 0.03, 300)), model(hard))
    assert result.dice.low > 0
    assert result.dice.low < 0.02 < result.dice.high
    assert result.dice_p_value < 0.001


def test_no_difference_is_found_where_there_is_none():
    random = np.random.default_rng(0)
    hard = random.uniform(0.2, 0.9, 300)
    first, second = (hard + random.normal(0, 0.05, 300) for _ in range(2))
    result = compare(model(first), model(second))
    assert result.dice.low < 0 < result.dice.high
    assert result.dice_p_value > 0.05
    same = compare(model(hard), model(hard))
    assert (same.dice.mean, same.dice.low, same.dice.high, same.dice_p_value) == (0, 0, 0, 1)


def test_frames_of_three_clips_are_three_observations():
    clips = [name for name in "abc" for _ in range(40)]
    better = np.array([{"a": 0.6, "b": 0.6, "c": 0.45}[clip] for clip in clips])
    worse = np.full(120, 0.5)
    by_frame = compare(model(better), model(worse))
    assert by_frame.dice.low > 0
    assert by_frame.dice_p_value < 0.001
    by_clip = compare(model(better, clips), model(worse, clips))
    assert by_clip.dice.mean == pytest.approx(by_frame.dice.mean)
    assert by_clip.dice.low < 0
    assert by_clip.dice_p_value > 0.05


def test_it_tells_how_many_observations_there_are():
    groups = [f"clip {number // 2}" for number in range(6)]
    result = compare(model([0.5] * 6, groups, [1, 0]), model([0.4] * 6, groups, [1, 1]))
    assert (result.groups, result.negative_groups) == (3, 2)
    # Of five that all agree, the exact test still says that chance may have done it.
    assert compare(model([0.5] * 5), model([0.4] * 5)).dice_p_value > 0.05
    assert compare(model([0.5] * 6), model([0.4] * 6)).dice_p_value < 0.05


def test_of_a_single_clip_the_frames_are_the_observations():
    better, worse = [0.6, 0.7, 0.8, 0.9, 1.0, 0.75], [0.5] * 6
    one_clip = compare(model(better, ["clip"] * 6), model(worse))
    frames = compare(model(better), model(worse))
    assert (one_clip.dice, one_clip.dice_p_value) == (frames.dice, frames.dice_p_value)
    assert (one_clip.groups, frames.groups) == (1, 6)
    (doubt,) = one_clip.doubts
    assert "Dice: the frames are of 1 video or scene, and fewer than 6 prove nothing" in doubt
    assert frames.doubts == []


def test_few_clips_without_polyps_prove_nothing_about_false_alarms():
    clips = [f"clip {number // 2}" for number in range(6)]
    result = compare(model([0.5] * 6, clips, [1, 0]), model([0.4] * 6, clips, [1, 1]))
    assert [doubt.partition(":")[0] for doubt in result.doubts] == [
        "Difference of Dice",
        "Difference of false alarms",
    ]


def test_frames_are_matched_by_name():
    first, second = model([0.5, 0.6, 0.7]), model([0.4, 0.5, 0.6])
    assert compare(first, second[::-1]) == compare(first, second)


def test_only_what_is_there_is_compared():
    result = compare(model([], false_alarms=[1, 0]), model([], false_alarms=[0, 0]))
    assert result.dice is result.dice_p_value is None
    assert result.negatives_flagged.mean == 0.5
    assert compare(model([0.5]), model([0.5])).negatives_flagged is None


def test_different_frames_and_different_masks_are_refused_in_one_sentence():
    for first, second in ((2, 3), (3, 2)):
        with pytest.raises(InputError, match=r'frame "frame 2" \(1 such in all\)'):
            compare(model([0.5] * first), model([0.5] * second))
    other = [score_frame("frame 0", 0.5, *np.ones((2, 1, 1000), np.uint8))]
    with pytest.raises(InputError, match="two different reference masks"):
        compare(model([0.5]), other)


def test_the_most_improved_frame_comes_first_and_a_new_false_alarm_last():
    before = model([0.5, 0.9], false_alarms=[0, 1])
    after = model([0.75, 0.8], false_alarms=[1, 1])
    found = changes(before, after)
    assert [(one.name, one.before, one.after) for one in found] == [
        ("frame 0", 0.5, 0.75),
        ("negative 1", 0, 0),
        ("frame 1", 0.9, 0.8),
        ("negative 0", 1, 0),
    ]
