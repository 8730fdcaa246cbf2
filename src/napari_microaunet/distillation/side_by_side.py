"""Two models on the frames of a dataset, each as it would be used."""

from __future__ import annotations

from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_microaunet.curation.manifest import MANIFEST_NAME
from napari_microaunet.distillation.comparison import Comparison, compare
from napari_microaunet.distillation.evaluation import Summary, evaluate
from napari_microaunet.errors import InputError
from napari_microaunet.prelabel.masks import MaskSettings
from napari_microaunet.prelabel.predictor import Predictor

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_microaunet.curation.dataset import CuratedDataset
    from napari_microaunet.networks.library import Model


@dataclass(frozen=True)
class SideBySide:
    """What two models make of the same frames.

    Attributes
    ----------
    frames : str
        Which ones, in words.
    first, second : Summary
        Each at the model's own threshold and least peak.
    difference : Comparison
        First minus second, frame by frame.
    problems : dict of str to str
        Frames that could not be scored, by name, and why.
    """

    frames: str
    first: Summary
    second: Summary
    difference: Comparison
    problems: dict[str, str]


def side_by_side(
    first: Model,
    second: Model,
    dataset: CuratedDataset,
    *,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> SideBySide:
    """Score two models on the same frames of a dataset.

    Parameters
    ----------
    first, second : Model
        From the model library.
    dataset : CuratedDataset
        Its labelled frames are looked at; the held-out ones alone where it is a curated dataset,
        or where one of the models has learned from it: on what it has learned from, any model
        looks good.
    progress : callable
        Told ``(done, total)``, the frames of both models counted.
    cancelled : callable
        As for `Predictor.predict`.

    Returns
    -------
    SideBySide

    Raises
    ------
    InputError
        If there are no such frames, or none could be scored, or a model cannot be used.
    CancelledError
        If `cancelled` says so.
    """
    indices, kind = _frames_to_score(first, second, dataset)
    evaluations = []
    for number, model in enumerate((first, second)):

        def tell(done: int, total: int, before: int = number * len(indices)) -> None:
            progress(before + done, 2 * total)

        evaluations.append(
            evaluate(
                Predictor(model),
                dataset.sequence,
                MaskSettings.of(model.card),
                indices,
                reference=dataset.mask,
                groups=dataset.groups,
                progress=tell,
                cancelled=cancelled,
            )
        )
        if cancelled():
            raise CancelledError
    one, other = evaluations
    if not one.frames:
        problem = next(iter(one.problems.values()))
        raise InputError(f"{dataset.path}: no frame could be scored ({problem})")
    return SideBySide(
        f"{len(one.frames)} {kind} frames of {dataset.name}",
        one.summary,
        other.summary,
        compare(one.frames, other.frames),
        one.problems,
    )


def have_learned_from(dataset: CuratedDataset, *models: Model) -> bool:
    """Tell whether one of these models has learned from a dataset, as far as its card tells.

    By its name, too: since then, a mask may have been corrected, or frames added.
    """
    learned = [of for model in models for of in model.card.training_data.items()]
    sha256 = dataset.content_hash("training")
    return any(dataset.name == name or sha256 == known for name, known in learned)


def _frames_to_score(first: Model, second: Model, dataset: CuratedDataset) -> tuple[list[int], str]:
    """Choose frames, and say in a word which they are."""
    if have_learned_from(dataset, first, second) or (dataset.path / MANIFEST_NAME).is_file():
        indices, kind = dataset.held_out_indices(), "held-out"
    else:
        indices = [index for index, frame in enumerate(dataset.frames) if frame.labelled]
        kind = "labelled"
    if not indices:
        raise InputError(
            f"{dataset.path} has no {kind} frames with masks to compare models on; choose a "
            "dataset that has."
        )
    return indices, kind
