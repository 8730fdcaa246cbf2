"""The frames that a training holds in memory, and the order in which it draws them."""

from __future__ import annotations

import bisect
import hashlib
import math
import os
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple, Self

import numpy as np
import psutil
import torch
from PIL import Image

from napari_microaunet.distillation.advice import (
    MINIMUM_TRAINING_POLYPS,
    MINIMUM_VALIDATION_POLYPS,
)
from napari_microaunet.errors import InputError
from napari_microaunet.frames.masks import IGNORE, IGNORED_THROUGHOUT
from napari_microaunet.frames.sequence import spread

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_microaunet.curation.dataset import CuratedDataset
    from napari_microaunet.frames import FieldOfView

Kind = Literal["polyp", "negative", "unlabelled", "replayed"]
_KINDS: tuple[Kind, ...] = ("polyp", "negative", "unlabelled", "replayed")

# So many times as often as a frame with a polyp may a negative or unlabelled one be drawn: the only
# one of its kind would be in every batch otherwise, several times.
_MOST_OFTEN = 10

# Three channels and the labels, a byte per pixel each: 410 kB for a frame of 320 x 320.
_BYTES_PER_PIXEL = 4


@dataclass(frozen=True, eq=False)
class TrainingFrames:
    """Frames and labels of one size, as a training keeps them in memory.

    A frame takes 4 * side**2 bytes: 410 kB at 320 x 320, so that 2,500 frames take 1 GB.

    Attributes
    ----------
    images : uint8 tensor, shape (n, 3, side, side)
        RGB, the field of view resized as pre-labelling does.
    labels : uint8 tensor, shape (n, 1, side, side)
        0 background, 1 polyp, 255 ignore. A frame without a mask is 255 everywhere.
    names, sources : tuple of str
        Of each frame, as in its `FrameRecord`.
    kinds : tuple of {"polyp", "negative", "unlabelled", "replayed"}
        Whether a frame's mask shows a polyp, or none, or is missing. Replayed frames are those of
        another dataset, which the model knew before.
    problems : dict of str to str
        Frames that are left out, by name, and why: they could not be read, every pixel of them is
        to be ignored, or the polyp in their mask is too small to be seen at this size.
    """

    images: Tensor
    labels: Tensor
    names: tuple[str, ...]
    sources: tuple[str, ...]
    kinds: tuple[Kind, ...]
    problems: dict[str, str]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def negatives(self) -> Tensor:
        """Which frames are of the kind "negative", bool tensor of shape (n,)."""
        return torch.tensor([kind == "negative" for kind in self.kinds], dtype=torch.bool)

    @cached_property
    def sha256(self) -> str:
        """Hash of the names, the images and the labels, in hexadecimal."""
        content = hashlib.sha256("\n".join(self.names).encode())
        for pixels in (self.images, self.labels):
            content.update(pixels.numpy().data)
        return content.hexdigest()

    @classmethod
    def load(
        cls,
        dataset: CuratedDataset,
        indices: Sequence[int],
        side: int,
        *,
        progress: Callable[[int, int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Self:
        """Read frames and their labels, in the order asked for.

        Parameters
        ----------
        dataset : CuratedDataset
            Where the frames come from.
        indices : sequence of int
            Which of them.
        side : int
            Height and width that they are resized to, in pixels.
        progress : callable, optional
            Told ``(done, total)`` in the calling thread.
        cancelled : callable, optional
            Asked after every frame.

        Returns
        -------
        TrainingFrames
            Without the frames that cannot be used; they are in its `problems`.

        Raises
        ------
        InputError
            If the frames do not fit into memory.
        CancelledError
            If `cancelled` says so.
        """
        _check_memory(len(indices) * _BYTES_PER_PIXEL * side**2)
        images = np.empty((len(indices), 3, side, side), np.uint8)
        labels = np.empty((len(indices), 1, side, side), np.uint8)
        kept: list[int] = []
        kinds: list[Kind] = []
        problems: dict[str, str] = {}
        cores = os.cpu_count() or 1
        one_file = len({dataset.sequence.frames[index].source for index in indices}) == 1
        # More threads would overtake one another in a video and make it seek.
        pool = ThreadPoolExecutor(min(2, cores) if one_file else cores, "decode")
        try:
            results = pool.map(lambda index: _read(dataset, index, side), indices)
            for done, (index, result) in enumerate(zip(indices, results, strict=True), start=1):
                if cancelled is not None and cancelled():
                    raise CancelledError
                if isinstance(result, str):
                    problems[dataset.frames[index].name] = result
                else:
                    images[len(kept)], labels[len(kept), 0] = result.image, result.labels
                    kinds.append(result.kind)
                    kept.append(index)
                if progress is not None:
                    progress(done, len(indices))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        records = [dataset.frames[index] for index in kept]
        return cls(
            images=torch.from_numpy(images[: len(kept)]),
            labels=torch.from_numpy(labels[: len(kept)]),
            names=tuple(record.name for record in records),
            sources=tuple(record.source for record in records),
            kinds=tuple(kinds),
            problems=problems,
        )

    def joined(self, others: TrainingFrames) -> Self:
        """Return copies of these frames and then of others of the same size.

        Raises
        ------
        InputError
            If the copies do not fit into memory.
        """
        pixels = (of for frames in (self, others) for of in (frames.images, frames.labels))
        _check_memory(sum(of.numel() for of in pixels))
        return replace(
            self,
            images=torch.cat([self.images, others.images]),
            labels=torch.cat([self.labels, others.labels]),
            names=self.names + others.names,
            sources=self.sources + others.sources,
            kinds=self.kinds + others.kinds,
            problems=self.problems | others.problems,
        )

    def spread(self, most: int) -> Self:
        """Choose frames evenly, from the first to the last of each kind.

        Parameters
        ----------
        most : int
            How many there may be, at least 1.

        Returns
        -------
        TrainingFrames
            At most so many, with the kinds in the same proportions, but for polyps, which have a
            third of the places if there are as many. Those with polyps first.
        """
        by_kind = sorted(range(len(self)), key=lambda index: _KINDS.index(self.kinds[index]))
        polyps = self.kinds.count("polyp")
        places = max(round(most * polyps / max(1, len(self))), math.ceil(most / 3))
        chosen = spread(by_kind[:polyps], places)
        chosen += spread(by_kind[polyps:], most - len(chosen))
        return replace(
            self,
            images=self.images[chosen],
            labels=self.labels[chosen],
            names=tuple(self.names[index] for index in chosen),
            sources=tuple(self.sources[index] for index in chosen),
            kinds=tuple(self.kinds[index] for index in chosen),
        )


def load_split(
    dataset: CuratedDataset,
    side: int,
    progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    *,
    most_unlabelled: int = 1000,
) -> tuple[TrainingFrames, TrainingFrames]:
    """Read the training frames, and the validation frames that are labelled.

    Parameters
    ----------
    dataset, side, progress, cancelled
        As for `TrainingFrames.load`.
    most_unlabelled : int
        So many of the training frames without a mask are read at most, spread evenly.

    Returns
    -------
    training, validation : TrainingFrames

    Raises
    ------
    InputError
        If fewer than 10 training frames or no validation frame show a polyp in their mask, or
        if the frames do not fit into memory.
    CancelledError
        If `cancelled` says so.
    """
    labelled = dataset.indices("training", labelled=True)
    unlabelled = sorted(set(dataset.indices("training")).difference(labelled))
    training = sorted(labelled + spread(unlabelled, most_unlabelled))
    validation = dataset.indices("validation", labelled=True)
    total = len(training) + len(validation)
    # Masks are counted before frames are read, which can take minutes, and polyps after it.
    training_masks, validation_masks = (
        sum(dataset.frames[index].mask is not None for index in split)
        for split in (training, validation)
    )
    _check_enough(dataset, training_masks, validation_masks, dataset.problems)

    def report_after(before: int) -> Callable[[int, int], None] | None:
        return None if progress is None else lambda done, _: progress(before + done, total)

    first, second = (
        TrainingFrames.load(
            dataset, split, side, progress=report_after(before), cancelled=cancelled
        )
        for split, before in ((training, 0), (validation, len(training)))
    )
    problems = first.problems | second.problems
    _check_enough(dataset, first.kinds.count("polyp"), second.kinds.count("polyp"), problems)
    return first, second


class Batches:
    """Which frames each step of a training looks at: endless, and a function of seed and step.

    Each kind of frame (polyp, negative, unlabelled, replayed) has its share of the batches, and is
    drawn in shuffled epochs of its own: every frame once before any comes again. A share that is
    no whole number of frames is kept over several steps.

    Parameters
    ----------
    frames : TrainingFrames
        What is drawn from.
    size : int
        Frames in a batch.
    seed : int
        Of the order, at least 0.
    negatives, unlabelled, replayed : float, optional
        Shares of these kinds in [0, 1]; the rest shows polyps. Negative and unlabelled frames that
        are so few that each would be drawn more than ten times as often as one with a polyp have
        less. What a kind does not need the others have, in proportion.
    source_weights : mapping of str to float, optional
        How often a frame of a source is drawn compared with the others of its kind, which have
        1 where nothing is said; at least 0.

    Raises
    ------
    InputError
        If the shares do not add up to less than 1, or nothing is left to draw.
    """

    def __init__(
        self,
        frames: TrainingFrames,
        size: int,
        seed: int,
        *,
        negatives: float = 0.0,
        unlabelled: float = 0.0,
        replayed: float = 0.0,
        source_weights: Mapping[str, float] | None = None,
    ) -> None:
        others = negatives + unlabelled + replayed
        if others >= 1:
            raise InputError(
                f"Shares of {negatives:g} negative, {unlabelled:g} unlabelled and {replayed:g} "
                "replayed frames leave no room for polyps in a batch; choose shares that add up to "
                "less than 1."
            )
        self.size = size
        asked = (1 - others, negatives, unlabelled, replayed)
        weights = np.array([(source_weights or {}).get(source, 1.0) for source in frames.sources])
        kinds = np.array(frames.kinds)
        self._streams: list[_Stream] = []
        shares: list[float] = []
        often = math.inf  # largest share for each frame of an epoch
        for number, (kind, share) in enumerate(zip(_KINDS, asked, strict=True)):
            members = np.flatnonzero((kinds == kind) & (weights > 0))
            if share == 0 or len(members) == 0:
                continue
            stream = _Stream(members, weights[members], (seed, number))
            if kind == "polyp":
                often = _MOST_OFTEN * share / stream.epoch
            elif kind != "replayed":
                share = min(share, often * stream.epoch)
            self._streams.append(stream)
            shares.append(share)
        if not shares:
            raise InputError("There is no frame to train with; all are of sources of weight 0.")
        # Of the frames that are of this kind or a later one, the share that is of a later one.
        self._later = [sum(shares[i + 1 :]) / sum(shares[i:]) for i in range(len(shares))]

    def indices(self, step: int) -> Tensor:
        """Choose the frames of one step.

        Parameters
        ----------
        step : int
            From 0.

        Returns
        -------
        int64 tensor, shape (size,)
            Numbers of frames, those with polyps first, then negative, unlabelled and replayed ones:
            any regular part of it (every second, say) has about the same share of each.
        """
        start, stop = self._drawn(step), self._drawn(step + 1)
        parts = [
            stream.take(first, last)
            for stream, first, last in zip(self._streams, start, stop, strict=True)
        ]
        return torch.from_numpy(np.concatenate(parts))

    def _drawn(self, steps: int) -> list[int]:
        """Count the frames of each kind in so many steps; no count ever falls."""
        counts = []
        left = steps * self.size
        for share in self._later:
            later = math.floor(left * share)
            counts.append(left - later)
            left = later
        return counts


class _Stream:
    """Endless shuffled epochs of some frames.

    A frame of weight w, relative to the heaviest, is in a share w of the epochs: in epoch e if
    floor((e + 1) * w + phase) > floor(e * w + phase), with a phase of its own in [0, 1).
    """

    def __init__(
        self, members: NDArray[np.int64], weights: NDArray[np.float64], seed: tuple[int, int]
    ) -> None:
        self._members = members
        self._weights = weights / weights.max()
        self.epoch = float(self._weights.sum())  # frames drawn in one, on average
        self._seed = seed
        self._phases = np.random.default_rng(seed).uniform(size=len(members))
        self._ends = [0]  # frames drawn when epoch e - 1 is over
        self._last: tuple[int, NDArray[np.int64]] = (-1, members)

    def take(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return the frames at some places of the stream."""
        taken = []
        while start < stop:
            while self._ends[-1] <= start:
                self._ends.append(self._ends[-1] + len(self._drawn_in(len(self._ends) - 1)))
            epoch = bisect.bisect_right(self._ends, start) - 1
            order = self._shuffled(epoch)[start - self._ends[epoch] :][: stop - start]
            taken.append(order)
            start += len(order)
        return np.concatenate([self._members[:0], *taken])

    def _drawn_in(self, epoch: int) -> NDArray[np.int64]:
        reached, before = (
            np.floor(passed * self._weights + self._phases) for passed in (epoch + 1, epoch)
        )
        drawn: NDArray[np.int64] = self._members[reached > before]
        return drawn

    def _shuffled(self, epoch: int) -> NDArray[np.int64]:
        if self._last[0] != epoch:
            random = np.random.default_rng((*self._seed, epoch))
            self._last = epoch, random.permutation(self._drawn_in(epoch))
        return self._last[1]


class _Loaded(NamedTuple):
    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    kind: Kind


def _read(dataset: CuratedDataset, index: int, side: int) -> _Loaded | str:
    """Read one frame with its labels, or say why that is not possible."""
    try:
        frame, mask = dataset.read(index), dataset.mask(index)
    except (InputError, OSError) as error:
        return str(error)
    field = dataset.field_of_view(index)
    image = _resize(frame, field, side).transpose(2, 0, 1)
    if mask is None:
        return _Loaded(image, np.full((side, side), IGNORE, np.uint8), "unlabelled")
    ignored = mask == IGNORE
    polyp = (mask > 0) & ~ignored
    # One by one, so that no pixel between polyp and ignored ones becomes something else.
    labels = (_resize(_picture(polyp), field, side) > 127).astype(np.uint8)
    labels[_resize(_picture(ignored), field, side) > 127] = IGNORE
    if ignored.all():
        return IGNORED_THROUGHOUT.format(dataset.frames[index].name)
    if not polyp.any():
        return _Loaded(image, labels, "negative")
    if (labels == 1).any():
        return _Loaded(image, labels, "polyp")
    return (
        f"{dataset.frames[index].name}: the polyp in its mask is too small to be seen at {side} "
        "pixels."
    )


def _resize(pixels: NDArray[np.uint8], field: FieldOfView, side: int) -> NDArray[np.uint8]:
    """Cut out the field of view and resize it as `prelabel.preprocessing.prepare` does."""
    resized = Image.fromarray(pixels).resize(
        (side, side),
        Image.Resampling.BILINEAR,
        box=(field.left, field.top, field.right, field.bottom),
    )
    return np.asarray(resized)


def _picture(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return np.where(mask, np.uint8(255), np.uint8(0))


def _check_enough(
    dataset: CuratedDataset, training: int, validation: int, problems: Mapping[str, str]
) -> None:
    """Refuse too few frames with a polyp in their mask."""
    if training >= MINIMUM_TRAINING_POLYPS and validation >= MINIMUM_VALIDATION_POLYPS:
        return
    unreadable = ""
    if problems:
        name, problem = next(iter(problems.items()))
        why = problem.removesuffix(".")
        unreadable = f" ({len(problems)} cannot be used, the first is {name}: {why})"
    others = (
        "frames of one video, folder or cluster of near-duplicates are never divided between "
        "training and validation; add labelled frames of another one"
    )
    if training < MINIMUM_TRAINING_POLYPS:
        raise InputError(
            f"{dataset.path} has {training} training frames with a polyp in their mask"
            f"{unreadable}, and {MINIMUM_TRAINING_POLYPS} are needed at least: "
            f"{others if validation >= MINIMUM_TRAINING_POLYPS else 'label more frames'}."
        )
    raise InputError(
        f"{dataset.path} has no validation frame with a polyp in its mask{unreadable}, so nothing "
        f"could tell when the model is good: {others}."
    )


def _check_memory(needed: int) -> None:
    free = psutil.virtual_memory().available
    if needed > free:
        raise InputError(
            f"The frames take {needed / 2**30:.1f} GiB in memory and {free / 2**30:.1f} GiB are "
            "free; choose a smaller input size or fewer frames."
        )
