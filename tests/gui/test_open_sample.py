from __future__ import annotations

import numpy as np

PLUGIN = "napari-microaunet"


def test_open_sample_shows_the_frames_and_their_masks(make_napari_viewer):
    viewer = make_napari_viewer()
    image, labels = viewer.open_sample(PLUGIN, "frames")
    assert image.data.shape == (12, 1024, 1280, 3)
    assert labels.data.shape == (12, 1024, 1280)
    first = np.asarray(image.data[0])[np.asarray(labels.data[0]) > 0]
    assert len(first) > 1000
    # Polyps are lit tissue: red over green over blue on average.
    red, green, blue = first.mean(axis=0)
    assert red > green > blue > 0


def test_open_sample_shows_the_clip_and_keeps_its_masks_hidden(make_napari_viewer):
    viewer = make_napari_viewer()
    image, reference = viewer.open_sample(PLUGIN, "clip")
    assert image.data.shape == (96, 288, 360, 3)
    assert reference.data.shape == (96, 288, 360)
    assert not reference.visible
    viewer.dims.set_point(0, 48)
    assert set(np.unique(reference.data[48])) == {0, 1}
