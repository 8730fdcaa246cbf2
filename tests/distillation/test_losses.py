from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from napari_microaunet.distillation.losses import (
    FeatureAdapters,
    boundary_loss,
    divergence,
    feature_alignment,
    outline_band,
    segmentation_loss,
)

IGNORE = 255
LOG3 = math.log(3)  # logit of probability 3/4


def labelled(*rows):
    """One frame of labels."""
    return torch.tensor(rows, dtype=torch.uint8)[None, None]


def frames(count, seed=0, side=32):
    """Logits, labels and soft labels; each frame has a polyp of its own size and some ignore."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(count, 1, side, side, generator=generator)
    labels = torch.zeros(count, 1, side, side, dtype=torch.uint8)
    for number in range(count):
        labels[number, :, 4 : 10 + 2 * number, 5:20] = 1
    labels[:, :, :, 18:22] = IGNORE
    return logits, labels, torch.rand(count, 1, side, side, generator=generator)


def gradient(loss, *inputs):
    return torch.autograd.grad(loss, inputs)


ON_LABELS = {
    "segmentation": segmentation_loss,
    "boundary": lambda logits, labels: boundary_loss(logits, labels, 2),
}
ALL = ON_LABELS | {
    "divergence": lambda logits, labels: divergence(logits, (labels == 1).float(), 2.0, labels),
}


# --- segmentation -------------------------------------------------------------------------


def test_segmentation_loss_by_hand():
    logits = torch.tensor([[LOG3, LOG3], [-LOG3, 50.0]])[None, None]
    loss = segmentation_loss(logits, labelled((1, 0), (0, IGNORE)))
    # Probabilities 3/4, 3/4, 1/4; the fourth pixel does not count.
    entropy = (-math.log(3 / 4) - math.log(1 / 4) - math.log(3 / 4)) / 3
    smooth = 30 / 65536 * 4  # pixels
    dice = (2 * 3 / 4 + smooth) / (7 / 4 + 1 + smooth)
    assert float(loss) == pytest.approx(entropy + 1 - dice, rel=1e-6)


def test_the_dice_term_is_that_of_monai():
    from monai.losses import DiceLoss

    logits, labels, _ = frames(3)
    labels = (labels == 1).to(torch.uint8)
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels.float())
    smooth = 30 * 32 * 32 / 256**2
    dice = DiceLoss(sigmoid=True, smooth_nr=smooth, smooth_dr=smooth)(logits, labels)
    assert float(segmentation_loss(logits, labels) - entropy) == pytest.approx(float(dice))


def test_one_wrong_pixel_of_an_empty_frame_costs_little():
    logits = torch.full((1, 1, 256, 256), -30.0)
    labels = torch.zeros(1, 1, 256, 256, dtype=torch.uint8)
    assert float(segmentation_loss(logits, labels)) == pytest.approx(0, abs=1e-6)
    logits[0, 0, 7, 7] = 0.0
    # Half a pixel against 30, and log 2 over 65,536 pixels.
    expected = 1 - 30 / 30.5 + math.log(2) / 65536
    assert float(segmentation_loss(logits, labels)) == pytest.approx(expected, rel=1e-3)


def test_segmentation_pulls_every_counted_pixel_to_its_label_and_no_other():
    logits, labels, _ = frames(2)
    logits.requires_grad_()
    (pull,) = gradient(segmentation_loss(logits, labels), logits)
    assert (pull[labels == 1] < 0).all()
    assert (pull[labels == 0] > 0).all()
    assert (pull[labels == IGNORE] == 0).all()


def test_polyps_of_any_number_are_polyps():
    logits, labels, _ = frames(2)
    numbered = torch.where(labels == 1, 7, labels)
    for loss in ON_LABELS.values():
        assert loss(logits, numbered) == loss(logits, labels)


# --- divergence ---------------------------------------------------------------------------


ALL_LABELLED = torch.zeros(1, 1, 1, 3, dtype=torch.uint8)


def test_divergence_by_hand():
    # Teacher 9/10 and 1/2, logits 2 log 3 and 0; at temperature 2 they become 3/4 and 1/2.
    # Student logits 0 and 2 log 3 become 1/2 and 3/4.
    teacher = torch.tensor([[[[0.9, 0.5]]]])
    logits = torch.tensor([[[[0.0, 2 * LOG3]]]])
    first = 3 / 4 * math.log(3 / 2) + 1 / 4 * math.log(1 / 2)
    second = 1 / 2 * math.log(2 / 3) + 1 / 2 * math.log(2)
    loss = divergence(logits, teacher, 2.0, ALL_LABELLED[..., :2])
    assert float(loss) == pytest.approx(4 * (first + second) / 2, rel=1e-5)


def test_divergence_vanishes_only_where_student_and_teacher_agree():
    teacher = torch.tensor([[[[0.2, 0.5, 0.9]]]])
    agreed = torch.logit(teacher).requires_grad_()
    loss = divergence(agreed, teacher, 3.0, ALL_LABELLED)
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
    assert gradient(loss, agreed)[0].abs().max() < 1e-6
    off = (torch.logit(teacher) + torch.tensor([1.0, -1.0, 1.0])).requires_grad_()
    (pull,) = gradient(divergence(off, teacher, 3.0, ALL_LABELLED), off)
    assert (pull.sign().flatten() == torch.tensor([1, -1, 1])).all()


def test_divergence_is_learnt_from_where_labels_say_nothing():
    logits, _, soft = frames(2)
    logits.requires_grad_()
    nothing = torch.full((2, 1, 32, 32), IGNORE, dtype=torch.uint8)
    loss = segmentation_loss(logits, nothing) + boundary_loss(logits, nothing, 3)
    assert gradient(loss, logits)[0].abs().max() == 0
    assert (gradient(divergence(logits, soft, 2.0, nothing), logits)[0] != 0).all()


def test_divergence_leaves_out_what_an_annotator_ignores():
    # The middle pixel, of which the student differs most, is ignored in a frame with a mask.
    teacher = torch.tensor([[[[0.5, 0.99, 0.5]]]])
    logits = torch.tensor([[[[LOG3, -5.0, 0.0]]]], requires_grad=True)
    labels = torch.tensor([[[[0, IGNORE, 1]]]], dtype=torch.uint8)
    loss = divergence(logits, teacher, 1.0, labels)
    by_hand = 1 / 2 * math.log(2 / 3) + 1 / 2 * math.log(2)  # 1/2 against 3/4, and no difference
    assert float(loss.detach()) == pytest.approx(by_hand / 2, rel=1e-5)
    pull = gradient(loss, logits)[0].flatten()
    assert (pull[0], pull[1]) == (pytest.approx(1 / 8), 0)


def test_the_softening_keeps_the_size_of_gradients():
    logits, labels, soft = frames(2)
    logits = (logits / 10).requires_grad_()
    soft = 0.45 + soft / 10
    (cold,) = gradient(divergence(logits, soft, 1.0, labels), logits)
    (warm,) = gradient(divergence(logits, soft, 8.0, labels), logits)
    assert float(warm.norm() / cold.norm()) == pytest.approx(1, abs=0.05)


def test_stored_certainty_of_the_teacher_is_within_its_rounding():
    # 8 bits cannot say more than "below 0.5 / 255": a student that says so is left in peace.
    teacher = torch.tensor([[[[0.0, 1.0]]]])
    within = torch.logit(torch.tensor([[[[0.4 / 255, 1 - 0.4 / 255]]]]))
    assert float(divergence(within, teacher, 1.0, ALL_LABELLED[..., :2])) < 2e-4
    doubting = torch.zeros(1, 1, 1, 2)
    assert float(divergence(doubting, teacher, 1.0, ALL_LABELLED[..., :2])) == pytest.approx(
        math.log(2), abs=0.01
    )


# --- the band -----------------------------------------------------------------------------


def test_band_by_hand():
    labels = labelled((0, 0, 0, 1, 1, 1), (0, 0, 0, 1, 1, 1))
    polyp, background = outline_band(labels, 1)
    assert polyp[0, 0].tolist() == [[False, False, False, True, False, False]] * 2
    assert background[0, 0].tolist() == [[False, False, True, False, False, False]] * 2


def test_the_edges_of_the_frame_and_of_ignored_regions_are_no_outline():
    labels = labelled((1, 1, IGNORE, IGNORE, 0, 0), (1, 1, IGNORE, IGNORE, 0, 0))
    assert not torch.cat(outline_band(labels, 2)).any()
    assert float(boundary_loss(torch.ones(1, 1, 2, 6), labels, 2)) == 0
    # Three pixels apart, the outline is somewhere between the two.
    assert torch.cat(outline_band(labels, 3)).sum() == 4


@settings(max_examples=60, deadline=None)
@given(
    labels=arrays.arrays(np.uint8, (2, 9, 11), elements=st.sampled_from([0, 0, 1, 1, 3, IGNORE])),
    width=st.integers(1, 5),
)
def test_the_band_is_what_the_distance_transform_finds(labels, width):
    polyp_side, background_side = outline_band(torch.from_numpy(labels)[:, None], width)
    for number, frame in enumerate(labels):
        background = frame == 0
        polyp = ~background & (frame != IGNORE)
        for side, own, other in (
            (polyp_side, polyp, background),
            (background_side, background, polyp),
        ):
            expected = np.zeros_like(own)
            if other.any():
                distance = ndimage.distance_transform_cdt(~other, metric="chessboard")
                expected = own & (distance <= width)
            assert (side[number, 0].numpy() == expected).all()


def test_boundary_loss_by_hand():
    # One polyp pixel and four of background in the band: each side weighs one half.
    labels = labelled((0, 0, 1, 0, 0, 0))
    logits = torch.tensor([[[[LOG3, 0.0, LOG3, -LOG3, 0.0, 80.0]]]])
    loss = boundary_loss(logits, labels, 2)
    polyp = -math.log(3 / 4)
    background = (-math.log(1 / 4) - math.log(1 / 2) - math.log(3 / 4) - math.log(1 / 2)) / 4
    assert float(loss) == pytest.approx((polyp + background) / 2, rel=1e-6)


def test_boundary_acts_inside_the_band_only_and_alike_on_both_sides():
    logits, labels, _ = frames(3)
    logits = torch.zeros_like(logits).requires_grad_()
    (pull,) = gradient(boundary_loss(logits, labels, 2), logits)
    polyp, background = outline_band(labels, 2)
    assert (pull[polyp] < 0).all()
    assert (pull[background] > 0).all()
    assert (pull[~(polyp | background)] == 0).all()
    assert float(pull[polyp].sum()) == pytest.approx(-float(pull[background].sum()))


def test_a_frame_without_an_outline_does_not_dilute_the_boundary_loss():
    logits, labels, _ = frames(2)
    labels[1] = 0
    assert float(boundary_loss(logits, labels, 3)) == pytest.approx(
        float(boundary_loss(logits[:1], labels[:1], 3))
    )


# --- features -----------------------------------------------------------------------------


def maps(widths, sides, seed, scale=1.0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(2, width, side, side, generator=generator) * scale + shift
        for width, side in zip(widths, sides, strict=True)
    ]


SIDES = (32, 16, 8, 4, 2)


def every_pixel(count=2):
    """Labels without any pixel to ignore."""
    return torch.zeros(count, 1, 32, 32, dtype=torch.uint8)


def test_alignment_by_hand():
    # Brought to mean 0 and variance 1: (-1, 1, -1, 1) against (-1, -1, 1, 1), uncorrelated, and
    # against itself. Distances of 4, 0, 0, 4 pixels: 8 / 4 / 2 = 1.
    student = torch.tensor([0.0, 2.0, 0.0, 2.0]).view(1, 1, 2, 2)
    crossed = torch.tensor([5.0, 5.0, 9.0, 9.0]).view(1, 1, 2, 2)
    labels = every_pixel(1)
    assert float(feature_alignment([student], [crossed], labels)) == pytest.approx(1, rel=1e-5)
    same = feature_alignment([student], [3 * student + 1], labels)
    assert float(same) == pytest.approx(0, abs=1e-5)
    assert float(feature_alignment([student], [-student], labels)) == pytest.approx(2, rel=1e-5)
    both = feature_alignment([student] * 2, [crossed, -student], labels)
    assert float(both) == pytest.approx(1.5)


def test_alignment_leaves_out_what_is_to_be_ignored():
    # The first column and half of the second are left: 2 rows of weights 1 and 1/2, a third of
    # the frame each and a sixth. Both teachers say the same there, and only there.
    labels = torch.zeros(1, 1, 32, 32, dtype=torch.uint8)
    labels[:, :, :, 12:] = IGNORE
    student = torch.arange(8.0).view(1, 1, 2, 4)
    teacher = torch.tensor([3.0, 1.0, 2.0, 2.0, 1.0, 3.0, 0.0, 9.0]).view(1, 1, 2, 4)
    weights = np.array([2, 1, 2, 1]) / 6
    ours, theirs = np.array([0.0, 1.0, 4.0, 5.0]), np.array([3.0, 1.0, 1.0, 3.0])
    apart_1, apart_2 = ours - weights @ ours, theirs - weights @ theirs
    covariance = weights @ (apart_1 * apart_2)
    correlation = covariance / math.sqrt((weights @ apart_1**2) * (weights @ apart_2**2))
    loss = feature_alignment([student], [teacher], labels)
    assert float(loss) == pytest.approx(1 - correlation, rel=1e-5)
    other = teacher.clone()
    other[..., 2:] = -1000
    assert float(feature_alignment([student], [other], labels)) == pytest.approx(float(loss))
    student.requires_grad_()
    (slope,) = gradient(feature_alignment([student], [teacher], labels), student)
    assert (slope[..., 2:] == 0).all()
    assert (slope[..., :2] != 0).any()


def test_alignment_takes_a_frame_without_a_mask_whole():
    student, teacher = maps((4,), (8,), 1), maps((4,), (8,), 2)
    nobody = torch.full((2, 1, 32, 32), IGNORE, dtype=torch.uint8)
    whole = feature_alignment(student, teacher, every_pixel())
    assert float(feature_alignment(student, teacher, nobody)) == float(whole)


@pytest.mark.parametrize(("scale", "shift"), [(0.01, 0), (1, 5), (1000, -200)])
def test_alignment_starts_near_one_whatever_the_scale(scale, shift):
    torch.manual_seed(3)
    student = [skip.relu() for skip in maps((8, 16, 16, 16, 24), SIDES, 1, scale, 0.0)]
    teacher = maps((16, 24, 40, 112, 320), SIDES, 2, 30 * scale, shift)
    adapters = FeatureAdapters((8, 16, 16, 16, 24), (16, 24, 40, 112, 320))
    loss = feature_alignment(adapters(student), teacher, every_pixel()).detach()
    assert float(loss) == pytest.approx(1, abs=0.15)


def test_alignment_reaches_skips_and_adapters_and_not_the_teacher():
    adapters = FeatureAdapters((4, 8, 8), (6, 8, 12))
    student = [skip.requires_grad_() for skip in maps((4, 8, 8), (8, 4, 2), 1)]
    teacher = [skip.requires_grad_() for skip in maps((6, 8, 12), (8, 4, 2), 2)]
    feature_alignment(adapters(student), teacher, every_pixel()).backward()
    for tensor in (*student, *adapters.parameters()):
        assert tensor.grad is not None
        assert (tensor.grad != 0).any()
    assert all(skip.grad is None for skip in teacher)
    # A convolution with bias for the first and the last; the second is of one width.
    assert len(list(adapters.parameters())) == 4


def test_teacher_maps_of_another_size_are_resized():
    rows, columns = torch.meshgrid(
        torch.linspace(0, 1, 32), torch.linspace(0, 1, 32), indexing="ij"
    )
    large = torch.stack([torch.sin(3 * rows) + columns, rows * columns])[None]
    small = torch.nn.functional.avg_pool2d(large, 2)
    assert float(feature_alignment([small], [large], every_pixel(1))) < 1e-3
    assert float(feature_alignment([large], [small], every_pixel(1))) < 1e-3


# --- all of them --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_the_mean_over_equal_parts_of_a_batch_is_its_loss(name):
    logits, labels, _ = frames(6)
    parts = [ALL[name](*part) for part in zip(logits.chunk(3), labels.chunk(3), strict=True)]
    assert float(ALL[name](logits, labels)) == pytest.approx(float(sum(parts)) / 3, rel=1e-5)


def test_the_mean_over_equal_parts_of_a_batch_is_its_alignment():
    student, teacher = maps((4, 8), (8, 4), 1), maps((4, 8), (4, 4), 2)
    _, labels, _ = frames(2)
    parts = [
        feature_alignment(
            [skip[i : i + 1] for skip in student],
            [skip[i : i + 1] for skip in teacher],
            labels[i : i + 1],
        )
        for i in range(2)
    ]
    whole = feature_alignment(student, teacher, labels)
    assert float(whole) == pytest.approx(float(sum(parts)) / 2)


@pytest.mark.parametrize("name", ON_LABELS)
def test_ignored_frames_do_not_change_the_mean(name):
    logits, labels, _ = frames(3)
    labels[1] = IGNORE
    expected = (
        ON_LABELS[name](logits[:1], labels[:1]) + ON_LABELS[name](logits[2:], labels[2:])
    ) / 2
    assert float(ON_LABELS[name](logits, labels)) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("name", ON_LABELS)
def test_a_batch_of_nothing_but_ignore_gives_exactly_zero(name):
    logits = torch.randn(2, 1, 16, 16, requires_grad=True)
    loss = ON_LABELS[name](logits, torch.full((2, 1, 16, 16), IGNORE, dtype=torch.uint8))
    assert float(loss.detach()) == 0
    assert (gradient(loss, logits)[0] == 0).all()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("logit", [-1e4, 0.0, 1e4])
@pytest.mark.parametrize("pixels", ["none", "one", "all", "ignored"])
def test_degenerate_frames_give_numbers(name, logit, pixels):
    logits = torch.full((2, 1, 16, 16), logit, requires_grad=True)
    labels = torch.zeros(2, 1, 16, 16, dtype=torch.uint8)
    if pixels == "one":
        labels[:, :, 3, 3] = 1
    elif pixels != "none":
        labels[:] = 1 if pixels == "all" else IGNORE
    loss = ALL[name](logits, labels)
    assert loss.isfinite()
    assert gradient(loss, logits)[0].isfinite().all()


def test_constant_features_give_numbers():
    student = [torch.full((2, 4, 1, 1), 3.0, requires_grad=True), torch.zeros(2, 4, 8, 8)]
    teacher = [torch.full((2, 4, 1, 1), 1e4), torch.zeros(2, 4, 8, 8)]
    loss = feature_alignment(student, teacher, every_pixel())
    assert loss.isfinite()
    assert gradient(loss, student[0])[0].isfinite().all()


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_full(precision):
    logits, labels, soft = frames(2)
    logits, soft = logits.to(precision), soft.to(precision)
    skips = [skip.to(precision) for skip in maps((4,), (8,), 1, 100.0)]
    others = [skip.to(precision) for skip in maps((4,), (8,), 2, 100.0)]
    for loss, inputs in (
        (segmentation_loss, (logits, labels)),
        (lambda first, second: divergence(first, second, 2.0, labels), (logits, soft)),
        (lambda first, second: boundary_loss(first, second, 2), (logits, labels)),
        (
            lambda first, second: feature_alignment([first], [second], labels),
            (skips[0], others[0]),
        ),
    ):
        full = loss(*(x.float() if x.is_floating_point() else x for x in inputs))
        with torch.autocast("cpu", torch.bfloat16):
            half = loss(*inputs)
        assert half.dtype == torch.float32
        assert float(half) == pytest.approx(float(full), rel=1e-6)
