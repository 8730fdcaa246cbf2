from __future__ import annotations

import numpy as np
import pytest
import shapely
from blobs import IGNORE, disc, masks, noise
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from scipy.spatial import cKDTree

from napari_microaunet.editing.boundary import (
    Polygon,
    fill_polygons,
    polygons_of,
    simplify,
    write_polygons,
)
from napari_microaunet.editing.labels import labels_of

SQUARE = np.array([[0.0, 0.0], [0.0, 10.0], [10.0, 10.0], [10.0, 0.0]])
CORNERS = np.ones((3, 3))
COORDINATES = st.floats(-20, 60, width=32)
RINGS = arrays(np.float64, st.tuples(st.integers(3, 12), st.just(2)), elements=COORDINATES)


def rim(region):
    """Pixels of a region that have a neighbour outside it."""
    return region & ndimage.binary_dilation(~region)


def hausdorff(one, other):
    one, other = np.argwhere(one), np.argwhere(other)
    if not len(one) and not len(other):
        return 0.0
    return max(cKDTree(one).query(other)[0].max(), cKDTree(other).query(one)[0].max())


def lines(polygon):
    return shapely.MultiLineString(
        [shapely.LinearRing(ring) for ring in (polygon.exterior, *polygon.holes)]
    )


def vertex_count(polygons):
    return sum(len(ring) for p in polygons for ring in (p.exterior, *p.holes))


def structure(region):
    """Numbers of parts and of holes."""
    return ndimage.label(region, CORNERS)[1], ndimage.label(np.pad(~region, 1, constant_values=1))[
        1
    ]


# Mask to polygons and back


@given(masks())
@settings(max_examples=300, deadline=None)
def test_the_exact_outline_gives_exactly_the_polyp(mask):
    for label in labels_of(mask):
        polygons = polygons_of(mask, label, tolerance=0)
        np.testing.assert_array_equal(fill_polygons(polygons, mask.shape), mask == label)


@given(masks(), st.sampled_from([1.0, 0.5]))
@settings(max_examples=250, deadline=None)
def test_few_vertices_give_the_polyp_to_a_pixel(mask, tolerance):
    for label in labels_of(mask):
        polyp = mask == label
        polygons = polygons_of(mask, label, tolerance)
        exact = polygons_of(mask, label, 0)
        again = fill_polygons(polygons, mask.shape)
        assert hausdorff(polyp, again) <= 1
        assert hausdorff(~polyp, ~again) <= 1
        assert hausdorff(rim(polyp), rim(again)) <= 1
        parts = len(polygons)
        change = abs(np.count_nonzero(again) - np.count_nonzero(polyp))
        assert change <= 0.01 * np.count_nonzero(polyp) + parts
        if parts == 1:
            assert change <= max(1, 0.01 * np.count_nonzero(polyp))
        assert not (again & (mask != label) & (mask != 0) & (mask != IGNORE)).any()
        assert structure(again) == structure(polyp)
        assert [len(p.holes) for p in polygons] == [len(p.holes) for p in exact]
        for few, many in zip(polygons, exact, strict=True):
            assert shapely.hausdorff_distance(lines(few), lines(many)) <= tolerance + 1e-9
            for ring in (few.exterior, *few.holes):
                assert len(ring) >= 3
                assert (ring >= -0.5).all()
                assert (ring <= np.array(mask.shape) - 0.5).all()


@given(masks(labels=(1, 2, IGNORE, 0)))
@settings(max_examples=150, deadline=None)
def test_polyps_stay_apart_when_all_outlines_are_written_back(mask):
    again = mask.copy()
    for label in labels_of(mask):
        again = write_polygons(again, label, polygons_of(mask, label))
    np.testing.assert_array_equal(again == IGNORE, mask == IGNORE)
    for label in labels_of(mask):
        assert hausdorff(mask == label, again == label) <= 1
        assert structure(again == label) == structure(mask == label)


