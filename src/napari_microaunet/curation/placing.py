"""Which group and split new frames of a dataset get; those that it has stay where they are."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from napari_microaunet.curation.groups import merge_near_duplicates, near_duplicate_pairs
from napari_microaunet.curation.manifest import SPLITS
from napari_microaunet.curation.splits import fill_splits
from napari_microaunet.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from napari_microaunet.curation.manifest import FrameRecord, Split

# Of the frame: where small polyps end and large ones begin. They are the bounds that scores are
# told by (`distillation.evaluation.POLYP_SIZES`), which count the field of view alone.
_MEDIUM, _LARGE = 0.05, 0.15


@dataclass(frozen=True)
class Shares:
    """What the splits are to have of all frames.

    Attributes
    ----------
    training, validation, test : float
        At least 0, with the sum 1.

    Raises
    ------
    InputError
        If they are anything else.
    """

    training: float = 0.7
    validation: float = 0.15
    test: float = 0.15

    def __post_init__(self) -> None:
        values = list(self.by_split.values())
        if not all(value >= 0 for value in values) or abs(sum(values) - 1) > 1e-6:
            raise InputError(
                f"Shares of {', '.join(f'{value:g}' for value in values)} for training, validation "
                "and test do not add up to 1; choose three such as 0.7, 0.15 and 0.15."
            )

    @property
    def by_split(self) -> dict[Split, float]:
        """The shares by the names of the splits."""
        return {"training": self.training, "validation": self.validation, "test": self.test}


@dataclass
class Placement:
    """Where new frames go.

    Attributes
    ----------
    places : dict of int to (str, str)
        Group and split by the number of the frame.
    leaks : dict of int to str
        New frames that fit nowhere, and why: they are near-duplicates of frames in another
        split than the rest of their group.
    """

    places: dict[int, tuple[str, Split]] = field(default_factory=dict)
    leaks: dict[int, str] = field(default_factory=dict)


def kind_of(record: FrameRecord) -> str:
    """Name what a split is to have its share of: negatives, and polyps by size."""
    if not record.labelled:
        return "unlabelled"
    if record.negative or not record.polyp_pixels or not record.height or not record.width:
        return "negative" if record.negative else "polyp of unknown size"
    share = record.polyp_pixels / (record.height * record.width)
    return "large" if share >= _LARGE else "medium" if share >= _MEDIUM else "small"


def place_frames(
    records: Sequence[FrameRecord],
    placed: Sequence[Split | None],
    fixed: int,
    thumbnails: NDArray[np.float32],
    shares: Shares,
    seed: int,
) -> Placement:
    """Choose group and split of new frames.

    Groups that hold near-duplicates of each other count as one. One that meets frames of the
    dataset joins their group and their split; one that brings a split keeps it; the others fill
    the splits up to their shares.

    Parameters
    ----------
    records : sequence of FrameRecord
        The frames of the dataset, then the new ones.
    placed : sequence of str or None
        The split that each frame has or brings.
    fixed : int
        How many frames belong to the dataset already.
    thumbnails : float32 array, shape (n, 32, 32)
        From `groups.thumbnails_of`.
    shares : Shares
    seed : int

    Returns
    -------
    Placement
        Every new frame is in one of its two parts.
    """
    _, labels = np.unique([record.group for record in records], return_inverse=True)
    pairs = near_duplicate_pairs(thumbnails, labels)
    clusters = merge_near_duplicates(thumbnails, labels)
    members = defaultdict(list)
    for index, cluster in enumerate(clusters):
        members[int(cluster)].append(index)

    chosen: dict[int, Split] = {}
    new: dict[int, Counter[str]] = {}
    taken: dict[Split, Counter[str]] = {split: Counter() for split in SPLITS}
    for cluster, inside in members.items():
        # The frames of the dataset come first, and of sources the first one.
        split = next((placed[index] for index in inside if placed[index] is not None), None)
        kinds = Counter(kind_of(records[index]) for index in inside if index >= fixed)
        if split is None:
            new[cluster] = kinds
        else:
            chosen[cluster] = split
            taken[split] += kinds
    for record in records[:fixed]:
        taken[record.split][kind_of(record)] += 1
    # The splits must not depend on how clusters happen to be numbered.
    first = {cluster: min(records[i].group for i in members[cluster]) for cluster in new}
    filled = fill_splits(
        {first[cluster]: kinds for cluster, kinds in new.items()}, shares.by_split, taken, seed
    )
    chosen |= {cluster: filled[name] for cluster, name in first.items()}

    result = Placement(leaks=_leaks(records, fixed, pairs, clusters, chosen))
    for cluster, inside in members.items():
        split = chosen[cluster]
        fits = [i for i in inside if i < fixed and records[i].split == split] or inside
        group = records[fits[0]].group
        for index in inside:
            if index >= fixed and index not in result.leaks:
                result.places[index] = group, split
    return result


def _leaks(
    records: Sequence[FrameRecord],
    fixed: int,
    pairs: NDArray[np.int64],
    clusters: NDArray[np.int64],
    chosen: Mapping[int, Split],
) -> dict[int, str]:
    """Find the new frames that resemble one which has to stay in another split."""
    leaks = {}
    for one, other in pairs:
        if one < fixed <= other and records[one].split != chosen[int(clusters[other])]:
            leaks[int(other)] = (
                f"it resembles {records[one].name} ({records[one].split}), but its group is in "
                f"{chosen[int(clusters[other])]}"
            )
    return leaks
