from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_microaunet.curation.looks import clips, duplicates, look_over
from napari_microaunet.curation.session import MaskOrigin, ReviewState
from napari_microaunet.curation.temporal import (
    FindingKind,
    MaskTrace,
    by_frame,
    find_lapses,
    trace_masks,
)
from napari_microaunet.frames import Frame, open_frames
from napari_microaunet.frames.rendered import render_clip
from napari_microaunet.frames.sample_data import sample_data_folder


def trace(areas, centres=None, polyps=None):
    """A trace of shares of the frame; None is a frame without a mask."""
    known = np.array([area is not None for area in areas])
    values = np.array([np.nan if area is None else area for area in areas], float)
    if centres is None:
        centres = np.full((len(areas), 2), 0.3)
    if polyps is None:
        polyps = np.where(known, values > 0, -1)
    places = np.where((values > 0)[:, None], np.array(centres, float), np.nan)
    return MaskTrace(values, places, np.array(polyps, np.int64))


def kinds(found):
    return [(one.index, one.kind.value) for one in found]


def one_clip(count):
    return np.zeros(count, np.int64)


def test_a_polyp_that_vanishes_is_found():
    found = find_lapses(trace([0.1, 0.1, 0, 0.1, 0.1]), one_clip(5))
    assert kinds(found) == [(2, "vanished")]
    assert found[0].text == "No polyp here, but one polyp in frames 1 and 3."


def test_two_frames_without_it_are_found_and_three_are_not():
    assert kinds(find_lapses(trace([0.1, 0, 0, 0.1]), one_clip(4))) == [
        (1, "vanished"),
        (2, "vanished"),
    ]
    assert find_lapses(trace([0.1, 0, 0, 0, 0.1]), one_clip(5)) == []


def test_one_of_several_polyps_vanishes():
    found = find_lapses(trace([0.1] * 5, polyps=[3, 3, 1, 2, 2]), one_clip(5))
    assert found[0].text == "One polyp here, but 2 polyps in frames 1 and 3."
    assert kinds(found) == [(2, "vanished")]


def test_at_the_ends_of_clips_nothing_vanishes():
    areas = [0.1, 0.1, 0, 0.1, 0.1]
    assert find_lapses(trace(areas), np.array([0, 0, 0, 1, 1])) == []
    assert find_lapses(trace(areas), np.array([0, 0, 1, 1, 1])) == []
    assert find_lapses(trace([0, 0.1, 0.1, 0]), one_clip(4)) == []


def test_a_frame_without_a_mask_is_not_one_without_a_polyp():
    assert find_lapses(trace([0.1, None, 0.1]), one_clip(3)) == []


@pytest.mark.parametrize(
    ("area", "size"), [(0.3, "3.0 times as large"), (0.02, "5.0 times as small")]
)
def test_an_area_that_jumps_is_found(area, size):
    found = find_lapses(trace([0.1, 0.1, area, 0.1, 0.1]), one_clip(5))
    assert kinds(found) == [(2, "area")]
    assert size in found[0].text
    assert "frames 1 and 3" in found[0].text


def test_an_area_that_grows_for_good_is_none():
    assert find_lapses(trace([0.1, 0.1, 0.3, 0.3]), one_clip(4)) == []
    assert find_lapses(trace([0.05, 0.11, 0.25, 0.6]), one_clip(4)) == []


def test_a_position_that_jumps_is_found():
    places = [(0.3, 0.3), (0.3, 0.3), (0.6, 0.7), (0.31, 0.3)]
    found = find_lapses(trace([0.1] * 4, places), one_clip(4))
    assert kinds(found) == [(2, "position")]
    assert "49 % of the frame's diagonal" in found[0].text
    moving = [(0.1 * step, 0.2 * step) for step in range(4)]
    assert find_lapses(trace([0.1] * 4, moving), one_clip(4)) == []


@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.just(0.0), st.floats(1e-6, 1)),
            st.integers(0, 4),
            st.tuples(st.floats(0, 0.8), st.floats(0, 0.8)),
            st.integers(0, 1),
        ),
        min_size=1,
        max_size=12,
    )
)
@settings(deadline=None)
def test_findings_are_in_order_and_never_at_the_end_of_a_clip(rows):
    areas, counts, places, cuts = zip(*rows, strict=True)
    polyps = [
        -1 if a is None else 0 if a == 0 else max(1, n) for a, n in zip(areas, counts, strict=True)
    ]
    numbers = np.cumsum(cuts)
    found = find_lapses(trace(areas, places, polyps), numbers)
    assert [one.index for one in found] == sorted(one.index for one in found)
    assert len(set(kinds(found))) == len(found)
    for one in found:
        same = np.flatnonzero(numbers == numbers[one.index])
        assert same[0] < one.index < same[-1]
        assert areas[one.index] is not None
    assert sum(len(some) for some in by_frame(found).values()) == len(found)


# Pictures


@pytest.fixture(scope="module")
def clip():
    """Eight rendered frames of a moving scope."""
    return [frame for frame, _ in render_clip(3, 8, 96, 120)]


def looks_of(folder, pictures):
    folder.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{number:02}.png")
    sequence = open_frames(folder)
    looks = list(look_over(sequence))
    assert [one.index for one in looks] == list(range(len(sequence)))
    return sequence, looks


