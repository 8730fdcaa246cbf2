"""PNG masks, named as the frames: 0 and 255, or the numbers of the polyps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image

from napari_microaunet.errors import InputError
from napari_microaunet.exchange.base import Format, ImportedMask, Loss
from napari_microaunet.exchange.places import files_below, folder_of, target_file
from napari_microaunet.frames.images import IMAGE_SUFFIXES, read_size
from napari_microaunet.frames.masks import IGNORE, read_mask_file, write_mask_file
from napari_microaunet.frames.sequence import UnreadableError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from napari_microaunet.exchange.base import Record
    from napari_microaunet.exchange.labelled import LabelledFrame

    Mask = NDArray[np.uint8]


class BinaryPng(Format):
    """Black and white masks, ``masks/NAME.png``."""

    key = "png"
    title = "PNG masks, black and white"
    loses: tuple[Loss, ...] = (Loss.IGNORE, Loss.NUMBERS)

    def files(self, frame: LabelledFrame) -> list[str]:
        return [f"masks/{frame.name}.png"]

    def write(self, folder: Path, frame: LabelledFrame, mask: Mask) -> Record:
        write_binary(target_file(folder, f"masks/{frame.name}.png"), mask)
        return {}

    def read(self, path: Path) -> Iterator[ImportedMask]:
        return read_mask_files(folder_of(path, "masks"))


class LabelPng(BinaryPng):
    """Masks with 1..n for polyps and 255 for what is to be ignored, likewise."""

    key = "labels"
    title = "PNG masks with the polyps' numbers"
    loses = ()

    def write(self, folder: Path, frame: LabelledFrame, mask: Mask) -> Record:
        write_mask_file(target_file(folder, f"masks/{frame.name}.png"), mask)
        return {}


def write_binary(path: Path, mask: Mask) -> None:
    """Write a mask as PNG: 255 where there is a polyp, else 0."""
    polyps = (mask > 0) & (mask < IGNORE)
    Image.fromarray(polyps).convert("L").save(path, compress_level=3)


def read_mask_files(folder: Path) -> Iterator[ImportedMask]:
    """Read a folder of masks, or a single one, as `read_mask_file` does.

    Raises
    ------
    InputError
        If there is none, or one that is no image.
    """
    files = list(files_below(folder, IMAGE_SUFFIXES)) if folder.is_dir() else []
    if folder.is_file():
        files = [(folder.stem, folder)]
    if not files:
        raise InputError(f"{folder} holds no masks; give a folder of PNG files.")
    for name, file in files:
        yield read_mask_of(name, file)


def read_mask_of(name: str, file: Path) -> ImportedMask:
    """Read the mask of a frame from an image file.

    Raises
    ------
    InputError
        If it is no image.
    """
    try:
        size = read_size(file)
    except UnreadableError as error:
        raise InputError(f"{file} cannot be read: {error}; export it again.") from error

    def read(_size: tuple[int, int]) -> Mask:
        try:
            return read_mask_file(file)
        except UnreadableError as error:
            raise InputError(f"{file} cannot be read: {error}; export it again.") from error

    return ImportedMask(name, file, size, read)
