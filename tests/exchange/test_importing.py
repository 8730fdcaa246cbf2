"""Labels as other tools leave them, not as we write them."""

from __future__ import annotations

import json
from urllib.parse import unquote

import cv2
import numpy as np
import pytest
import tifffile
from defusedxml.ElementTree import parse
from labelled_help import emptied, make_session, masks_of
from PIL import Image

from napari_microaunet.curation.session import MaskOrigin, ReviewState, Session
from napari_microaunet.errors import InputError
from napari_microaunet.exchange.export import export
from napari_microaunet.exchange.formats import FORMATS, find_format
from napari_microaunet.exchange.importing import import_labels
from napari_microaunet.exchange.labelled import labels_of_session
from napari_microaunet.frames import open_frames
from napari_microaunet.frames.masks import IGNORE

BLOB = np.zeros((20, 30), np.uint8)
BLOB[4:9, 5:12] = 1


@pytest.fixture
def session(tmp_path):
    """A session on three frames of 20 x 30 px, without masks."""
    folder = tmp_path / "frames"
    for name in ("a", "b", "case 3/c"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 20), "red").save(folder / f"{name}.png")
    with Session(open_frames(folder)) as session:
        yield session


def take(session, key, path):
    return import_labels(session, find_format(key), path)


def test_stacks_without_names_are_taken_in_the_order_of_the_frames(session, tmp_path):
    stack = np.stack([BLOB * 0, BLOB, BLOB * 2])
    tifffile.imwrite(tmp_path / "x.tif", stack, photometric="minisblack")
    summary = take(session, "tiff", tmp_path / "x.tif")
    assert (summary.frames, summary.empty, summary.untouched) == (3, 1, 0)
    for mask, expected in zip(masks_of(session).values(), stack, strict=True):
        np.testing.assert_array_equal(mask, expected)
    tifffile.imwrite(tmp_path / "y.tif", stack[:2], photometric="minisblack")
    with pytest.raises(InputError, match="3 frames"):
        take(session, "tiff", tmp_path / "y.tif")


def test_white_in_stacks_of_others_is_polyp(session, tmp_path):
    tifffile.imwrite(tmp_path / "x.tif", np.stack([BLOB * 255] * 3), photometric="minisblack")
    take(session, "tiff", tmp_path / "x.tif")
    np.testing.assert_array_equal(session.chunks.mask(0), BLOB)


def test_pages_of_another_size_are_refused(session, tmp_path):
    with tifffile.TiffWriter(tmp_path / "x.tif") as file:
        for size in ((20, 30), (20, 30), (21, 30)):
            file.write(np.zeros(size, np.uint8), photometric="minisblack")
    with pytest.raises(InputError, match="several sizes"):
        take(session, "tiff", tmp_path / "x.tif")


def test_frames_that_are_not_named_keep_what_they_have(session, tmp_path):
    session.put_mask(1, BLOB, MaskOrigin.HAND)
    (tmp_path / "masks" / "case 3").mkdir(parents=True)
    Image.fromarray(BLOB * 255).save(tmp_path / "masks" / "case 3" / "c.png")
    summary = take(session, "png", tmp_path / "masks")
    assert (summary.frames, summary.untouched) == (1, 2)
    np.testing.assert_array_equal(session.chunks.mask(1), BLOB)
    np.testing.assert_array_equal(session.chunks.mask(2), BLOB)
    assert session.origin(2) is MaskOrigin.FILE


