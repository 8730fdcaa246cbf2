"""What labels cost with and without pre-labels: ``python benchmarks/annotation_effort.py DATA``.

DATA holds ``kvasir-seg`` and ``cvc-clinicdb``. On the frames of the frozen validation splits
(``training/splits``) a robot annotator that knows the expert's mask corrects a model's pre-label
with the tools of the Edit section until its Dice is 0.95. It is greedy: each step is the one with
the largest gain of Dice per action. One action is

- a press of Delete, Snap, Grow or Shrink, as they are set by default;
- a drag of the contour slider to the level that is best;
- a click in the middle of the largest error;
- a dab with brush or eraser, of the width and at the place that are best;
- a drag of a vertex to where it ought to be, and another to enter boundary mode.

Taking up the clicks, the brush or the eraser, and setting the brush's width, are counted in a
column of their own; with ``--count-handling`` they are actions, which the robot then avoids. A
frame that is not there after 60 actions counts as 60.

The opponent draws polygons: one action begins one, one sets a vertex, one closes it. It is ideal:
it never errs, and sets the fewest vertices that we find, wherever they serve best. A person who
sets them on the outline needs more, and is a row as well. Of several polyps it draws the largest
first, and stops as soon as the whole frame's Dice is 0.95, as the robot does. The start
"nothing" is the robot with its tools on an empty mask, without a model.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from itertools import islice
from math import ceil, pi, sqrt
from pathlib import Path
from typing import NamedTuple

import numpy as np
import shapely
from confidence import validation
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from rich.console import Console
from scipy import fft
from scipy.spatial import KDTree
from snapping import dice, error_to_click

from napari_microaunet.atomic import replacing
from napari_microaunet.curation.groups import stated_groups
from napari_microaunet.distillation.bootstrap import bootstrap_interval, group_numbers
from napari_microaunet.editing.boundary import (
    Polygon,
    fill_polygons,
    polygons_of,
    simplify,
)
from napari_microaunet.editing.clicks import refine
from napari_microaunet.editing.contour import move_contour
from napari_microaunet.editing.labels import (
    areas_of,
    box_of,
    filled,
    free_labels,
    label_at,
    labels_of,
    parts_of,
    polyps_in,
    widened,
)
from napari_microaunet.editing.snapping import snap
from napari_microaunet.editing.tools import MASK_TOOLS
from napari_microaunet.networks.library import find_model
from napari_microaunet.prelabel.masks import MaskSettings, at_native_size, mask_from
from napari_microaunet.prelabel.predictor import Predictor

Mask = NDArray[np.uint8]
Region = NDArray[np.bool_]
Ring = NDArray[np.float64]
Box = tuple[slice, slice]

# Where a mask is good enough, and what an annotator would not go beyond: set beforehand.
TARGET = 0.95
LIMIT = 60
NOTHING = "nothing"
POLYGON = "polygon, vertices anywhere"
POLYGON_ON_OUTLINE = "polygon, vertices on the outline"
# Places and levels are chosen on every n-th pixel of the surroundings of polyp and reference, so
# that these have about so many rows and columns; what is chosen is then done at native size.
CHOOSING_SIDE = 96
# The surroundings reach this share of the longer side further.
AROUND = 0.25
# Levels of the contour slider that are tried, and steps around the best of them.
LEVELS = range(8, 256, 16)
NEAR_LEVELS = (-12, -8, -5, -3, -1, 1, 3, 5, 8, 12)
# Widths of the brush that are tried, in pixels; the window's slider ends at 150.
BRUSH_WIDTHS = (3, 5, 8, 12, 18, 26, 36, 50, 70, 95, 120, 150)
# A vertex is dragged to one of so many corners of the reference nearby, or to its outline: so many
# times as far as that, since an edge that is to lie on it needs a vertex beyond it.
CORNERS = 3
DRAGS = (1.0, 1.5, 2.0)
# Polygons are fitted on so many rows or columns; the result is scored at native size.
FITTING_SIDE = 192
# Tolerances tried for a polygon and steps by which its vertices are moved, in radii of the polyp.
TOLERANCES = np.geomspace(0.6, 0.005, 40)
PULLS = (0.12, 0.05, 0.02)
DIRECTIONS = np.stack([np.sin(np.arange(8) * pi / 4), np.cos(np.arange(8) * pi / 4)], axis=1)
MOST_ROUNDS = 5
# A polygon that is so good on few pixels, a little better than it has to be, is good enough.
ENOUGH = TARGET + 0.005
RESAMPLES = 2000


@dataclass(frozen=True)
class Scene:
    """What the robot has before it.

    Attributes
    ----------
    frame : uint8 array, shape (height, width, 3)
        RGB.
    reference : bool array, shape (height, width)
        The expert's mask.
    probability : uint8 array, shape (height, width), or None
        The model's map at native size; None without a model.
    """

    frame: NDArray[np.uint8]
    reference: Region
    probability: NDArray[np.uint8] | None

    @cached_property
    def outline(self) -> KDTree:
        """Points of the reference's outline, one on every pixel, (row, column)."""
        rings = [shapely.LinearRing(ring) for ring in _rings(self._numbered, 1, 0.0)]
        return KDTree(shapely.get_coordinates(shapely.segmentize(rings, 1.0)))

    @cached_property
    def corners(self) -> KDTree:
        """Vertices of the reference in boundary mode, (row, column)."""
        return KDTree(np.concatenate(_rings(self._numbered, 1, 1.0)))

    @property
    def _numbered(self) -> Mask:
        return self.reference.astype(np.uint8)


