"""What it took to get from pre-labels to accepted masks, and what that says of the rest."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from dataclasses import asdict, dataclass, fields
from statistics import median
from typing import TYPE_CHECKING

from napari_microaunet.atomic import replacing
from napari_microaunet.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

LONGEST_PAUSE_S = 60.0
"""A longer time between two signs of life is a pause and does not count."""

# The estimate follows the pace of the last frames, neither of one frame nor of last week.
_RECENT_FRAMES = 50
FEWEST_FRAMES = 10
"""Frames that have to be looked at and accepted before there is an estimate."""


@dataclass(frozen=True, slots=True)
class EditCost:
    """What one accepted frame has cost.

    Attributes
    ----------
    name : str
        The frame.
    model : str or None
        The model that pre-labelled it.
    annotator : str or None
        Who accepted it.
    seconds : float
        How long it was looked at, without pauses.
    seconds_editing : float
        The part of them in which it was edited.
    strokes : int
        Strokes and other edits.
    changed_pixels : int or None
        Pixels that differ between the pre-label and the accepted mask.
    accepted : datetime or None
        When it was accepted, in UTC.
    """

    name: str
    model: str | None
    annotator: str | None
    seconds: float
    seconds_editing: float
    strokes: int
    changed_pixels: int | None
    accepted: datetime | None


@dataclass(frozen=True, slots=True)
class EditCostSummary:
    """What the accepted frames of one model and one annotator have cost."""

    model: str | None
    annotator: str | None
    frames: int
    median_seconds: float
    median_strokes: float
    median_changed_pixels: float


def summarise(costs: Sequence[EditCost]) -> list[EditCostSummary]:
    """Summarise costs by model and annotator, the most frames first."""
    groups: dict[tuple[str | None, str | None], list[EditCost]] = defaultdict(list)
    for cost in costs:
        groups[cost.model, cost.annotator].append(cost)
    summaries = []
    for (model, annotator), group in groups.items():
        seconds = [cost.seconds for cost in group]
        strokes = [cost.strokes for cost in group]
        pixels = [cost.changed_pixels or 0 for cost in group]
        summaries.append(
            EditCostSummary(
                model,
                annotator,
                len(group),
                median(seconds),
                median(strokes),
                median(pixels),
            )
        )
    return sorted(summaries, key=lambda summary: -summary.frames)


def write_edit_costs(costs: Sequence[EditCost], path: Path) -> None:
    """Write costs as a CSV file, one line per frame; the file appears complete or not at all.

    Raises
    ------
    InputError
        If it cannot be written.
    """
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, [field.name for field in fields(EditCost)])
    table.writeheader()
    for cost in costs:
        accepted = "" if cost.accepted is None else cost.accepted.isoformat(timespec="seconds")
        table.writerow(asdict(cost) | {"accepted": accepted})
    try:
        with replacing(path) as file:
            file.write(text.getvalue().encode())
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror}); choose another place."
        ) from error


def looked_at(costs: Sequence[EditCost]) -> list[EditCost]:
    """Choose the frames that tell the pace: those accepted among many, unseen, took no time."""
    return [cost for cost in costs if cost.accepted is not None and cost.seconds > 0]


def seconds_left(costs: Sequence[EditCost], frames: int) -> float | None:
    """Estimate how long so many more frames will take, in seconds.

    It is the median over the frames that were looked at and accepted last, times
    the number of frames. None while there are fewer than `FEWEST_FRAMES` of them.
    """
    timed = looked_at(costs)
    if len(timed) < FEWEST_FRAMES:
        return None
    last = sorted(timed, key=lambda cost: cost.accepted or 0)[-_RECENT_FRAMES:]
    return frames * median(cost.seconds for cost in last)
