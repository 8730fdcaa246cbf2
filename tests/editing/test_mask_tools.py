from __future__ import annotations

import numpy as np
import pytest
from blobs import IGNORE, disc, masks, noise
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_microaunet.editing import labels
from napari_microaunet.editing.labels import free_labels, label_at, labels_of
from napari_microaunet.editing.masks import (
    delete,
    fill_holes,
    grow,
    ignore_to_background,
    ignore_to_polyp,
    keep_largest,
    merge,
    merge_polyps,
    polyp_to_ignore,
    remove_specks,
    renumber,
    shrink,
    smooth,
    split,
)
from napari_microaunet.editing.tools import MASK_TOOLS
from napari_microaunet.frames import masks as mask_files

LABELS = st.sampled_from([None, 1, 2, 3, 77, 254])
PIXELS = st.one_of(st.integers(0, 12), st.floats(0, 12))
# Tools that are about ignore may change it; renumbering changes other polyps' numbers.
ABOUT_IGNORE = {"polyp_to_ignore", "ignore_to_polyp", "ignore_to_background"}
TOOLS = st.sampled_from(sorted(MASK_TOOLS))
CORNERS = np.ones((3, 3))


def parameters(data, tool):
    return {
        parameter.name: data.draw(st.floats(parameter.least, min(parameter.most, 30)))
        for parameter in tool.parameters
    }


def frame(*discs, shape=(80, 100), ignore=None):
    """A mask of (label, row, column, radius)."""
    mask = np.zeros(shape, np.uint8)
    for label, row, column, radius in discs:
        mask[disc(shape, row, column, radius)] = label
    if ignore is not None:
        mask[ignore] = IGNORE
    return mask


def part_count(region):
    return ndimage.label(region, CORNERS)[1]


# What holds for every tool


@given(st.data(), masks(), TOOLS, LABELS)
@settings(max_examples=400, deadline=None)
def test_a_tool_changes_nothing_but_its_polyp_and_background(data, mask, name, label):
    tool, before = MASK_TOOLS[name], mask.copy()
    after = tool.function(mask, label, **parameters(data, tool))
    np.testing.assert_array_equal(mask, before)
    assert after.dtype == np.uint8
    assert after.shape == mask.shape
    assert after is not mask
    assert not np.shares_memory(after, mask)
    if name not in ABOUT_IGNORE:
        np.testing.assert_array_equal(after == IGNORE, mask == IGNORE)
    if name == "renumber":
        np.testing.assert_array_equal(after == 0, mask == 0)
        return
    if label is not None and name != "merge":
        others = (mask != 0) & (mask != IGNORE) & (mask != label)
        np.testing.assert_array_equal(after[others], mask[others])
    if name not in {"split", "merge"}:
        assert set(labels_of(after)) <= set(labels_of(mask))
        both = (mask != 0) & (after != 0) & (mask != IGNORE) & (after != IGNORE)
        np.testing.assert_array_equal(after[both], mask[both])


@given(st.data(), TOOLS, LABELS, st.sampled_from([0, 7, IGNORE]))
def test_tools_work_on_uniform_frames_of_any_size(data, name, label, value):
    shape = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    tool = MASK_TOOLS[name]
    mask = np.full(shape, value, np.uint8)
    after = tool.function(mask, label, **parameters(data, tool))
    assert len(np.unique(after)) == 1
    if name not in {"delete", "remove_specks", "renumber", *ABOUT_IGNORE}:
        np.testing.assert_array_equal(after, mask)


@given(masks(), TOOLS)
@settings(max_examples=150, deadline=None)
def test_a_polyp_that_is_not_there_changes_nothing(mask, name):
    tool = MASK_TOOLS[name]
    mask[mask == 9] = 0
    if name == "renumber":
        return
    defaults = {parameter.name: parameter.default for parameter in tool.parameters}
    np.testing.assert_array_equal(tool.function(mask, 9, **defaults), mask)


