"""Carry masks from key frames to the frames beside and between them.

For each polyp and frame, place and scale are searched over the whole frame, by the looks of the
polyp in the frame before and in the key frames and by the model's map
(:mod:`~napari_microaunet.editing.matching`). There the outline is bent by dense optical flow
and fused with the map (:mod:`~napari_microaunet.editing.carrying`). Between two key frames, work
goes on from both in turns until they meet.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from enum import Enum
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from napari_microaunet.editing.carrying import carry, fuse, overlap, region_of
from napari_microaunet.editing.labels import IGNORE, WITH_DIAGONALS, labels_of
from napari_microaunet.editing.matching import Picture, Template, find
from napari_microaunet.editing.shot_cuts import is_shot_cut
from napari_microaunet.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from napari_microaunet.editing.carrying import Box
    from napari_microaunet.editing.matching import Match

    Read = Callable[[int], NDArray[np.uint8]]
    ReadProbability = Callable[[int], NDArray[np.uint8] | None]

# Below this score a direction stops: of the masks of the training sequences of CVC-ClinicDB that
# were carried on with the student's maps, those below had a mean Dice of 0.43, those above of 0.81
# (benchmarks/propagation.py).
LEAST_SCORE = 0.6
# Logistic regression of Dice on the evidence that `_evidence` names, without and with a map, fitted
# to the same sequences. The constant comes first.
_WEIGHTS = {2: (-4.33, 3.1, 3.8), 3: (-2.99, 0.65, 0.83, 4.19)}


class Stop(Enum):
    """Why propagation in one direction ended; the value says it in words."""

    END = "all frames asked for are done"
    SHOT_CUT = "the picture changes to another scene"
    LOW_SCORE = "the polyp can no longer be followed"
    FRAME_SIZE = "the frames change their size"
    UNREADABLE = "the frame cannot be read"


@dataclass(frozen=True, eq=False)
class Propagated:
    """What propagation says about one frame.

    Attributes
    ----------
    index : int
        Number of the frame.
    mask : uint8 array, shape (height, width), or None
        Labels at native size, the same numbers as in the key frame; None where the frame
        could not be compared with the last one.
    score : float
        Drift score: the Dice with the true mask to be expected, in [0, 1]; of several polyps
        the lowest.
    stop : Stop or None
        Why this direction ends here; None where it goes on.
    """

    index: int
    mask: NDArray[np.uint8] | None
    score: float
    stop: Stop | None

    @property
    def usable(self) -> bool:
        """Whether the mask is good enough to be written."""
        return self.stop is None or self.stop is Stop.END


def propagate(
    read: Read,
    keys: Mapping[int, NDArray[np.uint8]],
    targets: Iterable[int],
    probability: ReadProbability | None = None,
    *,
    level: int = 128,
    least_score: float = LEAST_SCORE,
    stop_at_cuts: bool = True,
) -> Iterator[Propagated]:
    """Carry the masks of key frames to other frames.

    Every target is reached from the nearest key before it and the nearest one after it,
    where there are such; targets that are keys are left out. So ``keys={5: mask}`` with
    ``range(6, 16)`` goes ten frames ahead, with ``range(4, -1, -1)`` five back, and
    ``keys={5: mask, 20: other}`` with ``range(6, 20)`` fills the gap from both sides. To close
    the iterator cancels: no frame is read that is not needed for the next item.

    Parameters
    ----------
    read : callable
        Gives a frame by its number: uint8 RGB of shape (height, width, 3), native size.
    keys : mapping of int to uint8 array, shape (height, width)
        Masks that are right, by the number of their frame: 0 background, 1 to 254
        polyps, 255 ignore. A number stands for the same polyp in neighbouring keys. From a key
        without a polyp nothing goes out.
    targets : iterable of int
        The frames to do, in any order.
    probability : callable, optional
        Gives the model's map of a frame at native size, uint8 of shape (height, width), 255
        for a probability of 1; None for a frame that has none.
    level : int
        Value of the map from which on the model itself would say "polyp", 1 to 254.
    least_score : float
        A direction stops below this score, in [0, 1]; with 0 it never does.
    stop_at_cuts : bool
        Whether a direction stops where the picture changes to another scene. In a sequence
        of few frames a second, what is seen as a cut may be the same scene.

    Yields
    ------
    Propagated
        Frame after frame away from its key; between two keys in turns from both sides. Where a
        direction stops before its end, its last item says why and is not `usable`; such a frame
        may come again, from the other side.

    Raises
    ------
    InputError
        If there is no key with a polyp, or a key differs from its frame in size.
    """
    if not any(labels_of(mask) for mask in keys.values()):
        raise InputError(
            "No key frame has a polyp that could be carried on; draw one and try again."
        )
    ordered = sorted(keys)
    wanted = sorted(set(targets) - set(keys))
    for place, gap in groupby(wanted, lambda index: int(np.searchsorted(ordered, index))):
        before = ordered[place - 1] if place > 0 else None
        after = ordered[place] if place < len(ordered) else None
        ends = [end for end in (before, after) if end is not None and labels_of(keys[end])]
        sources = [_source(end, keys[end], read) for end in ends]
        settings = _Settings(read, probability, level, least_score, stop_at_cuts)
        tracks = [_Track(source, sources, settings) for source in sources]
        yield from _meet(deque(gap), tracks, [end == before for end in ends])


def _source(index: int, mask: NDArray[np.uint8], read: Read) -> _Source:
    """Read a key frame."""
    frame = read(index)
    if frame.shape[:2] != mask.shape:
        raise InputError(
            f"The mask of key frame {index} is {mask.shape[1]} x {mask.shape[0]} px large, the "
            f"frame {frame.shape[1]} x {frame.shape[0]}; give a mask of the frame's size."
        )
    return _Source(Picture(frame), mask)


def _meet(left: deque[int], tracks: list[_Track], ahead: list[bool]) -> Iterator[Propagated]:
    """Let every track do a frame in its turn until no frame or no track is left."""
    turns = deque(zip(tracks, ahead, strict=True))
    while left and turns:
        track, is_ahead = turns.popleft()
        done = track.follow(left[0] if is_ahead else left[-1])
        if done.usable:
            if is_ahead:
                left.popleft()
            else:
                left.pop()
            turns.append((track, is_ahead))
        yield done if left or not done.usable else replace(done, stop=Stop.END)


@dataclass(frozen=True)
class _Settings:
    """What `propagate` was told, for all directions."""

    read: Read
    probability: ReadProbability | None
    level: int
    least_score: float
    stop_at_cuts: bool


class _Source:
    """A frame with its mask, and the templates of what is in it."""

    def __init__(self, picture: Picture, mask: NDArray[np.uint8]) -> None:
        self.picture = picture
        self.polyps: dict[int, Template] = {}
        parts, count = ndimage.label(mask == IGNORE, WITH_DIAGONALS)
        loose = set(range(1, count + 1))
        for label in labels_of(mask):
            region = mask == label
            attached = None
            # Regions to ignore that touch a polyp, glare on it, move with it. Cut out of it,
            # they leave no hole in its shape.
            around = ndimage.binary_dilation(region, WITH_DIAGONALS) if loose else region[:0]
            touching = loose & set(np.unique(parts[: len(around)][around]).tolist())
            if touching:
                loose -= touching
                attached = np.isin(parts, list(touching))
                region = region | (attached & ndimage.binary_fill_holes(region | attached))
            self.polyps[label] = Template(picture, region, attached)
        self.loose = [Template(picture, parts == part) for part in sorted(loose)]


class _Track:
    """Carries the mask of one key frame from frame to frame in one direction."""

    def __init__(self, key: _Source, keys: list[_Source], settings: _Settings) -> None:
        self._last = self._key = key
        # Only looks of the same size can be compared.
        self._keys = [source for source in keys if source.picture.shape == key.picture.shape]
        self._seen = {label: (polyp.centre, polyp.radius) for label, polyp in key.polyps.items()}
        self._settings = settings

    def follow(self, index: int) -> Propagated:
        """Do the next frame."""
        settings = self._settings
        try:
            frame = settings.read(index)
        except InputError:
            return Propagated(index, None, 0.0, Stop.UNREADABLE)
        last = self._last.picture
        if frame.shape[:2] != last.shape:
            return Propagated(index, None, 0.0, Stop.FRAME_SIZE)
        if settings.stop_at_cuts and is_shot_cut(last.frame, frame):
            return Propagated(index, None, 0.0, Stop.SHOT_CUT)
        probability = settings.probability
        picture = Picture(frame, None if probability is None else probability(index))
        mask, score = self._carry(picture)
        if score < settings.least_score:
            return Propagated(index, mask, score, Stop.LOW_SCORE)
        self._last = _Source(picture, mask)
        for label, polyp in self._last.polyps.items():
            self._seen[label] = polyp.centre, polyp.radius
        return Propagated(index, mask, score, None)

    def _carry(self, picture: Picture) -> tuple[NDArray[np.uint8], float]:
        """Carry all that the last frame has to this one; the score is of the worst polyp."""
        mask = np.zeros(picture.shape, np.uint8)
        strongest = np.zeros(picture.shape, np.float32)
        ignored = np.zeros(picture.shape, bool)
        boxes: dict[int, Box] = {}
        for label in self._seen:
            matches = self._find(label, picture)
            if not matches:
                continue
            outline = carry(matches, picture)
            inside = outline.box.slices
            odds = fuse(outline, picture.probability, self._settings.level)
            region = region_of(odds, outline)
            boxes[label] = outline.box
            # Where polyps meet, the stronger one wins; holes that were filled are weak.
            strength = np.maximum(outline.box.enlarged(odds), np.float32(1e-6))
            won = region & (strength > strongest[inside])
            mask[inside][won] = label
            strongest[inside][won] = strength[won]
            if outline.attached is not None:
                ignored[inside] |= outline.box.enlarged(outline.attached) > 0.5
        for template in self._last.loose:
            matches = find([template], picture, template.centre, template.radius, with_map=False)
            if matches:
                outline = carry(matches, picture)
                ignored[outline.box.slices] |= outline.box.enlarged(outline.depth) > 0
        # Of what others have left of it: of two that seem to be in one place, one has gone.
        scores = [
            _score(self._key.polyps[label], picture, box, mask[box.slices] == label)
            for label, box in boxes.items()
        ]
        mask[ignored] = IGNORE
        followed = self._seen.keys() <= set(labels_of(mask))
        return mask, min(scores) if followed else 0.0

    def _find(self, label: int, picture: Picture) -> list[Match]:
        """Search a polyp's looks in the last frame and in the keys; the best match first."""
        sources = {id(source): source for source in (self._last, *self._keys)}
        looks = [source.polyps[label] for source in sources.values() if label in source.polyps]
        return find(looks, picture, *self._seen[label])


