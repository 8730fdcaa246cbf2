from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from napari_microaunet.errors import InputError
from napari_microaunet.frames import find_field_of_view, open_frames

PANEL = (44, 183, 142)


def scope_image(height=480, width=640, box=(40, 120, 440, 600), shape="round", border=10):
    """Mucosa with a dark lumen in a dark border, round or with cut corners."""
    top, left, bottom, right = box
    image = Image.new("RGB", (width, height), (border,) * 3)
    draw = ImageDraw.Draw(image)
    outline = (left, top, right - 1, bottom - 1)
    if shape == "round":
        draw.ellipse(outline, fill=(190, 90, 70))
    else:
        cut = min(right - left, bottom - top) // 6
        corners = [
            (left + cut, top),
            (right - 1 - cut, top),
            (right - 1, top + cut),
            (right - 1, bottom - 1 - cut),
            (right - 1 - cut, bottom - 1),
            (left + cut, bottom - 1),
            (left, bottom - 1 - cut),
            (left, top + cut),
        ]
        draw.polygon(corners, fill=(190, 90, 70))
    middle, radius = (
        ((top + bottom) // 2, (left + right) // 2),
        min(bottom - top, right - left) // 8,
    )
    draw.ellipse(
        (middle[1] - radius, middle[0] - radius, middle[1] + radius, middle[0] + radius),
        fill=(12, 5, 4),
    )
    return image, draw


def found(*images):
    return find_field_of_view([np.asarray(image) for image in images])


@pytest.mark.parametrize("shape", ["round", "cut corners"])
@pytest.mark.parametrize("border", [0, 22])
def test_box_around_the_picture(shape, border):
    image, _ = scope_image(shape=shape, border=border)
    assert found(image) == pytest.approx((40, 120, 440, 600), abs=5)


@given(
    height=st.integers(100, 1200),
    ratio=st.floats(0.6, 2),
    edges=st.tuples(*[st.floats(0, 0.3)] * 4),
)
@settings(max_examples=60, deadline=None)
def test_picture_is_never_cut_and_border_is_left_out(height, ratio, edges):
    width = int(ratio * height)
    box = (
        int(edges[0] * height),
        int(edges[1] * width),
        height - int(edges[2] * height),
        width - int(edges[3] * width),
    )
    image, _ = scope_image(height, width, box, "cut corners")
    field = found(image)
    slack = np.ceil(max(height, width) / 160)
    for edge, expected in zip(field, box, strict=True):
        assert abs(edge - expected) <= 2 * slack
    assert 0 <= field.top < field.bottom <= height
    assert 0 <= field.left < field.right <= width


def test_burnt_in_text_and_marks_outside_the_picture():
    image, draw = scope_image(box=(0, 240, 480, 640))
    for line in range(8):
        draw.text((5, 20 + 30 * line), "PATIENT 0042   12:31:07", fill="white")
    draw.rectangle((20, 300, 90, 380), fill=(200, 200, 200))
    assert found(image) == pytest.approx((0, 240, 480, 640), abs=5)


def test_position_panel_that_touches_the_picture():
    image, draw = scope_image(box=(0, 160, 480, 640), shape="cut corners")
    draw.rectangle((0, 300, 200, 480), fill=PANEL)
    draw.line((20, 320, 80, 460), fill="black", width=3)
    assert found(image) == pytest.approx((0, 160, 480, 640), abs=5)


@pytest.mark.parametrize("dye", [(40, 90, 200), (60, 150, 180), (150, 160, 120)])
def test_dye_and_narrow_band_light_belong_to_the_picture(dye):
    assert found(Image.new("RGB", (640, 480), dye)) == (0, 0, 480, 640)


def test_dark_frames_of_a_sequence_do_not_shrink_the_box():
    bright, _ = scope_image()
    half_dark, draw = scope_image()
    draw.rectangle((0, 0, 360, 480), fill="black")
    assert found(half_dark, bright, half_dark) == pytest.approx((40, 120, 440, 600), abs=5)


@pytest.mark.parametrize("value", [0, 20, 120, 255])
def test_nothing_to_tell_apart_gives_the_whole_frame(value):
    assert found(Image.new("L", (64, 48), value).convert("RGB")) == (0, 0, 48, 64)


def test_tiny_frames():
    assert found(Image.new("RGB", (3, 2), "red")) == (0, 0, 2, 3)


def test_sizes_may_not_differ():
    with pytest.raises(ValueError, match="one size"):
        found(Image.new("RGB", (64, 48)), Image.new("RGB", (48, 64)))
    with pytest.raises(ValueError, match="at least one"):
        find_field_of_view([])


def test_one_field_of_view_for_each_size_and_folder(tmp_path):
    boxes = {"a": (40, 120, 440, 600), "b": (0, 0, 480, 500), "c": (20, 20, 200, 260)}
    for folder, box in boxes.items():
        size = (240, 320) if folder == "c" else (480, 640)
        (tmp_path / folder).mkdir()
        for number in range(3):
            image, draw = scope_image(*size, box)
            if number == 0:
                draw.rectangle((0, 0, *size), fill="black")
            image.save(tmp_path / folder / f"{number}.png")
    (tmp_path / "a" / "9.png").write_bytes(b"")
    sequence = open_frames(tmp_path)
    for index, frame in enumerate(sequence.frames):
        field = sequence.field_of_view(index)
        if index in sequence.problems:
            continue
        assert field == pytest.approx(boxes[frame.name[0]], abs=5)


@pytest.mark.parametrize("size", [(480, 640), (481, 643)])
def test_one_field_of_view_where_formats_differ(tmp_path, size):
    for name in ("a.jpg", "b.png", "c.jpg"):
        scope_image(*size)[0].save(tmp_path / name)
    sequence = open_frames(tmp_path)
    for index in range(3):
        assert sequence.field_of_view(index) == pytest.approx((40, 120, 440, 600), abs=6)


def test_field_of_view_of_a_frame_that_cannot_be_read(tmp_path):
    Image.new("RGB", (64, 48), "red").save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"")
    assert open_frames(tmp_path).field_of_view(1) == (0, 0, 48, 64)