@pytest.mark.parametrize(
    ("origin", "decide", "kept"),
    [
        (MaskOrigin.HAND, lambda session: session.exclude([2], "blurred"), True),
        (MaskOrigin.FILE, None, True),
        (MaskOrigin.PROPAGATED, None, True),
        (MaskOrigin.MODEL, lambda session: session.accept([2]), True),
        (MaskOrigin.MODEL, None, False),
    ],
)
def test_masks_that_are_the_users_are_replaced_only_when_asked(
    session, tmp_path, origin, decide, kept
):
    mask = np.roll(BLOB, 5)
    session.put_mask(2, mask, origin)
    if decide is not None:
        decide(session)
    (tmp_path / "masks" / "case 3").mkdir(parents=True)
    Image.fromarray(BLOB * 255).save(tmp_path / "masks" / "case 3" / "c.png")
    if kept:
        with pytest.raises(InputError, match="the first of case 3/c"):
            take(session, "png", tmp_path / "masks")
        np.testing.assert_array_equal(session.chunks.mask(2), mask)
    import_labels(session, find_format("png"), tmp_path / "masks", overwrite=kept)
    np.testing.assert_array_equal(session.chunks.mask(2), BLOB)


def test_masks_of_frames_that_are_not_there_are_named(session, tmp_path):
    (tmp_path / "masks").mkdir()
    for name in ("a", "z1", "z2"):
        Image.fromarray(BLOB * 255).save(tmp_path / "masks" / f"{name}.png")
    with pytest.raises(InputError, match=r"2 frames .*z1, z2"):
        take(session, "png", tmp_path / "masks")
    assert not any(mask.any() for mask in masks_of(session).values())


def test_a_class_called_ignore_is_ignored_in_yolo(session, tmp_path):
    (tmp_path / "x" / "labels").mkdir(parents=True)
    (tmp_path / "x" / "data.yaml").write_text("names: [polyp, Ignore]\n")
    outline = "0.2 0.2 0.5 0.2 0.5 0.6"
    (tmp_path / "x" / "labels" / "a.txt").write_text(f"1 {outline}\n0 0.7 0.7 0.9 0.7 0.9 0.9\n")
    (tmp_path / "x" / "labels" / "b.txt").write_text("")
    assert take(session, "yolo", tmp_path / "x").empty == 1
    assert set(np.unique(session.chunks.mask(0))) == {0, 1, IGNORE}


def test_label_studio_s_uploads_find_their_frames_and_skipped_tasks_say_nothing(session, tmp_path):
    def task(image, annotations):
        return {"id": 7, "data": {"image": image}, "annotations": annotations}

    value = {"points": [[10, 10], [50, 10], [50, 50], [10, 50]], "polygonlabels": ["Polyp"]}
    polygon = {
        "type": "polygonlabels",
        "original_width": 30,
        "original_height": 20,
        "value": value,
    }
    tasks = [
        task(
            "/data/upload/12/0a1b2c3d-a.png",
            [{"result": [polygon]}, {"result": [], "was_cancelled": True}],
        ),
        task("b.png", [{"result": [polygon], "was_cancelled": True}]),
        task("/data/local-files/?d=stills/case%203/c.png", [{"result": []}]),
    ]
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    summary = take(session, "labelstudio", tmp_path / "tasks.json")
    assert (summary.frames, summary.empty, summary.untouched) == (2, 1, 1)
    expected = np.zeros_like(BLOB)
    expected[2:10, 3:15] = 1
    np.testing.assert_array_equal(session.chunks.mask(0), expected)


def test_of_several_annotations_in_label_studio_the_ground_truth_is_taken(session, tmp_path):
    value = {"points": [[10, 10], [50, 10], [50, 50], [10, 50]], "polygonlabels": ["polyp"]}
    size = {"original_width": 30, "original_height": 20}
    polygon = {"type": "polygonlabels", **size, "value": value}
    file = tmp_path / "tasks.json"

    def write(*marks):
        results = ([polygon], [], [])
        annotations = [
            {"result": result, "ground_truth": mark}
            for result, mark in zip(results, marks, strict=False)
        ]
        file.write_text(json.dumps([{"data": {"image": "a.png"}, "annotations": annotations}]))

    for marks, found in (((False, False), "none of them"), ((True, False, True), "2 of them")):
        write(*marks)
        with pytest.raises(InputError, match=rf"tasks\.json has . annotations of a\.png, {found}"):
            take(session, "labelstudio", file)
    write(True, False, False)
    assert take(session, "labelstudio", file).empty == 0
    assert session.chunks.mask(0).any()


