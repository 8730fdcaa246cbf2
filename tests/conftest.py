from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_microaunet import cli
from napari_microaunet.frames.sample_data import sample_data_folder
from napari_microaunet.networks.checkpoint import load_checkpoint, save_checkpoint
from napari_microaunet.networks.library import Model, find_model, user_models
from napari_microaunet.networks.onnx_export import graph_beside, onnx_file

DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def data():
    """Real frames for development; they are not part of the project."""
    if not DATA.is_dir():
        pytest.skip("no real frames on this machine")
    return DATA


@pytest.fixture(scope="session", autouse=True)
def own_folders(tmp_path_factory):
    """Keep the user's models and the cache of ONNX graphs out of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("XDG_DATA_HOME", "XDG_CACHE_HOME"):
            patch.setenv(variable, str(tmp_path_factory.mktemp(variable)))
        yield


@cache
def sample_polyps():
    """Return the sample frames that show a polyp, each with the box that holds it."""
    folder = sample_data_folder() / "frames"
    shown = []
    for path in sorted((folder / "images").iterdir()):
        with Image.open(folder / "masks" / f"{path.stem}.png") as mask:
            box = mask.getbbox()
        if box is not None:
            with Image.open(path) as image:
                shown.append((image.convert("RGB"), box))
    return shown


@pytest.fixture(scope="session")
def make_frame():
    """Make a frame of any size from a seed: a cut-out of a sample frame around its polyp."""

    def make(seed, height=90, width=120):
        frame, (left, top, right, bottom) = sample_polyps()[seed % len(sample_polyps())]
        share = np.random.default_rng(seed).uniform(0, 0.8, 4)
        box = (
            left * share[0],
            top * share[1],
            frame.width - (frame.width - right) * share[2],
            frame.height - (frame.height - bottom) * share[3],
        )
        return np.asarray(frame.resize((width, height), Image.Resampling.BILINEAR, box=box))

    return make


@pytest.fixture(scope="session")
def model(own_folders, make_frame):
    """The bundled student as "mine" in the user's library; it marks the frames of seeds 0 to 5."""
    from napari_microaunet.frames import FieldOfView
    from napari_microaunet.prelabel.predictor import Predictor

    student = find_model("student")
    predictor = Predictor(student)
    peaks = [
        predictor.predict_frame(make_frame(seed), FieldOfView(0, 0, 90, 120)).values.max() / 255
        for seed in range(6)
    ]
    path = user_models() / "mine.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    own = {"name": "mine", "threshold": 0.5 * min(peaks), "least_peak": 0.0}
    card = student.card.model_copy(update=own)
    mine = Model("mine", path, save_checkpoint(path, load_checkpoint(student.path)[0], card))
    shutil.copy(onnx_file(student), graph_beside(mine))
    return mine


@pytest.fixture
def rename_to_bytes():
    """Give a file a name that is no UTF-8, as those from old archives; not all systems allow it."""

    def rename(path, name):
        try:
            return path.rename(path.parent / os.fsdecode(name))
        except (OSError, UnicodeError):
            pytest.skip("names are Unicode here")

    return rename


@pytest.fixture
def microaunet(monkeypatch, capsys):
    """Run the command as its users do; give exit code, stdout and stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["microaunet", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    return run


@pytest.fixture
def mount(tmp_path):
    """Mount a drive of some kilobytes, which can be filled and made read-only."""
    mounted = []

    def run(*command):
        return subprocess.run(command, capture_output=True, check=False).returncode == 0  # noqa: S603

    def mount_it(size="3m"):
        place = tmp_path / "drive"
        place.mkdir()
        options = ("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place))
        if shutil.which("mount") is None or not run("mount", *options):
            pytest.skip("a drive may not be mounted here")
        mounted.append(place)
        return place

    mount_it.remount = lambda place, how: run("mount", "-o", f"remount,{how}", str(place))
    yield mount_it
    for place in mounted:
        run("umount", "-l", str(place))
