from __future__ import annotations

import numpy as np
import pytest

from napari_microaunet.distillation.scores import hausdorff95, score_frame, surface_dice


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


def test_numbers_of_polyps_do_not_matter():
    reference = boxes((30, 30), (0, 0, 10, 10), (20, 20, 25, 25))
    predicted = boxes((30, 30), (20, 20, 25, 25), (0, 0, 10, 10))
    score = score_frame("frame", 0.5, predicted, reference)
    assert score.dice == score.iou == score.surface_dice == 1
    assert score.hausdorff95 == 0


def test_ignored_pixels_count_for_no_score():
    reference = boxes((40, 40), (10, 10, 20, 20))
    predicted = reference.copy()
    plain = score_frame("frame", 0.5, predicted, reference)
    reference[25:, :] = 255
    predicted[30:38, 5:30] = 1  # only where it does not count
    assert score_frame("frame", 0.5, predicted, reference) == plain


def test_a_polyp_that_is_ignored_altogether_makes_no_positive_frame():
    reference = np.zeros((20, 20), np.uint8)
    reference[5:10, 5:10] = 255
    score = score_frame("frame", 0.5, boxes((20, 20), (5, 5, 10, 10)), reference)
    assert not score.positive
    assert not score.flagged
    assert score.dice is None


def test_a_missed_polyp_scores_nothing_and_the_frames_diagonal():
    score = score_frame("f", 0.9, np.zeros((30, 40), np.uint8), boxes((30, 40), (3, 3, 9, 9)))
    assert score.dice == score.iou == score.surface_dice == 0
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
        assert score.dice is score.iou is score.hausdorff95 is score.surface_dice is None


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


def test_surface_dice_by_hand():
    # In a frame of 256 x 256 the tolerance is two pixels.
    one = boxes((256, 256), (50, 50, 51, 150)) > 0  # lines are their own outline
    for shift, within in ((2, 1.0), (3, 0.0)):
        other = boxes((256, 256), (50 + shift, 50, 51 + shift, 150)) > 0
        assert surface_dice(one, other) == within
    longer = boxes((256, 256), (50, 50, 51, 200)) > 0
    # 100 pixels of the one, 102 of the other's 150 lie within two pixels.
    assert surface_dice(one, longer) == pytest.approx(202 / 250)


def test_surface_tolerance_grows_with_the_frame_along_each_side():
    across = boxes((512, 1024), (100, 100, 101, 500)) > 0
    assert surface_dice(across, np.roll(across, 4, axis=0)) == 1
    assert surface_dice(across, np.roll(across, 5, axis=0)) == 0
    down = boxes((512, 1024), (100, 100, 300, 101)) > 0
    assert surface_dice(down, np.roll(down, 8, axis=1)) == 1
    assert surface_dice(down, np.roll(down, 9, axis=1)) == 0


def test_masks_of_different_sizes_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        score_frame("f", 0.5, np.zeros((4, 5), np.uint8), np.zeros((5, 4), np.uint8))