@pytest.mark.parametrize("opened", ["images", ".", "images/train"])
def test_yolo_finds_frames_whichever_folder_of_it_was_opened(tmp_path, opened):
    folder = tmp_path / "yolo"
    for split, name in (("train", "a"), ("train", "b"), ("val", "c")):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 20), "red").save(folder / "images" / split / f"{name}.png")
        label = folder / "labels" / split / f"{name}.txt"
        label.write_text("0 0.2 0.2 0.5 0.2 0.5 0.6\n")
    (folder / "data.yaml").write_text("names: [polyp]\n")
    with Session(open_frames(folder / opened), tmp_path / "a.microaunet") as session:
        if opened == "images/train":
            with pytest.raises(InputError, match=r"1 frames that are not in .*: c;"):
                take(session, "yolo", folder)
            assert take(session, "yolo", folder / "labels" / "train").frames == 2
        else:
            assert take(session, "yolo", folder).frames == 3
        assert all(mask.any() for mask in masks_of(session).values())


def test_coco_s_uncompressed_runs_and_a_category_ignore_are_read(session, tmp_path):
    runs = [5, 10, 585]
    image = {"id": 9, "file_name": "a.jpg", "height": 20, "width": 30, "licence": 3}
    one = {
        "id": 1,
        "image_id": 9,
        "category_id": 4,
        "iscrowd": 0,
        "segmentation": {"size": [20, 30], "counts": runs},
    }
    content = {
        "images": [image],
        "annotations": [one],
        "categories": [{"id": 4, "name": "Ignore"}],
    }
    (tmp_path / "x.json").write_text(json.dumps(content))
    take(session, "coco", tmp_path / "x.json")
    mask = session.chunks.mask(0)
    assert (mask[5:15, 0] == IGNORE).all()
    assert np.count_nonzero(mask) == 10


def test_a_read_only_session_is_left_alone(tmp_path):
    session, _ = make_session(tmp_path)
    session.flush()
    export(labels_of_session(session), find_format("labels"), tmp_path / "out")
    with session, Session(open_frames(tmp_path / "frames"), session.folder) as looking:
        with pytest.raises(InputError, match="open"):
            import_labels(looking, find_format("labels"), tmp_path / "out", overwrite=True)
        again = labels_of_session(looking)
        assert len(again.frames) == len(session.sequence)
    session.close()
    with emptied(tmp_path, session) as second:
        assert import_labels(second, find_format("labels"), tmp_path / "out").untouched == 0


def test_white_in_a_black_and_white_image_of_voc_is_polyp(session, tmp_path):
    folder = tmp_path / "SegmentationClass"
    folder.mkdir()
    Image.fromarray(BLOB * 255).save(folder / "a.png")
    palette = Image.fromarray(BLOB * 255).convert("P")
    palette.putpalette([0, 0, 0] * 255 + [224, 224, 192])
    palette.save(folder / "b.png")
    take(session, "voc", tmp_path)
    np.testing.assert_array_equal(session.chunks.mask(0), BLOB)
    np.testing.assert_array_equal(session.chunks.mask(1), BLOB * IGNORE)


@pytest.mark.parametrize("key", ["tiff", "ome-tiff", "nifti"])
def test_our_stacks_are_known_without_their_names(session, tmp_path, key):
    """Else a frame with nothing but glare would have a polyp."""
    masks = [BLOB * IGNORE, BLOB + np.roll(BLOB, 9) * IGNORE, BLOB * 0]
    for index, mask in enumerate(masks):
        session.put_mask(index, mask, MaskOrigin.HAND)
    session.accept(range(3))
    export(labels_of_session(session), find_format(key), tmp_path / "out")
    (tmp_path / "out" / "masks.json").unlink()
    with emptied(tmp_path, session) as second:
        take(second, key, tmp_path / "out")
        for found, mask in zip(masks_of(second).values(), masks, strict=True):
            np.testing.assert_array_equal(found, mask)


