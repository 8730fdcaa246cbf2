from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageDraw

from napari_microaunet.curation import open_dataset, read_manifest, write_manifest
from napari_microaunet.curation.deidentify import Box, Deidentifier, parse_box
from napari_microaunet.curation.incoming import incoming_frames
from napari_microaunet.curation.session import MaskOrigin, Session
from napari_microaunet.curation.writer import WriteOptions, write_dataset
from napari_microaunet.errors import InputError
from napari_microaunet.frames import open_frames


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


_KILLED = """
import os, sys
from pathlib import Path
from napari_microaunet.curation.dataset import open_dataset
from napari_microaunet.curation.deidentify import Deidentifier
from napari_microaunet.curation.incoming import incoming_frames
from napari_microaunet.curation.writer import WriteOptions, write_dataset
source, folder, method, last = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]
act = getattr(Path, method)
def kill(path, *arguments, **options):
    if str((arguments or [path])[0]).endswith(last):
        os.kill(os.getpid(), 9)
    return act(path, *arguments, **options)
setattr(Path, method, kill)
frames = incoming_frames(open_dataset(source))
write_dataset(frames, folder, WriteOptions(deidentifier=Deidentifier()), append=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 here")
@pytest.mark.parametrize(
    ("method", "last"),
    [
        ("replace", ".replaced.json"),
        ("replace", "manifest.json"),
        ("unlink", "a.jpg"),
        ("unlink", ".replaced.json"),
    ],
)
def test_killed_at_any_moment_it_leaves_no_original_for_good(named, tmp_path, method, last):
    frames = incoming_frames(open_dataset(named))
    folder = tmp_path / "set"
    write_dataset(frames, folder)
    command = [sys.executable, "-c", _KILLED, str(named), str(folder), method, last]
    ended = subprocess.run(command, check=False, capture_output=True)  # noqa: S603
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    assert open_dataset(folder).read(0).shape == (240, 400, 3)
    write_dataset(frames, folder, WriteOptions(deidentifier=Deidentifier()), append=True)
    (record,) = open_dataset(folder).frames
    assert "outside the field of view" in record.blanked
    assert [*(folder / "images" / "stills").iterdir()] == [folder / record.image]
    assert not (folder / ".replaced.json").exists()


def test_a_list_of_replaced_files_leads_nowhere_else(named, tmp_path):
    frames = incoming_frames(open_dataset(named))
    folder = tmp_path / "set"
    write_dataset(frames, folder)
    (tmp_path / "precious.txt").write_text("mine")
    (folder / "images" / "out").symlink_to(tmp_path)
    for names in (["../precious.txt"], ["images/out/precious.txt", "images/stills/a.jpg"], ["x/y"]):
        (folder / ".replaced.json").write_text(json.dumps([*names, "manifest.json"]))
        write_dataset(frames, folder, append=True)
        assert not (folder / ".replaced.json").exists()
        assert (tmp_path / "precious.txt").exists()
        assert open_dataset(folder).read(0).any()


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


@pytest.mark.parametrize("of_dataset", [True, False])
def test_another_box_is_blanked_in_a_dataset_that_was_blanked(named, tmp_path, of_dataset):
    """Opened itself, it no longer shows the panel that was blanked there as one."""
    frames = incoming_frames(open_dataset(named))
    write_dataset(frames, tmp_path / "set", WriteOptions(deidentifier=Deidentifier()))
    first = read_manifest(tmp_path / "set" / "manifest.json").frames[0]
    again = frames
    if of_dataset:
        with Session(open_frames(tmp_path / "set")) as session:
            session.put_mask(0, np.eye(240, 400, dtype=np.uint8), MaskOrigin.HAND)
            session.accept([0])
            again = incoming_frames(session)
    hidden = WriteOptions(deidentifier=Deidentifier(Box(100, 150, 120, 170)))
    write_dataset(again, tmp_path / "set", hidden, append=True)
    blanked = open_dataset(tmp_path / "set").read(0)
    assert open_frames(named).read(0)[100:120, 150:170].any()
    assert not blanked[100:120, 150:170].any()
    assert not blanked[180:, :80].any()
    record = read_manifest(tmp_path / "set" / "manifest.json").frames[0]
    assert {*record.blanked} == {*first.blanked, "boxes"}
    assert record.original_sha256 == first.original_sha256


def test_what_was_blanked_stays_so_where_less_of_it_is_found_now(named, tmp_path, monkeypatch):
    frames = incoming_frames(open_dataset(named))
    hidden = WriteOptions(deidentifier=Deidentifier())
    record = write_dataset(frames, tmp_path / "set", hidden).manifest.frames[0]
    before = open_dataset(tmp_path / "set").read(0)
    monkeypatch.setattr(Deidentifier, "blank", lambda *given: (given[-1], record.blanked))
    mask = np.eye(240, 400, dtype=np.uint8)
    corrected = [replace(frames[0], read_mask=lambda: mask)]
    assert write_dataset(corrected, tmp_path / "set", hidden, append=True).updated
    np.testing.assert_array_equal(open_dataset(tmp_path / "set").read(0), before)


def test_a_picture_of_another_size_in_the_dataset_is_named(named, tmp_path):
    frames = incoming_frames(open_dataset(named))
    hidden = WriteOptions(deidentifier=Deidentifier(Box(100, 150, 120, 170)))
    record = write_dataset(frames, tmp_path / "set", hidden).manifest.frames[0]
    Image.new("RGB", (20, 20)).save(tmp_path / "set" / record.image)
    left_out = write_dataset(frames, tmp_path / "set", hidden, append=True).left_out
    assert "of another size than its original" in left_out["stills/a"]


def test_other_boxes_do_not_bring_back_what_was_blanked(named, tmp_path):
    boxes = Box(200, 300, 230, 390), Box(100, 150, 120, 170)
    frames = incoming_frames(open_dataset(named))
    for box in boxes:
        hidden = WriteOptions(deidentifier=Deidentifier(box))
        write_dataset(frames, tmp_path / "set", hidden, append=(tmp_path / "set").exists())
    # Of another dataset, with more kinds of blanks but the second box alone.
    more = ("metadata", "outside the field of view", "position marker", "boxes")
    path = tmp_path / "set" / "manifest.json"
    manifest = read_manifest(path)
    fewer = manifest.frames[0].model_copy(update={"blanked": ("metadata", "boxes")})
    write_manifest(path, manifest.model_copy(update={"frames": (fewer,)}))
    write_dataset([replace(frames[0], blanked=more)], tmp_path / "set", append=True)
    blanked = open_dataset(tmp_path / "set").read(0)
    original = open_frames(named).read(0)
    for top, left, bottom, right in boxes:
        assert not blanked[top:bottom, left:right].any()
    np.testing.assert_array_equal(blanked[20:100, 130:380], original[20:100, 130:380])


def test_frames_as_they_were_recorded_do_not_join_de_identified_ones(named, tmp_path, make_frame):
    hidden = WriteOptions(deidentifier=Deidentifier())
    (tmp_path / "others").mkdir()
    for seed in (1, 2):
        Image.fromarray(make_frame(seed, 120, 160)).save(tmp_path / "others" / f"{seed}.png")
    first, second = incoming_frames(open_dataset(tmp_path / "others"))
    write_dataset(incoming_frames(open_dataset(named)), tmp_path / "set", hidden)
    with pytest.raises(InputError, match=r"the first is others/1\): .*tick.*--deidentify"):
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


def dark(folder, name, size=(400, 240)):
    """Write a still without light, with a patient's name where `named` has its border."""
    image = Image.new("RGB", size)
    ImageDraw.Draw(image).text((8, 20), "MUSTERMANN", fill=(235, 235, 235))
    image.save(folder / f"{name}.png")


