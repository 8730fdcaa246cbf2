"""Click refinement: positive and negative clicks correct a polyp without a network.

A click says that a pixel is wrong, and by where it lies, how much is wrong: an
annotator clicks into the middle of an error, so that the error ends about as far
from the click as the pixels that are right begin. Measured by that distance, a
log-linear model says how likely a pixel belongs to the same error: by where it
lies, by its colour, and by how much the model's belief changes on the way to it.
What is likely and connected with the click changes. Chosen by measurement
against a random walker: ``benchmarks/snapping.py``.
"""

from __future__ import annotations

from math import ceil, floor, log
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage
from skimage.color import rgb2lab
from skimage.graph import MCP_Geometric

from napari_microaunet.editing.labels import WITH_DIAGONALS, pixels_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_microaunet.editing.labels import Box, Mask, Region

    Pixel = tuple[int, int]
    Values = NDArray[np.floating]

# Nats that a unit of each is worth, and a constant, without and with a probability map: fitted
# to clicks at the largest errors of the student's masks of 100 training frames, 5 a frame, as
# ``benchmarks/snapping.py --fit`` does, which adds clicks that start from nothing.
WEIGHTS = (0.596, -4.238, -1.383, 3.804, -0.416, -0.522, 0.225, 4.076)
WEIGHTS_WITH_MODEL = (0.505, -2.029, -1.093, 3.853, -0.475, -0.471, 0.216, -1.99, 4.175)

# Pixels within this distance of a click get its label whatever the likelihood.
_DISC = 2.5
# What is farther from the click than so many times the distance to what is right stays as it is.
_REACH = 6
# But this far around, in pixels, is looked at for small errors too.
_LEAST_REACH = 20
# Farther away than so many distances, pixels that the model is as sure about as this, in
# probability, do not change against it. On 20 frames each, by which it was chosen, the first click
# then comes to Dice 0.79 instead of 0.74 (CVC-ClinicDB) and 0.91 instead of 0.90 (Kvasir-SEG);
# five come to 0.938 instead of 0.942, and from an empty mask to 0.926 instead of 0.938 (CVC).
_SURE_REACH = 1.5
_SURE = 0.95
# What is looked at is reduced to at most this many cells to every side of the click.
_CELLS = 48
# An error is never taken for larger than this share of the root of the frame's area. Where
# nothing right is so near, a click starts a new region of about this radius.
_LARGEST = 0.1
# Leftovers below this share of the disc between the click and what is right are crumbs.
_CRUMBS = 0.5
# Beyond so many distances, nothing is farther from what is right.
_FAR = 4.0
# Distances and colours are added to these before the logarithm: within about a third of the
# distance all is near, and colours (CIELAB) nearer than this are the same.
_NEAR = 0.3
_SAME_COLOUR = 3.0
# Probabilities are kept this far from 0 and 1 before their log-odds are taken.
_DOUBT = 0.02
# A nat of lost belief makes a cell as long as so many.
_LOSS = 2.0
# Variance (CIELAB units) that each colour has at least, and the most nats that likeness is worth.
_LEAST_VARIANCE = 4.0
_MOST_LIKENESS = 4.0
# Colour differences are learnt from at least so many cells.
_LEAST_CELLS = 10


class Surroundings(NamedTuple):
    """The neighbourhood of a click, reduced to cells.

    Attributes
    ----------
    box : (slice, slice)
        Rows and columns of the frame that the cells cover.
    right : bool array, shape (n, m)
        Cells that have the label of the click already.
    evidence : float array, shape (n, m, k)
        What says that a cell belongs to the error that was clicked at: far from the click, the
        logarithm of that, far from what is right, surrounded by what is right, size of the error,
        unlike the click in colour, like what is right in colour; with a probability map also
        belief lost on the way.
    radius : float
        Distance from the click to what is right, in pixels, as far as it counts.
    """

    box: Box
    right: Region
    evidence: Values
    radius: float


