"""Pascal VOC segmentation: images of classes and of objects with VOC's palette, 255 for void.

::

    OUT/JPEGImages/NAME.jpg
    OUT/SegmentationClass/NAME.png      0 background, 1 polyp, 255 ignore
    OUT/SegmentationObject/NAME.png     0 background, 1..n polyps, 255 ignore
    OUT/ImageSets/Segmentation/train.txt, val.txt, test.txt, trainval.txt
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from napari_microaunet.errors import InputError
from napari_microaunet.exchange.base import SPLIT_NAMES, Format, ImportedMask
from napari_microaunet.exchange.frame_files import store_frame, suffix_if_copied
from napari_microaunet.exchange.places import files_below, flat_name, folder_of, target_file
from napari_microaunet.frames.images import opened, read_size
from napari_microaunet.frames.masks import IGNORE
from napari_microaunet.frames.sequence import UnreadableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_microaunet.exchange.base import Record
    from napari_microaunet.exchange.labelled import LabelledFrame

    Mask = NDArray[np.uint8]

_SETS = "ImageSets/Segmentation"
_FOLDERS = ("SegmentationObject", "SegmentationClass")
_JPEG_SUFFIXES = (".jpg", ".jpeg")
_JPEG_QUALITY = 95
_PNG = frozenset({".png"})


class Voc(Format):
    """Pascal VOC segmentation."""

    key = "voc"
    title = "Pascal VOC segmentation"
    divides = True
    is_flat = True
    remark = "Frames that are no JPEG files are encoded as such, which its readers expect."

    def files(self, frame: LabelledFrame) -> list[str]:
        name = flat_name(frame.name)
        return [f"JPEGImages/{name}.jpg", *(f"{folder}/{name}.png" for folder in _FOLDERS)]

    def summary_files(self, frames: Sequence[LabelledFrame]) -> list[str]:
        return [f"{_SETS}/{name}.txt" for name in _sets(frames)]

    def write(self, folder: Path, frame: LabelledFrame, mask: Mask) -> Record:
        name = flat_name(frame.name)
        target = target_file(folder, f"JPEGImages/{name}.jpg")
        if (suffix_if_copied(frame) or "").lower() in _JPEG_SUFFIXES:
            stored = store_frame(frame, folder, f"JPEGImages/{name}")
            (folder / stored).replace(target)
        else:
            Image.fromarray(frame.read_frame()).save(target, "JPEG", quality=_JPEG_QUALITY)
        classes = np.where(mask == IGNORE, mask, np.minimum(mask, 1))
        for kind, values in zip(_FOLDERS, (mask, classes), strict=True):
            picture = Image.fromarray(values).convert("P")
            picture.putpalette(_palette().tobytes())
            picture.save(target_file(folder, f"{kind}/{name}.png"), compress_level=3)
        return {}

    def finish(
        self,
        folder: Path,
        frames: Sequence[LabelledFrame],
        records: Callable[[], Iterator[Record]],  # noqa: ARG002
        still_wanted: Callable[[], None],  # noqa: ARG002
    ) -> None:
        for name, members in _sets(frames).items():
            target_file(folder, f"{_SETS}/{name}.txt").write_text(
                "".join(f"{flat_name(frame.name)}\n" for frame in members), encoding="utf-8"
            )

    def read(self, path: Path) -> Iterator[ImportedMask]:
        folder = folder_of(path, *_FOLDERS)
        found = list(files_below(folder, _PNG)) if folder.is_dir() else []
        if not found:
            raise InputError(f"{path} holds no SegmentationObject/*.png; give the folder above it.")
        for name, file in found:

            def read(_size: tuple[int, int], file: Path = file) -> Mask:
                return _values(file)

            yield ImportedMask(name, file, _size(file), read)


def _sets(frames: Sequence[LabelledFrame]) -> dict[str, list[LabelledFrame]]:
    sets = {
        name: members
        for split, name in SPLIT_NAMES.items()
        if (members := [frame for frame in frames if frame.split == split])
    }
    return sets | {"trainval": [frame for frame in frames if frame.split != "test"]}


def _palette() -> NDArray[np.uint8]:
    """Make the colours of VOC: bit by bit, the lowest of the number are the highest of R, G, B."""
    numbers = np.arange(256, dtype=np.uint8)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((numbers >> channel) & 1) << (7 - bit)
        numbers >>= 3
    return colours


def _size(file: Path) -> tuple[int, int]:
    try:
        return read_size(file)
    except UnreadableError as error:
        raise InputError(f"{file} cannot be read: {error}; export it again.") from error


def _values(file: Path) -> Mask:
    try:
        with opened(file) as image:
            mode, values = image.mode, np.asarray(image)
    except UnreadableError as error:
        raise InputError(f"{file} cannot be read: {error}; export it again.") from error
    if mode not in ("P", "L"):
        raise InputError(f"{file} has no palette; the numbers of objects are needed.")
    # Void is a colour of the palette; in black and white, white is polyp.
    if mode == "L" and np.isin(values, (0, IGNORE)).all():
        return (values > 0).astype(np.uint8)
    return values