class Outline(NamedTuple):
    """What boundary mode shows: the rings around one polyp."""

    label: int
    rings: tuple[Ring, ...]


@dataclass(frozen=True, eq=False)
class Work:
    """A mask, its polygons while boundary mode is on, and the width that the brush was set to."""

    mask: Mask
    outline: Outline | None = None
    brush: int | None = None

    def with_mask(self, mask: Mask) -> Work:
        """Change the mask, which ends boundary mode."""
        return Work(mask, None, self.brush)


class Offer(NamedTuple):
    """What a tool could do: how many actions it takes, and what comes of it.

    Attributes
    ----------
    actions : int
        At least 1.
    work : Work
        Afterwards.
    setting : int or None
        Width of the brush, in pixels.
    """

    actions: int
    work: Work
    setting: int | None = None


@dataclass(frozen=True)
class Step:
    """What the robot did: a tool, its actions, its setting, and the Dice afterwards."""

    tool: str
    actions: int
    setting: int | None
    dice: float


@dataclass(frozen=True)
class Effort:
    """What a frame cost.

    Attributes
    ----------
    dice_before, dice : float
        Before the first action and after the last.
    actions : int
        0 to `LIMIT`; `LIMIT` where the target was not reached.
    steps : tuple of Step
        In order; none for polygons.
    """

    dice_before: float
    dice: float
    actions: int
    steps: tuple[Step, ...] = ()

    @property
    def with_handling(self) -> int:
        """Actions, with `handling`."""
        every = sum(
            step.actions + handling(step.tool, step.setting, self.steps[:number])
            for number, step in enumerate(self.steps)
        )
        return max(self.actions, min(every, LIMIT))


def handling(tool: str, setting: int | None, before: Sequence[Step]) -> int:
    """Count what gets a tool ready: to take up brush, eraser or clicks, and to set the width."""
    in_hand = before[-1].tool if before else None
    width = next((step.setting for step in reversed(before) if step.setting is not None), None)
    return int(tool in IN_HAND and tool != in_hand) + int(setting not in (None, width))


Tool = Callable[[Scene, Work], Iterator[Offer]]


def annotate(
    scene: Scene, mask: Mask, tools: dict[str, Tool], *, count_handling: bool = False
) -> Effort:
    """Correct a mask until it is as good as `TARGET`, greedily.

    Gains beyond the target do not count. Of tools that are equally good the first is taken.

    Parameters
    ----------
    scene : Scene
        With the reference.
    mask : uint8 array, shape (height, width)
        The pre-label, or nothing.
    tools : dict of str to callable
        What the robot may use, such as `TOOLS`.
    count_handling : bool
        Whether `handling` counts as actions, so that the robot avoids it.

    Returns
    -------
    Effort
    """
    work, spent = Work(mask), 0
    steps: list[Step] = []
    before = score = dice(mask > 0, scene.reference)
    while score < TARGET:
        best: tuple[float, int, str, Offer, float] | None = None
        for name, tool in tools.items():
            # A tool that cannot be better, even if it reached the target, need not be tried.
            least = 2 if name == "vertex" and work.outline is None else 1
            if best and best[0] >= (TARGET - score) / least:
                continue
            for offer in tool(scene, work):
                reached = dice(offer.work.mask > 0, scene.reference)
                extra = handling(name, offer.setting, steps) if count_handling else 0
                cost = offer.actions + extra
                gain = (min(reached, TARGET) - score) / cost
                if gain > (best[0] if best else 0):
                    best = gain, cost, name, offer, reached
        if best is None or spent + best[1] > LIMIT:
            return Effort(before, score, LIMIT, tuple(steps))
        _, cost, name, offer, score = best
        work, spent = offer.work, spent + cost
        steps.append(Step(name, offer.actions, offer.setting, score))
    return Effort(before, score, spent, tuple(steps))


