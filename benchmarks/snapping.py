"""What snapping, scissors and clicks put right: ``python benchmarks/snapping.py DATA``.

DATA holds ``kvasir-seg`` and ``cvc-clinicdb``. Everything is measured on frames of the frozen
validation splits (``training/splits``), spread evenly over them:

- snapping: the largest polyp of the expert's mask is disturbed on purpose and snapped back,
  by the package and by two other methods (``snapping_rivals.py``);
- scissors: a loop through a few points of the expert's outline, against straight lines;
- clicks: from the student's mask, clicks in the middle of the largest error, against a disc
  and a random walker.

Times are of the processor: other work on the machine does not lengthen them.

``--fit`` prints the weights of `napari_microaunet.editing` instead, fitted to frames of the
training splits, on which everything else was chosen, too.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import snapping_rivals as rivals
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table
from scipy import ndimage
from scipy.optimize import minimize
from scipy.special import expit, log_softmax
from skimage.draw import polygon2mask
from skimage.measure import find_contours

from napari_microaunet.editing import clicks, snapping
from napari_microaunet.editing.band import unroll
from napari_microaunet.editing.labels import box_of, filled, parts_of
from napari_microaunet.editing.scissors import EdgePaths, fill_loop
from napari_microaunet.frames import open_frames
from napari_microaunet.networks.library import find_model
from napari_microaunet.prelabel.masks import MaskSettings, mask_from
from napari_microaunet.prelabel.predictor import Predictor

Region = NDArray[np.bool_]
Bytes = NDArray[np.uint8]

SPLITS = Path(__file__).parent.parent / "training" / "splits"
SETS = ("kvasir-seg", "cvc-clinicdb")
# How far outlines are disturbed, as shares of the radius of a disc as large as the polyp.
AMOUNTS = (0.06, 0.12, 0.2)
KINDS = ("dilated", "eroded", "shifted", "bumps", "few vertices")
LOOPS = (5, 8, 12)
SHOWN_CLICKS = (0, 1, 2, 3, 5)
# Disturbances of polyps of fewer pixels are less than a pixel.
SMALLEST = 200
# Fitting: the band, in disturbances; steps that a band must have; rows of each; how exactly, in
# steps, an expert draws; clicks on each frame; cells of each; weight decay.
BAND_FITTED = 1.75
STEPS_FITTED = 9
MOST_STEPS = 31
NO_CHANCE = 1e6
ROWS_FITTED = 25
EDGE_WIDTH = 1.5
CLICKS = 5
CELLS_FITTED = 300
DECAY = 1e-4


@dataclass(frozen=True, eq=False)
class Case:
    """A frame, its expert mask, the student's probabilities at native size and mask."""

    name: str
    frame: Bytes
    polyp: Region
    probability: Bytes
    student: Region

    def around_largest(self) -> Case | None:
        """Cut out the largest polyp, alone; None where it is too small to be disturbed."""
        polyp = largest_part(self.polyp)
        box = box_of(polyp, round(1.5 * radius_of(polyp)))
        if box is None or np.count_nonzero(polyp) < SMALLEST:
            return None
        return Case(
            self.name, self.frame[box], polyp[box], self.probability[box], self.student[box]
        )


Click = tuple[int, int]
SnapMethod = Callable[[Case, Region], Region]
ClickMethod = Callable[[Case, Region, Click, bool], Region]


def cases(data: Path, split: str, count: int) -> Iterator[Case]:
    """Go through `count` frames of each data set, evenly spread over a frozen split."""
    predictor = Predictor(find_model("student"))
    settings = MaskSettings.of(predictor.model.card)
    for name in SETS:
        listed = (SPLITS / f"{name}-{split}.txt").read_text(encoding="utf-8").split()
        chosen = {listed[at] for at in np.linspace(0, len(listed) - 1, count).astype(int)}
        sequence = open_frames(data / name)
        for index, frame in enumerate(sequence.frames):
            if frame.name not in chosen:
                continue
            pixels, mask = sequence.read(index), sequence.read_mask(index)
            assert mask is not None, frame.name  # noqa: S101
            field = sequence.field_of_view(index)
            found = predictor.predict_frame(pixels, field)
            probability = np.zeros(mask.shape, np.uint8)
            probability[field.top : field.bottom, field.left : field.right] = np.asarray(
                Image.fromarray(found.values).resize(
                    (field.right - field.left, field.bottom - field.top),
                    Image.Resampling.BILINEAR,
                )
            )
            yield Case(name, pixels, mask > 0, probability, mask_from(found, settings) > 0)


