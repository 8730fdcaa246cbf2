"""Carry an outline to where its polyp was found in another frame: bend it, fuse it with the map."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from scipy import ndimage

from napari_microaunet.editing.labels import WITH_DIAGONALS
from napari_microaunet.editing.matching import MAP_WEIGHT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_microaunet.editing.matching import Match, Picture

    Floats = NDArray[np.float32]

# Outlines are bent and fused on a grid of at most this many points to a side.
_GRID_SIDE = 160
# The box around a region leaves a margin of its radius times this, and of this many pixels.
_MARGIN = 0.6
_LEAST_MARGIN = 8.0
# Half the window of the optical flow, in points of the grid, and how often it is refined.
# Windows of 7 to 20, and TV-L1 flow, gave the same within 0.01 Dice.
_FLOW_RADIUS = 10
_FLOW_STEPS = 4
# The flow bends an outline by no more than this share of the radius.
_MOST_BENT = 0.35
# The coarsest level of its pyramid; smaller grids are left as they are.
_SMALLEST_BENT = 16
# Distances to the outline count in units of the radius times (least + doubt * (1 - likeness)).
_LEAST_UNIT = 0.05
_DOUBT = 0.4
# What the model's log-odds count at most; they and distances count for no more than their limit.
_MAP_TRUST = 0.3
_MOST_ODDS = 4.0
_MOST_DEPTH = 6.0
# Outlines of one polyp are averaged where they overlap by this Dice at least, ...
_AGREEMENT = 0.6
# ... with weights that differ by a factor of e where the scores of their matches differ by this.
_SCORE_UNIT = 0.1
# Parts beside the largest one are kept from this share of its area on.
_LEAST_PART = 0.1
_FLAT = 1e-6


@dataclass(frozen=True)
class Box:
    """A box of a frame, in native pixels, end exclusive, with a grid over it."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """The box as an index."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    @cached_property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the grid."""
        height, width = self.bottom - self.top, self.right - self.left
        shrink = min(1.0, _GRID_SIDE / max(height, width))
        return max(1, round(height * shrink)), max(1, round(width * shrink))

    @property
    def step(self) -> tuple[float, float]:
        """Native pixels from one point of the grid to the next, down and across."""
        return (self.bottom - self.top) / self.size[0], (self.right - self.left) / self.size[1]

    @cached_property
    def points(self) -> tuple[Floats, Floats]:
        """Rows and columns of the grid's points in native pixels."""
        rows = (np.arange(self.size[0]) + 0.5) * self.step[0] + self.top - 0.5
        columns = (np.arange(self.size[1]) + 0.5) * self.step[1] + self.left - 0.5
        down, across = np.meshgrid(rows, columns, indexing="ij")
        return down.astype(np.float32), across.astype(np.float32)

    def reduced(self, values: NDArray[np.uint8]) -> Floats:
        """Reduce what a frame has in the box to the grid, 0..255 to 0..1."""
        part = Image.fromarray(values[self.slices])
        small = part.resize(self.size[::-1], Image.Resampling.BOX)
        return np.asarray(small, np.float32) / np.float32(255)

    def enlarged(self, values: Floats) -> Floats:
        """Enlarge values on the grid to native pixels."""
        size = self.right - self.left, self.bottom - self.top
        return np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BILINEAR))


@dataclass(frozen=True, eq=False)
class Outline:
    """A polyp's outline in the frame that it was carried to.

    Attributes
    ----------
    box : Box
    depth : float32 array, shape (h, w)
        On the box's grid: signed distance to the outline in native pixels, positive inside.
    attached : float32 array, shape (h, w), or None
        How much of each point belongs to what is attached to the polyp, 0..1.
    radius : float
        Of the polyp, in native pixels.
    likeness : float
        Correlation of the colours in and around it with the template's, -1 to 1.
    doubt : float
        Of the match: what the model's map counts, in [0, 1].
    """

    box: Box
    depth: Floats
    attached: Floats | None
    radius: float
    likeness: float
    doubt: float


