"""A thousand things done in any order leave a session consistent, and equal when opened again."""

from __future__ import annotations

import shutil
import tempfile
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from PIL import Image
from scipy import ndimage
from session_help import map_of

from napari_microaunet.curation.session import MaskOrigin, ReviewState, Session
from napari_microaunet.editing.boundary import polygons_of, write_polygons
from napari_microaunet.editing.clicks import refine
from napari_microaunet.editing.contour import move_contour
from napari_microaunet.editing.labels import free_labels, labels_of
from napari_microaunet.editing.propagation import propagate
from napari_microaunet.editing.snapping import snap
from napari_microaunet.editing.tools import MASK_TOOLS
from napari_microaunet.frames import open_frames
from napari_microaunet.prelabel.masks import at_native_size
from napari_microaunet.prelabel.probability import ProbabilityMap

SIZES = ((24, 32), (40, 16), (24, 32), (15, 50))
FRAME = st.integers(0, 3)
FRAMES = st.lists(FRAME, min_size=1, max_size=4, unique=True)
LABEL = st.sampled_from((0, 1, 2, 3, 255))
PLACE = st.tuples(st.floats(0, 0.999), st.floats(0, 0.999))
BY_OTHERS = st.sampled_from([origin for origin in MaskOrigin if origin is not MaskOrigin.HAND])

# As docs/session.md has it, where nobody has decided.
STATES = {
    MaskOrigin.NONE: ReviewState.UNSEEN,
    MaskOrigin.MODEL: ReviewState.PRELABELLED,
    MaskOrigin.PROPAGATED: ReviewState.PRELABELLED,
    MaskOrigin.FILE: ReviewState.EDITED,
    MaskOrigin.HAND: ReviewState.EDITED,
}


