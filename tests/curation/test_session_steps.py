"""Many things done in any order leave a session consistent, and equal when it is opened again."""

from __future__ import annotations

import shutil
import tempfile
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from session_help import map_of, write_frames

from napari_microaunet.curation.session import MaskOrigin, ReviewState, Session
from napari_microaunet.frames import open_frames

FRAME = st.integers(0, 3)
FRAMES = st.lists(FRAME, min_size=1, max_size=4, unique=True)
LABEL = st.integers(0, 3)


class Work(RuleBasedStateMachine):
    """An annotator at work; beside the session, a plain list of what it should hold."""

    def __init__(self):
        super().__init__()
        self.place = Path(tempfile.mkdtemp())
        self.numbers = count()

    @initialize()
    def begin(self):
        self.session = Session(open_frames(write_frames(self.place / "frames")))
        sizes = [(frame.height, frame.width) for frame in self.session.sequence.frames]
        self.masks = [np.zeros(size, np.uint8) for size in sizes]
        self.accepted = [None] * 4
        self.reasons = [None] * 4
        self.notes = [""] * 4
        self.maps = [0] * 4
        self.done, self.undone = [], []

    def decide(self, frames, change):
        before = self.decisions()
        for index in frames:
            change(index)
        if self.decisions() != before:
            self.done.append((before, self.decisions()))
            self.undone.clear()

    def decisions(self):
        return list(self.accepted), list(self.reasons), list(self.notes)

    @rule(index=FRAME, label=LABEL, row=st.integers(0, 12), column=st.integers(0, 8))
    def paint(self, index, label, row, column):
        self.session.chunks.array[index, row : row + 3, column : column + 2] = label
        self.masks[index] = self.masks[index].copy()
        self.masks[index][row : row + 3, column : column + 2] = label

    @rule(index=FRAME, label=LABEL, origin=st.sampled_from(MaskOrigin))
    def put(self, index, label, origin):
        self.masks[index] = np.full_like(self.masks[index], label)
        self.session.put_mask(index, self.masks[index], origin)
        assert self.session.origin(index) is origin

    @rule(index=FRAME, value=st.integers(1, 255), side=st.sampled_from((4, 8)))
    def put_map(self, index, value, side):
        self.maps[index] = value
        self.session.put_map(index, map_of(value, side), confidence=value / 255)

    @rule(frames=FRAMES)
    def accept(self, frames):
        # A mask that is accepted twice is accepted at another time: that is a step as well.
        mark = next(self.numbers)

        def change(index):
            self.accepted[index] = mark, self.masks[index].tobytes()
            self.reasons[index] = None

        self.session.accept(frames)
        self.decide(frames, change)

    @rule(frames=FRAMES)
    def unaccept(self, frames):
        self.session.unaccept(frames)
        self.decide(frames, lambda index: self.accepted.__setitem__(index, None))

    @rule(frames=FRAMES, reason=st.sampled_from(("blurred", "twice")))
    def exclude(self, frames, reason):
        self.session.exclude(frames, reason)
        self.decide(frames, lambda index: self.reasons.__setitem__(index, reason))

    @rule(frames=FRAMES)
    def include(self, frames):
        self.session.include(frames)
        self.decide(frames, lambda index: self.reasons.__setitem__(index, None))

    @rule(frames=FRAMES, note=st.text(max_size=5))
    def note(self, frames, note):
        self.session.note(frames, note)
        self.decide(frames, lambda index: self.notes.__setitem__(index, note))

    @rule()
    def undo(self):
        assert (self.session.undo_review() is None) == (not self.done)
        if self.done:
            self.undone.append(self.done.pop())
            self.accepted, self.reasons, self.notes = map(list, self.undone[-1][0])

    @rule()
    def redo(self):
        assert (self.session.redo_review() is None) == (not self.undone)
        if self.undone:
            self.done.append(self.undone.pop())
            self.accepted, self.reasons, self.notes = map(list, self.done[-1][1])

    @rule()
    def open_again(self):
        assert self.session.flush()
        before, steps = self.session.statuses, self.session.undo_title
        self.session.close()
        self.session = Session(open_frames(self.place / "frames"))
        assert self.session.remarks == []
        assert self.session.statuses == before
        assert (steps is None) == (not self.done)
        self.done, self.undone = [], []

    @invariant()
    def is_as_it_should_be(self):
        if not hasattr(self, "session"):
            return
        for status in self.session.statuses:
            index = status.index
            mask = self.session.chunks.mask(index)
            np.testing.assert_array_equal(mask, self.masks[index])
            accepted = self.accepted[index]
            if self.reasons[index] is not None:
                assert status.state is ReviewState.EXCLUDED
            else:
                same = accepted is not None and accepted[1] == self.masks[index].tobytes()
                assert (status.state is ReviewState.ACCEPTED) == same
            assert (status.reason, status.note) == (self.reasons[index], self.notes[index])
            kept = self.session.map(index)
            assert (0 if kept is None else kept.values.max()) == self.maps[index]
            if status.area is not None:
                assert status.area == np.count_nonzero(mask)
                assert status.polyps == len(np.unique(mask[mask > 0]))

    def teardown(self):
        if hasattr(self, "session"):
            self.session.close()
        shutil.rmtree(self.place)


Work.TestCase.settings = settings(max_examples=10, stateful_step_count=25, deadline=None)
TestWork = pytest.mark.timeout(300)(Work.TestCase)