def test_a_dark_still_has_the_outline_of_the_others_of_its_folder_and_size(named, tmp_path):
    dark(named, "b")
    dark(named, "of another size", (200, 120))
    polyp = np.asarray(Image.open(named / "b.png")).copy()
    polyp[100:110, 200:210] = 30
    Image.fromarray(polyp).save(named / "b.png")
    (named / "c.png").write_bytes(b"")
    frames = incoming_frames(open_dataset(named))
    write_dataset(frames, tmp_path / "set", WriteOptions(deidentifier=Deidentifier()))
    dataset = open_dataset(tmp_path / "set")
    assert [frame.name for frame in dataset.frames[1:]] == ["stills/b", "stills/of another size"]
    assert not dataset.read(1)[:, :112].any()
    assert (dataset.read(1)[100:110, 200:210] == 30).all()
    # Nobody knows where its picture is.
    assert not dataset.read(2).any()
    assert "outside the field of view" in dataset.frames[2].blanked


def test_a_panel_beside_a_dark_still_is_not_its_picture(tmp_path, make_frame):
    """In what is lit of it, a patient's name would stay."""
    folder = tmp_path / "stills"
    folder.mkdir()
    for seed in range(3):
        frame = np.zeros((240, 400, 3), np.uint8)
        frame[:, :100] = 150
        image = Image.fromarray(frame)
        ImageDraw.Draw(image).text((8, 20), "MUSTERMANN", fill=(255, 255, 255))
        frame = np.asarray(image).copy()
        if seed > 0:
            frame[10:230, 120:390] = np.maximum(make_frame(seed, 220, 270), 45)
        Image.fromarray(frame).save(folder / f"{seed}.png")
    frames = incoming_frames(open_dataset(folder))
    write_dataset(frames, tmp_path / "set", WriteOptions(deidentifier=Deidentifier()))
    dataset = open_dataset(tmp_path / "set")
    for index in range(3):
        assert not dataset.read(index)[:, :112].any()
    # The others have outlines of their own, as ever.
    np.testing.assert_array_equal(
        dataset.read(1)[30:210, 140:370], open_frames(folder).read(1)[30:210, 140:370]
    )


