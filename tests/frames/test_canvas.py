from __future__ import annotations

import random
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from napari_microaunet.errors import InputError
from napari_microaunet.frames import Frame, FrameSequence, open_frames
from napari_microaunet.frames.canvas import ReadAhead, canvas
from napari_microaunet.frames.sequence import UnreadableError

FRAME_BYTES = 50 * 40 * 3


class MadeFrames(FrameSequence):
    """Frames made on demand that keeps account of what was read and what is still in memory."""

    def __init__(self, count, bad=()):
        frames = [Frame(f"made_{i:06d}", Path("made"), 50, 40) for i in range(count)]
        super().__init__(Path("made"), "made", frames)
        self.bad = set(bad)
        self.reads = []
        self.alive = 0
        self.most_alive = 0
        self.account = threading.Lock()
        self.may_read = {}

    def _decode(self, index):
        with self.account:
            self.reads.append(index)
        if index in self.may_read:
            self.may_read[index].wait(20)
        if index in self.bad:
            raise UnreadableError("it is bad")
        image = np.full((50, 40, 3), index % 251, np.uint8)
        with self.account:
            self.alive += 1
            self.most_alive = max(self.most_alive, self.alive)
        weakref.finalize(image, self._gone)
        return image

    def _gone(self):
        with self.account:
            self.alive -= 1


def wait_until(condition):
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert condition()


@pytest.mark.parametrize("read_ahead", [True, False])
def test_mixed_sizes_on_one_canvas(tmp_path, write_image, read_ahead):
    sizes = [(20, 30), (40, 10), (5, 50), (40, 50)]
    pixels = [
        write_image(tmp_path / f"{number}.png", size=size) for number, size in enumerate(sizes)
    ]
    (tmp_path / "4.png").write_bytes(b"")
    stack = canvas(open_frames(tmp_path), read_ahead=read_ahead)
    assert stack.shape == (5, 40, 50, 3)
    assert stack.dtype == np.uint8
    assert stack.numblocks == (5, 1, 1, 1)
    for index in (0, 3, 1, 2, 0):
        height, width = sizes[index]
        shown = np.asarray(stack[index])
        np.testing.assert_array_equal(shown[:height, :width], pixels[index])
        assert shown[height:].max(initial=0) == 0
        assert shown[:, width:].max(initial=0) == 0
    placeholder = np.asarray(stack[4])
    assert (placeholder[:20, :30] == 128).all()
    assert placeholder[20:].max() == 0


def test_whole_stack_at_once():
    frames = MadeFrames(30, bad=[7])
    values = np.asarray(canvas(frames))[:, 0, 0, 0]
    assert values.tolist() == [128 if i == 7 else i for i in range(30)]
    assert list(frames.problems) == [7]


def test_stack_of_a_video(tmp_path, make_video):
    sequence = open_frames(make_video(tmp_path / "clip.mp4", "libx264", b_frames=2))
    stack = canvas(sequence)
    expected = open_frames(tmp_path / "clip.mp4")
    for index in [*range(60), *range(59, -1, -1), 30, 2, 45]:
        np.testing.assert_array_equal(np.asarray(stack[index]), expected.read(index))


def test_threads_get_their_own_frame():
    stack = canvas(MadeFrames(100))
    indices = [random.Random(0).randrange(100) for _ in range(400)]
    with ThreadPoolExecutor(8) as pool:
        shown = pool.map(lambda index: np.asarray(stack[index])[0, 0, 0], indices)
        assert list(shown) == indices


def test_threads_get_frames_for_which_there_is_hardly_room():
    frames = MadeFrames(40)
    reader = ReadAhead(frames, kept_bytes=FRAME_BYTES)
    frames.may_read[0] = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(reader.read, 0)
        wait_until(lambda: frames.reads)
        for index in (20, 10, 30):  # of which only the last one is kept
            assert reader.read(index)[0, 0, 0] == index
        frames.may_read[0].set()
        assert first.result(20)[0, 0, 0] == 0


