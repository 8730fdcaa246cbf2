from __future__ import annotations

import numpy as np
import pytest
from blobs import IGNORE, disc, masks
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_microaunet.editing import clicks
from napari_microaunet.editing.clicks import refine
from napari_microaunet.editing.labels import labels_of, parts_of
from napari_microaunet.frames.rendered import render_frame

SHAPE = (160, 200)
POLYP, MUCOSA = (190, 100, 85), (150, 105, 90)


def frame_of(region):
    frame = np.where(region[..., None], POLYP, MUCOSA).astype(float)
    frame = ndimage.gaussian_filter(frame, (1, 1, 0))
    frame += np.random.default_rng(0).normal(0, 3, frame.shape)
    return np.clip(frame, 0, 255).astype(np.uint8)


def noise_frame(shape, seed):
    values = np.random.default_rng(seed).integers(0, 256, (*shape, 3))
    return ndimage.gaussian_filter(values, (2, 2, 0)).astype(np.uint8)


def dice(one, other):
    return 2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other))


def middle_of_largest_error(drawn, polyp):
    """Where an annotator would click, and whether for or against the polyp."""
    pieces, sizes = parts_of(drawn != polyp)
    depth = ndimage.distance_transform_edt(np.pad(pieces == sizes.argmax() + 1, 1))[1:-1, 1:-1]
    click = np.unravel_index(depth.argmax(), depth.shape)
    return (int(click[0]), int(click[1])), bool(polyp[click])


def corrected(drawn, polyp, frame, probability, clicks):
    mask = drawn.astype(np.uint8)
    for _ in range(clicks):
        if (mask == polyp).all():
            break
        click, positive = middle_of_largest_error(mask == 1, polyp)
        chosen = {"positive" if positive else "negative": [click]}
        mask = refine(mask, 1, frame, probability, **chosen)
    return mask == 1


clicks_in = st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), max_size=3)