@pytest.mark.parametrize("seed", range(12))
def test_large_ragged_polyps_with_holes_keep_their_area(seed):
    side = 220
    region = noise((side, side), seed, 9) & disc((side, side), 110, 110, 90)
    polyp = region.astype(np.uint8)
    polygons = polygons_of(polyp, 1)
    again = fill_polygons(polygons, polyp.shape)
    assert np.count_nonzero(again) == pytest.approx(np.count_nonzero(region), rel=0.01)
    assert structure(again) == structure(region)
    assert vertex_count(polygons) < 0.3 * vertex_count(polygons_of(polyp, 1, 0))


@pytest.mark.parametrize(("radius", "most"), [(5, 9), (20, 14), (60, 18), (200, 36)])
def test_a_round_polyp_needs_few_vertices(radius, most):
    side = 2 * radius + 30
    mask = disc((side, side), side / 2, side / 2, radius).astype(np.uint8)
    assert vertex_count(polygons_of(mask, 1)) <= most
    rectangle = np.zeros((60, 80), np.uint8)
    rectangle[10:50, 20:70] = 1
    assert vertex_count(polygons_of(rectangle, 1)) <= 8


def test_single_pixels_lines_and_whole_frames():
    for shape in ((1, 1), (1, 7), (7, 1), (5, 6)):
        full = np.ones(shape, np.uint8)
        assert fill_polygons(polygons_of(full, 1), shape).all()
    line = np.zeros((30, 40), np.uint8)
    line[np.arange(5, 25), np.arange(5, 25)] = 7
    line[12, 30] = 7
    polygons = polygons_of(line, 7)
    assert len(polygons) == 2
    np.testing.assert_array_equal(fill_polygons(polygons, line.shape), line == 7)
    assert polygons_of(line, 1) == []


def test_a_polyp_at_the_frames_edge_still_reaches_it():
    mask = disc((100, 120), 2, 40, 30).astype(np.uint8)
    again = fill_polygons(polygons_of(mask, 1), mask.shape)
    np.testing.assert_array_equal(again[0, 15:65], mask[0, 15:65] == 1)


def test_the_largest_part_comes_first():
    mask = disc((60, 90), 15, 15, 6) | disc((60, 90), 30, 60, 15)
    first, second = polygons_of(mask.astype(np.uint8), 1)
    assert first.exterior[:, 1].mean() == pytest.approx(60, abs=2)
    assert second.exterior[:, 1].mean() == pytest.approx(15, abs=2)


# The rules of filling


@given(st.lists(RINGS, min_size=1, max_size=3))
@settings(max_examples=200, deadline=None)
def test_any_rings_are_filled_by_the_even_odd_rule(rings):
    shape = (40, 45)
    exterior, *holes = rings
    region = fill_polygons([Polygon(exterior, tuple(holes))], shape)
    rows, columns = (axis.ravel().astype(float) for axis in np.mgrid[: shape[0], : shape[1]])
    points = shapely.points(rows, columns)
    inside, clear = np.zeros((len(rings), rows.size), bool), np.ones(rows.size, bool)
    for index, ring in enumerate(rings):
        # Parity of crossings on the way to the right, by shapely's own sums.
        edges = shapely.linestrings(np.stack([ring, np.roll(ring, -1, axis=0)], axis=1))
        for edge, (start, end) in zip(
            edges, zip(ring, np.roll(ring, -1, axis=0), strict=True), strict=True
        ):
            clear &= shapely.distance(points, edge) > 1e-6
            spans = (start[0] <= rows) != (end[0] <= rows)
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                at = start[1] + (rows - start[0]) / (end[0] - start[0]) * (end[1] - start[1])
            inside[index] ^= spans & (at > columns)
    wanted = inside[0] & ~inside[1:].any(axis=0)
    np.testing.assert_array_equal(region.ravel()[clear], wanted[clear])


