from __future__ import annotations

import csv
import errno
import os
import shutil
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from session_help import mask_of, write_frames

from napari_microaunet.curation.session import (
    EditCost,
    MaskOrigin,
    ReviewState,
    Session,
    annotator_name,
    recent_sessions,
    session_folder_for,
    set_annotator_name,
    summarise,
    write_edit_costs,
)
from napari_microaunet.curation.session.database import read_identity
from napari_microaunet.curation.session.edit_costs import FEWEST_FRAMES, LONGEST_PAUSE_S
from napari_microaunet.errors import InputError
from napari_microaunet.frames import open_frames
from napari_microaunet.frames.arrays import ArraySequence
from napari_microaunet.frames.sample_data import sample_data_folder


@pytest.fixture(autouse=True)
def own_folders(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


@pytest.fixture
def frames(tmp_path):
    return write_frames(tmp_path / "frames")


def begin(sequence):
    with Session(sequence) as session:
        session.accept([0])
        assert session.flush()
    return session.folder


# Where a session lies


def test_beside_what_was_opened(frames, tmp_path):
    folder = session_folder_for(open_frames(frames))
    assert folder == tmp_path / "frames.microaunet"
    assert not folder.exists()
    assert begin(open_frames(frames)) == folder
    assert session_folder_for(open_frames(frames)) == folder


def test_other_frames_of_that_name_get_another(frames, tmp_path):
    begin(open_frames(frames))
    shutil.rmtree(frames)
    write_frames(frames, ((20, 30),))
    (frames / "0.png").rename(frames / "other.png")
    assert begin(open_frames(frames)) == tmp_path / "frames-2.microaunet"
    assert session_folder_for(open_frames(frames)) == tmp_path / "frames-2.microaunet"
    shutil.copy(frames / "other.png", tmp_path / "frames.png")
    alone = session_folder_for(open_frames(tmp_path / "frames.png"))
    assert alone == tmp_path / "frames-3.microaunet"


def test_session_of_an_older_version_is_not_taken_for_that_of_other_frames(frames, tmp_path):
    with zipfile.ZipFile(Path(__file__).with_name("session-version-1.zip")) as file:
        file.extractall(tmp_path)
    assert session_folder_for(open_frames(frames)) == tmp_path / "frames.microaunet"
    for path in frames.iterdir():
        path.rename(path.with_stem(f"x{path.stem}"))
    assert session_folder_for(open_frames(frames)) == tmp_path / "frames-2.microaunet"


def test_moved_together_with_its_frames(frames, tmp_path):
    folder = begin(open_frames(frames))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    frames.rename(elsewhere / frames.name)
    folder.rename(elsewhere / folder.name)
    sequence = open_frames(elsewhere / frames.name)
    assert session_folder_for(sequence) == elsewhere / folder.name
    with Session(sequence) as session:
        assert session.status(0).state is ReviewState.ACCEPTED


def test_opened_with_frames_elsewhere_it_stays_the_session_of_its_own(frames, tmp_path):
    folder = begin(open_frames(frames))
    shutil.copytree(frames, tmp_path / "a copy")
    with Session(open_frames(tmp_path / "a copy"), folder) as session:
        assert session.flush()
    assert session_folder_for(open_frames(frames)) == folder
    # With its frames under another name for good, it is theirs.
    frames.rename(tmp_path / "renamed")
    with Session(open_frames(tmp_path / "renamed"), folder) as session:
        assert session.flush()
    assert recent_sessions()[0].path == tmp_path / "renamed"
    assert read_identity(folder / "session.sqlite").path == tmp_path / "renamed"


def test_damaged_session_is_not_passed_over(frames, tmp_path):
    folder = begin(open_frames(frames))
    (folder / "session.sqlite").write_bytes(b"x" * 5000)
    assert session_folder_for(open_frames(frames)) == folder
    with pytest.raises(InputError, match="damaged"):
        Session(open_frames(frames))


def test_sample_data_have_theirs_with_the_user(tmp_path):
    folder = session_folder_for(open_frames(sample_data_folder() / "frames" / "images"))
    assert tmp_path / "data" in folder.parents


def test_arrays_are_known_by_their_pixels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (5, 20, 30, 3)).astype(np.uint8)
    folder = begin(ArraySequence(pixels, "layer"))
    assert tmp_path / "data" in folder.parents
    assert session_folder_for(ArraySequence(pixels.copy(), "layer")) == folder
    assert session_folder_for(ArraySequence(pixels[:4], "layer")) != folder
    assert session_folder_for(ArraySequence(255 - pixels, "layer")) != folder
    with Session(ArraySequence(pixels.copy(), "layer")) as session:
        assert session.status(0).state is ReviewState.ACCEPTED
    assert recent_sessions() == []


# What was open last, and who is at work


def test_recent_sessions(frames, tmp_path, monkeypatch):
    assert recent_sessions() == []
    begin(open_frames(frames))
    others = write_frames(tmp_path / "others")
    with Session(open_frames(others)) as session:
        session.exclude([0, 1], "blurred")
        assert [one.name for one in recent_sessions()] == ["others", "frames"]
    found = recent_sessions()
    assert [(one.name, one.frames, one.done) for one in found] == [
        ("others", 4, 2),
        ("frames", 4, 1),
    ]
    assert found[0].path == others
    assert found[0].folder == tmp_path / "others.microaunet"
    assert (datetime.now(UTC) - found[0].when).total_seconds() < 60
    with Session(open_frames(frames)):
        pass
    assert [one.name for one in recent_sessions()] == ["frames", "others"]
    with monkeypatch.context() as patch:

        def exists(path):
            if path == tmp_path / "frames":
                raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")
            return os.path.lexists(path)

        patch.setattr(Path, "exists", exists)
        assert [one.name for one in recent_sessions()] == ["others"]
    shutil.rmtree(tmp_path / "frames.microaunet")
    assert [one.name for one in recent_sessions()] == ["others"]
    shutil.rmtree(others)
    assert recent_sessions() == []


