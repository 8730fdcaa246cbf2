"""What a training must remember to go on after a kill, in one file that is written whole."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from napari_microaunet.distillation.run_folder import load_tensors, save_tensors
from napari_microaunet.distillation.validation import Validation
from napari_microaunet.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn
    from torch.optim import Optimizer


class Facts(BaseModel):
    """Where a training stands, besides its weights.

    Attributes
    ----------
    step : int
        Steps taken.
    seconds : float
        Time in the training loop, over all starts.
    validated, since_best : int
        Validations done, and how many of them since the best one.
    best : Validation or None
        The best one.
    losses : dict of str to list of float
        Those since the last line of metrics.
    made_from : dict of str to str
        Hashes of what the dataset's manifest says nothing of: the weights that it starts from,
        the teacher's, and the replayed frames. What an older version did not write down is not
        there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    seconds: float
    validated: int
    since_best: int
    best: Validation | None
    losses: dict[str, list[float]]
    made_from: dict[str, str] = {}


def save_state(
    path: Path, learner: nn.Module, averaged: nn.Module, optimiser: Optimizer, facts: Facts
) -> None:
    """Write weights, their average, the optimiser's memory and the facts, atomically."""
    tensors = {f"learner/{name}": tensor for name, tensor in learner.state_dict().items()}
    tensors |= {f"averaged/{name}": tensor for name, tensor in averaged.state_dict().items()}
    for number, slots in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser/{number}/{name}": value for name, value in slots.items()}
    save_tensors(path, tensors, facts.model_dump())


def load_state(path: Path, learner: nn.Module, averaged: nn.Module, optimiser: Optimizer) -> Facts:
    """Load a file of `save_state` into the three, and return the facts.

    Raises
    ------
    InputError
        If the file is damaged, or of another training or version.
    """
    tensors, facts = load_tensors(path)
    parts: defaultdict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in tensors.items():
        part, _, rest = name.partition("/")
        parts[part][rest] = tensor
    slots: defaultdict[int, dict[str, Tensor]] = defaultdict(dict)
    try:
        for name, tensor in parts["optimiser"].items():
            number, _, slot = name.partition("/")
            slots[int(number)][slot] = tensor
        learner.load_state_dict(parts["learner"])
        averaged.load_state_dict(parts["averaged"])
        groups = optimiser.state_dict()["param_groups"]
        optimiser.load_state_dict({"state": dict(slots), "param_groups": groups})
        return Facts.model_validate(facts)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{path} does not fit this version of the package ({reason[:200]}); delete it to "
            "train from the start."
        ) from error
