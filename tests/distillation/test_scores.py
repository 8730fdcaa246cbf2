from __future__ import annotations

import numpy as np
import pytest
from monai.metrics import compute_hausdorff_distance
from torch import from_numpy

from napari_microaunet.distillation.scores import outline_distances, score_frame
from napari_microaunet.frames import FieldOfView


def boxes(shape, *corners):
    mask = np.zeros(shape, np.uint8)
    for number, (top, left, bottom, right) in enumerate(corners, 1):
        mask[top:bottom, left:right] = number
    return mask


def test_overlap_by_hand():
    reference = boxes((20, 20), (0, 0, 10, 10))  # 100 pixels
    predicted = boxes((20, 20), (5, 0, 15, 12))  # 120 pixels, 50 in common
    score = score_frame("frame", 0.5, predicted, reference)
    assert (score.true_positive, score.false_positive, score.false_negative) == (50, 70, 50)
    assert score.dice == pytest.approx(2 * 50 / 220)
    assert score.iou == pytest.approx(50 / 170)
    assert score.positive
    assert score.flagged
    assert score.found


def hausdorff95(predicted, reference):
    return outline_distances(predicted.astype(np.uint8), reference.astype(np.uint8)).hausdorff95


def boundary_f(predicted, reference):
    return outline_distances(predicted.astype(np.uint8), reference.astype(np.uint8)).boundary_f


def test_numbers_of_polyps_do_not_matter():
    reference = boxes((30, 30), (0, 0, 10, 10), (20, 20, 25, 25))
    predicted = boxes((30, 30), (20, 20, 25, 25), (0, 0, 10, 10))
    score = score_frame("frame", 0.5, predicted, reference)
    assert score.dice == score.iou == score.boundary_f == 1
    assert score.hausdorff95 == 0


def test_ignored_pixels_count_for_no_score():
    reference = boxes((40, 40), (10, 10, 20, 20))
    predicted = reference.copy()
    plain = score_frame("frame", 0.5, predicted, reference)
    reference[25:, :] = 255
    predicted[30:38, 5:30] = 1  # only where it does not count
    assert score_frame("frame", 0.5, predicted, reference) == plain


def test_glare_within_a_polyp_is_no_outline():
    reference = boxes((300, 300), (50, 50, 250, 250))
    predicted = boxes((300, 300), (80, 80, 220, 220))  # 30 pixels too small on every side
    plain = score_frame("frame", 0.5, predicted, reference)
    for row in range(100, 200, 20):
        reference[row : row + 8, 100:108] = 255
    glare = score_frame("frame", 0.5, predicted, reference)
    assert (glare.boundary_f, glare.hausdorff95) == (plain.boundary_f, plain.hausdorff95)
    assert plain.boundary_f == 0


def test_an_outline_that_is_to_be_ignored_counts_on_neither_side():
    reference = boxes((300, 300), (50, 50, 250, 250))
    predicted = boxes((300, 300), (50, 50, 250, 230))  # wrong at the right, where nobody knows
    reference[:, 200:] = 255
    score = score_frame("frame", 0.5, predicted, reference)
    assert (score.boundary_f, score.hausdorff95) == (1, 0)


def test_a_polyp_with_ignored_pixels_all_round_has_no_outline_to_measure():
    reference = np.full((20, 20), 255, np.uint8)
    reference[5:10, 5:10] = 1
    score = score_frame("frame", 0.5, boxes((20, 20), (5, 5, 10, 10)), reference)
    assert score.dice == 1
    assert score.hausdorff95 is score.boundary_f is None


def test_a_polyp_that_is_ignored_altogether_makes_no_positive_frame():
    reference = np.zeros((20, 20), np.uint8)
    reference[5:10, 5:10] = 255
    score = score_frame("frame", 0.5, boxes((20, 20), (5, 5, 10, 10)), reference)
    assert not score.positive
    assert not score.flagged
    assert score.dice is None