def stack_of(path, *frames):
    tifffile.imwrite(path, np.stack(frames), photometric="rgb")
    return open_frames(path)


def test_a_page_in_a_video_does_not_bring_back_the_text_in_the_border(named, tmp_path):
    """A recorder shows one that is lit to the edges, such as a patient's form."""
    frame = open_frames(named).read(0)
    page = np.full_like(frame, 200)
    form = np.zeros_like(frame)
    form[20:220, 20:380] = 230
    sequence = stack_of(tmp_path / "video.tif", page, *[frame] * 8, form)
    for index in (0, 4, 9):
        blanked, _ = Deidentifier().blank(sequence, index, sequence.read(index))
        assert not blanked[:, :112].any()
        kept = (slice(20, 220), slice(130, 380))
        np.testing.assert_array_equal(blanked[kept], sequence.read(index)[kept])


def test_the_picture_stays_whole_where_its_layout_changes(named, tmp_path, make_frame):
    frame = open_frames(named).read(0)
    whole = np.maximum(make_frame(0, 240, 400), 45)
    # A scope whose picture is a little wider is no page either, even in one frame.
    wider = frame.copy()
    wider[10:230, 100:120] = 90
    sequence = stack_of(tmp_path / "wider.tif", wider, *[frame] * 9)
    blanked, _ = Deidentifier().blank(sequence, 0, wider)
    np.testing.assert_array_equal(blanked[20:220, 104:380], wider[20:220, 104:380])
    sequence = stack_of(tmp_path / "whole.tif", *[whole] * 3, *[frame] * 7)
    blanked, _ = Deidentifier().blank(sequence, 0, whole)
    np.testing.assert_array_equal(blanked, whole)
    for index in range(6):
        Image.fromarray(frame).save(named / f"s{index}.png")
    Image.fromarray(whole).save(named / "whole.png")
    stills = open_frames(named)
    blanked, _ = Deidentifier().blank(stills, len(stills) - 1, whole)
    np.testing.assert_array_equal(blanked, whole)