def test_label_studio_is_given_frames_of_a_stack_where_coco_puts_them(tmp_path):
    tifffile.imwrite(tmp_path / "x.tif", np.zeros((2, 20, 30, 3), np.uint8), photometric="rgb")
    with Session(open_frames(tmp_path / "x.tif")) as session:
        session.put_mask(1, BLOB, MaskOrigin.HAND)
        session.accept([0, 1])
        labels = labels_of_session(session)
        for key in ("labelstudio", "coco"):
            export(labels, find_format(key), tmp_path / key)
        for task in json.loads((tmp_path / "labelstudio" / "tasks.json").read_text()):
            path = task["data"]["image"].partition("?d=")[2]
            assert (tmp_path / "coco" / path).is_file()
        with emptied(tmp_path, session) as second:
            assert take(second, "labelstudio", tmp_path / "labelstudio").frames == 2
            np.testing.assert_array_equal(second.chunks.mask(1), BLOB)


@pytest.fixture
def twins(tmp_path):
    """A session on a.bmp, a.jpg and a.png, which differ by ending alone, with a mask each."""
    folder = tmp_path / "twins"
    folder.mkdir()
    for suffix in ("bmp", "jpg", "png"):
        Image.new("RGB", (30, 20), "red").save(folder / f"a.{suffix}")
    with Session(open_frames(folder)) as session:
        for index in range(3):
            session.put_mask(index, np.roll(BLOB, 5 * index, axis=1), MaskOrigin.HAND)
        session.accept(range(3))
        yield session


def masks_by_file(session):
    files = [frame.source.name for frame in session.sequence.frames]
    return dict(zip(files, masks_of(session).values(), strict=True))


def named_in(tasks):
    return [unquote(task["data"]["image"]).partition("?d=")[2] for task in tasks]


def test_labels_find_the_file_that_they_name(twins, tmp_path):
    polygon = '<polygon label="polyp" points="5,4;12,4;12,9;5,9"/>'
    image = f'<image id="0" name="a.png" width="30" height="20">{polygon}</image>'
    (tmp_path / "annotations.xml").write_text(f"<annotations>{image}</annotations>")
    image = {"id": 1, "file_name": "a.png", "height": 20, "width": 30}
    outline = [[5, 4, 12, 4, 12, 9, 5, 9]]
    one = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": outline}
    (tmp_path / "x.json").write_text(json.dumps({"images": [image], "annotations": [one]}))
    for key, name in (("cvat", "annotations.xml"), ("coco", "x.json")):
        with Session(twins.sequence, tmp_path / f"{key}.microaunet") as session:
            assert take(session, key, tmp_path / name).frames == 1
            found = masks_by_file(session)
        np.testing.assert_array_equal(found.pop("a.png"), BLOB)
        assert not any(mask.any() for mask in found.values())


@pytest.mark.parametrize("key", [one.key for one in FORMATS])
def test_masks_of_files_that_differ_by_ending_come_back_to_their_own(twins, tmp_path, key):
    """Also one alone, whose copy in an export of COCO is called as another file."""
    for index, frame in enumerate(twins.sequence.frames):
        labels = labels_of_session(twins, names=frozenset([frame.name]))
        export(labels, find_format(key), tmp_path / frame.name)
        with Session(twins.sequence, tmp_path / f"{index}.microaunet") as session:
            assert take(session, key, tmp_path / frame.name).frames == 1
            np.testing.assert_array_equal(session.chunks.mask(index), twins.chunks.mask(index))


def test_cvat_and_label_studio_name_files_that_are_there(twins, tmp_path):
    labels = labels_of_session(twins)
    for key in ("cvat", "labelstudio"):
        export(labels, find_format(key), tmp_path / key)
    images = parse(tmp_path / "cvat" / "annotations.xml").getroot().iter("image")
    assert {image.get("name") for image in images} == {"a.bmp", "a.jpg", "a.png"}
    tasks = json.loads((tmp_path / "labelstudio" / "tasks.json").read_text())
    assert {*named_in(tasks)} == {"twins/a.bmp", "twins/a.jpg", "twins/a.png"}


