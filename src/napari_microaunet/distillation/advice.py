"""What is to be known of a dataset before anybody trains with it, in words."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_microaunet.frames.masks import IGNORE

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_microaunet.curation.dataset import CuratedDataset
    from napari_microaunet.curation.manifest import Split

# With fewer polyps, every batch of 16 would hold every one of them, and the network would learn
# them by heart. It is the least that can be trained with, not enough for a good model.
MINIMUM_TRAINING_POLYPS = 10
# Without one there is nothing to choose the best weights by.
MINIMUM_VALIDATION_POLYPS = 1
# Below this the gain on a shifted domain drowns in the choice of frames; a rule of thumb of
# people who fine-tune segmentation models, not a measurement of ours.
_FEW_POLYPS = 50


@dataclass(frozen=True)
class DatasetAdvice:
    """A dataset in figures, and what speaks against training with it.

    Attributes
    ----------
    polyps, negatives, unlabelled : dict of {"training", "validation", "test"} to int
        Frames of each kind by split.
    groups : int
        How many videos, folders or scenes there are.
    obstacles : tuple of str
        Why no training can begin, in sentences that say what to do; empty where one can.
    warnings : tuple of str
        Why its result may be poor, likewise.
    """

    polyps: dict[Split, int]
    negatives: dict[Split, int]
    unlabelled: dict[Split, int]
    groups: int
    obstacles: tuple[str, ...]
    warnings: tuple[str, ...]


def advise(
    dataset: CuratedDataset,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> DatasetAdvice:
    """Count a dataset's frames by their masks, and say what is missing.

    Parameters
    ----------
    dataset : CuratedDataset
        What is to be trained with.
    progress : callable, optional
        Told how many frames were looked at, and all.
    cancelled : callable, optional
        Asked before every frame.

    Returns
    -------
    DatasetAdvice

    Raises
    ------
    InputError
        If a mask cannot be read.
    CancelledError
        If `cancelled` says so.
    """
    polyps: Counter[Split] = Counter()
    negatives: Counter[Split] = Counter()
    unlabelled: Counter[Split] = Counter()
    with_polyps: set[str] = set()
    for index, record in enumerate(dataset.frames):
        if cancelled():
            raise CancelledError
        mask = dataset.mask(index)
        if mask is None:
            unlabelled[record.split] += 1
        elif ((mask > 0) & (mask < IGNORE)).any():
            polyps[record.split] += 1
            with_polyps.add(record.group)
        elif (mask == 0).any():  # not ignored throughout
            negatives[record.split] += 1
        progress(index + 1, len(dataset.frames))

    groups = {record.group for record in dataset.frames}
    obstacles, warnings = [], []
    needed: dict[Split, int] = {
        "training": MINIMUM_TRAINING_POLYPS,
        "validation": MINIMUM_VALIDATION_POLYPS,
    }
    for split, least in needed.items():
        if polyps[split] < least:
            obstacles.append(
                f"There are {polyps[split]} {split} frames with a polyp, and at least {least} are "
                "needed: accept more frames, of other videos or folders as well."
            )
    if len(with_polyps) == 1:
        obstacles.append(
            "All polyps are of one video or folder, so nothing can be held out to judge the new "
            "model by: add frames of another one."
        )
    elif not obstacles and sum(polyps.values()) < _FEW_POLYPS:
        warnings.append(
            f"There are only {sum(polyps.values())} frames with a polyp: the new model may be no "
            f"better. {_FEW_POLYPS} or more, of several videos, are a good start."
        )
    if not negatives["training"]:
        warnings.append(
            "No training frame is without a polyp, so the new model may see polyps everywhere: "
            "accept some negative frames."
        )
    return DatasetAdvice(
        dict(polyps),
        dict(negatives),
        dict(unlabelled),
        len(groups),
        tuple(obstacles),
        tuple(warnings),
    )
