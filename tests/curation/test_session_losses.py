"""The policy, line by line: what is lost when."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import zarr
from session_help import hold_open, map_of, mask_of, write_frames

from napari_microaunet.curation.session import (
    MaskOrigin,
    ReviewState,
    Session,
    session_folder_for,
)
from napari_microaunet.curation.session.database import Database
from napari_microaunet.curation.session.folder import SessionFolder
from napari_microaunet.errors import InputError
from napari_microaunet.frames import open_frames
from napari_microaunet.frames.mask_chunks import chunk_digest

KILLS = 60
AT_ONCE = 3
# The second of the policy is measured by the benchmark; here other tests run at the same time.
SAVED_WITHIN_S = 3.0
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def frames(tmp_path):
    return write_frames(tmp_path / "frames")


@pytest.fixture
def somebody():
    """Have another process open the session of some frames; gives its pipe and the process."""
    context = get_context("spawn")
    processes = []

    def open_it(frames, folder=None):
        ours, theirs = context.Pipe()
        process = context.Process(target=hold_open, args=(frames, folder, theirs), daemon=True)
        process.start()
        processes.append(process)
        assert ours.poll(60)
        return ours, process

    yield open_it
    for process in processes:
        process.kill()
        process.join()


def wait_for(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def fill_up(place):
    """Leave no room on a drive."""
    with (place / "filler").open("wb", buffering=0) as file:
        try:
            for size in (65536, 1):
                while True:
                    try:
                        file.write(b"x" * size)
                    except OSError:
                        break
        finally:
            file.flush()
    return place / "filler"


# A finished stroke, a pre-label run or a state change is on disk within one second


def test_all_is_on_disk_within_a_second_or_so(frames):
    with Session(open_frames(frames)) as session:
        session.chunks.array[0, 2:5, 2:5] = 1
        session.put_mask(1, mask_of(session, 1), MaskOrigin.MODEL)
        session.put_map(1, map_of(5))
        session.accept([1])
        session.exclude([2], "blurred")
        session.set_setting("zoom", 3)
        # Nobody flushes; on a busy machine the second may be a long one.
        time.sleep(1)
        wait_for(lambda: session.flush(0))
        other = Session(open_frames(frames))
        assert other.read_only
        assert [status.state.value for status in other.statuses] == [
            "edited",
            "accepted",
            "excluded",
            "unseen",
        ]
        assert other.chunks.mask(0).sum() == 9
        assert other.map(1).values.min() == 5
        assert other.setting("zoom") == 3


# `kill -9` at any moment


def test_kills_at_random_moments(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    kill_once = import_module("session_kills").kill_once

    def one_session(first):
        return [
            kill_once(tmp_path / f"{first}", seed, SAVED_WITHIN_S)
            for seed in range(first, KILLS, AT_ONCE)
        ]

    with ThreadPoolExecutor(AT_ONCE) as pool:
        kills = [one for some in pool.map(one_session, range(AT_ONCE)) for one in some]
    assert [one for one in kills if one.faults or one.late] == []
    assert sum(one.writes for one in kills) > KILLS


def test_killed_between_the_file_of_a_mask_and_its_row(frames):
    with Session(open_frames(frames)) as session:
        for index in range(3):
            session.put_mask(index, mask_of(session, index), MaskOrigin.MODEL)
        session.accept([0, 1])
        session.flush()
        folder = session.folder
        # The file of frame 0 is newer than its row, that of frame 1 has been removed.
        newer = session.chunks.encode(mask_of(session, 0, top=9))
        (folder / "masks-50x40.zarr" / "c.0.0.0").write_bytes(newer.to_bytes())
        (folder / "masks-50x40.zarr" / "c.1.0.0").unlink()
        shutil.copytree(folder, folder.with_name("killed.microaunet"))
    with Session(open_frames(frames), folder.with_name("killed.microaunet")) as session:
        np.testing.assert_array_equal(session.chunks.mask(0), mask_of(session, 0, top=9))
        assert session.chunks.mask(1).max() == 0
        assert [status.state.value for status in session.statuses[:3]] == [
            "edited",
            "edited",
            "prelabelled",
        ]
        session.flush()
        assert [status.area for status in session.statuses] == [12, 0, 12, 0]
        assert session.remarks == []


def test_killed_between_the_files_of_frames_and_their_rows(frames, tmp_path, monkeypatch):
    killed = tmp_path / "killed.microaunet"
    save_files = SessionFolder.save_files

    def save_and_copy(folder, slots):
        save_files(folder, slots)
        shutil.rmtree(killed, ignore_errors=True)
        shutil.copytree(folder.path, killed)

    with Session(open_frames(frames)) as session:
        session.put_map(0, map_of(3), confidence=0.5)
        session.put_mask(0, mask_of(session, 0), MaskOrigin.FILE)
        session.accept([0, 3])
        assert session.flush()
        monkeypatch.setattr(SessionFolder, "save_files", save_and_copy)
        session.put_map(0, map_of(4), confidence=0.6)
        session.put_mask(0, mask_of(session, 0, top=5), MaskOrigin.MODEL)
        session.put_map(1, map_of(5, side=6), confidence=0.7)
        session.put_mask(1, mask_of(session, 1), MaskOrigin.PROPAGATED)
        session.chunks.array[2, 0, 0] = 1
        session.put_mask(3, mask_of(session, 3), MaskOrigin.MODEL)
        session.put_map(3, map_of(6), role="compared")
        assert session.flush()
        expected = session.statuses
        monkeypatch.undo()
    for _ in range(2):
        with Session(open_frames(frames), killed) as session:
            for index, status in enumerate(session.statuses):
                assert (status.origin, status.state) == (
                    expected[index].origin,
                    expected[index].state,
                )
            assert session.chunks.mask(0)[5:9].sum() == 12
            assert [session.map(index) is None for index in range(4)] == [False, False, True, True]
            assert session.map(0).values.min() == 4
            assert session.map(1).values.shape == (6, 6)
            assert session.map(3, "compared").values.min() == 6
            assert session.status(1).model == "student"


def test_killed_when_a_mask_has_come_while_its_row_was_about_to_be_saved(
    frames, tmp_path, monkeypatch
):
    killed = tmp_path / "killed.microaunet"
    measure, intend = Session._measure, Database.intend
    waiting = []

    def measure_and_put(session, index):
        measure(session, index)
        if waiting:
            session.put_mask(index, waiting.pop(), MaskOrigin.HAND)

    def copy_and_intend(database, *arguments):
        if not killed.exists():
            shutil.copytree(session.folder, killed)
        intend(database, *arguments)

    monkeypatch.setattr(Session, "_measure", measure_and_put)
    with Session(open_frames(frames)) as session:
        session.put_mask(0, mask_of(session, 0), MaskOrigin.MODEL)
        assert session.flush()
        monkeypatch.setattr(Database, "intend", copy_and_intend)
        waiting.append(mask_of(session, 0, top=5))
        session.note([0], "odd")
        assert session.flush()
        assert session.status(0).note == "odd"
        monkeypatch.undo()
    with Session(open_frames(frames), killed) as session:
        assert session.chunks.mask(0)[:4].sum() == 12
        assert session.status(0).state is ReviewState.PRELABELLED
    with Session(open_frames(frames)) as session:
        assert session.status(0).state is ReviewState.EDITED
        assert session.status(0).note == "odd"
        assert session.chunks.mask(0)[5:9].sum() == 12


@pytest.mark.parametrize("intended", [False, True])
def test_killed_when_a_mask_has_come_while_the_file_of_the_one_before_was_written(
    frames, tmp_path, monkeypatch, intended
):
    """As while a slider is dragged; before the next one is entered, and after that."""
    killed = tmp_path / "killed.microaunet"
    save_files, intend = SessionFolder.save_files, Database.intend
    waiting = []

    def save_files_and_put(folder, chunks):
        save_files(folder, chunks)
        if waiting:
            session.put_map(0, map_of(6))
            session.put_mask(0, waiting.pop(), MaskOrigin.MODEL)

    def copy_and_intend(database, *arguments):
        if intended:
            intend(database, *arguments)
        if not waiting:
            shutil.copytree(session.folder, killed)
        if not intended:
            intend(database, *arguments)

    with Session(open_frames(frames)) as session:
        monkeypatch.setattr(SessionFolder, "save_files", save_files_and_put)
        monkeypatch.setattr(Database, "intend", copy_and_intend)
        waiting.append(mask_of(session, 0, top=5))
        session.put_map(0, map_of(5))
        session.put_mask(0, mask_of(session, 0), MaskOrigin.PROPAGATED)
        assert session.flush()
        monkeypatch.undo()
    for _ in range(2):
        with Session(open_frames(frames), killed) as session:
            assert session.chunks.mask(0)[:4].sum() == 12
            assert session.status(0).origin is MaskOrigin.PROPAGATED
            assert session.map(0).values.min() == 5
    with Session(open_frames(frames)) as session:
        assert session.chunks.mask(0)[5:9].sum() == 12
        assert session.status(0).origin is MaskOrigin.MODEL
        assert session.map(0).values.min() == 6


def test_killed_when_a_mask_has_come_before_the_file_of_the_one_entered_was_written(
    frames, tmp_path, monkeypatch
):
    killed = tmp_path / "killed.microaunet"
    save_files, intend = SessionFolder.save_files, Database.intend
    waiting = []

    def intend_and_put(database, *arguments):
        intend(database, *arguments)
        if waiting:
            session.put_map(0, map_of(6))
            session.put_mask(0, waiting.pop(), MaskOrigin.MODEL)

    def save_files_and_copy(folder, chunks):
        save_files(folder, chunks)
        if not killed.exists():
            shutil.copytree(session.folder, killed)

    with Session(open_frames(frames)) as session:
        monkeypatch.setattr(SessionFolder, "save_files", save_files_and_copy)
        monkeypatch.setattr(Database, "intend", intend_and_put)
        waiting.append(mask_of(session, 0, top=5))
        session.put_map(0, map_of(5))
        session.put_mask(0, mask_of(session, 0), MaskOrigin.PROPAGATED)
        assert session.flush()
        monkeypatch.undo()
    with Session(open_frames(frames), killed) as session:
        assert session.status(0).origin is MaskOrigin.PROPAGATED
        assert session.chunks.mask(0)[:4].sum() == 12
        assert session.map(0).values.min() == 5
    with Session(open_frames(frames)) as session:
        assert session.status(0).origin is MaskOrigin.MODEL
        assert session.chunks.mask(0)[5:9].sum() == 12


def test_what_was_entered_is_not_kept_once_the_row_has_followed(frames):
    with Session(open_frames(frames)) as session:
        for top in (0, 3, 6):
            session.put_mask(0, mask_of(session, 0, top=top), MaskOrigin.MODEL)
            session.put_map(0, map_of(top))
            assert session.flush()
        with sqlite3.connect(session.folder / "session.sqlite") as connection:
            for table in ("intended_masks", "intended_maps"):
                assert connection.execute(f"SELECT * FROM {table}").fetchall() == []  # noqa: S608


def test_killed_between_the_file_of_a_map_and_its_row(frames):
    with Session(open_frames(frames)) as session:
        session.put_map(0, map_of(5))
        session.put_map(1, map_of(6))
        folder = session.folder
    maps = folder / "maps" / "model-8x8.zarr"
    shutil.copy(maps / "c.1.0.0", maps / "c.0.0.0")
    with Session(open_frames(frames)) as session:
        assert session.map(0) is None
        assert session.map(1).values.min() == 6


def test_killed_while_it_is_made(frames, tmp_path):
    folder = tmp_path / "frames.microaunet"
    folder.mkdir()
    (folder / "session.sqlite").touch()
    (folder / ".lock").touch()
    with Session(open_frames(frames)) as session:
        assert session.folder == folder
        session.chunks.array[0, 0, 0] = 1
        assert session.flush()


def test_killed_while_room_was_made_for_larger_frames(frames):
    with Session(open_frames(frames)) as session:
        session.put_mask(0, mask_of(session, 0), MaskOrigin.HAND)
        folder = session.folder
    write_frames(frames / "more", ((64, 80),))
    # The masks of the try that was killed are not those of now.
    half_done = folder / "masks-80x64.zarr"
    half_done.mkdir()
    (half_done / "c.1.0.0").write_bytes(b"x")
    with Session(open_frames(frames)) as session:
        np.testing.assert_array_equal(session.chunks.mask(0), mask_of(session, 0))
        assert session.chunks.mask(1).max() == 0
    assert not (folder / "masks-50x40.zarr").exists()


def test_program_that_just_ends_saves_first(frames):
    script = (
        "from napari_microaunet.curation.session import Session, MaskOrigin\n"
        "from napari_microaunet.frames import open_frames\n"
        f"session = Session(open_frames({str(frames)!r}))\n"
        "session.note([0], 'last words')\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)  # noqa: S603
    with Session(open_frames(frames)) as session:
        assert session.status(0).note == "last words"


def test_program_that_just_ends_saves_the_masks_that_wait(tmp_path):
    frames = write_frames(tmp_path / "many", [(20, 30)] * 40)
    script = (
        "from napari_microaunet.curation.session import Session, MaskOrigin\n"
        "from napari_microaunet.frames import open_frames\n"
        f"session = Session(open_frames({str(frames)!r}))\n"
        "session.flush()\n"
        "for index in range(40):\n"
        "    mask = session.chunks.mask(index)\n"
        "    mask[: index % 20 + 1] = 1\n"
        "    session.put_mask(index, mask, MaskOrigin.HAND)\n"
        "session.accept(range(40))\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)  # noqa: S603
    with Session(open_frames(frames)) as session:
        for index in range(40):
            assert session.chunks.mask(index).sum() == 30 * (index % 20 + 1)
            assert session.status(index).state is ReviewState.ACCEPTED


# Two windows on one session


def test_second_window_may_look(frames):
    with Session(open_frames(frames), annotator="Ann") as first:
        first.chunks.array[0, 2:5, 2:5] = 1
        first.flush()
        second = Session(open_frames(frames), annotator="Bob")
        assert second.folder == first.folder
        assert second.read_only
        assert "by Ann" in second.notice
        assert "since" in second.notice
        assert second.chunks.array[0].sum() == 9
        with pytest.raises(InputError, match="open by Ann"):
            second.chunks.array[0, 0, 0] = 1
        for change in (
            lambda: second.accept([0]),
            lambda: second.put_mask(0, None, MaskOrigin.HAND),
            lambda: second.put_map(0, map_of(1)),
            lambda: second.set_origin(0, MaskOrigin.FILE),
            lambda: second.add_stroke(0),
            second.undo_review,
        ):
            with pytest.raises(InputError, match="open by Ann"):
                change()
        second.shown = 3
        assert second.chunks.mask(0).sum() == 9
        # What the first one saves is there when the second looks again.
        assert second.look_again() == []
        first.chunks.array[2, 1:3, 1:3] = 2
        first.put_map(1, map_of(9))
        first.accept([2])
        assert first.flush()
        assert second.look_again() == [1, 2]
        assert second.look_again() == []
        assert second.statuses == first.statuses
        np.testing.assert_array_equal(second.chunks.mask(2), first.chunks.mask(2))
        assert second.map(1).values.max() == 9
        assert first.look_again() == []
        second.close()
        first.note([1], "still mine")
        assert first.flush()
    with Session(open_frames(frames)) as third:
        assert not third.read_only
        assert third.shown == 0
        assert third.status(1).note == "still mine"


def test_second_process_may_look_until_the_first_is_gone(frames, somebody):
    pipe, process = somebody(frames)
    assert pipe.recv() is None
    session = Session(open_frames(frames))
    assert session.read_only
    assert "by somebody" in session.notice
    session.close()
    process.kill()
    process.join()
    with Session(open_frames(frames)) as session:
        assert not session.read_only


def test_session_is_free_when_it_is_closed(frames, somebody):
    session = Session(open_frames(frames))
    pipe, _ = somebody(frames)
    assert "open by" in pipe.recv()
    session.close()
    pipe.send("go")
    pipe, _ = somebody(frames)
    assert pipe.recv() is None


def test_closed_session_cannot_be_changed(frames):
    session = Session(open_frames(frames))
    session.close()
    session.close()
    with pytest.raises(InputError, match="closed"):
        session.accept([0])


# A disk that is full, a folder that is read-only, a file that vanishes


def test_full_disk(mount):
    place = mount()
    frames = write_frames(place / "frames")
    told = []
    session = Session(open_frames(frames), on_problem=told.append)
    session.put_mask(0, mask_of(session, 0), MaskOrigin.MODEL)
    assert session.flush()
    filler = fill_up(place)
    noise = np.random.default_rng(0).integers(0, 5, (40, 10)).astype(np.uint8)
    session.put_mask(1, noise, MaskOrigin.HAND)
    session.accept([1])
    session.note([2], "x" * 10_000)
    assert not session.flush()
    assert "make room on the disk" in session.problem
    assert str(session.folder) in session.problem
    assert told == [session.problem]
    np.testing.assert_array_equal(session.chunks.mask(1), noise)
    session.put_map(3, map_of(7))
    session.put_mask(0, None, MaskOrigin.HAND)
    time.sleep(1.2)
    assert session.problem is not None
    filler.unlink()
    # Nobody has to do anything.
    wait_for(lambda: session.problem is None)
    assert told[-1] is None
    assert session.close()
    with Session(open_frames(frames)) as session:
        np.testing.assert_array_equal(session.chunks.mask(1), noise)
        assert session.status(1).state is ReviewState.ACCEPTED
        assert session.status(2).note == "x" * 10_000
        assert session.map(3).values.min() == 7
        assert session.chunks.mask(0).max() == 0


def test_disk_that_is_full_at_the_end(mount):
    place = mount()
    frames = write_frames(place / "frames")
    session = Session(open_frames(frames))
    session.accept([0])
    assert session.flush()
    filler = fill_up(place)
    session.put_mask(1, mask_of(session, 1), MaskOrigin.HAND)
    assert not session.close()
    filler.unlink()
    with Session(open_frames(frames)) as session:
        assert session.status(0).state is ReviewState.ACCEPTED
        assert session.status(1).state is ReviewState.UNSEEN


def test_session_opens_on_a_full_disk(mount):
    place = mount()
    frames = write_frames(place / "frames")
    with Session(open_frames(frames)) as session:
        session.put_mask(0, mask_of(session, 0), MaskOrigin.HAND)
    filler = fill_up(place)
    try:
        session = Session(open_frames(frames))
    except InputError as error:
        # SQLite needs room for its journal even to read.
        assert "make room" in str(error)  # noqa: PT017
    else:
        assert session.chunks.mask(0).sum() == 12
        session.close()
    filler.unlink()
    with Session(open_frames(frames)) as session:
        assert session.chunks.mask(0).sum() == 12


def test_read_only_drive(mount, somebody):
    place = mount()
    for name in ("closed", "killed"):
        frames = write_frames(place / name)
        with Session(open_frames(frames)) as session:
            session.put_mask(0, mask_of(session, 0), MaskOrigin.MODEL)
            session.accept([0])
    # With a journal that has not been put into the database.
    _, process = somebody(place / "killed")
    process.kill()
    process.join()
    fresh = write_frames(place / "fresh")
    assert mount.remount(place, "ro")
    for name in ("closed", "killed"):
        session = Session(open_frames(place / name))
        assert session.folder == place / f"{name}.microaunet"
        assert session.read_only
        assert "cannot be written to" in session.notice
        assert session.status(0).state is ReviewState.ACCEPTED
        np.testing.assert_array_equal(session.chunks.mask(0), mask_of(session, 0))
        session.close()
    with pytest.raises(InputError, match="cannot be made"):
        Session(open_frames(fresh), place / "fresh.microaunet")
    elsewhere = session_folder_for(open_frames(fresh))
    assert place not in elsewhere.parents
    with Session(open_frames(fresh)) as session:
        assert session.folder == elsewhere
        session.accept([1])
    assert session_folder_for(open_frames(fresh)) == elsewhere


def test_folder_that_becomes_read_only(frames):
    def protect(folder, how):
        command = ["chattr", how, str(folder)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0  # noqa: S603

    session = Session(open_frames(frames))
    session.put_mask(0, mask_of(session, 0), MaskOrigin.HAND)
    assert session.flush()
    folder = session.folder / "masks-50x40.zarr"
    if shutil.which("chattr") is None or not protect(folder, "+i"):
        session.close()
        pytest.skip("a folder cannot be protected here")
    try:
        session.put_mask(1, mask_of(session, 1), MaskOrigin.HAND)
        wait_for(lambda: session.problem is not None)
        assert "allow writing" in session.problem
        assert str(folder / "c.1.0.0") in session.problem
    finally:
        protect(folder, "-i")
    wait_for(lambda: session.problem is None)
    session.close()
    with Session(open_frames(frames)) as session:
        assert session.chunks.mask(1).sum() == 12


def test_folder_that_vanishes_and_returns(frames):
    session = Session(open_frames(frames))
    session.put_mask(0, mask_of(session, 0), MaskOrigin.HAND)
    assert session.flush()
    away = session.folder.with_name("away")
    session.folder.rename(away)
    session.accept([0])
    session.put_mask(1, mask_of(session, 1), MaskOrigin.HAND)
    wait_for(lambda: session.problem is not None)
    assert str(session.folder) in session.problem
    assert "drive" in session.problem
    assert session.chunks.mask(1).sum() == 12
    assert not session.folder.exists()
    away.rename(session.folder)
    wait_for(lambda: session.problem is None)
    session.close()
    with Session(open_frames(frames)) as session:
        assert session.status(0).state is ReviewState.ACCEPTED
        assert session.chunks.mask(1).sum() == 12


def test_mask_that_cannot_be_read_is_not_taken_for_an_empty_one(frames):
    with Session(open_frames(frames)) as session:
        session.put_mask(0, mask_of(session, 0), MaskOrigin.HAND)
    session = Session(open_frames(frames))
    away = session.folder.with_name("away")
    session.folder.rename(away)
    with pytest.raises(InputError, match="drive"):
        session.chunks.array[0, 0, 0] = 5
    away.rename(session.folder)
    session.chunks.array[0, 19, 29] = 5
    session.close()
    with Session(open_frames(frames)) as session:
        assert session.chunks.array[0].sum() == 12 + 5


def test_frame_file_that_vanishes(frames):
    with Session(open_frames(frames)) as session:
        for index in range(4):
            session.put_mask(index, mask_of(session, index, label=index + 1), MaskOrigin.HAND)
        (frames / "1.png").unlink()
        session.accept([1])
        assert session.flush()
        assert session.problem is None
    with Session(open_frames(frames)) as session:
        assert "1 frame of this session is not among those" in session.remarks[0]
        assert [session.chunks.mask(i).max() for i in range(3)] == [1, 3, 4]


# What is damaged, foreign, or of another version


def test_mask_file_that_is_damaged(frames):
    with Session(open_frames(frames)) as session:
        session.put_mask(0, mask_of(session, 0), MaskOrigin.HAND)
        session.put_mask(1, mask_of(session, 1), MaskOrigin.HAND)
        folder = session.folder / "masks-50x40.zarr"
    (folder / "c.0.0.0").write_bytes(b"no mask")
    with Session(open_frames(frames)) as session:
        assert session.chunks.array[0].max() == 0
        assert "mask of frame 0 is damaged" in session.remarks[0]
        session.chunks.array[0, 1, 1] = 1
        assert session.chunks.array[1].sum() == 12
    assert (folder / "c.0.0.0.damaged").read_bytes() == b"no mask"
    with Session(open_frames(frames)) as session:
        assert session.remarks == []
        assert session.chunks.mask(0).sum() == 1


def test_starting_mask_that_is_damaged(frames):
    with Session(open_frames(frames)) as session:
        session.put_mask(0, mask_of(session, 0), MaskOrigin.MODEL)
        session.put_mask(0, mask_of(session, 0, top=5), MaskOrigin.HAND)
        folder = session.folder / "starting-masks-50x40.zarr"
    (folder / "c.0.0.0").write_bytes(b"no mask")
    with Session(open_frames(frames)) as session:
        session.chunks.array[0, 15, 1] = 1
        session.put_mask(1, mask_of(session, 1), MaskOrigin.HAND)
        session.accept([0, 1])
        assert session.flush()
        assert session.problem is None
        assert session.start(0).max() == 0
        assert session.status(0).changed_pixels == 13
        assert "starting mask of frame 0 is damaged" in session.remarks[0]
    assert (folder / "c.0.0.0.damaged").read_bytes() == b"no mask"
    with Session(open_frames(frames)) as session:
        assert [session.chunks.mask(index).sum() for index in (0, 1)] == [13, 12]
        assert session.status(0).state is ReviewState.ACCEPTED
        assert session.remarks == []


def test_damaged_masks_when_larger_frames_come(frames):
    with Session(open_frames(frames)) as session:
        for index in (0, 1):
            session.put_mask(index, mask_of(session, index), MaskOrigin.MODEL)
            session.put_mask(index, mask_of(session, index, top=5), MaskOrigin.HAND)
        folder = session.folder
    (folder / "masks-50x40.zarr" / "c.0.0.0").write_bytes(b"no mask")
    (folder / "starting-masks-50x40.zarr" / "c.1.0.0").write_bytes(b"no start")
    write_frames(frames / "more", ((64, 80),))
    with Session(open_frames(frames)) as session:
        assert [session.chunks.mask(index).sum() for index in (0, 1)] == [0, 12]
        assert session.status(0).state is ReviewState.EDITED
        assert session.start(1).max() == 0
        damaged = [remark for remark in session.remarks if "damaged" in remark]
        assert "The mask of frame 0 is" in damaged[0]
        assert "The starting mask of frame 1 is" in damaged[1]
        assert str(folder / "masks-80x64.zarr") in damaged[0]
        assert session.flush()
    kept = folder / "masks-80x64.zarr" / "c.0.0.0.damaged"
    assert kept.read_bytes() == b"no mask"
    kept = folder / "starting-masks-80x64.zarr" / "c.1.0.0.damaged"
    assert kept.read_bytes() == b"no start"


def test_mask_that_another_program_has_changed(frames):
    with Session(open_frames(frames)) as session:
        session.put_mask(0, mask_of(session, 0), MaskOrigin.MODEL)
        session.accept([0])
        folder = session.folder / "masks-50x40.zarr"
    array = zarr.open(str(folder), mode="r+")
    array[0, 0:2, 0:2] = 0
    array[2, 5:8, 5:8] = 1
    with Session(open_frames(frames)) as session:
        assert session.chunks.mask(0).sum() == 8
        assert [status.state.value for status in session.statuses] == [
            "edited",
            "unseen",
            "edited",
            "unseen",
        ]
        session.flush()
        assert [status.area for status in session.statuses] == [8, 0, 9, 0]


@pytest.mark.parametrize("damage", ["no database", "torn", "other program", "newer"])
def test_database_that_cannot_be_used_is_named_and_left(frames, damage):
    with Session(open_frames(frames)) as session:
        session.put_mask(0, mask_of(session, 0), MaskOrigin.HAND)
        file = session.folder / "session.sqlite"
    match damage:
        case "no database":
            file.write_bytes(b"This is no database, but it is long enough." * 100)
        case "torn":
            content = bytearray(file.read_bytes())
            content[4096 : 3 * 4096] = b"\xff" * 2 * 4096
            file.write_bytes(content)
        case "other program":
            file.unlink()
            connection = sqlite3.connect(file)
            connection.execute("CREATE TABLE recipes (name TEXT)")
            connection.close()
        case "newer":
            connection = sqlite3.connect(file)
            connection.execute("PRAGMA user_version = 99")
            connection.close()
    before = file.read_bytes()
    with pytest.raises(InputError, match=r"session\.sqlite .*(move|copy|update)"):
        Session(open_frames(frames))
    assert file.read_bytes() == before
    # It is not locked for ever either.
    with pytest.raises(InputError, match=r"session\.sqlite"):
        Session(open_frames(frames))


def test_older_version_is_brought_up_to_date_beside_a_copy(tmp_path):
    frames = write_frames(tmp_path / "frames")
    with zipfile.ZipFile(Path(__file__).with_name("session-version-1.zip")) as file:
        file.extractall(tmp_path)
    folder = tmp_path / "frames.microaunet"
    before = (folder / "session.sqlite").read_bytes()
    with Session(open_frames(frames)) as session:
        assert session.folder == folder
        session.flush()
        assert [status.state.value for status in session.statuses] == [
            "edited",
            "accepted",
            "excluded",
            "unseen",
        ]
        first, second = session.statuses[:2]
        assert (first.area, first.changed_pixels, first.strokes, first.seconds) == (13, 1, 1, 4.5)
        assert (first.confidence, first.model, first.annotator) == (0.25, "student", "ann")
        # Was not known to the older version.
        assert second.centre == (6.5, 1)
        assert session.status(3).note == "odd"
        assert session.map(0).values.min() == 9
        assert session.shown == 1
        assert session.setting("zoom") == 2.5
        assert session.remarks == []
        assert "stroke" in [event.what for event in session.events()]
    copy = folder / "session-version-1.sqlite"
    connection = sqlite3.connect(copy)
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    assert connection.execute("SELECT count(*) FROM frames").fetchone() == (4,)
    connection.close()
    assert before[:16] == copy.read_bytes()[:16]
    with Session(open_frames(frames)) as session:
        assert session.status(1).centre == (6.5, 1)


def test_what_a_killed_program_of_the_version_before_had_entered_still_counts(frames):
    with Session(open_frames(frames)) as session:
        session.put_mask(0, mask_of(session, 0), MaskOrigin.MODEL)
        assert session.flush()
        folder, newer = session.folder, session.chunks.encode(mask_of(session, 0, top=9))
    with closing(sqlite3.connect(folder / "session.sqlite")) as connection:
        connection.executescript("""
            DROP TABLE intended_masks;
            CREATE TABLE intended_masks (
                slot INTEGER PRIMARY KEY, origin TEXT NOT NULL, digest BLOB NOT NULL
            );
            DROP INDEX one_intended_map;
            CREATE UNIQUE INDEX one_intended_map ON intended_maps (slot, role);
            PRAGMA user_version = 4;
        """)
        connection.execute(
            "INSERT INTO intended_masks VALUES (0, 'model', ?)", (chunk_digest(newer),)
        )
        connection.commit()
    (folder / "masks-50x40.zarr" / "c.0.0.0").write_bytes(newer.to_bytes())
    with Session(open_frames(frames)) as session:
        assert session.status(0).state is ReviewState.PRELABELLED
        np.testing.assert_array_equal(session.chunks.mask(0), mask_of(session, 0, top=9))
    assert (folder / "session-version-4.sqlite").is_file()


def test_no_file_is_left_over(frames):
    with Session(open_frames(frames)) as session:
        for index in range(4):
            session.put_mask(index, mask_of(session, index), MaskOrigin.MODEL)
        session.flush()
        for index in range(4):
            session.put_mask(index, None, MaskOrigin.HAND)
        folder = session.folder
    names = sorted(os.path.relpath(path, folder) for path in folder.rglob("*") if path.is_file())
    starts = [f"starting-masks-50x40.zarr/c.{index}.0.0" for index in range(4)]
    assert [name for name in names if not name.startswith(".")] == [
        "masks-50x40.zarr/zarr.json",
        "session.sqlite",
        *starts,
        "starting-masks-50x40.zarr/zarr.json",
    ]
