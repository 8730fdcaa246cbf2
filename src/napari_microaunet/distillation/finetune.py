"""Fine-tuning on a user's own frames: teacher first if wanted, both stages, before and after.

::

    OUT/
    ├── teacher/               the run that adapts the teacher, where that was asked for
    ├── student/               the run of the model that is fine-tuned
    ├── model.safetensors      the new model with its card
    └── report.json            before and after, on held-out frames and on a reference set
"""

from __future__ import annotations

import json
from concurrent.futures import CancelledError
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch

from napari_microaunet.atomic import replacing
from napari_microaunet.curation.dataset import open_dataset
from napari_microaunet.distillation.comparison import Comparison, FrameChange, changes, compare
from napari_microaunet.distillation.model_file import Scorer, write_model
from napari_microaunet.distillation.recipe import (
    Budget,
    Recipe,
    Teacher,
    changed,
    finetuning_recipe,
)
from napari_microaunet.distillation.replay import replayed_dataset
from napari_microaunet.distillation.run_folder import RunFolder, kept_recipe
from napari_microaunet.distillation.time_box import as_fitted, fit_to_time
from napari_microaunet.distillation.trainer import MEMORY_FULL, Outcome, TrainingError, train
from napari_microaunet.errors import InputError
from napari_microaunet.frames.sample_data import sample_data_folder
from napari_microaunet.networks.library import Model, find_model
from napari_microaunet.prelabel.backends import torch_device
from napari_microaunet.prelabel.masks import MaskSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from napari_microaunet.curation.dataset import CuratedDataset
    from napari_microaunet.distillation.evaluation import Evaluation, Summary
    from napari_microaunet.distillation.events import Event
    from napari_microaunet.distillation.recipe import Replay, Value

_TEACHER_SHARE = 0.4  # of the budget, where the teacher is adapted first


@dataclass(frozen=True)
class BeforeAndAfter:
    """The model that was started from and the new one, on the same frames.

    Attributes
    ----------
    before, after : Summary
        Both at the threshold of the model that was started from: none is chosen on these frames.
    difference : Comparison
        New minus old, frame by frame.
    frames : tuple of FrameChange
        The frames, the most improved first.
    """

    before: Summary
    after: Summary
    difference: Comparison
    frames: tuple[FrameChange, ...]


@dataclass(frozen=True)
class FinetuneReport:
    """What came of a fine-tuning.

    Attributes
    ----------
    model : Path
        The new model.
    outcome : Outcome
        Of the student's training.
    held_out : BeforeAndAfter
        On frames of the dataset that no weights were made from: its test split, or the
        validation split where there is none, on which the best weights were chosen.
    reference : BeforeAndAfter
        On frames that have nothing to do with the dataset: what was forgotten.
    problems : dict of str to str
        Held-out and reference frames that could not be read any more, by name, and why; they are
        in no figure.
    """

    model: Path
    outcome: Outcome
    held_out: BeforeAndAfter
    reference: BeforeAndAfter
    problems: dict[str, str]


