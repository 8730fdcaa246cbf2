"""The checks of a dataset: each is a function and a line in the table `CHECKS`."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from napari_microaunet.curation.groups import (
    merge_near_duplicates,
    near_duplicate_pairs,
    root_of,
    tabled_sequences,
)
from napari_microaunet.curation.temporal import FROZEN
from napari_microaunet.frames.folder import ImageFiles
from napari_microaunet.frames.sequence import unicode_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_microaunet.curation.check.measure import FrameFacts, Mask, Picture
    from napari_microaunet.curation.dataset import CuratedDataset

Severity = Literal["note", "warning", "error"]
SEVERITIES: tuple[Severity, ...] = ("note", "warning", "error")

# Of the frame: a region this small is a slip of the brush. The smallest polyp of Kvasir-SEG and
# CVC-ClinicDB covers 0.3 %.
_SPECK = 2e-4
# Of the polyp: a box of the field of view is right to about a pixel of 160.
_OUTSIDE = 0.02
# A modified z-score (Iglewicz and Hoaglin, How to detect and handle outliers, 1993) has to be this
# large. They propose 3.5 for normal data; colour and sharpness have longer tails.
_OUTLIER = 5.0
_FEWEST_FOR_OUTLIERS = 10
# Where more than half of the frames are alike, one that deviates by less is none the less not odd:
# of colours in shares of the usual one, of areas and sharpness as a factor.
_LEAST_SHARE = 0.15
_LEAST_FACTOR = 1.5
# A split that is by sequence divides none of the neighbours that look alike; one by chance, of
# which a fifth validates, a third of them.
_FEWEST_NEIGHBOURS = 10
_MOST_DIVIDED = 0.1
# A correlation of thumbnails that neighbours of one scene have; as in `groups`.
_NEIGHBOURS_ALIKE = 0.86
# As many frames as a sentence names.
_NAMED = 3


@dataclass(frozen=True)
class Finding:
    """One thing to look at.

    Attributes
    ----------
    check : str
        A key of `CHECKS`.
    severity : {"note", "warning", "error"}
    frames : tuple of str
        Names of the frames; empty where the dataset as a whole is meant.
    text : str
        What was found, in a sentence.
    """

    check: str
    severity: Severity
    frames: tuple[str, ...]
    text: str


class Evidence(NamedTuple):
    """What the checks are given.

    Attributes
    ----------
    dataset : CuratedDataset
    facts : list of FrameFacts
        From `measure`, one per frame, in order.
    thumbnails : float32 array, shape (n, 32, 32)
        From `groups.thumbnail`, likewise; zeros where a frame cannot be read.
    """

    dataset: CuratedDataset
    facts: list[FrameFacts]
    thumbnails: NDArray[np.float32]

    @property
    def masks(self) -> list[tuple[FrameFacts, Mask]]:
        """The frames whose masks can be read."""
        return [(one, one.mask) for one in self.facts if one.mask is not None]

    @property
    def pictures(self) -> list[tuple[FrameFacts, Picture]]:
        """The frames that can be read."""
        return [(one, one.picture) for one in self.facts if one.picture is not None]


Found = Iterator[tuple[tuple[str, ...], str]]


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes
    ----------
    title : str
        What it finds, for a heading.
    severity : {"note", "warning", "error"}
        Of what it finds.
    find : callable
        Yields names of frames and a sentence.
    """

    title: str
    severity: Severity
    find: Callable[[Evidence], Found]


def _unreadable(evidence: Evidence) -> Found:
    for one in evidence.facts:
        for problem in one.problems:
            yield (one.record.name,), problem


def _changed(evidence: Evidence) -> Found:
    for one in evidence.facts:
        for file in one.changed:
            yield (one.record.name,), f"{file} has changed since the manifest was written."


def _size(evidence: Evidence) -> Found:
    for one, mask in evidence.masks:
        frame = one.picture
        if frame is not None and (mask.height, mask.width) != (frame.height, frame.width):
            yield (
                (one.record.name,),
                f"The mask is {mask.width} x {mask.height} px large and the frame "
                f"{frame.width} x {frame.height}.",
            )


def _contradiction(evidence: Evidence) -> Found:
    for one, mask in evidence.masks:
        if one.record.negative and mask.polyp_pixels:
            yield (
                (one.record.name,),
                f"It is listed as negative, but its mask has {mask.polyp_pixels} polyp pixels.",
            )


def _gray(evidence: Evidence) -> Found:
    for one, mask in evidence.masks:
        if mask.gray_pixels:
            yield (
                (one.record.name,),
                f"{mask.gray_pixels} pixels of the mask file are gray, neither 0 nor 255; "
                "read as labels they would be classes.",
            )


