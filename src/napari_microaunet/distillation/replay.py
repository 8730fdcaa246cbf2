"""Frames that a model knew before, shown to it again among new ones so that it forgets less.

Replay is the oldest remedy against forgetting (Robins 1995, "Catastrophic forgetting, rehearsal
and pseudorehearsal"). A lab that has an older dataset replays that; for all others, rendered
frames that the bundled models learned from come with the package.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from napari_microaunet.curation.dataset import open_dataset
from napari_microaunet.distillation.training_frames import TrainingFrames
from napari_microaunet.errors import InputError
from napari_microaunet.frames.sample_data import sample_data_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_microaunet.curation.dataset import CuratedDataset
    from napari_microaunet.distillation.recipe import Replay
    from napari_microaunet.distillation.training_frames import Kind


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
