"""What the augmentation costs beside a training step: ``python benchmarks/augmentation.py``.

On one thread and rendered frames, in turns within one process: the whole, its parts, one
frame at a time, Kornia's container with the steps that it has, and a training step of the student
(forward, BCE, backward, AdamW). ``--json F`` writes the figures.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import kornia.augmentation as K
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.nn import functional as F

from napari_microaunet.distillation.augmentation.augment import Augmentation
from napari_microaunet.distillation.augmentation.settings import AugmentationSettings
from napari_microaunet.frames.rendered import render_frame
from napari_microaunet.networks import build

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

# A batch: positive frames and negative ones, as packed for training, and as many donors.
POSITIVES, NEGATIVES = 5, 3
PACKED_SIDE = 320
PARTS = {
    "geometry": ("flip", "rotation", "zoom_in", "zoom_out", "stretch", "shift", "elastic"),
    "polyp-free crops": ("polyp_free_crop",),
    "pasting": ("paste",),
    "scope looks": ("border", "boxes", "text", "glare"),
    "colours": (
        "uneven_light",
        "hue",
        "saturation",
        "brightness",
        "white_balance",
        "gamma",
        "black_level",
    ),
    "sharpness": ("blur", "motion_blur", "low_resolution", "sharpen", "jpeg", "noise"),
}


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Return packed images, labels and which frames are negative."""
    count = POSITIVES + NEGATIVES
    pairs = [render_frame(s, PACKED_SIDE, PACKED_SIDE, int(s < POSITIVES)) for s in range(count)]
    images = torch.from_numpy(np.stack([frame for frame, _ in pairs])).permute(0, 3, 1, 2)
    labels = torch.from_numpy(np.stack([mask > 0 for _, mask in pairs]))[:, None]
    return images.contiguous(), labels.to(torch.uint8), torch.arange(count) >= POSITIVES


def settings_of(*names: str) -> AugmentationSettings:
    """Everything off but what is named, which is as strong as by default."""
    default = AugmentationSettings().model_dump()
    return AugmentationSettings(
        **{name: value if name in names else 0 for name, value in default.items()}
    )


def container(side: int) -> K.AugmentationSequential:
    """Kornia's container with the same steps as far as it has them."""
    settings = AugmentationSettings()
    return K.AugmentationSequential(
        K.RandomAffine(settings.rotation, (0.1, 0.1), (0.77, 1.7), p=1.0),
        K.RandomHorizontalFlip(p=settings.flip),
        K.RandomElasticTransform((63, 63), (32.0, 32.0), p=1.0),
        K.Resize((side, side)),
        K.ColorJitter(0.45, 0.2, 0.6, 15 / 360, p=1.0),
        K.RandomGaussianBlur((9, 9), (0.5, 2.0), p=settings.blur),
        K.RandomJPEG((20.0, 90.0), p=settings.jpeg),
        K.RandomGaussianNoise(std=settings.noise, p=1.0),
        data_keys=["input", "mask"],
    )


def training_step(side: int) -> Callable[[], None]:
    """Return a step of the student on a batch of that side."""
    student = build("microaunet").to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(student.parameters())
    count = POSITIVES + NEGATIVES
    frames = torch.rand(count, 3, side, side).contiguous(memory_format=torch.channels_last)
    labels = (torch.rand(count, 1, side, side) < 0.1).float()

    def step() -> None:
        loss = F.binary_cross_entropy_with_logits(student(frames), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


def candidates(side: int) -> dict[str, Callable[[], object]]:
    """Return what is timed, by name; each call does one batch."""
    images, labels, negatives = batch()
    donors = images[:POSITIVES], labels[:POSITIVES], None

    def whole(settings: AugmentationSettings) -> Callable[[], object]:
        return partial(Augmentation(settings), images, labels, None, side, negatives, donors)

    def one_by_one() -> None:
        augment = Augmentation(AugmentationSettings())
        for one in torch.arange(len(images)).split(1):
            augment(images[one], labels[one], None, side, negatives[one], donors)

    by_kornia = container(side)
    return (
        {"augmentation": whole(AugmentationSettings()), "one frame at a time": one_by_one}
        | {"resizing alone": whole(settings_of())}
        | {f"{part} and resizing": whole(settings_of(*names)) for part, names in PARTS.items()}
        | {
            "Kornia's container": lambda: by_kornia(images.float() / 255, labels.float()),
            "training step of the student": training_step(side),
        }
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=256, help="of the views, in pixels")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    timed = candidates(arguments.side)
    for call in timed.values():
        call()
    milliseconds: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(arguments.rounds):
        for name, call in timed.items():
            start = time.perf_counter()
            call()
            spent = (time.perf_counter() - start) * 1000 / (POSITIVES + NEGATIVES)
            milliseconds[name].append(spent)
    median = {name: float(np.median(spent)) for name, spent in milliseconds.items()}
    longest = {name: max(spent) for name, spent in milliseconds.items()}
    step = median["training step of the student"]
    title = f"{POSITIVES + NEGATIVES} frames {PACKED_SIDE} -> {arguments.side}, one thread"
    table = Table("what", "ms a frame, median", "longest", "of a training step", title=title)
    for name, value in median.items():
        table.add_row(name, f"{value:.1f}", f"{longest[name]:.1f}", f"{value / step:.0%}")
    Console().print(table)
    if arguments.json is not None:
        figures = {
            name: {"median": value, "longest": longest[name]} for name, value in median.items()
        }
        arguments.json.write_text(json.dumps(figures, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
