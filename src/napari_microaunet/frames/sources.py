"""The table of what frames can be opened from; a new source is one file and one line here."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_microaunet.errors import InputError
from napari_microaunet.frames.folder import open_folder, open_images
from napari_microaunet.frames.images import IMAGE_SUFFIXES
from napari_microaunet.frames.tiff_stack import TIFF_SUFFIXES, open_tiff
from napari_microaunet.frames.video import VIDEO_SUFFIXES, Video

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_microaunet.frames.sequence import FrameSequence


@dataclass(frozen=True)
class Source:
    """One kind of thing that frames are opened from.

    Attributes
    ----------
    title : str
        What it is, for a list in a message.
    accepts : callable
        Tells by a path that exists whether it is of this kind, without opening it.
    open : callable
        Opens it.
    """

    title: str
    accepts: Callable[[Path], bool]
    open: Callable[[Path], FrameSequence]


def _has_suffix(suffixes: frozenset[str]) -> Callable[[Path], bool]:
    return lambda path: path.suffix.lower() in suffixes


SOURCES = (
    Source("a folder of images", Path.is_dir, open_folder),
    Source("a TIFF stack", _has_suffix(TIFF_SUFFIXES), open_tiff),
    Source("a video", _has_suffix(VIDEO_SUFFIXES), Video),
    Source("an image", _has_suffix(IMAGE_SUFFIXES), lambda path: open_images([path])),
)


def absolute(path: Path | str) -> Path:
    """Make a path absolute, so that "." and ".." have the name of their folder; follow no link."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - Path.absolute keeps ".."


def open_frames(path: Path | str | Sequence[Path | str]) -> FrameSequence:
    """Open frames from whatever holds them.

    Parameters
    ----------
    path : path or sequence of paths
        A folder of images (`open_folder` says which layouts are known), a TIFF stack, a video,
        an image; or several images.

    Returns
    -------
    FrameSequence
        At least one frame can be read. Files that cannot be are in its `problems`.

    Raises
    ------
    InputError
        If the path is missing or holds no frame that can be read.
    """
    if not isinstance(path, Path | str):
        return open_images([absolute(item) for item in path])
    path = absolute(path)
    if not path.exists():
        raise InputError(f"{path} does not exist; check its spelling and that its drive is there.")
    for source in SOURCES:
        if source.accepts(path):
            return source.open(path)
    raise InputError(
        f"{path} is of no type that frames are read from; "
        f"choose {', '.join(source.title for source in SOURCES)}."
    )
