from __future__ import annotations

import math

import pytest
import torch

from napari_microaunet.distillation.preference import Projection, preference_loss

IGNORE = 255


def contrast(embeddings, labels, student, teacher, **changed):
    settings = {
        "pixels": 256,
        "temperature": 0.5,
        "false_positive_weight": 1.0,
        "band": 2,
    }
    return preference_loss(embeddings, labels, student, teacher, **settings | changed)


def doubled(*values, dtype=torch.float32):
    """Return one row of pixels at half size as a frame at full size."""
    row = torch.tensor(values, dtype=dtype)[None, None, None]
    return row.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


def labelled(*values):
    return doubled(*values, dtype=torch.uint8)


def embedded(*vectors):
    """Return one row of pixels, each with its own embedding."""
    return torch.tensor(vectors).T[None, :, None, :].contiguous()


def scene(count=2, side=64, seed=0):
    """Frames with one square polyp each, random embeddings, and nobody calling anything polyp."""
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.nn.functional.normalize(
        torch.randn(count, 16, side // 2, side // 2, generator=generator), dim=1
    )
    labels = torch.zeros(count, 1, side, side, dtype=torch.uint8)
    labels[:, :, 16:40, 16:40] = 1
    nothing = torch.zeros(count, 1, side, side)
    return embeddings.requires_grad_(), labels, nothing, nothing.clone()


def touched(loss, embeddings):
    """Which pixels a gradient reaches; bool (batch, h, w)."""
    (pull,) = torch.autograd.grad(loss, embeddings)
    assert pull.isfinite().all()
    return (pull != 0).any(dim=1)


# --- the numbers --------------------------------------------------------------------------

POLYP_1, POLYP_2, BESIDE, AWAY = (1.0, 0.0), (0.6, 0.8), (0.0, 1.0), (-1.0, 0.0)


def infonce(positive, *negatives):
    """-log of the positive's share; negatives are pairs of weight and similarity."""
    share = math.exp(positive)
    return -math.log(share / (share + sum(weight * math.exp(s) for weight, s in negatives)))


@pytest.mark.parametrize("weight", [1.0, 3.0])
def test_one_pair_by_hand(weight):
    # The student takes the third pixel for polyp. At temperature 1/2 similarities double.
    loss = contrast(
        embedded(POLYP_1, POLYP_2, BESIDE, AWAY),
        labelled(1, 1, 0, 0),
        doubled(0.9, 0.2, 0.9, 0.1),
        doubled(0.9, 0.9, 0.1, 0.1),
        false_positive_weight=weight,
        band=4,
    )
    first = infonce(1.2, (weight, 0.0), (1, -2.0))
    second = infonce(1.2, (weight, 1.6), (1, -1.2))
    assert float(loss) == pytest.approx((first + second) / 2, rel=1e-5)


def test_several_positives_are_averaged_outside_the_logarithm():
    # Three polyp pixels of which two are equal, one background pixel, temperature 1.
    loss = contrast(
        embedded(POLYP_1, POLYP_1, POLYP_2, BESIDE),
        labelled(1, 1, 1, 0),
        doubled(0.0, 0.0, 0.0, 0.0),
        doubled(0.0, 0.0, 0.0, 0.0),
        temperature=1.0,
        band=6,
    )
    equal = (infonce(1.0, (1, 0.0)) + infonce(0.6, (1, 0.0))) / 2
    other = infonce(0.6, (1, 0.8))
    assert float(loss) == pytest.approx((2 * equal + other) / 3, rel=1e-5)


def test_separated_classes_cost_nothing():
    embeddings = embedded(POLYP_1, POLYP_1, AWAY, AWAY)
    silence = doubled(0.0, 0.0, 0.0, 0.0)
    labels = labelled(1, 1, 0, 0)
    assert float(contrast(embeddings, labels, silence, silence, temperature=0.05)) < 1e-6


# --- where it acts ------------------------------------------------------------------------


def test_polyp_is_pulled_together_and_pushed_from_background():
    angles = torch.tensor([0.3, -0.2, 1.2, 1.0])
    embeddings = torch.stack([angles.cos(), angles.sin()])[None, :, None, :].requires_grad_()
    labels, silence = labelled(1, 1, 0, 0), doubled(0.0, 0.0, 0.0, 0.0)
    for _ in range(20):
        loss = contrast(embeddings, labels, silence, silence, band=4)
        (pull,) = torch.autograd.grad(loss, embeddings)
        moved = torch.nn.functional.normalize(embeddings - 0.2 * pull, dim=1)
        embeddings = moved.detach().requires_grad_()
    before = torch.cos(angles[:, None] - angles)
    after = (embeddings[0, :, 0].T @ embeddings[0, :, 0]).detach()
    assert after[0, 1] > before[0, 1]
    assert (after[:2, 2:] < before[:2, 2:]).all()


def test_only_the_band_acts_where_student_and_teacher_agree():
    embeddings, labels, student, teacher = scene()
    reached = touched(contrast(embeddings, labels, student, teacher, band=4), embeddings)
    expected = torch.zeros(2, 32, 32, dtype=torch.bool)
    expected[:, 6:22, 6:22] = True  # two pixels of half size on either side of 8:20
    expected[:, 10:18, 10:18] = False
    assert not (reached & ~expected).any()
    everything = touched(
        contrast(embeddings, labels, student, teacher, band=4, pixels=2000), embeddings
    )
    assert (everything == expected).all()


def test_disagreement_is_drawn_from_both_classes_far_from_any_outline():
    embeddings, labels, student, teacher = scene()
    student[:, :, 26:30, 26:30] = 0.9  # within the polyp: found by the student alone
    teacher[:, :, 50:54, 50:54] = 0.9  # far outside: the teacher's false positive
    student[:, :, 4:8, 50:54] = teacher[:, :, 4:8, 50:54] = 0.9  # both wrong: no disagreement
    reached = touched(contrast(embeddings, labels, student, teacher), embeddings)
    assert reached[:, 13:15, 13:15].all()
    assert reached[:, 25:27, 25:27].all()
    assert not reached[:, 2:4, 25:27].any()


def test_without_a_teacher_the_labels_stand_in():
    embeddings, labels, student, _ = scene()
    student[:, :, 4:8, 50:54] = 0.9
    reached = touched(contrast(embeddings, labels, student, None), embeddings)
    assert reached[:, 2:4, 25:27].all()
    assert not reached[:, 28:, 28:].any()


def test_ignored_pixels_never_act_and_make_no_outline():
    embeddings, labels, student, teacher = scene()
    student[:, :, 4:8, 50:54] = 0.9
    labels[:, :, 5:7, 51:53] = IGNORE  # touches each of the four pixels of half size
    labels[:, :, :, 40:46] = IGNORE  # covers the polyp's right side
    reached = touched(contrast(embeddings, labels, student, teacher, pixels=2000), embeddings)
    assert not reached[:, 2:4, 25:27].any()
    assert not reached[:, :, 20:23].any()
    assert not reached[:, 10:18, 18:20].any()
    assert reached[:, 10:18, 8].all()


def test_false_positives_weigh_on_the_loss_and_are_pushed_harder():
    embeddings, labels, student, teacher = scene()
    student[:, :, 50:54, 50:54] = 0.9
    pushes = []
    for weight in (1.0, 5.0):
        loss = contrast(embeddings, labels, student, teacher, false_positive_weight=weight)
        (pull,) = torch.autograd.grad(loss, embeddings)
        pushes.append((float(loss.detach()), float(pull[:, :, 25:27, 25:27].norm())))
    (plain, push), (heavy, harder) = pushes
    assert heavy > plain
    assert harder > 2 * push


def test_no_gradient_reaches_the_probabilities():
    embeddings, labels, student, teacher = scene()
    student.requires_grad_()
    teacher.requires_grad_()
    contrast(embeddings, labels, student, teacher).backward()
    assert student.grad is None
    assert teacher.grad is None


def test_a_small_polyp_has_the_same_share_of_the_sample():
    embeddings, labels, student, teacher = scene(side=128)
    labels[0] = 0
    labels[0, :, 8:120, 8:120] = 1  # 216 pixels of half size along its outline
    labels[1] = 0
    labels[1, :, 20:56, 20:56] = 1  # 64
    reached = touched(contrast(embeddings, labels, student, teacher, band=1, pixels=40), embeddings)
    assert int(reached.sum()) == 80
    polyp = [int(reached[number][labels[number, 0, ::2, ::2] == 1].sum()) for number in (0, 1)]
    assert sum(polyp) == 40
    assert 12 <= polyp[1] <= 28


def test_the_seed_alone_decides_the_sample():
    embeddings, labels, student, teacher = scene()

    def drawn(seed):
        torch.manual_seed(seed)
        loss = contrast(embeddings, labels, student, teacher, pixels=20)
        return touched(loss, embeddings)

    assert (drawn(1) == drawn(1)).all()
    assert (drawn(1) != drawn(2)).any()


# --- what may come in ---------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, 1, IGNORE])
@pytest.mark.parametrize("called", [0.0, 1.0])
def test_batches_without_two_classes_give_exactly_zero(value, called):
    embeddings, labels, student, teacher = scene()
    labels[:] = value
    student[:] = called
    loss = contrast(embeddings, labels, student, teacher)
    assert float(loss.detach()) == 0
    assert not touched(loss, embeddings).any()


@pytest.mark.parametrize("polyp_pixels", [1, 2])
def test_tiny_polyps_give_numbers(polyp_pixels):
    embeddings, labels, student, teacher = scene(1)
    labels[:] = 0
    labels[:, :, 8:10, 8 : 8 + 2 * polyp_pixels] = 1
    loss = contrast(embeddings, labels, student, teacher)
    assert touched(loss, embeddings).any() == (polyp_pixels == 2)


def test_half_of_a_pixel_makes_it_polyp_and_a_quarter_does_not():
    embeddings, labels, student, teacher = scene(1)
    labels[:] = 0
    labels[:, :, 9, [9, 21, 33]] = 1
    assert float(contrast(embeddings, labels, student, teacher).detach()) == 0
    labels[:, :, 8, [9, 21, 33]] = 1
    assert float(contrast(embeddings, labels, student, teacher).detach()) > 0


def test_constant_embeddings_and_cold_temperatures_give_numbers():
    _, labels, student, teacher = scene()
    features = torch.zeros(2, 8, 32, 32, requires_grad=True)
    for temperature in (0.001, 1.0):
        loss = contrast(
            Projection(8, 16)(features), labels, student, teacher, temperature=temperature
        )
        # One positive against the 2 x 52 background pixels of the bands, all the same.
        assert float(loss.detach()) == pytest.approx(math.log(105), rel=1e-4)
        assert torch.autograd.grad(loss, features)[0].isfinite().all()


def test_sides_that_cannot_be_halved():
    embeddings, labels, student, _ = scene()
    loss = contrast(
        embeddings[:, :, :31, :30], labels[:, :, :63, :61], student[:, :, :63, :61], None
    )
    assert touched(loss, embeddings).any()


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_full(precision):
    embeddings, labels, student, teacher = scene()
    half = embeddings.detach().to(precision)
    full = contrast(half.float(), labels, student, teacher, temperature=0.05)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = contrast(
            half, labels, student.to(precision), teacher.to(precision), temperature=0.05
        )
    assert mixed.dtype == torch.float32
    assert float(mixed) == pytest.approx(float(full), rel=1e-6)


# --- the projection -----------------------------------------------------------------------


def test_projections_have_length_one_and_learn():
    torch.manual_seed(0)
    projection = Projection(8, 16)
    features = torch.randn(2, 8, 32, 32, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        embeddings = projection(features)
    assert embeddings.shape == (2, 16, 32, 32)
    assert embeddings.dtype == torch.float32
    assert embeddings.norm(dim=1).detach().numpy() == pytest.approx(1, abs=1e-5)
    _, labels, student, teacher = scene()
    contrast(embeddings, labels, student, teacher).backward()
    assert all((parameter.grad != 0).any() for parameter in projection.parameters())
    assert (features.grad != 0).any()