def refine(
    mask: Mask,
    label: int,
    frame: NDArray[np.uint8],
    probability: NDArray[np.uint8] | None,
    positive: Sequence[Pixel] = (),
    negative: Sequence[Pixel] = (),
) -> Mask:
    """Correct a polyp by clicks: what belongs to it, and what does not.

    A positive click only adds to the polyp, a negative one only takes away, and
    only around the click; far from it, not against what the model is sure of.
    One at a place that is right already, or on another polyp or ignore, changes
    nothing but its disc. Every clicked pixel, and the disc of 2.5 pixels around
    it, has the label that was asked for, where it was background or the polyp
    itself before. A positive click far from the polyp, or one for a number that
    no polyp has, starts a new region.

    Positive clicks are applied first, each in the order given. A window may
    pass every click alone, on the mask that the last one gave.

    Parameters
    ----------
    mask : uint8 array, shape (height, width)
        0 background, 1 to 254 polyps, 255 ignore. Stays as it is.
    label : int
        Number of the polyp; may be new.
    frame : uint8 array, shape (height, width, 3)
        RGB.
    probability : uint8 array, shape (height, width), or None
        The frame's probability map at native size, 255 for probability 1.
        None: the image alone decides.
    positive, negative : sequence of (int, int)
        Rows and columns of clicked pixels. Where discs of both meet, the nearer
        click counts; the same pixel in both is negative.

    Returns
    -------
    uint8 array, shape (height, width)

    Raises
    ------
    ValueError
        If sizes differ, `label` is no number of a polyp or a click is not in
        the frame.
    """
    shapes = {array.shape[:2] for array in (mask, frame, probability) if array is not None}
    if len(shapes) > 1:
        raise ValueError(f"mask, frame and probability map differ in size: {shapes}")
    own = pixels_of(mask, label)
    for row, column in (*positive, *negative):
        if not (0 <= row < mask.shape[0] and 0 <= column < mask.shape[1]):
            raise ValueError(f"the click at {(row, column)} is not in the frame")
    allowed = own | (mask == 0)
    for clicks, wanted in ((positive, True), (negative, False)):
        for click in clicks:
            if allowed[click] and own[click] != wanted:
                box, meant = _meant(
                    own == wanted, allowed, frame, probability, click, positive=wanted
                )
                own[box][meant] = wanted
    _obey(own, positive, negative)
    refined = mask.copy()
    refined[allowed] = np.where(own[allowed], np.uint8(label), np.uint8(0))
    return refined