def dice(one: Region, other: Region) -> float:
    """Return the Dice of two masks, 1 where both are empty."""
    total = np.count_nonzero(one) + np.count_nonzero(other)
    return 2 * np.count_nonzero(one & other) / total if total else 1.0


def outline_distance(one: Region, other: Region) -> float:
    """Return the mean distance between two outlines in pixels, both ways."""
    box = box_of(one | other, 1)
    if box is None or not one.any() or not other.any():
        return float(np.hypot(*one.shape))
    edges = [
        part & ~ndimage.binary_erosion(part, border_value=1) for part in (one[box], other[box])
    ]
    ways = [
        ndimage.distance_transform_edt(~edges[1])[edges[0]].mean(),
        ndimage.distance_transform_edt(~edges[0])[edges[1]].mean(),
    ]
    return float(np.mean(ways))


def largest_part(region: Region) -> Region:
    """Keep the largest connected part, with its holes filled."""
    pieces, sizes = parts_of(region)
    return filled(pieces == sizes.argmax() + 1)


def radius_of(region: Region) -> float:
    """Return the radius of a disc as large as a region."""
    return float(np.sqrt(np.count_nonzero(region) / np.pi))


def disturbed(kind: str, polyp: Region, amount: float, random: np.random.Generator) -> Region:
    """Disturb a polyp's outline by `amount` pixels, in one of `KINDS`."""
    signed = ndimage.distance_transform_edt(~polyp) - ndimage.distance_transform_edt(polyp)
    match kind:
        case "dilated":
            wrong = signed <= amount
        case "eroded":
            wrong = signed <= -amount
        case "shifted":
            # Where the way is along the outline, a shift does nothing: half as far again.
            way = random.uniform(0, 2 * np.pi)
            wrong = ndimage.shift(
                polyp, 1.5 * amount * np.array([np.sin(way), np.cos(way)]), order=0
            )
        case "bumps":
            bumps = ndimage.gaussian_filter(
                random.standard_normal(polyp.shape), max(2.0, 0.35 * radius_of(polyp))
            )
            wrong = signed <= 1.25 * amount * np.clip(bumps / bumps.std(), -2, 2)
        case _:
            # A circle loses about so many vertices' worth between its chords.
            count = max(4, round(0.9 * radius_of(polyp) / amount + 1))
            wrong = polygon2mask(polyp.shape, outline_points(polyp, count, random))
    return largest_part(wrong) if wrong.any() else polyp


def outline_points(polyp: Region, count: int, random: np.random.Generator) -> NDArray[np.intp]:
    """Place points evenly along the outline, each a pixel or so beside it, as a hand does."""
    outline = max(find_contours(np.pad(polyp, 1).astype(float), 0.5), key=len) - 1
    at = (random.uniform() + np.arange(count)) * len(outline) / count
    points = outline[at.astype(int) % len(outline)] + random.normal(0, 1.5, (count, 2))
    last = np.subtract(polyp.shape, 1)
    return np.asarray(np.rint(points).clip(0, last), np.intp)


class Outcome(NamedTuple):
    """What one attempt left of an error, and how long it took."""

    dice_error_before: float
    dice_error_after: float
    distance_before: float
    distance_after: float
    seconds: float


def with_band(function: Callable[[Region, Bytes, float], Region]) -> SnapMethod:
    """Call a rival with the band that the package takes by default."""
    return lambda case, drawn: function(
        drawn, case.frame, snapping.default_band(int(np.count_nonzero(drawn)))
    )


SNAP_METHODS: dict[str, SnapMethod] = {
    "closed path (ours)": lambda case, drawn: (
        snapping.snap(drawn.astype(np.uint8), 1, case.frame) > 0
    ),
    "with the student's map (ours)": lambda case, drawn: (
        snapping.snap(drawn.astype(np.uint8), 1, case.frame, probability=case.probability) > 0
    ),
    "graph cut": with_band(rivals.graph_cut),
    "geodesic active contour": with_band(rivals.geodesic_contour),
}


