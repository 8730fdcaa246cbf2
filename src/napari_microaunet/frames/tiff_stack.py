"""TIFF stacks: ImageJ, OME and plain ones, read frame by frame."""

from __future__ import annotations

import logging
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
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from tifffile import TiffPageSeries

    from napari_microaunet.frames.sequence import FrameSequence

_log = logging.getLogger(__name__)

TIFF_SUFFIXES = frozenset({".tif", ".tiff"})

# With these, tifffile puts pages into one series by what they are, not by what notes in the file
# say.
_BY_PAGES = {"is_shaped": False, "is_ome": False}


def open_tiff(path: Path) -> FrameSequence:
    """Open a TIFF file: a stack of frames, or a single image.

    The first series of the file is read, with the axes (T, Y, X), (T, Y, X, 3) or
    (T, 3, Y, X); axes of length 1 do not count, nor do names of axes, but for colours, which
    are called channels or samples if anything. Where every page is a series of its own, as
    programs write that add frame by frame, those of the first one's kind are the frames.

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
            series, flags = file.series[0], {}
            if _is_page_by_page(file.series):
                with tifffile.TiffFile(path, **_BY_PAGES) as joined:
                    series, flags = joined.series[0], _BY_PAGES
                    left_out = len(joined.pages) - len(series.pages)
                if left_out:
                    _log.warning("%s: %d pages of another kind are no frames", path, left_out)
            check_sides(series.keyframe.imagewidth, series.keyframe.imagelength)
            single = len(file.pages) == 1 and series.shape == file.pages.first.shape
            stack = None if single else _stack(path, series, flags)
    except (UnreadableError, *DECODING_ERRORS) as error:
        raise InputError(
            f"{path} cannot be read as a TIFF file ({error}); "
            "export it again, for instance with ImageJ and uncompressed."
        ) from error
    if stack is None:
        return open_images([path])
    array, axes = stack
    return ArraySequence(array, unicode_name(path.stem.removesuffix(".ome")), axes, path)


def _is_page_by_page(series: Sequence[TiffPageSeries]) -> bool:
    return len(series) > 1 and all(len(one.pages) == 1 for one in series)


def _stack(path: Path, series: TiffPageSeries, flags: dict[str, bool]) -> tuple[ArrayLike, str]:
    """Return the series as an array that is read when it is indexed, and its axes."""
    import tifffile

    plain = tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB
    if series.keyframe.photometric in plain:
        import zarr

        # Not mapped into memory: a file that another program shortens would end this one. The
        # largest level alone of a pyramid, which would be a group of arrays else.
        store = tifffile.imread(path, series=0, level=0, aszarr=True, **flags)
        array = zarr.open_array(store, mode="r")
        try:
            array[(0,) * (array.ndim - 2)]
        except ValueError:  # a codec that is left to Pillow below
            pass
        else:
            return array, series.axes
    sides = zip(series.axes, series.shape, strict=True)
    if sum(length > 1 for axis, length in sides if axis not in "YXS") > 1:
        raise UnreadableError("its pages are channels or slices in a compression that hides them")
    pages = _Pages(path)
    return pages, "TYX" if pages.is_deep else "TYXS"


class _Pages:
    """The pages of a TIFF file, read by Pillow: palettes, CMYK, LZW and JPEG.

    Attributes
    ----------
    is_deep : bool
        Whether they are gray of more than 8 bits. Those stay as they are, so that all pages are
        scaled alike; others become RGB.
    """

    def __init__(self, path: Path) -> None:
        self._image = Image.open(path)
        self._lock = Lock()
        count = getattr(self._image, "n_frames", 1)
        size = count, self._image.height, self._image.width
        self.is_deep = self._image.mode[0] in "IF"
        self.shape = size if self.is_deep else (*size, 3)
        self.dtype = np.asarray(self._image).dtype if self.is_deep else np.dtype(np.uint8)

    def __getitem__(self, index: tuple[Any, ...]) -> NDArray[Any]:
        with self._lock:
            self._image.seek(index[0])
            page = np.asarray(self._image if self.is_deep else on_black(self._image))
        if page.shape != self.shape[1:]:
            raise ValueError("a page of another size or kind than the first")
        return page
