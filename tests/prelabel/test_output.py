from __future__ import annotations

import os

import numpy as np
import pytest
from PIL import Image

from napari_microaunet.errors import InputError
from napari_microaunet.frames import FieldOfView, Frame, FrameSequence, open_frames
from napari_microaunet.prelabel.masks import MaskSettings
from napari_microaunet.prelabel.output import (
    OutputOptions,
    outlined,
    write_prelabels,
)
from napari_microaunet.prelabel.predictor import Predictor


def test_an_overlay_shows_the_rim_of_every_polyp_and_leaves_the_rest_as_it_was():
    frame = np.random.default_rng(0).integers(0, 200, (400, 800, 3), np.uint8)
    mask = np.zeros((400, 800), np.uint8)
    mask[50:150, 60:200] = 1
    mask[250:300, 500:600] = 3  # numbers need not be dense
    before = frame.copy()
    drawn = outlined(frame, mask)
    np.testing.assert_array_equal(frame, before)
    rim = np.zeros((400, 800), bool)
    for top, bottom, left, right in ((50, 150, 60, 200), (250, 300, 500, 600)):
        rim[top:bottom, left:right] = True
        rim[top + 2 : bottom - 2, left + 2 : right - 2] = False  # 2 px in 800
    np.testing.assert_array_equal((drawn != frame).any(axis=2), rim)
    assert len(np.unique(drawn[rim], axis=0)) == 1


def test_a_polyp_in_the_box_of_another_is_outlined_by_itself():
    frame, mask = np.zeros((400, 800, 3), np.uint8), np.zeros((400, 800), np.uint8)
    mask[50:350, 100:130] = 1
    mask[320:350, 100:700] = 1  # an L, in whose box the other one lies
    mask[100:200, 300:760] = 2
    drawn = outlined(frame, mask).any(axis=2)
    assert drawn[100:102, 300:760].all()
    # Where the box of the L ends, the other polyp does not.
    assert not drawn[110:190, 310:750].any()


class TwoFrames(FrameSequence):
    """Two frames, the second with a name of the test's choice."""

    def __init__(self, folder, name):
        self.folder = folder
        names = ("first", name)
        super().__init__(folder, "two", [Frame(name, folder / "x.png", 64, 64) for name in names])
        self.left = {0, 1}

    def field_of_view(self, index):  # noqa: ARG002
        return FieldOfView(0, 0, 64, 64)

    def _decode(self, index):
        random = np.random.default_rng(index).integers(60, 255, (5, 5, 3), np.uint8)
        return np.asarray(Image.fromarray(random).resize((64, 64)))


@pytest.mark.parametrize("name", ["../outside", "a/../../b", "/etc/passwd"])
def test_a_name_that_leads_out_of_the_folder_is_refused_before_any_work(model, tmp_path, name):
    with pytest.raises(InputError, match="leads out"):
        write_prelabels(
            Predictor(model),
            TwoFrames(tmp_path / "frames", name),
            tmp_path / "out",
            MaskSettings(),
            OutputOptions(overwrite=True),
        )
    assert not (tmp_path / "out").exists()


def test_a_cancelled_run_lists_what_was_done(model, tmp_path):
    done = []
    results = write_prelabels(
        Predictor(model),
        TwoFrames(tmp_path / "frames", "second"),
        tmp_path / "out",
        MaskSettings(),
        OutputOptions(),
        progress=lambda *counts: done.append(counts),
        cancelled=lambda: len(done) >= 1,
    )
    assert [result.name for result in results] == ["first"]
    assert len((tmp_path / "out/confidence.csv").read_text().splitlines()) == 2
    assert [path.stem for path in (tmp_path / "out/masks").iterdir()] == ["first"]


def test_a_frame_that_cannot_be_read_keeps_nothing_of_an_earlier_run(model, tmp_path):
    frames, out = tmp_path / "frames", tmp_path / "out"
    frames.mkdir()
    for name in ("one", "two"):
        Image.new("RGB", (64, 64), "red").save(frames / f"{name}.png")
    options = OutputOptions(overlay=True, overwrite=True)
    for broken in (False, True):
        if broken:
            (frames / "two.png").write_bytes((frames / "two.png").read_bytes()[:60])
        sequence = open_frames(frames)
        write_prelabels(Predictor(model), sequence, out, MaskSettings(), options)
    assert [path.stem for path in sorted(out.rglob("*.[pj][np]g"))] == ["one", "one"]


def test_frames_in_a_folder_whose_name_is_no_utf8_are_listed_with_their_problem(model, tmp_path):
    frames = tmp_path / os.fsdecode(b"Gr\xfcn")
    frames.mkdir()
    Image.new("RGB", (64, 64), "red").save(frames / "one.png")
    (frames / "two.png").write_bytes(b"no picture")
    write_prelabels(
        Predictor(model), open_frames(frames), tmp_path / "out", MaskSettings(), OutputOptions()
    )
    assert "Gr%FCn" in (tmp_path / "out" / "confidence.csv").read_text(encoding="utf-8")