def measure_snapping(chosen: list[Case]) -> Iterator[Table]:
    """Disturb and snap; make a table of each data set."""
    random = np.random.default_rng(0)
    outcomes: dict[tuple[str, str], dict[tuple[float, str], list[Outcome]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for case in filter(None, (case.around_largest() for case in chosen)):
        polyp = case.polyp
        for amount, kind in [(0.0, "as it was"), *((a, k) for a in AMOUNTS for k in KINDS)]:
            drawn = polyp
            if amount:
                drawn = disturbed(kind, polyp, amount * radius_of(polyp), random)
            before = 1 - dice(drawn, polyp), outline_distance(drawn, polyp)
            for method, snap in SNAP_METHODS.items():
                began = time.process_time()
                snapped = snap(case, drawn)
                seconds = time.process_time() - began
                outcome = Outcome(
                    before[0],
                    1 - dice(snapped, polyp),
                    before[1],
                    outline_distance(snapped, polyp),
                    seconds,
                )
                outcomes[case.name, method][amount, kind].append(outcome)
    for name in SETS:
        table = Table(
            "method",
            *(f"{amount:.0%} of the radius" for amount in AMOUNTS),
            "made worse",
            *KINDS,
            "CPU ms: median, most",
            "undisturbed",
            title=f"{name}: removed of the disturbance, by Dice / by mean distance of outlines",
        )
        for method in SNAP_METHODS:
            found = outcomes[name, method]
            untouched = found.pop((0.0, "as it was"))
            everything = [one for cell in found.values() for one in cell]
            worse = np.mean([one.dice_error_after > one.dice_error_before for one in everything])
            times = [1000 * one.seconds for one in everything]
            table.add_row(
                method,
                *(removed(found, amount=amount) for amount in AMOUNTS),
                f"{worse:.0%}",
                *(removed(found, kind=kind) for kind in KINDS),
                f"{np.median(times):.0f}, {np.max(times):.0f}",
                f"Dice {1 - np.mean([one.dice_error_after for one in untouched]):.3f}",
            )
        yield table


def removed(
    found: dict[tuple[float, str], list[Outcome]],
    amount: float | None = None,
    kind: str | None = None,
) -> str:
    """Say which share of the error is gone, as Dice / distance."""
    chosen = np.array(
        [
            one
            for (of_amount, of_kind), cell in found.items()
            if amount in (None, of_amount) and kind in (None, of_kind)
            for one in cell
        ]
    ).mean(axis=0)
    return f"{1 - chosen[1] / chosen[0]:.0%} / {1 - chosen[3] / chosen[2]:.0%}"


def measure_scissors(chosen: list[Case]) -> Iterator[Table]:
    """Cut polyps out by few clicks on their outline."""
    random = np.random.default_rng(0)
    scores: dict[tuple[str, int], list[tuple[float, float, float, float]]] = defaultdict(list)
    times: dict[str, list[float]] = defaultdict(list)
    for case in chosen:
        polyp = largest_part(case.polyp)
        empty = np.zeros(polyp.shape, np.uint8)
        began = time.process_time()
        paths = EdgePaths(case.frame)
        times["frame"].append(time.process_time() - began)
        for count in LOOPS:
            points = outline_points(polyp, count, random)
            ways = []
            for start, end in zip(points, np.roll(points, -1, axis=0), strict=True):
                for move in ("click", "move"):
                    began = time.process_time()
                    way = paths.path(tuple(start), tuple(end))
                    times[move].append(time.process_time() - began)
                ways.append(way)
            loop = fill_loop(empty, 1, np.concatenate(ways)) > 0
            straight = fill_loop(empty, 1, points) > 0
            scores[case.name, count].append(
                (
                    dice(straight, polyp),
                    dice(loop, polyp),
                    outline_distance(straight, polyp),
                    outline_distance(loop, polyp),
                )
            )
    table = Table(
        "data set, clicks",
        "Dice: straight lines",
        "scissors",
        "pixels from the outline: straight lines",
        "scissors",
        title="Scissors; CPU ms for a "
        + ", ".join(
            f"{what}: {1000 * np.median(spent):.1f}, at most {1000 * np.max(spent):.0f}"
            for what, spent in times.items()
        ),
    )
    for (name, count), rows in sorted(scores.items()):
        by_line, by_edge, line_distance, edge_distance = np.mean(rows, axis=0)
        table.add_row(
            f"{name}, {count}",
            f"{by_line:.3f}",
            f"{by_edge:.3f}",
            f"{line_distance:.1f}",
            f"{edge_distance:.1f}",
        )
    yield table


def error_to_click(drawn: Region, polyp: Region) -> tuple[tuple[int, int], bool] | None:
    """Find the pixel deepest inside the largest error, and whether it belongs to the polyp."""
    pieces, sizes = parts_of(drawn != polyp)
    if not sizes.size:
        return None
    error = pieces == sizes.argmax() + 1
    box = box_of(error)
    assert box is not None  # noqa: S101
    depth = ndimage.distance_transform_edt(np.pad(error[box], 1))[1:-1, 1:-1]
    row, column = np.unravel_index(depth.argmax(), depth.shape)
    click = int(row) + box[0].start, int(column) + box[1].start
    return click, bool(polyp[click])


def refined(case: Case, drawn: Region, click: Click, positive: bool, *, model: bool) -> Region:
    """Refine by one click."""
    mask = clicks.refine(
        drawn.astype(np.uint8),
        1,
        case.frame,
        case.probability if model else None,
        [click] if positive else [],
        [] if positive else [click],
    )
    return mask > 0


CLICK_METHODS: dict[str, ClickMethod] = {
    "with the student's map (ours)": partial(refined, model=True),
    "image alone (ours)": partial(refined, model=False),
    "random walker": lambda case, drawn, click, positive: rivals.walker_click(
        drawn, case.frame, click, positive=positive
    ),
    "disc": lambda _, drawn, click, positive: rivals.disc_click(drawn, click, positive=positive),
}


def measure_clicks(chosen: list[Case]) -> Iterator[Table]:
    """Click into the largest errors of the student's masks and of empty masks."""
    for start in ("the student's mask", "an empty mask"):
        table = Table(
            "data set, method",
            *(f"{count} clicks" for count in SHOWN_CLICKS),
            "first click made worse",
            "CPU ms: median, most",
            title=f"Mean Dice after clicks, from {start}",
        )
        for name in SETS:
            for method, click_by in CLICK_METHODS.items():
                scores, times = [], []
                for case in chosen:
                    if case.name != name:
                        continue
                    drawn = case.student if start.startswith("the") else np.zeros_like(case.polyp)
                    row = [dice(drawn, case.polyp)]
                    for _ in range(max(SHOWN_CLICKS)):
                        error = error_to_click(drawn, case.polyp)
                        if error is not None:
                            began = time.process_time()
                            drawn = click_by(case, drawn, *error)
                            times.append(1000 * (time.process_time() - began))
                        row.append(dice(drawn, case.polyp))
                    scores.append(row)
                means = np.mean(scores, axis=0)
                worse = np.mean([row[1] < row[0] for row in scores])
                table.add_row(
                    f"{name}, {method}",
                    *(f"{means[count]:.3f}" for count in SHOWN_CLICKS),
                    f"{worse:.0%}",
                    f"{np.median(times):.0f}, {np.max(times):.0f}",
                )
        yield table


def fit_snapping(chosen: list[Case], *, model: bool) -> list[float]:
    """Fit the weights of `snapping`: which step across the band is the expert's edge."""
    random = np.random.default_rng(1)
    seen, targets, beyond = [], [], []
    for case in filter(None, (case.around_largest() for case in chosen)):
        polyp = case.polyp
        signed = ndimage.distance_transform_edt(~polyp) - ndimage.distance_transform_edt(polyp)
        for amount, kind in ((a, k) for a in AMOUNTS for k in KINDS):
            pixels = amount * radius_of(polyp)
            drawn = disturbed(kind, polyp, pixels, random)
            band = unroll(
                drawn, case.frame, BAND_FITTED * pixels, case.probability if model else None
            )
            if len(band.offsets) < STEPS_FITTED:
                continue
            places = np.moveaxis(band.places(), 2, 0)
            away = np.abs(ndimage.map_coordinates(signed, places, order=1, mode="nearest"))
            step = band.offsets[1] - band.offsets[0]
            met = np.flatnonzero(away.min(axis=1) < step)
            rows = random.choice(met, min(ROWS_FITTED, len(met)), replace=False)
            nearness = np.exp(-0.5 * (away[rows] / step / EDGE_WIDTH) ** 2)
            # Narrow bands have fewer steps; what is missing has no chance.
            missing = [(0, 0), (0, MOST_STEPS - len(band.offsets))]
            seen.append(np.pad(band.evidence[rows], [*missing, (0, 0)]))
            targets.append(np.pad(nearness / nearness.sum(axis=1, keepdims=True), missing))
            beyond.append(np.pad(np.zeros(nearness.shape), missing, constant_values=-NO_CHANCE))
    evidence, target = np.concatenate(seen).astype(float), np.concatenate(targets)
    offset = np.concatenate(beyond)
    spread = evidence.reshape(-1, evidence.shape[2]).std(axis=0)
    evidence /= spread

    def loss(weights: NDArray[np.floating]) -> tuple[float, NDArray[np.floating]]:
        chance = log_softmax(evidence @ weights + offset, axis=1)
        slope = np.einsum("nm,nmk->k", np.exp(chance) - target, evidence) / len(target)
        return (
            float(-(target * chance).sum(axis=1).mean() + DECAY * weights @ weights),
            slope + 2 * DECAY * weights,
        )

    return list(minimize(loss, np.zeros(len(spread)), jac=True, method="L-BFGS-B").x / spread)


def fit_clicks(chosen: list[Case], *, model: bool) -> list[float]:
    """Fit the weights of `clicks`: which cells belong to the error that was clicked at."""
    random = np.random.default_rng(1)
    seen, wanted = [], []
    for case, empty in ((case, empty) for case in chosen for empty in (False, True)):
        drawn = np.zeros_like(case.polyp) if empty else case.student
        # Half as many from nothing, which is rarer.
        for _ in range(CLICKS // 2 if empty else CLICKS):
            error = error_to_click(drawn, case.polyp)
            if error is None:
                break
            click, positive = error
            around = clicks.look_around(
                drawn == positive,
                case.frame,
                case.probability if model else None,
                click,
                positive=positive,
            )
            shape = around.right.shape
            share = Image.fromarray((case.polyp[around.box] == positive).astype(np.uint8) * 255)
            belongs = np.asarray(share.resize((shape[1], shape[0]), Image.Resampling.BOX)) > 127
            cells = np.flatnonzero(~around.right)
            cells = random.choice(cells, min(CELLS_FITTED, len(cells)), replace=False)
            seen.append(around.evidence.reshape(around.right.size, -1)[cells])
            wanted.append(belongs.ravel()[cells])
            drawn = refined(case, drawn, click, positive, model=model)
    evidence = np.concatenate(seen)
    evidence = np.concatenate([evidence, np.ones((len(evidence), 1))], axis=1)
    sign = np.where(np.concatenate(wanted), 1.0, -1.0)
    spread = np.append(evidence[:, :-1].std(axis=0), 1.0)
    evidence /= spread

    def loss(weights: NDArray[np.floating]) -> tuple[float, NDArray[np.floating]]:
        margin = sign * (evidence @ weights)
        slope = -(sign * expit(-margin)) @ evidence / len(sign)
        return (
            float(np.logaddexp(0, -margin).mean() + DECAY * weights @ weights),
            slope + 2 * DECAY * weights,
        )

    return list(minimize(loss, np.zeros(len(spread)), jac=True, method="L-BFGS-B").x / spread)


def main() -> None:
    """Measure and print, or fit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--frames", type=int, default=40, help="of each data set")
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--only", choices=MEASURES, default=None)
    arguments = parser.parse_args()
    console = Console(width=200)
    chosen = list(
        cases(arguments.data, "training" if arguments.fit else "validation", arguments.frames)
    )
    if arguments.fit:
        for title, fit in (("snapping", fit_snapping), ("clicks", fit_clicks)):
            for model in (False, True):
                weights = ", ".join(f"{weight:.3f}" for weight in fit(chosen, model=model))
                console.print(f"{title}, {'with' if model else 'without'} a map: ({weights})")
        return
    console.print(f"{len(chosen)} validation frames")
    for title, measure in MEASURES.items():
        if arguments.only in (None, title):
            for table in measure(chosen):
                console.print(table)


MEASURES = {"snapping": measure_snapping, "scissors": measure_scissors, "clicks": measure_clicks}

if __name__ == "__main__":
    main()
