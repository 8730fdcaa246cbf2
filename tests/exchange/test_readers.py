"""Every format read by the reader of its own ecosystem, or by its documented rules."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from urllib.parse import unquote

import cv2
import nibabel
import numpy as np
import pytest
import tifffile
import yaml
from defusedxml.ElementTree import parse
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays
from labelled_help import make_session
from PIL import Image
from scipy import ndimage

from napari_microaunet.errors import InputError
from napari_microaunet.exchange.export import export
from napari_microaunet.exchange.formats import find_format
from napari_microaunet.exchange.labelled import labels_of_session
from napari_microaunet.exchange.places import flat_name
from napari_microaunet.exchange.regions import outlines, through_centres
from napari_microaunet.frames import open_frames
from napari_microaunet.frames.masks import IGNORE

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from label_studio_converter.brush import decode_rle


@pytest.fixture(scope="module", params=(3, 8))
def labelled(request, tmp_path_factory):
    """A session, its masks by name, and a function that exports it; two different ones."""
    folder = tmp_path_factory.mktemp("labelled")
    session, masks = make_session(folder, request.param)

    def write(key, divide=False):
        out = folder / key
        if not out.exists():
            export(labels_of_session(session, divide=divide), find_format(key), out)
        return out

    with session:
        yield session, masks, write


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.mark.parametrize("key", ["kvasir", "cvc"])
def test_layouts_are_opened_with_their_masks(labelled, key):
    session, masks, write = labelled
    sequence = open_frames(write(key))
    by_name = {frame.name: index for index, frame in enumerate(sequence.frames)}
    for index, frame in enumerate(session.sequence.frames):
        found = by_name[flat_name(frame.name)]
        np.testing.assert_array_equal(sequence.read(found), session.sequence.read(index))
        polyps = (masks[frame.name] > 0) & (masks[frame.name] < IGNORE)
        np.testing.assert_array_equal(sequence.read_mask(found), polyps)


def test_boxes_of_kvasir_are_around_the_polyps(labelled):
    _, masks, write = labelled
    boxes = json.loads((write("kvasir") / "kavsir_bboxes.json").read_text())
    for name, mask in masks.items():
        found = boxes[flat_name(name)]
        assert (found["height"], found["width"]) == mask.shape
        polyps = np.where(mask == IGNORE, 0, mask)
        expected = [
            (box[1].start, box[0].start, box[1].stop, box[0].stop)
            for box in ndimage.find_objects(polyps)
        ]
        assert [(b["xmin"], b["ymin"], b["xmax"], b["ymax"]) for b in found["bbox"]] == expected


def test_yolo_reads_outlines_as_ultralytics_fills_them(labelled):
    _, masks, write = labelled
    out = write("yolo", divide=True)
    data = yaml.safe_load((out / "data.yaml").read_text())
    assert data["names"] == {0: "polyp"}
    seen = set()
    for split in {data["train"], data["val"]}:
        for image in (out / split).iterdir():
            seen.add(image.stem)
            with Image.open(image) as picture:
                width, height = picture.size
            mask = next(mask for name, mask in masks.items() if flat_name(name) == image.stem)
            assert mask.shape == (height, width)
            filled = np.zeros(mask.shape, np.uint8)
            labels = str(image.with_suffix(".txt")).replace("/images/", "/labels/")
            with Path(labels).open() as file:
                for line in file:
                    shares = np.array(line.split()[1:], float).reshape(-1, 2)
                    assert line.startswith("0 ")
                    assert len(shares) >= 3
                    assert shares.min() >= 0
                    assert shares.max() <= 1
                    points = (shares * (width, height)).astype(np.int32)
                    cv2.fillPoly(filled, [points], 1)
            polyps = np.where(mask == IGNORE, 0, mask)
            expected = np.zeros(mask.shape, bool)
            for label in np.unique(polyps[polyps > 0]):
                # A hole is what is enclosed where pixels may touch at their corners.
                expected |= ndimage.binary_fill_holes(polyps == label)
            np.testing.assert_array_equal(filled > 0, expected)
    assert seen == {flat_name(name) for name in masks}


regions = arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12))


@settings(max_examples=200, deadline=None)
@given(regions)
def test_opencv_fills_outlines_through_centres_to_the_same_pixels(region):
    filled = np.zeros(region.shape, np.uint8)
    for corners in outlines(region, diagonals=True)[0]:
        cv2.fillPoly(filled, [through_centres(corners).astype(np.int32)], 1)
    np.testing.assert_array_equal(filled > 0, ndimage.binary_fill_holes(region))


def test_voc_holds_numbers_and_classes_in_its_palette(labelled):
    _, masks, write = labelled
    out = write("voc", divide=True)
    sets = {path.stem: path.read_text().splitlines() for path in (out / "ImageSets").rglob("*.txt")}
    assert sorted(sets["train"] + sets["val"]) == sorted(sets["trainval"])
    assert sorted(sets["trainval"]) == sorted(map(flat_name, masks))
    for name, mask in masks.items():
        flat = flat_name(name)
        assert pixels(out / "JPEGImages" / f"{flat}.jpg").shape == (*mask.shape, 3)
        np.testing.assert_array_equal(pixels(out / "SegmentationObject" / f"{flat}.png"), mask)
        classes = pixels(out / "SegmentationClass" / f"{flat}.png")
        np.testing.assert_array_equal(classes, np.where(mask == IGNORE, IGNORE, mask > 0))
        with Image.open(out / "SegmentationClass" / f"{flat}.png") as image:
            palette = image.getpalette()
        # The first colours of VOC's devkit: black, dark red, dark green, olive; void is cream.
        assert palette[:12] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]
        assert palette[-3:] == [224, 224, 192]


@pytest.mark.parametrize("key", ["tiff", "ome-tiff", "nifti"])
def test_stacks_hold_masks_and_names(labelled, key):
    _, masks, write = labelled
    seen = set()
    for names in write(key).glob("masks*.json"):
        stem = names.with_suffix("")
        if key == "nifti":
            volume = np.asarray(nibabel.load(f"{stem}.nii.gz").dataobj).T
        else:
            suffix = ".tif" if key == "tiff" else ".ome.tif"
            with tifffile.TiffFile(f"{stem}{suffix}") as file:
                assert file.is_imagej if key == "tiff" else file.is_ome
                volume = file.asarray()
                listed = json.loads(names.read_text())
                if key == "tiff" and len(listed) > 1:
                    assert file.imagej_metadata["Labels"] == listed
        for number, name in enumerate(json.loads(names.read_text())):
            seen.add(name)
            mask = volume if volume.ndim == 2 else volume[number]
            np.testing.assert_array_equal(mask, masks[name])
    assert seen == masks.keys()


def test_cvat_holds_polygons_and_masks_by_its_rules(labelled):
    _, masks, write = labelled
    root = parse(write("cvat") / "annotations.xml").getroot()
    assert root.findtext("version") == "1.1"
    assert [one.findtext("name") for one in root.iter("label")] == ["polyp", "ignore"]
    images = root.findall("image")
    assert [int(image.get("id")) for image in images] == list(range(len(masks)))
    for image in images:
        mask = masks[image.get("name").removesuffix(".png")]
        assert (int(image.get("height")), int(image.get("width"))) == mask.shape
        read, number = np.zeros_like(mask), 0
        for shape in image:
            region = np.zeros(mask.shape, np.uint8)
            if shape.tag == "polygon":
                points = np.array([p.split(",") for p in shape.get("points").split(";")], float)
                # Along the sides of pixels, so pixels inside are what OpenCV fills half a pixel in.
                big = np.zeros(np.array(mask.shape) * 2 + 1, np.uint8)
                cv2.fillPoly(big, [(points * 2).astype(np.int32)], 1)
                region = big[1::2, 1::2]
            else:
                runs = [int(run) for run in shape.get("rle").split(",")]
                left, top, width, height = (
                    int(shape.get(key)) for key in ("left", "top", "width", "height")
                )
                flat = np.repeat(np.arange(len(runs)) % 2, runs)
                region[top : top + height, left : left + width] = flat.reshape(height, width)
            number += shape.get("label") == "polyp"
            read[region > 0] = number if shape.get("label") == "polyp" else IGNORE
        np.testing.assert_array_equal(read, mask)


def test_label_studio_decodes_the_brushes(labelled):
    session, masks, write = labelled
    brushes = 0
    for task in json.loads((write("labelstudio") / "tasks.json").read_text()):
        path = unquote(task["data"]["image"]).partition("?d=")[2]
        # From the root that Label Studio wants around the folder of the frames.
        assert (session.sequence.path.parent / path).is_file()
        name = path.removeprefix("frames/").removesuffix(".png")
        mask, number = masks[name], 0
        for result in task["annotations"][0]["result"]:
            height, width = result["original_height"], result["original_width"]
            assert (height, width) == mask.shape
            value = result["value"]
            ignored = value.get("brushlabels", value.get("polygonlabels")) == ["ignore"]
            number += not ignored
            region = mask == (IGNORE if ignored else number)
            if result["type"] == "brushlabels":
                brushes += 1
                decoded = decode_rle(value["rle"]).reshape(height, width, 4)[:, :, 3]
                np.testing.assert_array_equal(decoded > 0, region)
            else:
                points = np.array(value["points"]) / 100 * (width, height)
                rows, columns = np.nonzero(region)
                box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                found = [*points.min(axis=0), *points.max(axis=0)]
                np.testing.assert_allclose(found, box, atol=1e-9)
    assert brushes


def test_a_stack_beyond_imagej_is_refused_before_anything_is_written(labelled, tmp_path):
    session, _, _ = labelled
    labels = labels_of_session(session)
    huge = [
        type(frame)(**{**vars(frame), "height": 8000, "width": 8000}) for frame in labels.frames
    ]
    many = type(labels)(labels.source, tuple(huge * 20))
    with pytest.raises(InputError, match="ome-tiff"):
        export(many, find_format("tiff"), tmp_path / "out")
    assert not list(tmp_path.iterdir())
