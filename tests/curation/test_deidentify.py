from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageDraw

from napari_microaunet.curation import open_dataset
from napari_microaunet.curation.deidentify import Box, Deidentifier, parse_box
from napari_microaunet.curation.incoming import incoming_frames
from napari_microaunet.curation.writer import WriteOptions, write_dataset
from napari_microaunet.errors import InputError


@pytest.fixture
def named(tmp_path, make_frame):
    """A frame with a border, a patient's name in it, a panel, and EXIF that names them, too."""
    frame = np.zeros((240, 400, 3), np.uint8)
    frame[10:230, 120:390] = np.maximum(make_frame(0, 220, 270), 45)
    image = Image.fromarray(frame)
    pencil = ImageDraw.Draw(image)
    pencil.text((8, 20), "MUSTERMANN", fill=(235, 235, 235))
    pencil.text((8, 40), "1970-01-01", fill=(235, 235, 235))
    pencil.rectangle((0, 180, 80, 239), fill=(44, 183, 142))
    exif = Image.Exif()
    exif[0x013B] = "Mustermann"
    folder = tmp_path / "stills"
    folder.mkdir()
    image.save(folder / "a.jpg", quality=98, exif=exif)
    return folder


def test_only_the_picture_is_left_and_no_metadata(named, tmp_path):
    options = WriteOptions(deidentifier=Deidentifier(Box(200, 300, 230, 390)))
    result = write_dataset(incoming_frames(open_dataset(named)), tmp_path / "set", options)
    record = result.manifest.frames[0]
    with (
        Image.open(named / "a.jpg") as before,
        Image.open(tmp_path / "set" / record.image) as after,
    ):
        assert dict(before.getexif())
        assert not dict(after.getexif())
        assert not after.info.keys() & {"exif", "comment", "XML:com.adobe.xmp"}
        original, blanked = np.asarray(before), np.asarray(after)
    assert b"ustermann" not in (tmp_path / "set" / record.image).read_bytes()
    assert not blanked[:, :112].any()
    assert not blanked[200:230, 300:390].any()
    kept = (slice(20, 190), slice(130, 380))
    np.testing.assert_array_equal(blanked[kept], original[kept])
    assert set(record.blanked) == {
        "metadata",
        "outside the field of view",
        "position marker",
        "boxes",
    }


def test_a_frame_without_a_border_stays_as_it_is(tmp_path, make_frame):
    (tmp_path / "stills").mkdir()
    frame = np.maximum(make_frame(0, 120, 160), 45)
    Image.fromarray(frame).save(tmp_path / "stills" / "a.png")
    options = WriteOptions(deidentifier=Deidentifier())
    write_dataset(incoming_frames(open_dataset(tmp_path / "stills")), tmp_path / "set", options)
    np.testing.assert_array_equal(open_dataset(tmp_path / "set").read(0), frame)


def test_asked_for_later_it_is_done_in_place(named, tmp_path):
    frames = incoming_frames(open_dataset(named))
    write_dataset(frames, tmp_path / "set")
    result = write_dataset(
        frames, tmp_path / "set", WriteOptions(deidentifier=Deidentifier()), append=True
    )
    assert result.updated == ("stills/a",)
    assert [path.name for path in (tmp_path / "set" / "images" / "stills").iterdir()] == ["a.png"]


@pytest.mark.parametrize("again", [None, Deidentifier()])
def test_what_was_blanked_stays_blanked_when_a_mask_is_updated(named, tmp_path, again):
    frames = incoming_frames(open_dataset(named))
    hidden = WriteOptions(deidentifier=Deidentifier(Box(200, 300, 230, 390)))
    before = write_dataset(frames, tmp_path / "set", hidden).manifest.frames[0]
    image = (tmp_path / "set" / before.image).read_bytes()
    mask = np.zeros((240, 400), np.uint8)
    mask[50:60, 150:170] = 1
    corrected = [replace(frames[0], read_mask=lambda: mask)]
    options = WriteOptions(deidentifier=again)
    result = write_dataset(corrected, tmp_path / "set", options, append=True)
    record = result.manifest.frames[0]
    assert result.updated == ("stills/a",)
    assert (record.blanked, record.image_sha256) == (before.blanked, before.image_sha256)
    assert [path.name for path in (tmp_path / "set" / "images" / "stills").iterdir()] == ["a.png"]
    assert (tmp_path / "set" / record.image).read_bytes() == image
    np.testing.assert_array_equal(open_dataset(tmp_path / "set").mask(0), mask)