def test_a_page_among_stills_does_not_bring_back_the_text_of_dark_ones(named):
    for name in ("b", "c"):
        (named / f"{name}.jpg").write_bytes((named / "a.jpg").read_bytes())
    Image.new("RGB", (400, 240), (0, 0, 200)).save(named / "no signal.png")
    dark(named, "z")
    stills = open_frames(named)
    index = [frame.name for frame in stills.frames].index("z")
    blanked, _ = Deidentifier().blank(stills, index, stills.read(index))
    assert stills.read(index)[:, :112].any()
    assert not blanked[:, :112].any()


def test_stills_of_many_sizes_are_not_compared_with_each_other(tmp_path, make_frame, monkeypatch):
    folder = tmp_path / "stills"
    folder.mkdir()
    for seed in range(4):
        frame = np.zeros((240 + seed, 400, 3), np.uint8)
        frame[10:230, 120:390] = np.maximum(make_frame(seed, 220, 270), 45)
        Image.fromarray(frame).save(folder / f"{seed}.png")
    sequence, read = open_frames(folder), []
    frames = [sequence.read(index) for index in range(4)]
    monkeypatch.setattr(type(sequence), "read", lambda _self, index: read.append(index))
    deidentifier = Deidentifier()
    for index, frame in enumerate(frames):
        blanked, _ = deidentifier.blank(sequence, index, frame)
        assert not blanked[:, :112].any()
        np.testing.assert_array_equal(blanked[30:210, 140:370], frame[30:210, 140:370])
    assert read == []


def test_a_dark_frame_alone_becomes_black(tmp_path):
    (tmp_path / "stills").mkdir()
    dark(tmp_path / "stills", "a")
    frames = incoming_frames(open_dataset(tmp_path / "stills" / "a.png"))
    write_dataset(frames, tmp_path / "set", WriteOptions(deidentifier=Deidentifier()))
    assert not open_dataset(tmp_path / "set").read(0).any()


def test_damaged_frames_of_a_video_do_not_keep_the_others_from_being_blanked(tmp_path):
    frame = np.zeros((120, 200, 3), np.uint8)
    frame[10:110, 20:100] = 180
    frame[2:6, 150:190] = 255
    stack = np.stack([frame] * 20)
    path = tmp_path / "video.tif"
    tifffile.imwrite(path, stack, photometric="rgb", compression="zlib")
    with tifffile.TiffFile(path) as file:
        start, length = file.pages[19].dataoffsets[0], file.pages[19].databytecounts[0]
    content = bytearray(path.read_bytes())
    content[start : start + length] = bytes(length)
    path.write_bytes(content)
    sequence = open_frames(path)
    with pytest.raises(InputError, match="cannot be read"):
        sequence.read(19)
    blanked, _ = Deidentifier().blank(sequence, 5, sequence.read(5))
    assert not blanked[:, 120:].any()
    assert (blanked[15:105, 25:95] == 180).all()


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


def test_a_frame_that_a_box_misses_is_left_out_and_named(named, tmp_path, make_frame):
    small = np.maximum(make_frame(1, 120, 160), 45)
    Image.fromarray(small).save(named / "b.png")
    frames = incoming_frames(open_dataset(named))
    options = WriteOptions(deidentifier=Deidentifier(Box(0, 300, 40, 400)))
    result = write_dataset(frames, tmp_path / "set", options)
    assert result.added == ("stills/a",)
    (problem,) = result.left_out.items()
    assert problem[0] == "stills/b"
    assert "box 0,300,40,400 lies outside the frame b of 160 x 120 px" in problem[1]


@pytest.mark.parametrize("text", ["", "1,2,3", "a,b,c,d", "5,5,5,9", "-1,0,4,4"])
def test_boxes_that_are_none_are_refused(text):
    with pytest.raises(InputError, match="box"):
        parse_box(text)
