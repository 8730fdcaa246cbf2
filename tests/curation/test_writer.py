from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from concurrent.futures import CancelledError
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_microaunet.curation import open_dataset, read_manifest, writer
from napari_microaunet.curation.deidentify import Deidentifier
from napari_microaunet.curation.incoming import (
    incoming_frames,
    open_session,
)
from napari_microaunet.curation.placing import Shares
from napari_microaunet.curation.session import KeptMap, MaskOrigin, Session
from napari_microaunet.curation.writer import WriteOptions, write_dataset
from napari_microaunet.errors import InputError
from napari_microaunet.frames import FieldOfView, open_frames
from napari_microaunet.frames.sample_data import sample_data_folder

HALVES = Shares(0.5, 0.5, 0)


@pytest.fixture
def frames(tmp_path, write_frame):
    folder = tmp_path / "case 7"
    for seed in range(6):
        write_frame(folder / f"{seed}.png", seed)
    return folder


@pytest.fixture
def session(frames):
    """Six frames: 0 and 1 accepted with polyps, 2 accepted as negative, 3 edited, 4 excluded."""
    with Session(open_frames(frames), annotator="Ada") as session:
        for index in (0, 1, 3, 4):
            mask = np.zeros((24, 32), np.uint8)
            mask[4:10, 3 : 12 + index] = 1
            mask[14:18, 20:26] = 2
            mask[20:22, 0:9] = 255
            session.put_mask(index, mask, MaskOrigin.HAND)
        kept = KeptMap(np.full((8, 8), 200, np.uint8), FieldOfView(0, 0, 24, 32), "mine", "ab" * 32)
        session.put_map(1, kept, confidence=0.75, threshold=0.45)
        session.add_time(1, 5.0, editing=True)
        session.add_stroke(1)
        session.accept([0, 1, 2])
        session.exclude([4], "blurred")
        yield session


def write(session, folder, **options):
    chosen = WriteOptions(**{"shares": HALVES, **options})
    append = folder.exists()
    return write_dataset(incoming_frames(session), folder, chosen, append=append)


