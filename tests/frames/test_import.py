from __future__ import annotations

import subprocess
import sys

import pytest

LATE = "av dask tifffile zarr scipy skimage torch onnxruntime napari qtpy"


@pytest.mark.parametrize("module", ["frames", "frames.canvas", "frames.masks"])
def test_listing_frames_loads_nothing_slow(tmp_path, module):
    """The window and the command line open before these libraries are there."""
    lines = f"import sys, napari_microaunet.{module}\nprint(*sys.modules)"
    loaded = subprocess.run(  # noqa: S603
        [sys.executable, "-c", lines], check=True, capture_output=True, text=True, cwd=tmp_path
    ).stdout.split()
    assert f"napari_microaunet.{module}" in loaded
    assert not set(LATE.split()) & set(loaded)