def look_around(
    right: Region,
    frame: NDArray[np.uint8],
    probability: NDArray[np.uint8] | None,
    click: Pixel,
    *,
    positive: bool,
) -> Surroundings:
    """Collect what says which pixels belong to the error that was clicked at.

    Parameters
    ----------
    right : bool array, shape (height, width)
        Pixels that have the label of the click already; not the clicked one.
    frame : uint8 array, shape (height, width, 3)
        RGB.
    probability : uint8 array, shape (height, width), or None
        As for `refine`.
    click : (int, int)
        Row and column.
    positive : bool
        Whether the click is for the polyp.

    Returns
    -------
    Surroundings
    """
    largest = _LARGEST * (right.shape[0] * right.shape[1]) ** 0.5
    radius = max(1.0, min(largest, _distance(right, click, ceil(largest))))
    box = _box_around(click, max(_LEAST_REACH, _REACH * radius), right.shape)
    lengths = np.array([side.stop - side.start for side in box])
    cell = max(1.0, max(_LEAST_REACH, _REACH * radius) / _CELLS)
    shape = np.maximum(1, np.rint(lengths / cell)).astype(int)
    cells = lengths / shape
    centres = [
        (np.arange(count) + 0.5) * size - 0.5 + side.start - at
        for count, size, side, at in zip(shape, cells, box, click, strict=True)
    ]
    middle = tuple(int(np.abs(side).argmin()) for side in centres)
    far = np.hypot(*np.meshgrid(*centres, indexing="ij")) / radius

    def reduced(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
        size = (int(shape[1]), int(shape[0]))
        return np.asarray(Image.fromarray(values[box]).resize(size, Image.Resampling.BOX))

    near = reduced(right.astype(np.uint8) * np.uint8(255)) > 127
    colours = rgb2lab(reduced(frame))
    spot = colours[far <= max(_NEAR, far[middle])].mean(axis=0)
    from_right = np.full(far.shape, 1.0)
    if near.any():
        from_right = ndimage.distance_transform_edt(~near, sampling=cells) / radius
    evidence = [
        far,
        np.log(far + _NEAR),
        np.minimum(from_right, _FAR),
        ndimage.gaussian_filter(near.astype(float), radius / cells, mode="nearest"),
        np.full(far.shape, log(radius / largest)),
        np.log(np.linalg.norm(colours - spot, axis=2) + _SAME_COLOUR),
        _likeness(colours, near, ~near & (from_right > 2)),
    ]
    if probability is not None:
        belief = np.clip(reduced(probability) / 255, _DOUBT, 1 - _DOUBT)
        odds = np.log(belief / (1 - belief)) * (1 if positive else -1)
        lost = 1 + _LOSS * np.maximum(0, odds[middle] - odds)
        way, _ = MCP_Geometric(lost).find_costs([middle])
        evidence.append(np.log(way * cells.mean() / radius + _NEAR))
    return Surroundings(box, near, np.stack(evidence, axis=2), radius)


def _meant(
    right: Region,
    allowed: Region,
    frame: NDArray[np.uint8],
    probability: NDArray[np.uint8] | None,
    click: Pixel,
    *,
    positive: bool,
) -> tuple[Box, Region]:
    """Find what a click was meant for: a box of the frame, and the pixels in it."""
    around = look_around(right, frame, probability, click, positive=positive)
    box = around.box
    weights = WEIGHTS if probability is None else WEIGHTS_WITH_MODEL
    nats = around.evidence @ np.asarray(weights[:-1]) + weights[-1]
    wrong = allowed[box] & ~right[box]
    size = (wrong.shape[1], wrong.shape[0])
    likely = np.asarray(
        Image.fromarray(nats.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    )
    at = (click[0] - box[0].start, click[1] - box[1].start)
    rows, columns = np.ogrid[: size[1], : size[0]]
    away = np.hypot(rows - at[0], columns - at[1])
    may_change = likely > 0
    if probability is not None:
        sure = probability[box] < 255 * (1 - _SURE) if positive else probability[box] > 255 * _SURE
        may_change &= ~(sure & (away > _SURE_REACH * around.radius))
    pieces, _ = ndimage.label(wrong & (may_change | (away <= _DISC)), WITH_DIAGONALS)
    meant = pieces == pieces[at]
    return box, meant | _cut_off(
        wrong, meant, _CRUMBS * np.pi * around.radius**2, positive=positive
    )


def _cut_off(wrong: Region, meant: Region, largest: float, *, positive: bool) -> Region:
    """Find small leftovers: holes that a positive click would leave, islands of a negative one."""
    touching = None if positive else WITH_DIAGONALS
    before, _ = ndimage.label(wrong, touching)
    after, count = ndimage.label(wrong & ~meant, touching)
    areas = np.bincount(after.ravel(), minlength=count + 1)
    small = areas < largest
    # What lay apart before is none of the click's business; what the box cuts may be larger.
    areas_before = np.bincount(before.ravel())[before]
    small[after[areas_before == areas[after]]] = False
    for edge in (after[0], after[-1], after[:, 0], after[:, -1]):
        small[edge] = False
    if not positive and count:
        # What remains of the polyp is no crumb, however little it is.
        small[areas[1:].argmax() + 1] = False
    small[0] = False
    return np.asarray(small[after])


def _obey(own: Region, positive: Sequence[Pixel], negative: Sequence[Pixel]) -> None:
    """Give the discs around clicks their label, in place."""
    reach = floor(_DISC)
    discs = [(click, True) for click in positive] + [(click, False) for click in negative]
    nearest: dict[Pixel, tuple[int, bool]] = {}
    for (row, column), wanted in discs:
        for down in range(-reach, reach + 1):
            for across in range(-reach, reach + 1):
                pixel, away = (row + down, column + across), down**2 + across**2
                if away <= _DISC**2 and away <= nearest.get(pixel, (away, wanted))[0]:
                    nearest[pixel] = (away, wanted)
    for (row, column), (_, wanted) in nearest.items():
        if 0 <= row < own.shape[0] and 0 <= column < own.shape[1]:
            own[row, column] = wanted


def _distance(region: Region, point: Pixel, reach: int) -> float:
    """Measure how far the nearest pixel of a region is, or give infinity beyond the reach."""
    box = _box_around(point, reach, region.shape)
    rows, columns = np.nonzero(region[box])
    away = np.hypot(rows + box[0].start - point[0], columns + box[1].start - point[1])
    return float(away.min(initial=np.inf))


def _box_around(point: Pixel, reach: float, shape: tuple[int, ...]) -> Box:
    rows, columns = (
        slice(max(0, at - ceil(reach)), min(length, at + ceil(reach) + 1))
        for at, length in zip(point, shape, strict=True)
    )
    return rows, columns


def _likeness(colours: Values, of: Region, other: Region) -> Values:
    """Say how much more likely a colour is among one kind of cells than among another, in nats.

    Both kinds are taken as normal with one covariance (linear discriminant, Fisher 1936).
    """
    if min(of.sum(), other.sum()) < _LEAST_CELLS:
        return np.zeros(of.shape)
    means = colours[of].mean(axis=0), colours[other].mean(axis=0)
    spread = np.concatenate([colours[of] - means[0], colours[other] - means[1]])
    covariance = spread.T @ spread / len(spread) + _LEAST_VARIANCE * np.eye(3)
    towards = np.linalg.solve(covariance, means[0] - means[1])
    nats = (colours - (means[0] + means[1]) / 2) @ towards
    likeness: Values = np.clip(nats, -_MOST_LIKENESS, _MOST_LIKENESS)
    return likeness
