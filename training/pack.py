"""Pack the shared frames at training size into one file per split: ``training/cache/*.npz``.

``python training/pack.py DATA`` reads every frame as pre-labelling does (field of view,
Pillow's antialiased resizing) and keeps it with its mask at 320x320, from which the training
cuts its views.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from napari_microaunet.frames import find_field_of_view, open_frames
from napari_microaunet.frames.rendered import render_frame

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_microaunet.frames import FieldOfView, FrameSequence

HERE = Path(__file__).parent
CACHE = HERE / "cache"
SIDE = 320
RENDERED_SEEDS = range(1000, 1300)  # seeds below 1000 belong to sample_data and to tests
BILINEAR = Image.Resampling.BILINEAR

Arrays = dict[str, "NDArray[np.generic]"]


def names(split: str) -> list[str]:
    """Return the names in one frozen list."""
    return (HERE / "splits" / f"{split}.txt").read_text(encoding="utf-8").split()


def shrink(
    frame: NDArray[np.uint8], mask: NDArray[np.uint8] | None, field: FieldOfView
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return a frame's field of view and its mask at training size."""
    box = (field.left, field.top, field.right, field.bottom)
    small = np.asarray(Image.fromarray(frame).resize((SIDE, SIDE), BILINEAR, box=box))
    if mask is None:
        return small, np.zeros((SIDE, SIDE), bool)
    polyp = Image.fromarray(((mask > 0) * 255).astype(np.uint8))
    return small, np.asarray(polyp.resize((SIDE, SIDE), BILINEAR, box=box)) > 127


def pack(sequence: FrameSequence, chosen: Sequence[int]) -> Arrays:
    """Return ``images`` uint8 (n, side, side, 3), ``masks`` bool (n, side, side), ``names``."""
    pairs = [
        shrink(sequence.read(i), sequence.read_mask(i), sequence.field_of_view(i)) for i in chosen
    ]
    return {
        "images": np.stack([image for image, _ in pairs]),
        "masks": np.stack([mask for _, mask in pairs]),
        "names": np.array([sequence.frames[i].name for i in chosen]),
    }


def render() -> Arrays:
    """Return the rendered training frames in the same form."""
    pairs = []
    for seed in RENDERED_SEEDS:
        frame, mask = render_frame(seed, height=288, width=360, polyps=int(seed % 4 != 0))
        pairs.append(shrink(frame, mask, find_field_of_view([frame])))
    return {
        "images": np.stack([image for image, _ in pairs]),
        "masks": np.stack([mask for _, mask in pairs]),
        "names": np.array([str(seed) for seed in RENDERED_SEEDS]),
    }


def save(split: str, arrays: Arrays) -> None:
    """Write one pack."""
    np.savez(CACHE / f"{split}.npz", allow_pickle=False, **arrays)


def main(data: Path) -> None:
    """Write every pack."""
    CACHE.mkdir(exist_ok=True)
    save("rendered-training", render())
    for split in ("training", "validation"):
        for dataset in ("kvasir-seg", "cvc-clinicdb"):
            sequence = open_frames(data / dataset)
            wanted = set(names(f"{dataset}-{split}"))
            chosen = [i for i, frame in enumerate(sequence.frames) if frame.name in wanted]
            save(f"{dataset}-{split}", pack(sequence, chosen))
        parts = []
        for name in names(f"polypgen-negative-{split}"):
            sequence = open_frames(data / "polypgen" / "negative" / name)
            parts.append(pack(sequence, range(len(sequence))))
        together = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        save(f"polypgen-negative-{split}", together)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
