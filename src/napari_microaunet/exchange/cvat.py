"""CVAT for images, XML 1.1: a polygon or a mask per polyp; labels polyp and ignore.

A polyp with one outline and no holes is a polygon, which people can edit; all else is a mask,
runs outside and inside in turn, row by row in its box.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, ParseError, SubElement, tostring

import numpy as np
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import iterparse

from napari_microaunet.errors import InputError
from napari_microaunet.exchange.base import IGNORED, POLYP, Format, ImportedMask, Loss
from napari_microaunet.exchange.json_files import LARGEST_FILE
from napari_microaunet.exchange.places import check_file_name, file_of
from napari_microaunet.exchange.regions import (
    as_counts,
    as_points,
    fill,
    from_counts,
    join,
    outline_of,
    parts_of,
    run_lengths,
)
from napari_microaunet.frames.images import LARGEST_SIDE
from napari_microaunet.frames.masks import IGNORE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_microaunet.exchange.base import Record
    from napari_microaunet.exchange.labelled import LabelledFrame
    from napari_microaunet.exchange.regions import Part

    Mask = NDArray[np.uint8]

_FILE = "annotations.xml"
# What XML cannot hold at all.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_DRAWN = {"source": "manual", "occluded": "0", "z_order": "0"}
# image, shape, attribute: files of CVAT nest no deeper than this.
_DEEPEST = 8


class Cvat(Format):
    """CVAT for images."""

    key = "cvat"
    title = "CVAT for images 1.1"
    loses = (Loss.GAPS,)

    def files(self, frame: LabelledFrame) -> list[str]:  # noqa: ARG002
        return []

    def summary_files(self, frames: Sequence[LabelledFrame]) -> list[str]:  # noqa: ARG002
        return [_FILE]

    def check(self, frames: Sequence[LabelledFrame]) -> None:
        for frame in frames:
            if _FORBIDDEN.search(frame.file_name):
                raise InputError(
                    f"The name of frame {frame.name!r} cannot stand in XML; rename its file."
                )

    def write(self, folder: Path, frame: LabelledFrame, mask: Mask) -> Record:  # noqa: ARG002
        size = {"width": str(frame.width), "height": str(frame.height)}
        image = Element("image", {"id": "", "name": frame.file_name} | size)
        for part in parts_of(mask):
            _shape(image, part)
        # The number is known when all are together.
        return {"image": tostring(image, encoding="unicode").removeprefix('<image id=""')}

    def finish(
        self,
        folder: Path,
        frames: Sequence[LabelledFrame],
        records: Callable[[], Iterator[Record]],
        still_wanted: Callable[[], None],
    ) -> None:
        task = Element("task")
        SubElement(task, "size").text = str(len(frames))
        SubElement(task, "mode").text = "annotation"
        labels = SubElement(task, "labels")
        for name in (POLYP, IGNORED):
            label = SubElement(labels, "label")
            SubElement(label, "name").text = name
            SubElement(label, "attributes")
        with (folder / _FILE).open("w", encoding="utf-8") as file:
            file.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n')
            file.write("<version>1.1</version>\n")
            file.write(f"<meta>{tostring(task, encoding='unicode')}</meta>\n")
            for number, record in enumerate(records()):
                still_wanted()
                file.write(f'<image id="{number}"{record["image"]}\n')
            file.write("</annotations>\n")

    def read(self, path: Path) -> Iterator[ImportedMask]:
        file = file_of(path, _FILE)
        try:
            yield from _read(file)
        except InputError:
            raise
        except OSError as error:
            raise InputError(
                f"{file} cannot be read ({error.strerror}); check the path."
            ) from error
        except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
            raise InputError(
                f"{file} is no XML of CVAT ({error}); export it again, and unpack it."
            ) from error


def _shape(image: Element, part: Part) -> None:
    label = {"label": IGNORED if part.label == IGNORE else POLYP}
    outline = outline_of(part)
    if outline is not None:
        points = ";".join(f"{x:g},{y:g}" for x, y in outline.tolist())
        SubElement(image, "polygon", label | _DRAWN | {"points": points})
        return
    height, width = part.region.shape
    box = {"left": part.left, "top": part.top, "width": width, "height": height}
    runs = ", ".join(map(str, run_lengths(part.region)))
    place = {key: str(value) for key, value in box.items()}
    SubElement(image, "mask", label | _DRAWN | {"rle": runs} | place)


def _read(file: Path) -> Iterator[ImportedMask]:
    if file.stat().st_size > LARGEST_FILE:
        raise InputError(
            f"{file} has more than {LARGEST_FILE // 2**20} MiB; divide it into several."
        )
    depth, root = 0, None
    for event, element in iterparse(file, events=("start", "end")):
        depth += 1 if event == "start" else -1
        if root is None:
            root = element
            if element.tag != "annotations":
                raise InputError(f"{file} is no XML of CVAT, it begins with {element.tag[:40]!r}.")
        if depth > _DEEPEST:
            raise InputError(f"{file} is no XML of CVAT, it nests too deep; export it again.")
        if event == "end" and depth == 1:
            if element.tag == "track":
                raise InputError(f"{file} holds tracks; export it as CVAT for images.")
            if element.tag == "image":
                yield _image(element, file)
            root.clear()


def _image(image: Element, file: Path) -> ImportedMask:
    name = check_file_name(image.get("name"), file)
    size = _number(image, "height", file, name), _number(image, "width", file, name)
    if not all(0 < side <= LARGEST_SIDE for side in size):
        raise InputError(f"{file}: {name} claims {size[1]} x {size[0]} px; correct it.")
    shapes = sorted(image, key=lambda shape: _order(shape, file, name))

    def read(size: tuple[int, int]) -> Mask:
        regions: list[tuple[bool, NDArray[np.bool_]]] = []
        for shape in shapes:
            is_ignored = (shape.get("label") or "").casefold() == IGNORED
            if shape.tag == "polygon":
                pairs = (pair.split(",") for pair in (shape.get("points") or "").split(";"))
                points = as_points((value for pair in pairs for value in pair), file, name)
                regions.append((is_ignored, fill([points], size, file, name)))
            elif shape.tag == "mask":
                regions.append((is_ignored, _mask(shape, size, file, name)))
            elif shape.tag not in ("tag", "attribute"):
                raise InputError(
                    f"{file}: {name} has a {shape.tag[:40]}; only polygons and masks can be read."
                )
        return join(regions, size, file, name)

    return ImportedMask(name, file, size, read, is_file_name=True)


def _order(shape: Element, file: Path, name: str) -> int:
    """Tell what lies above what."""
    return _number(shape, "z_order", file, name) if "z_order" in shape.attrib else 0


def _mask(shape: Element, size: tuple[int, int], file: Path, name: str) -> NDArray[np.bool_]:
    left, top, width, height = (
        _number(shape, key, file, name) for key in ("left", "top", "width", "height")
    )
    inside = left >= 0 and top >= 0 and left + width <= size[1] and top + height <= size[0]
    if not inside or width < 1 or height < 1:
        raise InputError(f"{file}: a mask of {name} lies outside of it; correct or remove it.")
    try:
        runs = [int(word) for word in (shape.get("rle") or "").split(",")]
    except ValueError as error:
        raise InputError(f"{file}: a mask of {name} has no run lengths; remove it.") from error
    region = np.zeros(size, bool)
    counts = as_counts(runs, file, name)
    box = from_counts(counts, (height, width), file, name, by_rows=True)
    region[top : top + height, left : left + width] = box
    return region


def _number(element: Element, key: str, file: Path, name: str) -> int:
    try:
        return int(element.get(key, ""))
    except ValueError as error:
        raise InputError(f"{file}: {name} has no whole number as {key}; correct it.") from error