def test_ten_thousand_frames():
    frames = MadeFrames(10_000)
    stack = canvas(frames)
    assert frames.reads == []
    assert np.asarray(stack[9_876]).mean() == 9_876 % 251


def test_memory_stays_flat_while_stepping():
    frames = MadeFrames(1000)
    stack = canvas(frames)
    reader = ReadAhead(frames, kept_bytes=20 * FRAME_BYTES)
    for index in range(1000):
        reader.read(index)
    # Besides the 20 that are kept: one in each of two threads, one just handed out.
    assert frames.most_alive <= 23
    del reader, stack
    wait_until(lambda: frames.alive == 0)


def test_no_more_is_read_ahead_than_is_kept():
    frames = MadeFrames(100)
    reader = ReadAhead(frames, kept_bytes=4 * FRAME_BYTES, ahead=8)
    reader.read(0)
    wait_until(lambda: sorted(frames.reads) == [0, 1, 2, 3])
    reader.read(1)
    wait_until(lambda: sorted(frames.reads) == [0, 1, 2, 3, 4])


def test_next_frames_are_read_in_advance_in_the_direction_of_the_steps():
    frames = MadeFrames(100)
    reader = ReadAhead(frames, ahead=3)
    reader.read(49)
    reader.read(50)
    wait_until(lambda: sorted(frames.reads) == [49, 50, 51, 52, 53])
    reader.read(49)
    wait_until(lambda: sorted(frames.reads) == [46, 47, 48, 49, 50, 51, 52, 53])
    assert reader.read(48)[0, 0, 0] == 48
    assert frames.reads.count(48) == 1


def test_dragging_the_slider_reads_nothing_in_advance():
    frames = MadeFrames(100)
    reader = ReadAhead(frames, ahead=3)
    for index in (40, 20, 80, 60):
        reader.read(index)
    reader.read(61)
    wait_until(lambda: {62, 63, 64} <= set(frames.reads))
    assert sorted(frames.reads) == [20, 40, 60, 61, 62, 63, 64, 80]


def test_ends_of_the_sequence():
    frames = MadeFrames(5)
    reader = ReadAhead(frames, ahead=3)
    reader.read(3)
    reader.read(4)
    reader.read(1)
    reader.read(0)
    assert set(frames.reads) <= set(range(5))


def test_jump_does_not_wait_for_what_was_read_ahead():
    frames = MadeFrames(200)
    blocked = threading.Event()
    frames.may_read = dict.fromkeys(range(1, 100), blocked)
    reader = ReadAhead(frames, ahead=8)
    reader.read(0)
    wait_until(lambda: {1, 2} <= set(frames.reads))
    assert reader.read(150)[0, 0, 0] == 150
    assert reader.read(151)[0, 0, 0] == 151
    blocked.set()
    # What nobody waits for any more is not read at all.
    wait_until(lambda: {152, 153} <= set(frames.reads))
    assert not {5, 6, 7, 8} & set(frames.reads)


def test_frame_that_waits_its_turn_is_read_at_once_when_asked_for():
    frames = MadeFrames(100)
    blocked = threading.Event()
    frames.may_read = {1: blocked, 2: blocked}
    reader = ReadAhead(frames, ahead=8)
    reader.read(0)
    wait_until(lambda: {1, 2} <= set(frames.reads))
    assert reader.read(4)[0, 0, 0] == 4
    blocked.set()


def test_bad_frame_is_told_each_time_and_stops_nothing():
    frames = MadeFrames(20, bad=[3, 4])
    reader = ReadAhead(frames)
    for index in [*range(20), 3, 4, 5]:
        if index in frames.bad:
            with pytest.raises(InputError, match="it is bad"):
                reader.read(index)
        else:
            assert reader.read(index)[0, 0, 0] == index


def test_frame_that_becomes_readable_is_shown():
    frames = MadeFrames(3, bad=[1])
    stack = canvas(frames)
    assert np.asarray(stack[1]).mean() == 128
    frames.bad.clear()
    assert np.asarray(stack[1]).mean() == 1
