"""How far masks can be carried: ``python benchmarks/propagation.py DATA [--model NAME]``.

DATA holds ``cvc-clinicdb`` and ``polypgen/negative``. On the sequences of the frozen validation
split of CVC-ClinicDB (``--split training`` for those that everything was chosen on) it carries
the expert's mask of every fifth frame ten frames ahead and back, without a stop, and prints the
mean Dice after 1, 5 and 10 frames beside that of copying the mask, of optical flow alone and of
the model alone; the same with a second key frame at the end; how the score foretells the Dice; what
a frame costs; on rendered clips at 25 frames a second; and how often shot cuts are seen.

CVC-ClinicDB is thinned out to about a frame a second: from one frame to the next, a polyp
moves by a third of the frame's width at times.
"""

from __future__ import annotations

import argparse
import re
import time
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table
from scipy import ndimage, stats
from skimage.registration import optical_flow_ilk

from napari_microaunet.curation.groups import stated_groups
from napari_microaunet.editing.propagation import LEAST_SCORE, propagate
from napari_microaunet.editing.shot_cuts import CUT, look, picture_change
from napari_microaunet.frames import FieldOfView, open_frames
from napari_microaunet.frames.rendered import render_clip
from napari_microaunet.networks.library import find_model
from napari_microaunet.prelabel.masks import MaskSettings, at_native_size, mask_from
from napari_microaunet.prelabel.predictor import Predictor
from napari_microaunet.prelabel.probability import least_value

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from napari_microaunet.editing.shot_cuts import Look

    Pixels = NDArray[np.uint8]

SPLITS = Path(__file__).parent.parent / "training" / "splits"
DISTANCES = (1, 5, 10)
STRIDE = 5
# Longer side, in pixels, and local contrast (standard deviation of a Gauss window) at which
# optical flow alone did best on the training sequences.
FLOW_SIDE, FLOW_WINDOW = 192, 12
LARGE = (1280, 1024)


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames with true masks, the model's maps and its masks."""

    frames: list[Pixels]
    masks: list[Pixels]
    maps: list[Pixels]
    predicted: list[Pixels]

    def part(self, indices: Sequence[int]) -> Clip:
        """Take some frames, in this order."""
        return Clip(
            [self.frames[i] for i in indices],
            [self.masks[i] for i in indices],
            [self.maps[i] for i in indices],
            [self.predicted[i] for i in indices],
        )


def dice(one: Pixels, other: Pixels) -> float:
    """Return the Dice of the polyps of two masks; 1 where both are empty."""
    total = int((one > 0).sum()) + int((other > 0).sum())
    return 2 * int(((one > 0) & (other > 0)).sum()) / total if total else 1.0


def recorded_clips(data: Path, split: str, predictor: Predictor) -> list[Clip]:
    """Read the sequences of one split of CVC-ClinicDB and run the model on them."""
    sequence = open_frames(data / "cvc-clinicdb")
    listed = (SPLITS / f"cvc-clinicdb-{split}.txt").read_text(encoding="utf-8").split()
    by_sequence: dict[str, list[int]] = defaultdict(list)
    for index, group in enumerate(stated_groups(sequence)):
        if sequence.frames[index].name in listed:
            by_sequence[group].append(index)
    settings = MaskSettings.of(predictor.model.card)
    clips = []
    for indices in by_sequence.values():
        frames = [sequence.read(index) for index in indices]
        found = [
            predictor.predict_frame(frame, sequence.field_of_view(index))
            for index, frame in zip(indices, frames, strict=True)
        ]
        masks = [sequence.read_mask(index) for index in indices]
        clips.append(
            Clip(
                frames,
                [(mask > 0).astype(np.uint8) for mask in masks if mask is not None],
                [at_native_size(one) for one in found],
                [mask_from(one, settings) for one in found],
            )
        )
    return clips


def runs(clips: Sequence[Clip], length: int) -> Iterator[Clip]:
    """Yield stretches of so many frames more than one, ahead and back; shorter at the ends."""
    for clip in clips:
        count = len(clip.frames)
        for start in range(0, count, STRIDE):
            for indices in (
                range(start, min(start + length + 1, count)),
                range(start, max(start - length - 1, -1), -1),
            ):
                if len(indices) > 1:
                    yield clip.part(indices)


