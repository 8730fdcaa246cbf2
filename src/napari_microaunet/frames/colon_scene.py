"""A colon in formulas: a bent tube with haustral folds and polyps on its wall.

Lengths are in tube radii (a colon's is about 25 mm). Everything is a signed
distance, positive in the lumen, so that one sphere tracer finds wall and polyps
alike and knows of every visible point which of them it belongs to.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float32]

# Folds repeat after this many along the tube, farther than any camera sees.
_FOLDS = 64
# The share of the clearance that one tracing step goes: it is an estimate.
_STEP = 0.5
_STEPS = 120
# A coarse ray for every fourth pixel finds the depth that the full-size rays start from.
_COARSE = 4
# Beyond this the light is gone.
_FAR = 9.0


def unit(vectors: Array) -> Array:
    """Scale vectors along the first axis to length 1."""
    length = np.sqrt(np.einsum("i...,i...->...", vectors, vectors))
    return np.asarray(vectors / np.maximum(length, 1e-9), np.float32)


def smooth_minimum(a: Array, b: Array, radius: float) -> Array:
    """Join two distances with a fillet (polynomial smooth minimum, Quilez 2013)."""
    overlap = np.maximum(radius - np.abs(a - b), 0) / radius
    return np.asarray(np.minimum(a, b) - overlap * overlap * (radius / 4), np.float32)


@dataclass(frozen=True)
class Polyp:
    """A polyp: an ellipsoid, with lobes and a stalk if it has any, joined to the wall.

    Attributes
    ----------
    foot : float32 array, shape (3,)
        Where it grows from the wall.
    centre : float32 array, shape (3,)
        Centre of the head.
    axes : float32 array, shape (3, 3)
        Orthonormal rows: two along the wall, one out of it.
    radii : float32 array, shape (3,)
        Semi-axes of the head along those.
    stalk : float
        Radius of the stalk from foot to head; 0 for none.
    lobes : float32 array, shape (n, 4)
        Centre and radius of spheres added to the head.
    ripple : float
        Height of the fine unevenness of its surface.
    fillet : float
        How softly it runs into the wall.
    """

    foot: Array
    centre: Array
    axes: Array
    radii: Array
    stalk: float
    lobes: Array
    ripple: float
    fillet: float

    def distance(self, points: Array) -> Array:
        """Distance of points, shape (3, n), from the polyp's surface; positive outside."""
        local = self.axes @ (points - self.centre[:, None])
        # Ellipsoid by the usual bound k0 (k0 - 1) / k1 (Quilez).
        scaled = local / self.radii[:, None]
        k0 = np.sqrt(np.einsum("in,in->n", scaled, scaled))
        steep = scaled / self.radii[:, None]
        k1 = np.sqrt(np.einsum("in,in->n", steep, steep))
        distance = k0 * (k0 - 1) / np.maximum(k1, 1e-6)
        fillet = 0.35 * float(self.radii.min())
        for *centre, radius in self.lobes:
            away = points - np.asarray(centre, np.float32)[:, None]
            sphere = np.sqrt(np.einsum("in,in->n", away, away)) - radius
            distance = smooth_minimum(distance, sphere, fillet)
        if self.stalk:
            axis = self.centre - self.foot
            away = points - self.foot[:, None]
            along = np.clip((axis @ away) / (axis @ axis), 0, 1)
            away = away - axis[:, None] * along
            stalk = np.sqrt(np.einsum("in,in->n", away, away)) - self.stalk
            distance = smooth_minimum(distance, stalk, self.stalk)
        if self.ripple:
            wave = 3.0 / float(self.radii.max())
            x, y, z = local * np.float32(wave)
            distance = distance + np.float32(self.ripple) * (
                np.sin(x + 2 * np.sin(0.7 * y)) * np.sin(y + 1.3 * z) + np.sin(1.9 * z - x)
            )
        return np.asarray(distance, np.float32)


