"""What several commands are asked, and what they make of it."""

from __future__ import annotations

import json
import os
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_microaunet.atomic import replacing
from napari_microaunet.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from napari_microaunet.networks.library import Model
    from napari_microaunet.prelabel.masks import MaskSettings
    from napari_microaunet.prelabel.predictor import TaskRunner

ModelName = Annotated[
    str,
    typer.Option(
        "--model", help="student, expert, teacher, the name of a model of yours, or its file."
    ),
]
Backend = Annotated[str, typer.Option(help="What runs the network: auto, onnx or torch.")]
Device = Annotated[
    str,
    typer.Option(
        help="cpu, cuda, cuda:1, mps or auto: bundled models on the processor, others on a "
        "graphics card if there is one."
    ),
]
Batch = Annotated[
    int | None,
    typer.Option(min=1, help="Frames per call of the network; by default what suits the device."),
]
MirrorImages = Annotated[
    int | None,
    typer.Option(
        help="Average over none, 1 or 3 mirror images of each frame, too, which is once, twice or "
        "four times the work; by default as the model's card says."
    ),
]
Threshold = Annotated[
    float | None,
    typer.Option(
        min=0, max=1, help="Probability from which on a pixel is polyp; by default the model's."
    ),
]
LeastPeak = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        help="Drop polyps that nowhere reach this probability. Default: the model's own.",
    ),
]
SmallestArea = Annotated[
    float,
    typer.Option(min=0, max=1, help="Drop polyps below this share of the picture's area."),
]
FillHoles = Annotated[bool, typer.Option(help="Fill what a polyp encloses.")]
LargestOnly = Annotated[bool, typer.Option("--largest-only", help="Keep one polyp per frame.")]
Scheduler = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS", help="Spread the frames over the dask.distributed cluster there."
    ),
]


class IncludeChoice(StrEnum):
    """Which frames of a session are taken."""

    ACCEPTED = "accepted"
    EDITED = "edited"
    ALL = "all"


def mask_settings(
    model: Model,
    threshold: float | None,
    least_peak: float | None,
    smallest_area: float,
    fill_holes: bool,
    largest_only: bool,
) -> MaskSettings:
    """Return how probabilities become masks: as a model's card says where nothing was asked for."""
    from napari_microaunet.prelabel.masks import MaskSettings

    return MaskSettings(
        model.card.threshold if threshold is None else threshold,
        smallest_area,
        fill_holes,
        largest_only,
        model.card.least_peak if least_peak is None else least_peak,
    )


def runner(
    scheduler: str | None,
    model: Model,
    backend: str,
    device: str,
    batch: int | None,
    mirror_images: int | None,
) -> TaskRunner:
    """Make a model ready to run here, or on a cluster."""
    from napari_microaunet.prelabel.predictor import Predictor

    if scheduler is None:
        return Predictor(model, backend, device, batch, mirror_images)
    from napari_microaunet.prelabel.cluster import ClusterPredictor

    return ClusterPredictor(scheduler, model, backend, device, batch, mirror_images)


def identity(model: Model) -> dict[str, str]:
    """Say in a file of results which model they are of."""
    return {"name": model.name, "file": str(model.path), "sha256": model.card.sha256}


def make_room(json_file: Path | None) -> None:
    """Refuse a file of results that cannot be written, before the work that it is to hold."""
    if json_file is None:
        return
    json_file.parent.mkdir(parents=True, exist_ok=True)
    if json_file.is_dir() or not os.access(json_file.parent, os.W_OK):
        raise InputError(f"{json_file} cannot be written; choose another file for the results.")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a file of results."""
    with replacing(path) as file:
        file.write(json.dumps(content, indent=1).encode())
