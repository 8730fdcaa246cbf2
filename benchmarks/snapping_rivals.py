"""Other ways to snap an outline and to follow a click, for comparison in ``snapping.py``.

Their parameters were the best of some tried on training frames.
"""

from __future__ import annotations

from math import ceil

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow
from skimage.color import rgb2gray, rgb2lab
from skimage.segmentation import (
    inverse_gaussian_gradient,
    morphological_geodesic_active_contour,
    random_walker,
)

from napari_microaunet.editing.labels import box_of

Region = NDArray[np.bool_]
Bytes = NDArray[np.uint8]
Box = tuple[slice, slice]
Values = NDArray[np.floating]

# Cells that the band is reduced to on either side of the outline.
CELLS = 10
# Graph cut: how fast a cut gets cheaper with the strength of an edge.
STEEPNESS = 2.0
# Flows are whole numbers; a cut between two cells without an edge costs so many.
UNITS = 100
# Random walker: how much an edge hinders it; seeds lie so many radii from the click.
BETA = 130
FAR_SEEDS = 2.5


def graph_cut(drawn: Region, frame: Bytes, band: float) -> Region:
    """Snap by the cheapest cut between the inside and the outside of the band."""
    box, small, signed = _reduced(drawn, frame, band)
    colours = rgb2lab(small)
    strength = sum(
        np.linalg.norm(
            [
                ndimage.gaussian_filter(colours, (sigma, sigma, 0), order) * sigma
                for order in ((1, 0, 0), (0, 1, 0))
            ],
            axis=(0, 3),
        )
        ** 0.5
        for sigma in (1, 2)
    )
    in_band = np.abs(signed) <= CELLS
    price = np.exp(-STEEPNESS * strength / strength[in_band].mean())
    # All that lies inside of the band is the source, all outside of it the sink.
    source, sink = signed.size, signed.size + 1
    cell = np.arange(signed.size).reshape(signed.shape)
    cell[signed < -CELLS], cell[signed > CELLS] = source, sink
    ends: list[tuple[NDArray[np.intp], NDArray[np.intp], Values]] = []
    for one, other, weight in (
        (np.s_[:, :-1], np.s_[:, 1:], 1.0),
        (np.s_[:-1], np.s_[1:], 1.0),
        (np.s_[:-1, :-1], np.s_[1:, 1:], 0.7),
        (np.s_[:-1, 1:], np.s_[1:, :-1], 0.7),
    ):
        flow = UNITS * weight * (price[one] + price[other]) / 2
        ends += [(cell[one], cell[other], flow), (cell[other], cell[one], flow)]
    start = np.concatenate([one.ravel() for one, _, _ in ends])
    end = np.concatenate([other.ravel() for _, other, _ in ends])
    flow = np.concatenate([amount.ravel() for _, _, amount in ends])
    kept = (start != end) & (end != source) & (start != sink)
    shape = (signed.size + 2, signed.size + 2)
    graph = csr_array(
        coo_array(
            (np.rint(flow[kept]).astype(np.int32), (start[kept], end[kept])), shape=shape
        ).tocsr()
    )
    graph.indices, graph.indptr = graph.indices.astype(np.int32), graph.indptr.astype(np.int32)
    left = graph - maximum_flow(graph, source, sink).flow
    left.data = np.maximum(left.data, 0)
    left.eliminate_zeros()
    reached = np.zeros(signed.size + 2, bool)
    reached[breadth_first_order(left, source, return_predecessors=False)] = True
    return _enlarged(reached[cell], drawn, box)


def geodesic_contour(drawn: Region, frame: Bytes, band: float) -> Region:
    """Snap by a morphological geodesic active contour (Marquez-Neila et al. 2014)."""
    box, small, signed = _reduced(drawn, frame, band)
    edges = inverse_gaussian_gradient(rgb2gray(small), alpha=300, sigma=1.5)
    moved = morphological_geodesic_active_contour(
        edges, 3 * CELLS, init_level_set=signed < 0, threshold=0.4
    )
    return _enlarged(np.where(np.abs(signed) <= CELLS, moved > 0, signed < 0), drawn, box)


def disc_click(drawn: Region, click: tuple[int, int], *, positive: bool) -> Region:
    """Change the largest disc around a click that holds nothing that is right."""
    rows, columns = np.ogrid[: drawn.shape[0], : drawn.shape[1]]
    away = np.hypot(rows - click[0], columns - click[1])
    changed = drawn.copy()
    changed[away < _radius(drawn == positive, away)] = positive
    return changed


def walker_click(drawn: Region, frame: Bytes, click: tuple[int, int], *, positive: bool) -> Region:
    """Change what a random walker from the click reaches before one from elsewhere (Grady 2006).

    Seeds are the click, what is right, and what is far from the click.
    """
    rows, columns = np.ogrid[: drawn.shape[0], : drawn.shape[1]]
    away = np.hypot(rows - click[0], columns - click[1])
    right = drawn == positive
    radius = _radius(right, away)
    reach = ceil(FAR_SEEDS * radius) + 2
    box = tuple(slice(max(0, at - reach), at + reach + 1) for at in click)
    step = max(1, reach // 40)
    cells = (slice(box[0].start, box[0].stop, step), slice(box[1].start, box[1].stop, step))
    seeds = np.zeros(drawn[cells].shape, np.int8)
    seeds[away[cells] >= FAR_SEEDS * radius] = 2
    seeds[right[cells]] = 1
    seeds[away[cells] < 0.5 * radius] = 1
    if (seeds == 2).any() and (seeds == 0).any():
        seeds = random_walker(
            rgb2lab(frame[cells]) / 100, seeds, BETA, mode="cg_j", channel_axis=-1
        )
    shape = drawn[box].shape
    taken = np.asarray(Image.fromarray((seeds == 1).astype(np.uint8)).resize((shape[1], shape[0])))
    changed = drawn.copy()
    changed[box][taken > 0] = positive
    return changed


def _radius(right: Region, away: Values) -> float:
    """Measure how far what is right is from the click; a twelfth of the frame if there is none."""
    return float(away[right].min()) if right.any() else float(max(right.shape)) / 12


def _reduced(drawn: Region, frame: Bytes, band: float) -> tuple[Box, Bytes, Values]:
    """Cut out a polyp so small that the band has `CELLS`; distances in cells, negative inside."""
    box = box_of(drawn, ceil(1.3 * band) + 4)
    if box is None:
        raise ValueError("there is no polyp")
    distance = ndimage.distance_transform_edt(~drawn[box]) - ndimage.distance_transform_edt(
        drawn[box]
    )
    scale = max(1.0, band / CELLS)
    size = (
        max(8, round(distance.shape[1] / scale)),
        max(8, round(distance.shape[0] / scale)),
    )
    signed = Image.fromarray(distance.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    small = Image.fromarray(frame[box]).resize(size, Image.Resampling.BOX)
    return box, np.asarray(small), np.asarray(signed) * CELLS / band


def _enlarged(small: Region, drawn: Region, box: Box) -> Region:
    """Put a reduced region back into its frame, with a smooth outline."""
    shape = drawn[box].shape
    soft = ndimage.gaussian_filter(small.astype(np.float32), 0.7)
    snapped = np.zeros_like(drawn)
    snapped[box] = (
        np.asarray(Image.fromarray(soft).resize((shape[1], shape[0]), Image.Resampling.BILINEAR))
        > 0.5
    )
    return snapped
