from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from napari_microaunet.distillation.bootstrap import bootstrap_interval


def alone(count):
    return [f"{i:04}" for i in range(count)]


def test_the_interval_is_that_of_the_mean():
    values = np.random.default_rng(3).normal(0.7, 0.2, 400)
    interval = bootstrap_interval(values, alone(400))
    low, high = stats.norm.interval(0.95, values.mean(), values.std() / np.sqrt(values.size))
    assert interval.mean == pytest.approx(values.mean())
    assert interval.low == pytest.approx(low, abs=0.002)
    assert interval.high == pytest.approx(high, abs=0.002)
    assert bootstrap_interval(values, alone(400)) == interval


def test_intervals_of_one_value_and_of_equal_values_are_that_value():
    for values in ([0.25], [0.25] * 9):
        interval = bootstrap_interval(np.array(values), alone(len(values)))
        assert (interval.mean, interval.low, interval.high) == (0.25, 0.25, 0.25)
    assert bootstrap_interval(np.array([]), []) is None


def test_groups_are_drawn_whole_and_frames_weigh_the_same():
    # Two draws of two groups: 0, 0 (mean 0), 1, 1 (mean 1), or one each (mean 3 / 4).
    interval = bootstrap_interval(np.array([0.0, 1, 1, 1]), ["a", "b", "b", "b"])
    assert (interval.mean, interval.low, interval.high) == (0.75, 0, 1)


def test_equal_frames_of_a_clip_say_no_more_than_one_of_them():
    clips = np.random.default_rng(0).normal(0.7, 0.2, 30)
    one_each = bootstrap_interval(clips, alone(30))
    repeated = np.repeat(clips, 50)
    grouped = bootstrap_interval(repeated, list(np.repeat(alone(30), 50)))
    assert grouped.mean == pytest.approx(one_each.mean)
    assert grouped.low == pytest.approx(one_each.low)
    assert grouped.high == pytest.approx(one_each.high)
    by_frame = bootstrap_interval(repeated, alone(1500))
    assert by_frame.high - by_frame.low < (grouped.high - grouped.low) / 5


def test_of_a_single_group_the_frames_are_drawn():
    values = np.random.default_rng(1).uniform(size=40)
    assert bootstrap_interval(values, ["clip"] * 40) == bootstrap_interval(values, alone(40))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.sampled_from("abcd")), min_size=1, max_size=20))
@example([(0.3674452359470302, "a")] * 2)
def test_the_interval_stays_among_the_values(frames):
    values = np.array([value for value, _ in frames])
    interval = bootstrap_interval(values, [group for _, group in frames])
    assert interval.low <= interval.high
    for value in (interval.mean, interval.low, interval.high):
        assert values.min() - 1e-9 <= value <= values.max() + 1e-9
