from __future__ import annotations

import itertools

import numpy as np
import pytest
from blobs import IGNORE, disc
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_microaunet.editing.propagation import Stop, propagate
from napari_microaunet.errors import InputError

SHAPE = (120, 160)
POLYP, MUCOSA = (190, 90, 80), (150, 110, 80)


class Scene:
    """A camera that moves over mucosa with polyps: frames and exact masks by their number.

    A polyp is a disc: row, column and radius in the first frame.
    """

    def __init__(self, polyps, step=(0, 0), seed=0, shape=SHAPE, colour=MUCOSA):
        self.polyps, self.step, self.shape = polyps, step, shape
        self.colour = colour
        noise = np.random.default_rng(seed).normal(size=(3 * shape[0], 3 * shape[1]))
        texture = ndimage.gaussian_filter(noise, 4) + 0.4 * ndimage.gaussian_filter(noise, 1.5)
        self._texture = 8 * texture / texture.std()
        self.reads = []

    def mask(self, index):
        mask = np.zeros(self.shape, np.uint8)
        for label, (row, column, radius) in self.polyps.items():
            at = row + index * self.step[0], column + index * self.step[1]
            mask[disc(self.shape, *at, radius)] = label
        return mask

    def frame(self, index):
        (height, width), (down, across) = self.shape, self.step
        top, left = height - index * down, width - index * across
        texture = self._texture[top : top + height, left : left + width]
        colours = np.where((self.mask(index) > 0)[..., None], POLYP, self.colour)
        blurred = ndimage.gaussian_filter(colours.astype(float), (1, 1, 0))
        return np.clip(blurred + texture[..., None], 0, 255).astype(np.uint8)

    def read(self, index):
        self.reads.append(index)
        return self.frame(index)

    def map(self, index):
        return ndimage.gaussian_filter((self.mask(index) > 0) * 255.0, 3).astype(np.uint8)


def dice(one, other):
    return 2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other))


def centre(region):
    return np.array(ndimage.center_of_mass(region))


def followed(scene, targets, keys=(0,), **settings):
    given_keys = {index: scene.mask(index) for index in keys}
    return list(propagate(scene.read, given_keys, targets, **settings))


@given(
    st.floats(45, 75),
    st.floats(60, 100),
    st.floats(9, 22),
    st.tuples(st.integers(-11, 11), st.integers(-14, 14)),
    st.booleans(),
    st.integers(0, 5),
)
@settings(max_examples=8, deadline=None)
def test_the_mask_follows_a_polyp(row, column, radius, step, with_map, seed):
    scene = Scene({1: (row, column, radius)}, step, seed)
    found = followed(scene, range(1, 4), probability=scene.map if with_map else None)
    assert [one.index for one in found] == [1, 2, 3]
    assert [one.stop for one in found] == [None, None, Stop.END]
    for one in found:
        true = scene.mask(one.index) == 1
        assert one.usable
        assert one.mask.dtype == np.uint8
        assert set(np.unique(one.mask)) == {0, 1}
        # Two pixels of the frame are less than one of the search.
        assert np.linalg.norm(centre(one.mask == 1) - centre(true)) < 2
        assert dice(one.mask == 1, true) > 0.9


def test_a_leap_of_more_than_its_size_is_followed():
    scene = Scene({1: (40, 50, 10)}, (30, 45))
    (one,) = followed(scene, [1])
    assert dice(one.mask == 1, scene.mask(1) == 1) > 0.9


def test_backwards_is_as_good():
    scene = Scene({1: (60, 80, 15)}, (4, -6))
    found = followed(scene, range(4, -1, -1), keys=[5])
    assert [one.index for one in found] == [4, 3, 2, 1, 0]
    assert found[-1].stop is Stop.END
    assert dice(found[-1].mask == 1, scene.mask(0) == 1) > 0.9


def test_several_polyps_keep_their_numbers():
    scene = Scene({3: (40, 50, 14), 7: (80, 110, 18), 254: (85, 40, 10)}, (3, 5))
    for one in followed(scene, range(1, 4)):
        for label in scene.polyps:
            assert dice(one.mask == label, scene.mask(one.index) == label) > 0.85


