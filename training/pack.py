"""Pack the shared frames at training size into one file per split: ``training/cache/*.npz``.

``python training/pack.py DATA`` reads every frame as pre-labelling does (field of view
found per group of equal size, Pillow's antialiased resizing) and keeps it with its mask at
320x320, from which the training cuts its 256x256 views.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from napari_microaunet.frames.field_of_view import find_field_of_view

HERE = Path(__file__).parent
SIDE = 320
FIELD_OF_VIEW_FRAMES = 16


def names(split: str) -> list[str]:
    """Return the names in one frozen list."""
    return (HERE / "splits" / f"{split}.txt").read_text(encoding="utf-8").split()


def pack(frames: Iterable[Path], masks: Iterable[Path | None]) -> dict[str, np.ndarray]:
    """Return ``images`` uint8 (n, side, side, 3), ``masks`` bool (n, side, side), ``names``."""
    opened = [
        (path, Image.open(path).convert("RGB"), None if mask is None else Image.open(mask))
        for path, mask in zip(frames, masks, strict=True)
    ]
    by_size: dict[tuple[int, int], list[np.ndarray]] = defaultdict(list)
    for _, frame, _ in opened:
        by_size[frame.size].append(np.asarray(frame))
    boxes = {
        size: find_field_of_view(group[:: max(1, len(group) // FIELD_OF_VIEW_FRAMES)])
        for size, group in by_size.items()
    }
    images, labels = [], []
    for _, frame, mask in opened:
        top, left, bottom, right = boxes[frame.size]
        box = (left, top, right, bottom)
        images.append(np.asarray(frame.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=box)))
        if mask is None:
            labels.append(np.zeros((SIDE, SIDE), bool))
        else:
            binary = Image.fromarray(((np.asarray(mask.convert("L")) > 127) * 255).astype(np.uint8))
            small = binary.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=box)
            labels.append(np.asarray(small) > 127)
    return {
        "images": np.stack(images),
        "masks": np.stack(labels),
        "names": np.array([path.stem for path, _, _ in opened]),
    }


def main(data: Path) -> None:
    """Write every pack."""
    cache = HERE / "cache"
    cache.mkdir(exist_ok=True)
    for split in ("training", "validation"):
        for dataset, suffix in (("kvasir-seg", ".jpg"), ("cvc-clinicdb", ".png")):
            chosen = names(f"{dataset}-{split}")
            np.savez(
                cache / f"{dataset}-{split}.npz",
                **pack(
                    [data / dataset / "images" / (name + suffix) for name in chosen],
                    [data / dataset / "masks" / (name + suffix) for name in chosen],
                ),
            )
        sequences = [
            sorted((data / "polypgen" / "negative" / name).iterdir())
            for name in names(f"polypgen-negative-{split}")
        ]
        parts = [pack(files, [None] * len(files)) for files in sequences]
        np.savez(
            cache / f"polypgen-negative-{split}.npz",
            **{key: np.concatenate([part[key] for part in parts]) for key in parts[0]},
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
