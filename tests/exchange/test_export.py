from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from labelled_help import NAMES, make_session, random_mask
from PIL import Image

from napari_microaunet.curation.dataset import open_dataset
from napari_microaunet.curation.groups import find_groups
from napari_microaunet.curation.session import MaskOrigin, Session
from napari_microaunet.errors import InputError
from napari_microaunet.exchange.export import MARK, export
from napari_microaunet.exchange.formats import FORMATS, find_format
from napari_microaunet.exchange.labelled import (
    labels_of_dataset,
    labels_of_session,
    opened_labels,
)
from napari_microaunet.frames import open_frames
from napari_microaunet.frames.masks import read_mask_file


@pytest.fixture
def session(tmp_path):
    session, _ = make_session(tmp_path)
    with session:
        yield session


def tree(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("format_", FORMATS, ids=lambda one: one.key)
def test_what_was_cancelled_goes_on_and_comes_out_the_same(session, tmp_path, format_):
    labels = labels_of_session(session)
    frames, written = [], []
    for frame in labels.frames:

        def read_mask(frame=frame):
            written.append(frame.name)
            return frame.read_mask()

        frames.append(replace(frame, read_mask=read_mask))
    counted = replace(labels, frames=tuple(frames))
    done = []

    def cancelled():
        return len(done) > 3

    with pytest.raises(CancelledError):
        export(
            counted,
            format_,
            tmp_path / "out",
            progress=lambda now, _all: done.append(now),
            cancelled=cancelled,
        )
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "out.partial").is_dir()
    at_least = max(done)
    written.clear()
    export(counted, format_, tmp_path / "out")
    assert len(written) <= len(NAMES) - at_least
    assert not (tmp_path / "out.partial").exists()
    (tmp_path / "whole").mkdir()
    export(labels, format_, tmp_path / "whole" / "out")
    went_on, whole = tree(tmp_path / "out"), tree(tmp_path / "whole" / "out")
    assert went_on.keys() == whole.keys()
    for name, content in whole.items():
        if name != "microaunet-export.json" and not name.endswith((".gz", ".ome.tif")):
            assert went_on[name] == content, name


@pytest.mark.parametrize("key", ["kvasir", "coco", "cvat", "labelstudio", "tiff", "nifti"])
def test_what_was_cancelled_at_the_very_end_goes_on(session, tmp_path, key):
    labels, done = labels_of_session(session), []
    with pytest.raises(CancelledError):
        export(
            labels,
            find_format(key),
            tmp_path / "out",
            progress=lambda now, _all: done.append(now),
            cancelled=lambda: done[-1:] == [len(NAMES)],
        )
    assert not (tmp_path / "out").exists()
    assert export(labels, find_format(key), tmp_path / "out").frames == len(NAMES)
    written = [path.name for path in (tmp_path / "out").rglob("*")]
    assert not [name for name in written if name.startswith(".")]


def test_another_export_begins_anew_and_leaves_nothing_of_the_first(session, tmp_path):
    labels = labels_of_session(session)
    done = []
    with pytest.raises(CancelledError):
        export(
            labels,
            find_format("png"),
            tmp_path / "out",
            progress=lambda now, _all: done.append(now),
            cancelled=lambda: len(done) > 3,
        )
    assert list((tmp_path / "out.partial").rglob("*.png"))
    index = next(i for i, f in enumerate(session.sequence.frames) if f.name == "a")
    session.put_mask(index, session.chunks.mask(index) * 0, MaskOrigin.HAND)
    export(labels_of_session(session), find_format("png"), tmp_path / "out")
    assert not (tmp_path / "out" / "masks" / "a.png").exists()
    assert len(list((tmp_path / "out").rglob("*.png"))) == len(NAMES) - 1


def test_the_journal_of_a_killed_export_may_end_in_half_a_line(session, tmp_path):
    labels = labels_of_session(session)
    done = []
    with pytest.raises(CancelledError):
        export(
            labels,
            find_format("coco"),
            tmp_path / "out",
            progress=lambda now, _all: done.append(now),
            cancelled=lambda: len(done) > 3,
        )
    journal = tmp_path / "out.partial" / ".journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-7])
    assert export(labels, find_format("coco"), tmp_path / "out").frames == len(NAMES)


