from __future__ import annotations

import numpy as np
import pytest
from blobs import IGNORE, disc, masks
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_microaunet.editing.labels import filled
from napari_microaunet.editing.scissors import EdgePaths, fill_loop


def frame_with(region):
    frame = np.where(region[..., None], (190, 100, 85), (150, 105, 90)).astype(float)
    frame = ndimage.gaussian_filter(frame, (1, 1, 0))
    frame += np.random.default_rng(0).normal(0, 3, frame.shape)
    return np.clip(frame, 0, 255).astype(np.uint8)


def clicks_around(row, column, radius, count):
    turns = np.arange(count) * 2 * np.pi / count
    return [(row + radius * np.sin(turn), column + radius * np.cos(turn)) for turn in turns]


def loop_of(paths, clicks):
    ways = [
        paths.path(one, other) for one, other in zip(clicks, [*clicks[1:], clicks[0]], strict=True)
    ]
    return np.concatenate(ways)


@pytest.mark.parametrize("shape", [(150, 200), (576, 720), (1072, 1920)])
def test_three_clicks_on_the_edge_of_a_disc_cut_it_out(shape):
    row, column, radius = shape[0] / 2, shape[1] / 2, shape[0] / 5
    polyp = disc(shape, row, column, radius)
    clicks = clicks_around(row, column, radius, 3)
    cut = fill_loop(np.zeros(shape, np.uint8), 1, loop_of(EdgePaths(frame_with(polyp)), clicks))
    both = np.count_nonzero(polyp & (cut == 1))
    assert 2 * both / (np.count_nonzero(polyp) + np.count_nonzero(cut)) > 0.96


def test_a_path_goes_round_where_the_straight_line_would_leave_the_edge():
    polyp = disc((150, 200), 75, 100, 40)
    path = EdgePaths(frame_with(polyp)).path((75, 60), (75, 140))
    from_edge = np.abs(np.hypot(path[:, 0] - 75, path[:, 1] - 100) - 40)
    assert from_edge.max() <= 3


@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.integers(0, 1000),
    st.lists(st.tuples(st.floats(-10, 50), st.floats(-10, 50)), min_size=2, max_size=5),
)
@settings(max_examples=100, deadline=None)
def test_a_path_leads_from_one_click_to_the_other_inside_the_frame(shape, seed, points):
    frame = np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)
    paths = EdgePaths(frame)
    # From the last point again, as the mouse does, and from new ones.
    for start, end in [(points[0], point) for point in points[1:]] + [(points[1], points[0])]:
        path = paths.path(start, end)
        last = np.subtract(shape, 1)
        np.testing.assert_array_equal(path[0], np.clip(np.rint(start), 0, last))
        np.testing.assert_array_equal(path[-1], np.clip(np.rint(end), 0, last))
        assert (path >= 0).all()
        assert (path <= last).all()
        assert np.abs(np.diff(path, axis=0)).max() <= 1


def test_a_path_farther_than_the_first_look_is_found_too():
    frame = np.zeros((400, 480, 3), np.uint8)
    frame[:, 240:] = 200
    paths = EdgePaths(frame)
    near = paths.path((0, 240), (20, 240))
    far = paths.path((0, 240), (399, 240))
    assert len(near) >= 21
    assert np.abs(far[:, 1] - 240).max() <= 1
    np.testing.assert_array_equal(far[-1], (399, 240))


def test_a_frame_of_one_colour_gives_a_straight_path():
    path = EdgePaths(np.full((60, 80, 3), 70, np.uint8)).path((10, 10), (40, 10))
    assert len(path) == 31


@given(
    masks(),
    st.sampled_from([1, 2, 254]),
    st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), max_size=6),
)
@settings(max_examples=200, deadline=None)
def test_a_loop_fills_background_alone(mask, label, points):
    points = np.array(points, int).reshape(-1, 2) % mask.shape
    before = mask.copy()
    cut = fill_loop(mask, label, points)
    np.testing.assert_array_equal(mask, before)
    np.testing.assert_array_equal(cut[mask != 0], mask[mask != 0])
    new = (cut != mask) | (mask != 0)
    for row, column in points:
        assert cut[row, column] != 0
    assert (cut[cut != mask] == label).all()
    if not mask.any():
        np.testing.assert_array_equal(filled(new), new)


def test_a_loop_takes_what_it_encloses_with_its_own_line():
    loop = np.array([(10, 10), (10, 20), (20, 20), (20, 10)])
    cut = fill_loop(np.zeros((30, 30), np.uint8), 3, loop)
    wanted = np.zeros((30, 30), np.uint8)
    wanted[10:21, 10:21] = 3
    np.testing.assert_array_equal(cut, wanted)


def test_a_loop_for_no_polyp_is_refused():
    with pytest.raises(ValueError, match="number"):
        fill_loop(np.zeros((9, 9), np.uint8), IGNORE, np.array([(1, 1)]))
