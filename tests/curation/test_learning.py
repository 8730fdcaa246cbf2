"""What a model learns from in the course of a session, again and again."""

from __future__ import annotations

import numpy as np
import pytest

from napari_microaunet.curation.dataset import open_dataset
from napari_microaunet.curation.learning import frames_to_learn_from, keep_splits
from napari_microaunet.curation.session import MaskOrigin, Session
from napari_microaunet.curation.writer import write_dataset
from napari_microaunet.frames import open_frames

VIDEOS = 8


@pytest.fixture
def session(tmp_path, write_frame):
    """Eight videos of three frames; the first two of the odd videos are accepted."""
    for number in range(3 * VIDEOS):
        write_frame(tmp_path / "ward" / f"video {number // 3}" / f"{number}.png", number)
    with Session(open_frames(tmp_path / "ward")) as session:
        accept(session, range(1, VIDEOS, 2))
        yield session


def accept(session, videos):
    mask = np.zeros((24, 32), np.uint8)
    mask[4:10, 3:12] = 1
    chosen = [3 * video + number for video in videos for number in (0, 1)]
    for index in chosen:
        session.put_mask(index, mask, MaskOrigin.HAND)
    session.accept(chosen)


def test_a_model_learns_from_accepted_masks_alone(session, tmp_path):
    # Half done.
    session.put_mask(0, np.full((24, 32), 1, np.uint8), MaskOrigin.HAND)
    write_dataset(frames_to_learn_from(session, 100), tmp_path / "set")
    frames = open_dataset(tmp_path / "set").frames
    assert len(frames) == 3 * VIDEOS
    labelled = [number for number, frame in enumerate(frames) if frame.labelled]
    assert labelled == [3, 4, 9, 10, 15, 16, 21, 22]
    assert len(frames_to_learn_from(session, 1)) == 9


def test_a_frame_that_was_held_out_is_never_learned_from_later(session, tmp_path):
    first = write_dataset(frames_to_learn_from(session, 0), tmp_path / "first").manifest
    keep_splits(session, first)
    accept(session, range(0, VIDEOS, 2))
    again = write_dataset(frames_to_learn_from(session, 100), tmp_path / "again").manifest
    before = {frame.name: frame.split for frame in first.frames}
    after = {frame.name: frame.split for frame in again.frames}
    assert set(before.values()) == {"training", "validation", "test"}
    assert len(after) == 3 * VIDEOS
    assert {name: after[name] for name in before} == before
    by_group = {(frame.group, frame.split) for frame in again.frames}
    assert len(by_group) == VIDEOS


def test_splits_that_are_damaged_are_drawn_anew(session, tmp_path):
    (session.folder / "splits.json").write_bytes(b'{"ward/video 1/3": "somewhere"}')
    written = write_dataset(frames_to_learn_from(session, 0), tmp_path / "set").manifest
    keep_splits(session, written)
    assert [frame.split for frame in frames_to_learn_from(session, 0)] == [
        frame.split for frame in written.frames
    ]