@given(RINGS)
@settings(max_examples=100, deadline=None)
def test_a_simple_ring_holds_what_shapely_says(ring):
    polygon = shapely.Polygon(ring)
    if not polygon.is_valid:
        return
    region = fill_polygons([Polygon(ring)], (40, 45))
    rows, columns = np.mgrid[:40, :45].astype(float)
    clear = shapely.distance(polygon.exterior, shapely.points(rows, columns)) > 1e-6
    np.testing.assert_array_equal(region[clear], shapely.contains_xy(polygon, rows, columns)[clear])


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=2, max_size=2))
def test_rings_that_share_an_edge_share_no_pixel_and_lose_none(cut):
    (top, bottom) = ((-5.0, float(cut[0][1])), (30.0, float(cut[1][1])))
    left = np.array([(-5.0, -5.0), top, bottom, (30.0, -5.0)])
    right = np.array([bottom, top, (-5.0, 30.0), (30.0, 30.0)])
    one, other = (fill_polygons([Polygon(ring)], (20, 21)) for ring in (left, right))
    assert (one ^ other).all()


def test_centres_on_the_outline_belong_above_and_to_the_left():
    region = fill_polygons([Polygon(SQUARE)], (20, 20))
    wanted = np.zeros((20, 20), bool)
    wanted[0:10, 0:10] = True
    np.testing.assert_array_equal(region, wanted)


def test_a_ring_that_crosses_itself_is_open_where_it_overlaps():
    bow = np.array([[0.0, 0.0], [10.0, 10.0], [10.0, 0.0], [0.0, 10.0]])
    region = fill_polygons([Polygon(bow)], (12, 12))
    assert region[1, 5]
    assert region[9, 5]
    assert not region[5, 2]
    twice = np.concatenate([SQUARE, SQUARE])
    assert not fill_polygons([Polygon(twice)], (12, 12)).any()


def test_a_hole_that_was_dragged_out_adds_nothing():
    hole = np.array([[5.5, 5.5], [5.5, 18.5], [8.5, 18.5], [8.5, 5.5]])
    region = fill_polygons([Polygon(SQUARE, (hole,))], (20, 20))
    assert not region[6:9, 6:19].any()
    assert np.count_nonzero(region) == 100 - 3 * 4


def test_writing_an_outline_leaves_other_polyps_and_ignore():
    mask = np.zeros((20, 20), np.uint8)
    mask[2, 2], mask[3, 3], mask[15, 15] = 2, IGNORE, 1
    written = write_polygons(mask, 1, [Polygon(SQUARE)])
    assert written[2, 2] == 2
    assert written[3, 3] == IGNORE
    assert written[15, 15] == 0
    assert np.count_nonzero(written == 1) == 98
    assert labels_of(write_polygons(mask, 9, [Polygon(SQUARE)])) == [1, 2, 9]
    assert labels_of(write_polygons(mask, 1, [])) == [2]
    with pytest.raises(ValueError, match="number"):
        write_polygons(mask, IGNORE, [])


# Vertices


@given(RINGS, st.floats(0, 5))
@example(np.array([[0.0, 0], [0, 4], [4, 4], [4, 0], [0, -1]]), 3.0)  # GEOS misses the first vertex
@settings(max_examples=300, deadline=None)
def test_any_polygon_is_simplified_within_the_tolerance(ring, tolerance):
    few = simplify(Polygon(ring), tolerance).exterior
    assert len(few) >= 3
    assert np.isfinite(few).all()
    simple, outline = shapely.LinearRing(few), shapely.LinearRing(ring)
    assert shapely.hausdorff_distance(simple, outline) <= tolerance + 1e-6
    assert simple.is_simple or not outline.is_simple


def test_vertices_that_bend_nothing_are_left_out():
    dense = np.concatenate(
        [
            np.linspace(a, b, 9)[:-1]
            for a, b in zip(SQUARE, np.roll(SQUARE, -1, axis=0), strict=True)
        ]
    )
    assert len(simplify(Polygon(dense, (dense / 2 + 2,)), 0).exterior) == 4
    assert len(simplify(Polygon(dense, (dense / 2 + 2,)), 0.5).holes[0]) <= 5
