"""Masks as outlines and run lengths, and back, right to the pixel.

Points are (x, y) in pixels; the frame spans [0, width] x [0, height], and the pixel in
column c and row r spans [c, c + 1] x [r, r + 1], as in COCO.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from pycocotools import mask as coco_masks
from scipy import ndimage
from skimage.measure import find_contours

from napari_microaunet.errors import InputError
from napari_microaunet.frames.masks import IGNORE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Mask = NDArray[np.uint8]
    Region = NDArray[np.bool_]
    Points = NDArray[np.float64]
    Counts = NDArray[np.int64]

LONGEST_OUTLINE = 1_000_000
"""Pixels along the outline of a polyp; more can only be meant to fill the memory."""

# Tools let points stray a little over the edge.
_OVER_THE_EDGE = 2.0
# Bits of a run length in each character of COCO's strings, which start at this character.
_COCO_BITS, _COCO_ZERO = 5, 48
# 2**(5 * 7) pixels are more than any frame has.
_COCO_MOST_CHARACTERS = 7


def outline_of(part: Part) -> Points | None:
    """Give the one outline that draws a part to the pixel, in the frame; None if none does."""
    outer, holes = outlines(part.region)
    if holes or len(outer) > 1 or length_of(outer[0]) > LONGEST_OUTLINE:
        return None
    return np.add(outer[0], (part.left, part.top))


class Part(NamedTuple):
    """One polyp of a mask, or the regions to ignore.

    Attributes
    ----------
    label : int
        1..n, or 255 for ignore.
    region : bool array, shape (h, w)
        The smallest box around it.
    left, top : int
        Where the box is in the frame.
    """

    label: int
    region: Region
    left: int
    top: int


def parts_of(mask: Mask) -> Iterator[Part]:
    """Take a mask apart into its polyps, by number, and what is to be ignored, last."""
    for label, box in enumerate(ndimage.find_objects(mask), start=1):
        if box is not None:
            yield Part(label, mask[box] == label, box[1].start, box[0].start)


def outlines(region: Region, *, diagonals: bool = False) -> tuple[list[Points], list[Points]]:
    """Follow the sides of a region's pixels.

    Parameters
    ----------
    region : bool array, shape (height, width)
        Any.
    diagonals : bool
        Whether pixels that touch at a corner alone are of one outline.

    Returns
    -------
    (list of float array of shape (n, 2), likewise)
        Corners, in whole pixels, of the outer outlines and of those of holes.
    """
    outer: list[Points] = []
    holes: list[Points] = []
    padded, connected = np.pad(region, 1).astype(np.float32), "high" if diagonals else "low"
    for contour in find_contours(padded, 0.5, fully_connected=connected):
        # The contour runs through the middles of the pixels' sides; the pad has moved it by 1,
        # and the centre of a pixel is half a pixel from its edge.
        side = contour[:-1] - 0.5
        after = np.roll(side, -1, axis=0)
        is_level = side[:, 0] % 1 == 0
        turns = is_level != np.roll(is_level, -1)
        around = np.where(
            is_level[:, None],
            np.stack([side[:, 0], after[:, 1]], axis=1),
            np.stack([after[:, 0], side[:, 1]], axis=1),
        )
        corners = around[turns]
        rows, columns = corners.T
        area = np.sum(rows * np.roll(columns, -1) - columns * np.roll(rows, -1))
        (outer if area < 0 else holes).append(corners[:, ::-1])
    return outer, holes


def through_centres(corners: Points) -> Points:
    """Move an outer outline inwards, to the centres of the pixels that it goes along.

    Parameters
    ----------
    corners : float array, shape (n, 2)
        An outer outline of `outlines`.

    Returns
    -------
    float array, shape (m, 2)
        Points with halves; they touch all pixels along the outline.
    """
    after = np.roll(corners, -1, axis=0)
    ahead = np.sign(after - corners)
    # The region is on this side of an outer outline.
    inward = np.stack([-ahead[:, 1], ahead[:, 0]], axis=1)
    ends = np.stack([corners + (ahead + inward) / 2, after - (ahead - inward) / 2], axis=1)
    points: Points = ends.reshape(-1, 2)
    differs = (points != np.roll(points, 1, axis=0)).any(axis=1)
    return points[differs] if differs.any() else points[:1]


def length_of(points: Points) -> float:
    """Measure a closed outline, along the longer of x and y for each side, in pixels."""
    return float(np.abs(points - np.roll(points, -1, axis=0)).max(axis=1).sum())


def as_points(values: Iterable[Any], file: Path, where: str) -> Points:
    """Read a polygon.

    Parameters
    ----------
    values : iterable of float
        x and y in turn, or pairs of them.
    file : Path
        What it stands in.
    where : str
        The frame, for the message.

    Returns
    -------
    float array, shape (n, 2)
        At least three points.

    Raises
    ------
    InputError
        If it is no polygon.
    """
    try:
        points = np.array(list(values), dtype=np.float64).reshape(-1, 2)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"{file}: a polygon of {where} is no list of x and y; correct or remove it."
        ) from error
    if len(points) < 3 or not np.isfinite(points).all():
        raise InputError(
            f"{file}: a polygon of {where} has fewer than three points, or one without "
            "a place; correct or remove it."
        )
    return points


def fill(polygons: Sequence[Points], size: tuple[int, int], file: Path, where: str) -> Region:
    """Fill polygons as COCO does; where they overlap, too.

    Parameters
    ----------
    polygons : sequence of float array, each of shape (n, 2)
        They may cross themselves.
    size : (int, int)
        Height and width of the frame.
    file, where
        As for `as_points`.

    Returns
    -------
    bool array, shape (height, width)

    Raises
    ------
    InputError
        If a polygon lies outside the frame, or is absurdly long.
    """
    height, width = size
    inside = []
    for points in polygons:
        clipped = np.clip(points, 0, (width, height))
        if np.abs(points - clipped).max() > _OVER_THE_EDGE:
            raise InputError(
                f"{file}: a polygon of {where} lies outside its {width} x {height} px; "
                "it belongs to another frame or size."
            )
        if length_of(clipped) > LONGEST_OUTLINE:
            raise InputError(
                f"{file}: a polygon of {where} is more than {LONGEST_OUTLINE} px long; remove it."
            )
        inside.append(clipped.ravel().tolist())
    if not inside:
        return np.zeros(size, bool)
    encoded = coco_masks.frPyObjects(inside, height, width)
    filled: Region = coco_masks.decode(coco_masks.merge(encoded)).astype(bool)
    return filled


def to_coco_rle(region: Region) -> dict[str, Any]:
    """Compress a region as COCO does: "size" and "counts", a string."""
    encoded = coco_masks.encode(np.asfortranarray(region, np.uint8))
    return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode()}


def coco_counts(text: str, file: Path, where: str) -> Counts:
    """Read the string of a compressed COCO mask.

    pycocotools writes past its memory where the runs do not add up, so it is not asked.

    Parameters
    ----------
    text : str
        Groups of five bits, the lowest first; the sixth tells that more follow. From the
        fourth run on, differences to the run before the last (pycocotools, ``rleToString``).
    file, where
        As for `as_points`.

    Returns
    -------
    int array, shape (n,)

    Raises
    ------
    InputError
        If it is damaged.
    """
    counts: list[int] = []
    value = characters = 0
    for character in text:
        bits = ord(character) - _COCO_ZERO
        if not 0 <= bits < 64 or characters >= _COCO_MOST_CHARACTERS:
            raise InputError(f"{file}: the mask of {where} is damaged; export it again.")
        value |= (bits & 31) << _COCO_BITS * characters
        characters += 1
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << _COCO_BITS * characters
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = characters = 0
    return as_counts(counts, file, where)


def as_counts(values: Iterable[Any], file: Path, where: str) -> Counts:
    """Read run lengths, of pixels outside and inside in turn.

    Raises
    ------
    InputError
        If they are no whole numbers from 0.
    """
    try:
        counts = np.array(list(values))
    except (ValueError, OverflowError) as error:  # lists in the list, or numbers beyond 64 bits
        raise InputError(f"{file}: the mask of {where} has no run lengths.") from error
    if counts.ndim != 1 or counts.dtype != np.int64 or (counts < 0).any():
        raise InputError(f"{file}: the mask of {where} has no run lengths; export it again.")
    return counts


def from_counts(
    counts: Counts, size: tuple[int, int], file: Path, where: str, *, by_rows: bool = False
) -> Region:
    """Make a region of run lengths.

    Parameters
    ----------
    counts : int array, shape (n,)
        None negative.
    size : (int, int)
        Height and width.
    file, where
        As for `as_points`.
    by_rows : bool
        Whether pixels follow each other along rows, not columns.

    Returns
    -------
    bool array, shape (height, width)

    Raises
    ------
    InputError
        If they do not add up to the number of pixels.
    """
    # As floats: the sum of hostile numbers must not wrap round to the right one.
    if counts.astype(np.float64).sum() != size[0] * size[1]:
        raise InputError(
            f"{file}: the mask of {where} does not have {size[1]} x {size[0]} px; "
            "it belongs to another frame or is damaged."
        )
    pixels = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return pixels.reshape(size) if by_rows else pixels.reshape(size[::-1]).T


def run_lengths(region: Region) -> list[int]:
    """Count the pixels outside and inside in turn, row by row, beginning outside."""
    flat = region.ravel()
    changes = np.flatnonzero(np.diff(flat, prepend=False))
    lengths: list[int] = np.diff(changes, prepend=0, append=flat.size).tolist()
    return lengths


def join(
    regions: Sequence[tuple[bool, Region]], size: tuple[int, int], file: Path, where: str
) -> Mask:
    """Put regions together into a mask.

    Parameters
    ----------
    regions : sequence of (bool, bool array of shape (height, width))
        Whether it is to be ignored, and where it is, in the order in which they were drawn: the
        later one has what two of them share, as glare that was marked on a polyp. Polyps are
        numbered 1..n in this order.
    size : (int, int)
        Height and width.
    file, where
        As for `as_points`.

    Returns
    -------
    uint8 array, shape (height, width)

    Raises
    ------
    InputError
        If there are more polyps than a mask has numbers for.
    """
    polyps = sum(not is_ignored for is_ignored, _ in regions)
    if polyps >= IGNORE:
        raise InputError(
            f"{file}: {where} has {polyps} polyps, and a mask holds {IGNORE - 1}; merge some."
        )
    mask, label = np.zeros(size, np.uint8), 0
    for is_ignored, region in regions:
        label += not is_ignored
        mask[region] = IGNORE if is_ignored else label
    return mask