def carry(matches: Sequence[Match], picture: Picture) -> Outline:
    """Carry an outline to where it was found best.

    Dense optical flow (iterative Lucas-Kanade: Le Besnerais and Champagnat, Dense optical flow
    by iterative local window registration, ICIP 2005) bends it, if that makes colours and
    map agree better. Outlines of other matches are averaged with it where they agree.

    Parameters
    ----------
    matches : sequence of Match
        At least one, the best first.
    picture : Picture
        The frame that they were found in.
    """
    best = matches[0]
    template, move = best.template, best.move
    radius = template.radius * move.scale
    box = _box(best, picture, max(_LEAST_MARGIN, _MARGIN * radius))
    at = move.back(*box.points)
    here, there = np.sqrt(box.reduced(picture.frame)), _colours(template.picture, at)
    depth = _sampled(template.depth, at) * np.float32(move.scale)
    likely = None if picture.probability is None else box.reduced(picture.probability)
    likeness = _likeness(here, there, depth > -_MARGIN * radius / 2)

    if min(box.size) >= _SMALLEST_BENT:
        bent = _bent(at, here, there, box, radius, move.scale)
        bent_depth = _sampled(template.depth, bent) * np.float32(move.scale)
        bent_colours = _colours(template.picture, bent)
        bent_likeness = _likeness(here, bent_colours, bent_depth > -_MARGIN * radius / 2)
        gain = bent_likeness - likeness
        if likely is not None:
            gain += (
                MAP_WEIGHT
                * best.doubt
                * (overlap(likely, bent_depth > 0) - overlap(likely, depth > 0))
            )
        if gain > 0:
            at, depth, likeness = bent, bent_depth, bent_likeness

    attached = template.attached
    return Outline(
        box,
        _averaged(depth, matches, box),
        None if attached is None else _sampled(attached.astype(np.float32), at),
        radius,
        likeness,
        best.doubt,
    )


def fuse(outline: Outline, probability: NDArray[np.uint8] | None, level: int) -> Floats:
    """Weigh an outline against the model's map.

    The prior log-odds are the distance to the outline, in units that grow with what the colours
    leave in doubt; to these comes a share of the model's own, which grows likewise.

    Parameters
    ----------
    outline : Outline
    probability : uint8 array, shape (height, width), or None
        The model's map of the frame, at native size.
    level : int
        Value of the map from which on the model would say "polyp", 1 to 254.

    Returns
    -------
    float32 array, shape (h, w)
        Log-odds of "polyp" on the outline's grid.
    """
    unit = outline.radius * (_LEAST_UNIT + _DOUBT * (1 - max(0.0, outline.likeness)))
    odds = np.clip(outline.depth / np.float32(unit), -_MOST_DEPTH, _MOST_DEPTH)
    if probability is not None:
        model = _log_odds(outline.box.reduced(probability)) - _log_odds(np.float32(level / 255))
        odds = odds + np.float32(_MAP_TRUST * outline.doubt) * np.clip(
            model, -_MOST_ODDS, _MOST_ODDS
        )
    return np.asarray(odds, np.float32)


def region_of(odds: Floats, outline: Outline) -> NDArray[np.bool_]:
    """Return the polyp in the outline's box, at native size.

    It has no holes, and only parts that meet the outline carried there, small ones left out.
    """
    region = outline.box.enlarged(odds) > 0
    parts, count = ndimage.label(region, WITH_DIAGONALS)
    if count > 1:
        sizes = np.bincount(parts.ravel())
        met = np.unique(parts[region & (outline.box.enlarged(outline.depth) > 0)])
        if len(met):
            region = np.isin(parts, met[sizes[met] >= _LEAST_PART * sizes[met].max()])
    return np.asarray(ndimage.binary_fill_holes(region))


def overlap(likely: Floats, region: NDArray[np.bool_]) -> float:
    """Return the soft Dice of a map, 0..1, and a region of the same shape."""
    return float(2 * likely[region].sum() / max(1.0, float(likely.sum()) + int(region.sum())))