def _empty(evidence: Evidence) -> Found:
    for one, mask in evidence.masks:
        is_empty = not mask.polyp_pixels and not mask.ignored_throughout
        if is_empty and not one.record.negative:
            yield (one.record.name,), "The mask is empty, but the frame is not listed as negative."


def _unused_masks(evidence: Evidence) -> Found:
    sequence = evidence.dataset.sequence
    root = root_of(evidence.dataset.path)
    for mask in sequence.unused_masks if isinstance(sequence, ImageFiles) else ():
        name = unicode_name(mask.relative_to(root).as_posix())
        yield (), f"{name} is the mask of no frame; give it the name of its frame."


def _specks(evidence: Evidence) -> Found:
    for one, mask in evidence.masks:
        small = mask.regions[mask.regions < _SPECK * mask.height * mask.width]
        if small.size:
            yield (
                (one.record.name,),
                f"{small.size} of {mask.regions.size} regions are specks; the smallest has "
                f"{small.min()} pixels.",
            )


def _at_edge(evidence: Evidence) -> Found:
    for one, mask in evidence.masks:
        if mask.at_edge:
            yield (one.record.name,), "A polyp reaches the edge of the field of view."


def _outside(evidence: Evidence) -> Found:
    for one, mask in evidence.masks:
        if mask.outside_pixels > _OUTSIDE * mask.polyp_pixels:
            share = mask.outside_pixels / mask.polyp_pixels
            yield (one.record.name,), f"{share:.0%} of the polyp lie outside the field of view."


def _exact_duplicates(evidence: Evidence) -> Found:
    same = defaultdict(list)
    for one, picture in evidence.pictures:
        same[picture.digest].append(one.record.name)
    for names in same.values():
        if len(names) > 1:
            yield tuple(names), f"{_listed(names)} are the same picture, pixel for pixel."


def _near_duplicates(evidence: Evidence) -> Found:
    count = len(evidence.facts)
    clusters = merge_near_duplicates(evidence.thumbnails, np.arange(count))
    for members in _clusters(clusters):
        names = [evidence.facts[index].record.name for index in members]
        yield tuple(names), f"{_listed(names)} resemble each other."


def _leaks(evidence: Evidence) -> Found:
    """Link frames of different splits that resemble each other, or are the same."""
    records = [one.record for one in evidence.facts]
    _, splits = np.unique([record.split for record in records], return_inverse=True)
    pairs = near_duplicate_pairs(evidence.thumbnails, splits)
    graph = coo_array((np.ones(len(pairs), bool), tuple(pairs.T)), shape=(len(records),) * 2)
    for members in _clusters(connected_components(graph, directed=False)[1]):
        names = [records[index].name for index in members]
        counts = Counter(records[index].split for index in members)
        where = " and ".join(f"{count} in {split}" for split, count in sorted(counts.items()))
        yield tuple(names), f"{_listed(names)} resemble each other, {where}."


def _divided_sequences(evidence: Evidence) -> Found:
    """Find sequences of a table, or neighbours that look alike, in more than one split."""
    records = [one.record for one in evidence.facts]
    members = defaultdict(list)
    for record, sequence in zip(records, tabled_sequences(evidence.dataset.sequence), strict=True):
        if sequence is not None:
            members[sequence].append(record)
    for sequence, inside in members.items():
        splits = sorted({record.split for record in inside})
        if len(splits) > 1:
            yield (
                tuple(record.name for record in inside),
                f"The {len(inside)} frames of {sequence} are in {' and '.join(splits)}: "
                "split by sequence, not at random.",
            )
    flat = evidence.thumbnails.reshape(len(records), -1)
    alike = np.flatnonzero((flat[:-1] * flat[1:]).sum(axis=1) > _NEIGHBOURS_ALIKE)
    divided = [index for index in alike if records[index].split != records[index + 1].split]
    if len(alike) >= _FEWEST_NEIGHBOURS and len(divided) > _MOST_DIVIDED * len(alike):
        names = {records[index + step].name for index in divided for step in (0, 1)}
        yield (
            tuple(record.name for record in records if record.name in names),
            f"Of {len(alike)} pairs of neighbouring frames that look alike, {len(divided)} are in "
            "two splits: the frames of a video seem to be split at random; split by video.",
        )


def _blank(evidence: Evidence) -> Found:
    for one, picture in evidence.pictures:
        if picture.glance.is_blank:
            yield (one.record.name,), "The frame shows nothing: it is black, or of one colour."