@pytest.mark.parametrize(
    ("opened", "files", "named"),
    [
        ("set", ["images/0.png", "images/1.png"], ["images/0.png", "images/1.png"]),
        ("set/images", ["images/A/0.png", "images/B/1.png"], ["images/A/0.png", "images/B/1.png"]),
        ("set", ["A/images/0.png", "B/images/1.png"], ["set/A/images/0.png", "set/B/images/1.png"]),
    ],
)
def test_label_studio_is_given_files_of_one_folder(tmp_path, opened, files, named):
    for file in (tmp_path / "set" / file for file in files):
        file.parent.mkdir(parents=True, exist_ok=True)
        (file.parents[1] / "masks").mkdir(exist_ok=True)
        Image.new("RGB", (30, 20), "red").save(file)
    with Session(open_frames(tmp_path / opened), tmp_path / "s.microaunet") as session:
        session.put_mask(1, BLOB, MaskOrigin.HAND)
        session.accept([0, 1])
        export(labels_of_session(session), find_format("labelstudio"), tmp_path / "out")
        assert named_in(json.loads((tmp_path / "out" / "tasks.json").read_text())) == named
        with emptied(tmp_path, session) as second:
            assert take(second, "labelstudio", tmp_path / "out").frames == 2
            np.testing.assert_array_equal(second.chunks.mask(1), BLOB)


@pytest.mark.parametrize("key", [one.key for one in FORMATS])
def test_labels_of_files_whose_names_are_no_utf_8_come_back(tmp_path, rename_to_bytes, key):
    folder = tmp_path / "frames"
    (folder / "case").mkdir(parents=True)
    Image.new("RGB", (30, 20), "red").save(folder / "case" / "a.png")
    rename_to_bytes(folder / "case" / "a.png", b"Gr\xfcn.png")
    with Session(open_frames(rename_to_bytes(folder, b"B\xe4r"))) as session:
        session.put_mask(0, BLOB, MaskOrigin.HAND)
        session.accept([0])
        export(labels_of_session(session), find_format(key), tmp_path / "out")
        with emptied(tmp_path, session) as second:
            take(second, key, tmp_path / "out")
            np.testing.assert_array_equal(second.chunks.mask(0), BLOB)


def test_a_polyp_in_a_hole_that_yolo_fills_stays_and_keeps_its_number(session, tmp_path):
    mask = np.zeros((20, 30), np.uint8)
    mask[2:18, 2:18] = 2
    mask[5:15, 5:15] = 0
    mask[8:12, 8:12] = 1
    session.put_mask(0, mask, MaskOrigin.HAND)
    session.accept([0])
    export(labels_of_session(session), find_format("yolo"), tmp_path / "out")
    with emptied(tmp_path, session) as second:
        take(second, "yolo", tmp_path / "out")
        found = second.chunks.mask(0)
    mask[5:15, 5:15] = 2
    mask[8:12, 8:12] = 1
    np.testing.assert_array_equal(found, mask)


def test_slanting_outlines_of_yolo_are_filled_as_ultralytics_fills_them(session, tmp_path):
    points = np.array([[1, 11], [1, 10], [14, 6], [13, 13]])
    shares = " ".join(map(str, ((points + 0.5) / (30, 20)).ravel()))
    (tmp_path / "a.txt").write_text(f"0 {shares}\n")
    take(session, "yolo", tmp_path)
    expected = np.zeros((20, 30), np.uint8)
    cv2.fillPoly(expected, [points.astype(np.int32)], 1)
    np.testing.assert_array_equal(session.chunks.mask(0), expected)


def cvat_file(folder, *shapes):
    image = f'<image id="0" name="a.png" width="30" height="20">{"".join(shapes)}</image>'
    (folder / "annotations.xml").write_text(f"<annotations>{image}</annotations>")
    return folder / "annotations.xml"


