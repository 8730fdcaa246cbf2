"""Files of labels that are damaged, or meant to do harm, and what is to be said of them."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
import zlib

import nibabel
import numpy as np
import tifffile
from PIL import Image

BOX = [1, 1, 6, 1, 6, 6, 1, 6]
# What is to be said where the reason is easily lost: others are said of whatever fails to parse.
REASONS = {
    "coco: a box": "only polygons and masks",
    "coco: a key twice": "twice",
    "cvat: a way out": "no plain path",
    "cvat: a file too large": "256 MiB",
    "cvat: no name": "where the name of an image is needed",
    "cvat: sides of 100000": "claims 30 x 100000 px",
    "cvat: sides of text": "no whole number as height",
    "cvat: tracks": "CVAT for images",
    "voc: colours": "no palette",
    "tiff: names of others": "1 slices, but 2 names",
    "nifti: names of others": "1 slices, but 2 names",
    "yolo: too many names": "1 MiB",
}
MANY = 10**6


def corpus(folder):
    """Write the files, for a frame called "a" of 20 x 30 px.

    Parameters
    ----------
    folder : Path
        Where to.

    Returns
    -------
    dict of str to (str, Path)
        Format and path, by what is wrong with it.
    """
    folder.mkdir(parents=True)
    found = {}

    def add(title, key, name, content):
        path = folder / title.replace(" ", "-") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        found[title] = key, path

    for title, name, content in _json(lambda **parts: json.dumps(_coco(**parts))):
        add(f"coco: {title}", "coco", name, content)
    for title, value in _label_studio():
        add(f"labelstudio: {title}", "labelstudio", "tasks.json", json.dumps(value))
    add("labelstudio: no tasks", "labelstudio", "tasks.json", '{"tasks": 1}')
    for title, text in _cvat():
        add(f"cvat: {title}", "cvat", "annotations.xml", text)
    for title, text in _yolo():
        add(f"yolo: {title}", "yolo", "a.txt", text)
    for title, name, content in _images():
        for key in ("png", "labels", "kvasir"):
            add(f"{key}: {title}", key, name, content)
    for title, content in _tiffs():
        for key in ("tiff", "ome-tiff"):
            add(f"{key}: {title}", key, "masks.tif", content)
    for title, content in _niftis():
        add(f"nifti: {title}", "nifti", "masks.nii.gz", content)
    add("yolo: names that are none", "yolo", "labels/a.txt", "0 0 0 1 0 1 1")
    add("yolo: too many names", "yolo", "labels/a.txt", "0 0 0 1 0 1 1")
    for title, names in (
        ("yolo: names that are none", "a: [b"),
        ("yolo: too many names", "#" * 2**21),
    ):
        place = found[title][1].parents[1]
        (place / "data.yaml").write_text(names)
        found[title] = "yolo", place
    add("voc: colours", "voc", "a.png", _png(np.zeros((20, 30, 3), np.uint8)))
    found["voc: colours"] = "voc", found["voc: colours"][1].parent
    for key, name, content in (
        ("tiff", "masks.tif", tiff_of(30, 20, 1)),
        ("nifti", "masks.nii.gz", _volume(np.ones((30, 20, 1), np.uint8))),
    ):
        add(f"{key}: names of others", key, name, content)
        found[f"{key}: names of others"][1].with_name("masks.json").write_text('["a", "b"]')
    add("cvat: a file too large", "cvat", "annotations.xml", "")
    with found["cvat: a file too large"][1].open("wb") as file:
        file.truncate(2**28 + 1)
    _links(folder, found)
    return found


def _coco(segmentation=None, image=None, annotation=None, **more):
    image = {"id": 1, "file_name": "a.png", "height": 20, "width": 30} | (image or {})
    one = {"image_id": 1, "category_id": 1, "iscrowd": 0} | (annotation or {})
    one["segmentation"] = [BOX] if segmentation is None else segmentation
    return {"images": [image], "annotations": [one], "categories": []} | more


def _json(coco):
    rle = {"size": [20, 30], "counts": [100, 100, 400]}
    yield "empty", "x.json", ""
    yield "truncated", "x.json", coco()[:-30]
    yield "a picture", "x.json", _png(np.zeros((20, 30), np.uint8))
    yield "a zip bomb", "x.json", _zip_bomb()
    yield "a list", "x.json", "[1, 2]"
    yield "nested lists", "x.json", "[" * MANY + "]" * MANY
    yield "nested objects", "x.json", '{"images":' * MANY + "1" + "}" * MANY
    yield "a key twice", "x.json", coco()[:-1] + ', "images": []}'
    yield "NaN", "x.json", coco(segmentation=[[float("nan"), *BOX[1:]]])
    yield "infinity", "x.json", coco().replace("[1, 1, 6", "[1e999, 1, 6")
    yield "a number of 5000 digits", "x.json", coco().replace("[1, 1, 6", f"[{'9' * 5000}, 1, 6")
    yield "a box", "x.json", coco(segmentation=[])
    yield "two points", "x.json", coco(segmentation=[BOX[:4]])
    yield "an odd point", "x.json", coco(segmentation=[BOX[:7]])
    yield "outside", "x.json", coco(segmentation=[[1, 1, 6, 1, 1000, 1000]])
    yield "long", "x.json", coco(segmentation=[[0, 0, 30, 20] * 60_000])
    yield "too short runs", "x.json", coco(segmentation=rle | {"counts": [100, 100]})
    yield "too long runs", "x.json", coco(segmentation=rle | {"counts": [100, 100, 10**9]})
    yield "runs that wrap", "x.json", coco(segmentation=rle | {"counts": [2**63, 2**63, 600]})
    yield "negative runs", "x.json", coco(segmentation=rle | {"counts": [-100, 300, 400]})
    yield "damaged text runs", "x.json", coco(segmentation=rle | {"counts": "o" * 50})
    yield "text runs of zero bytes", "x.json", coco(segmentation=rle | {"counts": "\0\1"})
    yield "runs of another size", "x.json", coco(segmentation=rle | {"size": [30, 20]})
    yield "sides of 100000", "x.json", coco(image={"height": 100_000, "width": 100_000})
    yield "no sides", "x.json", coco(image={"height": 0})
    yield "another size", "x.json", coco(image={"height": 21})
    yield "a way out", "x.json", coco(image={"file_name": "../a.png"})
    yield "an absolute name", "x.json", coco(image={"file_name": "/etc/passwd"})
    yield "a name that is a number", "x.json", coco(image={"file_name": 7})
    yield "an unknown frame", "x.json", coco(image={"file_name": "b.png"})
    yield "an annotation of nothing", "x.json", coco(annotation={"image_id": 2})
    image = _coco()["images"][0]
    yield "an image twice", "x.json", coco(images=[image, image])
    yield "a frame twice", "x.json", coco(images=[image, image | {"id": 2}])
    yield "300 polyps", "x.json", coco(annotations=_coco()["annotations"] * 300)


def _label_studio():
    def task(image="a.png", **changes):
        value = {"points": [[0, 0], [50, 0], [50, 50]], "polygonlabels": ["polyp"]}
        result = {"type": "polygonlabels", "original_width": 30, "original_height": 20}
        result |= {"value": value} | changes
        return [{"data": {"image": image}, "annotations": [{"result": [result]}]}]

    def brush(content):
        value = {"format": "rle", "rle": content, "brushlabels": ["polyp"]}
        return task(type="brushlabels", value=value)

    header = [0, 0, 0x09, 0x60, 0x39, 0x1B, 0xF8]
    yield "a way out", task("/data/local-files/?d=..%2F..%2Fa.png")
    yield "turned", task(image_rotation=90)
    yield "a box", task(type="rectanglelabels")
    yield "sides of 100000", task(original_width=100_000)
    yield "another size", task(original_width=31)
    yield "points of text", task(value={"points": [["a", "b"]] * 3})
    yield "points outside", task(value={"points": [[0, 0], [900, 0], [50, 50]]})
    yield "an empty brush", brush([])
    yield "a brush that ends early", brush(header)
    yield "a brush of other values", brush([999, -1, 2**70])
    yield "a brush of another size", brush([255] * 40)
    yield "a brush that is too long", brush([*header, *[255] * 40])


def _cvat():
    def xml(shape="", name="a.png", height=20, extra=""):
        image = f'<image id="0" name="{name}" width="30" height="{height}">{shape}</image>'
        return f'<?xml version="1.0"?>{extra}<annotations>{image}</annotations>'

    def mask(rle, left=0, width=2):
        place = f'left="{left}" top="0" width="{width}" height="2"'
        return xml(f'<mask label="polyp" rle="{rle}" {place}/>')

    entities = "".join(f'<!ENTITY b{n} "{f"&b{n - 1};" * 10}">' for n in range(1, 9))
    yield "empty", ""
    yield "truncated", xml('<polygon points="1,1;2,2;3,1"/>')[:-20]
    yield "no XML", "PK\x03\x04"
    yield "a page", "<html></html>"
    yield "a laugh", xml(extra=f'<!DOCTYPE x [<!ENTITY b0 "ha">{entities}]>', shape="&b8;")
    yield (
        "a file from elsewhere",
        xml(extra='<!DOCTYPE x [<!ENTITY x SYSTEM "file:///etc/passwd">]>', shape="&x;"),
    )
    yield "nested", xml("<a>" * MANY + "</a>" * MANY)
    yield "NaN", xml('<polygon points="nan,1;2,2;3,1"/>')
    yield "no points", xml("<polygon/>")
    yield "points without y", xml('<polygon points="1;2;3"/>')
    yield "points outside", xml('<polygon points="1,1;9000,2;3,1"/>')
    yield "a box", xml('<box xtl="1" ytl="1" xbr="3" ybr="3"/>')
    yield "too short runs", mask("1, 1")
    yield "too long runs", mask(f"1, {10**12}")
    yield "runs of text", mask("one")
    yield "runs of 5000 digits", mask("9" * 5000)
    yield "no runs", mask("")
    yield "a mask outside", mask("0, 4", left=29)
    yield "a mask of nothing", mask("0", width=0)
    yield "sides of 100000", xml(height=100_000)
    yield "sides of text", xml(height="tall")
    yield "another size", xml(height=21)
    yield "a way out", xml(name="../a.png")
    yield "no name", xml().replace('name="a.png"', "")
    yield "tracks", "<annotations><track/></annotations>"
    yield "no frames", "<annotations></annotations>"


def _yolo():
    yield "a box", "0 0.5 0.5 0.1 0.1"
    yield "NaN", "0 nan 0.5 0.1 0.1 0.2 0.3"
    yield "pixels", "0 5 5 100 5 100 100"
    yield "an odd point", "0 0.1 0.1 0.2 0.2 0.3 0.1 0.5"
    yield "words", "polyp is here and there and everywhere"
    yield "zeros", b"\0" * 1000
    yield "no UTF-8", b"\xff\xfe\xfd"
    yield "long", "0 " + "0 0 1 1 " * 60_000


def _images():
    yield "empty", "a.png", b""
    yield "text", "a.png", b"this is a letter"
    yield (
        "truncated",
        "a.png",
        _png(np.random.default_rng(0).integers(0, 2, (20, 30), np.uint8))[:-60],
    )
    yield "another size", "a.png", _png(np.zeros((21, 30), np.uint8))
    yield "sides of 100000", "a.png", _png_bomb(100_000)
    yield "an unknown frame", "b.png", _png(np.zeros((20, 30), np.uint8))
    yield "a TIFF bomb", "a.tif", tiff_of(100_000, 100_000, 1)
    yield "a zip bomb", "a.png", _zip_bomb()


def _tiffs():
    def stack(values, **options):
        file = io.BytesIO()
        tifffile.imwrite(file, values, **options)
        return file.getvalue()

    yield "empty", b""
    yield "text", b"II this is a letter"
    yield "truncated", stack(np.ones((1, 20, 30), np.uint8))[:300]
    yield "too many slices", stack(np.ones((3, 20, 30), np.uint8), photometric="minisblack")
    yield "another size", stack(np.ones((21, 30), np.uint8))
    yield "numbers beyond 255", stack(np.full((20, 30), 999, np.uint16))
    yield "fractions", stack(np.full((20, 30), 0.5, np.float32))
    yield "NaN", stack(np.full((20, 30), np.nan, np.float32))
    yield "colours", stack(np.ones((20, 30, 3), np.uint8), photometric="rgb")
    yield "sides of 100000", tiff_of(100_000, 100_000, 1)


def _volume(values):
    return gzip.compress(nibabel.Nifti1Image(values, np.eye(4)).to_bytes())


def _niftis():
    good = _volume(np.ones((30, 20, 1), np.uint8))
    content = bytearray(gzip.decompress(good))
    content[40:56] = struct.pack("<8h", 3, 32000, 32000, 1, 1, 1, 1, 1)
    yield "empty", b""
    yield "text", b"this is a letter"
    yield "truncated", good[:-20]
    yield "shortened", gzip.compress(gzip.decompress(good)[:400])
    yield "two axes", _volume(np.ones((30, 20), np.uint8))
    yield "too many slices", _volume(np.ones((30, 20, 3), np.uint8))
    yield "another size", _volume(np.ones((31, 20, 1), np.uint8))
    yield "fractions", _volume(np.full((30, 20, 1), 0.5, np.float32))
    yield "NaN", _volume(np.full((30, 20, 1), np.nan, np.float32))
    yield "complex numbers", _volume(np.ones((30, 20, 1), np.complex64))
    yield "sides of 32000", gzip.compress(bytes(content))
    yield "a gzip bomb", gzip.compress(bytes(100 * MANY))


def _links(folder, found):
    for title, target in (("a link out", "/etc/passwd"), ("a link to itself", "a.png")):
        place = folder / title.replace(" ", "-")
        place.mkdir()
        (place / "a.png").symlink_to(target)
        found[f"png: {title}"] = "png", place
    place = folder / "a-folder-in-itself"
    place.mkdir()
    (place / "a.png").write_bytes(_png(np.zeros((20, 30), np.uint8)))
    (place / "inner").symlink_to(place)
    found["png: a folder in itself"] = "png", place
    place = folder / "annotations-from-elsewhere"
    (place / "annotations").mkdir(parents=True)
    (folder / "elsewhere.json").write_text(json.dumps(_coco()))
    (place / "annotations" / "x.json").symlink_to(folder / "elsewhere.json")
    found["coco: annotations from elsewhere"] = "coco", place
    place = folder / "tasks-from-elsewhere"
    place.mkdir()
    (place / "tasks.json").symlink_to(folder / "elsewhere.json")
    found["labelstudio: tasks from elsewhere"] = "labelstudio", place
    (folder / "masks-elsewhere").mkdir()
    (folder / "masks-elsewhere" / "a.png").write_bytes(_png(np.zeros((20, 30), np.uint8)))
    (folder / "masks-elsewhere" / "a.txt").write_text("0 0 0 1 0 1 1")
    (folder / "masks-elsewhere" / "a.json").write_text(json.dumps(_coco()))
    for key, inner in (
        ("png", "masks"),
        ("kvasir", "masks"),
        ("coco", "annotations"),
        ("yolo", "labels"),
        ("voc", "SegmentationClass"),
    ):
        place = folder / f"a-folder-from-elsewhere-{key}"
        place.mkdir()
        (place / inner).symlink_to(folder / "masks-elsewhere")
        found[f"{key}: a folder from elsewhere"] = key, place
    found["png: nothing"] = "png", folder / "nothing"
    (folder / "void").mkdir()
    for key in ("png", "coco", "yolo", "voc", "cvat", "labelstudio", "tiff", "nifti", "cvc"):
        found[f"{key}: an empty folder"] = key, folder / "void"


def _png(values):
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    return file.getvalue()


def _png_bomb(side):
    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(10 * MANY))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def tiff_of(width, height, megabytes):
    """Make a TIFF file that claims a size, and whose one strip unpacks to so many MB of ones."""
    packer = zlib.compressobj(1)
    packed = [packer.compress(bytes([1]) * MANY) for _ in range(megabytes)]
    strip = b"".join([*packed, packer.flush()])
    tags = [
        (256, width),
        (257, height),
        (258, 8),
        (259, 8),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, height),
        (279, len(strip)),
    ]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    ifd = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    return struct.pack("<2sHI", b"II", 42, 8 + len(strip)) + strip + ifd


def _zip_bomb():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("annotations.xml", bytes(20 * MANY))
    return file.getvalue()