def test_blank_frames_of_a_positive_clip_are_found_and_end_no_clip(tmp_path, clip):
    pictures = [*clip[:3], np.zeros_like(clip[0]), np.full_like(clip[0], 90), *clip[3:6]]
    sequence, looks = looks_of(tmp_path / "a", pictures)
    numbers = clips(sequence, looks)
    assert set(numbers) == {0}
    positive = trace([0.1, 0.1, 0.1, 0, 0, 0.1, 0.1, 0.1])
    found = find_lapses(positive, numbers, looks)
    assert kinds(found) == [(3, "blank"), (4, "blank")]
    assert find_lapses(trace([0.0] * 8), numbers, looks) == []


def test_a_frozen_picture_is_found(tmp_path, clip):
    noise = np.random.default_rng(1).integers(-2, 3, clip[0].shape)
    again = np.clip(clip[1] + noise, 0, 255).astype(np.uint8)
    sequence, looks = looks_of(tmp_path / "a", [clip[0], clip[1], again, clip[2]])
    masks = trace([0.1, 0.1, 0.11, 0.1])
    found = find_lapses(masks, clips(sequence, looks), looks)
    assert kinds(found) == [(2, "frozen")]
    assert found[0].text == "The same picture as frame 1, with another mask."
    # One that is excluded, or has no mask, has no other one.
    found = find_lapses(trace([0.1, 0.1, np.nan, 0.1]), clips(sequence, looks), looks)
    assert found[-1].text == "The same picture as frame 1."


def test_clips_end_at_shot_cuts_and_folders(tmp_path, clip, rendered):
    other = rendered(1)[::2, ::2]
    looks_of(tmp_path / "b", clip[3:6])
    sequence, looks = looks_of(tmp_path / "a", [*clip[:3], other, other])
    assert clips(sequence, looks).tolist() == [0, 0, 0, 1, 1]
    both = open_frames(tmp_path)
    assert clips(both, list(look_over(both))).tolist() == [0, 0, 0, 1, 1, 2, 2, 2]


def test_a_frame_that_cannot_be_read_is_left_out(tmp_path, clip):
    looks_of(tmp_path / "a", clip[:4])
    broken = tmp_path / "a" / "01.png"
    sequence = open_frames(tmp_path / "a")
    broken.write_bytes(broken.read_bytes()[:300])
    looks = list(look_over(sequence))
    assert np.isnan(looks[1].lit)
    assert not looks[1].is_blank
    assert set(clips(sequence, looks)) == {0}
    assert find_lapses(trace([0.1, 0.1, 0.1, 0.1]), clips(sequence, looks), looks) == []


def test_near_duplicates_are_grouped(tmp_path, rendered):
    pictures = [rendered(1), rendered(2), rendered(1)[2:-2, 3:-3], rendered(4)]
    groups = duplicates(looks_of(tmp_path / "a", pictures)[1])
    assert groups[0] == groups[2]
    assert len(set(groups)) == 3


def test_looking_over_a_video_can_be_cancelled():
    sequence = open_frames(sample_data_folder() / "clip.mp4")
    looking = look_over(sequence)
    assert next(looking).index == 0
    looking.close()
    looks = list(look_over(sequence))
    assert len(looks) == len(sequence)
    assert set(clips(sequence, looks)) == {0}


# Sessions


@dataclass
class Status:
    state: ReviewState
    origin: MaskOrigin
    area: int | None
    polyps: int | None
    centre: tuple[float, float] | None


def test_a_trace_is_in_shares_of_each_frame():
    frames = [Frame(str(i), Path("a"), *size) for i, size in enumerate([(30, 40), (60, 80)] * 2)]
    edited, hand = ReviewState.EDITED, MaskOrigin.HAND
    statuses = [
        Status(edited, hand, 120, 1, (15.0, 20.0)),
        Status(ReviewState.ACCEPTED, MaskOrigin.MODEL, 0, 0, None),
        Status(ReviewState.UNSEEN, MaskOrigin.NONE, 0, 0, None),
        Status(ReviewState.EXCLUDED, hand, 120, 1, (15.0, 20.0)),
    ]
    found = trace_masks(frames, statuses)
    np.testing.assert_array_equal(found.areas, [0.1, 0, np.nan, np.nan])
    np.testing.assert_array_equal(found.polyps, [1, 0, -1, -1])
    np.testing.assert_allclose(found.centres[0], (0.3, 0.4))
    assert np.isnan(found.centres[1:]).all()


def test_expert_masks_of_recorded_clips_rarely_lapse(data):
    sequence = open_frames(data / "cvc-clinicdb")
    masks = [sequence.read_mask(index) > 0 for index in range(len(sequence))]
    shape = np.array(masks[0].shape)
    centres = [np.argwhere(mask).mean(axis=0) / np.hypot(*shape) for mask in masks]
    found = find_lapses(
        trace([mask.mean() for mask in masks], centres), clips(sequence, list(look_over(sequence)))
    )
    assert not [one for one in found if one.kind is FindingKind.VANISHED]
    assert len(by_frame(found)) < 0.05 * len(masks)