def cvat_polygon(label, left, right, order=0):
    points = f"{left},4;{right},4;{right},9;{left},9"
    return f'<polygon label="{label}" z_order="{order}" points="{points}"/>'


@pytest.mark.parametrize(
    ("shapes", "shared"),
    [
        ([cvat_polygon("polyp", 5, 12), cvat_polygon("ignore", 8, 20)], IGNORE),
        ([cvat_polygon("ignore", 8, 20), cvat_polygon("polyp", 5, 12)], 1),
        ([cvat_polygon("ignore", 8, 20, order=1), cvat_polygon("polyp", 5, 12)], IGNORE),
    ],
)
def test_of_regions_that_overlap_the_upper_one_counts(session, tmp_path, shapes, shared):
    take(session, "cvat", cvat_file(tmp_path, *shapes))
    mask = session.chunks.mask(0)
    assert (mask[4:9, 5:8] == 1).all()
    assert (mask[4:9, 8:12] == shared).all()
    assert (mask[4:9, 12:20] == IGNORE).all()


def test_glare_marked_on_a_polyp_is_ignored_in_label_studio_and_yolo(session, tmp_path):
    def result(label, left, right):
        points = [[x, y] for x, y in ((left, 20), (right, 20), (right, 45), (left, 45))]
        value = {"points": points, "polygonlabels": [label]}
        size = {"original_width": 30, "original_height": 20}
        return {"type": "polygonlabels", **size, "value": value}

    annotations = [{"result": [result("polyp", 10, 50), result("ignore", 30, 50)]}]
    (tmp_path / "tasks.json").write_text(
        json.dumps([{"data": {"image": "a.png"}, "annotations": annotations}])
    )
    take(session, "labelstudio", tmp_path / "tasks.json")
    (tmp_path / "labels").mkdir()
    (tmp_path / "data.yaml").write_text("names: [polyp, ignore]\n")
    outlines = "0 0.1 0.2 0.5 0.2 0.5 0.45 0.1 0.45\n1 0.3 0.2 0.5 0.2 0.5 0.45 0.3 0.45\n"
    (tmp_path / "labels" / "b.txt").write_text(outlines)
    take(session, "yolo", tmp_path)
    for index in range(2):
        mask = session.chunks.mask(index)
        assert set(np.unique(mask[5:8, 4:8])) == {1}
        assert set(np.unique(mask[5:8, 10:14])) == {IGNORE}


@pytest.mark.parametrize("given", ["labels", "labels/train", "labels/train/a.txt"])
def test_a_class_called_ignore_is_known_from_within_an_export_of_yolo(session, tmp_path, given):
    (tmp_path / "x" / "labels" / "train").mkdir(parents=True)
    (tmp_path / "x" / "data.yaml").write_text("names: {0: polyp, 1: ignore}\n")
    (tmp_path / "x" / "labels" / "train" / "a.txt").write_text("1 0.2 0.2 0.5 0.2 0.5 0.6\n")
    take(session, "yolo", tmp_path / "x" / given)
    assert set(np.unique(session.chunks.mask(0))) == {0, IGNORE}


def test_what_cvat_s_brush_has_drawn_is_a_polyp_in_coco(session, tmp_path):
    """CVAT writes masks, and only these, as crowds (datumaro, ``coco/exporter.py``)."""
    image = {"id": 1, "file_name": "a.png", "height": 20, "width": 30}
    brush = {"size": [20, 30], "counts": [5, 10, 585]}
    one = {"image_id": 1, "category_id": 1, "iscrowd": 1, "segmentation": brush}
    categories = [{"id": 1, "name": "polyp"}]
    content = {"images": [image], "annotations": [one], "categories": categories}
    (tmp_path / "x.json").write_text(json.dumps(content))
    take(session, "coco", tmp_path / "x.json")
    assert set(np.unique(session.chunks.mask(0))) == {0, 1}
    # Ours of before November 2026 do not name frames, and their crowds are to be ignored.
    for info, value in ((None, 1), ([], 1), ({"description": "polyps"}, IGNORE)):
        (tmp_path / "x.json").write_text(json.dumps(content | {"info": info}))
        import_labels(session, find_format("coco"), tmp_path / "x.json", overwrite=True)
        assert set(np.unique(session.chunks.mask(0))) == {0, value}


