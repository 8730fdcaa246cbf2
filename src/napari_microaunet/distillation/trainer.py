"""The training loop: one recipe, one dataset, one run folder, on any device.

A run that was killed goes on from its last state when it is started again, on the CPU to the same
numbers where the budget counts steps or epochs: what a step draws depends on the seed and
the step's number alone.
"""

from __future__ import annotations

import gc
import math
import time
from collections import defaultdict
from concurrent.futures import CancelledError
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from napari_microaunet.distillation.curriculum import learning_rate_factor
from napari_microaunet.distillation.curves import draw_curves
from napari_microaunet.distillation.events import TELL_EVERY
from napari_microaunet.distillation.learner import (
    Learner,
    Normalised,
    load_start,
    load_teacher,
    parameter_groups,
)
from napari_microaunet.distillation.material import gather_material
from napari_microaunet.distillation.objective import stage_at, weighted_losses
from napari_microaunet.distillation.processes import count_chunks, start_fabric
from napari_microaunet.distillation.training_state import Facts, load_state, save_state
from napari_microaunet.distillation.validation import Validation, validate
from napari_microaunet.distillation.watched import WatchedFrames
from napari_microaunet.distillation.work_clock import WorkClock
from napari_microaunet.errors import InputError
from napari_microaunet.networks.checkpoint import ModelCard, save_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightning_fabric import Fabric

    from napari_microaunet.curation.dataset import CuratedDataset
    from napari_microaunet.distillation.events import Event
    from napari_microaunet.distillation.recipe import Recipe
    from napari_microaunet.distillation.run_folder import RunFolder

MEMORY_FULL = (
    "The memory of the graphics card is full: close other programs that use it, choose a smaller "
    "batch.chunk in the recipe, or train on the CPU."
)
_SAVE_EVERY = 60.0  # seconds
_METRICS_LINES = 200  # lines about steps in the course of a budget


class TrainingError(Exception):
    """The training went wrong in a way that its user can do something about."""


@dataclass(frozen=True)
class Outcome:
    """How a training ended.

    Attributes
    ----------
    finished : bool
        Whether the budget was used up, or early stopping ended it; False where it was cancelled
        and can be resumed.
    steps : int
        Steps taken, over all resumptions.
    minutes : float
        Time in the training loop, over all resumptions, as `WorkClock` counts it.
    best : Validation or None
        The best validation; a finished training has one.
    """

    finished: bool
    steps: int
    minutes: float
    best: Validation | None


