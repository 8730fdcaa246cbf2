"""Pack all frames that the bundled models learn from into one small curated dataset.

``python training/pack.py DATA`` reads every frame as pre-labelling does (field of view, Pillow's
antialiased resizing) and writes it at 320x320, with its mask, to ``training/cache/dataset/``.
The split is the frozen one of ``splits/*.txt``; training frames that have a near-duplicate among
the validation frames are left out. The whole stays under 64 MiB, so that it is easily moved to
a machine with a GPU.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from PIL import Image

from napari_microaunet.curation import FrameRecord, Manifest, open_dataset, write_manifest
from napari_microaunet.distillation.training_frames import TrainingFrames
from napari_microaunet.frames.masks import write_mask_file
from napari_microaunet.frames.rendered import render_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_microaunet.curation.manifest import Split

HERE = Path(__file__).parent
DATASET = HERE / "cache" / "dataset"
SIDE = 320
QUALITY = 88  # of the JPEG files; the whole takes 49 MiB
RENDERED_SEEDS = range(1000, 1300)  # seeds below 1000 belong to sample_data and to tests


def split_of(source: str) -> Callable[[str], Split]:
    """Return what tells the frozen split of a frame, or of its folder, by the name."""
    lists: dict[str, Split] = {}
    for split in ("training", "validation"):
        names = (HERE / "splits" / f"{source}-{split}.txt").read_text(encoding="utf-8").split()
        lists |= dict.fromkeys(names, split)
    return lambda name: lists[name.split("/")[0]]


def pack(folder: Path, source: str, split: Callable[[str], Split]) -> Iterator[FrameRecord]:
    """Write the frames of one set, and yield what the manifest says of them."""
    dataset = open_dataset(folder)
    frames = TrainingFrames.load(dataset, range(len(dataset.frames)), SIDE)
    if frames.problems:
        raise SystemExit("\n".join(frames.problems.values()))
    splits = [split(name) for name in frames.names]
    groups = [frame.group for frame in dataset.frames]
    validating = {g for g, s in zip(groups, splits, strict=True) if s == "validation"}
    left_out = 0
    for index, (name, group) in enumerate(zip(frames.names, groups, strict=True)):
        if splits[index] == "training" and group in validating:
            left_out += 1
            continue
        image = DATASET / "images" / source / f"{name}.jpg"
        image.parent.mkdir(parents=True, exist_ok=True)
        pixels = frames.images[index].permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(image, quality=QUALITY)
        mask = None
        if frames.kinds[index] == "polyp":
            mask = DATASET / "masks" / source / f"{name}.png"
            mask.parent.mkdir(parents=True, exist_ok=True)
            write_mask_file(mask, frames.labels[index, 0].numpy())
        yield FrameRecord(
            name=f"{source}/{name}",
            image=image.relative_to(DATASET).as_posix(),
            mask=None if mask is None else mask.relative_to(DATASET).as_posix(),
            negative=frames.kinds[index] == "negative",
            group=f"{source}/{group}",
            split=splits[index],
            source=source,
            image_sha256=hashlib.sha256(image.read_bytes()).hexdigest(),
            mask_sha256=None if mask is None else hashlib.sha256(mask.read_bytes()).hexdigest(),
        )
    print(f"{source}: {len(frames) - left_out} frames, {left_out} near-duplicates left out")


def render(folder: Path, seed: int) -> None:
    """Write one rendered frame with its mask."""
    frame, mask = render_frame(seed, height=288, width=360, polyps=int(seed % 4 != 0))
    Image.fromarray(frame).save(folder / "images" / f"{seed}.png", compress_level=1)
    write_mask_file(folder / "masks" / f"{seed}.png", mask)


def main(data: Path) -> None:
    """Write the dataset anew."""
    shutil.rmtree(DATASET, ignore_errors=True)
    records: list[FrameRecord] = []
    for source in ("kvasir-seg", "cvc-clinicdb"):
        records += pack(data / source, source, split_of(source))
    negatives = data / "polypgen" / "negative"
    records += pack(negatives, "polypgen-negative", split_of("polypgen-negative"))
    positives = data / "polypgen" / "positive"
    records += pack(positives, "polypgen-positive", lambda _: "training")
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in ("images", "masks"):
            (folder / name).mkdir()
        with ProcessPoolExecutor() as pool:
            list(pool.map(render, [folder] * len(RENDERED_SEEDS), RENDERED_SEEDS, chunksize=10))
        records += pack(folder, "rendered", lambda _: "training")
    write_manifest(DATASET / "manifest.json", Manifest(name="training", frames=tuple(records)))
    size = sum(file.stat().st_size for file in DATASET.rglob("*") if file.is_file())
    print(f"{len(records)} frames, {size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
