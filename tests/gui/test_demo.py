"""The demo is what a new user runs first."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from napari_microaunet.frames.sample_data import sample_data_folder

if TYPE_CHECKING:
    from pathlib import Path


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603
        [sys.executable, "-m", "napari_microaunet.widgets.demo", *arguments],
        check=False,
        capture_output=True,
        text=True,
    )


def test_the_picture_shows_frames_and_masks(tmp_path: Path) -> None:
    file = tmp_path / "window.png"
    result = demo(str(sample_data_folder() / "frames"), "--screenshot", str(file))
    assert result.returncode == 0, result.stderr
    picture = np.asarray(Image.open(file).convert("RGB")).astype(int)
    red, green, blue = np.moveaxis(picture, 2, 0)
    tissue = (red > green + 40) & (green > blue)
    mask = (blue > red + 20) & (green > red + 20)  # the first label's cyan, over tissue
    assert tissue.mean() > 0.05
    assert mask.mean() > 0.005


def test_frames_that_are_not_there_end_it_with_one_sentence(tmp_path: Path) -> None:
    result = demo(str(tmp_path / "nothing"), "--screenshot", str(tmp_path / "window.png"))
    assert result.returncode == 1
    said = result.stdout + result.stderr  # napari says errors where it likes
    assert "does not exist" in said
    assert "Traceback" not in said
