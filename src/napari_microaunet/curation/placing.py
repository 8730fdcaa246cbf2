"""Which group and split new frames of a dataset get; those that it has stay where they are."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
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

# Share from which on the polyps of a frame have a size. Fixed bounds, not thirds of the frames at
# hand, so that "small" means the same in every data set. Rounded quartiles of our Kvasir-SEG and
# CVC-ClinicDB frames: 5.7 and 20 %, 4.6 and 15 %. Scores count it of the field of view, so that
# no black border matters; here the whole frame is near enough.
POLYP_SIZES = {"small": 0.0, "medium": 0.05, "large": 0.15}
# What a split is to have its share of. Of frames that are not measured, nobody has counted the
# pixels of polyps: version 1 of manifests did not, and masks that cannot be read have none.
KINDS = (*reversed(POLYP_SIZES), "negative", "unlabelled", "not measured")


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


@dataclass(frozen=True)
class Placement:
    """Where new frames go.

    Attributes
    ----------
    splits : dict of int to str
        By the number of the frame.
    leaks : dict of int to str
        New frames that fit nowhere, and why: they are near-duplicates of frames in another
        split than they or the rest of their group.
    """

    splits: dict[int, Split]
    leaks: dict[int, str]


def polyp_size(share: float) -> str:
    """Name the size of polyps, a key of `POLYP_SIZES`.

    Parameters
    ----------
    share : float
        Share of the picture that they cover, in [0, 1].

    Returns
    -------
    str
    """
    return next(size for size in reversed(POLYP_SIZES) if share >= POLYP_SIZES[size])


def kind_of(record: FrameRecord) -> str:
    """Name what a split is to have its share of, one of `KINDS`."""
    if record.negative:
        return "negative"
    # The mask of a frame without polyps that is no negative ignores all of it, and says nothing.
    if not record.labelled or record.polyp_pixels == 0:
        return "unlabelled"
    if not record.polyp_pixels or not record.height or not record.width:
        return "not measured"
    return polyp_size(record.polyp_pixels / (record.height * record.width))


def place_frames(
    records: Sequence[FrameRecord],
    placed: Sequence[Split | None],
    fixed: int,
    thumbnails: NDArray[np.float32],
    shares: Shares,
    seed: int,
) -> Placement:
    """Choose the splits of new frames.

    A group that the dataset has already stays in its split, and one that brings a split keeps it.
    Other groups that hold near-duplicates of each other go together: where they meet frames that
    have or bring a split, to that one; else they fill the splits up to their shares.

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
        Every new frame is in one of its two parts; of those that are placed, none resembles a
        frame of another split.
    """
    _, labels = np.unique([record.group for record in records], return_inverse=True)
    clusters = merge_near_duplicates(thumbnails, labels)
    members = defaultdict(list)
    for index, cluster in enumerate(clusters):
        members[int(cluster)].append(index)

    own: dict[str, Split] = {}
    for record, split in zip(records, placed, strict=True):
        if split is not None:
            own.setdefault(record.group, split)
    splits: dict[int, Split] = {}
    taken: dict[Split, Counter[str]] = {split: Counter() for split in SPLITS}
    for record in records[:fixed]:
        taken[record.split][kind_of(record)] += 1
    waiting: dict[str, list[int]] = {}
    for inside in members.values():
        # The frames of the dataset come first, and of sources the first one.
        met = next((placed[index] for index in inside if placed[index] is not None), None)
        # Named by the first in the alphabet, so that no number decides on the split.
        first = min(records[index].group for index in inside)
        for index in (index for index in inside if index >= fixed):
            split = own.get(records[index].group, met)
            if split is None:
                waiting.setdefault(first, []).append(index)
            else:
                splits[index] = split
                taken[split][kind_of(records[index])] += 1
    kinds = {name: Counter(kind_of(records[i]) for i in inside) for name, inside in waiting.items()}
    for name, split in fill_splits(kinds, shares.by_split, taken, seed).items():
        splits |= dict.fromkeys(waiting[name], split)
    # What is between two that have or bring splits has to give way to both.
    order = sorted(range(len(records)), key=lambda index: placed[index] is None)
    leaks = _leaks(records, splits, near_duplicate_pairs(thumbnails, labels), order)
    return Placement({i: split for i, split in splits.items() if i not in leaks}, leaks)


def _leaks(
    records: Sequence[FrameRecord],
    splits: Mapping[int, Split],
    pairs: NDArray[np.int64],
    order: Sequence[int],
) -> dict[int, str]:
    """Find the new frames that resemble one earlier in the order, which is kept, elsewhere."""
    leaks: dict[int, str] = {}
    place = np.argsort(order)
    # By the later frame, so that of every earlier one it is known if it is kept.
    for later, earlier in sorted(sorted(pair, reverse=True) for pair in place[pairs].tolist()):
        one, other = order[earlier], order[later]
        if other not in splits or one in leaks:
            continue
        there = splits.get(one, records[one].split)
        if there != splits[other]:
            leaks.setdefault(
                other,
                f"it resembles {records[one].name} ({there}), but its group is in {splits[other]}",
            )
    return leaks