@given(
    st.data(),
    masks(),
    st.sampled_from(
        [
            "fill_holes",
            "remove_specks",
            "keep_largest",
            "split",
            "merge",
            "renumber",
            "delete",
            *sorted(ABOUT_IGNORE),
        ]
    ),
    LABELS,
)
@settings(max_examples=300, deadline=None)
def test_doing_it_again_changes_nothing_more(data, mask, name, label):
    tool = MASK_TOOLS[name]
    values = parameters(data, tool)
    if name == "merge":
        # On one polyp, the next neighbour would follow.
        label, values = None, {"gap": 0}
    if name == "renumber" and label is not None:
        label = None
    once = tool.function(mask, label, **values)
    np.testing.assert_array_equal(tool.function(once, label, **values), once)


def test_every_tool_says_what_it_does_and_has_sensible_defaults():
    titles = [tool.title for tool in MASK_TOOLS.values()]
    assert len(set(titles)) == len(titles)
    for name, tool in MASK_TOOLS.items():
        assert tool.name == name
        assert tool.tooltip.endswith(".")
        for parameter in tool.parameters:
            assert parameter.least <= parameter.default <= parameter.most
            assert parameter.step > 0
            assert parameter.unit


@pytest.mark.parametrize("label", [0, IGNORE, -1, 300])
def test_background_and_ignore_are_no_polyps(label):
    with pytest.raises(ValueError, match="number"):
        grow(frame((1, 40, 40, 10)), label, 2)


def test_ignore_has_one_value_everywhere():
    assert labels.IGNORE == mask_files.IGNORE


# Grow and shrink


@given(masks(labels=(5, 0), most=4), PIXELS)
@settings(deadline=None)
def test_growing_adds_what_is_near_by_the_distance_transform(mask, pixels):
    polyp = mask == 5
    wanted = ndimage.distance_transform_edt(~polyp) <= pixels if polyp.any() else polyp
    np.testing.assert_array_equal(grow(mask, 5, pixels) == 5, wanted)
    np.testing.assert_array_equal(grow(mask, None, pixels) == 5, wanted)


@given(masks(labels=(5, 0), most=4), PIXELS)
@settings(deadline=None)
def test_shrinking_takes_what_is_near_background_by_the_distance_transform(mask, pixels):
    polyp = mask == 5
    # The frame's edge is no background: a polyp that it cuts off goes on behind it.
    wanted = polyp if polyp.all() else ndimage.distance_transform_edt(polyp) > pixels
    np.testing.assert_array_equal(shrink(mask, 5, pixels) == 5, wanted)
    np.testing.assert_array_equal(shrink(mask, None, pixels) == 5, wanted)


@given(masks(), PIXELS, PIXELS, LABELS)
@settings(max_examples=200, deadline=None)
def test_more_grows_more_and_shrinks_more(mask, one, other, label):
    less, more = sorted((one, other))
    for number in labels_of(mask) if label is None else [label]:
        grown, further = (grow(mask, label, pixels) == number for pixels in (less, more))
        own = mask == number
        assert not (own & ~grown).any()
        if label is not None:
            assert not (grown & ~further).any()
        shrunk, smaller = (shrink(mask, label, pixels) == number for pixels in (less, more))
        assert not (smaller & ~shrunk).any()
        assert not (shrunk & ~own).any()


def test_polyps_that_grow_meet_half_way():
    grown = grow(frame((1, 40, 20, 10), (2, 40, 60, 10)), None, 30)
    assert set(grown[40, 20:41]) == {1}
    assert set(grown[40, 41:61]) == {2}


def test_a_growing_polyp_stops_at_others_and_does_not_appear_behind_them():
    wall = np.zeros((80, 100), bool)
    wall[:, 40:43] = True
    for label in (2, IGNORE):
        mask = frame((1, 40, 30, 8))
        mask[wall] = label
        grown = grow(mask, 1, 25)
        assert grown[40, 39] == 1
        assert (grown[wall] == label).all()
        assert not grown[:, 43:].any()


def test_a_polyp_that_shrinks_away_is_gone_and_its_neighbour_stays():
    mask = frame((1, 40, 20, 3), (2, 40, 60, 20))
    assert labels_of(shrink(mask, None, 5)) == [2]
    np.testing.assert_array_equal(shrink(mask, 1, 5) == 2, mask == 2)


