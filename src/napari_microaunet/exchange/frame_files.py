"""Frames as files of an export: copied where every reader sees them as we do, else as PNG."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from PIL import Image

from napari_microaunet.errors import InputError
from napari_microaunet.exchange.places import target_file
from napari_microaunet.frames.images import opened, upright
from napari_microaunet.frames.sequence import UnreadableError

if TYPE_CHECKING:
    from pathlib import Path

    from napari_microaunet.exchange.labelled import LabelledFrame

# Files of these formats are copied, if they are called so.
_FORMATS = frozenset({"JPEG", "PNG"})
_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})


def suffix_if_copied(frame: LabelledFrame) -> str | None:
    """Tell whether the file of a frame can be copied into an export as it is.

    JPEG and PNG files of 8 bits can, unless they are turned by EXIF data, which some
    readers of labels heed and others do not.

    Parameters
    ----------
    frame : LabelledFrame
        The frame.

    Returns
    -------
    str or None
        The ending of its file; None if the frame is to be encoded anew.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    if frame.file is None or frame.file.suffix.lower() not in _SUFFIXES:
        return None
    try:
        with opened(frame.file) as image:
            plain = image.mode in ("RGB", "L") and upright(image) is image
            return frame.file.suffix if plain and image.format in _FORMATS else None
    except UnreadableError as error:
        raise InputError(
            f"Frame {frame.name} of {frame.file} cannot be read: {error}; exclude it."
        ) from error


def store_frame(frame: LabelledFrame, folder: Path, relative: str) -> str:
    """Write a frame below a folder.

    Parameters
    ----------
    frame : LabelledFrame
        The frame.
    folder : Path
        The export.
    relative : str
        Path in it, without an ending.

    Returns
    -------
    str
        The path with its ending: that of the frame's file where it was copied, else ".png".

    Raises
    ------
    InputError
        If the frame cannot be read.
    """
    suffix = suffix_if_copied(frame)
    relative += suffix or ".png"
    target = target_file(folder, relative)
    if frame.file is not None and suffix is not None:
        shutil.copyfile(frame.file, target)
    else:
        Image.fromarray(frame.read_frame()).save(target, "PNG", compress_level=1)
    return relative
