from __future__ import annotations

import random
import tomllib
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import ndimage
from torch.nn import functional as F

from napari_microaunet.distillation.augmentation.augment import Augmentation
from napari_microaunet.distillation.augmentation.settings import AugmentationSettings
from napari_microaunet.frames.rendered import render_frame

SIZE = 96
NOTHING = dict.fromkeys(AugmentationSettings.model_fields, 0)
GEOMETRY = {
    "flip": 0.5,
    "rotation": 180,
    "zoom_in": 0.7,
    "zoom_out": 0.3,
    "stretch": 0.2,
    "shift": 0.1,
    "elastic": 0.03,
}
# Parts that change no label, each as strong as it is by default, but always there.
APPEARANCE = dict.fromkeys(
    ("text", "glare", "blur", "motion_blur", "low_resolution", "sharpen", "jpeg"), 1
) | {
    name: AugmentationSettings.model_fields[name].default
    for name in (
        "uneven_light",
        "hue",
        "saturation",
        "brightness",
        "white_balance",
        "gamma",
        "black_level",
        "noise",
    )
}
SEEDS = st.integers(0, 2**32 - 1)


def augmentation(**chosen) -> Augmentation:
    """Everything off but what is named."""
    return Augmentation(AugmentationSettings(**(NOTHING | chosen)))


def disc(size=SIZE, centre=(0.5, 0.5), radius=0.2):
    """A disc, bool (size, size); centre and radius as shares of the side."""
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    apart = (rows + 0.5 - centre[0] * size) ** 2 + (columns + 0.5 - centre[1] * size) ** 2
    return apart <= (radius * size) ** 2


def labels_of(*polyps):
    return torch.stack(polyps)[:, None].to(torch.uint8)


def grey(count, size=SIZE, level=128):
    return torch.full((count, 3, size, size), level, dtype=torch.uint8)


def none(count):
    return torch.zeros(count, dtype=torch.bool)


def every(count):
    return torch.ones(count, dtype=torch.bool)


@cache
def rendered():
    """Eight frames, the last two of them negative; four scenes, each twice."""
    scenes = [render_frame(seed, SIZE, SIZE, int(seed < 3)) for seed in range(4)]
    pairs = [scene for scene in scenes for _ in range(2)]
    images = torch.from_numpy(np.stack([frame for frame, _ in pairs])).permute(0, 3, 1, 2)
    labels = torch.from_numpy(np.stack([mask > 0 for _, mask in pairs]))[:, None].to(torch.uint8)
    return images.contiguous(), labels, (labels == 0).flatten(1).all(1)


# Geometry


