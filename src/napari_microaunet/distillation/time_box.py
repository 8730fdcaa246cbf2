"""Fit a recipe to the time that there is: what is given up where too few steps would fit.

A step's time is measured on the machine at hand, so that a slow one, a large network or a short
time get by with smaller frames and fewer layers. Epochs follow by themselves: learning rate and
stages go by the share of the time that is over.
"""

from __future__ import annotations

import time
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

from napari_microaunet.distillation.augmentation.augment import Augmentation
from napari_microaunet.distillation.learner import Learner, Normalised, load_start
from napari_microaunet.distillation.losses import segmentation_loss
from napari_microaunet.distillation.recipe import changed
from napari_microaunet.distillation.training_frames import Batches, TrainingFrames
from napari_microaunet.distillation.views import Views

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from napari_microaunet.distillation.recipe import Recipe, Value
    from napari_microaunet.distillation.training_frames import Kind

# What 160 frames are seen 20 times in. A guess: training/experiments.md has what was measured.
ENOUGH_STEPS = 200
# A step is measured on fewer frames than it has: its time goes by their number.
_FRAMES = 4
_REPEATS = 3


class Way(NamedTuple):
    """How a training makes do with its time.

    Attributes
    ----------
    title : str
        In words.
    small_first : bool
        Whether frames are small for half of the time.
    keep_encoder : bool
        Whether the encoder stays as it is.
    """

    title: str
    small_first: bool = False
    keep_encoder: bool = False

    def changes(self, side: int) -> dict[str, Value]:
        """Return what differs in a recipe for frames of some height and width."""
        small: dict[str, Value] = {"size.first": _smaller(side), "size.first_share": 0.5}
        kept: dict[str, Value] = {"optimiser.encoder_factor": 0.0}
        return (small if self.small_first else {}) | (kept if self.keep_encoder else {})


# In the order in which they are tried.
WAYS = (
    Way("all layers, full size"),
    Way("all layers, small frames for half of the time", small_first=True),
    Way("encoder kept, small frames for half of the time", small_first=True, keep_encoder=True),
)


def _smaller(side: int) -> int:
    """Return five eighths of a side, which takes two fifths of the time, as networks can halve."""
    return max(32, side * 5 // 8 // 32 * 32)


@dataclass(frozen=True)
class TimeBox:
    """A recipe that fits its time.

    Attributes
    ----------
    recipe : Recipe
        What is to be done.
    title : str
        How it makes do with the time, in words.
    steps : int
        About how many steps fit.
    """

    recipe: Recipe
    title: str
    steps: int


def fit_to_time(
    recipe: Recipe,
    device: str,
    fixed: Collection[str] = (),
    cancelled: Callable[[], bool] = lambda: False,
    seconds_per_step: Callable[[Recipe, int, str, Callable[[], bool]], float] | None = None,
) -> TimeBox:
    """Choose the first way in which enough steps fit, or else the last one.

    Parameters
    ----------
    recipe : Recipe
        With a budget in minutes.
    device : str
        Where the training is to run.
    fixed : collection of str
        Fields that stay as they are, such as "optimiser.encoder_factor".
    cancelled : callable, optional
        Asked now and then.
    seconds_per_step : callable, optional
        `measure` by default.

    Raises
    ------
    CancelledError
        If `cancelled` says so.
    InputError
        If the weights that the recipe starts from cannot be used.
    """
    minutes = recipe.budget.minutes
    assert minutes is not None  # noqa: S101 - asked for by contract
    step_time = measure if seconds_per_step is None else seconds_per_step
    for way in WAYS:
        changes = way.changes(recipe.size.side)
        if changes.keys() & set(fixed):
            continue
        tried = changed(recipe, changes)
        size = tried.size
        # Steps per second, over the two parts of the time.
        rate = sum(
            share / step_time(tried, side, device, cancelled)
            for share, side in ((size.first_share, size.first), (1 - size.first_share, size.side))
            if share > 0
        )
        best = TimeBox(tried, way.title, max(1, round(minutes * 60 * rate)))
        if best.steps >= ENOUGH_STEPS:
            break
    return best


def as_fitted(recipe: Recipe, like: Recipe, fixed: Collection[str] = ()) -> Recipe:
    """Return a recipe that makes do with the time as another one, which was fitted before.

    Parameters
    ----------
    recipe, like : Recipe
        What is asked now, and what was fitted.
    fixed : collection of str
        Fields that stay as they are asked now.
    """
    fields = {name for way in WAYS for name in way.changes(like.size.side)} - set(fixed)
    return changed(recipe, {name: _value(like, name) for name in fields})


def _value(recipe: Recipe, name: str) -> Value:
    section, field = name.split(".")
    value: Value = getattr(getattr(recipe, section), field)
    return value


def measure(
    recipe: Recipe, side: int, device: str, cancelled: Callable[[], bool] = lambda: False
) -> float:
    """Measure how long a step takes here, in seconds.

    That of a step with new views, without a teacher that looks at them and without validations.

    Parameters
    ----------
    recipe : Recipe
        Says network, layers, batch and augmentation.
    side : int
        Height and width of the views, in pixels.
    device : str
        Where.
    cancelled : callable, optional
        Asked now and then.

    Raises
    ------
    CancelledError
        If `cancelled` says so.
    """
    card, network = load_start(recipe)
    keep_encoder = recipe.optimiser.encoder_factor == 0
    learner = Learner(Normalised(network, card).train(), keep_encoder=keep_encoder).to(device)
    kind: Kind = "polyp"
    pixels = torch.randint(256, (_FRAMES, 4, recipe.size.read_at, recipe.size.read_at))
    frames = TrainingFrames(
        images=pixels[:, :3].to(torch.uint8),
        labels=(pixels[:, 3:] > 127).to(torch.uint8),
        names=("random",) * _FRAMES,
        sources=("random",) * _FRAMES,
        kinds=(kind,) * _FRAMES,
        problems={},
    )
    views = Views(
        frames,
        None,
        Batches(frames, _FRAMES, seed=0),
        Augmentation(recipe.augmentation),
        seed=0,
        chunks=1,
        echo=1,
        device=torch.device(device),
    )
    times = []
    for number in range(_REPEATS):
        if cancelled():
            raise CancelledError
        started = time.perf_counter()
        batch = views.at(number, 0, side)
        outputs = learner(batch.frames, embed=False, adapt=False)
        segmentation_loss(outputs.logits, batch.labels).backward()
        float(next(p.grad for p in learner.parameters() if p.grad is not None).sum())  # waits
        times.append(time.perf_counter() - started)
    return min(times) * recipe.batch.size / _FRAMES
