"""What a training learns from, who teaches it, and the frames that judge it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from napari_microaunet.distillation.augmentation.augment import Augmentation
from napari_microaunet.distillation.events import telling
from napari_microaunet.distillation.learner import Normalised
from napari_microaunet.distillation.replay import load_replayed
from napari_microaunet.distillation.soft_labels import pseudo_labels, soft_labels
from napari_microaunet.distillation.training_frames import Batches, load_split
from napari_microaunet.distillation.views import Views
from napari_microaunet.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from lightning_fabric import Fabric
    from torch import Tensor

    from napari_microaunet.curation.dataset import CuratedDataset
    from napari_microaunet.distillation.events import Event
    from napari_microaunet.distillation.recipe import Recipe
    from napari_microaunet.distillation.training_frames import TrainingFrames
    from napari_microaunet.networks.checkpoint import ModelCard
    from napari_microaunet.networks.segmentation_network import SegmentationNetwork


@dataclass(frozen=True, eq=False)
class Material:
    """Everything that a training looks at.

    Attributes
    ----------
    views : Views
        Augmented frames with their labels, step by step.
    teacher : Normalised or None
        Where it looks at every view; soft labels that it gave once come with the views.
    held_out : TrainingFrames
        Labelled validation frames.
    replayed_sha256 : str
        Hash of the replayed frames; empty where there are none.
    own, replayed, unused : int
        Frames that are learned from: of the dataset, and of older ones; and frames of the dataset
        without a mask that nobody looks at, because their group is held out, no model teaches, or
        there are more of them than the recipe takes.
    problems : dict of str to str
        Frames that could not be used, by name, and why.
    """

    views: Views
    teacher: Normalised | None
    held_out: TrainingFrames
    replayed_sha256: str
    own: int
    replayed: int
    unused: int
    problems: dict[str, str]


def gather_material(
    recipe: Recipe,
    dataset: CuratedDataset,
    teacher: tuple[ModelCard, SegmentationNetwork] | None,
    fabric: Fabric,
    cache: Path,
    *,
    chunks: int,
    report: Callable[[Event], None],
    cancelled: Callable[[], bool],
) -> Material:
    """Read the frames and have the teacher label them.

    Parameters
    ----------
    recipe : Recipe
        Says which frames, how they are mixed and changed, and when the teacher looks at them.
    dataset : CuratedDataset
        Frames, masks, groups and split.
    teacher : tuple of ModelCard and SegmentationNetwork, optional
        Of `learner.load_teacher`.
    fabric : Fabric
        Device and processes.
    cache : Path
        Folder for the soft labels, which other runs on the same frames find again.
    chunks : int
        Parts that a step is computed in.
    report : callable
        Told how reading and labelling go on.
    cancelled : callable
        Asked after every frame.

    Raises
    ------
    InputError
        If there are too few frames, those to be replayed cannot be used, or the recipe weighs a
        source that none is of.
    CancelledError
        If `cancelled` says so.
    """
    batch = recipe.batch
    own, held_out = load_split(
        dataset,
        recipe.size.read_at,
        progress=telling(report, "reading"),
        cancelled=cancelled,
        most_unlabelled=batch.most_unlabelled if recipe.teacher and batch.unlabelled > 0 else 0,
    )
    unlabelled_names = {frame.name for frame in dataset.frames if not frame.labelled}
    unused = len(unlabelled_names.difference(own.names, own.problems))
    number, replayed_sha256 = len(own), ""
    frames = own
    if recipe.replay.share > 0:
        replayed = load_replayed(recipe.replay, dataset, recipe.size.read_at, cancelled)
        replayed_sha256 = replayed.sha256
        frames = own.joined(replayed)
    del own  # of which there is a copy by now
    _check_sources(batch.source_weights, dataset, frames)
    looking_on, soft = _labels_of(
        recipe, teacher, frames, fabric, cache, telling(report, "soft labels"), cancelled
    )
    unlabelled = batch.unlabelled if recipe.teacher and "unlabelled" in frames.kinds else 0.0
    with_mask = 1 - recipe.replay.share - unlabelled
    if recipe.teacher is not None and recipe.teacher.pseudo_labels and soft is not None:
        frames = replace(frames, labels=pseudo_labels(frames.labels, soft))
        with_mask += unlabelled
    batches = Batches(
        frames,
        batch.size,
        recipe.seed,
        negatives=batch.negatives * with_mask,
        unlabelled=unlabelled,
        replayed=recipe.replay.share,
        source_weights=batch.source_weights,
    )
    views = Views(
        frames,
        soft,
        batches,
        Augmentation(recipe.augmentation),
        seed=recipe.seed,
        chunks=chunks,
        echo=batch.echo,
        device=fabric.device,
    )
    return Material(
        views,
        looking_on,
        held_out,
        replayed_sha256,
        number,
        len(frames) - number,
        unused,
        frames.problems | held_out.problems,
    )


def _check_sources(
    weighed: Mapping[str, float], dataset: CuratedDataset, frames: TrainingFrames
) -> None:
    """Refuse a weight for a source that does not exist, most likely a slip of the pen."""
    sources = {frame.source for frame in dataset.frames} | set(frames.sources)
    for source in weighed:
        if source not in sources:
            raise InputError(
                f'The recipe weighs frames of "{source}" (batch.source_weights), and '
                f"{dataset.path} has none of them, but of {', '.join(sorted(sources))}; correct "
                "the name."
            )


def _labels_of(
    recipe: Recipe,
    teacher: tuple[ModelCard, SegmentationNetwork] | None,
    frames: TrainingFrames,
    fabric: Fabric,
    cache: Path,
    progress: Callable[[int, int], None],
    cancelled: Callable[[], bool],
) -> tuple[Normalised | None, Tensor | None]:
    """Return the teacher that looks at every view, or the labels that it gives once."""
    if recipe.teacher is None or teacher is None:
        return None, None
    card, network = teacher
    normalised = Normalised(network, card, card.input_size)
    fabric.to_device(normalised.eval().requires_grad_(False))
    if recipe.teacher.soft_labels == "each view":
        return normalised, None
    with fabric.rank_zero_first():  # the others read the file that the first one writes
        return None, soft_labels(
            normalised, card, frames, cache, progress=progress, cancelled=cancelled
        )