def test_a_missed_polyp_scores_nothing_and_the_frames_diagonal():
    score = score_frame("f", 0.9, np.zeros((30, 40), np.uint8), boxes((30, 40), (3, 3, 9, 9)))
    assert score.dice == score.iou == score.boundary_f == 0
    assert score.hausdorff95 == pytest.approx(50)
    assert score.positive
    assert not score.flagged
    assert not score.found


def test_a_mark_beside_the_polyp_flags_the_frame_without_finding_the_polyp():
    reference = boxes((30, 40), (3, 3, 9, 9))
    score = score_frame("f", 0.9, boxes((30, 40), (20, 20, 25, 25)), reference)
    assert score.flagged
    assert not score.found
    assert score.dice == 0


def test_a_frame_without_polyp_is_flagged_or_not_and_has_no_overlap():
    empty = np.zeros((30, 40), np.uint8)
    quiet = score_frame("f", 0.9, empty, empty)
    alarm = score_frame("f", 0.9, boxes((30, 40), (20, 20, 25, 25)), empty)
    assert (quiet.flagged, alarm.flagged) == (False, True)
    for score in (quiet, alarm):
        assert not score.positive
        assert score.dice is score.iou is score.hausdorff95 is score.boundary_f is None


def test_hausdorff_distance_of_shifted_boxes_is_the_shift():
    one = boxes((100, 100), (20, 20, 60, 60)) > 0
    other = boxes((100, 100), (20, 27, 60, 67)) > 0
    assert hausdorff95(one, other) == pytest.approx(7)
    assert hausdorff95(other, one) == pytest.approx(7)


def test_hausdorff95_leaves_out_the_farthest_twentieth_of_the_outline():
    disc = np.hypot(*np.ogrid[-100:100, -100:100]) < 60
    with_speck = disc.copy()
    with_speck[5, 5] = True
    assert hausdorff95(with_speck, disc) == 0


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy")
def test_hausdorff95_is_that_of_monai():
    masks = np.random.default_rng(1).random((2, 1, 1, 40, 50)) < 0.3
    masks[0, 0, 0, :, 30:] = False
    expected = compute_hausdorff_distance(
        *from_numpy(masks), include_background=True, percentile=95
    )
    assert hausdorff95(*masks[:, 0, 0]) == pytest.approx(float(expected))


def line(row, columns, shape=(300, 400)):
    """Draw a line, which is its own outline; the frame's diagonal is 500, the tolerance 3.75."""
    return boxes(shape, (row, 50, row + 1, 50 + columns)) > 0


def test_boundary_f_by_hand():
    assert boundary_f(line(100, 100), line(103, 100)) == 1
    assert boundary_f(line(100, 100), line(104, 100)) == 0
    # All of the prediction is right; of the reference's 150 pixels 100 are met and 3 are close.
    recall = 103 / 150
    assert boundary_f(line(100, 100), line(100, 150)) == pytest.approx(2 * recall / (1 + recall))
    # Half of what is predicted is far off, and so are a third of the reference's pixels.
    half_wrong = line(100, 100) | line(200, 100)
    two_thirds_found = line(100, 100) | line(20, 50)
    assert boundary_f(half_wrong, two_thirds_found) == pytest.approx(
        2 * (1 / 2) * (2 / 3) / (1 / 2 + 2 / 3)
    )


def test_boundary_tolerance_grows_with_the_frame():
    one, other = (line(row, 100, shape=(600, 800)) for row in (100, 107))  # tolerance 7.5
    assert boundary_f(one, other) == 1
    assert boundary_f(one, line(108, 100, shape=(600, 800))) == 0


def test_a_polyps_share_is_that_of_the_picture_without_its_border():
    reference = boxes((20, 20), (5, 5, 10, 9))  # 20 pixels
    reference[0] = 255
    assert score_frame("f", 0.5, reference, reference).polyp_share == pytest.approx(20 / 400)
    field = FieldOfView(0, 0, 10, 20)
    score = score_frame("f", 0.5, reference, reference, field=field)
    assert score.polyp_share == pytest.approx(20 / 200)


def test_masks_of_different_sizes_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        score_frame("f", 0.5, np.zeros((4, 5), np.uint8), np.zeros((5, 4), np.uint8))
