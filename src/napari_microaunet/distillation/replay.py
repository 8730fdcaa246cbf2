"""Frames that a model knew before, shown to it again among new ones so that it forgets less.

Replay is the oldest remedy against forgetting (Robins 1995, "Catastrophic forgetting, rehearsal
and pseudorehearsal"). A lab that has an older dataset replays that; for all others, rendered
frames that the bundled models learned from come with the package:
``python -m napari_microaunet.distillation.replay FOLDER`` writes them anew.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from napari_microaunet.curation.dataset import open_dataset
from napari_microaunet.curation.manifest import MANIFEST_NAME, write_manifest
from napari_microaunet.distillation.training_frames import TrainingFrames
from napari_microaunet.errors import InputError
from napari_microaunet.frames.masks import write_mask_file
from napari_microaunet.frames.rendered import render_frame
from napari_microaunet.frames.sample_data import sample_data_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_microaunet.curation.dataset import CuratedDataset
    from napari_microaunet.distillation.recipe import Replay
    from napari_microaunet.distillation.training_frames import Kind

# Of the 300 that the bundled models learned from, see training/pack.py.
_SEEDS = range(1000, 1060)
_HEIGHT, _WIDTH, _QUALITY = 288, 360, 88


def load_replayed(
    replay: Replay, dataset: CuratedDataset, side: int, cancelled: Callable[[], bool]
) -> TrainingFrames:
    """Read the frames to be replayed.

    Parameters
    ----------
    replay : Replay
        Says which ones: the labelled frames of the training split.
    dataset : CuratedDataset
        What is learned now. Frames that are held out in it are not replayed.
    side : int
        Height and width that they are resized to, in pixels.
    cancelled : callable
        Asked after every frame.

    Returns
    -------
    TrainingFrames
        All of the kind "replayed".

    Raises
    ------
    InputError
        If there are none, or they cannot be used.
    CancelledError
        If `cancelled` says so.
    """
    known = replayed_dataset(replay, cancelled)
    held_out = {
        digest
        for index, frame in enumerate(dataset.frames)
        if frame.split != "training"
        for digest in dataset.digests(index)
    }
    indices = [
        index
        for index in known.indices("training", labelled=True)
        if held_out.isdisjoint(known.digests(index))
    ]
    frames = TrainingFrames.load(known, indices, side, cancelled=cancelled)
    if len(frames) == 0:
        raise InputError(
            f"{known.path} holds no labelled training frame that could be replayed; choose another "
            "folder, or set replay.share to 0."
        )
    kind: Kind = "replayed"
    return replace(frames, kinds=(kind,) * len(frames))


def replayed_dataset(replay: Replay, cancelled: Callable[[], bool]) -> CuratedDataset:
    """Open the dataset whose training frames are replayed.

    Parameters
    ----------
    replay : Replay
        Says which one.
    cancelled : callable
        Asked after every frame of a folder without a manifest.

    Raises
    ------
    InputError
        If it cannot be opened.
    CancelledError
        If `cancelled` says so.
    """
    return open_dataset(replay.data or sample_data_folder() / "replay", cancelled=cancelled)


def write_rendered_frames(folder: Path) -> None:
    """Render the frames that come with the package, as a curated dataset.

    Parameters
    ----------
    folder : Path
        Made if need be. It gets ``images`` (JPEG), ``masks`` (PNG) and ``manifest.json``, where
        all frames are for training.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "masks").mkdir(exist_ok=True)
    (folder / MANIFEST_NAME).unlink(missing_ok=True)
    for seed in _SEEDS:
        frame, mask = render_frame(seed, _HEIGHT, _WIDTH, polyps=int(seed % 4 != 0))
        Image.fromarray(frame).save(folder / "images" / f"{seed}.jpg", quality=_QUALITY)
        write_mask_file(folder / "masks" / f"{seed}.png", mask)
    manifest = open_dataset(folder).manifest
    update = {"split": "training", "source": "rendered"}
    frames = tuple(frame.model_copy(update=update) for frame in manifest.frames)
    write_manifest(folder / MANIFEST_NAME, manifest.model_copy(update={"frames": frames}))


if __name__ == "__main__":
    write_rendered_frames(Path(sys.argv[1]))