class TestRealFrames:
    @pytest.mark.parametrize("name", ["kvasir-seg", "cvc-clinicdb"])
    def test_polyps_are_inside(self, data, name):
        sequence = open_frames(data / name)
        for index in range(0, len(sequence), 12):
            field, mask = sequence.field_of_view(index), sequence.read_mask(index)
            inside = mask[field.top : field.bottom, field.left : field.right].sum()
            # A few masks of CVC are drawn a little beyond the picture.
            assert inside >= 0.97 * mask.sum(), sequence.frames[index].name

    def test_black_border_of_cvc(self, data):
        field = open_frames(data / "cvc-clinicdb").field_of_view(0)
        assert field == pytest.approx((13, 27, 281, 359), abs=3)

    @pytest.mark.parametrize("name", ["seq8", "seq9", "seq1"])
    def test_panel_beside_the_picture(self, data, name):
        sequence = open_frames(data / "polypgen" / "negative" / name)
        assert sequence.field_of_view(0) == pytest.approx((0, 225, 450, 795), abs=12)


def test_a_damaged_frame_that_was_met_before_changes_no_field_of_view(tmp_path, monkeypatch):
    for number in range(70):  # more than are looked at
        Image.new("RGB", (32, 24), "red").save(tmp_path / f"{number:02}.png")
    (tmp_path / "05.png").write_bytes((tmp_path / "05.png").read_bytes()[:50])
    fresh, used = open_frames(tmp_path), open_frames(tmp_path)
    with pytest.raises(InputError):
        used.read(5)
    looked_at = []
    glance = type(fresh)._glance

    def recorded(sequence, index):
        looked_at.append((sequence is used, index))
        return glance(sequence, index)

    monkeypatch.setattr(type(fresh), "_glance", recorded)
    assert fresh.field_of_view(0) == used.field_of_view(0)
    first, second = ([i for of_used, i in looked_at if of_used == which] for which in (0, 1))
    assert first == second
    assert 5 in first
