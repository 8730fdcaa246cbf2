from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays
from labelled_help import make_session
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO

from napari_microaunet.exchange.coco import Coco
from napari_microaunet.exchange.export import export
from napari_microaunet.exchange.labelled import labels_of_session
from napari_microaunet.exchange.regions import coco_counts, outlines, to_coco_rle
from napari_microaunet.frames.masks import IGNORE

regions = arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12))


@pytest.mark.parametrize("seed", range(4))
def test_pycocotools_reads_the_same_masks_areas_and_boxes(tmp_path, seed):
    session, masks = make_session(tmp_path, seed)
    with session:
        export(labels_of_session(session, divide=True), Coco(), tmp_path / "out")
    seen = set()
    for file in (tmp_path / "out" / "annotations").iterdir():
        coco = COCO(str(file))
        for image in coco.loadImgs(coco.getImgIds()):
            name = image["file_name"].removesuffix(".png")
            mask, read = masks[name], np.zeros_like(masks[name])
            seen.add(name)
            assert (tmp_path / "out" / "images" / image["file_name"]).is_file()
            found = coco.loadAnns(coco.getAnnIds(image["id"]))
            assert len(found) == len(np.unique(mask[mask > 0]))
            for number, one in enumerate(found, start=1):
                region = coco.annToMask(one) > 0
                read[region] = IGNORE if one["iscrowd"] else number
                assert one["area"] == region.sum()
                rows, columns = np.nonzero(region)
                left, top = columns.min(), rows.min()
                box = [left, top, columns.max() - left + 1, rows.max() - top + 1]
                assert one["bbox"] == box
            np.testing.assert_array_equal(read, mask)
    assert seen == masks.keys()


@settings(max_examples=200, deadline=None)
@given(regions)
def test_outlines_are_filled_to_the_pixels_they_were_drawn_around(region):
    outer, holes = outlines(region)
    filled = np.zeros(region.shape, np.uint8)
    for points in outer + holes:
        polygon = coco_masks.frPyObjects([points.ravel().tolist()], *region.shape)
        filled ^= coco_masks.decode(polygon)[:, :, 0]
    np.testing.assert_array_equal(filled, region)


@settings(max_examples=200, deadline=None)
@given(regions)
def test_compressed_counts_are_read_as_pycocotools_reads_them(region):
    counts = coco_counts(to_coco_rle(region)["counts"], None, "")
    pixels = np.repeat(np.arange(len(counts)) % 2, counts).reshape(region.shape[::-1]).T
    np.testing.assert_array_equal(pixels, region)


def test_a_polyp_without_holes_is_a_polygon_that_people_can_edit(tmp_path):
    session, _ = make_session(tmp_path, names=("a",))
    with session:
        mask = np.zeros_like(session.chunks.mask(0))
        mask[1:4, 2:7] = 1
        session.put_mask(0, mask, session.origin(0))
        session.accept([0])
        export(labels_of_session(session), Coco(), tmp_path / "out")
    found = json.loads((tmp_path / "out/annotations/instances_train.json").read_text())
    [annotation] = found["annotations"]
    [polygon] = annotation["segmentation"]
    corners = {(x, y) for x, y in zip(polygon[::2], polygon[1::2], strict=True)}
    assert corners == {(2, 1), (7, 1), (7, 4), (2, 4)}


def test_a_number_of_the_frame_by_another_tool_is_not_taken_for_its_name(tmp_path):
    session, masks = make_session(tmp_path, names=("case 3/12",))
    with session:
        export(labels_of_session(session), Coco(), tmp_path / "out")
    file = tmp_path / "out/annotations/instances_train.json"
    content = json.loads(file.read_text())
    assert content["images"][0]["frame"] == "case 3/12"
    for number in (12, 12.0, ["12"], None):
        content["images"][0]["frame"] = number
        file.write_text(json.dumps(content))
        [found] = Coco().read(file)
        assert (found.name, found.is_file_name) == ("case 3/12.png", True)
        np.testing.assert_array_equal(found.read(found.size) > 0, masks["case 3/12"] > 0)
