from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_microaunet.distillation.curriculum import imitation_weights, learning_rate_factor


def test_imitation_moves_from_features_to_probabilities():
    assert imitation_weights(0) == (1, 0)
    assert imitation_weights(1) == pytest.approx((0, 1))
    assert imitation_weights(1 / 2) == pytest.approx((1 / 2, 1 / 2))
    # cos 60 degrees is 1/2.
    assert imitation_weights(1 / 3) == pytest.approx((3 / 4, 1 / 4))


def test_a_budget_that_is_overrun_stays_at_the_end():
    assert imitation_weights(1.01) == imitation_weights(1)
    assert learning_rate_factor(1.01, 0.1, 0.2) == pytest.approx(0.2)


@given(st.floats(0, 1), st.floats(0, 1))
def test_features_only_lose_weight(first, second):
    before, after = (imitation_weights(progress) for progress in sorted((first, second)))
    assert before[0] >= after[0]
    assert sum(before) == pytest.approx(1)


def test_learning_rate_by_hand():
    # Up from 0.1 to 1 in a fifth of the run; then half a cosine down to 0.1.
    def factor(progress):
        return learning_rate_factor(progress, warm_up=0.2, last=0.1)

    assert factor(0) == pytest.approx(0.1)
    assert factor(0.05) == pytest.approx(0.1 + 0.9 / 4)
    assert factor(0.2) == pytest.approx(1)
    assert factor(0.4) == pytest.approx(0.1 + 0.9 * (1 + math.sqrt(1 / 2)) / 2)
    assert factor(0.6) == pytest.approx(0.55)
    assert factor(1) == pytest.approx(0.1)


def test_without_warm_up_it_starts_at_the_top():
    assert learning_rate_factor(0, warm_up=0, last=0.01) == 1
    assert learning_rate_factor(0.5, warm_up=0, last=0) == pytest.approx(0.5)


@given(st.floats(0, 1), st.floats(0, 0.99), st.floats(0, 1))
def test_the_factor_stays_between_last_and_one(progress, warm_up, last):
    assert last - 1e-9 <= learning_rate_factor(progress, warm_up, last) <= 1 + 1e-9