def carried(
    run: Clip, level: int, with_map: bool, keys: Sequence[int] = (0,)
) -> dict[int, tuple[Pixels, float]]:
    """Carry the masks of key frames to all other frames; return masks and scores."""
    done = propagate(
        run.frames.__getitem__,
        {key: run.masks[key] for key in keys},
        range(len(run.frames)),
        run.maps.__getitem__ if with_map else None,
        level=level,
        # To the end, so that every way is compared on the same frames.
        least_score=0.0,
        stop_at_cuts=False,
    )
    return {one.index: (one.mask, one.score) for one in done if one.mask is not None}


def flowed(run: Clip) -> list[Pixels]:
    """Carry the first mask by optical flow alone, from frame to frame, its places added up."""
    height, width = run.masks[0].shape
    shrink = FLOW_SIDE / max(height, width)
    size = round(width * shrink), round(height * shrink)

    def brightness(frame: Pixels) -> NDArray[np.float32]:
        small = Image.fromarray(frame).convert("L").resize(size, Image.Resampling.BOX)
        gray = np.asarray(small, np.float32) / 255
        mean = ndimage.gaussian_filter(gray, FLOW_WINDOW)
        spread = np.sqrt(ndimage.gaussian_filter((gray - mean) ** 2, FLOW_WINDOW))
        return np.asarray((gray - mean) / (spread + 0.03))

    rows, columns = np.mgrid[: size[1], : size[0]].astype(np.float32)
    at = [rows, columns]
    masks = [run.masks[0]]
    for before, frame in pairwise(run.frames):
        down, across = optical_flow_ilk(brightness(frame), brightness(before), radius=9, num_warp=5)
        moved = rows + down, columns + across
        at = [ndimage.map_coordinates(part, moved, order=1, mode="nearest") for part in at]
        native = [
            np.asarray(Image.fromarray(part).resize((width, height), Image.Resampling.BILINEAR))
            for part in at
        ]
        places = [(part + 0.5) / shrink - 0.5 for part in native]
        first = run.masks[0].astype(np.float32)
        masks.append((ndimage.map_coordinates(first, places, order=1) > 0.5).astype(np.uint8))
    return masks


def compare(
    clips: Sequence[Clip], level: int, title: str
) -> tuple[Table, list[float], list[float]]:
    """Tabulate Dice by distance; return the scores and Dice of all frames, too."""
    found: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    scores, dices = [], []
    for run in runs(clips, max(DISTANCES)):
        both = len(run.frames) > max(DISTANCES)
        with_map, without = (carried(run, level, use) for use in (True, False))
        ways = {
            "propagated": {index: mask for index, (mask, _) in with_map.items()},
            "the same without the model": {index: mask for index, (mask, _) in without.items()},
            "optical flow alone": dict(enumerate(flowed(run))),
            "mask copied": dict.fromkeys(range(len(run.frames)), run.masks[0]),
            "model alone": dict(enumerate(run.predicted)),
        }
        for index, (mask, score) in with_map.items():
            scores.append(score)
            dices.append(dice(mask, run.masks[index]))
        if both:
            ends = carried(run, level, True, (0, max(DISTANCES)))
            ways["between two key frames"] = {i: mask for i, (mask, _) in ends.items()}
        for name, masks in ways.items():
            for distance in DISTANCES:
                if distance in masks and distance < len(run.frames):
                    found[name][distance].append(dice(masks[distance], run.masks[distance]))
    table = Table(title, *(f"after {d}: mean (median), runs" for d in DISTANCES))
    for name, by_distance in found.items():
        cells = []
        for distance in DISTANCES:
            some = by_distance[distance]
            cell = f"{np.mean(some):.3f} ({np.median(some):.3f}), {len(some)}" if some else ""
            cells.append(cell)
        table.add_row(name, *cells)
    return table, scores, dices


def foretold(scores: Sequence[float], dices: Sequence[float]) -> Table:
    """Tabulate what Dice frames have, by their score."""
    score, found = np.array(scores), np.array(dices)
    rank = stats.spearmanr(score, found).statistic
    table = Table(
        f"score (rank correlation with Dice {rank:.2f})", "frames", "mean Dice", "under 0.5"
    )
    for low, high in pairwise((0.0, LEAST_SCORE, 0.6, 0.7, 0.8, 0.9, 1.01)):
        some = found[(score >= low) & (score < high)]
        if len(some):
            table.add_row(
                f"{low:.2f} to {min(high, 1):.2f}",
                str(len(some)),
                f"{some.mean():.3f}",
                f"{(some < 0.5).mean():.0%}",
            )
    return table


