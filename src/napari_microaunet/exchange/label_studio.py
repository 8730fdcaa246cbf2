"""Label Studio: a task per frame with polygons and brushes; labels polyp and ignore.

::

    OUT/tasks.json
    OUT/label-config.xml      what the project's labelling interface has to be

A polyp with one outline and no holes is a polygon, all else a brush. Frames are named as files of
a local storage, which Label Studio wants to lie below its root (``LOCAL_FILES_DOCUMENT_ROOT``):
FOLDER/case 3/12.jpg, where FOLDER is the one that holds all frames, and the root the one around it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote, unquote

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from napari_microaunet.errors import InputError, first_problem
from napari_microaunet.exchange.base import IGNORED, POLYP, Format, ImportedMask, Loss
from napari_microaunet.exchange.brush_rle import decode_brush, encode_brush
from napari_microaunet.exchange.json_files import lines_of_list, read_json
from napari_microaunet.exchange.places import check_file_name, file_of
from napari_microaunet.exchange.regions import as_points, fill, join, outline_of, parts_of
from napari_microaunet.frames.images import LARGEST_SIDE
from napari_microaunet.frames.masks import IGNORE
from napari_microaunet.frames.sequence import unicode_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from napari_microaunet.exchange.base import Record
    from napari_microaunet.exchange.labelled import LabelledFrame
    from napari_microaunet.exchange.regions import Part

    Mask = NDArray[np.uint8]

_FILE, _CONFIG = "tasks.json", "label-config.xml"
_LOCAL = "/data/local-files/?d="
# Frames of videos and stacks are files where they have been exported as COCO.
_FOLDER_OF_COCO = "images"
# Label Studio puts eight digits before the names of files that were uploaded.
_UPLOADED = re.compile(r"^/data/upload/\d+/[0-9a-f]{8}-")
_INTERFACE = f"""<View>
  <Image name="image" value="$image"/>
  <PolygonLabels name="polygon" toName="image">
    <Label value="{POLYP}"/><Label value="{IGNORED}"/>
  </PolygonLabels>
  <BrushLabels name="brush" toName="image">
    <Label value="{POLYP}"/><Label value="{IGNORED}"/>
  </BrushLabels>