def test_an_export_that_was_killed_when_it_was_whole_is_made_anew(session, tmp_path, monkeypatch):
    labels, partial = labels_of_session(session), tmp_path / "out.partial"

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("napari_microaunet.exchange.export._move", killed)
        with pytest.raises(KeyboardInterrupt):
            export(labels, find_format("png"), tmp_path / "out")
    mine = partial / "notes.txt"
    mine.write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt, which no export has written"):
        export(labels, find_format("png"), tmp_path / "out")
    assert mine.read_text() == "mine"
    mine.unlink()
    assert export(labels, find_format("png"), tmp_path / "out").frames == len(NAMES)
    assert not partial.exists()


def test_only_accepted_frames_leave_unless_asked(session, tmp_path):
    mask = np.ones_like(session.chunks.mask(0))
    session.unaccept([0])
    session.put_mask(1, np.ones_like(session.chunks.mask(1)), MaskOrigin.MODEL)
    session.exclude([2], "blurred")
    session.put_mask(0, mask, MaskOrigin.HAND)
    chosen = {
        include: {frame.name for frame in labels_of_session(session, include).frames}
        for include in ("accepted", "edited", "all")
    }
    names = [frame.name for frame in session.sequence.frames]
    assert chosen["accepted"] == {*names[3:]}
    assert chosen["edited"] == {names[0], *names[3:]}
    assert chosen["all"] == {names[0], names[1], *names[3:]}
    some = labels_of_session(session, "all", names=frozenset([names[1]]))
    assert [frame.name for frame in some.frames] == [names[1]]
    session.unaccept(range(len(names)))
    session.exclude(range(len(names)), "all are blurred")
    with pytest.raises(InputError, match="accept frames"):
        labels_of_session(session)


