"""TIFF stacks: ImageJ, OME and plain ones, memory-mapped where the file allows."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from napari_microaunet.errors import InputError
from napari_microaunet.frames.arrays import ArrayLike, ArraySequence
from napari_microaunet.frames.folder import open_images
from napari_microaunet.frames.images import DECODING_ERRORS, check_sides, on_black
from napari_microaunet.frames.sequence import UnreadableError, unicode_name

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from tifffile import TiffPageSeries

    from napari_microaunet.frames.sequence import FrameSequence

TIFF_SUFFIXES = frozenset({".tif", ".tiff"})


def open_tiff(path: Path) -> FrameSequence:
    """Open a TIFF file: a stack of frames, or a single image.

    The first series of the file is read, with the axes (T, Y, X), (T, Y, X, 3) or
    (T, 3, Y, X) under whatever names; axes of length 1 do not count.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    FrameSequence
        The frames.

    Raises
    ------
    InputError
        If it is no TIFF file, or not one that holds a stack of frames.
    """
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            series = file.series[0]
            check_sides(series.keyframe.imagewidth, series.keyframe.imagelength)
            single = len(file.pages) == 1 and series.shape == file.pages.first.shape
            stack = None if single else _stack(path, series)
    except (UnreadableError, *DECODING_ERRORS) as error:
        raise InputError(
            f"{path} cannot be read as a TIFF file ({error}); "
            "export it again, for instance with ImageJ and uncompressed."
        ) from error
    if stack is None:
        return open_images([path])
    array, axes = stack
    return ArraySequence(array, unicode_name(path.stem.removesuffix(".ome")), axes, path)


def _stack(path: Path, series: TiffPageSeries) -> tuple[ArrayLike, str]:
    """Return the series as an array that is read when it is indexed, and its axes."""
    import tifffile

    plain = tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB
    if series.keyframe.photometric in plain:
        try:
            return tifffile.memmap(path, series=0, mode="r"), series.axes
        except ValueError:  # compressed, or scattered over the file
            import zarr

            array = zarr.open_array(tifffile.imread(path, series=0, aszarr=True), mode="r")
        try:
            array[(0,) * (array.ndim - 2)]
        except ValueError:  # a codec that is left to Pillow below
            pass
        else:
            return array, series.axes
    return _Pages(path), "TYXS"


class _Pages:
    """The pages of a TIFF file in RGB, read by Pillow: palettes, CMYK, LZW and JPEG."""

    dtype = np.dtype(np.uint8)

    def __init__(self, path: Path) -> None:
        self._image = Image.open(path)
        self._lock = Lock()
        count = getattr(self._image, "n_frames", 1)
        self.shape = (count, self._image.height, self._image.width, 3)

    def __getitem__(self, index: tuple[Any, ...]) -> NDArray[np.uint8]:
        with self._lock:
            self._image.seek(index[0])
            return np.asarray(on_black(self._image))
