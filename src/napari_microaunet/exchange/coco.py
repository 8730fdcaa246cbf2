"""COCO instances: an annotation per polyp, regions to ignore as crowds (which scores leave out).

::

    OUT/images/NAME.jpg
    OUT/annotations/instances_train.json     and _val, _test

An outline without holes is a polygon along the sides of pixels, which pycocotools fills to the
same pixels; all else is a compressed mask.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pycocotools import mask as coco_masks
from pydantic import BaseModel, Field, ValidationError

from napari_microaunet.errors import InputError, first_problem
from napari_microaunet.exchange.base import (
    IGNORED,
    POLYP,
    SPLIT_NAMES,
    Format,
    ImportedMask,
    Loss,
)
from napari_microaunet.exchange.frame_files import store_frame, suffix_if_copied
from napari_microaunet.exchange.json_files import lines_of_list, read_json
from napari_microaunet.exchange.places import check_file_name, files_below, folder_of, target_file
from napari_microaunet.exchange.regions import (
    LONGEST_OUTLINE,
    as_counts,
    as_points,
    coco_counts,
    fill,
    from_counts,
    join,
    length_of,
    outlines,
    parts_of,
    to_coco_rle,
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

# Every version of ours has described its files so.
_OURS = "polyps"
_CATEGORIES = [{"id": 1, "name": POLYP, "supercategory": POLYP}]
_Side = Annotated[int, Field(ge=1, le=LARGEST_SIDE)]


class _Image(BaseModel):
    id: int
    file_name: str
    # Ours is the name of the frame; other tools have numbers under the same key.
    frame: Any = None
    height: _Side
    width: _Side


class _Rle(BaseModel):
    size: list[int]
    counts: str | list[int]


class _Annotation(BaseModel):
    image_id: int
    category_id: int
    segmentation: _Rle | list[list[float]]
    iscrowd: bool = False


class _Category(BaseModel):
    id: int
    name: str


class _Instances(BaseModel):
    info: Any = None
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category] = []


class Coco(Format):
    """COCO instances."""

    key = "coco"
    title = "COCO instances"
    loses = (Loss.GAPS,)
    divides = True
    remark = "Regions to ignore become crowds, which scores of COCO leave out."

    def files(self, frame: LabelledFrame) -> list[str]:
        return [f"images/{frame.name}{suffix_if_copied(frame) or '.png'}"]

    def summary_files(self, frames: Sequence[LabelledFrame]) -> list[str]:
        splits = {frame.split for frame in frames}
        return [_file_of(split) for split in SPLIT_NAMES if split in splits]

    def write(self, folder: Path, frame: LabelledFrame, mask: Mask) -> Record:
        stored = store_frame(frame, folder, f"images/{frame.name}")
        return {
            "split": frame.split,
            "image": {
                "file_name": stored.removeprefix("images/"),
                # a.png may be of a.jpg, turned, while another frame is a.png.
                "frame": frame.name,
                "height": frame.height,
                "width": frame.width,
            },
            "annotations": [_annotation(part, mask == part.label) for part in parts_of(mask)],
        }

    def finish(
        self,
        folder: Path,
        frames: Sequence[LabelledFrame],
        records: Callable[[], Iterator[Record]],
        still_wanted: Callable[[], None],
    ) -> None:
        def images(split: str) -> Iterator[Record]:
            for number, record in enumerate(records(), start=1):
                still_wanted()
                if record["split"] == split:
                    yield {"id": number} | record["image"]

        def annotations(split: str) -> Iterator[Record]:
            number = 0
            for image, record in enumerate(records(), start=1):
                still_wanted()
                for annotation in record["annotations"]:
                    number += 1
                    if record["split"] == split:
                        yield {"id": number, "image_id": image} | annotation

        for split in SPLIT_NAMES:
            if not any(frame.split == split for frame in frames):
                continue
            with target_file(folder, _file_of(split)).open("w", encoding="utf-8") as file:
                file.write(
                    f'{{"info": {{"description": "{_OURS}"}}, "licenses": [], "categories": '
                )
                file.writelines(lines_of_list(iter(_CATEGORIES)))
                file.write(',\n"images": ')
                file.writelines(lines_of_list(images(split)))
                file.write(',\n"annotations": ')
                file.writelines(lines_of_list(annotations(split)))
                file.write("}\n")

    def read(self, path: Path) -> Iterator[ImportedMask]:
        folder = folder_of(path, "annotations")
        files = [path] if path.is_file() else []
        if folder != path:
            files = [file for _, file in files_below(folder, frozenset({".json"}))]
        if not files:
            raise InputError(
                f"{path} holds no annotations/*.json; give a COCO file, or a folder with some."
            )
        for file in files:
            yield from _read(file)


def _file_of(split: str) -> str:
    return f"annotations/instances_{SPLIT_NAMES[split]}.json"


def _annotation(part: Part, region: NDArray[np.bool_]) -> Record:
    rle = to_coco_rle(region)
    outer, holes = outlines(part.region)
    as_polygons = part.label != IGNORE and not holes
    if as_polygons and all(length_of(points) <= LONGEST_OUTLINE for points in outer):
        moved = [np.add(points, (part.left, part.top)).astype(int) for points in outer]
        segmentation: Any = [points.ravel().tolist() for points in moved]
    else:
        segmentation = rle
    return {
        "category_id": 1,
        "iscrowd": int(part.label == IGNORE),
        "area": int(coco_masks.area(rle)),
        "bbox": coco_masks.toBbox(rle).tolist(),
        "segmentation": segmentation,
    }


def _read(file: Path) -> Iterator[ImportedMask]:
    try:
        found = _Instances.model_validate(read_json(file))
    except ValidationError as error:
        raise InputError(
            f"{file} holds no COCO instances ({first_problem(error)}); correct or export it again."
        ) from error
    is_ours = isinstance(found.info, dict) and found.info.get("description") == _OURS
    ignored = {one.id for one in found.categories if one.name.casefold() == IGNORED}
    by_image = defaultdict(list)
    for annotation in found.annotations:
        by_image[annotation.image_id].append(annotation)
    strangers = by_image.keys() - {image.id for image in found.images}
    if strangers or len({image.id for image in found.images}) < len(found.images):
        raise InputError(
            f"{file} has annotations of an image that it does not list, or lists one twice; "
            "export it again."
        )
    for image in found.images:
        by_frame = isinstance(image.frame, str)
        name = check_file_name(image.frame if by_frame else image.file_name, file)

        def read(
            size: tuple[int, int],
            name: str = name,
            annotations: Sequence[_Annotation] = tuple(by_image[image.id]),
        ) -> Mask:
            # Of other tools, CVAT calls all that was drawn with a brush a crowd.
            regions = [
                (
                    one.category_id in ignored or (one.iscrowd and is_ours),
                    _region(one.segmentation, size, file, name),
                )
                for one in annotations
            ]
            return join(regions, size, file, name)

        size = image.height, image.width
        yield ImportedMask(name, file, size, read, is_file_name=not by_frame)


def _region(
    segmentation: _Rle | list[list[float]], size: tuple[int, int], file: Path, name: str
) -> NDArray[np.bool_]:
    if not segmentation:
        raise InputError(
            f"{file}: {name} has a box without an outline; only polygons and masks can be read."
        )
    if isinstance(segmentation, list):
        return fill([as_points(one, file, name) for one in segmentation], size, file, name)
    if segmentation.size != [*size]:
        raise InputError(
            f"{file}: the mask of {name} is of another size than its image; export it again."
        )
    found = segmentation.counts
    if isinstance(found, str):
        counts = coco_counts(found, file, name)
    else:
        counts = as_counts(found, file, name)
    return from_counts(counts, size, file, name)