def test_shrinking_leaves_the_frames_edge_and_ignored_glare_alone():
    glare = disc((80, 100), 40, 50, 3)
    shrunk = shrink(frame((1, 40, 50, 20), ignore=glare), 1, 4)
    around_glare = ndimage.binary_dilation(glare) & ~glare
    assert (shrunk[around_glare] == 1).all()
    assert shrunk[40, 50 + 17] == 0
    cut_off = shrink(frame((1, 0, 50, 20)), 1, 4)
    assert cut_off[0, 50] == 1
    assert cut_off[0, 50 + 17] == 0


def test_shrinking_moves_away_from_a_polyp_that_touches():
    mask = np.ones((20, 40), np.uint8)
    mask[:, 20:] = 2
    shrunk = shrink(mask, 1, 3)
    np.testing.assert_array_equal(shrunk[:, 20:], 2)
    np.testing.assert_array_equal(shrunk[:, 17:20], 0)
    np.testing.assert_array_equal(shrunk[:, :17], 1)


# Smooth


@given(masks(labels=(5, 3, IGNORE, 0)), st.floats(0, 15))
@settings(max_examples=150, deadline=None)
def test_smoothing_keeps_every_polyp_and_its_area(mask, width):
    smoothed = smooth(mask, 5, width)
    area, before = np.count_nonzero(smoothed == 5), np.count_nonzero(mask == 5)
    assert area >= before
    # Along straight symmetric outlines whole rows have equal values, and come together.
    assert area <= before + 2 * max(mask.shape)


def test_smoothing_takes_bumps_and_bays_narrower_than_its_width():
    mask = frame((1, 40, 40, 20))
    mask[37:42, 55:75] = 1  # a bump 5 wide
    mask[37:42, 20:30] = 0  # a bay 5 wide
    smoothed = smooth(mask, 1, 8)
    assert not smoothed[39, 66:].any()
    assert smoothed[39, 25] == 1
    kept = smooth(mask, 1, 2)
    assert kept[39, 70] == 1
    assert kept[39, 22] == 0


def test_smoothing_a_ragged_outline_shortens_it():
    ragged = disc((120, 120), 60, 60, 35) ^ (
        noise((120, 120), 0, 1.5) & disc((120, 120), 60, 60, 40) & ~disc((120, 120), 60, 60, 30)
    )
    mask = ragged.astype(np.uint8)
    smoothed = smooth(mask, 1, 12)
    assert part_count(smoothed == 1) == 1
    assert np.count_nonzero(smoothed) == pytest.approx(np.count_nonzero(mask), rel=0.01)
    rim = [np.count_nonzero(m ^ ndimage.binary_erosion(m)) for m in (mask == 1, smoothed == 1)]
    assert rim[1] < 0.7 * rim[0]
    assert (smoothed == 1)[disc((120, 120), 60, 60, 30)].all()


def test_smoothing_does_not_merge_neighbours():
    mask = frame((1, 40, 30, 14), (2, 40, 60, 14))
    smoothed = smooth(mask, None, 20)
    assert labels_of(smoothed) == [1, 2]
    for label in (1, 2):
        assert part_count(smoothed == label) == 1


def test_smoothing_keeps_the_cut_at_the_frames_edge_and_at_glare():
    glare = disc((80, 100), 0, 50, 4)
    smoothed = smooth(frame((1, 0, 50, 25), ignore=glare), 1, 12)
    assert smoothed[0, 50 + 23] == 1
    assert (smoothed[ndimage.binary_dilation(glare) & ~glare] == 1).all()


# Holes, specks, parts


def test_holes_are_filled_but_not_bays_other_polyps_or_ignore():
    mask = frame((1, 40, 50, 30))
    mask[35:46, 45:56] = 0
    mask[39, 49] = 2
    mask[41, 51] = IGNORE
    mask[0:30, 50] = 0  # a bay
    full = fill_holes(mask, 1)
    assert full[36, 46] == 1
    assert full[39, 49] == 2
    assert full[41, 51] == IGNORE
    assert not full[10:30, 50].any()
    assert full[36, 46] == fill_holes(mask, None)[36, 46]