def costs(clip: Clip, level: int) -> Table:
    """Tabulate the processor time of a frame at native size and at 1280 x 1024."""

    def enlarged(pixels: Pixels) -> Pixels:
        way = Image.Resampling.NEAREST if pixels.max() <= 1 else Image.Resampling.BILINEAR
        return np.asarray(Image.fromarray(pixels).resize(LARGE, way))

    large = Clip(
        [enlarged(one) for one in clip.frames],
        [enlarged(one) for one in clip.masks],
        [enlarged(one) for one in clip.maps],
        [],
    )
    table = Table("cost of a frame", "processor time", "on the clock")
    carried(clip.part(range(2)), level, True)  # what is imported late
    for name, some in (("384 x 288", clip), ("1280 x 1024", large)):
        clock, processor = time.perf_counter(), time.process_time()
        count = len(carried(some, level, True))
        table.add_row(
            name,
            f"{1000 * (time.process_time() - processor) / count:.0f} ms",
            f"{1000 * (time.perf_counter() - clock) / count:.0f} ms",
        )
    return table


def rendered_clips(predictor: Predictor) -> list[Clip]:
    """Render clips at 25 frames a second and run the model on them."""
    settings = MaskSettings.of(predictor.model.card)
    clips = []
    for seed in range(5):
        pairs = list(render_clip(seed, 21, 192, 240))
        field = FieldOfView(0, 0, 192, 240)
        found = [predictor.predict_frame(frame, field) for frame, _ in pairs]
        clips.append(
            Clip(
                [frame for frame, _ in pairs],
                [(mask > 0).astype(np.uint8) for _, mask in pairs],
                [at_native_size(one) for one in found],
                [mask_from(one, settings) for one in found],
            )
        )
    return clips


def cuts(data: Path) -> Table:
    """Tabulate how often neighbours and joints of recorded sequences are taken for cuts."""

    def number(path: Path) -> list[int]:
        return [int(digits) for digits in re.findall(r"\d+", path.stem)]

    looks: dict[str, dict[str, list[Look]]] = {"CVC-ClinicDB": defaultdict(list)}
    sequence = open_frames(data / "cvc-clinicdb")
    for index, group in enumerate(stated_groups(sequence)):
        looks["CVC-ClinicDB"][group].append(look(sequence.read(index)))
    looks["PolypGen negatives"] = {
        folder.name: [
            look(np.asarray(Image.open(path).convert("RGB")))
            for path in sorted(folder.iterdir(), key=number)
        ]
        for folder in sorted((data / "polypgen" / "negative").iterdir())
    }
    table = Table("shot cuts", "neighbours taken for one", "joints of sequences found")
    for name, sequences in looks.items():
        inside = [picture_change(a, b) for one in sequences.values() for a, b in pairwise(one)]
        joints = [
            picture_change(one[-1], other[0])
            for one in sequences.values()
            for other in sequences.values()
            if one is not other
        ]
        table.add_row(
            name,
            f"{np.mean(np.array(inside) > CUT):.1%} of {len(inside)}",
            f"{np.mean(np.array(joints) > CUT):.0%} of {len(joints)}",
        )
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="student")
    parser.add_argument("--split", choices=("validation", "training"), default="validation")
    arguments = parser.parse_args()
    predictor = Predictor(find_model(arguments.model))
    level = least_value(predictor.model.card.threshold)
    console = Console(width=120)

    clips = recorded_clips(arguments.data, arguments.split, predictor)
    table, scores, dices = compare(clips, level, f"CVC-ClinicDB, {arguments.split}")
    console.print(table)
    console.print(foretold(scores, dices))
    console.print(compare(rendered_clips(predictor), level, "rendered, 25 frames a second")[0])
    console.print(costs(max(clips, key=lambda clip: len(clip.frames)), level))
    console.print(cuts(arguments.data))


if __name__ == "__main__":
    main()
