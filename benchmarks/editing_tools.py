"""What corrections cost and how few vertices outlines need: ``python benchmarks/editing_tools.py``.

Prints the time of every mask tool, the contour slider and the boundary on a mask of 1080x1350
with three polyps, as median of several runs: by the clock, and of the processor alone, which other
work on the machine lengthens less. With ``--data DIR``, which holds
``kvasir-seg`` and ``cvc-clinicdb``, it also outlines the masks of both: vertices that
`polygons_of` needs, and how well the masks come back, beside Douglas and Peucker's method (DP) as
scikit-image has it, at the same tolerance, which loses specks of a few pixels altogether.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.spatial import cKDTree
from skimage.measure import approximate_polygon

from napari_microaunet.editing.boundary import (
    Polygon,
    fill_polygons,
    polygons_of,
    write_polygons,
)
from napari_microaunet.editing.contour import level_of, move_contour
from napari_microaunet.editing.labels import label_at
from napari_microaunet.editing.tools import MASK_TOOLS
from napari_microaunet.frames import open_frames
from napari_microaunet.frames.masks import IGNORE

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

HEIGHT, WIDTH = 1080, 1350
POLYPS = ((500, 400, 150), (300, 900, 100), (800, 1000, 60))
REPEATS = 9


def scene() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Make a mask of three discs, and a map that is a cone on each of them."""
    rows, columns = np.ogrid[:HEIGHT, :WIDTH]
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    height = np.full((HEIGHT, WIDTH), 0.03)
    for number, (row, column, radius) in enumerate(POLYPS, start=1):
        distance = np.hypot(rows - row, columns - column)
        mask[distance < radius] = number
        height = np.maximum(height, 1 - distance / (2.2 * radius))
    return mask, (255 * height).astype(np.uint8)


def speed() -> Table:
    """Time every operation on a large frame."""
    mask, probability = scene()
    polygons = polygons_of(mask, 1)
    operations: dict[str, Callable[[], object]] = {}
    for tool in MASK_TOOLS.values():
        values = {parameter.name: parameter.default for parameter in tool.parameters}
        for label, which in ((1, "one polyp"), (None, "all")):
            operations[f"{tool.title}, {which}"] = lambda t=tool, n=label, v=values: (  # type: ignore[misc]
                t.function(mask, n, **v)
            )
    for share in (0.05, 0.25, 0.5, 0.75):
        level = round(255 * share)
        operations[f"contour slider at {share}"] = lambda level=level: move_contour(  # type: ignore[misc]
            mask, 1, probability, level
        )
    operations["contour slider: where it starts"] = lambda: level_of(mask, 1, probability)
    operations["mask to polygons"] = lambda: polygons_of(mask, 1)
    operations["polygons to mask"] = lambda: write_polygons(mask, 1, polygons)
    operations["polyp near the cursor"] = lambda: label_at(mask, (500, 560), 20)

    table = Table("operation", "clock, ms", "processor, ms", title=f"{WIDTH}x{HEIGHT}")
    for name, operation in operations.items():
        times = []
        for _ in range(REPEATS):
            start = time.perf_counter(), time.process_time()
            operation()
            times.append((time.perf_counter() - start[0], time.process_time() - start[1]))
        table.add_row(name, *(f"{1000 * median:.1f}" for median in np.median(times, axis=0)))
    return table


def hausdorff(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Return the Hausdorff distance of two regions in pixels."""
    here, there = np.argwhere(one), np.argwhere(other)
    return float(max(cKDTree(here).query(there)[0].max(), cKDTree(there).query(here)[0].max()))


def douglas_peucker(polygon: Polygon) -> Polygon:
    """Simplify by scikit-image, with a tolerance of one pixel."""
    rings = [
        approximate_polygon(np.vstack([ring, ring[:1]]), 1)[:-1]
        for ring in (polygon.exterior, *polygon.holes)
    ]
    return Polygon(rings[0], tuple(rings[1:]))


def outlines(data: Path) -> Table:
    """Outline the masks of real frames and fill them again."""
    table = Table(
        "masks",
        "outlines",
        "vertices",
        "90 %",
        "Hausdorff",
        "area",
        "ms",
        title="outlines within one pixel: medians; largest Hausdorff distance and change of area",
    )
    for name in ("kvasir-seg", "cvc-clinicdb"):
        sequence = open_frames(data / name)
        methods: dict[str, list[tuple[int, float, float, float]]] = {"ours": [], "DP": []}
        for index in range(0, len(sequence), 5):
            mask = sequence.read_mask(index)
            polyp = np.zeros((0, 0), bool) if mask is None else (mask > 0) & (mask < IGNORE)
            if not polyp.any():
                continue
            for method, found in methods.items():
                start = time.perf_counter()
                if method == "ours":
                    polygons = polygons_of(polyp.astype(np.uint8), 1)
                else:
                    exact = polygons_of(polyp.astype(np.uint8), 1, tolerance=0)
                    polygons = [douglas_peucker(polygon) for polygon in exact]
                spent = time.perf_counter() - start
                again = fill_polygons(polygons, (polyp.shape[0], polyp.shape[1]))
                vertices = sum(
                    len(ring) for part in polygons for ring in (part.exterior, *part.holes)
                )
                change = abs(again.sum() / polyp.sum() - 1)
                found.append((vertices, hausdorff(polyp, again), float(change), 1000 * spent))
        for method, found in methods.items():
            vertices, distance, change, spent_ms = np.transpose(found)
            table.add_row(
                f"{name}, {method}",
                str(len(found)),
                f"{np.median(vertices):.0f}",
                f"{np.quantile(vertices, 0.9):.0f}",
                f"{distance.max():.2f}",
                f"{100 * change.max():.2f} %",
                f"{np.median(spent_ms):.0f}",
            )
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    arguments = parser.parse_args()
    Console().print(speed())
    if arguments.data is not None:
        Console().print(outlines(arguments.data))


if __name__ == "__main__":
    main()