@given(masks(labels=(5, 0), most=4))
@settings(deadline=None)
def test_filled_polyps_have_no_holes(mask):
    full = fill_holes(mask, 5) == 5
    np.testing.assert_array_equal(full, ndimage.binary_fill_holes(mask == 5))


@given(masks(labels=(5, 3, 0)), st.integers(2, 200), st.sampled_from([5, None]))
@settings(deadline=None)
def test_specks_below_the_size_go_and_all_else_stays(mask, smallest, label):
    clean = remove_specks(mask, label, smallest)
    for number in labels_of(mask):
        parts, count = ndimage.label(mask == number, CORNERS)
        for part in range(1, count + 1):
            own = parts == part
            stays = label not in {None, number} or np.count_nonzero(own) >= smallest
            assert (clean[own] == (number if stays else 0)).all()


@given(masks(labels=(5, 3, 254, 0)))
@settings(deadline=None)
def test_the_largest_part_stays(mask):
    for number in labels_of(mask):
        kept = keep_largest(mask, number) == number
        parts = ndimage.label(mask == number, CORNERS)[0]
        assert part_count(kept) == 1
        assert np.count_nonzero(kept) == np.bincount(parts.ravel())[1:].max()
    only = keep_largest(mask, None)
    if labels_of(mask):
        (number,) = labels_of(only)
        largest = max(np.count_nonzero(keep_largest(mask, n) == n) for n in labels_of(mask))
        assert np.count_nonzero(only == number) == largest


# Split and merge


@given(masks(labels=(5, 3, 254, IGNORE, 0)), st.sampled_from([5, None]))
@settings(deadline=None)
def test_every_part_becomes_a_polyp(mask, label):
    divided = split(mask, label)
    wanted = [5] if label else labels_of(mask)
    np.testing.assert_array_equal(divided == 0, mask == 0)
    for number in labels_of(divided):
        if label is None or number == 5 or number not in labels_of(mask):
            assert part_count(divided == number) == 1
    for number in wanted:
        if (mask == number).any():
            parts = ndimage.label(mask == number, CORNERS)[0]
            assert np.count_nonzero(divided == number) == np.bincount(parts.ravel())[1:].max()


def test_more_parts_than_numbers_lose_nothing():
    mask = np.zeros((80, 80), np.uint8)
    mask[::4, ::4] = 1  # 400 parts
    mask[40:43, 40:43] = 1
    divided = split(mask, 1)
    np.testing.assert_array_equal(divided > 0, mask > 0)
    assert labels_of(divided) == list(range(1, 255))
    assert divided[41, 41] == 1
    assert free_labels(divided) == []


def test_a_polyp_takes_over_its_nearest_neighbour():
    mask = frame((1, 40, 10, 5), (2, 40, 40, 10), (3, 40, 80, 18))
    merged = merge(mask, 2, 0)
    assert labels_of(merged) == [1, 2]
    np.testing.assert_array_equal(merged == 2, (mask == 2) | (mask == 3))
    assert labels_of(merge(mask, None, 0)) == [1]
    np.testing.assert_array_equal(merge(mask, None, 0) > 0, mask > 0)
    alone = frame((7, 40, 40, 10))
    np.testing.assert_array_equal(merge(alone, 7, 50), alone)


def test_a_bridge_closes_a_gap_that_is_not_too_wide():
    mask = frame((1, 40, 25, 12), (2, 40, 60, 12))
    between = np.count_nonzero(mask[40, 25:60] == 0)
    merged = merge_polyps(mask, [1, 2], between)
    assert part_count(merged == 1) == 1
    added = (merged == 1) & (mask == 0)
    assert 6 <= np.count_nonzero(added[:, 42]) <= 24  # a neck, not a hull
    assert not added[:, :25].any()
    np.testing.assert_array_equal(merge_polyps(mask, [1, 2], between - 1) > 0, mask > 0)


def test_a_bridge_leaves_other_polyps_and_ignore_alone():
    mask = frame((1, 40, 25, 12), (2, 40, 70, 12), (3, 40, 45, 3))
    mask[:, 50] = IGNORE
    merged = merge_polyps(mask, [2, 1], 40)
    np.testing.assert_array_equal(merged == 3, mask == 3)
    np.testing.assert_array_equal(merged == IGNORE, mask == IGNORE)
    assert labels_of(merged) == [2, 3]