def test_frames_as_they_were_recorded_do_not_join_de_identified_ones(named, tmp_path, make_frame):
    hidden = WriteOptions(deidentifier=Deidentifier())
    (tmp_path / "others").mkdir()
    for seed in (1, 2):
        Image.fromarray(make_frame(seed, 120, 160)).save(tmp_path / "others" / f"{seed}.png")
    first, second = incoming_frames(open_dataset(tmp_path / "others"))
    write_dataset(incoming_frames(open_dataset(named)), tmp_path / "set", hidden)
    with pytest.raises(InputError, match=r"the first is others/1\): de-identify them, too"):
        write_dataset([first], tmp_path / "set", append=True)
    write_dataset([first], tmp_path / "set", hidden, append=True)
    # Blanked elsewhere they are welcome, and among frames of both kinds all are.
    write_dataset([second], tmp_path / "plain")
    write_dataset(incoming_frames(open_dataset(tmp_path / "set")), tmp_path / "plain", append=True)
    merged = tmp_path / "plain"
    assert [bool(frame.blanked) for frame in open_dataset(merged).frames] == [False, True, True]
    Image.fromarray(make_frame(3, 120, 160)).save(tmp_path / "others" / "3.png")
    more = incoming_frames(open_dataset(tmp_path / "others"))
    assert write_dataset(more, merged, append=True).added == ("others/3",)


def test_every_video_has_an_outline_of_its_own(tmp_path):
    shown = []
    for name, left in (("one", 20), ("two", 100)):
        frame = np.zeros((120, 200, 3), np.uint8)
        frame[10:110, left : left + 80] = 180
        stack = np.stack([frame] * 3)
        tifffile.imwrite(tmp_path / f"{name}.tif", stack, photometric="rgb")
        shown += incoming_frames(open_dataset(tmp_path / f"{name}.tif"))
    write_dataset(shown, tmp_path / "set", WriteOptions(deidentifier=Deidentifier()))
    dataset = open_dataset(tmp_path / "set")
    for index in (0, 3):
        picture = shown[index].sequence.read(0)
        kept = (dataset.read(index) == picture)[20:100][picture[20:100] > 0]
        assert kept.mean() > 0.9


def test_the_text_of_rendered_frames_is_blanked(data_of_scopes):
    for image, text in data_of_scopes:
        sequence = _One(image)
        blanked, _ = Deidentifier().blank(sequence, 0, image)
        assert not blanked[text].any()


class _One:
    """A sequence of one frame."""

    def __init__(self, image):
        from napari_microaunet.frames.sequence import Frame

        self.frames = [Frame("a", None, *image.shape[:2])]


@pytest.fixture
def data_of_scopes():
    """Rendered pictures, each with text of its own making in the border."""
    from napari_microaunet.frames.rendered import render_frame
    from napari_microaunet.frames.scope import Overlay

    shown = []
    for seed, outline in ((0, "octagon"), (1, "round"), (2, "square")):
        overlay = Overlay(outline, 0.2, 8, 1.0, ("Mustermann", "1970"), (44, 183, 142))
        picture = render_frame(seed, 288, 384)[0]
        frame = np.full((288, 512, 3), 8, np.uint8)
        top, left, bottom, right = overlay.picture_box(288, 512)
        inside = overlay.picture_shape(bottom - top, right - left)
        part = np.asarray(Image.fromarray(picture).resize(inside.shape[::-1]))
        frame[top:bottom, left:right][inside] = np.maximum(part, 45)[inside]
        before = frame.copy()
        overlay.draw(frame, np.zeros((288, 512), np.uint8), 3)
        text = (frame != before).any(axis=2)
        text[:, left:] = False
        assert text.any()
        shown.append((frame, text))
    return shown


@pytest.mark.parametrize("text", ["", "1,2,3", "a,b,c,d", "5,5,5,9", "-1,0,4,4"])
def test_boxes_that_are_none_are_refused(text):
    with pytest.raises(InputError, match="box"):
        parse_box(text)
