"""Boundaries: a mask to polygons that a hand can edit, and back.

Coordinates are (row, column) as floats; the centre of pixel (r, c) is (r, c),
so that a frame reaches from -0.5 to its size minus 0.5, as in napari.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import shapely
from scipy import ndimage
from skimage.measure import find_contours

from napari_microaunet.editing.labels import (
    IGNORE,
    WITH_DIAGONALS,
    parts_of,
    pixels_of,
    polyps_in,
    widened,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from napari_microaunet.editing.labels import Box, Mask, Region

    Ring = NDArray[np.float64]

# The tolerances that are tried, as shares of the one asked for, until the mask comes back well.
_TOLERANCES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
# How far chords may miss a ring, in tolerances. Edges run in the middle of what a chord leaves
# out, so they miss it by less; how much less depends on the ring, so the largest that fits counts.
_DEVIATIONS = (1.7, 1.6, 1.5, 1.4, 1.3, 1.2, 1.1, 1.0, 0.9, 0.8)
# Area of a part may change by this share, or by one pixel in parts of less than 100.
_AREA_CHANGE = 0.01
# Pixels that a part may not gain because they are this near to another part: the gap stays open.
_GAP = 2
# Outlines and gaps are looked at this far around a ring.
_MARGIN = _GAP + 2
# Keeps corners between nearly parallel edges from running away along them.
_STEADY = 0.001


@dataclass(frozen=True, eq=False)
class Polygon:
    """An outline: one ring around, and one around every hole.

    A ring is a float array of shape (n, 2) of rows and columns, n at least 3,
    whose last vertex is joined to its first. It may cross itself.

    Attributes
    ----------
    exterior : float array, shape (n, 2)
        The ring around.
    holes : tuple of float arrays, each of shape (n, 2)
        What is left out of it.
    """

    exterior: Ring
    holes: tuple[Ring, ...] = ()


def polygons_of(mask: Mask, label: int, tolerance: float = 1.0) -> list[Polygon]:
    """Outline a polyp with few vertices.

    With tolerance 0 the outline runs half way between the centres of pixels
    inside and outside, and `fill_polygons` gives back exactly the polyp. With
    a tolerance up to 1 pixel, for every connected part of the polyp:

    - no point of the outline is further than the tolerance from the exact one;
    - filled again, it has no pixel that is further than 1 pixel from the part,
      and the part none that is further than 1 pixel from it; the same holds
      for what is outside of them, and so for their rims: their Hausdorff
      distance is at most 1 pixel;
    - it is connected and has as many holes;
    - its area is within 1 %, or 1 pixel in a part of less than 100 pixels;
    - it takes no pixel of another part or polyp; gaps between them stay, and so
      do walls between holes;
    - the same is true of what `write_polygons` makes of it beside ignore.

    Parameters
    ----------
    mask : uint8 array, shape (height, width)
        0 background, 1 to 254 polyps, 255 ignore.
    label : int
        Number of the polyp.
    tolerance : float
        In pixels, 0 to 1.

    Returns
    -------
    list of Polygon
        One for each connected part, the largest first; pixels that touch at a
        corner are connected. Empty where there is no polyp of that number.
    """
    parts, areas = parts_of(pixels_of(mask, label))
    boxes = ndimage.find_objects(parts)
    return [
        _outlined(mask, parts, int(number), boxes[number - 1], tolerance)
        for number in np.argsort(-areas, kind="stable") + 1
    ]


def fill_polygons(polygons: Iterable[Polygon], shape: tuple[int, int]) -> Region:
    """Mark the pixels inside polygons.

    A pixel is inside a ring where its centre is, by the even-odd rule: what a
    ring that crosses itself encloses twice is outside. A centre on the ring is
    inside where the ring's inside lies below it or, on a vertical stretch, to
    the right (the top-left rule of graphics: of two rings that share an edge
    exactly one has the pixel). A polygon is what lies inside its exterior and
    inside none of its holes.

    Parameters
    ----------
    polygons : iterable of Polygon
        May reach out of the frame.
    shape : (int, int)
        Height and width of the frame.

    Returns
    -------
    bool array, shape (height, width)
        True inside any of the polygons.
    """
    region = np.zeros(shape, bool)
    for polygon in polygons:
        inside = _filled_ring(polygon.exterior, shape)
        for hole in polygon.holes:
            box, left_out = _inside(hole, shape)
            inside[box] &= ~left_out
        region |= inside
    return region


def write_polygons(mask: Mask, label: int, polygons: Iterable[Polygon]) -> Mask:
    """Make a polyp what polygons enclose.

    Parameters
    ----------
    mask : uint8 array, shape (height, width)
        Stays as it is.
    label : int
        Number of the polyp, which may be new.
    polygons : iterable of Polygon
        Its outline.

    Returns
    -------
    uint8 array, shape (height, width)
        Other polyps and ignore as they were, also inside the polygons.
    """
    free = pixels_of(mask, label) | (mask == 0)
    region = fill_polygons(polygons, (mask.shape[0], mask.shape[1]))
    return np.where(free, region * np.uint8(label), mask)


def simplify(polygon: Polygon, tolerance: float) -> Polygon:
    """Leave out vertices, so that the outline moves by no more than a tolerance.

    Old vertices are joined by chords as long as possible; then every chord is
    moved to the middle of the vertices that it leaves out, which halves what
    it misses them by. Where Douglas and Peucker's method needs no more
    vertices, as on straight sides with sharp corners, its result is taken. A
    ring that does not cross itself still does not.

    Parameters
    ----------
    polygon : Polygon
        Stays as it is.
    tolerance : float
        Hausdorff distance of old and new outline in pixels, at least 0.

    Returns
    -------
    Polygon
        Every ring has at least three vertices.
    """
    return _simplify(polygon, tolerance, np.array([[-np.inf], [np.inf]]))


def _outlined(
    mask: Mask, parts: NDArray[np.int32], number: int, box: Box, tolerance: float
) -> Polygon:
    """Outline one part, as coarsely as the promises of `polygons_of` allow."""
    # Room for the outline, and for neighbours that keep it from closing a gap.
    rows, columns = widened(box, _MARGIN, mask.shape)
    corner = np.array([rows.start, columns.start], float)
    part = parts[rows, columns] == number
    exact = simplify(_exact(part), 0.0)
    if tolerance > 0:
        taken = _around(polyps_in(mask[rows, columns]) & ~part)
        ignored = mask[rows, columns] == IGNORE
        rings = [exact.exterior, *exact.holes]
        # Every ring may change the area in proportion to its own.
        areas = np.abs([_signed_area(ring) for ring in rings])
        changes = max(1, _AREA_CHANGE * np.count_nonzero(part)) * areas / areas.sum()
        edges = np.array([[0, 0], mask.shape]) - 0.5 - corner
        rings = [
            _coarse(ring, part, taken, ignored, index > 0, change, tolerance, edges)
            for index, (ring, change) in enumerate(zip(rings, changes, strict=True))
        ]
        exact = Polygon(rings[0], tuple(rings[1:]))
    return Polygon(exact.exterior + corner, tuple(hole + corner for hole in exact.holes))


def _coarse(
    ring: Ring,
    part: Region,
    taken: Region,
    ignored: Region,
    is_hole: bool,
    area_change: float,
    tolerance: float,
    edges: Ring,
) -> Ring:
    """Simplify a ring of a part, as far as what it encloses stays the same to a pixel."""
    first = np.maximum(np.floor(ring.min(axis=0)).astype(int) - _MARGIN, 0)
    last = np.ceil(ring.max(axis=0)).astype(int) + _MARGIN + 1
    box = slice(first[0], last[0]), slice(first[1], last[1])
    part, taken, ignored = part[box], taken[box], ignored[box]
    inside = _filled_ring(ring - first, part.shape)
    # Walls of the part between its rings, and to the frame's edge, stay as gaps to others do.
    if is_hole:
        no_gain, no_loss = _around(~(part | inside), beyond=True), taken
    else:
        no_gain, no_loss = taken, _around(inside & ~part)
    for share in _TOLERANCES:
        simple = _simplified(ring, share * tolerance, edges)
        new = _filled_ring(simple - first, part.shape)
        # What `write_polygons` makes of it, which leaves ignore as it is.
        written = np.where(ignored, inside, new)
        versions = [new] if np.array_equal(new, written) else [new, written]
        if (
            not (new & ~inside & no_gain).any()
            and not (inside & ~new & no_loss).any()
            and all(_is_like(version, inside, is_hole, area_change) for version in versions)
        ):
            return simple
    return ring


def _exact(part: Region) -> Polygon:
    """Outline a connected region half way between inside and outside."""
    rings = [
        ring[:-1] - 1
        for ring in find_contours(np.pad(part, 1).astype(np.uint8), 0.5, fully_connected="high")
    ]
    rings.sort(key=lambda ring: -abs(_signed_area(ring)))
    return Polygon(rings[0], tuple(rings[1:]))


def _is_like(new: Region, old: Region, is_hole: bool, area_change: float) -> bool:
    """Tell whether two regions, and what is around them, are alike to a pixel and in structure."""
    # The part is connected across corners; what is not part is not.
    within, around = (None, WITH_DIAGONALS) if is_hole else (WITH_DIAGONALS, None)
    return bool(
        abs(np.count_nonzero(new) - np.count_nonzero(old)) <= area_change
        and not (new & ~_beside(old)).any()
        and not (old & ~_beside(new)).any()
        and not (~new & ~_beside(~old)).any()
        and not (~old & ~_beside(~new)).any()
        and _count(new, within) == _count(old, within)
        and _count(np.pad(~new, 1, constant_values=True), around)
        == _count(np.pad(~old, 1, constant_values=True), around)
    )


def _count(region: Region, structure: Region | None) -> int:
    return int(ndimage.label(region, structure)[1])


def _simplify(polygon: Polygon, tolerance: float, edges: Ring) -> Polygon:
    """Simplify a polygon that does not leave a frame, and shall not, given by two corners."""
    return Polygon(
        _simplified(polygon.exterior, tolerance, edges),
        tuple(_simplified(hole, tolerance, edges) for hole in polygon.holes),
    )


def _simplified(ring: Ring, tolerance: float, edges: Ring) -> Ring:
    outline = shapely.LinearRing(ring)
    simple = outline.simplify(tolerance)
    # GEOS may drop a ring's first vertex as well, and then misses it by more than the tolerance.
    if shapely.hausdorff_distance(simple, outline) > tolerance:
        simple = outline.simplify(0)
    chosen = _vertices(simple)
    for deviation in _DEVIATIONS if tolerance > 0 else ():
        stops = _stops(ring, deviation * tolerance)
        if len(stops) >= len(chosen):
            break
        if len(stops) < 3:
            continue
        few = shapely.LinearRing(np.clip(_edges_amid(ring, stops), *edges))
        near = shapely.hausdorff_distance(few, outline) <= tolerance
        if near and few.is_simple >= outline.is_simple:
            return _vertices(few)
    return chosen


def _vertices(ring: shapely.LinearRing) -> Ring:
    return np.asarray(ring.coords, float)[:-1]


def _stops(ring: Ring, deviation: float) -> NDArray[np.intp]:
    """Choose vertices from the furthest one on, each as far along as a chord can go.

    A chord may pass every vertex that it leaves out at this distance at most
    (Sklansky & Gonzalez, Pattern Recognition 12, 1980): the directions that
    pass a vertex are a cone, and a chord may end where its own direction lies
    in all cones so far.
    """
    start = int(((ring - ring.mean(axis=0)) ** 2).sum(axis=1).argmax())
    points = np.roll(ring, -start, axis=0)
    points = np.concatenate([points, points[:1]])
    stops = [0]
    while stops[-1] < len(ring):
        ahead = points[stops[-1] + 1 :] - points[stops[-1]]
        distance = np.hypot(ahead[:, 0], ahead[:, 1])
        far = distance > deviation
        angle = np.arctan2(ahead[:, 0], ahead[:, 1])
        # Relative to the first cone, which is less than a half turn wide.
        angle = (angle - angle[far.argmax()] + np.pi) % (2 * np.pi) - np.pi
        half = np.arcsin(np.divide(deviation, distance, out=np.ones_like(distance), where=far))
        half[~far] = np.inf
        lowest = np.maximum.accumulate(angle - half)
        highest = np.minimum.accumulate(angle + half)
        possible = (lowest <= angle) & (angle <= highest)
        # The first cone that misses the others ends the search.
        closed = lowest > highest
        end = int(closed.argmax()) if closed.any() else len(possible)
        stops.append(stops[-1] + 1 + int(np.flatnonzero(possible[:end])[-1]))
    return (np.array(stops[:-1]) + start) % len(ring)


def _edges_amid(ring: Ring, stops: NDArray[np.intp]) -> Ring:
    """Join stops by edges that have as much of the ring on one side as on the other."""
    ring = np.roll(ring, -stops[0], axis=0)
    stops = (stops - stops[0]) % len(ring)
    here = ring[stops]
    along = np.roll(here, -1, axis=0) - here
    normal = np.stack([along[:, 1], -along[:, 0]], axis=1)
    # Of no length where the ring passes one point twice.
    normal /= np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-9)[:, None]
    arc = np.repeat(np.arange(len(stops)), np.diff(np.append(stops, len(ring))))
    aside = ((ring - here[arc]) * normal[arc]).sum(axis=1)
    # The arc's ends lie on the chord, 0 aside; each arc here begins with one of them.
    middle = (np.maximum.reduceat(aside, stops) + np.minimum.reduceat(aside, stops)) / 2
    # Every corner goes to where its two edges meet once they are moved; where they are nearly
    # parallel, to a place that fits both about equally.
    before, middle_before = np.roll(normal, 1, axis=0), np.roll(middle, 1)
    both = _outer(normal) + _outer(before) + _STEADY * np.eye(2)
    wanted = normal * middle[:, None] + before * middle_before[:, None]
    return here + np.linalg.solve(both, wanted[:, :, None])[:, :, 0]


def _cross(one: Ring, other: Ring) -> Ring:
    return np.asarray(one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0])


def _outer(vectors: Ring) -> NDArray[np.float64]:
    return vectors[:, :, None] * vectors[:, None, :]


def _signed_area(ring: Ring) -> float:
    return float(_cross(ring, np.roll(ring, -1, axis=0)).sum() / 2)


def _beside(region: Region) -> Region:
    """Add the pixels that share a side with a region."""
    wide = region.copy()
    wide[1:] |= region[:-1]
    wide[:-1] |= region[1:]
    wide[:, 1:] |= region[:, :-1]
    wide[:, :-1] |= region[:, 1:]
    return wide


def _around(region: Region, beyond: bool = False) -> Region:
    """Mark a region and all that is `_GAP` pixels near to it, or to what is beyond the array."""
    wide = np.pad(region, 1, constant_values=beyond)
    for _ in range(_GAP):
        wide = _beside(wide)
    return wide[1:-1, 1:-1]


def _filled_ring(ring: Ring, shape: tuple[int, ...]) -> Region:
    region = np.zeros(shape, bool)
    box, inside = _inside(ring, shape)
    region[box] = inside
    return region


def _inside(ring: Ring, shape: tuple[int, ...]) -> tuple[Box, Region]:
    """Fill a ring row by row, in the box that holds it: inside is right of an odd number of edges.

    A pixel is right of an edge also where its centre is on it.
    """
    (top, left), (bottom, right) = (
        np.clip(np.ceil(corner), 0, shape).astype(int)
        for corner in (ring.min(axis=0), ring.max(axis=0))
    )
    start, end = ring, np.roll(ring, -1, axis=0)
    # Each edge from its upper end, so that rings on both sides of it find the same crossings.
    swap = (start[:, 0] > end[:, 0])[:, None]
    upper, lower = np.where(swap, end, start), np.where(swap, start, end)
    first = np.clip(np.ceil(upper[:, 0]), top, bottom).astype(int)
    rows_of_edge = np.clip(np.ceil(lower[:, 0]), top, bottom).astype(int) - first
    edge = np.repeat(np.arange(len(ring)), rows_of_edge)
    before = np.cumsum(rows_of_edge) - rows_of_edge
    row = np.arange(len(edge)) - np.repeat(before - first, rows_of_edge)
    slope = (lower - upper)[edge]
    crossing = upper[edge, 1] + (row - upper[edge, 0]) * slope[:, 1] / slope[:, 0]
    column = np.clip(np.ceil(crossing), left, right).astype(int)
    crossings = np.zeros((bottom - top, right - left + 1), bool)
    np.logical_xor.at(crossings, (row - top, column - left), True)
    inside = np.logical_xor.accumulate(crossings, axis=1)[:, :-1]
    return (slice(top, bottom), slice(left, right)), inside