def test_a_mask_that_changes_meanwhile_is_not_exported(session, tmp_path):
    labels = labels_of_session(session)
    session.put_mask(0, np.full_like(session.chunks.mask(0), 7), MaskOrigin.HAND)
    with pytest.raises(InputError, match="has changed"):
        export(labels, find_format("png"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_video_by_itself_is_for_training(tmp_path):
    # By its name alone, "video" would validate.
    tifffile.imwrite(tmp_path / "video.tif", np.zeros((3, 20, 30, 3), np.uint8), photometric="rgb")
    with Session(open_frames(tmp_path / "video.tif")) as session:
        session.put_mask(1, np.ones((20, 30), np.uint8), MaskOrigin.HAND)
        session.accept([0, 1, 2])
        labels = labels_of_session(session, divide=True)
    assert {frame.split for frame in labels.frames} == {"training"}


def test_a_mask_that_changes_while_frames_are_divided_is_not_exported(
    session, tmp_path, monkeypatch
):
    def edit_meanwhile(sequence, cancelled):
        session.put_mask(0, np.full_like(session.chunks.mask(0), 7), MaskOrigin.HAND)
        return find_groups(sequence, cancelled)

    monkeypatch.setattr("napari_microaunet.exchange.labelled.find_groups", edit_meanwhile)
    labels = labels_of_session(session, divide=True)
    with pytest.raises(InputError, match="has changed"):
        export(labels, find_format("png"), tmp_path / "out")


def test_nothing_is_written_among_frames_or_into_a_session(session, tmp_path):
    labels = labels_of_session(session)
    for place in (tmp_path / "frames" / "out", tmp_path / "frames", session.folder / "out"):
        before = tree(tmp_path / "frames")
        with pytest.raises(InputError):
            export(labels, find_format("png"), place, overwrite=True)
        assert tree(tmp_path / "frames") == before
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="link"):
        export(labels, find_format("png"), tmp_path / "out")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_no_name_leads_out_of_the_target(session, tmp_path):
    labels = labels_of_session(session)
    for name in ("../a", "/a", "a/../../b", "a//b", "C:/a", "a\\..\\b", ".", "\udcff"):
        evil = replace(labels, frames=(replace(labels.frames[0], name=name),))
        for format_ in FORMATS:
            with pytest.raises(InputError, match="rename the frame"):
                export(evil, format_, tmp_path / "deep" / "er" / "out")
            assert not (tmp_path / "deep").exists()


def test_a_frame_that_cannot_be_read_is_named_and_nothing_appears(session, tmp_path):
    labels = labels_of_session(session)
    broken = next(frame for frame in labels.frames if frame.name == "x/y")
    broken.file.write_bytes(broken.file.read_bytes()[:60])
    with pytest.raises(InputError, match="x/y"):
        export(labels, find_format("voc"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_turned_photograph_leaves_as_it_is_seen(tmp_path):
    session, _ = make_session(tmp_path, names=("a",), suffix=".jpg")
    session.close()
    shutil.rmtree(session.folder)
    file = tmp_path / "frames" / "a.jpg"
    with Image.open(file) as image:
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(file, exif=exif, quality=95)
    (tmp_path / "frames" / "masks").mkdir()
    seen = open_dataset(tmp_path / "frames").read(0)
    mask = random_mask(np.random.default_rng(1), *seen.shape[:2])
    Image.fromarray(mask).save(tmp_path / "frames" / "masks" / "a.png")
    labels = labels_of_dataset(open_dataset(tmp_path / "frames"))
    export(labels, find_format("coco"), tmp_path / "out")
    with Image.open(tmp_path / "out" / "images" / "a.png") as image:
        np.testing.assert_array_equal(np.asarray(image), seen)


def test_frames_are_copied_byte_by_byte_where_they_can_be(tmp_path):
    session, _ = make_session(tmp_path, names=("a", "b"), suffix=".jpg")
    with session:
        export(labels_of_session(session), find_format("kvasir"), tmp_path / "out")
    assert tree(tmp_path / "out" / "images") == {
        path.name: path.read_bytes() for path in (tmp_path / "frames").iterdir()
    }


def test_what_is_lost_is_counted_in_the_summary(session, tmp_path):
    for index in range(len(NAMES)):
        mask = np.zeros_like(session.chunks.mask(index))
        if index == 0:
            mask[1:6, 1:6] = 1
            mask[3, 3] = 255
        session.put_mask(index, mask, MaskOrigin.HAND)
    session.accept(range(len(NAMES)))
    labels = labels_of_session(session)
    summary = export(labels, find_format("yolo"), tmp_path / "out")
    assert summary.warnings == (
        "regions to ignore become background (1 frame).",
        "holes in polyps are filled (1 frame).",
    )
    assert summary.negatives == len(NAMES) - 1
    assert export(labels, find_format("labels"), tmp_path / "labels").warnings == ()
    kept = read_mask_file(tmp_path / "labels" / "masks" / "a.png")
    assert kept[3, 3] == 255


def test_two_exports_to_one_place_do_not_mix(session, tmp_path):
    labels = labels_of_session(session)

    def second(_done, _total):
        with pytest.raises(InputError, match="another export"):
            export(labels, find_format("labels"), tmp_path / "out")

    export(labels, find_format("png"), tmp_path / "out", progress=second)
    assert (tmp_path / "out" / "masks" / "a.png").is_file()


def test_a_session_is_opened_where_its_frames_are_now(session, tmp_path):
    session.close()
    (tmp_path / "frames").rename(tmp_path / "moved")
    with pytest.raises(InputError, match="beside it"), opened_labels(session.folder):
        pass
    with opened_labels(session.folder, frames=tmp_path / "moved") as labels:
        assert {frame.name for frame in labels.frames} == {*NAMES}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_to_is_named(session, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(OSError, match="locked"):
        export(labels_of_session(session), find_format("png"), tmp_path / "locked" / "out")


def test_a_name_that_xml_cannot_hold_is_refused_before_anything_is_written(session, tmp_path):
    labels = labels_of_session(session)
    odd = replace(labels, frames=(replace(labels.frames[0], file_name="a\x01.png"),))
    with pytest.raises(InputError, match="XML"):
        export(odd, find_format("cvat"), tmp_path / "deep" / "out")
    assert not (tmp_path / "deep").exists()


@pytest.fixture
def exported(session, tmp_path):
    """An export with frames, as a colleague gets it."""
    export(labels_of_session(session), find_format("coco"), tmp_path / "out")
    return tmp_path / "out"


def forget_the_list(exported):
    """Make the summary as earlier versions wrote it."""
    summary = json.loads((exported / MARK).read_text())
    del summary["files"]
    (exported / MARK).write_text(json.dumps(summary))


@pytest.mark.parametrize("listed", [True, False])
def test_work_begun_in_an_export_is_not_replaced(exported, listed):
    if not listed:
        forget_the_list(exported)
    with Session(open_frames(exported / "images"), annotator="a colleague") as colleague:
        assert colleague.folder.is_relative_to(exported)
        colleague.put_mask(0, np.ones_like(colleague.chunks.mask(0)), MaskOrigin.HAND)
        colleague.accept([0])
        colleague.flush()
        labels, before = labels_of_session(colleague), tree(exported)
        with pytest.raises(InputError, match=r"session\.sqlite|microaunet"):
            export(labels, find_format("coco"), exported, overwrite=True)
        assert tree(exported) == before


@pytest.mark.parametrize("listed", [True, False])
def test_frames_are_not_replaced_by_their_masks(exported, tmp_path, listed):
    if not listed:
        forget_the_list(exported)
    with Session(open_frames(exported / "images"), tmp_path / "x.microaunet") as colleague:
        colleague.accept([0])
        labels, before = labels_of_session(colleague), tree(exported)
        with pytest.raises(InputError, match="holds the frames"):
            export(labels, find_format("labels"), exported, overwrite=True)
        assert tree(exported) == before


def test_what_was_put_into_an_export_is_not_replaced(session, exported):
    labels = labels_of_session(session)

    def put(_done, _total):
        (exported / "images" / "thesis.txt").write_text("mine")

    with pytest.raises(InputError, match=r"images/thesis\.txt"):
        export(labels, find_format("labels"), exported, overwrite=True, progress=put)
    assert (exported / "images" / "thesis.txt").read_text() == "mine"
    assert not (exported / "masks").exists()
    (exported / "images" / "thesis.txt").unlink()
    (exported / "images" / "mine").symlink_to(exported / "annotations")
    with pytest.raises(InputError, match="images/mine"):
        export(labels, find_format("labels"), exported, overwrite=True)
    (exported / "images" / "mine").unlink()
    export(labels, find_format("labels"), exported, overwrite=True)
    assert sorted(tree(exported)) == sorted(
        [MARK, *json.loads((exported / MARK).read_text())["files"]]
    )
    assert not (exported / "images").exists()


@pytest.mark.parametrize("key", ["tiff", "nifti"])
def test_a_stack_that_was_killed_while_it_tidied_up_goes_on(session, tmp_path, monkeypatch, key):
    def killed(folder, **_options):
        next(Path(folder).iterdir()).unlink()
        raise KeyboardInterrupt

    labels = labels_of_session(session)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            export(labels, find_format(key), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert export(labels, find_format(key), tmp_path / "out").frames == len(NAMES)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.name.startswith(".")]


@pytest.mark.parametrize("key", ["coco", "cvat", "labelstudio", "yolo"])
def test_numbers_that_change_are_counted(session, tmp_path, key):
    for index in range(len(NAMES)):
        mask = np.zeros_like(session.chunks.mask(index))
        mask[1:3, 1:3] = 1
        mask[5:7, 5:7] = 3 if index == 0 else 2
        session.put_mask(index, mask, MaskOrigin.HAND)
    session.accept(range(len(NAMES)))
    labels = labels_of_session(session)
    summary = export(labels, find_format(key), tmp_path / "out")
    assert summary.warnings == ("numbers of polyps that have gaps become 1..n (1 frame).",)
    [warning] = export(labels, find_format("png"), tmp_path / "png").warnings
    assert warning.startswith("polyps lose their numbers")


def test_a_nifti_file_is_limited_not_all_of_them_together(session):
    frame = labels_of_session(session).frames[0]
    frames = [replace(frame, height=height) for height in (8, 9) for _ in range(20_000)]
    find_format("nifti").check(frames)
    with pytest.raises(InputError, match="32767"):
        find_format("nifti").check(frames * 2)


@pytest.mark.parametrize("key", ["png", "kvasir", "cvc", "yolo", "labels"])
def test_a_frame_that_is_ignored_throughout_is_no_negative(tmp_path, key):
    session, _ = make_session(tmp_path, names=("a", "b"))
    frame = session.sequence.frames[0]
    with session:
        session.put_mask(0, np.full((frame.height, frame.width), 255, np.uint8), MaskOrigin.HAND)
        session.put_mask(1, None, MaskOrigin.HAND)
        session.accept([0, 1])
        summary = export(labels_of_session(session), find_format(key), tmp_path / "out")
    assert summary.negatives == 1
    files = {path.stem for path in (tmp_path / "out").rglob("*") if path.stem in "ab"}
    if key == "labels":
        assert (summary.frames, files) == (2, {"a", "b"})
    else:
        assert (summary.frames, files) == (1, {"b"})
        assert "frames that are ignored throughout are left out (1 frame)." in summary.warnings
        with pytest.raises(
            InputError, match=r"All frames to be exported of .* are ignored throughout"
        ):
            export(
                labels_of_session(session, names=frozenset("a")),
                find_format(key),
                tmp_path / "none",
            )