def files(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_accepted_frames_are_written_as_they_are(session, frames, tmp_path):
    result = write(session, tmp_path / "set")
    assert result.added == ("case 7/0", "case 7/1", "case 7/2")
    dataset = open_dataset(tmp_path / "set")
    for index in range(3):
        name = f"case 7/{index}"
        assert dataset.frames[index].name == name
        copy = tmp_path / "set" / "images" / f"{name}.png"
        assert copy.read_bytes() == (frames / f"{index}.png").read_bytes()
        np.testing.assert_array_equal(dataset.mask(index), session.chunks.mask(index))
    assert [frame.negative for frame in dataset.frames] == [False, False, True]
    assert set(dataset.mask(1).ravel()) == {0, 1, 2, 255}
    assert not dataset.mask(2).any()
    # Opened without the manifest, the same masks lie beside the same frames.
    plain = open_frames(tmp_path / "set")
    np.testing.assert_array_equal(plain.read_mask(1), session.chunks.mask(1))


def test_the_manifest_tells_how_labels_came_about(session, frames, tmp_path):
    write(session, tmp_path / "set")
    record = read_manifest(tmp_path / "set" / "manifest.json").frames[1]
    annotation = record.annotation
    assert (annotation.state, annotation.origin, annotation.annotator) == (
        "accepted",
        "hand",
        "Ada",
    )
    assert annotation.accepted <= annotation.written
    assert (annotation.seconds, annotation.seconds_editing, annotation.strokes) == (5.0, 5.0, 1)
    assert annotation.changed_pixels == np.count_nonzero(session.chunks.mask(1))
    assert annotation.prelabel.model == "mine"
    assert annotation.prelabel.card_sha256 == "ab" * 32
    assert annotation.prelabel.confidence == 0.75
    assert annotation.prelabel.threshold == 0.45
    assert (record.height, record.width) == (24, 32)
    assert record.polyp_pixels == 6 * 10 + 4 * 6
    assert record.ignored_pixels == 2 * 9
    for file, digest in ((record.image, record.image_sha256), (record.mask, record.mask_sha256)):
        content = (tmp_path / "set" / file).read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest


def test_a_mask_from_a_file_is_not_put_down_to_a_model(session, tmp_path):
    session.put_mask(1, np.ones((24, 32), np.uint8), MaskOrigin.FILE)
    session.accept([1])
    annotation = write(session, tmp_path / "set").manifest.frames[1].annotation
    assert (annotation.origin, annotation.prelabel) == ("file", None)
    assert {cost.name: cost.model for cost in session.edit_costs()}["1"] is None


@pytest.mark.parametrize(("include", "taken"), [("edited", "0123"), ("all", "01235")])
def test_more_than_accepted_frames_on_request(session, tmp_path, include, taken):
    result = write_dataset(incoming_frames(session, include), tmp_path / "set")
    assert [record.name[-1] for record in result.manifest.frames] == list(taken)
    states = [record.annotation.state for record in result.manifest.frames]
    assert states[:4] == ["accepted", "accepted", "accepted", "edited"]
    if include == "all":
        assert states[4] == "unseen"
        assert not result.manifest.frames[4].labelled


def test_a_mask_that_changes_before_it_is_read_does_not_pass_for_the_accepted_one(
    session, tmp_path
):
    frames = incoming_frames(session)
    session.put_mask(1, np.full((24, 32), 3, np.uint8), MaskOrigin.HAND)
    result = write_dataset(frames, tmp_path / "set", WriteOptions(shares=HALVES))
    assert result.added == ("case 7/0", "case 7/2")
    assert list(result.left_out) == ["case 7/1"]
    assert "frame 1 in" in result.left_out["case 7/1"]
    assert "has changed" in result.left_out["case 7/1"]


def test_a_frame_that_comes_again_is_updated_and_stays_in_its_split(session, tmp_path):
    folder = tmp_path / "set"
    before = write(session, folder).manifest.frames
    session.put_mask(0, np.full((24, 32), 1, np.uint8), MaskOrigin.HAND)
    session.accept([0, 3])
    result = write(session, folder)
    assert result.updated == ("case 7/0",)
    assert result.added == ("case 7/3",)
    assert result.unchanged == ("case 7/1", "case 7/2")
    after = read_manifest(folder / "manifest.json").frames
    assert len(after) == 4
    assert [frame.split for frame in after[:3]] == [frame.split for frame in before]
    assert after[1:3] == before[1:]
    assert open_dataset(folder).mask(0).all()
    assert write(session, folder).updated == ()


def test_frames_that_nobody_has_reviewed_replace_no_label(session, frames, tmp_path):
    folder = tmp_path / "set"
    before = write(session, folder)
    kept = files(folder)
    with Session(open_frames(frames), tmp_path / "another.microaunet") as another:
        result = write_dataset(incoming_frames(another, "all"), folder, append=True)
    assert result.unchanged == before.added
    assert result.updated == ()
    assert len(result.added) == 3
    after = files(folder)
    assert {name: after[name] for name in kept if name != "manifest.json"} == {
        name: content for name, content in kept.items() if name != "manifest.json"
    }
    assert result.manifest.frames[:3] == before.manifest.frames


def test_a_dataset_that_is_corrected_and_added_to_itself_is_updated(session, tmp_path):
    folder = tmp_path / "set"
    before = write(session, folder).manifest.frames
    with Session(open_frames(folder), tmp_path / "corrected.microaunet") as corrected:
        names = [frame.name for frame in corrected.sequence.frames]
        corrected.put_mask(names.index("case 7/1"), np.ones((24, 32), np.uint8), MaskOrigin.HAND)
        corrected.accept([names.index("case 7/1")])
        result = write_dataset(incoming_frames(corrected), folder, append=True)
    assert result.updated == ("case 7/1",)
    assert result.added == ()
    dataset = open_dataset(folder)
    assert dataset.mask(1).all()
    assert (dataset.frames[0], dataset.frames[2]) == (before[0], before[2])
    for field in ("image", "group", "split", "source", "original_sha256"):
        assert getattr(dataset.frames[1], field) == getattr(before[1], field)


def test_a_new_dataset_among_the_frames_is_refused(session, frames):
    with pytest.raises(InputError, match="lies among the frames"):
        write(session, frames / "set")
    assert not (frames / "set").exists()


@pytest.mark.parametrize("source", ["../../../outside", "..", "/outside"])
def test_a_dataset_from_elsewhere_writes_nothing_out_of_the_new_one(session, tmp_path, source):
    write(session, tmp_path / "a" / "b" / "hostile")
    file = tmp_path / "a" / "b" / "hostile" / "manifest.json"
    content = json.loads(file.read_text())
    content["frames"][0]["source"] = source
    file.write_text(json.dumps(content))
    before = set(files(tmp_path))
    frames = incoming_frames(open_dataset(file.parent))
    with pytest.raises(InputError, match="not a plain path below the dataset's folder"):
        write_dataset(frames, tmp_path / "a" / "new")
    assert set(files(tmp_path)) == before


def test_of_a_frame_and_its_deidentified_version_the_latter_is_taken(session, tmp_path):
    write(session, tmp_path / "raw")
    write(session, tmp_path / "safe", deidentifier=Deidentifier())
    both = [
        frame
        for name in ("raw", "safe")
        for frame in incoming_frames(open_dataset(tmp_path / name))
    ]
    result = write_dataset(both, tmp_path / "both")
    assert len(result.added) == 3
    assert all("metadata" in record.blanked for record in result.manifest.frames)
    dataset, safe = (open_dataset(tmp_path / name) for name in ("both", "safe"))
    for index in range(3):
        np.testing.assert_array_equal(dataset.read(index), safe.read(index))


def test_a_frame_of_a_dataset_of_version_1_comes_again_as_itself(session, tmp_path):
    folder = tmp_path / "set"
    write(session, folder)
    content = json.loads((folder / "manifest.json").read_text())
    content["version"] = 1
    fields = {"name", "image", "mask", "negative", "group", "split", "source", "image_sha256"}
    content["frames"] = [
        {key: value for key, value in frame.items() if key in fields} for frame in content["frames"]
    ]
    (folder / "manifest.json").write_text(json.dumps(content))
    result = write(session, folder)
    assert result.added == ()
    assert len(result.manifest.frames) == 3


def test_turned_photos_are_stored_as_they_are_shown(tmp_path, write_frame):
    write_frame(tmp_path / "turned" / "a.png", 1)
    with Image.open(tmp_path / "turned" / "a.png") as image:
        exif = image.getexif()
        exif[0x0112] = 6
        image.save(tmp_path / "turned" / "a.jpg", exif=exif)
    (tmp_path / "turned" / "a.png").unlink()
    with Session(open_frames(tmp_path / "turned")) as session:
        assert (session.sequence.frames[0].height, session.sequence.frames[0].width) == (32, 24)
        session.accept([0])
        record = write(session, tmp_path / "set").manifest.frames[0]
    with (
        Image.open(tmp_path / "set" / record.image) as stored,
        Image.open(tmp_path / "set" / record.mask) as mask,
    ):
        assert 0x0112 not in stored.getexif()
        assert stored.size == mask.size == (24, 32)


def test_another_picture_of_the_same_name_is_another_frame(session, tmp_path, write_frame):
    folder = tmp_path / "set"
    write(session, folder)
    other = tmp_path / "elsewhere" / "case 7"
    shutil.copytree(session.sequence.path, other)
    write_frame(other / "0.png", 99)
    with Session(open_frames(other)) as second:
        second.accept([0])
        result = write(second, folder)
        assert result.added == ("case 7/0-2",)
        assert result.manifest.frames[-1].group == "case 7/0-2"
        assert write(second, folder).unchanged == ("case 7/0-2",)
    dataset = open_dataset(folder)
    np.testing.assert_array_equal(dataset.read(0), session.sequence.read(0))
    np.testing.assert_array_equal(dataset.read(3), open_frames(other).read(0))


def test_another_folder_of_the_same_name_is_another_source(session, tmp_path, write_frame):
    folder = tmp_path / "set"
    write(session, folder)
    for seed in range(4):
        write_frame(tmp_path / "elsewhere" / "case 7" / f"{seed}.png", 90 + seed)
    with Session(open_frames(tmp_path / "elsewhere" / "case 7")) as second:
        second.accept([3])  # whose name nothing in the dataset has
        assert write(second, folder).added == ("case 7-2/3",)
        second.accept(range(4))
        result = write(second, folder)
    assert result.added == ("case 7-2/0", "case 7-2/1", "case 7-2/2")
    assert result.updated == ("case 7-2/3",)
    records = result.manifest.frames
    assert [(one.source, one.group) for one in records[3:]] == [
        ("case 7-2", one.name) for one in records[3:]
    ]
    # The first one comes again as itself.
    session.accept([3])
    assert write(session, folder).added == ("case 7/3",)


def test_datasets_of_two_folders_of_one_name_keep_their_splits(tmp_path, write_frame):
    before = {}
    for site, shares in (("a", Shares(0, 1, 0)), ("b", Shares(0, 0, 1))):
        for number in range(4):
            path = tmp_path / site / "frames" / f"{number}.png"
            write_frame(path, ord(site) + 10 * number)
        source = open_dataset(tmp_path / site / "frames")
        options = WriteOptions(shares=shares)
        written = write_dataset(incoming_frames(source), tmp_path / site / "set", options)
        before |= {one.original_sha256: one.split for one in written.manifest.frames}
    sets = [open_dataset(tmp_path / site / "set") for site in "ab"]
    merged = [frame for one in sets for frame in incoming_frames(one)]
    records = write_dataset(merged, tmp_path / "both").manifest.frames
    assert {one.original_sha256: one.split for one in records} == before
    assert [one.name for one in records[3:5]] == ["frames/3", "frames-2/0"]
    again = write_dataset(merged, tmp_path / "both", append=True)
    assert (again.added, again.updated) == ((), ())


def test_videos_of_one_name_are_groups_of_their_own(tmp_path):
    folder, frames = tmp_path / "set", []
    for number in range(3):
        path = tmp_path / f"patient{number}" / "video.tif"
        path.parent.mkdir()
        write_stack(path, 4, 50 + number)
        with Session(open_frames(path)) as session:
            session.accept([number])
            frames.append(incoming_frames(session))
    result = write_dataset([*frames[0], *frames[1]], folder)
    assert set(groups_of(result).values()) == {"video", "video-2"}
    result = write_dataset(frames[2], folder, append=True)
    assert {one.name: one.group for one in result.manifest.frames} == {
        "video/video_000000": "video",
        "video-2/video_000001": "video-2",
        "video-3/video_000002": "video-3",
    }
    with Session(open_frames(tmp_path / "patient1" / "video.tif")) as session:
        session.accept([3])
        result = write_dataset(incoming_frames(session), folder, append=True)
    assert result.added == ("video-2/video_000003",)
    assert result.unchanged == ("video-2/video_000001",)


def test_a_session_and_the_dataset_of_it_are_merged_and_keep_the_splits(session, tmp_path):
    before = write(session, tmp_path / "set", seed=3).manifest.frames
    session.accept([3])
    dataset = open_dataset(tmp_path / "set")
    both = [*incoming_frames(session), *incoming_frames(dataset)]
    after = write_dataset(both, tmp_path / "both", WriteOptions(shares=Shares(0, 0, 1)))
    assert len(after.manifest.frames) == 4
    for one, other in zip(before, after.manifest.frames[:3], strict=True):
        assert (other.name, other.group, other.split) == (one.name, one.group, one.split)


def test_a_de_identified_dataset_and_the_session_of_its_originals_are_one(session, tmp_path):
    folder, options = tmp_path / "set", WriteOptions(deidentifier=Deidentifier())
    before = write_dataset(incoming_frames(session), folder, options).manifest.frames
    with Session(open_frames(folder), tmp_path / "opened.microaunet") as opened:
        for index in range(3):
            opened.put_mask(index, opened.sequence.read_mask(index), MaskOrigin.FILE)
        opened.accept(range(3))
        both = [*incoming_frames(opened), *incoming_frames(session)]
        for frames in (both, both[::-1]):
            result = write_dataset(frames, folder, options, append=True)
            assert result.added == ()
            for one, other in zip(before, result.manifest.frames, strict=True):
                assert other.original_sha256 == one.original_sha256
        opened.put_mask(1, np.ones((24, 32), np.uint8), MaskOrigin.HAND)
        opened.accept([1])
        both = [*incoming_frames(session), *incoming_frames(opened)]
        with pytest.raises(InputError, match="different labels for the frame"):
            write_dataset(both, folder, options, append=True)


def test_a_mask_that_was_only_read_again_does_not_change_who_made_it(session, tmp_path):
    folder = tmp_path / "set"
    before = write(session, folder).manifest.frames
    with Session(open_frames(folder), tmp_path / "ben.microaunet", annotator="Ben") as opened:
        for index in range(3):
            opened.put_mask(index, opened.sequence.read_mask(index), MaskOrigin.FILE)
        opened.put_mask(0, np.ones((24, 32), np.uint8), MaskOrigin.HAND)
        frames = incoming_frames(opened, "edited")
        result = write_dataset(frames, folder, append=True)
        assert result.updated == ("case 7/0",)
        assert result.manifest.frames[0].annotation.annotator == "Ben"
        assert result.manifest.frames[1:] == before[1:]
        opened.accept([1])
        result = write_dataset(incoming_frames(opened), folder, append=True)
        assert result.manifest.frames[1].annotation.annotator == "Ben"
    # Nor does a plain folder of the same frames and masks.
    shutil.copytree(session.sequence.path, tmp_path / "copy" / "case 7" / "images")
    shutil.copytree(folder / "masks" / "case 7", tmp_path / "copy" / "case 7" / "masks")
    frames = incoming_frames(open_dataset(tmp_path / "copy" / "case 7"))
    again = write_dataset(frames, folder, append=True)
    assert again.updated == ()
    assert again.manifest.frames[:3] == result.manifest.frames


def test_two_annotators_of_one_frame_have_to_be_reconciled_first(session, frames, tmp_path):
    with Session(open_frames(frames), tmp_path / "second.microaunet") as second:
        second.accept([0, 2])
        both = [*incoming_frames(session), *incoming_frames(second)]
        with pytest.raises(InputError, match=r"different labels for the frame case 7/0.*reconcile"):
            write_dataset(both, tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_links_take_no_room_and_never_leave_the_dataset(session, frames, tmp_path):
    write(session, tmp_path / "set", link=True)
    linked = tmp_path / "set" / "images" / "case 7" / "0.png"
    assert linked.samefile(frames / "0.png")
    assert not linked.is_symlink()
    open_dataset(tmp_path / "set")


def test_frames_of_a_video_become_files_of_one_split(tmp_path):
    sequence = open_frames(sample_data_folder() / "clip.mp4")
    with Session(sequence, tmp_path / "clip.microaunet") as session:
        session.accept([3, 50, 90])
        result = write_dataset(incoming_frames(session), tmp_path / "set")
    assert len({(record.group, record.split) for record in result.manifest.frames}) == 1
    dataset = open_dataset(tmp_path / "set")
    for index, number in enumerate((3, 50, 90)):
        np.testing.assert_array_equal(dataset.read(index), sequence.read(number))


def test_frames_that_cannot_be_read_are_left_out_and_named(session, frames, tmp_path):
    whole = (frames / "1.png").read_bytes()
    (frames / "1.png").write_bytes(whole[: len(whole) // 2])
    result = write(session, tmp_path / "set")
    assert list(result.left_out) == ["case 7/1"]
    assert "damaged" in result.left_out["case 7/1"]
    assert "images/case 7/1.png" not in files(tmp_path / "set")


def test_a_frame_of_the_dataset_that_cannot_be_read_keeps_its_mask(tmp_path, write_frame):
    """Its size is not known, so that the mask in a session would be cut to that of another."""
    write_frame(tmp_path / "case" / "0.png", 0)
    Image.new("RGB", (64, 48), "red").save(tmp_path / "case" / "1.png")
    with Session(open_frames(tmp_path / "case")) as session:
        session.put_mask(1, np.ones((48, 64), np.uint8), MaskOrigin.HAND)
        session.accept([0, 1])
        write(session, tmp_path / "set")
    damaged = tmp_path / "set" / "images" / "case" / "1.png"
    damaged.write_bytes(damaged.read_bytes()[:20])
    with Session(open_frames(tmp_path / "set")) as session:
        session.put_mask(1, None, MaskOrigin.HAND)
        session.accept([1])
        result = write(session, tmp_path / "set")
    assert list(result.left_out) == ["set/case/1"]
    assert result.updated == ()
    assert Image.open(tmp_path / "set" / "masks" / "case" / "1.png").size == (64, 48)


def test_what_is_in_the_way_is_left_alone(session, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine.txt").write_text("precious")
    with pytest.raises(InputError, match="exists; append to it"):
        write_dataset(incoming_frames(session), tmp_path / "set")
    with pytest.raises(InputError, match=r"manifest\.json.*cannot be read"):
        write_dataset(incoming_frames(session), tmp_path / "set", append=True)
    assert files(tmp_path / "set") == {"mine.txt": b"precious"}


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_nothing_is_written_through_a_link_out_of_the_dataset(session, tmp_path, write_frame):
    write(session, tmp_path / "set")
    (tmp_path / "outside").mkdir()
    (tmp_path / "set" / "images" / "other").symlink_to(tmp_path / "outside")
    write_frame(tmp_path / "other" / "0.png", 77)
    frames = incoming_frames(open_dataset(tmp_path / "other"))
    with pytest.raises(InputError, match="link out of the dataset"):
        write_dataset(frames, tmp_path / "set", append=True)
    assert not list((tmp_path / "outside").iterdir())


def test_two_programs_never_append_at_once(session, tmp_path):
    write(session, tmp_path / "set")
    before = files(tmp_path / "set")
    session.accept([3])
    refused = []

    def append_too(*_):
        with pytest.raises(InputError, match="set is being appended to by another program"):
            write_dataset(incoming_frames(session), tmp_path / "set", append=True)
        refused.append(True)

    result = write_dataset(
        incoming_frames(session), tmp_path / "set", append=True, progress=append_too
    )
    assert refused
    assert len(result.added) == 1
    after = files(tmp_path / "set")
    assert set(after) - set(before) == {"images/case 7/3.png", "masks/case 7/3.png"}
    assert open_dataset(tmp_path / "set").mask(3) is not None


def test_cancelled_it_leaves_everything_as_it_was(session, tmp_path):
    write(session, tmp_path / "set")
    before = files(tmp_path / "set")
    session.accept([3])
    for folder in (tmp_path / "set", tmp_path / "new"):
        told = []
        with pytest.raises(CancelledError):
            write_dataset(
                incoming_frames(session),
                folder,
                append=folder.exists(),
                progress=lambda *count, told=told: told.append(count),
                cancelled=lambda told=told: len(told) == 2,
            )
        assert told[-1] in ((2, 3), (2, 4))
    assert files(tmp_path / "set") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "case 7",
        session.folder.name,
        "set",
    ]


@pytest.mark.parametrize("busy", ["hash_original", "thumbnails_of"])
def test_it_is_cancelled_while_frames_are_compared_with_those_that_are_there(
    session, tmp_path, monkeypatch, busy
):
    write(session, tmp_path / "set")
    before = files(tmp_path / "set")
    session.accept([3])
    function, told = getattr(writer, busy), []

    def notice(*arguments):
        told.append(arguments)
        return function(*arguments)

    monkeypatch.setattr(writer, busy, notice)
    with pytest.raises(CancelledError):
        write_dataset(
            incoming_frames(session), tmp_path / "set", append=True, cancelled=lambda: bool(told)
        )
    assert len(told) == 1
    assert files(tmp_path / "set") == before


def test_a_pattern_finds_the_patient_in_the_name(tmp_path, write_set):
    source = write_set(tmp_path / "stills", 10)
    for path in [*source.rglob("*.png")]:
        path.rename(path.with_name(f"p{int(path.stem) // 2}_{path.name}"))
    pattern = re.compile(r"(p\d)_")
    result = write_dataset(incoming_frames(open_dataset(source), pattern=pattern), tmp_path / "set")
    assert sorted({record.group for record in result.manifest.frames}) == [
        f"p{n}" for n in range(5)
    ]
    with pytest.raises(InputError, match='"case" finds no group in the name "stills/p0_0"'):
        incoming_frames(open_dataset(source), pattern=re.compile("case"))


def patients(folder, numbers, visit, write_set):
    """Write a set of stills, two of each patient, whose names tell the patient."""
    source = write_set(folder, 100 * visit + 2 * len(numbers))
    for path in [*source.rglob("*.png")]:
        if int(path.stem) < 100 * visit:
            path.unlink()
        else:
            number = numbers[int(path.stem) % 100 // 2]
            path.rename(path.with_name(f"patient{number:02d}_{path.name}"))
    return source


def test_later_frames_of_a_patient_stay_in_his_split_without_the_pattern_being_given_again(
    tmp_path, write_set
):
    pattern = re.compile(r"patient(\d+)")
    first = patients(tmp_path / "w1", range(8), 0, write_set)
    write_dataset(incoming_frames(open_dataset(first), pattern=pattern), tmp_path / "set")
    second = patients(tmp_path / "w2", range(8), 1, write_set)
    frames = incoming_frames(open_dataset(second))
    result = write_dataset(frames, tmp_path / "set", append=True)
    assert len(result.added) == 16
    splits = {record.group: record.split for record in result.manifest.frames}
    assert splits.keys() == {f"{number:02d}" for number in range(8)}
    # Merged, they are the same patients still.
    merged = incoming_frames(open_dataset(tmp_path / "set"))
    again = write_dataset(merged, tmp_path / "merged").manifest
    assert {record.group: record.split for record in again.frames} == splits
    assert again.group_patterns == result.manifest.group_patterns == (pattern.pattern,)


def test_a_pattern_that_would_divide_what_is_together_is_refused(tmp_path, write_set):
    pattern = re.compile(r"patient(\d+)")
    first = patients(tmp_path / "w1", range(4), 0, write_set)
    write_dataset(incoming_frames(open_dataset(first)), tmp_path / "set")
    second = patients(tmp_path / "w2", range(4), 1, write_set)
    with pytest.raises(InputError, match=r'w1/patient00_0 in the group w1/patient00_0.* "00"'):
        write_dataset(
            incoming_frames(open_dataset(second), pattern=pattern), tmp_path / "set", append=True
        )


def test_a_pattern_that_would_divide_a_folder_of_several_patients_is_refused(
    tmp_path, write_set, write_frame
):
    for number in range(4):
        write_frame(tmp_path / f"w1/batch/patient{number // 2:02d}_{number}.png", number)
    write_dataset(incoming_frames(open_dataset(tmp_path / "w1")), tmp_path / "set")
    second = patients(tmp_path / "w2", range(4), 1, write_set)
    frames = incoming_frames(open_dataset(second), pattern=re.compile(r"patient(\d+)"))
    with pytest.raises(InputError, match=r'patient00_0 in the group w1/batch, and not in "00"'):
        write_dataset(frames, tmp_path / "set", append=True)


def test_a_kept_pattern_that_is_found_in_some_names_alone_joins_these(
    tmp_path, write_set, write_frame
):
    pattern = re.compile(r"patient(\d+)")
    first = patients(tmp_path / "w1", range(4), 0, write_set)
    write_frame(first / "images" / "nobody.png", 200)
    with pytest.raises(InputError, match="finds no group in the name"):
        incoming_frames(open_dataset(first), pattern=pattern)
    (first / "images" / "nobody.png").unlink()
    write_dataset(incoming_frames(open_dataset(first), pattern=pattern), tmp_path / "set")
    second = patients(tmp_path / "w2", range(4), 1, write_set)
    write_frame(second / "images" / "nobody.png", 300, second / "masks" / "nobody.png")
    append = partial(write_dataset, folder=tmp_path / "set", append=True)
    groups = groups_of(append(incoming_frames(open_dataset(second))))
    assert groups["w2/nobody"] == "w2/nobody"
    assert groups["w2/patient02_104"] == groups["w1/patient02_4"] == "02"
    # Where no name tells a patient, folders and videos are the groups.
    third = write_set(tmp_path / "w3", 3)
    groups = groups_of(append(incoming_frames(open_dataset(third))))
    assert groups["w3/2"] == "w3/2"
    # All of this keeps nobody from coming again.
    fourth = patients(tmp_path / "w4", range(4), 2, write_set)
    assert groups_of(append(incoming_frames(open_dataset(fourth))))["w4/patient02_204"] == "02"


def groups_of(result):
    return {record.name: record.group for record in result.manifest.frames}


def write_stack(path, seeds, seed=99):
    """Write a stack of frames that resemble each other no more than stills do."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(40, 255, (seeds, 6, 8, 3)).astype(np.uint8)
    pages = [
        np.asarray(Image.fromarray(one).resize((32, 24), Image.Resampling.BICUBIC))
        for one in coarse
    ]
    tifffile.imwrite(path, np.stack(pages), photometric="rgb")
    return path


@pytest.mark.parametrize("kind", ["session", "stack", "dataset"])
def test_a_kept_pattern_does_not_tear_a_video_apart(tmp_path, write_set, kind):
    folder = tmp_path / "set"
    stills = incoming_frames(
        open_dataset(write_set(tmp_path / "ward", 8)), pattern=re.compile(r"\d$")
    )
    write_dataset(stills, folder, WriteOptions(shares=HALVES))
    clip = write_stack(tmp_path / "clip.tif", 8)
    if kind == "session":
        with Session(open_frames(clip)) as session:
            session.accept(range(8))
            frames = incoming_frames(session)
            result = write_dataset(frames, folder, WriteOptions(shares=HALVES), append=True)
    else:
        if kind == "dataset":
            write_dataset(incoming_frames(open_dataset(clip)), tmp_path / "clips")
            clip = tmp_path / "clips"
        frames = incoming_frames(open_dataset(clip))
        result = write_dataset(frames, folder, WriteOptions(shares=HALVES), append=True)
    groups = groups_of(result)
    assert {groups[f"clip/clip_{number:06d}"] for number in range(8)} == {"clip"}
    assert groups["ward/3"] == "3"
    # Nor does it keep stills out that it groups, for being found in a frame of the video.
    later = incoming_frames(open_dataset(write_set(tmp_path / "later", 3)))
    assert groups_of(write_dataset(later, folder, append=True))["later/2"] == "2"


def test_a_kept_pattern_does_not_divide_a_sequence_of_a_table(tmp_path, write_set):
    pattern = re.compile(r"patient(\d+)")
    first = patients(tmp_path / "w1", range(4), 0, write_set)
    write_dataset(incoming_frames(open_dataset(first), pattern=pattern), tmp_path / "set")
    second = patients(tmp_path / "w2", range(4), 1, write_set)
    # One sequence shows two patients, the other one of them.
    table = ["frame,sequence", *(f"patient{n // 2:02d}_{100 + n},{n // 4}" for n in range(6))]
    (second / "sequences.csv").write_text("\n".join(table))
    frames = incoming_frames(open_dataset(second))
    groups = groups_of(write_dataset(frames, tmp_path / "set", append=True))
    assert [groups[f"w2/patient{n // 2:02d}_{100 + n}"] for n in range(8)] == [
        *["w2/sequence 0"] * 4,
        *["02", "02", "03", "03"],
    ]


def test_a_kept_pattern_finds_patients_in_folders_of_many(tmp_path, write_set, write_frame):
    pattern = re.compile(r"patient(\d+)")
    first = patients(tmp_path / "w1", range(4), 0, write_set)
    write_dataset(incoming_frames(open_dataset(first), pattern=pattern), tmp_path / "set")
    for number in range(8):
        name = f"batch {number % 2}/patient{number // 2:02d}_{number}.png"
        write_frame(tmp_path / "w2" / name, 400 + number)
    frames = incoming_frames(open_dataset(tmp_path / "w2"))
    groups = groups_of(write_dataset(frames, tmp_path / "set", append=True))
    assert groups["w2/batch 0/patient01_2"] == groups["w2/batch 1/patient01_3"] == "01"


def test_datasets_are_merged_and_keep_their_splits(tmp_path, write_set):
    for name, seeds in (("first", 8), ("second", 12)):
        write_set(tmp_path / name, seeds)
        for path in [*(tmp_path / name).rglob("*.png")] if name == "second" else []:
            if int(path.stem) < 8:
                path.unlink()
        write_dataset(
            incoming_frames(open_dataset(tmp_path / name)),
            tmp_path / f"{name} set",
            WriteOptions(shares=Shares(0, 1, 0) if name == "first" else Shares(0, 0, 1)),
        )
    sources = [open_dataset(tmp_path / f"{name} set") for name in ("first", "second")]
    merged = [frame for source in sources for frame in incoming_frames(source)]
    records = write_dataset(merged, tmp_path / "both").manifest.frames
    assert [record.split for record in records] == ["validation"] * 8 + ["test"] * 4
    assert [record.name for record in records][7:9] == ["first/7", "second/8"]


def test_a_near_duplicate_joins_the_split_of_what_it_resembles(tmp_path, make_frame):
    source = tmp_path / "stills"
    source.mkdir()
    for seed in range(6):
        Image.fromarray(make_frame(seed)).save(source / f"{seed}.png")
    dataset = open_dataset(source)
    before = write_dataset(
        incoming_frames(dataset), tmp_path / "set", WriteOptions(shares=Shares(0, 0, 1))
    ).manifest.frames
    again = tmp_path / "again"
    again.mkdir()
    Image.fromarray(make_frame(4)).save(again / "brighter.jpg", quality=90)
    result = write_dataset(
        incoming_frames(open_dataset(again)),
        tmp_path / "set",
        WriteOptions(shares=Shares(1, 0, 0)),
        append=True,
    )
    record = result.manifest.frames[-1]
    assert (record.name, record.split) == ("again/brighter", "test")
    assert result.manifest.frames[:-1] == before


def test_a_near_duplicate_is_found_where_frames_alone_show_less_of_the_picture(tmp_path):
    """Half of it is dark in both: their field of view is known from the others of their folder."""
    random = np.random.default_rng(5)
    (tmp_path / "ward").mkdir()

    def texture():
        coarse = Image.fromarray(random.integers(60, 255, (6, 8, 3)).astype(np.uint8))
        return np.asarray(coarse.resize((160, 120), Image.Resampling.BICUBIC))

    dark = texture() * np.clip(np.linspace(-0.77, 1.43, 160), 0, 1)[:, np.newaxis]
    for number in range(10):
        frame = texture() if number < 8 else dark + random.normal(0, 2, dark.shape)
        pixels = np.clip(frame, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "ward" / f"{number}.png")
    with Session(open_frames(tmp_path / "ward")) as session:
        session.accept(range(9))
        options = WriteOptions(shares=Shares(0, 0, 1))
        write_dataset(incoming_frames(session), tmp_path / "set", options)
        session.accept([9])
        options = WriteOptions(shares=Shares(1, 0, 0))
        result = write_dataset(incoming_frames(session), tmp_path / "set", options, append=True)
    assert result.added == ("ward/9",)
    assert {record.split for record in result.manifest.frames} == {"test"}


def test_what_would_leak_between_splits_is_left_out(tmp_path, make_frame):
    """A new clip resembles one frame of the training split and one of the test split."""
    for name, seed, shares in (("a", 1, Shares(1, 0, 0)), ("b", 3, Shares(0, 0, 1))):
        (tmp_path / name).mkdir()
        Image.fromarray(make_frame(seed)).save(tmp_path / name / "0.png")
        write_dataset(
            incoming_frames(open_dataset(tmp_path / name)),
            tmp_path / "set",
            WriteOptions(shares=shares),
            append=(tmp_path / "set").exists(),
        )
    clip = tmp_path / "new" / "clip"
    clip.mkdir(parents=True)
    for number, seed in enumerate((1, 3, 5)):
        Image.fromarray(make_frame(seed)).save(clip / f"{number}.jpg", quality=95)
    result = write_dataset(
        incoming_frames(open_dataset(tmp_path / "new")), tmp_path / "set", append=True
    )
    assert list(result.left_out) == ["new/clip/1"]
    assert "it resembles b/0 (test)" in result.left_out["new/clip/1"]
    assert {record.split for record in result.manifest.frames[2:]} == {"training"}


def test_a_session_that_a_window_has_open_is_written_all_the_same(session, tmp_path):
    session.flush()
    with open_session(session.folder) as second:
        assert second.read_only
        result = write_dataset(incoming_frames(second), tmp_path / "set")
    assert len(result.added) == 3
    np.testing.assert_array_equal(open_dataset(tmp_path / "set").mask(1), session.chunks.mask(1))


def test_a_session_is_opened_with_its_frames_where_both_have_been_moved(session, tmp_path):
    session.close()
    (tmp_path / "moved").mkdir()
    for path in (session.folder, session.sequence.path):
        path.rename(tmp_path / "moved" / path.name)
    with open_session(tmp_path / "moved" / session.folder.name) as moved:
        assert len(incoming_frames(moved)) == 3
    (tmp_path / "moved" / "case 7").rename(tmp_path / "gone")
    with pytest.raises(InputError, match=r"neither at .* nor beside it"):
        open_session(tmp_path / "moved" / session.folder.name)


def test_a_session_that_was_copied_with_its_frames_reads_the_copies(session, tmp_path):
    session.close()
    (tmp_path / "copy").mkdir()
    for path in (session.folder, session.sequence.path):
        shutil.copytree(path, tmp_path / "copy" / path.name)
    copy = tmp_path / "copy" / session.folder.name
    with open_session(copy) as copied:
        assert copied.sequence.path == tmp_path / "copy" / "case 7"
    # What has its name but none of its frames does not count.
    folder = tmp_path / "alone" / session.folder.name
    shutil.copytree(session.folder, folder)
    (tmp_path / "alone" / "case 7").mkdir()
    with open_session(folder) as alone:
        assert alone.sequence.path == session.sequence.path
    shutil.copy(tmp_path / "case 7" / "0.png", tmp_path / "alone" / "case 7" / "other.png")
    with open_session(folder) as alone:
        assert alone.sequence.path == session.sequence.path


@pytest.mark.skipif(sys.platform == "win32", reason="folders are closed by mode bits here")
def test_a_copied_session_does_not_need_the_former_owner_s_folder(session, tmp_path):
    session.close()
    with TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        copy = Path(place) / session.folder.name
        shutil.copytree(session.folder, copy)
        shutil.copytree(session.sequence.path, copy.with_name("case 7"))
        for path in (copy, *copy.rglob("*")):
            path.chmod(0o777)
        tmp_path.chmod(0)
        is_root = os.geteuid() == 0
        if is_root:
            os.seteuid(65534)  # nobody: root may look everywhere
        try:
            with open_session(copy) as copied:
                assert copied.sequence.path == copy.with_name("case 7")
        finally:
            if is_root:
                os.seteuid(0)
            tmp_path.chmod(0o700)


def test_a_session_of_somebody_else_that_may_not_be_read_is_named(session):
    session.close()
    with TemporaryDirectory() as place:
        folder = Path(place) / "case 7.microaunet"
        shutil.copytree(session.folder, folder)
        Path(place).chmod(0o755)
        (folder / "session.sqlite").chmod(0)
        is_root = sys.platform != "win32" and os.geteuid() == 0
        if is_root:
            os.seteuid(65534)  # nobody: root may read everything
        try:
            if os.access(folder / "session.sqlite", os.R_OK, effective_ids=is_root):
                pytest.skip("all may be read here")
            with pytest.raises(InputError, match=r"session\.sqlite cannot be read"):
                open_session(folder)
        finally:
            if is_root:
                os.seteuid(0)


def test_a_disk_that_fills_up_names_the_file(mount, tmp_path):
    place = mount("128k")
    noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3)).astype(np.uint8)
    (tmp_path / "stills").mkdir()
    Image.fromarray(noise).save(tmp_path / "stills" / "a.png")
    with pytest.raises(OSError, match="No space left") as caught:
        write_dataset(incoming_frames(open_dataset(tmp_path / "stills")), place / "set")
    assert str(caught.value.filename).endswith("images/stills/a.png")


_KILLED = """
import os, sys
from pathlib import Path
from napari_microaunet.curation import staging, writer
from napari_microaunet.curation.dataset import open_dataset
from napari_microaunet.curation.incoming import incoming_frames
source, folder, step = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
steps = 0
def counting(function):
    def call(*arguments, **options):
        global steps
        steps += 1
        if steps == step:
            os.kill(os.getpid(), 9)
        return function(*arguments, **options)
    return call
for name in ("write_file", "write_mask_file"):
    setattr(writer, name, counting(getattr(writer, name)))
staging.write_manifest = counting(staging.write_manifest)
Path.replace, Path.rename = counting(Path.replace), counting(Path.rename)
writer.write_dataset(incoming_frames(open_dataset(source)), folder, append=folder.exists())
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 here")
@pytest.mark.parametrize("append", [False, True])
def test_killed_at_any_moment_it_leaves_a_dataset_that_the_same_command_completes(
    tmp_path, write_set, append
):
    killed = 0
    for step in (1, 9, 13):
        folder, source = tmp_path / f"set {step}", write_set(tmp_path / f"in {step}", 4)
        if append:
            write_dataset(incoming_frames(open_dataset(source)), folder)
            for path in (source / "masks").iterdir():
                Image.fromarray(np.full((24, 32), 255, np.uint8)).save(path)
        before = files(folder)
        command = [sys.executable, "-c", _KILLED, str(source), str(folder), str(step)]
        ended = subprocess.run(command, check=False, capture_output=True)  # noqa: S603
        killed += ended.returncode != 0
        assert ended.returncode in (0, -signal.SIGKILL), ended.stderr.decode()
        if append or folder.exists():
            dataset = open_dataset(folder)
            assert [dataset.mask(index).any() for index in range(4)] == [True] * 4
        if append and ended.returncode and step == 1:
            assert {
                name: b for name, b in files(folder).items() if ".incoming" not in name
            } == before
        write_dataset(
            incoming_frames(open_dataset(source)),
            folder,
            append=(folder / "manifest.json").exists(),
        )
        dataset = open_dataset(folder)
        for record, index in zip(dataset.frames, range(4), strict=True):
            assert dataset.mask(index).all() == append
            for file, digest in (
                (record.image, record.image_sha256),
                (record.mask, record.mask_sha256),
            ):
                assert hashlib.sha256((folder / file).read_bytes()).hexdigest() == digest
        assert not (folder / ".incoming").exists()
    assert killed == 3
