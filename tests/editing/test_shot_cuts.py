from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from napari_microaunet.editing.shot_cuts import is_shot_cut, look, picture_change
from napari_microaunet.frames.rendered import render_clip, render_frame


def frames_of(folder):
    def number(path):
        return int(re.findall(r"\d+", path.stem)[-1])

    for path in sorted(folder.iterdir(), key=number):
        with Image.open(path) as image:
            yield np.asarray(image.convert("RGB"))


def test_neighbours_of_a_clip_are_no_cut_and_another_scene_is():
    clip = [frame for frame, _ in render_clip(3, 6, 96, 120)]
    other = render_frame(1, 96, 120)[0]
    assert not any(is_shot_cut(a, b) for a, b in pairwise(clip))
    assert is_shot_cut(clip[0], other)
    assert is_shot_cut(other, clip[0])
    assert is_shot_cut(clip[0], np.zeros_like(clip[0]))


def test_a_change_of_light_or_size_is_no_cut():
    frame = render_frame(4, 96, 120)[0]
    darker = (frame * 0.8).astype(np.uint8)
    larger = np.asarray(Image.fromarray(frame).resize((200, 170)))
    assert not is_shot_cut(frame, darker)
    assert not is_shot_cut(frame, larger)


def test_change_is_none_for_the_same_picture_and_the_same_both_ways():
    one, other = look(render_frame(4, 96, 120)[0]), look(render_frame(6, 96, 120)[0])
    assert picture_change(one, one) == pytest.approx(0, abs=1e-9)
    assert picture_change(one, other) == pytest.approx(picture_change(other, one))


def test_frames_without_any_contrast_are_compared():
    black, grey = np.zeros((9, 9, 3), np.uint8), np.full((1, 1, 3), 90, np.uint8)
    assert not is_shot_cut(black, black)
    assert not is_shot_cut(grey, grey)
    assert is_shot_cut(black, grey)


def test_joints_of_recorded_sequences_are_cuts(data):
    folders = sorted((data / "polypgen" / "negative").iterdir())[:6]
    looks = [[look(frame) for frame in frames_of(folder)] for folder in folders]
    inside = [picture_change(a, b) for some in looks for a, b in pairwise(some)]
    joints = [picture_change(a[-1], b[0]) for a in looks for b in looks if a is not b]
    assert np.mean(np.array(inside) > 0.8) < 0.08
    assert np.mean(np.array(joints) > 0.8) > 0.7
