"""File > Open Sample: rendered frames and a clip, with their exact masks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import tifffile

from napari_microaunet.frames import open_frames
from napari_microaunet.frames.sample_data import sample_data_folder
from napari_microaunet.widgets.napari_io import layers_of

if TYPE_CHECKING:
    from napari.types import LayerData


def sample_frames() -> list[LayerData]:
    """Open twelve frames of several sizes.

    Returns
    -------
    list of layer data tuples
        Image and labels.

    Raises
    ------
    InputError
        If the installation lacks the sample data.
    """
    return layers_of(open_frames(sample_data_folder() / "frames"))


def sample_clip() -> list[LayerData]:
    """Open a clip in which the scope comes near a polyp and draws back.

    Returns
    -------
    list of layer data tuples
        Image, and labels that are not shown at first: what to compare one's own masks with.

    Raises
    ------
    InputError
        If the installation lacks the sample data.
    """
    folder = sample_data_folder()
    masks = tifffile.imread(folder / "clip-masks.tif")
    reference = (masks, {"name": "clip reference masks", "visible": False}, "labels")
    return [*layers_of(open_frames(folder / "clip.mp4")), reference]
