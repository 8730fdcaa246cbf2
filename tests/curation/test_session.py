from __future__ import annotations

import os
import shutil
from dataclasses import replace
from threading import Event

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image
from session_help import map_of, mask_of, write_frames

from napari_microaunet.curation.session import MaskOrigin, ReviewState, Session, kept_frames
from napari_microaunet.errors import InputError
from napari_microaunet.frames import open_frames
from napari_microaunet.frames.arrays import ArraySequence


@pytest.fixture(autouse=True)
def own_name(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def frames(tmp_path):
    return write_frames(tmp_path / "frames")


@pytest.fixture
def open_session(frames):
    """Open the session of the frames; all are closed at the end."""
    opened = []

    def open_it(**options):
        opened.append(Session(open_frames(frames), **options))
        return opened[-1]

    yield open_it
    for session in opened:
        session.close()


@pytest.fixture
def session(open_session):
    return open_session()


def states(session):
    return [status.state.value for status in session.statuses]


def masks_on_disk(session):
    (folder,) = session.folder.glob("masks-*.zarr")
    return zarr.open(str(folder), mode="r")


# Masks


def test_work_is_saved_for_a_file_whose_name_is_no_utf_8(frames, rename_to_bytes):
    rename_to_bytes(frames / "0.png", b"Gr\xfcn.png")
    folder = rename_to_bytes(frames, b"B\xe4r")
    with Session(open_frames(folder)) as session:
        index = [frame.name for frame in session.sequence.frames].index("Gr%FCn")
        session.put_mask(index, mask_of(session, index), MaskOrigin.HAND)
        session.accept([index])
        assert session.flush()
    with Session(open_frames(folder)) as again:
        assert states(again)[index] == "accepted"
        np.testing.assert_array_equal(again.chunks.mask(index), mask_of(again, index))


def test_painted_mask_is_on_disk_as_a_zarr_array(session):
    session.chunks.array[1, 3:9, 2:6] = 2
    assert session.flush()
    on_disk = masks_on_disk(session)
    assert on_disk.shape == (4, 40, 50)
    assert on_disk.dtype == np.uint8
    np.testing.assert_array_equal(on_disk[1], session.chunks.array[1])
    assert on_disk[1].sum() == 2 * 24
    assert on_disk[0].max() == 0
    assert len(list((session.folder / "masks-50x40.zarr").glob("c.*"))) == 1


def test_looking_signs_nothing(frames):
    with Session(open_frames(frames), annotator="Ada") as session:
        session.put_map(0, map_of(5), confidence=0.9, threshold=0.45)
        session.put_mask(0, mask_of(session, 0), MaskOrigin.MODEL)
        session.put_mask(0, mask_of(session, 0, top=5), MaskOrigin.HAND)
        session.accept([0])
        session.put_mask(1, mask_of(session, 1), MaskOrigin.HAND)
        before = session.statuses[:2]
    Image.effect_noise((10, 40), 99).convert("RGB").save(frames / "1.png")
    expert = replace(map_of(6), model="expert")
    with Session(open_frames(frames), annotator="Ben") as session:
        session.add_time(1, 2.0)
        session.put_map(1, map_of(7), role="compared")
        session.set_disagreement(1, 0.3)
        session.note([0, 1], "odd")
        session.undo_review()
        session.note([1], "glare")
        for index in (0, 1):  # a run of a model, after which these masks were kept
            session.put_map(index, expert, confidence=0.6, threshold=0.3, is_taken=False)
        for status, earlier in zip(session.statuses, before, strict=False):
            assert (status.annotator, status.changed) == ("Ada", earlier.changed)
            assert (status.model, status.threshold) == (earlier.model, earlier.threshold)
        # Of a mask that began with no model, it says where another look is due.
        assert [status.confidence for status in session.statuses[:2]] == [0.9, 0.6]
        assert session.edit_costs()[0].annotator == "Ada"
        assert session.has_map(0, model="expert")
        assert not session.has_map(0, model="student")
        remarks = session.remarks
    with Session(open_frames(frames), annotator="Ben") as session:
        assert session.remarks == remarks
        assert "Other files have taken the place" in remarks[0]
        session.accept([1])
        assert session.status(1).annotator == "Ben"


def test_everything_is_there_when_opened_again(open_session):
    session = open_session()
    for index, origin in enumerate((MaskOrigin.MODEL, MaskOrigin.HAND, MaskOrigin.FILE)):
        session.put_mask(index, mask_of(session, index, top=index), origin)
    session.put_map(0, map_of(9), confidence=0.25)
    session.put_map(0, map_of(11, side=6), role="compared")
    session.note([3], "blurred")
    session.exclude([3], "out of focus")
    session.accept([1])
    session.add_stroke(1)
    session.add_time(2, 3.5, editing=True)
    session.shown = 2
    session.set_setting("camera", {"zoom": 2.5, "center": [10, 20]})
    session.flush()
    before = session.statuses
    assert session.close()

    again = open_session()
    assert again.statuses == before
    assert again.statuses[1].strokes == 1
    assert (again.statuses[2].seconds, again.statuses[2].seconds_editing) == (3.5, 3.5)
    assert states(again) == ["prelabelled", "accepted", "edited", "excluded"]
    for index in range(3):
        np.testing.assert_array_equal(again.chunks.mask(index), mask_of(again, index, top=index))
        assert (again.status(index).area, again.status(index).polyps) == (12, 1)
    assert again.chunks.mask(3).max() == 0
    kept = again.map(0)
    np.testing.assert_array_equal(kept.values, np.full((8, 8), 9))
    assert (kept.field, kept.model, kept.card_sha256) == (map_of(9).field, "student", "ab" * 32)
    assert again.map(0, "compared").values.shape == (6, 6)
    assert again.map(1) is None
    assert again.status(0).confidence == 0.25
    assert again.status(0).model == "student"
    assert again.shown == 2
    assert again.setting("camera") == {"zoom": 2.5, "center": [10, 20]}
    assert again.remarks == []


def test_area_leaves_out_what_is_to_be_ignored(session):
    mask = mask_of(session, 0)
    mask[10:12, 10:12] = 2
    mask[15:20, 0:9] = 255
    session.put_mask(0, mask, MaskOrigin.HAND)
    session.flush()
    assert (session.status(0).area, session.status(0).polyps) == (16, 2)
    assert session.status(0).changed_pixels == 16 + 45


def test_picture_without_an_axis_for_frames(tmp_path):
    sequence = ArraySequence(np.zeros((20, 30, 3), np.uint8), "layer")
    session = Session(sequence, tmp_path / "one.microaunet", is_stack=False)
    session.chunks.array[2:5, 2:5] = 1
    assert session.chunks.array.shape == (20, 30)
    session.close()
    session = Session(sequence, tmp_path / "one.microaunet", is_stack=False)
    assert np.asarray(session.chunks.array[:]).sum() == 9
    assert session.status(0).area == 9
    session.close()


def test_map_of_another_size_takes_the_place_of_the_former(open_session):
    session = open_session()
    session.put_map(2, map_of(5))
    session.flush()
    session.put_map(2, map_of(6, side=4))
    session.put_map(1, map_of(0))
    session.close()
    again = open_session()
    assert again.map(2).values.tolist() == np.full((4, 4), 6).tolist()
    assert again.map(1).values.max() == 0
    assert not list(again.folder.glob("maps/model-8x8.zarr/c.2*"))
    assert zarr.open(str(again.folder / "maps" / "model-4x4.zarr"), mode="r")[2].min() == 6


# Who made a mask, and what that makes of a frame


def test_undo_gives_a_mask_back_to_its_maker(session):
    session.put_mask(0, mask_of(session, 0), MaskOrigin.MODEL)
    former = session.chunks[0]
    session.chunks.array[0, 8, 8] = 1
    assert session.origin(0) is MaskOrigin.HAND
    session.chunks[0] = former
    assert session.origin(0) is MaskOrigin.MODEL
    session.chunks[0] = None
    assert session.origin(0) is MaskOrigin.NONE
    session.set_origin(0, MaskOrigin.HAND)
    assert states(session)[0] == "edited"
    assert session.status(0).area == 0


def test_undo_leads_beyond_what_was_erased_to_where_there_was_no_mask(session):
    # As the window writes, whose undo exchanges masks and says no more.
    session.chunks[0] = session.chunks.encode(mask_of(session, 0))
    session.set_origin(0, MaskOrigin.MODEL)
    prelabel = session.chunks[0]
    session.chunks[0] = None
    session.set_origin(0, MaskOrigin.HAND)
    assert states(session)[0] == "edited"
    session.chunks[0] = prelabel
    assert states(session)[0] == "prelabelled"
    session.chunks[0] = None
    assert states(session)[0] == "unseen"
    # What a model found empty has been erased when the user erases it again.
    session.put_mask(1, None, MaskOrigin.MODEL)
    session.chunks.array[1, 0, 0] = 1
    session.chunks[1] = None
    session.set_origin(1, MaskOrigin.HAND)
    session.chunks.array[1, 0, 0] = 1
    session.chunks[1] = None
    assert states(session)[1] == "edited"


def test_states(session):
    assert states(session) == ["unseen"] * 4
    session.put_mask(0, mask_of(session, 0), MaskOrigin.MODEL)
    session.put_mask(1, mask_of(session, 1), MaskOrigin.FILE)
    session.put_mask(2, None, MaskOrigin.MODEL)
    session.chunks.array[3, 0, 0] = 1
    assert states(session) == ["prelabelled", "edited", "prelabelled", "edited"]
    session.accept([2, 3])
    session.exclude([0], "blurred")
    assert states(session) == ["excluded", "edited", "accepted", "accepted"]
    assert session.status(0).reason == "blurred"
    session.include([0])
    session.unaccept([2])
    assert states(session) == ["prelabelled", "edited", "prelabelled", "accepted"]


def test_accepted_exactly_while_the_mask_is_the_one_that_was_accepted(open_session):
    session = open_session()
    session.put_mask(0, mask_of(session, 0), MaskOrigin.MODEL)
    session.accept([0])
    accepted = session.chunks[0]
    session.chunks.array[0, 9, 9] = 1
    assert states(session)[0] == "edited"
    session.close()
    session = open_session()
    assert states(session)[0] == "edited"
    session.chunks[0] = accepted
    assert states(session)[0] == "accepted"
    session.close()
    assert states(open_session())[0] == "accepted"


def test_accepting_an_excluded_frame_includes_it(session):
    session.exclude([1], "blurred")
    session.accept([1])
    assert states(session)[1] == "accepted"


def test_start_of_the_work_by_hand_is_kept(open_session):
    session = open_session()
    session.put_mask(0, mask_of(session, 0), MaskOrigin.MODEL)
    session.chunks.array[0, 10, 0:5] = 1
    session.chunks.array[0, 0, 0] = 0
    session.chunks.array[1, 0, 0:7] = 1
    session.close()
    again = open_session()
    np.testing.assert_array_equal(again.start(0), mask_of(again, 0))
    assert again.start(1).max() == 0
    assert [again.status(i).changed_pixels for i in (0, 1, 2)] == [6, 7, 0]
    again.put_mask(0, again.start(0), MaskOrigin.MODEL)
    again.flush()
    assert again.status(0).changed_pixels == 0


def test_erasing_what_a_model_marked_is_work_by_hand(open_session):
    session = open_session()
    for index in range(4):
        session.put_mask(index, mask_of(session, index), MaskOrigin.MODEL)
    # As in the window: an eraser, a brush and then the eraser, an undo and then a brush.
    session.chunks[0] = None
    session.set_origin(0, MaskOrigin.HAND)
    session.chunks.array[1, 0, 0] = 2
    session.chunks[1] = None
    session.set_origin(1, MaskOrigin.HAND)
    session.chunks[2] = None
    session.chunks.array[2, 0, 0:2] = 1
    session.chunks[3] = None
    session.put_mask(3, mask_of(session, 3), MaskOrigin.MODEL)
    session.accept(range(4))
    session.close()
    again = open_session()
    assert [cost.changed_pixels for cost in again.edit_costs()] == [12, 12, 2, 0]
    np.testing.assert_array_equal(again.start(1), mask_of(again, 1))
    assert again.start(2).max() == 0


# Review


def test_bulk_decisions_are_one_step(session):
    session.put_mask(1, mask_of(session, 1), MaskOrigin.MODEL)
    session.accept(range(4))
    session.exclude([0, 2], "blurred")
    change = session.undo_review()
    assert (change.title, change.frames, change.masks) == ("Exclude", (0, 2), ())
    assert states(session) == ["accepted"] * 4
    session.undo_review()
    assert states(session) == ["unseen", "prelabelled", "unseen", "unseen"]
    assert session.undo_review() is None
    session.redo_review()
    assert states(session) == ["accepted"] * 4
    session.note([3], "odd")
    assert session.redo_review() is None
    session.undo_review()
    assert session.status(3).note == ""


def test_step_with_masks_is_taken_back_and_made_again(open_session):
    session = open_session()
    for index in range(3):
        session.put_mask(index, mask_of(session, index), MaskOrigin.MODEL)
    with session.step("Accept as negative"):
        for index in range(3):
            session.put_mask(index, None, MaskOrigin.HAND)
        session.accept(range(3))
    assert states(session) == ["accepted"] * 3 + ["unseen"]
    # Changed since: not to be overwritten.
    session.chunks.array[1, 5, 5] = 1
    painted = session.chunks[1]
    change = session.undo_review()
    assert (change.frames, change.masks, change.kept) == ((0, 1, 2), (0, 2), (1,))
    assert states(session) == ["prelabelled", "edited", "prelabelled", "unseen"]
    np.testing.assert_array_equal(session.chunks.mask(0), mask_of(session, 0))
    assert session.chunks[1] == painted
    written = []
    session.redo_review(lambda *mask: written.append(mask))
    assert written == [(0, None, MaskOrigin.HAND), (2, None, MaskOrigin.HAND)]
    session.close()
    assert states(open_session()) == ["prelabelled", "edited", "prelabelled", "unseen"]


def test_what_is_taken_back_is_signed_as_it_was(frames):
    with Session(open_frames(frames), annotator="Ada") as session:
        for index in range(3):
            session.put_mask(index, mask_of(session, index), MaskOrigin.HAND)
        session.accept(range(3))
        session.flush()
        of_ada = session.statuses
    with Session(open_frames(frames), annotator="Ben") as session:
        with session.step("Accept as negative"):
            for index in range(3):
                session.put_mask(index, None, MaskOrigin.HAND)
            session.accept(range(3))
        with session.step("Import labels"):
            session.put_mask(0, mask_of(session, 0, top=3), MaskOrigin.FILE)
        session.flush()
        of_ben = session.statuses
        session.exclude([0], "blurred")
        # A mask that has been changed since is his who changed it, unless he takes that back.
        session.chunks.array[1, 5, 5] = 1
        session.chunks.array[2, 5, 5] = 1
        session.chunks[2] = session.chunks.encode(mask_of(session, 2))
        session.flush()
        for _ in range(3):
            session.undo_review()
        assert session.flush()
        assert [status.annotator for status in session.statuses] == ["Ada", "Ben", "Ada", None]
        assert [(cost.name, cost.annotator) for cost in session.edit_costs()] == [
            ("0", "Ada"),
            ("2", "Ada"),
        ]
        assert session.status(0) == of_ada[0]
        session.redo_review()
        session.redo_review()
        assert session.flush()
        assert session.status(0) == of_ben[0]
    with Session(open_frames(frames)) as session:
        assert [status.annotator for status in session.statuses] == ["Ben", "Ben", "Ben", None]


def test_work_goes_on_from_its_start_when_an_import_is_taken_back(open_session):
    session = open_session()
    session.put_mask(0, mask_of(session, 0), MaskOrigin.MODEL)
    session.put_mask(0, mask_of(session, 0, top=1), MaskOrigin.HAND)
    session.put_mask(1, mask_of(session, 1), MaskOrigin.HAND)
    session.accept([0, 1])
    session.flush()
    assert [cost.changed_pixels for cost in session.edit_costs()] == [6, 12]
    with session.step("Import labels"):
        for index in (0, 1):
            session.put_mask(index, np.ones_like(mask_of(session, index)), MaskOrigin.FILE)
    session.flush()
    session.undo_review()
    session.flush()
    assert [cost.changed_pixels for cost in session.edit_costs()] == [6, 12]
    session.close()
    session = open_session()
    assert [cost.changed_pixels for cost in session.edit_costs()] == [6, 12]
    np.testing.assert_array_equal(session.start(0), mask_of(session, 0))
    assert not session.start(1).any()


def test_pixels_are_not_counted_from_a_start_that_an_undo_replaces(session, monkeypatch):
    session.put_mask(0, mask_of(session, 0), MaskOrigin.MODEL)
    session.put_mask(0, mask_of(session, 0, top=1), MaskOrigin.HAND)
    with session.step("Import labels"):
        session.put_mask(0, np.ones_like(mask_of(session, 0)), MaskOrigin.FILE)
    session.flush()
    counting, go_on, count = Event(), Event(), kept_frames.count_polyps

    def count_slowly(mask):
        counting.set()
        assert go_on.wait(20)
        return count(mask)

    def write(*mask):
        monkeypatch.setattr(kept_frames, "count_polyps", count_slowly)
        session.put_mask(*mask)
        assert counting.wait(20)

    session.undo_review(write)
    go_on.set()
    session.flush()
    assert session.status(0).changed_pixels == 6


def test_step_that_only_says_who_made_a_mask_is_taken_back(session):
    session.put_mask(0, mask_of(session, 0), MaskOrigin.MODEL)
    with session.step("Import labels"):
        session.set_origin(0, MaskOrigin.FILE)
    assert states(session)[0] == "edited"
    change = session.undo_review()
    assert change.masks == (0,)
    assert states(session)[0] == "prelabelled"


def test_change_is_announced(open_session):
    seen = []
    session = open_session(on_change=seen.extend)
    session.accept([0, 3])
    assert seen == [0, 3]
    seen.clear()
    session.chunks.array[2, 0, 0] = 1
    session.flush()
    assert set(seen) == {2}


def test_listener_that_fails_does_not_keep_work_from_the_disk(open_session):
    session = open_session()

    def fail(_indices):
        raise RuntimeError("the window is gone")

    session.put_mask(0, mask_of(session, 0), MaskOrigin.HAND)
    session._on_change = fail
    assert session.flush()
    session._on_change = None
    session.close()
    assert open_session().chunks.mask(0).sum() == 12


def test_mask_of_another_size_is_refused(session):
    with pytest.raises(ValueError, match="frame 1"):
        session.put_mask(1, np.zeros((20, 30), np.uint8), MaskOrigin.HAND)
    assert states(session) == ["unseen"] * 4


# Frames that come and go


def test_frames_that_come_and_go(open_session, frames):
    session = open_session()
    for index in range(4):
        session.put_mask(index, mask_of(session, index, label=index + 1), MaskOrigin.HAND)
    session.accept([3])
    session.shown = 3
    session.close()

    gone = (frames / "1.png").read_bytes()
    (frames / "1.png").unlink()
    shutil.copy(frames / "0.png", frames / "00.png")
    session = open_session()
    assert [status.name for status in session.statuses] == ["0", "00", "2", "3"]
    assert [session.chunks.mask(i).max() for i in range(4)] == [1, 0, 3, 4]
    assert states(session) == ["edited", "unseen", "edited", "accepted"]
    assert session.shown == 3
    assert "1 frame of this session is not among" in session.remarks[0]
    assert "1 frame is new" in session.remarks[1]
    assert np.asarray(session.chunks.array[2]).max() == 3
    session.put_mask(1, mask_of(session, 1, label=9), MaskOrigin.HAND)
    session.close()

    (frames / "1.png").write_bytes(gone)
    session = open_session()
    assert [status.name for status in session.statuses] == ["0", "00", "1", "2", "3"]
    assert [session.chunks.mask(i).max() for i in range(5)] == [1, 9, 2, 3, 4]
    assert session.remarks == []


def test_larger_frame_makes_room(open_session, frames):
    session = open_session()
    session.put_mask(0, mask_of(session, 0), MaskOrigin.MODEL)
    session.chunks.array[0, 9, 9] = 2
    session.accept([0])
    session.put_mask(1, mask_of(session, 1, label=3), MaskOrigin.HAND)
    session.accept([1])
    session.chunks.array[1, 9, 9] = 2
    masks = [session.chunks.mask(index) for index in range(2)]
    session.close()
    write_frames(frames / "more", ((64, 80),))
    for _ in range(2):
        session = open_session()
        assert session.chunks.array.shape == (5, 64, 80)
        for index, mask in enumerate(masks):
            np.testing.assert_array_equal(session.chunks.mask(index), mask)
        assert states(session)[:2] == ["accepted", "edited"]
        np.testing.assert_array_equal(session.start(0), mask_of(session, 0))
        assert [path.name for path in session.folder.glob("masks*")] == ["masks-80x64.zarr"]
        session.close()
    shutil.rmtree(frames / "more")
    session = open_session()
    np.testing.assert_array_equal(session.chunks.mask(0), masks[0])
    assert states(session) == ["accepted", "edited", "unseen", "unseen"]


def test_frame_of_another_size_is_another_frame(open_session, frames):
    session = open_session()
    session.put_mask(0, mask_of(session, 0), MaskOrigin.HAND)
    session.close()
    write_frames(frames, ((22, 33),))
    session = open_session()
    assert session.chunks.mask(0).shape == (22, 33)
    assert states(session)[0] == "unseen"
    session.close()
    write_frames(frames, ((20, 30),))
    session = open_session()
    np.testing.assert_array_equal(session.chunks.mask(0), mask_of(session, 0))


def test_file_that_another_one_has_taken_the_place_of(open_session, frames):
    session = open_session()
    for index in (0, 1, 2):
        session.put_mask(index, mask_of(session, index), MaskOrigin.HAND)
    session.accept([0, 1])
    session.close()
    # Copied elsewhere and back, a file is as it was.
    os.utime(frames / "0.png", (1, 1))
    session = open_session()
    assert session.remarks == []
    session.close()
    for name in ("1", "2", "3"):
        with Image.open(frames / f"{name}.png") as image:
            size = image.size
        Image.effect_noise(size, 99).convert("RGB").save(frames / f"{name}.png")
    # Nobody has seen to it the first time.
    open_session().close()
    session = open_session()
    assert session.remarks == [
        "Other files have taken the place of those that the masks of 2 frames were made for "
        "(1, 2): see whether they fit, and accept again those that do."
    ]
    assert states(session) == ["accepted", "accepted", "edited", "unseen"]
    session.accept([1])
    session.chunks.array[2, 0, 0] = 2
    session.close()
    assert open_session().remarks == []


def test_video_that_another_one_has_taken_the_place_of(tmp_path):
    def opened(value):
        pixels = np.full((3, 20, 30, 3), value, np.uint8)
        tifffile.imwrite(tmp_path / "clip.tif", pixels, photometric="rgb")
        return Session(open_frames(tmp_path / "clip.tif"))

    with opened(90) as session:
        session.accept([1, 2])
    with opened(91) as session:
        assert "masks of 2 frames" in session.remarks[0]


def test_frame_that_is_damaged_keeps_its_mask(open_session, frames):
    session = open_session()
    session.put_mask(1, mask_of(session, 1), MaskOrigin.HAND)
    session.close()
    (frames / "1.png").write_bytes(b"")
    session = open_session()
    assert 1 in session.sequence.problems
    assert session.chunks.array[1].sum() == 12
    assert session.status(1).state is ReviewState.EDITED


# What is not ours


def test_foreign_folder_is_refused(frames, tmp_path):
    folder = tmp_path / "frames.microaunet"
    folder.mkdir()
    (folder / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(InputError, match=r"frames\.microaunet is no session.*holiday"):
        Session(open_frames(frames))
    assert [path.name for path in folder.iterdir()] == ["holiday.jpg"]


def test_file_in_the_way_is_refused(frames, tmp_path):
    (tmp_path / "frames.microaunet").write_bytes(b"x")
    with pytest.raises(InputError, match="no folder"):
        Session(open_frames(frames))


def test_damaged_database_is_refused_and_left(frames, session):
    session.chunks.array[0, 0, 0] = 1
    session.close()
    file = session.folder / "session.sqlite"
    damaged = bytearray(file.read_bytes())
    damaged[:64] = b"x" * 64
    file.write_bytes(damaged)
    with pytest.raises(InputError, match=r"session\.sqlite.*copy"):
        Session(open_frames(frames))
    assert file.read_bytes() == damaged
