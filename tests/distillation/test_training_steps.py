"""What the steps of a training do to the weights, and which weights are kept."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_frames import write_frames
from small_training import small_recipe
from test_trainer import metrics, run
from torch.optim.optimizer import register_optimizer_step_pre_hook

from napari_microaunet.distillation import trainer
from napari_microaunet.distillation.validation import validate
from napari_microaunet.networks.checkpoint import load_checkpoint

if TYPE_CHECKING:
    from torch import Tensor, nn

    from napari_microaunet.distillation.trainer import Outcome
    from napari_microaunet.distillation.validation import Validation

Weights = dict[str, "Tensor"]

RATE, ENCODER_FACTOR, CLIP, AVERAGE = 0.01, 0.1, 1e-3, 0.28
OPTIMISER = {
    "learning_rate": RATE,
    "encoder_factor": ENCODER_FACTOR,
    "warm_up": 1 / 3,
    "last": 0.1,
    "clip": CLIP,
    "average": AVERAGE,
}
SCORES = (0.3, 0.9, 0.5)  # of the validations after steps 2, 4 and 6


def floats(network: nn.Module) -> Weights:
    """Copy weights and running statistics."""
    return {n: w.clone() for n, w in network.state_dict().items() if w.is_floating_point()}


@dataclass
class Trained:
    """A training of six steps, and what was seen of it from outside.

    Attributes
    ----------
    folder : Path
        Its run folder.
    weights : list of dict of str to Tensor
        Those of the network after each step.
    rates : list of pairs of sets of float
        The encoder's learning rates in each step, and those of the rest.
    norms : list of float
        Norm of the gradient that the optimiser got in each step.
    inputs : list of Tensor
        What the network got in each step.
    """

    folder: Path
    outcome: Outcome | None = None
    weights: list[Weights] = field(default_factory=list)
    rates: list[tuple[set[float], set[float]]] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    inputs: list[Tensor] = field(default_factory=list)

    def look(self, training: trainer._Training) -> None:
        """Note what a step has left."""
        network = training.learner.module.normalised.network
        encoder = {id(p) for part in network.encoder_parts for p in part.parameters()}
        rates: tuple[set[float], set[float]] = set(), set()
        for group in training.optimiser.param_groups:
            for parameter in group["params"]:
                rates[id(parameter) not in encoder].add(group["lr"])
        self.rates.append(rates)
        self.weights.append(floats(network))


def train_and_look(place: Path, keep: str) -> Trained:
    """Train; `validate` has the scores that are to decide."""
    seen = Trained(place / "run")
    take_step, scores = trainer._Training._take_step, iter(SCORES)

    def take_step_and_look(training: trainer._Training, progress: float) -> None:
        first = next(training.learner.module.normalised.network.encoder.children())
        hook = first.register_forward_pre_hook(lambda _, given: seen.inputs.append(given[0]))
        take_step(training, progress)
        hook.remove()
        seen.look(training)

    def measure(optimiser: torch.optim.Optimizer, *_: object) -> None:
        gradients = [p.grad for group in optimiser.param_groups for p in group["params"]]
        seen.norms.append(float(torch.nn.utils.get_total_norm(gradients)))

    def validate_as_told(*given: Any) -> Validation:
        return replace(validate(*given), score=next(scores))

    recipe = small_recipe(
        write_frames(place / "frames"),
        batch={"size": 4},
        size={"side": 64, "first": 48, "first_share": 0.5},
        optimiser=OPTIMISER,
        teacher=None,
        imitation={"share": 1.0},
        validation={"times": 3, "frames": 8, "keep": keep},
    )
    measuring = register_optimizer_step_pre_hook(measure)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer._Training, "_take_step", take_step_and_look)
        patch.setattr(trainer, "validate", validate_as_told)
        seen.outcome = run(recipe, seen.folder)
    measuring.remove()
    return seen


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train_and_look(tmp_path_factory.mktemp("steps"), "best")


def averages(weights: list[Weights]) -> list[Weights]:
    """Average by hand: the first weights as they are, then faster while they are few."""
    found = weights[:1]
    for count, current in enumerate(weights[1:], start=1):
        decay = min(AVERAGE, (1 + count) / (10 + count))
        found.append({n: decay * found[-1][n] + (1 - decay) * current[n] for n in current})
    return found


def assert_close(one: Weights, other: Weights) -> None:
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def steps(trained: Trained) -> list[dict[str, Any]]:
    return [line for line in metrics(trained.folder) if line["event"] == "step"]


def test_the_learning_rate_warms_up_and_falls_by_a_cosine(trained: Trained) -> None:
    # From a tenth in a third of six steps; then cosines of 0, 45, 90 and 135 degrees.
    expected = [RATE * factor for factor in (0.1, 0.55, 1.0, 0.8682, 0.55, 0.2318)]
    assert [line["learning_rate"] for line in steps(trained)] == pytest.approx(expected, rel=1e-3)
    for (of_encoder, of_rest), rate in zip(trained.rates, expected, strict=True):
        assert list(of_rest) == pytest.approx([rate], rel=1e-3)
        assert list(of_encoder) == pytest.approx([rate * ENCODER_FACTOR], rel=1e-3)


def test_the_gradient_is_clipped(trained: Trained) -> None:
    # That of an untrained network is a thousand times as large: it is cut in every step.
    assert trained.norms == pytest.approx([CLIP] * 6, rel=1e-3)


def test_frames_are_small_at_first(trained: Trained) -> None:
    assert [line["side"] for line in steps(trained)] == [48, 48, 48, 64, 64, 64]
    assert [given.shape[2:] for given in trained.inputs] == [(48, 48)] * 3 + [(64, 64)] * 3


def test_the_network_learns_channels_last(trained: Trained) -> None:
    # A layout that costs half the time on a CPU; nothing else would tell that it is lost.
    kernels = [weights for weights in trained.weights[-1].values() if weights.ndim == 4]
    assert kernels
    for tensor in (*trained.inputs, *kernels):
        assert tensor.is_contiguous(memory_format=torch.channels_last)


def test_the_average_of_the_best_validation_is_kept(trained: Trained) -> None:
    assert trained.outcome is not None
    assert trained.outcome.best is not None
    assert trained.outcome.best.score == 0.9
    told = [line for line in metrics(trained.folder) if line["event"] == "validation"]
    assert [(line["step"], line["best"]) for line in told] == [(2, True), (4, True), (6, False)]
    kept = floats(load_checkpoint(trained.folder / "kept.safetensors")[0])
    averaged = averages(trained.weights)
    assert_close(kept, averaged[3])
    for other in (trained.weights[3], averaged[1], averaged[5]):
        with pytest.raises(AssertionError):
            assert_close(kept, other)


def test_the_average_at_the_end_of_the_budget_is_kept_where_asked(tmp_path: Path) -> None:
    trained = train_and_look(tmp_path, "last")
    assert trained.outcome is not None
    assert trained.outcome.best is not None
    assert trained.outcome.best.score == 0.9
    kept = floats(load_checkpoint(trained.folder / "kept.safetensors")[0])
    assert_close(kept, averages(trained.weights)[5])


@pytest.mark.parametrize(
    ("average", "count", "expected"),
    # 6/15 after so few steps; what the recipe says where that is less.
    [(0.998, 5, 16.0), (0.3, 5, 17.0), (0.998, 100_000, 10.02)],
)
def test_the_average_moves_faster_at_first(average: float, count: int, expected: float) -> None:
    training = SimpleNamespace(recipe=small_recipe(Path(), optimiser={"average": average}))
    weights = torch.tensor([10.0]), torch.tensor([20.0])
    moved = trainer._Training._average(training, *weights, count)  # type: ignore[arg-type]
    assert moved.tolist() == pytest.approx([expected])


def test_a_finished_run_leaves_its_curves_as_a_picture(trained: Trained) -> None:
    with Image.open(trained.folder / "curves.png") as curves:
        curves.load()
        assert curves.format == "PNG"
        assert min(curves.size) > 300
        assert np.ptp(np.asarray(curves.convert("L"))) > 100  # not an empty sheet