def finetune(
    data: Path,
    out: Path,
    budget: Budget,
    *,
    start: str = "student",
    teacher: str | None = "expert",
    adapt_teacher: bool = False,
    reference: Path | None = None,
    seed: int = 1,
    changes: Mapping[str, Value] = MappingProxyType({}),
    device: str = "auto",
    report: Callable[[Event], None] = lambda _: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> FinetuneReport | None:
    """Fine-tune a model, or go on with it where it was stopped.

    Parameters
    ----------
    data : Path
        A curated dataset, or another folder with masks.
    out : Path
        Folder of the runs, the model and the report.
    budget : Budget
        Of the whole; where the teacher is adapted first it gets two fifths. A recipe is fitted to
        its minutes (see `fit_to_time`), but for what `changes` says.
    start : str
        Model to start from: a name in the library, or a file.
    teacher : str or None
        Model that teaches; None for labels alone.
    adapt_teacher : bool
        Whether the teacher is fine-tuned first, on the labels.
    reference : Path, optional
        Frames with masks that show what is forgotten; the package's sample frames by default.
        Those among them that teach or are replayed are left out.
    seed : int
        Of everything drawn.
    changes : mapping of str to value
        What is to differ from the package's recipe for the student; see `recipe.changed`.
    device : str
        "auto", "cpu", "cuda", "cuda:1" or "mps".
    report, cancelled : callable
        As for `trainer.train`.

    Returns
    -------
    FinetuneReport or None
        None where it was cancelled.

    Raises
    ------
    InputError
        If the data, a model or the folder cannot be used, or the folder holds a model or a report
        from elsewhere.
    TrainingError
        If the loss stops being a number, or the graphics card's memory is full.
    """
    device = torch_device(device)
    old = find_model(start)
    taught_by = None if teacher is None else find_model(teacher)
    recipes = _recipes(data, out, budget, old, taught_by, adapt_teacher, seed)
    recipes["student"] = changed(recipes["student"], changes)
    replayed = recipes["student"].replay.data
    if replayed is not None:
        whole = {"replay.data": str(replayed.absolute())}
        recipes["student"] = changed(recipes["student"], whole)
    model, report_file = out / "model.safetensors", out / "report.json"
    _check_free(out, list(recipes), (model, report_file))
    settings = MaskSettings.of(old.card)
    scorer = Scorer(device, report, cancelled)
    try:
        for part, recipe in recipes.items():
            fixed = changes if part == "student" else ()
            tell = _with_part(report, part)
            recipes[part] = _in_time(recipe, out / part, device, fixed, tell, cancelled)
        runs = {part: RunFolder(out / part, recipe) for part, recipe in recipes.items()}
        dataset = next(iter(runs.values())).dataset(cancelled)
        reference_frames = open_dataset(
            sample_data_folder() / "frames" if reference is None else reference, cancelled=cancelled
        )
        reference_indices = _not_taught(
            reference_frames, dataset, recipes["student"].replay, cancelled
        )
        for part, run in runs.items():
            tell = _with_part(report, part)
            tell({"event": "recipe", "recipe": recipes[part].model_dump(mode="json")})
            outcome = train(
                recipes[part], dataset, run, device=device, report=tell, cancelled=cancelled
            )
            if not outcome.finished:
                return None
        after = write_model(model, run, dataset, outcome, scorer, settings)
        before = scorer.score(old, dataset, dataset.held_out_indices(), settings)
        remembered, known = (
            scorer.score(which, reference_frames, reference_indices, settings)
            for which in (find_model(str(model)), old)
        )
    except CancelledError:
        return None
    except torch.OutOfMemoryError as error:
        raise TrainingError(MEMORY_FULL) from error
    result = FinetuneReport(
        model,
        outcome,
        _before_and_after(before, after),
        _before_and_after(known, remembered),
        after.problems | remembered.problems,
    )
    with replacing(report_file) as file:
        file.write(as_json(result).encode())
    return result


def as_json(report: FinetuneReport) -> str:
    """Return a report as JSON."""
    return json.dumps(asdict(report), indent=1, default=str)


def _check_free(out: Path, runs: Sequence[str], files: Sequence[Path]) -> None:
    """Refuse to write over what no fine-tuning in this folder has made."""
    if any(kept_recipe(out / run) is not None for run in runs):
        return
    for file in files:
        if file.exists():
            raise InputError(
                f"{file} is there already, and not from a fine-tuning in this folder; choose "
                "another folder for the new model."
            )


def _recipes(
    data: Path,
    out: Path,
    budget: Budget,
    start: Model,
    teacher: Model | None,
    adapt_teacher: bool,
    seed: int,
) -> dict[str, Recipe]:
    """Return the recipes of the runs by name, in their order; the student's is the last one."""
    if teacher is None:
        return {"student": _recipe(data, start, None, budget, seed)}
    if not adapt_teacher:
        taught_by = Teacher(model=str(teacher.path.absolute()), soft_labels="once")
        return {"student": _recipe(data, start, taught_by, budget, seed)}
    first, second = _share(budget, _TEACHER_SHARE), _share(budget, 1 - _TEACHER_SHARE)
    adapted = (out / "teacher" / "kept.safetensors").absolute()
    taught_by = Teacher(model=str(adapted), soft_labels="once")
    return {
        "teacher": _recipe(data, teacher, None, first, seed),
        "student": _recipe(data, start, taught_by, second, seed),
    }


def _recipe(data: Path, start: Model, teacher: Teacher | None, budget: Budget, seed: int) -> Recipe:
    """Complete the package's recipe for one model."""
    height, width = start.card.input_size
    if height != width:
        raise InputError(
            f"{start.path} is for frames of {width} x {height} pixels, and only models for square "
            "ones can be fine-tuned; choose another model."
        )
    return changed(
        finetuning_recipe(start.card.network).model_copy(
            update={
                "title": f"{start.card.name}, fine-tuned"[:100],
                "data": data.absolute(),
                "start": str(start.path.absolute()),
                "teacher": teacher,
                "budget": budget,
                "seed": seed,
            }
        ),
        {"size.side": height},
    )


def _not_taught(
    reference: CuratedDataset,
    dataset: CuratedDataset,
    replay: Replay,
    cancelled: Callable[[], bool],
) -> list[int]:
    """Choose the labelled frames that no weights are made from."""
    teaching = {digest for i in dataset.indices("training") for digest in dataset.digests(i)}
    if replay.share > 0:
        known = replayed_dataset(replay, cancelled)
        teaching |= {digest for i in known.indices("training") for digest in known.digests(i)}
    indices = [
        index
        for index, frame in enumerate(reference.frames)
        if frame.labelled and teaching.isdisjoint(reference.digests(index))
    ]
    if not indices:
        raise InputError(
            f"{reference.path} holds no frames with masks but those that teach, so nothing could "
            "be scored on it; choose other reference frames."
        )
    return indices


def _in_time(
    recipe: Recipe,
    folder: Path,
    device: str,
    fixed: Collection[str],
    report: Callable[[Event], None],
    cancelled: Callable[[], bool],
) -> Recipe:
    """Fit a recipe to its minutes, or as it was fitted when its run began."""
    if recipe.budget.minutes is None:
        return recipe
    kept = kept_recipe(folder)
    if kept is not None:
        return as_fitted(recipe, kept, fixed)
    box = fit_to_time(recipe, device, fixed, cancelled)
    report({"event": "time box", "steps": box.steps, "title": box.title})
    return box.recipe


def _share(budget: Budget, share: float) -> Budget:
    steps = None if budget.steps is None else max(1, round(budget.steps * share))
    return Budget(
        minutes=None if budget.minutes is None else budget.minutes * share,
        epochs=None if budget.epochs is None else budget.epochs * share,
        steps=steps,
    )


def _with_part(report: Callable[[Event], None], part: str) -> Callable[[Event], None]:
    return lambda event: report({**event, "part": part})


def _before_and_after(before: Evaluation, after: Evaluation) -> BeforeAndAfter:
    return BeforeAndAfter(
        before.summary,
        after.summary,
        compare(after.frames, before.frames),
        changes(before.frames, after.frames),
    )
