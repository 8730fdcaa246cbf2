from __future__ import annotations

from concurrent.futures import CancelledError

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from napari_microaunet.distillation.learner import Normalised
from napari_microaunet.frames.field_of_view import FieldOfView
from napari_microaunet.networks.checkpoint import ModelCard
from napari_microaunet.prelabel.preprocessing import prepare

CARD = ModelCard(
    name="test",
    network="microaunet",
    widths=(8, 16, 16, 16, 24, 24),
    input_size=(64, 96),
    mean=(0.1, 0.2, 0.3),
    std=(0.5, 0.25, 0.125),
)


def test_values_are_normalised_channel_by_channel():
    frame = np.empty((120, 200, 3), np.uint8)
    frame[:] = (255, 51, 0)
    values = prepare(frame, FieldOfView(0, 0, 120, 200), CARD)
    assert values.shape == (3, 64, 96)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values[0], (1.0 - 0.1) / 0.5, atol=1e-6)
    np.testing.assert_allclose(values[1], (0.2 - 0.2) / 0.25, atol=1e-6)
    np.testing.assert_allclose(values[2], (0.0 - 0.3) / 0.125, atol=1e-6)


@given(
    frame=arrays(np.uint8, (32, 48, 3)) | st.just(np.full((32, 48, 3), 77, np.uint8)),
    gain=st.floats(0.5, 1),
)
def test_light_and_colour_are_taken_out_of_a_frame_in_use_and_in_training_alike(frame, gain):
    card = CARD.model_copy(update={"input_size": (32, 48), "standardise": True})
    whole = FieldOfView(0, 0, 32, 48)
    values = prepare(frame, whole, card)
    np.testing.assert_allclose(values.mean(axis=(1, 2)), 0, atol=1e-3)
    assert ((values.std(axis=(1, 2)) < 1.001) | (frame.std(axis=(0, 1)) < 1)).all()
    # A darker frame of another tint is the same frame to the network, but for the rounding.
    if (frame.std(axis=(0, 1)) > 30).all():
        tinted = np.rint(frame * np.array([gain, 1, 0.8])).astype(np.uint8)
        # A value and the mean are off by half a step of 255 each, in deviations of at least 15.
        np.testing.assert_allclose(prepare(tinted, whole, card), values, atol=0.08)

    class Shown(nn.Module):
        def encode(self, inputs):
            self.inputs = inputs
            raise CancelledError

    shown = Shown()
    with pytest.raises(CancelledError):
        Normalised(shown, card)(torch.from_numpy(frame.transpose(2, 0, 1)[None] / np.float32(255)))
    np.testing.assert_allclose(shown.inputs[0].numpy(), values, atol=2e-4)


def test_the_border_around_the_field_of_view_is_not_shown_to_the_network():
    frame = np.zeros((300, 500, 3), np.uint8)
    frame[50:250, 100:400] = 200
    values = prepare(frame, FieldOfView(50, 100, 250, 400), CARD)
    inner = (200 / 255 - np.array(CARD.mean)) / np.array(CARD.std)
    # The filter reaches one value into the border.
    np.testing.assert_allclose(
        values[:, 1:-1, 1:-1],
        np.broadcast_to(inner[:, None, None], (3, 62, 94)),
        atol=1e-5,
    )


def test_fine_patterns_are_averaged_and_not_aliased():
    frame = np.zeros((640, 960, 3), np.uint8)
    frame[::2, ::2] = frame[1::2, 1::2] = 255
    values = prepare(frame, FieldOfView(0, 0, 640, 960), CARD)
    grey = (127.5 / 255 - 0.1) / 0.5
    np.testing.assert_allclose(values[0], grey, atol=0.02)


@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    edges=st.tuples(*[st.floats(0, 1)] * 4),
)
def test_any_box_of_any_frame_fits_the_network(height, width, edges):
    top, bottom = sorted((int(edges[0] * (height - 1)), int(edges[1] * (height - 1))))
    left, right = sorted((int(edges[2] * (width - 1)), int(edges[3] * (width - 1))))
    frame = np.full((height, width, 3), 90, np.uint8)
    values = prepare(frame, FieldOfView(top, left, bottom + 1, right + 1), CARD)
    assert values.shape == (3, 64, 96)
    np.testing.assert_allclose(values[1], (90 / 255 - 0.2) / 0.25, atol=1e-5)
