"""Which group of frames trains and which validates."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from napari_microaunet.curation.manifest import Split

# Groups out of a hundred that validate, as a share.
VALIDATION_SHARE = 0.2


def split_groups(groups: Iterable[str], *needed: Collection[str]) -> dict[str, Split]:
    """Choose a split for every group, by its name alone.

    A group validates if the hash of its name falls into the first fifth, so groups that come
    later move no other. The exception keeps small datasets usable: of all groups, and of every
    collection in ``needed``, one trains; of those with at least two groups, one validates as
    well. Where hashes alone would put all on one side, the group whose hash is nearest to
    the other side changes over. (No rule that looks at names alone could do that: of any three
    groups two share a side.)

    Parameters
    ----------
    groups : iterable of str
        Names of the groups.
    *needed : collection of str
        Groups of which both splits need at least one, such as those with masks. A group is in
        one collection at most.

    Returns
    -------
    dict of str to {"training", "validation"}
        The split of every group.
    """
    splits: dict[str, Split] = {
        group: "validation" if place_of(group) < VALIDATION_SHARE else "training"
        for group in groups
    }
    for members in needed:
        on_one_side = {splits[group] for group in members}
        if on_one_side == {"validation"}:
            splits[max(members, key=place_of)] = "training"
        elif on_one_side == {"training"} and len(members) > 1:
            splits[min(members, key=place_of)] = "validation"
    if splits and "training" not in splits.values():
        splits[max(splits, key=place_of)] = "training"
    return splits


def place_of(group: str) -> float:
    """Spread names of groups over [0, 1), on any machine alike (Python's own hash is salted).

    Parameters
    ----------
    group : str
        A name.

    Returns
    -------
    float
        The same for the same name; of many names, evenly distributed.
    """
    digest = hashlib.sha256(group.encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def fill_splits(
    groups: Mapping[str, Counter[str]],
    shares: Mapping[Split, float],
    taken: Mapping[Split, Counter[str]],
    seed: int,
) -> dict[str, Split]:
    """Choose splits for new groups so that every kind of frame comes close to its shares.

    Large groups come first, those of one size in an order drawn from the seed. Each goes where
    its frames are most wanted: seats are given out by the method of Webster and Sainte-Laguë,
    for each kind by itself, and what a group costs is summed over its frames.

    Parameters
    ----------
    groups : mapping of str to Counter
        New groups, and how many frames of each kind they hold.
    shares : mapping of split to float
        What the splits are to have of all frames; none where it is 0.
    taken : mapping of split to Counter
        Frames of each kind that the splits have already; they stay.
    seed : int
        Of the order.

    Returns
    -------
    dict of str to {"training", "validation", "test"}
        The split of each new group.
    """
    filled = {split: Counter(taken.get(split, {})) for split, share in shares.items() if share > 0}
    totals = sum(groups.values(), sum(filled.values(), Counter()))

    def cost(split: Split, group: Counter[str]) -> float:
        return sum(
            count * (2 * filled[split][kind] + count) / (shares[split] * totals[kind])
            for kind, count in group.items()
        )

    order = sorted(groups)
    random.Random(seed).shuffle(order)
    chosen: dict[str, Split] = {}
    for name in sorted(order, key=lambda name: -groups[name].total()):
        chosen[name] = min(filled, key=lambda split: cost(split, groups[name]))
        filled[chosen[name]] += groups[name]
    return chosen
