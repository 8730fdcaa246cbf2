"""How far two annotators agree, and what becomes of the frames on which they do not."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from napari_microaunet.atomic import replacing
from napari_microaunet.curation.incoming import incoming_frames
from napari_microaunet.curation.manifest import Annotation
from napari_microaunet.errors import InputError
from napari_microaunet.frames.masks import IGNORE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_microaunet.curation.dataset import CuratedDataset
    from napari_microaunet.curation.incoming import IncomingFrame
    from napari_microaunet.curation.manifest import FrameRecord, Manifest

# A label image has no number above; more regions than that share the last one.
_LAST_LABEL = 254
_COMBINED = ("intersection", "union", "majority")
_IDENTICAL = "identical"


@dataclass(frozen=True)
class ManifestDifference:
    """How two manifests differ.

    Attributes
    ----------
    removed, added : tuple of str
        Names of frames that only the first or only the second one lists.
    changed : dict of str to tuple of str
        For frames that both list, what is said differently: names of fields of `FrameRecord`.
    """

    removed: tuple[str, ...]
    added: tuple[str, ...]
    changed: dict[str, tuple[str, ...]]


def compare_manifests(first: Manifest, second: Manifest) -> ManifestDifference:
    """Tell how the second manifest differs from the first."""
    before, after = ({frame.name: frame for frame in one.frames} for one in (first, second))
    changed = {
        name: fields
        for name, frame in before.items()
        if name in after and (fields := _changed_fields(frame, after[name]))
    }
    return ManifestDifference(
        tuple(name for name in before if name not in after),
        tuple(name for name in after if name not in before),
        changed,
    )


def _changed_fields(one: FrameRecord, other: FrameRecord) -> tuple[str, ...]:
    names = type(one).model_fields
    return tuple(name for name in names if getattr(one, name) != getattr(other, name))


@dataclass(frozen=True)
class FrameAgreement:
    """How far two masks of one frame agree, polyp or not; what either ignores is left out.

    Attributes
    ----------
    name : str
        The frame.
    dice : float
        In [0, 1]; 1 where neither shows a polyp.
    kappa : float
        Cohen's kappa over the pixels: agreement beyond chance, at most 1 (Cohen, A coefficient of
        agreement for nominal scales, 1960); 1 where no pixel differs.
    boundary_distance : float or None
        Mean distance from the outline of each to that of the other, in native pixels; None where
        one shows no polyp.
    different_pixels : int
        Pixels that only one calls polyp.
    identical : bool
        Whether they are the same to the pixel, in what they ignore and in the polyps' numbers, too.
    """

    name: str
    dice: float
    kappa: float
    boundary_distance: float | None
    different_pixels: int
    identical: bool


def compare_annotations(
    first: CuratedDataset,
    second: CuratedDataset,
    progress: Callable[[int, int], None] | None = None,
) -> list[FrameAgreement]:
    """Compare the masks of the frames that two datasets share, the worst agreement first.

    Parameters
    ----------
    first, second : CuratedDataset
        Of the same frames.
    progress : callable, optional
        Told ``(done, total)``.

    Raises
    ------
    InputError
        If they share no labelled frame, one is another picture in each, a mask cannot be read, or
        sizes differ.
    """
    numbers = {frame.name: index for index, frame in enumerate(second.frames) if frame.labelled}
    shared = [
        (index, numbers[frame.name])
        for index, frame in enumerate(first.frames)
        if frame.labelled and frame.name in numbers
    ]
    if not shared:
        raise InputError(
            f"{first.path} and {second.path} have no labelled frame of the same name; "
            "give two datasets of the same frames."
        )
    found = []
    for done, (one, other) in enumerate(shared, start=1):
        _check_same_picture([(first, first.frames[one]), (second, second.frames[other])])
        masks = [_mask(first, one), _mask(second, other)]
        _check_sizes(first.frames[one].name, masks)
        found.append(compare_masks(first.frames[one].name, *masks))
        if progress is not None:
            progress(done, len(shared))
    return sorted(found, key=lambda one: (one.dice, one.kappa, one.identical))


def compare_masks(name: str, first: NDArray[np.uint8], second: NDArray[np.uint8]) -> FrameAgreement:
    """Compare two masks of the frame of this name, uint8 arrays of one shape."""
    known = (first != IGNORE) & (second != IGNORE)
    one, other = (first > 0) & known, (second > 0) & known
    both, total = np.count_nonzero(one & other), np.count_nonzero(known)
    counts = np.count_nonzero(one), np.count_nonzero(other)
    different = sum(counts) - 2 * both
    chance = 1.0
    if total:
        shares = counts[0] / total, counts[1] / total
        chance = shares[0] * shares[1] + (1 - shares[0]) * (1 - shares[1])
    kappa = 1.0 if different == 0 else (1 - different / total - chance) / (1 - chance)
    return FrameAgreement(
        name,
        2 * both / sum(counts) if any(counts) else 1.0,
        float(kappa),
        _boundary_distance(one, other) if all(counts) else None,
        int(different),
        np.array_equal(first, second),
    )


def _boundary_distance(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    outlines = [mask & ~ndimage.binary_erosion(mask) for mask in (one, other)]
    distances = [ndimage.distance_transform_edt(~outline) for outline in outlines]
    there = np.concatenate([distances[1][outlines[0]], distances[0][outlines[1]]])
    return float(there.mean())


def _mask(dataset: CuratedDataset, index: int) -> NDArray[np.uint8]:
    mask = dataset.mask(index)
    if mask is None:
        raise InputError(f"The frame {dataset.frames[index].name} of {dataset.path} has no mask.")
    return mask


def _check_sizes(name: str, masks: Sequence[NDArray[np.uint8]]) -> None:
    if len({mask.shape for mask in masks}) > 1:
        raise InputError(f"The frame {name} has another size in each dataset; compare equal ones.")


def _check_same_picture(versions: Sequence[tuple[CuratedDataset, FrameRecord]]) -> None:
    """Refuse a frame that is known to be taken from another picture in each of some datasets."""
    known = [one for one in versions if one[1].original_sha256 is not None]
    for dataset, frame in known[1:]:
        if frame.original_sha256 != known[0][1].original_sha256:
            raise InputError(
                f"The frame {frame.name} is another picture in {known[0][0].path} than in "
                f"{dataset.path}; write one of them anew from a folder of another name."
            )


def write_decisions(agreements: Sequence[FrameAgreement], path: Path) -> None:
    """Write a table to decide in, which frames are taken from whom; identical ones are decided.

    Parameters
    ----------
    agreements : sequence of FrameAgreement
        From `compare_annotations`.
    path : Path
        A CSV file that does not exist.

    Raises
    ------
    InputError
        If it exists.
    """
    if path.exists():
        raise InputError(f"{path} exists, perhaps with decisions in it; choose another name.")
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(["frame", "dice", "take"])
    for one in agreements:
        table.writerow([one.name, f"{one.dice:.4f}", _IDENTICAL if one.identical else ""])
    with replacing(path) as file:
        file.write(text.getvalue().encode())


def read_decisions(path: Path, datasets: int) -> dict[str, str]:
    """Read what is taken, by the name of the frame.

    Parameters
    ----------
    path : Path
        A CSV file with the columns frame and take: the number of a dataset, from 1,
        intersection, union or majority, or identical where all have the same mask.
    datasets : int
        How many there are.

    Raises
    ------
    InputError
        If the file is something else or a frame is undecided.
    """
    allowed = [*(str(number + 1) for number in range(datasets)), *_COMBINED, _IDENTICAL]
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [(row["frame"], (row["take"] or "").strip()) for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a table ({error}); correct it.") from error
    except KeyError as error:
        raise InputError(f"{path} has no column {error}; frame and take are needed.") from error
    for name, take in rows:
        if take not in allowed:
            raise InputError(
                f'{path} says "{take}" of the frame {name}; write one of {", ".join(allowed)}.'
            )
    return dict(rows)


def reconcile(
    datasets: Sequence[CuratedDataset], decisions: Mapping[str, str]
) -> list[IncomingFrame]:
    """Make one version of what several annotators labelled.

    Parameters
    ----------
    datasets : sequence of CuratedDataset
        At least two; splits are those of the first.
    decisions : mapping of str to str
        From `read_decisions`. Frames that only one dataset has, or has labelled, need none.

    Returns
    -------
    list of IncomingFrame
        For `write_dataset`.

    Raises
    ------
    InputError
        If a frame on which they differ is undecided, is another picture in each, or the dataset to
        take lacks it.
    """
    versions: dict[str, dict[str, tuple[CuratedDataset, IncomingFrame]]] = {}
    for number, dataset in enumerate(datasets, start=1):
        for record, frame in zip(dataset.frames, incoming_frames(dataset), strict=True):
            versions.setdefault(record.name, {})[str(number)] = dataset, frame
    return [_decided(name, given, decisions.get(name)) for name, given in versions.items()]


def _decided(
    name: str, by_number: Mapping[str, tuple[CuratedDataset, IncomingFrame]], take: str | None
) -> IncomingFrame:
    versions = list(by_number.values())
    first = versions[0][1]
    if take is not None and take not in (*by_number, *_COMBINED, _IDENTICAL):
        raise InputError(
            f"Dataset {take} does not have the frame {name}; "
            f"take one of {', '.join((*by_number, *_COMBINED))} in the table of decisions."
        )
    if len(versions) == 1:
        return first
    _check_same_picture([(dataset, dataset.frames[frame.index]) for dataset, frame in versions])
    if take is None or take == _IDENTICAL:
        labelled = [one for one in versions if one[0].frames[one[1].index].labelled]
        if not labelled:
            return first
        if _are_identical(labelled):
            return replace(labelled[0][1], split=first.split, group=first.group)
        raise InputError(
            f"Nothing is decided of the frame {name}, of which {len(labelled)} datasets have "
            "different masks; write what to take into its line of the table of decisions."
        )
    if take not in _COMBINED:
        chosen = by_number[take][1]
        return replace(chosen, split=first.split, group=first.group)

    def read_mask() -> NDArray[np.uint8]:
        masks = [_mask(dataset, frame.index) for dataset, frame in versions]
        _check_sizes(name, masks)
        return combine(masks, take)

    who = [_who(dataset, frame) for dataset, frame in versions]
    annotation = Annotation(
        state="accepted", origin="file", merged_from=f"{take} of {', '.join(who)}"[:1000]
    )
    return replace(first, read_mask=read_mask, annotation=annotation)


def _are_identical(versions: Sequence[tuple[CuratedDataset, IncomingFrame]]) -> bool:
    hashes = {dataset.frames[frame.index].mask_sha256 for dataset, frame in versions}
    if len(versions) == 1 or (len(hashes) == 1 and None not in hashes):
        return True
    masks = [_mask(dataset, frame.index) for dataset, frame in versions]
    return all(np.array_equal(mask, masks[0]) for mask in masks)


def _who(dataset: CuratedDataset, frame: IncomingFrame) -> str:
    annotator = None if frame.annotation is None else frame.annotation.annotator
    return dataset.name if annotator is None else f"{dataset.name} ({annotator})"


def combine(masks: Sequence[NDArray[np.uint8]], how: str) -> NDArray[np.uint8]:
    """Combine masks of one frame; what some ignore is unknown.

    Parameters
    ----------
    masks : sequence of uint8 arrays, shape (height, width)
        0 background, 1..n polyps, 255 ignore.
    how : {"intersection", "union", "majority"}
        A pixel is polyp if all, any, or more than half say so. What the unknown ones could decide
        is ignored, and so is a draw.

    Returns
    -------
    uint8 array, shape (height, width)
        Polyps are numbered anew.
    """
    stack = np.stack(masks)
    ignored = stack == IGNORE
    votes = ((stack > 0) & ~ignored).sum(axis=0)
    against = (stack == 0).sum(axis=0)
    if how == "union":
        polyp, background = votes > 0, against == len(masks)
    elif how == "intersection":
        polyp, background = votes == len(masks), against > 0
    else:
        polyp, background = 2 * votes > len(masks), 2 * against > len(masks)
    labels, _ = ndimage.label(polyp)
    result: NDArray[np.uint8] = np.minimum(labels, _LAST_LABEL).astype(np.uint8)
    result[~polyp & ~background] = IGNORE
    return result
