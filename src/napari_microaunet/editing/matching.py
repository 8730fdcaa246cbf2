"""Where a region of one frame lies in another: a search of its colours over the whole frame.

In a sequence that was thinned out, a polyp often moves by more than its own size from one frame to
the next (CVC-ClinicDB), which no dense optical flow follows. So place and scale are searched
first, at a small size. The measure is the masked normalised cross-correlation (Padfield,
Masked object registration in the Fourier domain, IEEE TIP 2012), with graded weights and
with the three colours as one signal.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from scipy import fft, ndimage

from napari_microaunet.editing.shot_cuts import DARKEST_LIT, colour_histogram

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Spectrum = NDArray[np.complex64]

# Longer side, in pixels, that frames are searched at. With 96 and 128, no more polyps were found in
# the training sequences of CVC-ClinicDB, at twice and five times the cost.
SEARCH_SIDE = 64
# Standard deviation, in pixels of the search: what is finer is noise there.
_SMOOTHING = 0.7
# Factors tried on the last scale known. Steps finer than 1.3 or turns by 17 degrees gained nothing.
_SCALES = (0.6, 0.77, 1.0, 1.3, 1.7)
# So much of the mucosa around a region is part of its look, in pixels of the search.
_RIM = 2
# So many of a region's pixels, spread over it, tell its colours.
_PALETTE_PIXELS = 4096
# A place where the picture shows less than this share of the region cannot be judged.
_LEAST_SEEN = 0.35
# A correlation is taken for no better than that of a contrast of one gray level of 100 (squared).
_FLAT = 1e-4
# What a move costs against the correlation: this times log(1 + (distance / unit)^2); the unit
# is a share of the longer side. Likewise this times log(factor)^2 for another scale.
_MOVE_COST = 0.04
_MOVE_UNIT = 0.1
_SCALE_COST = 0.05
# What the overlap with the model's map counts beside the correlation where that is in doubt, ...
MAP_WEIGHT = 1.3
# ... which it is from the second of these on, costs taken off, and not at all from the first: in a
# video, where the polyp is next to where it was, a map that is wrong would only draw it away.
_SURE = 0.98
_UNSURE = 0.9


@dataclass(frozen=True)
class Similarity:
    """A move of the picture: scaled about one point, which then goes to another.

    Attributes
    ----------
    scale : float
        Above 1 enlarges.
    source, target : (float, float)
        Row and column of the point before and after, in native pixels.
    """

    scale: float
    source: tuple[float, float]
    target: tuple[float, float]

    def back(self, rows: Floats, columns: Floats) -> tuple[Floats, Floats]:
        """Say where points of the target were in the source; all in native pixels."""
        return (
            (rows - np.float32(self.target[0])) / np.float32(self.scale)
            + np.float32(self.source[0]),
            (columns - np.float32(self.target[1])) / np.float32(self.scale)
            + np.float32(self.source[1]),
        )


class Picture:
    """A frame as the search needs it.

    Parameters
    ----------
    frame : uint8 array, shape (height, width, 3)
        RGB, native size.
    probability : uint8 array, shape (height, width), optional
        The model's map at native size, 255 for a probability of 1.
    """

    def __init__(
        self, frame: NDArray[np.uint8], probability: NDArray[np.uint8] | None = None
    ) -> None:
        self.frame = frame
        self.probability = probability
        height, width = frame.shape[:2]
        self.shape = height, width
        shrink = min(1.0, SEARCH_SIDE / max(height, width))
        self.size = max(1, round(height * shrink)), max(1, round(width * shrink))
        small = self.shrunk(frame)
        lit = ndimage.binary_opening(np.pad(small.max(axis=2) > DARKEST_LIT, 1, mode="edge"))
        # The rim of the picture is mixed with the border.
        inner = ndimage.binary_erosion(ndimage.binary_fill_holes(lit), border_value=True)
        self.lit = np.asarray(inner[1:-1, 1:-1], np.float32)
        # The square root evens out the noise, which grows with the light.
        self.colours = np.asarray(
            ndimage.gaussian_filter(
                np.sqrt(small.astype(np.float32) / 255), (_SMOOTHING, _SMOOTHING, 0)
            ),
            np.float32,
        )

    def shrunk(self, values: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Reduce an array of native size to the size of the search."""
        return np.asarray(Image.fromarray(values).resize(self.size[::-1], Image.Resampling.BOX))

    def native(self, row: float, column: float) -> tuple[float, float]:
        """Convert a place in pixels of the search to native pixels."""
        down, across = self.shape[0] / self.size[0], self.shape[1] / self.size[1]
        return (row + 0.5) * down - 0.5, (column + 0.5) * across - 0.5

    def searched(self, row: float, column: float) -> tuple[float, float]:
        """Convert a place in native pixels to pixels of the search."""
        down, across = self.shape[0] / self.size[0], self.shape[1] / self.size[1]
        return (row + 0.5) / down - 0.5, (column + 0.5) / across - 0.5

    @cached_property
    def likely(self) -> Floats | None:
        """The model's map at the size of the search, 0..1."""
        if self.probability is None:
            return None
        return self.shrunk(self.probability).astype(np.float32) / np.float32(255)

    @cached_property
    def spectra(self) -> tuple[Spectrum, Spectrum, Spectrum]:
        """Transforms of the lit field, of its three colours and of their squares."""
        colours = self.colours * self.lit[..., None]
        squares = (colours**2).sum(axis=2)
        return self.transform(self.lit), self.transform(colours), self.transform(squares)

    def transform(self, values: Floats) -> Spectrum:
        """Transform an array of the size of the search, padded so that no shift wraps round."""
        return np.asarray(fft.rfft2(values, self._padded, axes=(0, 1)), np.complex64)

    def restore(self, spectra: list[Spectrum]) -> Floats:
        """Transform back, with shift 0 in the middle of the frame and shifts beyond it left out."""
        shifts = fft.irfft2(np.stack(spectra), self._padded, axes=(1, 2))
        rolled = np.roll(shifts, [side // 2 for side in self.size], axis=(1, 2))
        return np.asarray(rolled[:, : self.size[0], : self.size[1]], np.float32)

    @property
    def _padded(self) -> tuple[int, int]:
        height, width = (fft.next_fast_len(2 * side, real=True) for side in self.size)
        return height, width


class Template:
    """A region of a frame that can be searched in others.

    Parameters
    ----------
    picture : Picture
        The frame.
    region : bool array, shape (height, width)
        At native size; not empty.
    attached : bool array, shape (height, width), optional
        What moves with the region: glare on a polyp.
    """

    def __init__(
        self,
        picture: Picture,
        region: NDArray[np.bool_],
        attached: NDArray[np.bool_] | None = None,
    ) -> None:
        self.picture = picture
        self.region = region
        self.attached = attached
        rows, columns = np.nonzero(region)
        self.centre = float(rows.mean()), float(columns.mean())
        self.radius = float(np.sqrt(len(rows) / np.pi))
        self.box = int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1

    @cached_property
    def share(self) -> Floats:
        """How much of each pixel of the search the region covers, 0..1."""
        region = np.where(self.region, np.uint8(255), np.uint8(0))
        return self.picture.shrunk(region).astype(np.float32) / np.float32(255)

    @cached_property
    def weight(self) -> Floats:
        """What each pixel of the search counts in the region's look."""
        around = ndimage.grey_dilation(self.share, (2 * _RIM + 1, 2 * _RIM + 1))
        return np.asarray(ndimage.gaussian_filter(around, 1), np.float32) * self.picture.lit

    @cached_property
    def palette(self) -> NDArray[np.float64]:
        """Histogram of the region's colours, from `colour_histogram`."""
        pixels = self.picture.frame[self.region]
        return colour_histogram(pixels[:: max(1, len(pixels) // _PALETTE_PIXELS)])

    @cached_property
    def depth(self) -> Floats:
        """Signed distance to the outline in native pixels, positive inside.

        It is exact in the region and up to two radii around it; farther away it is no more than
        what is reached there.
        """
        reach = int(2 * self.radius) + 2
        top, left, bottom, right = self.box
        near = (
            slice(max(0, top - reach), bottom + reach),
            slice(max(0, left - reach), right + reach),
        )
        part = self.region[near]
        depth = np.full(self.region.shape, -np.float32(reach), np.float32)
        if part.all():  # it fills the frame: no outline is near
            depth[near] = reach
        else:
            inside = ndimage.distance_transform_edt(part)
            depth[near] = np.clip(inside - ndimage.distance_transform_edt(~part), -reach, reach)
        # The outline runs half a pixel outside the outermost pixels' centres.
        depth += np.where(self.region, np.float32(-0.5), np.float32(0.5))
        return depth


@dataclass(frozen=True, eq=False)
class Match:
    """Where a template was found.

    Attributes
    ----------
    template : Template
    move : Similarity
    likeness : float
        Correlation of the colours, -1 to 1.
    score : float
        What was maximised.
    doubt : float
        How much the colours leave in doubt, and so what the model's map counts, in [0, 1].
    """

    template: Template
    move: Similarity
    likeness: float
    score: float
    doubt: float


def find(
    templates: Sequence[Template],
    picture: Picture,
    place: tuple[float, float],
    radius: float,
    with_map: bool = True,
) -> list[Match]:
    """Search looks of one region in another frame of the same size.

    The colours decide where they leave no doubt. The more they do, the more the overlap with the
    model's map counts.

    Parameters
    ----------
    templates : sequence of Template
        The region in one or several frames.
    picture : Picture
        The frame to search in.
    place : (float, float)
        Where the region was last seen: row and column of its centre in native pixels.
    radius : float
        The radius it last had, in native pixels.
    with_map : bool
        Whether the model's map counts, if the frame has one.

    Returns
    -------
    list of Match
        The best place of each template, the best match first. Templates are left out that are
        too small at every scale, or not on the picture's lit part.
    """
    surfaces = [
        surface
        for template in templates
        for factor in _SCALES
        if (surface := _surface(template, picture, place, radius, factor)) is not None
    ]
    surest = max((float((one.likeness - one.cost).max()) for one in surfaces), default=0.0)
    doubt = min(max((_SURE - surest) / (_SURE - _UNSURE), 0.0), 1.0) if with_map else 0.0
    best: dict[int, Match] = {}
    for surface in surfaces:
        match = _best(surface, picture, doubt)
        known = best.get(id(surface.template))
        if match is not None and (known is None or match.score > known.score):
            best[id(surface.template)] = match
    return sorted(best.values(), key=lambda match: -match.score)


@dataclass(frozen=True, eq=False)
class _Surface:
    """What speaks for and against each place of a template at one scale."""

    template: Template
    scale: float
    likeness: Floats
    cost: Floats
    overlap: Floats | None


def _surface(
    template: Template,
    picture: Picture,
    place: tuple[float, float],
    radius: float,
    factor: float,
) -> _Surface | None:
    """Compare at one scale; shifts are of the template's centre from the frame's middle."""
    scale = radius / template.radius * factor
    height, width = picture.size
    middle = height // 2, width // 2
    centre = template.picture.searched(*template.centre)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    move = Similarity(scale, centre, (float(middle[0]), float(middle[1])))
    at = move.back(rows, columns)
    weight, share = (
        ndimage.map_coordinates(values, at, order=1) for values in (template.weight, template.share)
    )
    total = float(weight.sum())
    if total < 1 or share.sum() < 1:
        return None
    colours = np.stack(
        [
            ndimage.map_coordinates(template.picture.colours[..., c], at, order=1, mode="nearest")
            for c in range(3)
        ],
        axis=2,
    )
    # Taking the mean away first keeps the sums below small, and with them the rounding.
    colours -= (colours * weight[..., None]).sum(axis=(0, 1)) / np.float32(total)
    weighted = colours * weight[..., None]
    lit, theirs, their_squares = picture.spectra
    w = picture.transform(weight).conj()
    ours = picture.transform(weighted).conj()
    our_squares = picture.transform((weighted * colours).sum(axis=2)).conj()
    spectra = [lit * w, their_squares * w, lit * our_squares, (theirs * ours).sum(axis=2)]
    spectra += [theirs[..., c] * w for c in range(3)] + [lit * ours[..., c] for c in range(3)]
    likely = picture.likely
    if likely is not None:
        region = picture.transform(share).conj()
        spectra += [picture.transform(likely) * region, lit * region]
    sums = picture.restore(spectra)

    seen = np.maximum(sums[0], np.float32(1e-3))
    covariance = sums[3] - (sums[4:7] * sums[7:10]).sum(axis=0) / seen
    variance = sums[1] - (sums[4:7] ** 2).sum(axis=0) / seen
    our_variance = sums[2] - (sums[7:10] ** 2).sum(axis=0) / seen
    floor = np.float32(_FLAT) * seen
    likeness = covariance / np.sqrt(np.maximum(variance, floor) * np.maximum(our_variance, floor))
    likeness[seen < _LEAST_SEEN * total] = -1
    overlap = None
    if likely is not None:
        overlap = 2 * sums[10] / (sums[11] + likely.sum() + 1)
    last = picture.searched(*place)
    unit = _MOVE_UNIT * max(picture.size)
    away = (rows - last[0]) ** 2 + (columns - last[1]) ** 2
    cost = np.float32(_MOVE_COST) * np.log1p(away / np.float32(unit) ** 2)
    cost += np.float32(_SCALE_COST * np.log(factor) ** 2)
    return _Surface(template, scale, likeness, cost, overlap)


def _best(surface: _Surface, picture: Picture, doubt: float) -> Match | None:
    """Find the best place of a template at one scale, to a part of a pixel of the search."""
    score = surface.likeness - surface.cost
    if surface.overlap is not None:
        score += np.float32(MAP_WEIGHT * doubt) * surface.overlap
    row, column = (int(i) for i in np.unravel_index(int(score.argmax()), score.shape))
    likeness = float(surface.likeness[row, column])
    if likeness <= -1:
        return None
    target = picture.native(row + _peak(score[:, column], row), column + _peak(score[row], column))
    move = Similarity(surface.scale, surface.template.centre, target)
    return Match(surface.template, move, likeness, float(score[row, column]), doubt)


def _peak(values: Floats, index: int) -> float:
    """Say how far from a maximum its parabola through the neighbours peaks, in -0.5..0.5."""
    if not 0 < index < len(values) - 1:
        return 0.0
    before, at, after = (float(value) for value in values[index - 1 : index + 2])
    bend = before - 2 * at + after
    return float(np.clip(0.5 * (before - after) / bend, -0.5, 0.5)) if bend < 0 else 0.0