</View>
"""
_Side = Annotated[int, Field(ge=1, le=LARGEST_SIDE)]


class _Value(BaseModel):
    points: list[tuple[float, float]] | None = None
    rle: list[int] | None = None
    format: str | None = None
    polygonlabels: list[str] = []
    brushlabels: list[str] = []


class _Result(BaseModel):
    type: str
    original_width: _Side
    original_height: _Side
    image_rotation: float = 0
    value: _Value


class _Annotation(BaseModel):
    result: list[_Result]
    was_cancelled: bool = False
    ground_truth: bool = False


class _Data(BaseModel):
    image: str


class _Task(BaseModel):
    data: _Data
    annotations: list[_Annotation]


class LabelStudio(Format):
    """Label Studio."""

    key = "labelstudio"
    title = "Label Studio"
    loses = (Loss.GAPS,)

    def files(self, frame: LabelledFrame) -> list[str]:  # noqa: ARG002
        return []

    def summary_files(self, frames: Sequence[LabelledFrame]) -> list[str]:  # noqa: ARG002
        return [_FILE, _CONFIG]

    def write(self, folder: Path, frame: LabelledFrame, mask: Mask) -> Record:  # noqa: ARG002
        common = {
            "to_name": "image",
            "original_width": frame.width,
            "original_height": frame.height,
            "image_rotation": 0,
        }
        results = [
            {"id": f"part{part.label}"} | common | _result(part, mask) for part in parts_of(mask)
        ]
        return {
            "data": {"image": _LOCAL + quote(_path(frame))},
            "annotations": [{"result": results}],
        }

    def finish(
        self,
        folder: Path,
        frames: Sequence[LabelledFrame],  # noqa: ARG002
        records: Callable[[], Iterator[Record]],
        still_wanted: Callable[[], None],
    ) -> None:
        (folder / _CONFIG).write_text(_INTERFACE, encoding="utf-8")
        with (folder / _FILE).open("w", encoding="utf-8") as file:
            for line in lines_of_list(records()):
                still_wanted()
                file.write(line)

    def read(self, path: Path) -> Iterator[ImportedMask]:
        file = file_of(path, _FILE)
        try:
            tasks = TypeAdapter(list[_Task]).validate_python(read_json(file))
        except ValidationError as error:
            raise InputError(
                f"{file} holds no tasks of Label Studio ({first_problem(error)}); export it again."
            ) from error
        for task in tasks:
            given = [one for one in task.annotations if not one.was_cancelled]
            # A task that nobody has finished says nothing of polyps.
            if given:
                name = _name(task.data.image, file)
                yield _imported(task.data, _chosen(given, name, file).result, file)


def _path(frame: LabelledFrame) -> str:
    if frame.file is None:
        return f"{_FOLDER_OF_COCO}/{frame.file_name}"
    depth = frame.file_name.count("/") + 2
    return f"{unicode_name(frame.file.absolute().parts[-depth:][0])}/{frame.file_name}"


def _result(part: Part, mask: Mask) -> Record:
    height, width = mask.shape
    label = [IGNORED if part.label == IGNORE else POLYP]
    outline = outline_of(part)
    if outline is not None:
        points = (outline / (width, height) * 100).tolist()
        value: Record = {"points": points, "closed": True, "polygonlabels": label}
        return {"type": "polygonlabels", "from_name": "polygon", "value": value}
    brush = encode_brush(mask == part.label)
    value = {"format": "rle", "rle": brush, "brushlabels": label}
    return {"type": "brushlabels", "from_name": "brush", "value": value}


def _name(image: str, file: Path) -> str:
    return check_file_name(unquote(_UPLOADED.sub("", image.removeprefix(_LOCAL))), file)


def _chosen(given: Sequence[_Annotation], name: str, file: Path) -> _Annotation:
    """Choose the annotation of a task: its only one, or the only one marked as ground truth."""
    marked = [one for one in given if one.ground_truth] if len(given) > 1 else given
    if len(marked) == 1:
        return marked[0]
    raise InputError(
        f"{file} has {len(given)} annotations of {name}, {len(marked) or 'none'} of them marked as "
        "ground truth; mark the one that counts with the star of Label Studio, or delete the "
        "others, and export again."
    )


def _imported(data: _Data, results: Sequence[_Result], file: Path) -> ImportedMask:
    name = _name(data.image, file)
    sizes = {(one.original_height, one.original_width) for one in results}
    if len(sizes) > 1 or any(one.image_rotation for one in results):
        raise InputError(f"{file}: {name} was turned or has several sizes; turn it back first.")

    def read(size: tuple[int, int]) -> Mask:
        regions = []
        for one in results:
            labels = one.value.polygonlabels + one.value.brushlabels
            is_ignored = IGNORED in (label.casefold() for label in labels)
            regions.append((is_ignored, _region(one, size, file, name)))
        return join(regions, size, file, name)

    size = next(iter(sizes), None)
    # The first folder is that of the storage, or the storage is the folder of the frames itself.
    shorter = name.partition("/")[2] if data.image.startswith(_LOCAL) else ""
    names = (shorter, name) if shorter else (name,)
    return ImportedMask(names[0], file, size, read, is_file_name=True, other_names=names[1:])


def _region(result: _Result, size: tuple[int, int], file: Path, name: str) -> NDArray[np.bool_]:
    height, width = size
    value = result.value
    if result.type == "polygonlabels" and value.points is not None:
        shares: list[Any] = [part for point in value.points for part in point]
        points = as_points(shares, file, name) / 100 * (width, height)
        return fill([points], size, file, name)
    if result.type == "brushlabels" and value.rle is not None and value.format == "rle":
        return decode_brush(value.rle, size, file, name)
    raise InputError(
        f"{file}: {name} has a result of type {result.type[:40]!r}; only polygons and brushes "
        "can be read."
    )
