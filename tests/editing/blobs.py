"""Masks of many kinds for property tests."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from scipy import ndimage
from skimage.draw import ellipse, line

IGNORE = 255


def noise(shape, seed, sigma):
    """Blobs with bays and holes: blurred noise above its mean."""
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma)
    return field > field.mean()


@st.composite
def regions(draw, shape):
    """Draw a shape somewhere in the frame, perhaps cut off by its edge; it may miss the frame."""
    height, width = shape
    row, column = draw(st.integers(-3, height + 2)), draw(st.integers(-3, width + 2))
    region = np.zeros(shape, bool)
    match draw(st.sampled_from(["ellipse", "ring", "line", "pixel", "noise", "frame"])):
        case "ellipse":
            radii = draw(st.floats(0.6, height)), draw(st.floats(0.6, width))
            turn = draw(st.floats(0, np.pi))
            region[ellipse(row, column, *radii, shape=shape, rotation=turn)] = True
        case "ring":
            radius, hole = draw(st.floats(2, 20)), draw(st.floats(0.3, 0.95))
            region[ellipse(row, column, radius, radius, shape=shape)] = True
            region[ellipse(row, column, hole * radius, hole * radius, shape=shape)] = False
        case "line":
            rows, columns = line(
                row, column, draw(st.integers(0, height)), draw(st.integers(0, width))
            )
            inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
            region[rows[inside], columns[inside]] = True
        case "pixel":
            region[min(max(row, 0), height - 1), min(max(column, 0), width - 1)] = True
        case "noise":
            region = noise(shape, draw(st.integers(0, 1000)), draw(st.floats(0.5, 5)))
        case "frame":
            region[:] = True
    return region


@st.composite
def masks(draw, labels=(1, 2, 3, 254, IGNORE, 0), most=5, side=40):
    """Draw a mask of several shapes, the later over the earlier; it may be empty or one pixel."""
    shape = draw(st.tuples(st.integers(1, side), st.integers(1, side)))
    mask = np.zeros(shape, np.uint8)
    for _ in range(draw(st.integers(0, most))):
        mask[draw(regions(shape))] = draw(st.sampled_from(labels))
    return mask


def disc(shape, row, column, radius):
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return np.hypot(rows - row, columns - column) <= radius