def _box(match: Match, picture: Picture, margin: float) -> Box:
    """Return the box of a region where it was found, with a margin."""
    move = match.move
    top, left, bottom, right = match.template.box
    (row, column), (new_row, new_column) = move.source, move.target
    height, width = picture.shape
    return Box(
        int(np.clip((top - row) * move.scale + new_row - margin, 0, height - 1)),
        int(np.clip((left - column) * move.scale + new_column - margin, 0, width - 1)),
        int(np.clip((bottom - row) * move.scale + new_row + margin + 1, 1, height)),
        int(np.clip((right - column) * move.scale + new_column + margin + 1, 1, width)),
    )


def _bent(
    at: tuple[Floats, Floats], here: Floats, there: Floats, box: Box, radius: float, scale: float
) -> tuple[Floats, Floats]:
    """Say where the grid's points were in the template's frame, by the flow between the two."""
    from skimage.registration import optical_flow_ilk  # late: half a second

    flow = optical_flow_ilk(
        here.mean(axis=2), there.mean(axis=2), radius=_FLOW_RADIUS, num_warp=_FLOW_STEPS
    )
    most = _MOST_BENT * radius
    down, across = (
        np.clip(part * np.float32(step), -most, most)
        for part, step in zip(flow, box.step, strict=True)
    )
    return at[0] + down / np.float32(scale), at[1] + across / np.float32(scale)


def _averaged(depth: Floats, matches: Sequence[Match], box: Box) -> Floats:
    """Average the best outline with those of the other matches that agree."""
    total, weights = depth, 1.0
    for match in matches[1:]:
        other = _sampled(match.template.depth, match.move.back(*box.points))
        other = other * np.float32(match.move.scale)
        area = int((depth > 0).sum()) + int((other > 0).sum())
        if 2 * int(((depth > 0) & (other > 0)).sum()) >= _AGREEMENT * max(1, area):
            weight = float(np.exp((match.score - matches[0].score) / _SCORE_UNIT))
            total, weights = total + np.float32(weight) * other, weights + weight
    return np.asarray(total / np.float32(weights), np.float32)


def _sampled(values: Floats, at: tuple[Floats, Floats]) -> Floats:
    """Sample an array of native size; beyond its edge it goes on as there."""
    return np.asarray(ndimage.map_coordinates(values, at, order=1, mode="nearest"), np.float32)


def _colours(picture: Picture, at: tuple[Floats, Floats]) -> Floats:
    """Sample a frame's colours, no finer than the grid that asks; brightness evened out."""
    height, width = picture.shape
    box = Box(
        int(np.clip(at[0].min(), 0, height - 1)),
        int(np.clip(at[1].min(), 0, width - 1)),
        int(np.clip(at[0].max() + 2, 1, height)),
        int(np.clip(at[1].max() + 2, 1, width)),
    )
    small = np.sqrt(box.reduced(picture.frame))
    inside = (
        (at[0] + np.float32(0.5 - box.top)) / np.float32(box.step[0]) - np.float32(0.5),
        (at[1] + np.float32(0.5 - box.left)) / np.float32(box.step[1]) - np.float32(0.5),
    )
    return np.stack([_sampled(small[..., c], inside) for c in range(3)], axis=2)


def _likeness(one: Floats, other: Floats, region: NDArray[np.bool_]) -> float:
    """Correlate the colours of two arrays in a region, the three as one signal."""
    if not region.any():
        return 0.0
    first, second = (
        one[region] - one[region].mean(axis=0),
        other[region] - other[region].mean(axis=0),
    )
    powers = max(float((first**2).mean()), _FLAT), max(float((second**2).mean()), _FLAT)
    return float((first * second).mean()) / float(np.sqrt(powers[0] * powers[1]))


def _log_odds(share: Floats | np.float32) -> Floats:
    """Return the log-odds of probabilities; these are kept off 0 and 1."""
    kept = np.clip(share, np.float32(0.01), np.float32(0.99))
    return np.asarray(np.log(kept / (1 - kept)), np.float32)