class Colon:
    """A stretch of colon along z, drawn from a random generator.

    Parameters
    ----------
    random : numpy.random.Generator
        Draws bends, folds and unevenness.

    Attributes
    ----------
    polyps : list of Polyp
        On the wall; label k of a mask is ``polyps[k - 1]``.
    """

    def __init__(self, random: np.random.Generator) -> None:
        self.polyps: list[Polyp] = []
        self._bend_size = random.uniform(0.1, 0.55, (2, 2)).astype(np.float32)
        self._bend_wave = random.uniform(0.45, 0.85, (2, 2)).astype(np.float32)
        self._bend_phase = random.uniform(0, 2 * np.pi, (2, 2)).astype(np.float32)
        self._spacing = np.float32(random.uniform(0.5, 1.2))
        self._thickness = np.float32(random.uniform(0.07, 0.13) / self._spacing)
        highest = random.uniform(0.12, 0.5)
        self._height = (highest * random.beta(2, 1.3, _FOLDS)).astype(np.float32)
        # Semilunar folds: each is highest on one side; neighbours alternate between the
        # thirds of the wall that the taeniae part.
        turn = np.arange(_FOLDS) * (2 * np.pi / 3) + random.normal(0, 0.7, _FOLDS)
        self._side = np.stack([np.cos(turn), np.sin(turn)]).astype(np.float32)
        self._skew = random.normal(0, 0.16, 3).astype(np.float32)
        self._triangular = np.float32(random.uniform(0, 0.09))
        self._pouch = np.float32(random.uniform(0.04, 0.12))
        self._uneven = random.uniform(0.006, 0.022, 3).astype(np.float32)
        self._phase = random.uniform(0, 2 * np.pi, 3).astype(np.float32)

    def centre(self, z: Array) -> tuple[Array, Array]:
        """Return the centre line's x and y at depth z."""
        size, wave, phase = self._bend_size, self._bend_wave, self._bend_phase
        x = size[0, 0] * np.sin(wave[0, 0] * z + phase[0, 0])
        x = x + size[0, 1] / 2 * np.sin(2 * wave[0, 1] * z + phase[0, 1])
        y = size[1, 0] * np.sin(wave[1, 0] * z + phase[1, 0])
        y = y + size[1, 1] / 2 * np.sin(2 * wave[1, 1] * z + phase[1, 1])
        return x, y

    def wall(self, points: Array) -> Array:
        """Distance across the tube from the wall of points, shape (3, n); positive inside."""
        return self._wall_and_slope(points)[0]

    def _wall_and_slope(self, points: Array) -> tuple[Array, Array]:
        """Distance across the tube, and how steep at most the wall is along it hereabouts."""
        z = points[2]
        x, y = self.centre(z)
        x, y = points[0] - x, points[1] - y
        radius = np.sqrt(x * x + y * y) + np.float32(1e-6)
        cos, sin = x / radius, y / radius
        skew, phase = self._skew, self._phase
        along = z / self._spacing + skew[0] * cos + skew[1] * sin + skew[2] * cos * sin
        nearest = np.rint(along)
        fold = nearest.astype(np.int32) % _FOLDS
        along = along - nearest
        side = 0.5 + 0.5 * (cos * self._side[0][fold] + sin * self._side[1][fold])
        ridge = np.exp(-np.square(along / self._thickness))
        neck = np.square(1 - 4 * along * along)
        tube = 1 - self._height[fold] * side * ridge - self._pouch * neck
        tube = tube + self._triangular * cos * (4 * cos * cos - 3)
        tube = tube + self._uneven[0] * np.sin(6 * z + 4 * cos + phase[0])
        tube = tube + self._uneven[1] * np.sin(9 * sin - 5 * z + phase[1])
        tube = tube + self._uneven[2] * np.sin(13 * cos + 7 * z + phase[2])
        # A Gaussian ridge is steepest, 0.86 height / thickness, beside its crest.
        steep = np.float32(0.86) / (self._thickness * self._spacing) * self._height[fold] * side
        near = np.exp(-np.square(along / (2.5 * self._thickness)))
        slope = np.sqrt(1 + np.square(steep * near))
        return np.asarray(tube - radius, np.float32), np.asarray(slope, np.float32)

    def _clearance(self, points: Array) -> Array:
        """How far a ray may go from points, shape (3, n), and meet nothing, more or less."""
        wall, slope = self._wall_and_slope(points)
        clearance = wall / slope
        for polyp in self.polyps:
            clearance = smooth_minimum(clearance, polyp.distance(points), polyp.fillet)
        return clearance

    def distance(self, points: Array) -> Array:
        """Distance of points, shape (3, n), from whatever is nearest."""
        distance = self.wall(points)
        for polyp in self.polyps:
            distance = smooth_minimum(distance, polyp.distance(points), polyp.fillet)
        return distance

    def labels(self, points: Array) -> NDArray[np.uint8]:
        """Tell what surface points, shape (3, n), belong to: 0 the wall, k polyp number k."""
        every = [self.wall(points), *(polyp.distance(points) for polyp in self.polyps)]
        return np.asarray(np.argmin(np.stack(every), axis=0), np.uint8)

    def normals(self, points: Array, step: float = 2e-3) -> Array:
        """Find unit normals into the lumen at surface points, shape (3, n), by differences."""
        here = self.distance(points)
        slope = np.empty_like(points)
        for axis in range(3):
            moved = points.copy()
            moved[axis] += np.float32(step)
            slope[axis] = self.distance(moved) - here
        return unit(slope)

    def trace(self, origin: Array, rays: Array) -> Array:
        """Depth along unit rays to the first surface.

        Parameters
        ----------
        origin : float32 array, shape (3,)
            Where the rays start, in the lumen.
        rays : float32 array, shape (3, height, width)
            Neighbours in the grid are neighbours in direction.

        Returns
        -------
        float32 array, shape (height, width)
        """
        height, width = rays.shape[1:]
        rows = np.minimum(np.arange(0, height + _COARSE - 1, _COARSE), height - 1)
        columns = np.minimum(np.arange(0, width + _COARSE - 1, _COARSE), width - 1)
        coarse = np.ascontiguousarray(rays[:, rows][:, :, columns])
        shape = coarse.shape[1:]
        depth = np.full(coarse[0].size, 0.02, np.float32)
        self._march(origin, coarse.reshape(3, -1), depth)
        # The nearest of the neighbours, a little nearer still: no edge between them is jumped.
        start = ndimage.grey_erosion(depth.reshape(shape), size=(3, 3)) * np.float32(0.97)
        start = start.repeat(_COARSE, 0).repeat(_COARSE, 1)[:height, :width]
        depth = np.ascontiguousarray(start).ravel()
        self._march(origin, rays.reshape(3, -1), depth)
        return depth.reshape(height, width)

    def _march(self, origin: Array, rays: Array, depth: Array) -> None:
        """Move depths, shape (n,), along rays, shape (3, n), in place until they arrive."""
        going = np.arange(depth.size)
        for _ in range(_STEPS):
            direction = rays[:, going]
            step = self._clearance(origin[:, None] + direction * depth[going]) * np.float32(_STEP)
            depth[going] = np.clip(depth[going] + step, 0.0, _FAR)
            going = going[(np.abs(step) > 4e-4 * depth[going]) & (depth[going] < _FAR)]
            if not going.size:
                break