def press(name: str) -> Tool:
    """Make a tool of a mask operation, as it is set by default."""
    tool = MASK_TOOLS[name]
    settings = {parameter.name: parameter.default for parameter in tool.parameters}

    def offers(_: Scene, work: Work) -> Iterator[Offer]:
        for label in labels_of(work.mask):
            yield Offer(1, work.with_mask(tool.function(work.mask, label, **settings)))

    return offers


def snap_polyp(scene: Scene, work: Work) -> Iterator[Offer]:
    """Snap a polyp."""
    for label in labels_of(work.mask):
        snapped = snap(work.mask, label, scene.frame, probability=scene.probability)
        yield Offer(1, work.with_mask(snapped))


def slide_contour(scene: Scene, work: Work) -> Iterator[Offer]:
    """Drag a polyp's contour slider to where the Dice is highest."""
    if scene.probability is None:
        return
    every = _every_nth(scene.reference | (scene.probability >= LEVELS[0]), CHOOSING_SIDE)
    mask, probability = work.mask[every], scene.probability[every]
    reference = scene.reference[every]
    for label in labels_of(mask):
        scores: dict[int, float] = {}
        for spread in (LEVELS, NEAR_LEVELS):
            around = max(scores, key=scores.__getitem__, default=0)
            for level in (around + by for by in spread if 1 <= around + by <= 255):
                moved = move_contour(mask, label, probability, level)
                scores[level] = dice(moved > 0, reference)
        level = max(scores, key=scores.__getitem__)
        moved = move_contour(work.mask, label, scene.probability, level)
        yield Offer(1, work.with_mask(moved))


def click(scene: Scene, work: Work) -> Iterator[Offer]:
    """Click in the middle of the largest error; the polyp meant is chosen as in the window."""
    mask = work.mask
    found = error_to_click(mask > 0, scene.reference)
    if found is None:
        return
    at, positive = found
    label = label_at(mask, at, 0) or _polyp_near(mask, at)
    refined = refine(
        mask,
        label,
        scene.frame,
        scene.probability,
        [at] if positive else [],
        [] if positive else [at],
    )
    yield Offer(1, work.with_mask(refined))


def _polyp_near(mask: Mask, at: tuple[int, int]) -> int:
    """Find the polyp that a click on background belongs to: no further than its radius, or new."""
    for label, area in areas_of(mask).items():
        if label_at((mask == label) * np.uint8(label), at, sqrt(area / pi)) is not None:
            return label
    return free_labels(mask)[0]


def paint(scene: Scene, work: Work) -> Iterator[Offer]:
    """Dab with the brush: the disc that brings most, of the polyp that it touches most."""
    drawn = work.mask > 0
    missing, background = scene.reference & ~drawn, ~scene.reference & ~drawn
    for box, disc, width in _best_discs(missing, background, scene.reference, work, 1):
        mask = work.mask.copy()
        touched = areas_of(mask[box] * disc)
        label = max(touched, key=touched.__getitem__) if touched else free_labels(mask)[0]
        mask[box][disc & (mask[box] == 0)] = label
        yield Offer(1, Work(mask, None, width), width)


def erase(scene: Scene, work: Work) -> Iterator[Offer]:
    """Dab with the eraser: the disc that brings most."""
    drawn = work.mask > 0
    wrong, right = drawn & ~scene.reference, drawn & scene.reference
    for box, disc, width in _best_discs(right, wrong, scene.reference, work, -1):
        mask = work.mask.copy()
        mask[box][disc] = 0
        yield Offer(1, Work(mask, None, width), width)


