from __future__ import annotations

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_microaunet.curation.dataset import open_dataset
from napari_microaunet.frames import open_frames
from napari_microaunet.frames.rendered import render_frame
from napari_microaunet.frames.sample_data import sample_data_folder

FOLDER = sample_data_folder()
WITHOUT_POLYP = {"sample_06", "sample_11"}


@pytest.fixture(scope="module")
def frames():
    return open_frames(FOLDER / "frames")


def test_frames_of_several_sizes_have_masks_of_their_size(frames):
    assert len(frames) == 12
    assert len({(frame.height, frame.width) for frame in frames.frames}) >= 4
    for index, frame in enumerate(frames.frames):
        mask = frames.read_mask(index)
        assert mask.shape == frames.read(index).shape[:2] == (frame.height, frame.width)
        assert mask.any() == (frame.name not in WITHOUT_POLYP)


def test_the_clip_has_a_mask_for_every_frame():
    clip = open_frames(FOLDER / "clip.mp4")
    masks = tifffile.imread(FOLDER / "clip-masks.tif")
    assert len(clip) >= 60
    assert masks.shape == (len(clip), clip.frames[0].height, clip.frames[0].width)
    assert masks.dtype == np.uint8
    sizes = (masks == 1).sum(axis=(1, 2))
    assert sizes.max() > 5 * sizes[0] > 0


def test_the_renderer_still_makes_what_is_shipped(frames):
    index = [frame.name for frame in frames.frames].index("sample_05")
    frame, mask = render_frame(151, 288, 384)
    shipped = frames.read_mask(index) > 0
    # Compilers round differently; a few pixels may change sides.
    assert ((mask > 0) & shipped).sum() > 0.99 * ((mask > 0) | shipped).sum()
    assert np.abs(frame.astype(int) - frames.read(index)).mean() < 2


def test_frames_to_replay_can_be_rendered_anew(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "scripts"))
    script = import_module("render_sample_data")
    monkeypatch.setattr(script, "_REPLAY_SEEDS", range(1000, 1002))
    script.write_replay(tmp_path / "frames")
    written = open_dataset(tmp_path / "frames")
    known = open_dataset(FOLDER / "replay")
    assert [frame.split for frame in written.frames] == ["training"] * 2
    for index in range(2):
        assert (written.mask(index) == known.mask(index)).mean() > 0.999
        apart = written.read(index).astype(int) - known.read(index)
        assert np.abs(apart).mean() < 2  # another JPEG encoder may round otherwise


def test_it_stays_small_and_says_that_it_is_free():
    size = sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file())
    assert size < 6e6
    assert "CC0 1.0 Universal" in (FOLDER / "LICENSE").read_text()