def test_white_is_ignored_throughout_a_stack_that_numbers_polyps(session, tmp_path):
    stack = np.stack([BLOB + np.roll(BLOB, 9) * 255, BLOB * 255, BLOB * 0])
    tifffile.imwrite(tmp_path / "x.tif", stack, photometric="minisblack")
    take(session, "tiff", tmp_path / "x.tif")
    for mask, expected in zip(masks_of(session).values(), stack, strict=True):
        np.testing.assert_array_equal(mask, expected)


def test_a_storage_of_label_studio_that_is_the_frames_folder_itself(tmp_path):
    for name in ("1", "case 2/1", "case 2/2"):
        file = tmp_path / "frames" / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 20), "red").save(file)

    def tasks(path):
        data = {"image": f"/data/local-files/?d={path}"}
        (tmp_path / "tasks.json").write_text(
            json.dumps([{"data": data, "annotations": [{"result": []}]}])
        )
        return tmp_path / "tasks.json"

    with Session(open_frames(tmp_path / "frames")) as session:
        take(session, "labelstudio", tasks("case%202/1.png"))
        assert [session.origin(i) is MaskOrigin.FILE for i in range(3)] == [False, True, False]
        take(session, "labelstudio", tasks("frames/case%202/2.png"))
        take(session, "labelstudio", tasks("frames/1.png"))
        assert all(session.origin(i) is MaskOrigin.FILE for i in range(3))


def test_label_studio_names_frames_of_a_folder_in_one_of_its_name(tmp_path):
    for name in ("1", "case/1"):
        file = tmp_path / "case" / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 20), "red").save(file)
    with Session(open_frames(tmp_path / "case")) as session:
        session.put_mask(1, BLOB, MaskOrigin.HAND)
        session.accept([0, 1])
        export(labels_of_session(session), find_format("labelstudio"), tmp_path / "out")
        with emptied(tmp_path, session) as second:
            take(second, "labelstudio", tmp_path / "out")
            np.testing.assert_array_equal(second.chunks.mask(1), BLOB)


def test_labels_of_a_frame_that_cannot_be_read_are_refused(tmp_path):
    """Its size is not known: what has no size of its own would be drawn at another one."""
    (tmp_path / "frames").mkdir()
    for name, size in (("a", (30, 20)), ("b", (60, 40))):
        Image.new("RGB", size, "red").save(tmp_path / "frames" / f"{name}.png")
    with Session(open_frames(tmp_path / "frames")) as session:
        session.put_mask(1, np.ones((40, 60), np.uint8), MaskOrigin.HAND)
        session.accept([1])
    (tmp_path / "frames" / "b.png").write_bytes(b"half a file")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "b.txt").write_text("0 0.2 0.2 0.5 0.2 0.5 0.6\n")
    with Session(open_frames(tmp_path / "frames")) as session:
        with pytest.raises(InputError, match=r"labels of .*b\.png, which could not be read"):
            take(session, "yolo", tmp_path)
        with pytest.raises(InputError, match=r"The frame .*b\.png could not be read"):
            labels_of_session(session)


def test_an_import_never_accepts_a_frame(session, tmp_path):
    session.put_mask(0, None, MaskOrigin.HAND)
    session.accept([0])  # as negative
    session.put_mask(0, BLOB, MaskOrigin.HAND)
    path = cvat_file(tmp_path)
    import_labels(session, find_format("cvat"), path, overwrite=True)
    assert not session.chunks.mask(0).any()
    assert session.status(0).state is ReviewState.EDITED