def test_regions_to_ignore_travel():
    scene = Scene({1: (60, 60, 20)}, (5, 6))
    key = scene.mask(0)
    glare = disc(SHAPE, 60, 60, 5)
    key[glare] = IGNORE
    key[20:40, 110:140] = IGNORE  # by itself
    (one,) = propagate(scene.read, {0: key}, [1])
    moved = np.roll(key, scene.step, (0, 1))
    assert dice(one.mask == 1, moved == 1) > 0.9
    parts, count = ndimage.label(one.mask == IGNORE)
    assert count == 2
    assert np.abs(centre(parts == parts[65, 66]) - (65, 66)).max() < 2
    assert dice(one.mask[:60, 100:] == IGNORE, moved[:60, 100:] == IGNORE) > 0.75


def test_a_shot_cut_stops_and_nothing_behind_it_is_read():
    scene = Scene({1: (60, 80, 15)}, (2, 3))
    other = Scene({1: (60, 80, 15)}, (2, 3), seed=9, colour=(90, 60, 130))
    reads = []

    def read(index):
        reads.append(index)
        return (scene if index < 3 else other).frame(index)

    found = list(propagate(read, {0: scene.mask(0)}, range(1, 8)))
    assert [(one.index, one.usable, one.stop) for one in found] == [
        (1, True, None),
        (2, True, None),
        (3, False, Stop.SHOT_CUT),
    ]
    assert found[-1].mask is None
    assert max(reads) == 3


def test_between_two_keys_a_cut_is_reached_from_both_sides():
    scene = Scene({1: (60, 80, 15)}, (2, 3))
    other = Scene({1: (60, 40, 18)}, (-2, 3), seed=9, colour=(90, 60, 130))

    def read(index):
        return (scene if index < 4 else other).frame(index)

    keys = {0: scene.mask(0), 7: other.mask(7)}
    found = list(propagate(read, keys, range(8)))
    usable = {one.index: one.mask for one in found if one.usable}
    assert set(usable) == {1, 2, 3, 4, 5, 6}
    for index, mask in usable.items():
        true = (scene if index < 4 else other).mask(index)
        assert dice(mask == 1, true == 1) > 0.85


def test_between_two_keys_work_goes_on_in_turns():
    scene = Scene({1: (60, 80, 15)}, (2, 3))
    found = followed(scene, range(8), keys=[0, 7])
    assert [one.index for one in found] == [1, 6, 2, 5, 3, 4]
    assert [one.stop for one in found] == [None] * 5 + [Stop.END]


def test_both_keys_count_in_between():
    # The outline is uncertain: one key has drawn it tight, the other wide.
    scene = Scene({1: (60, 80, 18)})
    tight, wide = disc(SHAPE, 60, 80, 15), disc(SHAPE, 60, 80, 21)
    keys = {0: tight.astype(np.uint8), 2: wide.astype(np.uint8)}
    (one,) = propagate(scene.read, keys, [1])
    assert tight.sum() * 1.1 < (one.mask == 1).sum() < wide.sum() / 1.1


def test_an_accepted_frame_in_between_starts_anew():
    scene = Scene({1: (60, 80, 18)})
    keys = {
        0: disc(SHAPE, 60, 80, 14).astype(np.uint8),
        3: disc(SHAPE, 60, 80, 22).astype(np.uint8),
    }
    masks = {one.index: one.mask for one in propagate(scene.read, keys, range(6))}
    assert set(masks) == {1, 2, 4, 5}
    assert dice(masks[5] == 1, keys[3] == 1) > 0.95


def test_a_closed_iterator_reads_no_more():
    scene = Scene({1: (60, 80, 15)}, (2, 3))
    found = propagate(scene.read, {0: scene.mask(0)}, range(1, 100))
    assert scene.reads == []
    assert [one.index for one in itertools.islice(found, 2)] == [1, 2]
    found.close()
    assert scene.reads == [0, 1, 2]


def test_it_stops_where_the_polyp_is_gone():
    scene = Scene({1: (60, 80, 15)}, (1, 1))
    empty = Scene({}, (1, 1))

    def read(index):
        return (scene if index < 2 else empty).frame(index)

    def map_of(index):
        return (scene if index < 2 else empty).map(index)

    for probability in (None, map_of):
        found = list(propagate(read, {0: scene.mask(0)}, range(1, 5), probability))
        assert [one.index for one in found] == [1, 2]
        assert found[0].score > 0.8
        assert found[1].stop is Stop.LOW_SCORE
        assert not found[1].usable