def train(
    recipe: Recipe,
    dataset: CuratedDataset,
    run: RunFolder,
    *,
    device: str = "auto",
    report: Callable[[Event], None] = lambda _: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Train a network, or go on with it.

    Parameters
    ----------
    recipe : Recipe
        What to do.
    dataset : CuratedDataset
        Frames, masks, groups and split, as `RunFolder.dataset` gives it.
    run : RunFolder
        Where everything goes; a state in it is resumed.
    device : str
        "auto", "cpu", "cuda", "cuda:1", "mps". Under ``torchrun`` all its processes share the
        work, each on a graphics card of its own where "cuda" is used.
    report : callable, optional
        Called with events, at most one about steps a second.
    cancelled : callable, optional
        Asked before every step, and by a single process in the course of it, too; True saves
        the state of the last complete step and ends.

    Raises
    ------
    InputError
        If the device is missing, there are too few frames, start or teacher cannot be used,
        another process is training in the same folder, or frames, start or teacher have changed
        since the run began.
    TrainingError
        If the loss stops being a number, or the graphics card's memory is too small for one frame
        at a time; for fewer frames at once it goes on from its last state, and says so.
    """
    fabric = start_fabric(device)
    try:
        with run.locked() if fabric.is_global_zero else nullcontext():
            if run.manifest_file.is_file():
                _check_unchanged(dataset, cancelled)
            while True:
                try:
                    return _Training(recipe, dataset, run, fabric, report, cancelled).run_to_end()
                except torch.OutOfMemoryError as error:
                    recipe = _with_smaller_chunks(recipe, fabric, error)
                # Out of the handler, which keeps everything alive that filled the memory.
                gc.collect()
                torch.cuda.empty_cache()
                report({"event": "out of memory", "chunk": recipe.batch.chunk})
    except CancelledError:
        return Outcome(False, 0, 0.0, None)


def _check_unchanged(dataset: CuratedDataset, cancelled: Callable[[], bool]) -> None:
    """Refuse to go on with other frames than those that the training began with."""
    changed = dataset.changed_frames(cancelled)
    if changed:
        raise InputError(
            f"{len(changed)} frames of {dataset.path} have changed or are gone since the training "
            f"began, the first is {changed[0]}: put the former files back, or start a new training."
        )


def _with_smaller_chunks(recipe: Recipe, fabric: Fabric, error: Exception) -> Recipe:
    """Have half as many frames go through the network at once."""
    chunk = min(recipe.batch.chunk, recipe.batch.size) // 2
    if chunk < 1 or fabric.world_size > 1:
        raise TrainingError(MEMORY_FULL) from error
    batch = recipe.batch.model_copy(update={"chunk": chunk})
    return recipe.model_copy(update={"batch": batch})


class _Training:
    """State of one training in one process."""

    def __init__(
        self,
        recipe: Recipe,
        dataset: CuratedDataset,
        run: RunFolder,
        fabric: Fabric,
        report: Callable[[Event], None],
        cancelled: Callable[[], bool],
    ) -> None:
        self.recipe = recipe
        self.run = run
        self.fabric = fabric
        self.report = report if fabric.is_global_zero else lambda _: None
        self.cancelled = cancelled

        self.chunks = count_chunks(recipe.batch, fabric.world_size)
        torch.manual_seed(recipe.seed)
        self.parent, network = load_start(recipe)
        taught_by = load_teacher(recipe)
        self.material = gather_material(
            recipe,
            dataset,
            taught_by,
            fabric,
            run.path.parent,
            chunks=self.chunks,
            report=self.report,
            cancelled=cancelled,
        )
        self.made_from = {
            "the model that it starts from": self.parent.sha256,
            "the model that teaches": "" if taught_by is None else taught_by[0].sha256,
            "the frames that are replayed": self.material.replayed_sha256,
        }
        self.held_out = self.material.held_out.spread(recipe.validation.frames)
        self.watched = WatchedFrames(self.material.held_out, self.parent, recipe.size.side)
        contrasted = recipe.imitation.share < 1 and recipe.preference.contrast > 0
        normalised = Normalised(network, self.parent)
        self.marked_before = self.watched.marked_by(normalised)
        normalised.train()
        teacher = self.material.teacher
        learner = Learner(
            normalised,
            teacher.network.skip_widths
            if teacher is not None and recipe.imitation.features > 0
            else None,
            recipe.preference.dimensions if contrasted else None,
            keep_encoder=recipe.optimiser.encoder_factor == 0,
        )
        optimiser = torch.optim.AdamW(
            parameter_groups(learner, recipe), weight_decay=recipe.optimiser.weight_decay
        )
        self.learner, self.optimiser = fabric.setup(learner, optimiser)
        self.averaged = torch.optim.swa_utils.AveragedModel(
            self.learner.module.normalised, avg_fn=self._average, use_buffers=True
        )

        self.step = 0
        self.clock = WorkClock()
        self.validated = 0
        self.since_best = 0
        self.best: Validation | None = None
        self.losses: defaultdict[str, list[float]] = defaultdict(list)
        if run.state_file.is_file():
            self._resume()
        if fabric.is_global_zero:
            run.begin(dataset.manifest)
            self.watched.write_pictures(run.watched_file)
            run.forget_metrics_after(self.step)
        self.saved = time.monotonic()
        self.told = -math.inf  # the first step is told, however quick the run is

    # --- the loop -------------------------------------------------------------------------

    def run_to_end(self) -> Outcome:
        """Take steps until the budget is used up, the patience ends, or it is cancelled."""
        with self.clock:
            return self._run_to_end()

    def _run_to_end(self) -> Outcome:
        self.report(
            {
                "event": "watching",
                "names": self.watched.names,
                "reference": self.watched.reference(),
                "before": self.marked_before,
            }
        )
        self.report(
            {
                "event": "started",
                "step": self.step,
                "training_frames": self.material.own,
                "replayed_frames": self.material.replayed,
                "validation_frames": len(self.held_out),
                "unused_frames": self.material.unused,
                "problems": self.material.problems,
            }
        )
        finished = False
        while not finished:
            progress = self._progress()
            try:
                self._validate_if_due(progress)
                finished = progress >= 1 or self.since_best >= self.recipe.validation.patience
                if finished or self.fabric.broadcast(self.cancelled()):
                    break
                # Never between a step and its validation, which a resumed run would repeat.
                # The first step is kept at once: whoever stops hard then has a state to go on from.
                if self.step == 1 or time.monotonic() - self.saved > _SAVE_EVERY:
                    self._save()
                self._take_step(progress)
            except CancelledError:
                break
        self._save()
        outcome = Outcome(finished, self.step, self.clock.seconds() / 60, self.best)
        self.report({"event": "finished" if finished else "cancelled", "step": self.step})
        return outcome

    def _progress(self) -> float:
        """Share of the budget that is used up, the same in all processes."""
        budget = self.recipe.budget
        if budget.steps is not None:
            return self.step / budget.steps
        if budget.epochs is not None:
            return self.step * self.recipe.batch.size / (budget.epochs * self.material.own)
        assert budget.minutes is not None  # noqa: S101 - one of the three is set
        return float(self.fabric.broadcast(self.clock.seconds() / (budget.minutes * 60)))

    def _take_step(self, progress: float) -> None:
        settings = self.recipe.optimiser
        factor = learning_rate_factor(progress, settings.warm_up, settings.last)
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * factor
        size = self.recipe.size
        side = size.first if progress < size.first_share else size.side
        mine = range(self.fabric.global_rank, self.chunks, self.fabric.world_size)
        losses: list[tuple[str, float]] = []
        running = [buffer.clone() for buffer in self.learner.buffers()]  # of batch norms
        for number in mine:
            if self._at_once():
                for buffer, former in zip(self.learner.buffers(), running, strict=True):
                    buffer.copy_(former)
                raise CancelledError
            waits = number != mine[-1]
            with self.fabric.no_backward_sync(self.learner, enabled=waits):
                terms = self._losses(progress, number, side)
                loss = torch.stack(list(terms.values())).sum()
                self.fabric.backward(loss / len(mine))
            losses += [(name, float(term.detach())) for name, term in terms.items()]
            losses.append(("loss", float(loss.detach())))
        for name, value in losses:
            self.losses[name].append(value)
        norm = self.fabric.clip_gradients(
            self.learner, self.optimiser, max_norm=settings.clip, error_if_nonfinite=False
        )
        if norm is None or not norm.isfinite():
            best = f" The best weights are in {self.run.kept_file}." if self.best else ""
            raise TrainingError(
                f"The loss or its gradient stopped being a number at step {self.step + 1}; try "
                f"half the learning rate.{best}"
            )
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.averaged.update_parameters(self.learner.module.normalised)
        self.step += 1
        self._tell(progress, side)

    def _at_once(self) -> bool:
        """Whether to end in the middle of things, which several processes cannot agree on."""
        return self.fabric.world_size == 1 and self.cancelled()

    def _losses(self, progress: float, number: int, side: int) -> dict[str, Tensor]:
        """Make one part of the step's batch and return its losses."""
        frames, labels, probabilities = self.material.views.at(self.step, number, side)
        teacher_skips = None
        if self.material.teacher is not None:
            with torch.no_grad():
                taught = self.material.teacher(frames)
            probabilities, teacher_skips = torch.sigmoid(taught.logits), taught.skips
        first = stage_at(self.recipe, progress) == "imitation"
        outputs = self.learner(frames, adapt=first, embed=not first)
        return weighted_losses(self.recipe, progress, outputs, labels, probabilities, teacher_skips)

    def _average(self, averaged: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
        """Move the average of the weights, faster while few steps have been taken.

        The ramp is that of TensorFlow's ``ExponentialMovingAverage`` with ``num_updates``.
        """
        decay = min(self.recipe.optimiser.average, float((1 + count) / (10 + count)))
        return torch.lerp(current.float(), averaged.float(), decay).to(averaged.dtype)

    @property
    def _smooth(self) -> Normalised:
        """The network with averaged weights."""
        return cast("Normalised", self.averaged.module)

    def _tell(self, progress: float, side: int) -> None:
        """Report the step at most once a second, and keep a few lines of metrics."""
        reached = self._progress()
        line = {
            "event": "step",
            "step": self.step,
            "progress": reached,
            "stage": stage_at(self.recipe, progress),
            "side": side,
            "minutes": self.clock.seconds() / 60,
            "learning_rate": self.optimiser.param_groups[-1]["lr"],
        }
        now = time.monotonic()
        if now - self.told > TELL_EVERY:
            self.told = now
            if self.fabric.device.type == "cuda":
                free, memory = torch.cuda.mem_get_info(self.fabric.device)
                line["graphics_memory"] = [memory - free, memory]  # bytes used, and all
            self.report(
                line | {"losses": {name: values[-1] for name, values in self.losses.items()}}
            )
        if self._lines(reached) > self._lines(progress):
            means = {name: sum(values) / len(values) for name, values in self.losses.items()}
            self.losses.clear()
            of_all = cast("Tensor", self.fabric.all_reduce(torch.tensor(list(means.values()))))
            if self.fabric.is_global_zero:
                self.run.add_metrics(
                    line | {"losses": dict(zip(means, of_all.tolist(), strict=True))}
                )

    def _lines(self, progress: float) -> int:
        return int(progress * _METRICS_LINES)

    # --- validation -----------------------------------------------------------------------

    def _validate_if_due(self, progress: float) -> None:
        due = min(1.0, progress) * self.recipe.validation.times
        if int(due) <= self.validated:
            return
        # One process judges for all, so that all of them end at the same step.
        mine = (
            validate(self._smooth, self.held_out, self.recipe.size.side, self._at_once)
            if self.fabric.is_global_zero
            else None
        )
        found = cast("Validation", self.fabric.broadcast(mine))
        self.validated = int(due)
        self.since_best += 1
        if self.best is None or found.score > self.best.score:
            self.best, self.since_best = found, 0
        line = {
            "event": "validation",
            "step": self.step,
            "progress": progress,
            "minutes": self.clock.seconds() / 60,
            "best": self.since_best == 0,
            **asdict(found),
        }
        self.report(line)
        if self.fabric.is_global_zero:
            # The best until the end, so that a training that goes wrong leaves good ones.
            if self.since_best == 0 or (progress >= 1 and self.recipe.validation.keep == "last"):
                self._keep()
            marked = self.watched.marked_by(self._smooth)
            self.report({"event": "watched", "step": self.step, "outlines": marked})
            self.run.add_metrics(line)
            draw_curves(self.run.metrics(), self.run.curves_file)
            self._save()

    def _keep(self) -> None:
        network = self._smooth.network
        card = ModelCard(
            name=self.recipe.title,
            network=self.recipe.network,
            widths=network.widths,
            input_size=(self.recipe.size.side, self.recipe.size.side),
            mean=self.parent.mean,
            std=self.parent.std,
            standardise=self.parent.standardise,
            mirror_images=self.parent.mirror_images,
            parent=self.parent.sha256,
            training_data=self.parent.training_data,
            licence=self.parent.licence,
            description=f"Weights of step {self.step}, not finished.",
        )
        save_checkpoint(self.run.kept_file, network, card)

    # --- going on after a kill ------------------------------------------------------------

    def _save(self) -> None:
        self.saved = time.monotonic()
        if not self.fabric.is_global_zero:
            return
        save_state(
            self.run.state_file,
            self.learner.module,
            self.averaged,
            self.optimiser,
            Facts(
                step=self.step,
                seconds=self.clock.seconds(),
                validated=self.validated,
                since_best=self.since_best,
                best=self.best,
                losses=self.losses,
                made_from=self.made_from,
            ),
        )

    def _resume(self) -> None:
        facts = load_state(self.run.state_file, self.learner.module, self.averaged, self.optimiser)
        for what, sha256 in facts.made_from.items():
            if self.made_from[what] != sha256:
                raise InputError(
                    f"{self.run.path} cannot go on: {what}, by the recipe in it, is another than "
                    "when the training began. Put the former files back, or start a new training "
                    "in another folder."
                )
        self.step = facts.step
        self.clock = WorkClock(facts.seconds)
        if self.fabric.world_size == 1:
            self.losses.update(facts.losses)  # of several processes, only the first one's are kept
        if facts.best is not None and not self.run.kept_file.is_file():
            return  # the present weights are validated again at once, and kept
        self.validated = facts.validated
        self.since_best = facts.since_best
        self.best = facts.best
