from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

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
