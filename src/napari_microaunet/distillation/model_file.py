"""The model that a training leaves, with a card that says how good it is and on what."""

from __future__ import annotations

import itertools
from concurrent.futures import CancelledError
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_microaunet.distillation.evaluation import Evaluation, Summary, evaluate
from napari_microaunet.distillation.thresholds import CANDIDATES, choose_operating_point
from napari_microaunet.networks.checkpoint import (
    FIGURES,
    INTERVAL_HIGH,
    INTERVAL_LOW,
    load_checkpoint,
    save_checkpoint,
)
from napari_microaunet.networks.library import find_model
from napari_microaunet.prelabel.masks import MaskSettings
from napari_microaunet.prelabel.predictor import Predictor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from napari_microaunet.curation.dataset import CuratedDataset
    from napari_microaunet.distillation.events import Event
    from napari_microaunet.distillation.run_folder import RunFolder
    from napari_microaunet.distillation.trainer import Outcome
    from napari_microaunet.networks.library import Model

MOST_NEGATIVES_FLAGGED = 0.15  # share that a threshold chosen here aims to stay below


class Scorer:
    """Scores models on frames of datasets, at their native size.

    Parameters
    ----------
    device : str
        As PyTorch names it, or "auto".
    report : callable
        Called with events about the progress.
    cancelled : callable
        Asked now and then.
    """

    def __init__(
        self, device: str, report: Callable[[Event], None], cancelled: Callable[[], bool]
    ) -> None:
        self._device = device
        self._report = report
        self.cancelled = cancelled

    def score(
        self,
        model: Model,
        dataset: CuratedDataset,
        indices: Sequence[int],
        settings: MaskSettings,
        alternatives: Sequence[MaskSettings] = (),
    ) -> Evaluation:
        """Score a model.

        Parameters
        ----------
        model : Model
            From the model library.
        dataset : CuratedDataset
            Its masks are the reference, its groups those of the intervals.
        indices : sequence of int
            Which frames.
        settings : MaskSettings
            How its probabilities become masks.
        alternatives : sequence of MaskSettings, optional
            For the curve; see `evaluate`.

        Returns
        -------
        Evaluation

        Raises
        ------
        CancelledError
            If it was cancelled.
        """
        result = evaluate(
            Predictor(model, backend="torch", device=self._device),
            dataset.sequence,
            settings,
            indices,
            reference=dataset.mask,
            groups=dataset.groups,
            alternatives=alternatives,
            progress=lambda done, total: self._report(
                {"event": "scoring", "done": done, "total": total}
            ),
            cancelled=self.cancelled,
        )
        if self.cancelled():
            raise CancelledError
        return result


def write_model(
    path: Path,
    run: RunFolder,
    dataset: CuratedDataset,
    outcome: Outcome,
    scorer: Scorer,
    settings: MaskSettings | None = None,
) -> Evaluation:
    """Write the kept weights of a finished run with a complete card.

    Parameters
    ----------
    path : Path
        The file to write.
    run : RunFolder
        Of the training.
    dataset : CuratedDataset
        What it was trained on; the card's figures are from its held-out frames at their
        native size.
    outcome : Outcome
        How the training ended.
    scorer : Scorer
        Of these frames.
    settings : MaskSettings, optional
        The model's own; chosen on the validation frames by default.

    Returns
    -------
    Evaluation
        On the held-out frames, with these settings.

    Raises
    ------
    CancelledError
        If the scoring was cancelled.
    """
    from napari_microaunet.distillation.replay import replayed_dataset  # PyTorch, with it

    network, card = load_checkpoint(run.kept_file)
    model = find_model(str(run.kept_file))
    if settings is None:
        validation = dataset.indices("validation", labelled=True)
        curve = scorer.score(model, dataset, validation, MaskSettings(), CANDIDATES).curve
        chosen = choose_operating_point([curve], MOST_NEGATIVES_FLAGGED)
        settings = MaskSettings(chosen.threshold, least_peak=chosen.least_peak)
    held_out = dataset.held_out_indices()
    scores = scorer.score(model, dataset, held_out, settings)
    training_data = _with(card.training_data, dataset)
    if run.recipe.replay.share > 0:
        replayed = replayed_dataset(run.recipe.replay, scorer.cancelled)
        training_data = _with(training_data, replayed)
    judged_by = "" if dataset.frames[held_out[0]].split == "test" else ", which judged the training"
    card = card.model_copy(
        update={
            "threshold": settings.threshold,
            "least_peak": settings.least_peak,
            "training_data": training_data,
            "metrics": card_metrics(dataset.name, scores.summary),
            "recipe": _without_folders(run.recipe.model_dump(mode="json")),
            "description": f"{outcome.steps} steps in {outcome.minutes:.0f} minutes; figures are "
            f"from {len(scores.frames)} held-out frames of {dataset.name}{judged_by}.",
            "created": datetime.now(UTC).date().isoformat(),
        }
    )
    save_checkpoint(path, network, card)
    return scores


def card_metrics(title: str, summary: Summary) -> dict[str, float]:
    """Return the figures of a model card, rounded, each with its 95 % interval.

    Parameters
    ----------
    title : str
        What the frames are.
    summary : Summary
        Of a model on them.
    """
    means = (summary.dice, summary.iou, summary.positives_found, summary.negatives_flagged)
    figures = dict(zip(FIGURES, means, strict=True)) | {
        f"{FIGURES[0]}, {size} polyps": of.dice for size, of in summary.by_size.items()
    }
    metrics = {}
    for figure, interval in figures.items():
        if interval is not None:
            metrics[f"{title} {figure}"] = round(interval.mean, 4)
            metrics[f"{title} {figure}{INTERVAL_LOW}"] = round(interval.low, 4)
            metrics[f"{title} {figure}{INTERVAL_HIGH}"] = round(interval.high, 4)
    return metrics


def _with(known: Mapping[str, str], dataset: CuratedDataset) -> dict[str, str]:
    """Add a dataset to what a model has learned from; others of the same name stay."""
    sha256 = dataset.content_hash("training")
    names = itertools.chain([dataset.name], (f"{dataset.name} {n}" for n in itertools.count(2)))
    name = next(name for name in names if known.get(name, sha256) == sha256)
    return {**known, name: sha256}


def _without_folders(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe as it may be passed on: of paths on this machine the names alone."""

    def named(value: Any) -> Any:
        if isinstance(value, dict):
            return _without_folders(value)
        if isinstance(value, str) and (path := Path(value)).is_absolute():
            return path.name
        return value

    return {key: named(value) for key, value in recipe.items()}
