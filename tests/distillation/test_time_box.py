"""What a training gives up where its minutes are short."""

from __future__ import annotations

from concurrent.futures import CancelledError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_microaunet.distillation import time_box
from napari_microaunet.distillation.recipe import Budget, changed, finetuning_recipe
from napari_microaunet.distillation.time_box import ENOUGH_STEPS, WAYS, as_fitted, fit_to_time

RECIPE = finetuning_recipe()


def fitted(seconds, minutes=10, fixed=(), side=256):
    """Fit to a machine where a step takes so long, by pixels and by layers."""

    def step_time(recipe, side, _device, _cancelled):
        kept = 0.5 if recipe.optimiser.encoder_factor == 0 else 1
        return seconds * kept * (side / recipe.size.side) ** 2

    recipe = changed(RECIPE, {"size.side": side}).model_copy(
        update={"budget": Budget(minutes=minutes)}
    )
    return fit_to_time(recipe, "cpu", fixed, seconds_per_step=step_time)


def test_nothing_is_given_up_where_enough_steps_fit():
    box = fitted(seconds=600 / ENOUGH_STEPS)
    assert box.recipe == RECIPE
    assert box.steps == ENOUGH_STEPS
    assert box.title == WAYS[0].title


def test_small_frames_come_first_where_a_step_takes_long():
    box = fitted(seconds=1.5 * 600 / ENOUGH_STEPS)
    assert box.recipe.size.first_share == pytest.approx(0.5)
    assert box.recipe.optimiser == RECIPE.optimiser
    # Half of the time at full size, half of it at (160 / 256)**2 of a step's time.
    assert box.steps == pytest.approx(ENOUGH_STEPS / 1.5 * (0.5 + 0.5 * (256 / 160) ** 2), abs=1)


def test_the_encoder_stays_as_it_is_where_time_is_shortest():
    box = fitted(seconds=100, minutes=1)
    assert box.recipe.optimiser.encoder_factor == 0
    assert box.recipe.size.first_share == pytest.approx(0.5)
    assert box.title == WAYS[-1].title


def test_what_a_user_has_set_stays_so():
    assert fitted(100, fixed={"optimiser.encoder_factor"}).title == WAYS[1].title
    assert fitted(100, fixed={"size.first_share"}).recipe == RECIPE


@given(st.floats(0.01, 100), st.floats(0.1, 600), st.sampled_from([32, 64, 128, 256, 384]))
def test_every_machine_and_size_gets_a_recipe(seconds, minutes, side):
    box = fitted(seconds, minutes, side=side)
    assert box.steps >= 1
    assert box.recipe.size.first_share == 0 or box.recipe.size.first <= side


def test_a_run_that_goes_on_makes_do_as_before():
    box = fitted(seconds=100, minutes=1)
    asked = changed(RECIPE, {"seed": 5})
    again = as_fitted(asked, box.recipe)
    assert again == changed(box.recipe, {"seed": 5, "budget.minutes": 10})


def test_what_a_user_sets_anew_is_not_overruled_by_the_run_that_began():
    box = fitted(seconds=100, minutes=1)
    asked = changed(RECIPE, {"optimiser.encoder_factor": 0.3})
    again = as_fitted(asked, box.recipe, {"optimiser.encoder_factor"})
    assert again.optimiser.encoder_factor == pytest.approx(0.3)  # the run's folder refuses it


def test_a_step_is_measured_on_this_machine(tmp_path):
    recipe = RECIPE.model_copy(update={"network": "microaunet"})
    recipe = changed(recipe, {"size.side": 128})
    full, small = (time_box.measure(recipe, side, "cpu") for side in (128, 32))
    assert 0 < small < full


def test_measuring_ends_when_told():
    recipe = RECIPE.model_copy(update={"network": "microaunet", "budget": Budget(minutes=1)})
    asked = []
    with pytest.raises(CancelledError):
        fit_to_time(recipe, "cpu", cancelled=lambda: asked.append(1) or len(asked) > 1)
    assert len(asked) == 2