def write_frames(folder):
    """Write frames with something to see in them."""
    folder.mkdir()
    for number, size in enumerate(SIZES):
        noise = np.random.default_rng(number // 2).normal(size=(*size, 3))
        spots = ndimage.gaussian_filter(noise, (3, 3, 0))
        pixels = 128 + 60 * spots / np.abs(spots).max()
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    return folder


class Work(RuleBasedStateMachine):
    """An annotator at work; beside the session, plain lists of what it should hold."""

    def __init__(self):
        super().__init__()
        self.place = Path(tempfile.mkdtemp())
        self.numbers = count()

    @initialize()
    def begin(self):
        self.session = Session(open_frames(write_frames(self.place / "frames")))
        self.masks = [np.zeros(size, np.uint8) for size in SIZES]
        self.origins = [MaskOrigin.NONE] * 4
        self.accepted = [None] * 4
        self.reasons = [None] * 4
        self.notes = [""] * 4
        self.maps = [0] * 4
        self.strokes = [0] * 4
        self.seconds = [0.0] * 4
        self.forget()

    def forget(self):
        """What is not kept when a session is closed: the ways back."""
        self.done, self.undone = [], []
        self.edits, self.taken_back = [], []
        # Who made the masks that a frame has had.
        self.known = [{} for _ in SIZES]

    # Masks

    def write(self, index, mask, origin=None):
        """Have the session write a mask, by hand into the array or as somebody else's."""
        before = self.masks[index]
        self.known[index].setdefault(before.tobytes(), self.origins[index])
        if origin is None:
            height, width = mask.shape
            self.session.chunks.array[index, :height, :width] = mask
            if not np.array_equal(mask, before):
                origin = self.known[index].get(mask.tobytes(), MaskOrigin.HAND)
                self.origins[index] = origin
        else:
            self.session.put_mask(index, mask, origin)
            self.known[index][mask.tobytes()] = self.origins[index] = origin
        self.masks[index] = mask.copy()

    def edit(self, index, mask, origin=None):
        """Change a mask as an edit that can be taken back."""
        self.edits.append((index, self.masks[index], mask.copy()))
        self.taken_back.clear()
        self.write(index, mask, origin)

    def use(self, index, mask):
        """Change a mask as a tool does."""
        assert mask.shape == SIZES[index]
        assert mask.dtype == np.uint8
        self.session.add_stroke(index, "tool")
        self.strokes[index] += 1
        self.edit(index, mask)

    def chosen(self, index, number):
        """One of the polyps of a frame, if there are any."""
        labels = labels_of(self.masks[index])
        return labels[number % len(labels)] if labels else None

    def probability(self, index):
        """What the model says of a frame, at native size."""
        kept = self.session.map(index)
        if kept is None:
            return None
        return at_native_size(ProbabilityMap(kept.values, kept.field, SIZES[index]))

    @rule(index=FRAME, label=LABEL, place=PLACE, radius=st.floats(1, 9))
    def paint(self, index, label, place, radius):
        mask = self.masks[index].copy()
        rows, columns = np.ogrid[: mask.shape[0], : mask.shape[1]]
        row, column = np.multiply(place, mask.shape)
        mask[np.hypot(rows - row, columns - column) <= radius] = label
        self.edit(index, mask)

    @rule(index=FRAME, name=st.sampled_from(sorted(MASK_TOOLS)), number=st.integers(0, 3))
    def mask_tool(self, index, name, number):
        tool = MASK_TOOLS[name]
        label = None if number == 3 else self.chosen(index, number)
        before = self.masks[index]
        options = {parameter.name: parameter.default for parameter in tool.parameters}
        mask = tool.function(before, label, **options)
        if name == "renumber":
            assert labels_of(mask) == list(range(1, len(labels_of(before)) + 1))
        else:
            # New polyps have the next numbers that are free.
            new = sorted({*labels_of(mask)} - {*labels_of(before)})
            assert new == list(free_labels(before))[: len(new)]
        self.use(index, mask)

    @rule(index=FRAME, number=st.integers(0, 2), level=st.integers(1, 255))
    def contour(self, index, number, level):
        label, probability = self.chosen(index, number), self.probability(index)
        if label is not None and probability is not None:
            self.use(index, move_contour(self.masks[index], label, probability, level))

    @rule(index=FRAME, number=st.integers(0, 2), place=PLACE, belongs=st.booleans())
    def click(self, index, number, place, belongs):
        label = self.chosen(index, number) or 1
        point = tuple(int(at) for at in np.multiply(place, SIZES[index]))
        probability = self.probability(index)
        clicks = ([point], []) if belongs else ([], [point])
        frame = self.session.sequence.read(index)
        self.use(index, refine(self.masks[index], label, frame, probability, *clicks))

    @rule(index=FRAME, number=st.integers(0, 2))
    def snap(self, index, number):
        label = self.chosen(index, number)
        if label is not None:
            frame = self.session.sequence.read(index)
            self.use(index, snap(self.masks[index], label, frame))

    @rule(index=FRAME, number=st.integers(0, 2), vertex=st.integers(0, 50), place=PLACE)
    def boundary(self, index, number, vertex, place):
        label, mask = self.chosen(index, number), self.masks[index]
        if label is None:
            return
        first, *others = polygons_of(mask, label)
        ring = first.exterior
        moved = ring.copy()
        moved[vertex % len(ring)] = np.multiply(place, mask.shape)
        changed = write_polygons(mask, label, [type(first)(moved, first.holes), *others])
        elsewhere = (mask != label) & (mask != 0)
        np.testing.assert_array_equal(changed[elsewhere], mask[elsewhere])
        self.use(index, changed)

    @rule(start=FRAME)
    def propagate(self, start):
        session = self.session
        decided = ReviewState.ACCEPTED, ReviewState.EXCLUDED
        open_ones = [i for i in range(4) if session.status(i).state not in decided]
        # All frames count as of one size for it: those of the key's.
        like = [i for i in open_ones if SIZES[i] == SIZES[start] and i != start]
        keys = {start: self.masks[start]}
        if not labels_of(self.masks[start]):
            return
        for carried in propagate(session.sequence.read, keys, like):
            if carried.mask is not None:
                self.edit(carried.index, carried.mask, MaskOrigin.PROPAGATED)

    @rule(index=FRAME, label=LABEL, origin=BY_OTHERS)
    def put(self, index, label, origin):
        self.edit(index, np.full_like(self.masks[index], label), origin)

    @precondition(lambda self: self.edits)
    @rule()
    def undo_edit(self):
        index, before, after = self.edits.pop()
        self.taken_back.append((index, before, after))
        np.testing.assert_array_equal(self.session.chunks.mask(index), after)
        self.write(index, before)

    @precondition(lambda self: self.taken_back)
    @rule()
    def redo_edit(self):
        index, before, after = self.taken_back.pop()
        self.edits.append((index, before, after))
        np.testing.assert_array_equal(self.session.chunks.mask(index), before)
        self.write(index, after)

    @rule(index=FRAME, value=st.integers(1, 255), side=st.sampled_from((4, 8)))
    def put_map(self, index, value, side):
        self.maps[index] = value
        self.session.put_map(index, map_of(value, side), confidence=value / 255)

    # Review

    def decide(self, frames, change):
        before = self.decisions()
        for index in frames:
            change(index)
        if self.decisions() != before:
            self.done.append((before, self.decisions()))
            self.undone.clear()

    def decisions(self):
        return list(self.accepted), list(self.reasons), list(self.notes)

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
    def undo_review(self):
        assert (self.session.undo_review() is None) == (not self.done)
        if self.done:
            self.undone.append(self.done.pop())
            self.accepted, self.reasons, self.notes = map(list, self.undone[-1][0])

    @rule()
    def redo_review(self):
        assert (self.session.redo_review() is None) == (not self.undone)
        if self.undone:
            self.done.append(self.undone.pop())
            self.accepted, self.reasons, self.notes = map(list, self.done[-1][1])

    # Time and place

    @rule(index=FRAME, seconds=st.sampled_from((0.5, 3.0, 1000.0)))
    def look(self, index, seconds):
        if self.session.status(index).state is not ReviewState.ACCEPTED and seconds < 60:
            self.seconds[index] += seconds
        self.session.add_time(index, seconds)

    @rule(index=FRAME)
    def go_to(self, index):
        self.session.shown = index

    @rule()
    def open_again(self):
        assert self.session.flush()
        before, shown = self.session.statuses, self.session.shown
        self.session.close()
        self.session = Session(open_frames(self.place / "frames"))
        assert self.session.remarks == []
        assert self.session.statuses == before
        assert self.session.shown == shown
        self.forget()

    # What always holds

    @invariant()
    def is_as_it_should_be(self):
        if not hasattr(self, "session"):
            return
        for status in self.session.statuses:
            index = status.index
            mask = self.session.chunks.mask(index)
            np.testing.assert_array_equal(mask, self.masks[index])
            assert self.session.origin(index) is self.origins[index]
            accepted = self.accepted[index]
            if self.reasons[index] is not None:
                wanted = ReviewState.EXCLUDED
            elif accepted is not None and accepted[1] == self.masks[index].tobytes():
                wanted = ReviewState.ACCEPTED
            else:
                wanted = STATES[self.origins[index]]
            assert status.state is wanted
            assert (status.reason, status.note) == (self.reasons[index], self.notes[index])
            assert (status.strokes, status.seconds) == (self.strokes[index], self.seconds[index])
            kept = self.session.map(index)
            assert (0 if kept is None else kept.values.max()) == self.maps[index]
            if status.area is not None:
                assert status.area == np.count_nonzero((mask > 0) & (mask < 255))
                assert status.polyps == len(labels_of(mask))

    @invariant()
    def boundaries_are_those_of_the_mask(self):
        """Of the frame that was edited last: polygons and back, every polyp is the same to 1 px."""
        if not getattr(self, "edits", None):
            return
        mask = self.masks[self.edits[-1][0]]
        for label in labels_of(mask):
            again = write_polygons(mask, label, polygons_of(mask, label)) == label
            polyp = mask == label
            assert not (again & ~ndimage.binary_dilation(polyp)).any()
            assert not (polyp & ~ndimage.binary_dilation(again)).any()

    def teardown(self):
        if hasattr(self, "session"):
            self.session.close()
        shutil.rmtree(self.place)


Work.TestCase.settings = settings(
    max_examples=24,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestWork = pytest.mark.timeout(300)(Work.TestCase)