def grow_polyp(
    colon: Colon, random: np.random.Generator, z: float, turn: float, size: float
) -> Polyp:
    """Grow a polyp of a random kind.

    Parameters
    ----------
    colon : Colon
        On whose wall it grows; it is not added to ``colon.polyps``.
    random : numpy.random.Generator
        Draws kind and shape.
    z, turn : float
        Where on the wall: depth, and angle around the centre line in radians.
    size : float
        Radius that the head has more or less.

    Returns
    -------
    Polyp
    """
    outward = np.array([np.cos(turn), np.sin(turn), 0], np.float32)
    axis = np.array([*colon.centre(np.float32(z)), z], np.float32)  # type: ignore[arg-type]
    reach = np.linspace(0, 1.4, 281, dtype=np.float32)
    inside = colon.wall(axis[:, None] + outward[:, None] * reach)
    foot = axis + outward * reach[int(np.argmax(inside < 0))]
    up = colon.normals(foot[:, None], 0.05)[:, 0]
    across = unit(np.cross(up, random.normal(size=3)).astype(np.float32))
    axes = np.stack([across, np.cross(up, across), up]).astype(np.float32)

    kind = random.choice(["sessile", "flat", "stalked", "lobed"], p=[0.45, 0.15, 0.25, 0.15])
    long = size * random.uniform(0.75, 1.3)
    stalk, ripple, lobes = 0.0, random.uniform(0.0, 0.045) * size, np.zeros((0, 4))
    if kind == "flat":
        radii = np.array([1.25 * size, 1.25 * long, random.uniform(0.35, 0.55) * size])
        lift = random.uniform(0.1, 0.4)
    elif kind == "stalked":
        radii = np.array([size, long, random.uniform(0.8, 1.1) * size]) * 0.85
        lift = random.uniform(1.3, 1.9)
        stalk = random.uniform(0.3, 0.45) * size
    else:
        radii = np.array([size, long, random.uniform(0.55, 1.0) * size])
        lift = random.uniform(0.0, 0.6)
    lean = random.normal(0, 0.25 if stalk else 0.1, 2) * size
    centre = foot + axes.T @ np.array([*lean, lift * radii[2]])
    if kind == "lobed":
        directions = unit(random.normal(size=(3, 7)).astype(np.float32))
        directions[2] = np.abs(directions[2])
        places = centre + (axes.T @ (directions * radii[:, None] * 0.75)).T
        lobes = np.column_stack([places, random.uniform(0.35, 0.6, 7) * size])
    return Polyp(
        foot=foot,
        centre=centre.astype(np.float32),
        axes=axes,
        radii=radii.astype(np.float32),
        stalk=float(stalk),
        lobes=lobes.astype(np.float32),
        ripple=float(ripple),
        fillet=float(size * random.uniform(0.2, 0.9)),
    )