def _frozen(evidence: Evidence) -> Found:
    for (one, first), (other, second) in pairwise(evidence.pictures):
        if first.glance.is_blank or first.digest == second.digest:
            continue
        if np.abs(first.glance.gray - second.glance.gray).max() <= FROZEN:
            names = one.record.name, other.record.name
            yield names, f"{names[1]} is the picture of {names[0]} once more."


def _odd_sizes(evidence: Evidence) -> Found:
    pixels = [picture.height * picture.width for _, picture in evidence.pictures]
    text = "{0.width} x {0.height} px"
    yield from _outliers(evidence, np.log(pixels), np.log(_LEAST_FACTOR), text, "size")


def _odd_colours(evidence: Evidence) -> Found:
    colours = np.array([picture.colour for _, picture in evidence.pictures]).reshape(-1, 3)
    for channel, name in enumerate(("red", "green", "blue")):
        text = f"a mean {name} of {{0.colour[{channel}]:.0f}}"
        values = colours[:, channel]
        least = _LEAST_SHARE * max(np.median(values), 1.0) if len(values) else 0.0
        yield from _outliers(evidence, values, least, text, name)


def _odd_sharpness(evidence: Evidence) -> Found:
    sharpness = np.array([picture.sharpness for _, picture in evidence.pictures])
    values = np.log(np.maximum(sharpness, 1e-6))
    text = "a sharpness of {0.sharpness:.3f}"
    yield from _outliers(evidence, values, np.log(_LEAST_FACTOR), text, "sharpness")


def _outliers(
    evidence: Evidence, values: NDArray[np.float64], least: float, text: str, of: str
) -> Found:
    """Find frames whose modified z-score is large, and that deviate by so much at least."""
    if len(values) < _FEWEST_FOR_OUTLIERS:
        return
    deviations = np.abs(values - np.median(values))
    # 0.6745 makes the median deviation of normal data a standard deviation.
    most = max(_OUTLIER * np.median(deviations) / 0.6745, least)
    for index in np.flatnonzero(deviations > most):
        one, picture = evidence.pictures[index]
        yield (
            (one.record.name,),
            f"It has {text.format(picture)}, far from the other frames ({of}).",
        )


def _missing_kinds(evidence: Evidence) -> Found:
    polyps = Counter(
        one.record.split
        for one, mask in evidence.masks
        if mask.polyp_pixels and not one.record.negative
    )
    for split in ("training", "validation"):
        if not polyps[split]:
            yield (), f"No frame of the {split} split shows a polyp, so nothing can be trained."


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMED])
    more = len(names) - _NAMED
    return shown if more <= 0 else f"{shown} and {more} more"


def _clusters(labels: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Yield the members of every cluster of at least two, in order of the first."""
    order = np.argsort(labels, kind="stable")
    ends = np.flatnonzero(np.diff(labels[order])) + 1
    clusters = [members for members in np.split(order, ends) if len(members) > 1]
    yield from sorted(clusters, key=lambda members: members[0])


CHECKS: dict[str, Check] = {
    "unreadable": Check("files that cannot be read to their end", "error", _unreadable),
    "changed": Check("files that have changed since", "error", _changed),
    "size": Check("masks of another size than their frame", "error", _size),
    "contradiction": Check("negative frames with polyps", "error", _contradiction),
    "leak": Check("frames in two splits that resemble each other", "error", _leaks),
    "divided": Check("sequences divided between splits", "error", _divided_sequences),
    "no-polyps": Check("splits without polyps", "warning", _missing_kinds),
    "gray": Check("masks with gray values", "warning", _gray),
    "empty": Check("empty masks of frames not listed as negative", "warning", _empty),
    "unused-mask": Check("masks that belong to no frame", "warning", _unused_masks),
    "specks": Check("specks in masks", "warning", _specks),
    "outside": Check("polyps outside the field of view", "warning", _outside),
    "duplicate": Check("exact duplicates", "warning", _exact_duplicates),
    "blank": Check("blank frames", "warning", _blank),
    "frozen": Check("frames that stand still", "warning", _frozen),
    "near-duplicate": Check("near-duplicates", "note", _near_duplicates),
    "edge": Check("polyps at the edge of the field of view", "note", _at_edge),
    "odd-size": Check("frames of an unusual size", "note", _odd_sizes),
    "odd-colour": Check("frames of an unusual colour", "note", _odd_colours),
    "odd-sharpness": Check("frames of unusual sharpness", "note", _odd_sharpness),
}


def run_checks(evidence: Evidence) -> list[Finding]:
    """Run all checks, the most severe findings first."""
    found = [
        Finding(name, check.severity, frames, text)
        for name, check in CHECKS.items()
        for frames, text in check.find(evidence)
    ]
    return sorted(found, key=lambda finding: -SEVERITIES.index(finding.severity))