def test_of_two_alike_the_one_that_has_gone_is_not_seen_in_the_other():
    both = Scene({1: (60, 50, 16), 2: (60, 105, 16)}, (1, 1))
    left = Scene({1: (60, 50, 16)}, (1, 1))

    def read(index):
        return (both if index < 2 else left).frame(index)

    found = list(propagate(read, {0: both.mask(0)}, range(1, 5)))
    assert [(one.index, one.usable) for one in found] == [(1, True), (2, False)]
    assert found[0].score > 0.8
    assert found[1].stop is Stop.LOW_SCORE


def test_the_least_score_decides():
    scene = Scene({1: (60, 80, 15)}, (1, 1))
    (one,) = followed(scene, [1, 2], least_score=1.0)
    assert one.stop is Stop.LOW_SCORE
    assert dice(one.mask == 1, scene.mask(1) == 1) > 0.9  # to be looked at
    assert len(followed(scene, [1, 2], least_score=0.0)) == 2


def test_the_map_counts_where_the_colours_leave_doubt_and_only_there():
    scene, noise = Scene({1: (60, 80, 15)}), np.random.default_rng(1).normal(0, 25, (*SHAPE, 3))
    wider = ndimage.gaussian_filter(disc(SHAPE, 60, 80, 24) * 255.0, 2).astype(np.uint8)

    def read(index):
        return np.clip(scene.frame(index) + index * noise, 0, 255).astype(np.uint8)

    clear, noisy = (
        [
            next(propagate(one, {0: scene.mask(0)}, [1], probability)).mask
            for probability in (None, lambda _: None, lambda _: wider)
        ]
        for one in (scene.frame, read)
    )
    for alone, without, _ in (clear, noisy):
        np.testing.assert_array_equal(alone, without)
    np.testing.assert_array_equal(clear[0], clear[2])
    assert (noisy[2] == 1).sum() > 1.1 * (noisy[0] == 1).sum()


@pytest.mark.parametrize("problem", [Stop.FRAME_SIZE, Stop.UNREADABLE])
def test_a_frame_that_cannot_be_compared_stops(problem):
    scene = Scene({1: (60, 80, 15)})

    def read(index):
        if index < 2:
            return scene.frame(index)
        if problem is Stop.UNREADABLE:
            raise InputError("Frame 2 cannot be read.")
        return scene.frame(index)[:-1]

    found = list(propagate(read, {0: scene.mask(0)}, range(1, 5)))
    assert [(one.index, one.stop) for one in found] == [(1, None), (2, problem)]
    assert found[-1].mask is None


def test_keys_that_cannot_be_used_are_refused():
    scene = Scene({1: (60, 80, 15)})
    with pytest.raises(InputError, match="No key frame has a polyp"):
        list(propagate(scene.read, {0: np.zeros(SHAPE, np.uint8)}, [1]))
    with pytest.raises(InputError, match="150 x 120 px"):
        list(propagate(scene.read, {0: scene.mask(0)[:, :150]}, [1]))


def test_from_a_frame_without_a_polyp_nothing_goes_out():
    scene = Scene({1: (60, 80, 15)})
    keys = {0: np.zeros(SHAPE, np.uint8), 4: scene.mask(4)}
    assert [one.index for one in propagate(scene.read, keys, range(8))] == [3, 2, 1, 5, 6, 7]


@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.integers(0, 2**32 - 1),
    st.sampled_from(["black", "flat", "noise"]),
    st.booleans(),
)
@example((1, 1), 0, "black", True)
@example((1, 40), 0, "noise", False)
@settings(max_examples=40, deadline=None)
def test_odd_frames_and_masks_never_raise(shape, seed, kind, with_map):
    random = np.random.default_rng(seed)
    frames = {
        "black": np.zeros((2, *shape, 3), np.uint8),
        "flat": np.full((2, *shape, 3), 120, np.uint8),
        "noise": random.integers(0, 256, (2, *shape, 3)).astype(np.uint8),
    }[kind]
    key = random.choice([0, 1, 2, IGNORE], shape).astype(np.uint8)
    key[random.integers(shape[0]), random.integers(shape[1])] = 1
    maps = random.integers(0, 256, shape).astype(np.uint8) if with_map else None
    for one in propagate(frames.__getitem__, {0: key}, [1], lambda _: maps, least_score=0.0):
        assert 0 <= one.score <= 1
        if one.mask is not None:
            assert one.mask.shape == shape
            assert set(np.unique(one.mask)) <= {0, 1, 2, IGNORE}
