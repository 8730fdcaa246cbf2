"""Colonoscopy frames of our own making, with exact masks: a seeded renderer.

A camera with a fisheye lens and two lamps looks into a bent tube with haustral
folds (:mod:`napari_microaunet.frames.colon_scene`). Light falls off with the
square of the distance, wet mucosa glitters, vessels branch over the wall and
stop at polyps, which differ a little in colour and texture. A mask is what the
camera sees of a polyp: each pixel's ray knows what it hit.

No pixel, texture or statistic comes from a recorded frame, so frames may be
used and passed on freely. They serve as sample data, as test data and, mixed
into recorded frames, for training. Seeds below 1000 are for sample data and
tests; training takes seeds from 1000 on.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from napari_microaunet.frames.colon_scene import Array, Colon, Polyp, grow_polyp, unit
from napari_microaunet.frames.scope import Camera, Overlay, aim

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

# Linear RGB reflectance of mucosa as scopes and their white balance show it.
_MUCOSA = np.array(
    [
        [0.80, 0.31, 0.11],  # orange
        [0.80, 0.30, 0.22],  # pink
        [0.66, 0.36, 0.15],  # tan
        [0.80, 0.42, 0.30],  # pale
        [0.76, 0.20, 0.13],  # red
    ]
)
# What blood takes from red, green and blue; what a longer way through tissue leaves.
_BLOOD = np.array([0.25, 0.75, 0.65], np.float32)
_DEPTH = np.array([0.06, 0.22, 0.26], np.float32)
_RESIDUE = np.array([0.85, 0.55, 0.10], np.float32)
# Scopes see 130 to 160 degrees from corner to corner; half of that, in radians.
_HALF_VIEW = (1.15, 1.4)
# Shares of the picture that a polyp is to cover, and how often to look for such a view.
_VISIBLE = (0.02, 0.25)
_ATTEMPTS = 40
# Less than a millimetre above the wall nobody would call it a polyp (tube radii).
_OUTSTANDING = 0.04
_SMALLEST = 32
# Frames from far to near and back again in a clip.
_CLIP_PERIOD = 96


def _on_axis(colon: Colon, z: float) -> Array:
    x, y = colon.centre(np.asarray(z, np.float32))
    return np.array([x, y, z], np.float32)


class _Mucosa:
    """Colour, vessels and gloss of the tissue, as functions of place."""

    _SIDE = 64
    _VESSEL_SHAPE = (768, 768)
    _VESSEL_LENGTH = 4.5

    def __init__(self, random: np.random.Generator, polyps: int) -> None:
        self._lattice = ndimage.gaussian_filter(
            random.normal(size=(self._SIDE,) * 3).astype(np.float32), 1.0, mode="wrap"
        )
        self._lattice /= self._lattice.std()
        weights = random.dirichlet(np.full(len(_MUCOSA), 0.6))
        self.colour = (weights @ _MUCOSA * random.normal(1, 0.04, 3)).astype(np.float32)
        redder = np.array([1.0, 0.72, 0.74]) ** random.uniform(-0.5, 1.3, (polyps, 1))
        self.polyp_colours = (
            self.colour * redder * random.uniform(0.88, 1.06, (polyps, 1))
        ).astype(np.float32)
        self.pits = random.uniform(0, 0.6, polyps)
        self.pit_frequency = random.uniform(60, 120)
        self.mottle = random.uniform(0.04, 0.14)
        self.vessel_strength = random.uniform(0.15, 0.75)
        self.residue = random.uniform(1.5, 2.3) if random.random() < 0.3 else np.inf
        self.bump = random.uniform((0.06, 0.05), (0.16, 0.2))
        self.grain = random.uniform((5, 28), (10, 60))
        self._vessels = self._grow_vessels(random)

    def noise(self, points: Array, frequency: float, channel: int) -> Array:
        """Smooth noise of unit variance at points, shape (3, n); channels are independent."""
        shift = np.array([17.3, 31.7, 47.9], np.float32) * channel
        places = points * np.float32(frequency) + shift[:, None]
        sampled = ndimage.map_coordinates(self._lattice, places, order=1, mode="grid-wrap")
        return np.asarray(sampled, np.float32)

    def vessels(self, colon: Colon, points: Array) -> Array:
        """How much of a vessel, 0..1, lies under wall points, shape (3, n)."""
        x, y = colon.centre(points[2])
        turn = np.arctan2(points[1] - y, points[0] - x) / (2 * np.pi)
        height, width = self._VESSEL_SHAPE
        places = np.stack([points[2] / self._VESSEL_LENGTH * height, turn * width])
        sampled = ndimage.map_coordinates(self._vessels, places, order=1, mode="grid-wrap")
        return np.asarray(sampled, np.float32)

    def _grow_vessels(self, random: np.random.Generator) -> Array:
        """Let trees of vessels grow over the unrolled wall; thinner at every branching."""
        shape = np.array(self._VESSEL_SHAPE)
        places = random.uniform(0, 1, (26, 2)) * shape
        headings = random.uniform(0, 2 * np.pi, 26)
        total = np.zeros(self._VESSEL_SHAPE, np.float32)
        for width, steps in ((2.6, 260), (1.7, 130), (1.1, 80), (0.8, 45)):
            bend = np.cumsum(random.normal(0, 0.11, (steps, headings.size)), axis=0)
            heading = headings + ndimage.gaussian_filter1d(bend, 2, axis=0)
            path = places + np.cumsum(np.stack([np.sin(heading), np.cos(heading)], -1), axis=0)
            drawn = np.zeros(self._VESSEL_SHAPE, np.float32)
            rows, columns = np.floor(path).astype(int).reshape(-1, 2).T
            drawn[rows % shape[0], columns % shape[1]] = 1
            drawn = ndimage.gaussian_filter(drawn, width, mode="wrap") * (width * 2.5)
            total = np.maximum(total, np.minimum(drawn, 1) * min(1.0, 0.45 + 0.2 * width))
            children = 4
            at = random.integers(steps // 6, steps, (children, headings.size))
            which = np.arange(headings.size)
            sides = random.choice([-1, 1], at.shape) * random.uniform(0.4, 1.0, at.shape)
            places = path[at, which].reshape(-1, 2)
            headings = (heading[at, which] + sides).ravel()
        return total


class _Studio:
    """One seed's colon, tissue, scope and processor; renders it from any camera."""

    def __init__(self, seed: int, polyps: int) -> None:
        self.random = np.random.default_rng(seed)
        random = self.random
        self.colon = Colon(random)
        self.mucosa = _Mucosa(random, polyps)
        self.half_view = random.uniform(*_HALF_VIEW)
        self.lamp_distance = random.uniform(0.05, 0.1)
        self.exposure = random.uniform(0.7, 1.6)
        self.gloss = random.uniform(150, 500)
        self.shine = random.uniform(0.25, 1.0)
        self.blur = random.lognormal(0, 0.35)
        self.grain = random.uniform(0.006, 0.018)
        self.sharpening = random.uniform(0.2, 1.0)
        self.vignette = random.uniform(0.05, 0.35)
        outline = str(random.choice(["octagon", "round", "square"], p=[0.55, 0.2, 0.25]))
        marker = [None, (20, 150, 110), (0, 0, 0)][random.choice(3, p=[0.7, 0.15, 0.15])]
        lines = ("SAMPLE", f"No. {seed}", "01/01/2025", f"Lv {random.integers(1, 8)}")
        self.overlay = Overlay(
            outline=outline,
            corner=random.uniform(0.15, 0.3) if outline == "octagon" else random.uniform(0.05, 0.2),
            black=int(random.choice([0, 3, 16])),
            side=float(random.choice([0.5, 0.9])),
            text=lines[: random.choice([0, 2, 4])],
            marker=marker,
        )

    def share(self, camera: Camera) -> float:
        """Tell the smallest share of the picture that any polyp covers and stands out in."""
        rays = camera.rays(32, 40)
        depth = self.colon.trace(camera.position, rays)
        seen = self.overlay.picture_shape(32, 40)
        points = camera.position[:, None] + rays[:, seen] * depth[seen]
        labels = self.colon.labels(points)
        labels[self.colon.wall(points) < _OUTSTANDING] = 0
        counts = np.bincount(labels, minlength=len(self.colon.polyps) + 1)
        return float(counts[1:].min() / seen.sum())

    def render(
        self, camera: Camera, height: int, width: int, second: float, random: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Frame and mask from a camera; the generator draws the sensor's noise."""
        if min(height, width) < _SMALLEST:
            raise ValueError(f"a frame is at least {_SMALLEST} pixels, got {height}x{width}")
        top, left, bottom, right = self.overlay.picture_box(height, width)
        tall, wide = bottom - top, right - left
        seen = self.overlay.picture_shape(tall, wide)
        rays = camera.rays(tall, wide)
        depth = self.colon.trace(camera.position, rays)[seen]
        rays = np.ascontiguousarray(rays[:, seen])
        points = camera.position[:, None] + rays * depth
        labels = self.colon.labels(points)
        light, highlights = self._shade(camera, points, rays, labels)

        picture = np.zeros((tall, wide, 3), np.float32)
        picture[seen] = light.T
        glare = np.zeros((tall, wide), np.float32)
        glare[seen] = highlights
        pixel = tall / 560
        glare += 0.5 * ndimage.gaussian_filter(glare, 3 * pixel)
        picture += (1 - picture) * np.minimum(glare, 1)[..., None]
        sigma = max(0.45, self.blur * pixel)
        picture = ndimage.gaussian_filter(picture, (sigma, sigma, 0))
        # Processors sharpen; edges get a faint halo.
        soft = ndimage.gaussian_filter(picture, (2 * sigma, 2 * sigma, 0))
        picture += self.sharpening * (picture - soft)
        y, x = np.mgrid[-1 : 1 : tall * 1j, -1 : 1 : wide * 1j]
        picture *= (1 - self.vignette * (x * x + y * y) / 2)[..., None].astype(np.float32)
        grain = random.normal(0, self.grain, picture.shape).astype(np.float32)
        grain += 1.5 * ndimage.gaussian_filter(grain, (0.7, 0.7, 0))
        picture += grain * np.sqrt(0.1 + np.clip(picture, 0, 1))

        frame = np.full((height, width, 3), self.overlay.black, np.uint8)
        mask = np.zeros((height, width), np.uint8)
        inside = (slice(top, bottom), slice(left, right))
        frame[inside][seen] = np.clip(picture[seen] * 255 + 0.5, 0, 255).astype(np.uint8)
        mask[inside][seen] = labels
        self.overlay.draw(frame, mask, second)
        return frame, mask

    def _shade(
        self, camera: Camera, points: Array, rays: Array, labels: NDArray[np.uint8]
    ) -> tuple[Array, Array]:
        """Display colour, (3, n), and highlights, (n,), of surface points."""
        colon, mucosa = self.colon, self.mucosa
        normals = colon.normals(points)
        # At an edge a ray may stop a little behind it: what is seen faces the camera.
        away = np.maximum(np.einsum("in,in->n", normals, rays), 0)
        normals = unit(normals - away * rays)
        hollow = np.clip(colon.distance(points + normals * np.float32(0.1)) / 0.1, 0, 1)
        colour = self._colour(points, labels)
        wet, facing = normals.copy(), normals.copy()
        for frequency, height, channel in zip(mucosa.grain, mucosa.bump, (4, 8), strict=True):
            rough = [mucosa.noise(points, frequency, channel + axis) for axis in range(3)]
            wet += np.stack(rough) * np.float32(height)
            facing += np.stack(rough) * np.float32(0.3 * height)
        wet = unit(wet)

        light = np.zeros(points.shape[1], np.float32)
        highlights = np.zeros_like(light)
        right, down, forward = camera.axes
        for side in (-1, 1):
            lamp = camera.position + side * self.lamp_distance * right - 0.03 * down
            to_lamp = lamp.astype(np.float32)[:, None] - points
            squared = np.einsum("in,in->n", to_lamp, to_lamp)
            to_lamp /= np.sqrt(squared)
            beam = np.clip(-(forward @ to_lamp), 0.1, 1)
            power = beam / (squared + np.float32(0.1))
            # Light also leaves tissue beside where it went in: the terminator is soft.
            light += power * np.clip((np.einsum("in,in->n", facing, to_lamp) + 0.8) / 1.8, 0, 1)
            half = unit(to_lamp - rays)
            gleam = np.clip(np.einsum("in,in->n", wet, half), 0, 1) ** np.float32(self.gloss)
            highlights += power * gleam
        light *= 0.35 + 0.65 * hollow
        light += 0.03 * light.mean() * hollow
        depth = np.einsum("in,in->n", points - camera.position[:, None], rays)
        lit = light * colour * np.exp(-_DEPTH[:, None] * depth)
        level = self.exposure * 0.5 / np.percentile(lit.mean(axis=0), 65)
        display = (1 - np.exp(-level * lit)) ** np.float32(1 / 1.35)
        shine = np.clip(highlights * np.float32(level * 1.2 * self.shine) - 0.25, 0, 2.0)
        return display.astype(np.float32), shine.astype(np.float32)

    def _colour(self, points: Array, labels: NDArray[np.uint8]) -> Array:
        """Reflectance, (3, n), of surface points."""
        mucosa = self.mucosa
        palette = np.vstack([mucosa.colour, *mucosa.polyp_colours])
        colour = palette.T[:, labels]
        wall = labels == 0
        blood = mucosa.mottle * (mucosa.noise(points, 3, 0) + 0.7 * mucosa.noise(points, 11, 1))
        blood[wall] += mucosa.vessel_strength * mucosa.vessels(self.colon, points[:, wall])
        for number, depth in enumerate(mucosa.pits, start=1):
            on_polyp = labels == number
            # Where smooth noise is near zero runs a net of grooves: gyri, as adenomas show them.
            pits = mucosa.noise(points[:, on_polyp], mucosa.pit_frequency, 2)
            blood[on_polyp] += np.float32(depth) * (np.exp(-4 * pits * pits) - 0.5)
        colour = colour * np.exp(-_BLOOD[:, None] * blood)
        if np.isfinite(mucosa.residue):
            amount = mucosa.noise(points, 2.5, 3) + 0.4 * mucosa.noise(points, 9, 7)
            amount = np.clip((amount - mucosa.residue) * 1.5, 0, 0.75) * wall
            colour = colour + (_RESIDUE[:, None] - colour) * amount
        return np.asarray(colour, np.float32)


def render_frame(
    seed: int, height: int = 576, width: int = 720, polyps: int = 1
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Render a frame and its mask.

    Parameters
    ----------
    seed : int
        Decides everything; the same scene at any size. Below 1000 for sample
        data and tests, from 1000 on for training.
    height, width : int
        Native size of the frame, at least 32.
    polyps : int
        How many polyps grow in the scene; 0 gives a negative frame. One is
        always visible, of several the smallest may hide behind a fold.

    Returns
    -------
    frame : uint8 array, shape (height, width, 3)
        RGB.
    mask : uint8 array, shape (height, width)
        0 background, k the visible surface of polyp number k.

    Raises
    ------
    ValueError
        If the frame is smaller than that.
    """
    studio = _Studio(seed, polyps)
    random, colon = studio.random, studio.colon
    wanted = float(np.exp(random.uniform(*np.log(_VISIBLE))))
    best = np.inf
    camera = aim(_on_axis(colon, 0.0), _on_axis(colon, 1.0), 0.0, studio.half_view)
    shown: list[Polyp] = []
    for _ in range(_ATTEMPTS):
        colon.polyps.clear()
        away = random.uniform(0.75, 1.7)
        size = np.clip(away * 0.85 * studio.half_view * np.sqrt(wanted), 0.12, 0.5)
        turn = random.uniform(0, 2 * np.pi)
        for number in range(polyps):
            depth = np.sqrt(away**2 - 0.5) + number * random.normal(0, 0.3)
            at = turn + number * random.uniform(0.9, 2.2)
            colon.polyps.append(grow_polyp(colon, random, depth, at, size))
        off = random.uniform(-0.5, 0.5, 2)
        position = _on_axis(colon, 0.0) + np.array([*off, 0], np.float32)
        if colon.distance(position[:, None])[0] < 0.18:
            continue
        ahead = _on_axis(colon, random.uniform(0.6, 2.0))
        ahead += np.array([*random.normal(0, 0.5, 2), 0], np.float32)
        if polyps:
            middle = np.mean([polyp.centre for polyp in colon.polyps], axis=0)
            ahead += (middle - ahead) * np.float32(random.uniform(0.2, 1.0))
        tried = aim(position, ahead, random.uniform(0, 2 * np.pi), studio.half_view)
        share = studio.share(tried) if polyps else wanted
        error = abs(np.log(max(share, 1e-4) / wanted))
        if error < best:
            best, camera, shown = error, tried, list(colon.polyps)
        if error < 0.4:
            break
    colon.polyps[:] = shown
    return studio.render(camera, height, width, random.uniform(0, 3600), random)


def render_clip(
    seed: int, length: int | None = None, height: int = 288, width: int = 360, polyps: int = 1
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Render frame after frame of a scope that moves towards polyps and back again.

    Parameters
    ----------
    seed : int
        Decides everything, as for :func:`render_frame`.
    length : int, optional
        Number of frames; without it there is no end.
    height, width : int
        Native size of the frames.
    polyps : int
        How many polyps grow in the scene.

    Yields
    ------
    frame, mask : uint8 arrays, shapes (height, width, 3) and (height, width)
        As from :func:`render_frame`; a label stays with its polyp.

    Raises
    ------
    ValueError
        If frames are smaller than 32 pixels.
    """
    studio = _Studio(seed, polyps)
    random, colon = studio.random, studio.colon
    turn = random.uniform(0, 2 * np.pi)
    for number in range(polyps):
        size = random.uniform(0.2, 0.32)
        place = 2.6 - 0.5 * number, turn + 2.1 * number
        colon.polyps.append(grow_polyp(colon, random, *place, size))
    phases = random.uniform(0, 2 * np.pi, 4)
    start = random.uniform(0, 3600)
    count = itertools.count() if length is None else range(length)
    for index in count:
        time = 2 * np.pi * index / _CLIP_PERIOD
        z = 1.0 - 0.85 * np.cos(time)
        sway = 0.14 * np.sin(np.array([2 * time, 3 * time]) + phases[:2])
        position = _on_axis(colon, z) + np.array([*sway, 0], np.float32)
        ahead = _on_axis(colon, z + 1.3)
        if polyps:
            attention = 0.45 + 0.35 * np.sin(time + phases[2])
            ahead += (colon.polyps[0].centre - ahead) * np.float32(attention)
        ahead[:2] += 0.12 * np.sin(np.array([5 * time, 4 * time]) + phases[2:])
        camera = aim(position, ahead, 0.4 * np.sin(time + phases[3]), studio.half_view)
        yield studio.render(camera, height, width, start + index / 25, random)
