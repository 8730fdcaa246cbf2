"""Where the sample data lies; ``scripts/render_sample_data.py`` makes it."""

from __future__ import annotations

from pathlib import Path

from napari_microaunet.errors import InputError


def sample_data_folder() -> Path:
    """Find the sample data, in an installed package or in a checkout.

    Returns
    -------
    Path
        Folder with ``frames/images``, ``frames/masks``, ``clip.mp4`` and ``clip-masks.tif``.

    Raises
    ------
    InputError
        If it is in neither place.
    """
    package = Path(__file__).parents[1]
    for place in (package / "sample_data", package.parents[1] / "sample_data"):
        if (place / "frames").is_dir():
            return place
    raise InputError(f"The sample data is missing from {package}; install napari-microaunet again.")
