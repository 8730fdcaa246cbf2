"""Which confidence ranks errors best: ``python benchmarks/confidence.py DATA [--model NAME]``.

DATA holds ``kvasir-seg``, ``cvc-clinicdb`` and ``polypgen/negative``. On the frames of the
frozen validation splits (``training/splits``) it prints the Spearman correlation of each
candidate with the Dice of the mask at native size, per data set. A negative frame counts as
Dice 1 where nothing is marked and as 0 where something is. The package
uses the mean probability inside the mask.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy import ndimage, stats

from napari_microaunet.frames import FrameSequence, open_frames
from napari_microaunet.frames.masks import IGNORE
from napari_microaunet.networks.library import find_model
from napari_microaunet.prelabel.confidence import confidence
from napari_microaunet.prelabel.masks import MaskSettings, mask_from
from napari_microaunet.prelabel.predictor import Predictor

if TYPE_CHECKING:
    from napari_microaunet.prelabel.probability import ProbabilityMap

SPLITS = Path(__file__).parent.parent / "training" / "splits"
Candidate = Callable[[NDArray[np.float64], float], float]
# Certainty near the outline is looked at this many values of the map to either side.
BAND = 3


def boundary_certainty(probability: NDArray[np.float64], threshold: float) -> float:
    """Return the mean distance from the threshold around the outline, 0 to 1."""
    polyp = probability >= threshold
    if not polyp.any():
        return float(1 - probability.max())
    around = np.ones((3, 3), bool)
    wide = ndimage.binary_dilation(polyp, around, BAND)
    band = wide & ~ndimage.binary_erosion(polyp, around, BAND)
    return float(np.abs(2 * probability[band] - 1).mean())


def highest(probability: NDArray[np.float64], threshold: float) -> float:
    """Return the highest probability where something is marked, else its distance from 1."""
    peak = float(probability.max())
    return peak if peak >= threshold else 1 - peak


def expected_dice(probability: NDArray[np.float64], threshold: float) -> float:
    """Return the soft Dice of the mask and the probabilities."""
    polyp = probability >= threshold
    if not polyp.any():
        return float(1 - probability.max())
    return float(2 * probability[polyp].sum() / (probability.sum() + polyp.sum()))


CANDIDATES: dict[str, Candidate] = {
    "expected Dice": expected_dice,
    "certainty around the outline": boundary_certainty,
    "highest probability": highest,
}


def dice(mask: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float:
    """Return the Dice of one frame; 1 where both are empty."""
    counted = reference != IGNORE
    predicted, wanted = (mask > 0) & counted, (reference > 0) & counted
    total = int(predicted.sum()) + int(wanted.sum())
    return 2 * int((predicted & wanted).sum()) / total if total else 1.0


def validation(data: Path) -> Iterator[tuple[str, FrameSequence, list[int]]]:
    """Yield name, frames and indices of each frozen validation split."""
    for name, folder in (
        ("kvasir-seg", data / "kvasir-seg"),
        ("cvc-clinicdb", data / "cvc-clinicdb"),
        ("polypgen-negative", data / "polypgen" / "negative"),
    ):
        listed = set((SPLITS / f"{name}-validation.txt").read_text(encoding="utf-8").split())
        sequence = open_frames(folder)
        yield (
            name,
            sequence,
            [
                index
                for index, frame in enumerate(sequence.frames)
                if frame.name in listed or frame.name.split("/")[0] in listed
            ],
        )


def measure(
    predictor: Predictor, data: Path
) -> dict[str, tuple[list[ProbabilityMap], list[float]]]:
    """Return the maps and Dice of the validation frames, by data set."""
    settings = MaskSettings.of(predictor.model.card)
    measured = {}
    for name, sequence, indices in validation(data):
        maps, scores = [], []
        for prediction in predictor.predict(sequence, indices):
            if prediction.map is None:
                raise SystemExit(prediction.problem)
            reference = sequence.read_mask(prediction.index)
            if reference is None:
                reference = np.zeros(prediction.map.frame_shape, np.uint8)
            maps.append(prediction.map)
            scores.append(dice(mask_from(prediction.map, settings), reference))
        measured[name] = maps, scores
    return measured


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="student")
    arguments = parser.parse_args()
    model = find_model(arguments.model)
    settings = MaskSettings.of(model.card)
    measured = measure(Predictor(model), arguments.data)
    masked = ("kvasir-seg", "cvc-clinicdb")
    groups = {name: (name,) for name in masked} | {"both": masked, "all": tuple(measured)}

    table = Table("candidate", *(f"{name} (n)" for name in groups), title=model.name)
    rows = {
        name: [
            [candidate(m.values / 255, settings.threshold) for m in measured[part][0]]
            for part in measured
        ]
        for name, candidate in CANDIDATES.items()
    }
    rows["mean probability inside (ours)"] = [
        [confidence(m, mask_from(m, settings), settings.threshold) for m in measured[part][0]]
        for part in measured
    ]
    order = list(measured)
    for name, by_part in rows.items():
        cells = []
        for parts in groups.values():
            trust = [value for part in parts for value in by_part[order.index(part)]]
            scores = [score for part in parts for score in measured[part][1]]
            cells.append(f"{stats.spearmanr(trust, scores).statistic:.3f} ({len(scores)})")
        table.add_row(name, *cells)
    for name, (_, scores) in measured.items():
        Console().print(f"{name}: mean Dice {np.mean(scores):.3f} over {len(scores)} frames")
    Console().print(table)


if __name__ == "__main__":
    main()