def _best_discs(
    hits: Region, rest: Region, reference: Region, work: Work, sign: int
) -> Iterator[tuple[Box, Region, int]]:
    """Find the best disc of any width, and the best of the width that the brush has.

    The best has the highest Dice when what it covers joins (1) or leaves (-1) the mask.

    Parameters
    ----------
    hits, rest : bool arrays, shape (height, width)
        Pixels in and out of the reference that the dab would change.
    reference : bool array, shape (height, width)
        The expert's mask.
    work : Work
        What is drawn, and the width of the brush.
    sign : {1, -1}
        Brush or eraser.

    Yields
    ------
    (slice, slice), bool array, int
        A box of the frame, the disc in it, and its width in pixels.
    """
    useful = hits if sign > 0 else rest
    if not useful.any():
        return
    drawn = work.mask > 0
    every = _every_nth(reference | drawn, CHOOSING_SIDE)
    step = every[0].step
    small = [layer[every] for layer in (hits, rest, reference, drawn)]
    shape = small[0].shape
    # Room beside it, so that what wraps around meets nothing.
    room = ceil(BRUSH_WIDTHS[-1] / 2 / step)
    height, width = (fft.next_fast_len(length + room, real=True) for length in shape)
    padded = height, width
    spectra = [fft.rfft2(layer.astype(np.float32), padded) for layer in small[:2]]
    both, total = (small[2] & small[3]).sum(), small[2].sum() + small[3].sum()
    found: dict[int, tuple[float, int]] = {}
    for width in BRUSH_WIDTHS:
        if width < step:
            continue
        kernel = _disc_spectrum(width / 2 / step, padded)
        hit, other = (
            fft.irfft2(spectrum * kernel, padded)[: shape[0], : shape[1]] for spectrum in spectra
        )
        scores = 2 * (both + sign * hit) / np.maximum(total + sign * (hit + other), 1)
        at = int(scores.argmax())
        found[width] = float(scores.flat[at]), at
    for width in dict.fromkeys((max(found, key=found.__getitem__), work.brush)):
        if width is None or width not in found:
            continue
        row, column = divmod(found[width][1], shape[1])
        at_row, at_column = every[0].start + row * step, every[1].start + column * step
        point = slice(at_row, at_row + 1), slice(at_column, at_column + 1)
        box = widened(point, width // 2, reference.shape)
        rows, columns = np.ogrid[box]
        yield box, np.hypot(rows - at_row, columns - at_column) <= width / 2, width


@lru_cache(maxsize=64)
def _disc_spectrum(radius: float, shape: tuple[int, int]) -> NDArray[np.complex64]:
    """Transform a disc around the first pixel, which wraps around."""
    away = [np.minimum(np.arange(n), n - np.arange(n)) for n in shape]
    disc = np.hypot(away[0][:, None], away[1][None, :]) <= radius
    spectrum: NDArray[np.complex64] = fft.rfft2(disc.astype(np.float32))
    return spectrum


def drag_vertex(scene: Scene, work: Work) -> Iterator[Offer]:
    """Drag the vertex that brings most to where it ought to be, entering boundary mode first."""
    if work.outline is not None:
        shown, actions = [work.outline], 1
    else:
        shown = [Outline(n, _rings(work.mask, n, 1.0)) for n in labels_of(work.mask)]
        actions = 2
    for outline in shown:
        best_gain, best = 0, None
        for number, ring in enumerate(outline.rings):
            _, nearest = scene.outline.query(ring)
            feet = scene.outline.data[nearest]
            _, near = scene.corners.query(ring, CORNERS)
            wanted = np.concatenate(
                [
                    scene.corners.data[near[:, scene.corners.n > np.arange(CORNERS)]],
                    *(ring[:, None] + share * (feet - ring)[:, None] for share in DRAGS),
                ],
                axis=1,
            )
            # A drag gains no more than the area that it changes: the largest first, until no
            # other can be better.
            most = _most_changed(ring, wanted)
            for at in np.argsort(-most, axis=None, kind="stable"):
                index, place = divmod(int(at), wanted.shape[1])
                if most[index, place] <= best_gain:
                    break
                moved = ring.copy()
                moved[index] = wanted[index, place]
                changed = _between(ring, moved, index, work.mask.shape)
                if changed is None:
                    continue
                box, pixels = changed
                was, right = work.mask[box][pixels] > 0, scene.reference[box][pixels]
                gain = 2 * int(np.count_nonzero(was != right)) - len(was)
                if gain > best_gain:
                    best_gain, best = gain, (number, moved, box, pixels)
        if best is None:
            continue
        number, moved, box, pixels = best
        # What the drag does not change stays as it is, as in the window.
        mask = work.mask.copy()
        part = mask[box]
        own = part == outline.label
        part[pixels & own] = 0
        part[pixels & ~own & (part == 0)] = outline.label
        rings = (*outline.rings[:number], moved, *outline.rings[number + 1 :])
        yield Offer(actions, Work(mask, Outline(outline.label, rings), work.brush))


def _most_changed(ring: Ring, wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bound the area between a ring and itself with vertex i at place k, `wanted[i, k]`."""
    area = np.zeros(wanted.shape[:2])
    for neighbour in (np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0)):
        edge, drag = neighbour - ring, wanted - ring[:, None]
        area += np.abs(edge[:, None, 0] * drag[..., 1] - edge[:, None, 1] * drag[..., 0]) / 2
    return area


def _between(
    ring: Ring, moved: Ring, index: int, shape: tuple[int, ...]
) -> tuple[Box, Region] | None:
    """Fill what lies between a ring and itself with one vertex moved."""
    before, after = ring[index - 1], ring[(index + 1) % len(ring)]
    corners = np.stack([before, ring[index], after, moved[index]])
    first = np.clip(np.floor(corners.min(axis=0)).astype(int), 0, shape)
    last = np.clip(np.ceil(corners.max(axis=0)).astype(int) + 1, 0, shape)
    if (last <= first).any():
        return None
    box = slice(first[0], last[0]), slice(first[1], last[1])
    size = int(last[0] - first[0]), int(last[1] - first[1])
    return box, fill_polygons([Polygon(corners - first)], size)


# In this order a tool is preferred to those below it that reach the target as well.
TOOLS: dict[str, Tool] = {
    "delete": press("delete"),
    "contour slider": slide_contour,
    "snap": snap_polyp,
    "grow": press("grow"),
    "shrink": press("shrink"),
    "click": click,
    "brush": paint,
    "eraser": erase,
    "vertex": drag_vertex,
}
# Tools that are taken into the hand first.
IN_HAND = ("click", "brush", "eraser")


def draw(reference: Region, polygon_of: Callable[[Region], Polygon]) -> Effort:
    """Draw polygons around polyps, the largest first, until the frame's Dice is `TARGET`.

    Parameters
    ----------
    reference : bool array, shape (height, width)
        The expert's mask.
    polygon_of : callable
        Draws one polyp: `fewest_vertices` or `vertices_on_outline`.

    Returns
    -------
    Effort
    """
    parts, areas = parts_of(reference)
    drawn = np.zeros_like(reference)
    spent = 0
    for part in np.argsort(-areas, kind="stable") + 1:
        if dice(drawn, reference) >= TARGET:
            break
        region = parts == part
        # Room for what a polygon takes beside the polyp.
        box = _surroundings(region)
        region = region[box]
        polygon = polygon_of(region)
        drawn[box] |= fill_polygons([polygon], (region.shape[0], region.shape[1]))
        spent += len(polygon.exterior) + 2
    score = dice(drawn, reference)
    return Effort(0.0, score, spent if score >= TARGET else LIMIT)


def fewest_vertices(region: Region) -> Polygon:
    """Draw a polyp with as few vertices as we find that reach `TARGET`.

    From the coarsest outline that is good enough, vertices are taken out one by one; the
    others are moved to where they serve best, as long as that is good enough.

    Parameters
    ----------
    region : bool array, shape (height, width)
        Connected; a rim of background around it.

    Returns
    -------
    Polygon
        Without holes.
    """
    starts = _coarsest(region, simplify), vertices_on_outline(region)
    polygon = min(starts, key=lambda start: len(start.exterior))
    # Quickly first; where that fails, with every vertex where it serves best.
    for pulls, enough in ((PULLS[:2], ENOUGH), (PULLS, 1.0)):
        while len(polygon.exterior) > 3:
            ring = _without_one(region, polygon.exterior, pulls, enough)
            if _score(region, ring) < TARGET:
                break
            polygon = Polygon(ring)
    return polygon


def vertices_on_outline(region: Region) -> Polygon:
    """Draw a polyp with as few vertices on its outline (Douglas & Peucker) as reach `TARGET`.

    Parameters and what is returned are those of `fewest_vertices`.
    """
    return _coarsest(
        region,
        lambda polygon, tolerance: Polygon(
            shapely.get_coordinates(shapely.LinearRing(polygon.exterior).simplify(tolerance))[:-1]
        ),
    )


def _coarsest(region: Region, simplified: Callable[[Polygon, float], Polygon]) -> Polygon:
    """Simplify an outline by the largest tolerance that reaches the target."""
    exact = Polygon(_exact(region))
    for share in TOLERANCES:
        coarse = simplified(exact, share * _radius(region))
        if _score(region, coarse.exterior) >= TARGET:
            return coarse
    return exact


def _without_one(region: Region, ring: Ring, pulls: Sequence[float], enough: float) -> Ring:
    """Take the vertex out that is missed least; move the others until the Dice is good enough."""
    scale = FITTING_SIDE / max(region.shape)
    size = ceil(region.shape[1] * scale), ceil(region.shape[0] * scale)

    def filled_ring(ring: Ring) -> Region:
        """Fill a ring in C; it is asked for thousands of times."""
        canvas = Image.new("1", size)
        ImageDraw.Draw(canvas).polygon(((ring[:, ::-1] + 0.5) * scale).ravel().tolist(), fill=1)
        return np.asarray(canvas)

    # Filled by the same rule, which takes pixels that a ring merely touches.
    reference = filled_ring(_exact(region))
    area = np.count_nonzero(reference)

    def rough_score(ring: Ring) -> float:
        drawn = filled_ring(ring)
        return 2 * np.count_nonzero(drawn & reference) / (area + np.count_nonzero(drawn))

    ring = max((np.delete(ring, at, axis=0) for at in range(len(ring))), key=rough_score)
    best, radius = rough_score(ring), _radius(region)
    for pull in pulls:
        for _ in range(MOST_ROUNDS):
            if best >= enough:
                break
            before = best
            for index in range(len(ring)):
                for direction in DIRECTIONS:
                    tried = ring.copy()
                    tried[index] += pull * radius * direction
                    score = rough_score(tried)
                    if score > best:
                        ring, best = tried, score
            if best == before:
                break
    return ring


def _exact(region: Region) -> Ring:
    """Outline a region without its holes."""
    return polygons_of(filled(region).astype(np.uint8), 1, 0.0)[0].exterior


def _radius(region: Region) -> float:
    """Return the radius of a disc as large as a region."""
    return sqrt(np.count_nonzero(region) / pi)


def _score(region: Region, ring: Ring) -> float:
    return dice(fill_polygons([Polygon(ring)], (region.shape[0], region.shape[1])), region)


def _surroundings(region: Region) -> Box:
    """Return the box that holds a region and what is around it; the whole frame without one."""
    box = box_of(region)
    if box is None:
        return slice(0, region.shape[0]), slice(0, region.shape[1])
    longest = max(part.stop - part.start for part in box)
    return widened(box, ceil(AROUND * longest), region.shape)


def _every_nth(region: Region, side: int) -> Box:
    """Choose every n-th pixel of a region's surroundings, in about so many rows and columns."""
    rows, columns = _surroundings(region)
    step = ceil(max(rows.stop - rows.start, columns.stop - columns.start) / side)
    return slice(rows.start, rows.stop, step), slice(columns.start, columns.stop, step)


def _rings(mask: Mask, label: int, tolerance: float) -> tuple[Ring, ...]:
    """Outline a polyp: all rings around its parts and their holes."""
    polygons = polygons_of(mask, label, tolerance)
    return tuple(ring for p in polygons for ring in (p.exterior, *p.holes))


@dataclass(frozen=True)
class Row:
    """The effort on one frame from one start."""

    data_set: str
    frame: str
    group: str
    start: str
    effort: Effort


def measure(
    data: Path,
    starts: Sequence[str],
    count: int | None,
    tools: dict[str, Tool],
    *,
    count_handling: bool = False,
) -> Iterator[Row]:
    """Let the robot annotate frames.

    Parameters
    ----------
    data : Path
        Holds ``kvasir-seg`` and ``cvc-clinicdb``.
    starts : sequence of str
        Names of models, and `NOTHING`.
    count : int or None
        Frames of each data set, evenly spread; None for all.
    tools, count_handling
        As for `annotate`.

    Yields
    ------
    Row
        Of every frame and start, and of the two ways to draw polygons.
    """
    predictors = {name: Predictor(find_model(name)) for name in starts if name != NOTHING}
    for data_set, sequence, indices in islice(validation(data), 2):
        groups = stated_groups(sequence)
        chosen = indices
        if count is not None and count < len(indices):
            chosen = [indices[at] for at in np.linspace(0, len(indices) - 1, count).astype(int)]
        for index in chosen:
            labels = sequence.read_mask(index)
            assert labels is not None, sequence.frames[index].name  # noqa: S101
            reference, frame = polyps_in(labels), sequence.read(index)
            efforts = {
                POLYGON: draw(reference, fewest_vertices),
                POLYGON_ON_OUTLINE: draw(reference, vertices_on_outline),
            }
            if NOTHING in starts:
                scene = Scene(frame, reference, None)
                empty = np.zeros(reference.shape, np.uint8)
                efforts[NOTHING] = annotate(scene, empty, tools, count_handling=count_handling)
            for name, predictor in predictors.items():
                found = predictor.predict_frame(frame, sequence.field_of_view(index))
                mask = mask_from(found, MaskSettings.of(predictor.model.card))
                scene = Scene(frame, reference, at_native_size(found))
                efforts[name] = annotate(scene, mask, tools, count_handling=count_handling)
            for start, effort in efforts.items():
                name = sequence.frames[index].name
                yield Row(data_set, name, f"{data_set} {groups[index]}", start, effort)


@dataclass(frozen=True)
class Summary:
    """What the efforts of one start come to; intervals are of 95 %, over groups of frames.

    Attributes
    ----------
    data_set, start : str
        "all" stands for both data sets.
    frames : int
        How many.
    dice_before : float
        Median Dice of the pre-labels.
    median, percentile_90, mean : float
        Actions per frame.
    median_interval, mean_interval : (float, float)
        Of these.
    share : float
        Median, divided by that of `POLYGON`.
    share_interval : (float, float)
        Of that; both medians are of the same drawn frames.
    median_with_handling : float
        Median of actions with what `Effort.with_handling` adds.
    few : tuple of float
        Shares of frames that need 0, 1, 2 and 3 actions.
    not_reached : float
        Share of frames that do not reach the target.
    """

    data_set: str
    start: str
    frames: int
    dice_before: float
    median: float
    median_interval: tuple[float, float]
    percentile_90: float
    mean: float
    mean_interval: tuple[float, float]
    share: float
    share_interval: tuple[float, float]
    median_with_handling: float
    few: tuple[float, ...]
    not_reached: float


class Use(NamedTuple):
    """How a tool was used from a start: its actions, and the Dice that one gained on average."""

    start: str
    tool: str
    actions: int
    gain: float


def summarise(rows: Sequence[Row]) -> list[Summary]:
    """Bring efforts together by start, per data set and for both."""
    data_sets = list(dict.fromkeys(row.data_set for row in rows))
    summaries = []
    for data_set in (*data_sets, "all"):
        here = [row for row in rows if data_set in (row.data_set, "all")]
        by_hand = [row.effort.actions for row in here if row.start == POLYGON]
        for start in dict.fromkeys(row.start for row in here):
            efforts = [row.effort for row in here if row.start == start]
            groups = [row.group for row in here if row.start == start]
            actions = np.array([effort.actions for effort in efforts], float)
            both = np.stack([actions, by_hand], axis=1)
            mean = bootstrap_interval(actions, groups)
            assert mean is not None  # noqa: S101
            summaries.append(
                Summary(
                    data_set,
                    start,
                    len(efforts),
                    _median(np.array([effort.dice_before for effort in efforts])),
                    _median(actions),
                    interval(actions, groups, _median),
                    float(np.percentile(actions, 90)),
                    mean.mean,
                    (mean.low, mean.high),
                    _ratio(both),
                    interval(both, groups, _ratio),
                    _median(np.array([effort.with_handling for effort in efforts], float)),
                    tuple(float((actions == few).mean()) for few in range(4)),
                    float(np.mean([effort.dice < TARGET for effort in efforts])),
                )
            )
    return summaries


def interval(
    values: NDArray[np.float64],
    groups: Sequence[str],
    statistic: Callable[[NDArray[np.float64]], float],
) -> tuple[float, float]:
    """Bootstrap a statistic of the rows of an array: 95 %, percentiles, whole groups drawn.

    As `bootstrap_interval`, which knows means only.
    """
    numbers = group_numbers(groups)
    members = [np.flatnonzero(numbers == group) for group in range(numbers.max() + 1)]
    random = np.random.default_rng(0)
    drawn = []
    for _ in range(RESAMPLES):
        picked = random.integers(len(members), size=len(members))
        drawn.append(statistic(values[np.concatenate([members[group] for group in picked])]))
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def _median(values: NDArray[np.float64]) -> float:
    return float(np.median(values))


def _ratio(values: NDArray[np.float64]) -> float:
    """Divide the medians of two columns."""
    return float(np.median(values[:, 0]) / np.median(values[:, 1]))


def uses_of(rows: Sequence[Row]) -> list[Use]:
    """Count the actions of each start and tool, and what they gained."""
    gained: dict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)
    for row in rows:
        score = row.effort.dice_before
        for step in row.effort.steps:
            gained[row.start, step.tool].append((step.actions, step.dice - score))
            score = step.dice
    uses = []
    for (start, tool), each in sorted(gained.items()):
        actions, gains = np.sum(each, axis=0)
        uses.append(Use(start, tool, int(actions), float(gains / actions)))
    return uses


def as_markdown(summaries: Sequence[Summary], uses: Sequence[Use]) -> str:
    """Write both tables."""
    lines = [
        "| data set (frames) | start | median Dice before | actions: median | 90th percentile"
        " | mean | median, share of the polygon's | median with tools taken up"
        " | 0 / 1 / 2 / 3 actions | not reached |",
        "|---" * 10 + "|",
    ]
    lines += [
        f"| {of.data_set} ({of.frames}) | {of.start} | {of.dice_before:.3f}"
        f" | {of.median:g} [{of.median_interval[0]:g}, {of.median_interval[1]:g}]"
        f" | {of.percentile_90:.0f}"
        f" | {of.mean:.1f} [{of.mean_interval[0]:.1f}, {of.mean_interval[1]:.1f}]"
        f" | {of.share:.2f} [{of.share_interval[0]:.2f}, {of.share_interval[1]:.2f}]"
        f" | {of.median_with_handling:g} | {' / '.join(f'{share:.0%}' for share in of.few)}"
        f" | {of.not_reached:.0%} |"
        for of in summaries
    ]
    lines += ["", "| start | tool | actions | Dice gained by each |", "|---|---|---|---|"]
    lines += [f"| {use.start} | {use.tool} | {use.actions} | {use.gain:.3f} |" for use in uses]
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--models", nargs="+", default=["student", "teacher", NOTHING])
    parser.add_argument(
        "--frames", type=int, help="of each data set, evenly spread; all if left out"
    )
    parser.add_argument(
        "--count-handling", action="store_true", help="to take up and set a tool is an action"
    )
    parser.add_argument("--without", nargs="+", default=[], choices=TOOLS, metavar="TOOL")
    parser.add_argument("--json", type=Path, help="where to write efforts, summaries and uses")
    arguments = parser.parse_args()
    progress = Console(stderr=True)
    tools = {name: tool for name, tool in TOOLS.items() if name not in arguments.without}
    weights = {name: find_model(name).card.sha256 for name in arguments.models if name != NOTHING}
    rows = []
    for row in measure(
        arguments.data,
        arguments.models,
        arguments.frames,
        tools,
        count_handling=arguments.count_handling,
    ):
        rows.append(row)
        effort = row.effort
        progress.print(
            f"{row.data_set} {row.frame}, {row.start}: {effort.dice_before:.3f} to "
            f"{effort.dice:.3f} by {effort.actions}: {', '.join(s.tool for s in effort.steps)}",
            soft_wrap=True,
        )
    summaries, uses = summarise(rows), uses_of(rows)
    if arguments.json is not None:
        content = {
            "weights": weights,
            "rows": [asdict(row) for row in rows],
            "summaries": [asdict(summary) for summary in summaries],
            "uses": [use._asdict() for use in uses],
        }
        with replacing(arguments.json) as beside:
            beside.write(json.dumps(content, indent=1).encode())
    console = Console(soft_wrap=True, markup=False)
    console.print(as_markdown(summaries, uses))
    for name, sha256 in weights.items():
        console.print(f"\n{name}: weights {sha256[:16]}")


if __name__ == "__main__":
    main()