def test_several_polyps_merge_into_the_first():
    mask = frame((1, 40, 15, 5), (2, 40, 40, 10), (3, 40, 80, 18))
    assert labels_of(merge_polyps(mask, [3, 1], 0)) == [2, 3]
    np.testing.assert_array_equal(merge_polyps(mask, [3], 0), mask)
    np.testing.assert_array_equal(merge_polyps(mask, [], 0), mask)


# Numbers, deletion, ignore


@given(masks())
@settings(deadline=None)
def test_polyps_are_numbered_from_the_largest_on(mask):
    new = renumber(mask, None)
    count = len(labels_of(mask))
    assert labels_of(new) == list(range(1, count + 1))
    areas = np.bincount(new.ravel(), minlength=256)[1 : count + 1]
    assert (np.diff(areas) <= 0).all()
    for number in labels_of(mask):
        assert len(np.unique(new[mask == number])) == 1
        assert (renumber(mask, number)[mask == number] == 1).all()


def test_deleting_one_and_all():
    mask = frame((1, 40, 15, 5), (2, 40, 40, 10), ignore=disc((80, 100), 10, 10, 4))
    assert labels_of(delete(mask, 2)) == [1]
    assert set(np.unique(delete(mask, None))) == {0, IGNORE}


def test_polyps_become_ignore_and_glare_becomes_polyp():
    glare = disc((80, 100), 40, 40, 3) | disc((80, 100), 5, 90, 3)
    mask = frame((1, 40, 40, 15), (2, 40, 70, 10), ignore=glare)
    np.testing.assert_array_equal(polyp_to_ignore(mask, 2) == IGNORE, (mask == 2) | glare)
    np.testing.assert_array_equal(polyp_to_ignore(mask, None) == IGNORE, mask > 0)
    whole = ignore_to_polyp(mask, 1)
    assert whole[40, 40] == 1
    assert whole[5, 90] == IGNORE
    np.testing.assert_array_equal(ignore_to_polyp(mask, 2), mask)
    np.testing.assert_array_equal(ignore_to_polyp(mask, None), whole)
    assert ignore_to_background(mask, 1)[40, 40] == 0
    assert ignore_to_background(mask, 1)[5, 90] == IGNORE
    assert not (ignore_to_background(mask, None) == IGNORE).any()


def test_an_ignored_region_goes_to_the_polyp_that_touches_more_of_it():
    mask = np.zeros((20, 40), np.uint8)
    mask[:, :15], mask[5:8, 25:] = 1, 2
    mask[:, 15:25] = IGNORE
    np.testing.assert_array_equal(ignore_to_polyp(mask, None)[:, 15:25], 1)
    np.testing.assert_array_equal(ignore_to_polyp(mask, 2)[:, 15:25], 2)


# The polyp under the cursor


def test_the_polyp_under_the_cursor_or_near_it():
    mask = frame((1, 40, 20, 10), (2, 40, 60, 10), ignore=disc((80, 100), 40, 60, 2))
    assert label_at(mask, (40.4, 29.6), 0) == 1
    assert label_at(mask, (40, 34), 3) is None
    assert label_at(mask, (40, 34), 4) == 1
    assert label_at(mask, (40, 46), 20) == 2
    assert label_at(mask, (40, 60), 0) is None
    assert label_at(mask, (40, 60), 3) == 2
    assert label_at(frame((1, 0, 0, 3)), (-2, -2), 3) == 1
    assert label_at(mask, (-500, 900), 5) is None


@given(masks(), st.floats(-10, 50), st.floats(-10, 50), st.floats(0, 20))
@settings(deadline=None)
def test_no_other_polyp_is_nearer(mask, row, column, reach):
    polyps = (mask != 0) & (mask != IGNORE)
    found = label_at(mask, (row, column), reach)
    rows, columns = np.nonzero(polyps)
    distances = np.hypot(rows - round(row), columns - round(column))
    if not distances.size or distances.min() > reach:
        assert found is None
    else:
        assert found in mask[rows, columns][distances == distances.min()]