@pytest.mark.parametrize(
    ("side", "antialias"), [(32, True), (64, False), (96, False), (130, False)]
)
def test_with_everything_off_frames_are_only_resized(side, antialias):
    # From a reduction of 1.5 on, as is 96 to 32, with antialiasing.
    images, labels, negatives = rendered()
    frames, seen, soft = augmentation()(images, labels, labels * 255, side, negatives)
    size = (side, side)
    plain = [
        F.interpolate(part.float(), size, mode="bilinear", antialias=antialias)
        for part in (images / 255, labels)
    ]
    torch.testing.assert_close(frames, plain[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(soft, plain[1], atol=1e-4, rtol=0)
    clear = (plain[1] - 0.5).abs() > 1e-4
    assert torch.equal(seen[clear] == 1, plain[1][clear] > 0.5)
    assert (frames.dtype, seen.dtype, soft.dtype) == (torch.float32, torch.uint8, torch.float32)


@settings(deadline=None, max_examples=40)
@given(
    seed=SEEDS,
    side=st.sampled_from([40, 96, 128]),
    strength=st.floats(0, 1),
    crop=st.sampled_from([0, 1]),
)
def test_labels_follow_the_geometry(seed, side, strength, crop):
    # Frames that are their labels: polyp is drawn in red, ignore in green.
    polyp, ignore = disc(centre=(0.4, 0.55)), disc(centre=(0.7, 0.6), radius=0.22)
    labels = labels_of(polyp, polyp)
    labels[1, 0, ignore] = 255
    images = torch.zeros(2, 3, SIZE, SIZE, dtype=torch.uint8)
    images[:, 0][labels[:, 0] == 1] = 255
    images[:, 1][labels[:, 0] == 255] = 255
    augment = augmentation(
        **{name: value * strength for name, value in GEOMETRY.items()}, polyp_free_crop=crop
    )
    torch.manual_seed(seed)
    frames, seen, soft = augment(
        images, labels, (labels == 1) * torch.tensor(255).byte(), side, none(2)
    )
    assert set(seen.unique().tolist()) <= {0, 1, 255}
    for channel, label in ((0, 1), (1, 255)):
        drawn, labelled = frames[:, channel] > 0.5, seen[:, 0] == label
        together, either = (drawn & labelled).sum(), (drawn | labelled).sum()
        # Where polyp meets ignore, either may hold a little less than half of a pixel.
        assert together >= 0.97 * either - 3
    # Soft labels that were the labels still are.
    torch.testing.assert_close(soft[:, 0], frames[:, 0], atol=1e-5, rtol=0)


@settings(deadline=None, max_examples=30)
@given(seed=SEEDS)
def test_outside_of_the_frame_is_black_background(seed):
    images, labels = grey(2, level=255), torch.ones(2, 1, SIZE, SIZE, dtype=torch.uint8)
    torch.manual_seed(seed)
    frames, seen, soft = augmentation(**GEOMETRY)(images, labels, labels * 255, SIZE, none(2))
    torch.testing.assert_close(frames, seen.float().expand_as(frames))
    torch.testing.assert_close(soft, seen.float())


def test_a_frame_without_a_mask_stays_without_one_and_its_soft_labels_follow():
    images, labels, _ = rendered()
    torch.manual_seed(3)
    known = Augmentation(AugmentationSettings())(images, labels, labels * 255, 64, none(8))
    torch.manual_seed(3)
    labels = labels.clone()
    labels[6:] = 255  # neither crops nor pasting draw a number for these
    unknown = Augmentation(AugmentationSettings())(images, labels, rendered()[1] * 255, 64, none(8))
    assert (unknown[1][6:] == 255).all()
    assert torch.equal(known[1][:6], unknown[1][:6])
    assert torch.equal(known[0], unknown[0])
    assert torch.equal(known[2], unknown[2])


def test_flips_are_both_and_apart():
    images = torch.zeros(64, 3, SIZE, SIZE, dtype=torch.uint8)
    images[:, :, : SIZE // 2, : SIZE // 2] = 255
    labels = (images[:, :1] > 0).to(torch.uint8)
    torch.manual_seed(0)
    frames, seen, _ = augmentation(flip=0.5)(images, labels, None, SIZE, none(64))
    assert torch.equal(frames[:, :1], seen.float())
    quarters = F.avg_pool2d(frames[:, 0], SIZE // 2).flatten(1)
    torch.testing.assert_close(quarters.sum(1), torch.ones(64))
    shown = quarters.argmax(1).bincount(minlength=4)
    assert (shown >= 6).all()  # 16 of each are expected

    frames, _, _ = augmentation(flip=1)(images, labels, None, SIZE, none(64))
    torch.testing.assert_close(frames, images.flip(2, 3).float() / 255)


def angles_of_bar(frames):
    """Direction of a bright bar in each frame, in degrees from -90 to 90."""
    at = torch.arange(frames.shape[-1]) - (frames.shape[-1] - 1) / 2
    weight = frames[:, 0] / frames[:, 0].sum((1, 2), keepdim=True)
    across, down = (weight * at**2).sum((1, 2)), (weight * at[:, None] ** 2).sum((1, 2))
    both = (weight * at * at[:, None]).sum((1, 2))
    return torch.rad2deg(0.5 * torch.atan2(2 * both, across - down))


def test_every_frame_is_turned_by_an_angle_of_its_own():
    images = torch.zeros(64, 3, SIZE, SIZE, dtype=torch.uint8)
    images[:, :, SIZE // 2 - 4 : SIZE // 2 + 4, SIZE // 5 : -SIZE // 5] = 255
    labels = torch.zeros(64, 1, SIZE, SIZE, dtype=torch.uint8)
    torch.manual_seed(0)
    frames, _, _ = augmentation(rotation=30)(images, labels, None, SIZE, none(64))
    angles = angles_of_bar(frames)
    assert len(angles.round(decimals=3).unique()) > 60
    assert angles.abs().max() < 30.2
    assert angles.min() < -20
    assert angles.max() > 20

    again, _, _ = augmentation(rotation=30)(images, labels, None, SIZE, none(64))
    assert (angles_of_bar(again) - angles).abs().mean() > 5


def test_zoom_stretch_and_shift_stay_in_their_ranges():
    images, labels = grey(100), labels_of(*[disc()] * 100)
    plain = int(disc().sum())

    def seen(**chosen):
        torch.manual_seed(1)
        return augmentation(**chosen)(images, labels, None, SIZE, none(100))[1][:, 0]

    area = seen(zoom_in=0.5).sum((1, 2)) / plain
    assert 0.95 < area.min() < 1.15
    assert 1.95 < area.max() < 2.3
    area = seen(zoom_out=1.0).sum((1, 2)) / plain
    assert 0.22 < area.min() < 0.32
    assert 0.85 < area.max() < 1.05
    stretched = seen(stretch=0.25)
    shape = stretched.any(1).sum(1) / stretched.any(2).sum(1)
    assert 0.6 < shape.min() < 0.75
    assert 1.35 < shape.max() < 1.65
    at = torch.arange(SIZE) + 0.5
    moved = (seen(shift=0.1) * at).sum((1, 2)) / plain / SIZE - 0.5
    assert -0.105 < moved.min() < -0.08
    assert 0.08 < moved.max() < 0.105


def test_elastic_bends_what_was_straight():
    images = grey(20, level=0)
    images[:, :, :, SIZE // 2 :] = 255
    labels = (images[:, :1] > 0).to(torch.uint8)
    torch.manual_seed(0)
    _, seen, _ = augmentation(elastic=0.03)(images, labels, None, SIZE, none(20))
    edge = seen[:, 0].float().sum(2)  # length of each row's bright part
    edge = edge[:, SIZE // 4 : -SIZE // 4]
    assert (edge.std(1) > 0.5).sum() >= 10


@pytest.mark.parametrize("chosen", [{}, {"zoom_out": 2}])
def test_fine_patterns_turn_grey_rather_than_alias(chosen):
    images = grey(6, level=0)
    images[:, :, ::2] = 255
    labels = torch.zeros(6, 1, SIZE, SIZE, dtype=torch.uint8)
    torch.manual_seed(0)
    frames, _, _ = augmentation(**chosen)(images, labels, None, 40, none(6))
    middle = frames[:, :, 16:24, 16:24]
    assert (middle - 0.5).abs().max() < 0.2


def test_crops_of_positive_frames_show_less_polyp():
    spots = [disc(centre=(0.3 + 0.05 * (i % 8), 0.6), radius=0.15) for i in range(40)]
    images, labels = grey(40), labels_of(*spots)

    def share(negatives, **chosen):
        torch.manual_seed(0)
        _, seen, _ = augmentation(**chosen)(images, labels, None, 64, negatives)
        return (seen == 1).float().mean((1, 2, 3))

    plain = share(none(40))
    cropped = share(none(40), polyp_free_crop=1)
    assert (cropped == 0).float().mean() > 0.6
    assert (cropped < plain).float().mean() > 0.9
    torch.testing.assert_close(share(every(40), polyp_free_crop=1), plain)


# Pasting


def green_donors(count=2, **where):
    """Frames of grey with a green polyp."""
    polyp = disc(**where)
    images = grey(count)
    images[:, :, polyp] = torch.tensor([40, 160, 60], dtype=torch.uint8)[:, None]
    return images, labels_of(*[polyp] * count), None


@settings(deadline=None, max_examples=30)
@given(seed=SEEDS, side=st.sampled_from([64, 96]))
def test_pasted_polyps_are_where_their_label_is_and_nothing_else_changes(seed, side):
    images = grey(4, level=110)
    labels = torch.zeros(4, 1, SIZE, SIZE, dtype=torch.uint8)
    labels[2] = 255  # without a mask
    negatives = torch.tensor([True, True, True, False])
    torch.manual_seed(seed)
    frames, seen, soft = augmentation(paste=1, **GEOMETRY | {"elastic": 0.01, "zoom_out": 0})(
        images, labels, labels * 0, side, negatives, green_donors()
    )
    greenness = frames[:, 1] - frames[:, 0]
    # Neither a frame without a mask nor one that is not negative is a target.
    assert greenness[2:].abs().max() < 1e-4
    assert (seen[2] == 255).all()
    assert (seen[3] == 0).all()
    for i in range(2):
        polyp = (seen[i, 0] == 1).numpy()
        assert set(seen[i].unique().tolist()) <= {0, 1}
        # At the outline, and where the target ends, pixels are partly grey.
        inner = ndimage.binary_erosion(polyp, iterations=2)
        assert (greenness[i][torch.from_numpy(inner)] > 0.1).all()
        away = ~ndimage.binary_dilation(polyp, iterations=2) if polyp.any() else ~polyp
        assert (greenness[i][torch.from_numpy(away)] < 0.02).all()
        # The feather ends 6 % of the side away from the outline.
        untouched = ndimage.distance_transform_edt(~polyp) > 0.06 * side + 2
        if not polyp.any():
            untouched[:] = True
        inside = frames[i, 0].numpy() > 0
        left = frames[i][:, torch.from_numpy(untouched & inside)]
        torch.testing.assert_close(left, torch.full_like(left, 110 / 255), atol=1e-4, rtol=0)
        # The donor's labels stand in for its soft labels.
        assert (soft[i, 0][torch.from_numpy(inner)] > 0.6).all()
        assert (soft[i, 0][torch.from_numpy(away)] < 0.4).all()


def pasted(donors, seed=0, images=None, labels=None, count=20):
    images = grey(count, level=110) if images is None else images
    labels = torch.zeros(count, 1, SIZE, SIZE, dtype=torch.uint8) if labels is None else labels
    torch.manual_seed(seed)
    return augmentation(paste=1)(images, labels, labels * 0, SIZE, every(count), donors)


def test_every_negative_gets_a_polyp_of_another_place_and_size():
    frames, seen, _ = pasted(green_donors(3))
    area = (seen == 1).float().mean((1, 2, 3))
    assert (area > 0).all()
    assert area.max() > 4 * area.min()
    assert len({tuple(mask.nonzero().float().mean(0).tolist()) for mask in seen}) == 20
    assert ((frames[:, 1] - frames[:, 0]) > 0.2).flatten(1).any(1).all()


def test_half_of_the_negatives_stay_negative_at_one_half():
    images, labels = grey(200), torch.zeros(200, 1, SIZE, SIZE, dtype=torch.uint8)
    torch.manual_seed(0)
    _, seen, _ = augmentation(paste=0.5)(images, labels, None, 48, every(200), green_donors())
    assert 70 <= int(seen.flatten(1).any(1).sum()) <= 130


def test_frames_without_whole_polyps_donate_nothing():
    whole = green_donors(1)
    cut = green_donors(1, centre=(0.5, 0.9))
    empty = grey(1), torch.zeros(1, 1, SIZE, SIZE, dtype=torch.uint8), None
    unknown = whole[0], torch.full((1, 1, SIZE, SIZE), 255, dtype=torch.uint8), None
    by_border = green_donors(1)
    by_border[0][..., int(0.75 * SIZE) :] = 0  # the polyp ends at 0.7 of the side
    for donor in (cut, empty, unknown, by_border):
        frames, seen, _ = pasted(donor)
        assert (seen == 0).all()
        torch.testing.assert_close(frames, torch.full_like(frames, 110 / 255))
    mixed = [torch.cat([donor[i] for donor in (cut, empty, unknown, whole)]) for i in range(2)]
    _, seen, _ = pasted((*mixed, None))
    assert (seen == 1).flatten(1).any(1).all()


def test_what_a_donor_ignores_stays_ignored():
    images, labels, _ = green_donors(1)
    glare = disc(centre=(0.5, 0.55), radius=0.08)
    images[:, :, glare] = 255
    labels[:, :, glare] = 255
    frames, seen, _ = pasted((images, labels, None))
    assert (seen == 255).flatten(1).any(1).all()
    assert (frames[:, 0][seen[:, 0] == 1] < 0.75).all()


def test_soft_labels_of_donors_come_along():
    images, labels, _ = green_donors(1)
    _, seen, soft = pasted((images, labels, labels * 128))
    for i in range(20):
        inner = ndimage.binary_erosion(seen[i, 0].numpy() == 1, iterations=2)
        torch.testing.assert_close(
            soft[i, 0][torch.from_numpy(inner)],
            torch.full((int(inner.sum()),), 128 / 255),
            atol=1e-2,
            rtol=0,
        )


def test_nothing_is_pasted_into_the_dark():
    images = grey(20, level=110)
    images[..., : SIZE // 2] = 0
    frames, seen, _ = pasted(green_donors(), images=images)
    assert (frames[..., : SIZE // 2 - 6] == 0).all()
    assert (seen[..., : SIZE // 2 - 6] == 0).all()
    assert (seen == 1).any()


def test_pasted_polyps_take_on_the_colour_around_them():
    donors = green_donors(1)
    bright, dark = (pasted(donors, images=grey(20, level=level), count=20) for level in (160, 70))
    for (frames, seen, _), way in ((bright, 1), (dark, -1)):
        inner = torch.from_numpy(
            ndimage.binary_erosion(seen[:, 0].numpy() == 1, np.ones((1, 5, 5)))
        )
        green = frames[:, 1][inner]
        assert (way * (green - 160 / 255) > 0).all()


# Scope looks


@pytest.mark.parametrize("part", ["boxes", "border"])
def test_polyps_under_something_opaque_are_background(part):
    count = 40
    labels = torch.ones(count, 1, SIZE, SIZE, dtype=torch.uint8)
    labels[::2, :, :10] = 255
    images = grey(count, level=250)  # neither boxes nor borders are as bright
    torch.manual_seed(0)
    soft = torch.full_like(labels, 255)
    frames, seen, soft = augmentation(**{part: 1})(images, labels, soft, SIZE, none(count))
    covered = (frames - 250 / 255).abs().amax(1, keepdim=True) > 1e-3
    assert covered.flatten(1).any(1).float().mean() > 0.8
    assert covered.flatten(1).float().mean(1).max() < 0.6
    assert (seen[covered] == 0).all()
    assert (soft[covered] == 0).all()
    assert torch.equal(seen[~covered], labels[~covered])
    assert (soft[~covered] > 0.999).all()


def test_text_and_glare_are_drawn_and_leave_the_labels_alone():
    labels = labels_of(*[disc()] * 20)
    for part, level in (("text", 50), ("glare", 150)):
        images = grey(20, level=level)
        torch.manual_seed(0)
        frames, seen, soft = augmentation(**{part: 1})(images, labels, labels * 255, SIZE, none(20))
        drawn = (frames - level / 255).abs().amax(1) > 0.1
        assert drawn.flatten(1).any(1).float().mean() > 0.7
        assert drawn.float().mean() < 0.3
        assert torch.equal(seen, labels)
        torch.testing.assert_close(soft, labels.float())


def test_glare_is_white_and_never_on_black():
    images = grey(40, level=150)
    images[..., : SIZE // 2] = 0
    labels = torch.zeros(40, 1, SIZE, SIZE, dtype=torch.uint8)
    torch.manual_seed(0)
    frames, _, _ = augmentation(glare=1)(images, labels, None, SIZE, none(40))
    assert frames[..., SIZE // 2 :].max() > 0.99
    assert (frames >= images / 255 - 1e-6).all()
    assert (frames[..., : SIZE // 2 - 3] == 0).all()


# Colours and sharpness


@settings(deadline=None, max_examples=15)
@given(seed=SEEDS, side=st.sampled_from([32, 75, 128]))
def test_whatever_is_drawn_frames_and_labels_are_sound(seed, side):
    images, labels, negatives = rendered()
    torch.manual_seed(seed)
    frames, seen, soft = Augmentation(AugmentationSettings())(
        images, labels, labels * 255, side, negatives, (images, labels, labels * 255)
    )
    assert frames.shape == (8, 3, side, side)
    assert seen.shape == soft.shape == (8, 1, side, side)
    for values in (frames, soft):
        assert torch.isfinite(values).all()
        assert 0 <= values.min() <= values.max() <= 1
    assert set(seen.unique().tolist()) <= {0, 1}


def test_every_part_shows_and_colours_do_not_move_labels():
    images, labels, _ = rendered()
    plain, unmoved, _ = augmentation()(images, labels, None, SIZE, none(8))
    for part, strength in APPEARANCE.items():
        torch.manual_seed(0)
        frames, seen, _ = augmentation(**{part: strength})(images, labels, None, SIZE, none(8))
        changed = (frames - plain).abs().flatten(1).mean(1)
        assert (changed > 1e-4).float().mean() > 0.7, part
        assert torch.equal(seen, unmoved), part
        assert len(changed.round(decimals=6).unique()) > 4, part


def test_no_frame_becomes_too_dark_or_too_bright_to_see():
    images, labels, _ = rendered()
    lit = (images > 20).any(1, keepdim=True)

    def level(frames):
        return (frames * lit).sum((1, 2, 3)) / lit.sum((1, 2, 3)) / 3

    before = level(images / 255)
    names = ("hue", "saturation", "brightness", "white_balance", "gamma", "uneven_light")
    augment = augmentation(**{name: APPEARANCE[name] for name in names})
    for seed in range(30):
        torch.manual_seed(seed)
        after = level(augment(images, labels, None, SIZE, none(8))[0])
        assert (after > before.clamp(max=0.2) - 0.03).all()
        assert (after < before.clamp(min=0.6) + 0.03).all()


def test_a_blurred_frame_is_smoother_and_a_sharpened_one_rougher():
    images, labels, _ = rendered()

    def roughness(**chosen):
        torch.manual_seed(0)
        frames, _, _ = augmentation(**chosen)(images, labels, None, SIZE, none(8))
        return frames.diff(dim=3).abs().mean((1, 2, 3))

    plain = roughness()
    for part in ("blur", "motion_blur", "low_resolution"):
        assert (roughness(**{part: 1}) < plain).all(), part
    for part in ("sharpen", "noise"):
        assert (roughness(**{part: 0.2 if part == "noise" else 1}) > plain).all(), part


# Randomness and settings


def test_torchs_seed_alone_decides():
    images, labels, negatives = rendered()
    augment = Augmentation(AugmentationSettings())
    results = []
    for other in (1, 2):
        random.seed(other)
        np.random.seed(other)  # noqa: NPY002  the legacy state is what must play no role
        torch.manual_seed(5)
        results.append(augment(images, labels, labels * 255, 64, negatives, (images, labels, None)))
    for first, second in zip(*results, strict=True):
        assert torch.equal(first, second)
    further = augment(images, labels, None, 64, negatives, (images, labels, None))
    assert not torch.equal(results[0][0], further[0])


def test_what_is_given_is_not_changed():
    images, labels, negatives = rendered()
    copies = images.clone(), labels.clone(), negatives.clone()
    Augmentation(AugmentationSettings(paste=1))(
        images, labels, None, SIZE, negatives, (images, labels, None)
    )
    for given_, copy in zip((images, labels, negatives), copies, strict=True):
        assert torch.equal(given_, copy)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_geometry_of_the_cpu():
    images, labels, negatives = rendered()
    results = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(7)
        _, seen, _ = Augmentation(AugmentationSettings())(
            images.to(device), labels.to(device), None, 64, negatives.to(device)
        )
        results.append(seen.cpu())
    assert (results[0] != results[1]).float().mean() < 0.001


def test_settings_are_a_section_of_a_recipe():
    read = AugmentationSettings(**tomllib.loads("rotation = 90\nflip = 0\nnoise = 0.01"))
    assert (read.rotation, read.flip, read.noise) == (90, 0, 0.01)
    assert read.zoom_in == AugmentationSettings().zoom_in
    for wrong in (
        {"flip": 1.1},
        {"rotation": -1},
        {"elastic": 0.5},
        {"zoom": 1},
        {"noise": float("nan")},
    ):
        with pytest.raises(ValidationError, match=next(iter(wrong))):
            AugmentationSettings(**wrong)
    with pytest.raises(ValidationError, match="frozen"):
        read.flip = 1
