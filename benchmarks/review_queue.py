"""What the review queue is worth and costs: ``python benchmarks/review_queue.py DATA``.

DATA holds ``cvc-clinicdb`` and ``kvasir-seg``. It prints how often the expert masks of
CVC-ClinicDB, which are right, have a finding of the temporal lint, and how often the masks of
the student have one, and their Dice with and without; how the disagreement of student and
teacher ranks the frames of the frozen validation splits by the Dice of the student, beside
the student's confidence; and the time that each order takes for 20,000 frames.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import ndimage, stats

from napari_microaunet.curation.looks import clips, look_over
from napari_microaunet.curation.queue import ORDERS, Clues, disagreement, order_frames, select
from napari_microaunet.curation.session import ReviewState
from napari_microaunet.curation.temporal import (
    Finding,
    FindingKind,
    MaskTrace,
    by_frame,
    find_lapses,
)
from napari_microaunet.frames import open_frames
from napari_microaunet.networks.library import find_model
from napari_microaunet.prelabel.confidence import confidence
from napari_microaunet.prelabel.masks import MaskSettings, mask_from
from napari_microaunet.prelabel.predictor import Predictor
from napari_microaunet.prelabel.probability import least_value

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Mask = NDArray[np.uint8]

SPLITS = Path(__file__).parent.parent / "training" / "splits"
QUEUE_LENGTH = 20_000


def dice(one: Mask, other: Mask) -> float:
    """Return the Dice of the polyps of two masks; 1 where both are empty."""
    total = int((one > 0).sum()) + int((other > 0).sum())
    return 2 * int(((one > 0) & (other > 0)).sum()) / total if total else 1.0


def trace(masks: Sequence[Mask]) -> MaskTrace:
    """Trace masks without a session."""
    centres = [
        np.argwhere(mask > 0).mean(axis=0) / np.hypot(*mask.shape) if mask.any() else (np.nan,) * 2
        for mask in masks
    ]
    counts = [ndimage.label(mask > 0)[1] for mask in masks]
    areas = [(mask > 0).mean() for mask in masks]
    return MaskTrace(np.array(areas), np.array(centres), np.array(counts, np.int64))


def lint(data: Path) -> Table:
    """Tabulate how often masks have a finding."""
    sequence = open_frames(data / "cvc-clinicdb")
    looks = list(look_over(sequence))
    numbers = clips(sequence, looks)
    student = find_model("student")
    settings = MaskSettings.of(student.card)
    found = Predictor(student).predict(sequence)
    predicted = [mask_from(one.map, settings) for one in found if one.map is not None]
    read = [sequence.read_mask(index) for index in range(len(sequence))]
    expert = [(mask > 0).astype(np.uint8) for mask in read if mask is not None]
    kinds = [kind.value for kind in FindingKind]
    table = Table("CVC-ClinicDB", *kinds, "any", "Dice with / without a finding")
    for name, masks in (("expert masks", expert), ("student's masks", predicted)):
        findings = find_lapses(trace(masks), numbers, looks)
        counts = Counter(finding.kind.value for finding in findings)
        with_finding = by_frame(findings)
        scores = np.array([dice(*pair) for pair in zip(masks, expert, strict=True)])
        some = np.array([index in with_finding for index in range(len(masks))])
        table.add_row(
            name,
            *(f"{counts[kind] / len(masks):.1%}" for kind in kinds),
            f"{some.mean():.1%}",
            f"{scores[some].mean():.3f} / {scores[~some].mean():.3f}",
        )
    return table


def ranking(data: Path) -> Table:
    """Tabulate how doubt ranks frames by their Dice."""
    models = [find_model(name) for name in ("student", "teacher")]
    predictors = [Predictor(model) for model in models]
    settings = MaskSettings.of(models[0].card)
    levels = least_value(models[0].card.threshold), least_value(models[1].card.threshold)
    table = Table(
        "rank correlation with the student's Dice", "frames", "disagreement", "confidence"
    )
    for name in ("kvasir-seg", "cvc-clinicdb"):
        listed = set((SPLITS / f"{name}-validation.txt").read_text(encoding="utf-8").split())
        sequence = open_frames(data / name)
        scores, differences, trusts = [], [], []
        for index, frame in enumerate(sequence.frames):
            if frame.name not in listed:
                continue
            pixels, field = sequence.read(index), sequence.field_of_view(index)
            one, other = (predictor.predict_frame(pixels, field) for predictor in predictors)
            reference = sequence.read_mask(index)
            if reference is None:
                raise SystemExit(f"frame {frame.name} has no mask")
            mask = mask_from(one, settings)
            scores.append(dice(mask, reference))
            differences.append(-disagreement(one.values, other.values, levels))
            trusts.append(confidence(one, mask, settings.threshold))
        ranks = [
            f"{stats.spearmanr(doubt, scores).statistic:.2f}" for doubt in (differences, trusts)
        ]
        table.add_row(name, str(len(scores)), *ranks)
    return table


@dataclass(frozen=True)
class Status:
    """A frame of a queue."""

    index: int
    name: str
    state: ReviewState
    confidence: float | None
    disagreement: float | None
    note: str
    reason: str | None


def costs() -> Table:
    """Tabulate the time of each order and of the filters."""
    random = np.random.default_rng(1)
    states = list(ReviewState)
    frames = [
        Status(i, f"clip/{i:06}", states[i % 5], trust, apart, "", None)
        for i, (trust, apart) in enumerate(random.random((QUEUE_LENGTH, 2)).tolist())
    ]
    odd = random.integers(0, QUEUE_LENGTH, QUEUE_LENGTH // 50).tolist()
    findings = by_frame(Finding(index, FindingKind.AREA, "The polyps jump.") for index in odd)
    clues = Clues(findings, random.integers(0, QUEUE_LENGTH // 2, QUEUE_LENGTH))
    table = Table(f"{QUEUE_LENGTH:,} frames", "time")
    tasks: dict[str, Callable[[], object]] = {
        order.title: partial(order_frames, name, frames, clues) for name, order in ORDERS.items()
    }
    tasks["Filter by state and text"] = partial(
        select, frames, clues, states={ReviewState.EDITED}, text="0012"
    )
    for title, task in tasks.items():
        started = time.perf_counter()
        for _ in range(5):
            task()
        table.add_row(title, f"{200 * (time.perf_counter() - started):.0f} ms")
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    data = parser.parse_args().data
    console = Console(width=120)
    for table in (lint(data), ranking(data), costs()):
        console.print(table)


if __name__ == "__main__":
    main()