def _score(key: Template, picture: Picture, box: Box, region: NDArray[np.bool_]) -> float:
    """Say what Dice is to be expected of a polyp that fills a region of a box."""
    evidence = _evidence(key, picture, box, region) if region.any() else None
    if evidence is None:
        return 0.0
    weights = _WEIGHTS[len(evidence)]
    return float(1 / (1 + np.exp(-np.dot(weights, (1.0, *evidence)))))


def _evidence(
    key: Template, picture: Picture, box: Box, region: NDArray[np.bool_]
) -> tuple[float, ...] | None:
    """Compare a polyp with how it was in the key frame.

    Returns
    -------
    tuple of float
        How near the way back from here leads to the key's polyp; how many of the colours
        inside are those inside the key's polyp; if there is a map, how far the model agrees.
        Each in [0, 1]. None where no way leads back.
    """
    whole = np.zeros(picture.shape, bool)
    whole[box.slices] = region
    found = Template(picture, whole)
    back = find([found], key.picture, key.centre, key.radius, with_map=False)
    if not back:
        return None
    away = np.hypot(*np.subtract(back[0].move.target, key.centre)) / key.radius
    evidence = float(np.exp(-away)), float(np.minimum(key.palette, found.palette).sum())
    if picture.probability is None:
        return evidence
    likely = picture.probability[box.slices].astype(np.float32) / np.float32(255)
    return *evidence, overlap(likely, region)