@given(
    masks(),
    st.integers(0, 1000),
    st.sampled_from([1, 3, 254]),
    clicks_in,
    clicks_in,
    st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_clicks_are_obeyed_and_nothing_else_is_touched(
    mask, seed, label, positive, negative, with_model
):
    frame = noise_frame(mask.shape, seed)
    probability = noise_frame(mask.shape, seed + 1)[..., 0] if with_model else None
    positive, negative = (
        [(row % mask.shape[0], column % mask.shape[1]) for row, column in clicks]
        for clicks in (positive, negative)
    )
    before = mask.copy()
    refined = refine(mask, label, frame, probability, positive, negative)
    np.testing.assert_array_equal(mask, before)
    assert refined.dtype == np.uint8
    others = (mask != 0) & (mask != label)
    np.testing.assert_array_equal(refined[others], mask[others])
    assert np.isin(refined[~others], [0, label]).all()
    for click in negative:
        assert refined[click] != label
    for click in set(positive) - set(negative):
        assert refined[click] == label or others[click]
    if not negative:
        assert (refined[mask == label] == label).all()
    if not positive:
        assert (refined[mask == 0] == 0).all()


@given(st.integers(0, 159), st.integers(0, 199), st.booleans(), st.integers(0, 100), st.booleans())
@settings(max_examples=80, deadline=None)
def test_the_disc_around_a_click_has_its_label(row, column, positive, seed, with_model):
    mask = disc(SHAPE, 80, 100, 40).astype(np.uint8)
    probability = noise_frame(SHAPE, seed + 1)[..., 0] if with_model else None
    chosen = {"positive" if positive else "negative": [(row, column)]}
    refined = refine(mask, 1, noise_frame(SHAPE, seed), probability, **chosen)
    assert (refined[disc(SHAPE, row, column, 2.5)] == positive).all()


@pytest.mark.parametrize("with_model", [False, True])
def test_one_click_adds_what_was_missed_and_one_takes_away_what_was_too_much(with_model):
    polyp = disc(SHAPE, 80, 90, 40)
    probability = None
    if with_model:
        probability = ndimage.gaussian_filter(polyp * 255.0, 6).astype(np.uint8)
    lobe = disc(SHAPE, 80, 130, 18)
    half_missed = polyp & (np.arange(SHAPE[1]) < 92)
    for drawn in (half_missed, polyp | lobe):
        refined = corrected(drawn, polyp, frame_of(polyp), probability, 1)
        assert 1 - dice(refined, polyp) < 0.5 * (1 - dice(drawn, polyp))


@pytest.mark.parametrize("seed", [3, 5, 9])
def test_a_few_clicks_find_a_rendered_polyp_from_nothing(seed):
    frame, mask = render_frame(seed, 288, 360)
    pieces, sizes = parts_of(mask == 1)
    polyp = pieces == sizes.argmax() + 1
    assert dice(corrected(np.zeros_like(polyp), polyp, frame, None, 6), polyp) > 0.85


def test_a_click_far_from_every_polyp_starts_a_new_one():
    other = disc(SHAPE, 40, 40, 20)
    new = disc(SHAPE, 110, 140, 18)
    mask = other.astype(np.uint8)
    refined = refine(mask, 2, frame_of(other | new), None, positive=[(110, 140)])
    assert labels_of(refined) == [1, 2]
    np.testing.assert_array_equal(refined == 1, other)
    assert dice(refined == 2, new) > 0.7


def test_the_change_stays_near_the_click():
    polyp = disc((400, 500), 200, 150, 60)
    mask = polyp.astype(np.uint8)
    # A bump that is missing, 20 pixels wide.
    shown = polyp | disc((400, 500), 200, 210, 20)
    refined = refine(mask, 1, frame_of(shown), None, positive=[(200, 220)])
    changed = refined != mask
    assert changed.any()
    assert not changed[~disc((400, 500), 200, 220, 61)].any()


def test_a_click_leaves_no_hole_between_itself_and_the_polyp():
    polyp = disc(SHAPE, 80, 100, 40)
    drawn = polyp & ~disc(SHAPE, 80, 100, 12)
    refined = refine(drawn.astype(np.uint8), 1, frame_of(polyp), None, positive=[(80, 100)])
    np.testing.assert_array_equal(refined == 1, polyp)


def test_no_crumbs_are_left_behind_a_negative_click():
    polyp = np.zeros(SHAPE, bool)
    polyp[75:86, 40:120] = True
    refined = refine(polyp.astype(np.uint8), 1, frame_of(polyp), None, negative=[(80, 112)])
    pieces, sizes = parts_of(refined == 1)
    assert len(sizes) == 1
    assert pieces[80, 60]
    assert not pieces[:, 117:].any()


def test_what_remains_of_a_polyp_is_not_taken_for_a_crumb(monkeypatch):
    # Everything within twice the distance to what is right counts as the error.
    monkeypatch.setattr(clicks, "WEIGHTS", (-1.0, 0, 0, 0, 0, 0, 0, 2.0))
    polyp = disc(SHAPE, 80, 105, 9)
    drawn = polyp | disc(SHAPE, 80, 50, 30)
    drawn[78:83, 50:105] = True
    refined = refine(drawn.astype(np.uint8), 1, frame_of(polyp), None, negative=[(80, 50)])
    assert not refined[disc(SHAPE, 80, 50, 30)].any()
    assert (refined[polyp] == 1).all()


def test_a_click_on_what_is_right_changes_nothing():
    mask = disc(SHAPE, 80, 100, 40).astype(np.uint8)
    frame = frame_of(disc(SHAPE, 80, 100, 60))
    refined = refine(mask, 1, frame, None, positive=[(80, 100)], negative=[(10, 10)])
    np.testing.assert_array_equal(refined, mask)


def test_a_click_on_ignore_or_another_polyp_changes_neither():
    mask = disc(SHAPE, 80, 60, 30).astype(np.uint8)
    mask[disc(SHAPE, 80, 150, 20)] = 2
    mask[:10] = IGNORE
    refined = refine(mask, 1, frame_of(mask > 0), None, positive=[(80, 150), (4, 30)])
    np.testing.assert_array_equal(refined, mask)


@given(masks(labels=(1,), most=1), st.integers(0, 1000), st.booleans())
@settings(max_examples=100, deadline=None)
def test_a_frame_of_one_colour_gives_a_valid_mask(mask, at, positive):
    click = (at % mask.shape[0], at % mask.shape[1])
    frame = np.full((*mask.shape, 3), 90, np.uint8)
    flat = np.zeros(mask.shape, np.uint8)
    chosen = {"positive" if positive else "negative": [click]}
    for probability in (None, flat, flat + np.uint8(255)):
        refined = refine(mask, 1, frame, probability, **chosen)
        assert (refined[click] == 1) == positive


def test_what_makes_no_sense_is_refused():
    mask = np.zeros((40, 60), np.uint8)
    frame = noise_frame((40, 60), 0)
    with pytest.raises(ValueError, match="not in the frame"):
        refine(mask, 1, frame, None, positive=[(40, 5)])
    with pytest.raises(ValueError, match="number"):
        refine(mask, IGNORE, frame, None, positive=[(4, 5)])
    with pytest.raises(ValueError, match="differ in size"):
        refine(mask, 1, frame[:-1], None, positive=[(4, 5)])


@pytest.mark.parametrize("positive", [True, False])
def test_far_from_the_click_nothing_changes_against_a_model_that_is_sure(positive):
    shape = 160, 200
    polyp = disc(shape, 80, 60, 30) if positive else disc(shape, 80, 80, 70)
    mask = polyp.astype(np.uint8)
    # Nothing in the picture ends the error.
    frame = np.full((*shape, 3), 120, np.uint8)
    click, radius = ((80, 99), 10) if positive else ((80, 138), 12)
    clicks = ([click], []) if positive else ([], [click])
    # As wrong as the mask near the click, and sure that the mask is right.
    sure = np.full(shape, 0 if positive else 255, np.uint8)
    unsure = np.full(shape, 128, np.uint8)
    rows, columns = np.indices(shape)
    away = np.hypot(rows - click[0], columns - click[1])
    changed = {
        name: refine(mask, 1, frame, probability, *clicks) != mask
        for name, probability in (("sure", sure), ("unsure", unsure))
    }
    assert changed["sure"][click]
    assert away[changed["sure"]].max() <= 2 * radius
    assert away[changed["unsure"]].max() > 2 * radius