def test_damaged_list_of_recent_sessions_is_begun_anew(frames, tmp_path):
    begin(open_frames(frames))
    file = tmp_path / "data" / "napari-microaunet" / "recent.json"
    file.write_text('[{"folder": 3}, "x", ' + file.read_text()[1:])
    assert [one.name for one in recent_sessions()] == ["frames"]
    file.write_text("{")
    assert recent_sessions() == []
    begin(open_frames(frames))
    assert [one.name for one in recent_sessions()] == ["frames"]


def test_annotator(frames, monkeypatch):
    monkeypatch.setenv("LOGNAME", "rita")
    assert annotator_name() == "rita"
    set_annotator_name(" Dr Rita ")
    assert annotator_name() == "Dr Rita"
    with Session(open_frames(frames)) as session:
        session.accept([0])
        assert session.status(0).annotator == "Dr Rita"
        assert session.flush()
        assert {event.annotator for event in session.events()} == {"Dr Rita"}
    set_annotator_name("")
    assert annotator_name() == "rita"


def test_annotator_whom_the_system_has_no_name_for(monkeypatch):
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 2**31 - 2, raising=False)
    assert annotator_name() == "unknown"


# What the work costs


def test_costs_from_prelabel_to_accepted(frames, tmp_path):
    with Session(open_frames(frames), annotator="ann") as session:
        session.put_mask(0, mask_of(session, 0), MaskOrigin.MODEL)
        session.add_time(0, 5)
        session.add_time(0, 3, editing=True)
        session.chunks.array[0, 10, 0:6] = 1
        session.add_stroke(0)
        session.add_time(0, LONGEST_PAUSE_S + 1)
        session.flush()
        assert session.edit_costs() == []
        session.accept([0])
        # Looking at what is done costs nothing.
        session.add_time(0, 7)
        (cost,) = session.edit_costs()
        assert (cost.name, cost.model, cost.annotator) == ("0", None, "ann")
        assert (cost.seconds, cost.seconds_editing) == (8, 3)
        assert (cost.strokes, cost.changed_pixels) == (1, 6)
        write_edit_costs(session.edit_costs(), tmp_path / "costs.csv")
    with (tmp_path / "costs.csv").open(newline="") as file:
        (line,) = csv.DictReader(file)
    assert (line["name"], line["model"], line["seconds"], line["strokes"]) == ("0", "", "8.0", "1")
    assert datetime.fromisoformat(line["accepted"]).tzinfo is not None
    with pytest.raises(InputError, match=r"no/costs\.csv"):
        write_edit_costs([cost], tmp_path / "no" / "costs.csv")


def test_summary_by_model_and_annotator():
    def cost(model, annotator, seconds):
        return EditCost("x", model, annotator, seconds, 0, 2, 10, None)

    first, second = summarise(
        [
            cost("student", "a", 1),
            cost(None, "a", 9),
            cost("student", "a", 2),
            cost("student", "a", 6),
        ]
    )
    assert (first.model, first.frames, first.median_seconds) == ("student", 3, 2)
    assert (first.median_strokes, first.median_changed_pixels) == (2, 10)
    assert (second.model, second.frames, second.median_seconds) == (None, 1, 9)


def test_time_left_follows_the_pace_of_the_last_frames(tmp_path):
    count = FEWEST_FRAMES + 5
    frames = write_frames(tmp_path / "many", ((8, 8),) * count)
    with Session(open_frames(frames)) as session:
        session.exclude([count - 1], "blurred")
        for index in range(FEWEST_FRAMES):
            assert session.time_left() is None
            session.add_time(index, 50 if index == 0 else 4)
            session.accept([index])
        assert session.time_left() == 4 * 4
        session.accept(range(count))
        assert session.time_left() == 0


def test_frames_accepted_without_a_look_do_not_tell_the_pace(tmp_path):
    count = FEWEST_FRAMES + 65
    frames = write_frames(tmp_path / "many", ((8, 8),) * count)
    with Session(open_frames(frames)) as session:
        session.accept(range(60))
        assert session.time_left() is None
        for index in range(60, 60 + FEWEST_FRAMES):
            session.add_time(index, 20)
            session.accept([index])
        session.accept(range(60))
        assert session.time_left() == 5 * 20


def test_events_say_what_happened(frames):
    with Session(open_frames(frames)) as session:
        session.put_mask(1, mask_of(session, 1), MaskOrigin.FILE)
        session.add_stroke(1, "grow")
        session.accept([1])
        session.undo_review()
        session.exclude([2], "blurred")
        session.note([2], "odd")
        session.flush()
        found = [(event.slot, event.what) for event in session.events()]
    assert found == [
        (None, "opened"),
        (1, "mask: mask from a file"),
        (1, "grow"),
        (1, "accepted"),
        (1, "undone: Accept"),
        (2, "excluded: blurred"),
        (2, "noted: odd"),
    ]
