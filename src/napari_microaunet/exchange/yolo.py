"""YOLO segmentation as Ultralytics reads it: a line per polyp with its outline.

::

    OUT/data.yaml
    OUT/images/train/NAME.jpg     and val, test
    OUT/labels/train/NAME.txt     class x y x y ..., in shares of width and height; empty: no polyp

Ultralytics cuts coordinates to whole pixels and fills the outline, itself included
(``ultralytics/data/utils.py``, ``polygon2mask``), so outlines go through the centres of pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from PIL import Image, ImageDraw

from napari_microaunet.errors import InputError
from napari_microaunet.exchange.base import (
    IGNORED,
    POLYP,
    SPLIT_NAMES,
    Format,
    ImportedMask,
    Loss,
)
from napari_microaunet.exchange.frame_files import store_frame, suffix_if_copied
from napari_microaunet.exchange.json_files import read_text
from napari_microaunet.exchange.places import (
    file_of,
    files_below,
    flat_name,
    folder_of,
    target_file,
)
from napari_microaunet.exchange.regions import (
    LONGEST_OUTLINE,
    as_points,
    join,
    length_of,
    outlines,
    parts_of,
    through_centres,
)
from napari_microaunet.frames.masks import IGNORE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_microaunet.exchange.base import Record
    from napari_microaunet.exchange.labelled import LabelledFrame

    Mask = NDArray[np.uint8]

_DATA = "data.yaml"
_LARGEST_DATA = 2**20
_LABEL_SUFFIXES = frozenset({".txt"})
# Of shares of 8192 px, the longest side there is: a hundredth of a pixel.
_DIGITS = 6
_FEWEST_POINTS = 3


class Yolo(Format):
    """YOLO segmentation."""

    key = "yolo"
    title = "YOLO segmentation (Ultralytics)"
    loses = (Loss.IGNORE, Loss.GAPS, Loss.PARTS, Loss.HOLES)
    is_flat = True
    divides = True
    remark = "Without frames for validation, data.yaml names the training frames for it, too."

    def files(self, frame: LabelledFrame) -> list[str]:
        place = _place(frame)
        suffix = suffix_if_copied(frame) or ".png"
        return [f"images/{place}{suffix}", f"labels/{place}.txt"]

    def summary_files(self, frames: Sequence[LabelledFrame]) -> list[str]:  # noqa: ARG002
        return [_DATA]

    def write(self, folder: Path, frame: LabelledFrame, mask: Mask) -> Record:
        store_frame(frame, folder, f"images/{_place(frame)}")
        lines = [
            _line(np.add(points, (part.left, part.top)), frame)
            for part in parts_of(mask)
            if part.label != IGNORE
            for points in outlines(part.region, diagonals=True)[0]
        ]
        target_file(folder, f"labels/{_place(frame)}.txt").write_text("".join(lines))
        return {}

    def finish(
        self,
        folder: Path,
        frames: Sequence[LabelledFrame],
        records: Callable[[], Iterator[Record]],  # noqa: ARG002
        still_wanted: Callable[[], None],  # noqa: ARG002
    ) -> None:
        present = {frame.split for frame in frames}
        data: dict[str, Any] = {
            name: f"images/{name}" for split, name in SPLIT_NAMES.items() if split in present
        }
        # Ultralytics refuses a file without either.
        first = next(iter(data.values()))
        data = {"train": first, "val": data.get("train", first)} | data
        content = yaml.safe_dump(data | {"names": {0: POLYP}}, sort_keys=False)
        (folder / _DATA).write_text(content, encoding="utf-8")

    def read(self, path: Path) -> Iterator[ImportedMask]:
        labels = folder_of(path, "labels")
        ignored = _ignored_classes(path)
        found = list(files_below(labels, _LABEL_SUFFIXES)) if labels.is_dir() else []
        if path.is_file():
            found = [(path.stem, path)]
        if not found:
            raise InputError(f"{path} holds no labels/*.txt; give the folder with data.yaml.")
        for place, file in found:
            head, _, rest = place.partition("/")
            name = rest if rest and head in SPLIT_NAMES.values() else place

            def read(size: tuple[int, int], file: Path = file) -> Mask:
                return _read(file, size, ignored)

            # As they are called where images, or the folder around it, was opened.
            others = () if name == place else (place, f"images/{place}")
            yield ImportedMask(name, file, None, read, other_names=others)


def _place(frame: LabelledFrame) -> str:
    return f"{SPLIT_NAMES[frame.split]}/{flat_name(frame.name)}"


def _line(corners: NDArray[np.float64], frame: LabelledFrame) -> str:
    points = through_centres(corners)
    # A point or a line is no outline to Ultralytics.
    points = np.concatenate([points, points[[0] * max(0, _FEWEST_POINTS - len(points))]])
    shares = (points / (frame.width, frame.height)).ravel()
    return f"0 {' '.join(f'{share:.{_DIGITS}f}' for share in shares)}\n"


def _ignored_classes(path: Path) -> set[str]:
    """Read which classes are to be ignored, for an export or for something in its labels."""
    path = path.absolute()
    above = next((one.parent for one in (path, *path.parents) if one.name == "labels"), path)
    root = next((one for one in (path, above) if (one / _DATA).exists()), None)
    if root is None:
        return set()
    data = file_of(root, _DATA)
    text = read_text(data, _LARGEST_DATA)
    try:
        # Nodes alone: built, aliases of aliases unfold to more than the memory holds.
        entries = {key.value: node for key, node in yaml.compose(text, yaml.SafeLoader).value}
        names = entries["names"]
        if isinstance(names, yaml.MappingNode):
            pairs = [(key.value, name) for key, name in names.value]
        else:
            pairs = [(str(number), name) for number, name in enumerate(names.value)]
        return {
            number
            for number, name in pairs
            if isinstance(name, yaml.ScalarNode) and name.value.casefold() == IGNORED
        }
    except (
        yaml.YAMLError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        RecursionError,
    ) as error:
        raise InputError(f"{data} does not list the names of classes; correct it.") from error


def _read(file: Path, size: tuple[int, int], ignored: set[str]) -> Mask:
    regions: list[tuple[bool, NDArray[np.bool_]]] = []
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        where = f"line {number}"
        if len(words) < 1 + 2 * _FEWEST_POINTS or not words[0].isdigit():
            raise InputError(f"{file}: {where} is no class with an outline (a box, maybe).")
        points = as_points(words[1:], file, where)
        regions.append((words[0] in ignored, _fill(points, size, file, where)))
    mask = join(regions, size, file, file.stem)
    polyps = [region for is_ignored, region in regions if not is_ignored]
    # A polyp in a hole of another, which was filled, is on an earlier line as likely as not.
    for label, region in sorted(enumerate(polyps, start=1), key=lambda one: -one[1].sum()):
        mask[region & (mask != IGNORE)] = label
    return mask


def _fill(
    shares: NDArray[np.float64], size: tuple[int, int], file: Path, where: str
) -> NDArray[np.bool_]:
    """Fill an outline that goes through the centres of pixels, itself included."""
    height, width = size
    if shares.min() < -0.01 or shares.max() > 1.01:
        raise InputError(f"{file}: {where} has coordinates that are no shares of 0 to 1.")
    points = np.clip(np.floor(shares * (width, height)), 0, (width - 1, height - 1))
    if length_of(points) > LONGEST_OUTLINE:
        raise InputError(f"{file}: {where} is more than {LONGEST_OUTLINE} px long; remove it.")
    picture = Image.new("1", (width, height))
    draw, corners = ImageDraw.Draw(picture), [tuple(point) for point in points.tolist()]
    draw.polygon(corners, fill=1)
    # By itself: Pillow leaves out an outline that is of the colour of the fill.
    draw.polygon(corners, outline=1)
    return np.asarray(picture)
