"""Masks as image files: what their values mean when read, and how they are written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, PngImagePlugin

from napari_microaunet.atomic import replacing
from napari_microaunet.frames.images import on_black, opened, upright
from napari_microaunet.frames.sequence import UnreadableError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

IGNORE = 255
# Why such a frame, by its name, neither teaches nor judges.
IGNORED_THROUGHOUT = "Frame {} is to be ignored throughout: its mask says nothing."

# A label image holds few polyps with low numbers; a drawn mask that was scaled or smoothed
# holds many values, some of them bright.
_LARGEST_LABEL = 127
_MOST_LABELS = 32
# Formats that keep values as they were written. WebP may be lossy, JPEG always is.
_LOSSLESS = frozenset({"PNG", "TIFF", "BMP"})
# Text chunk of our PNG files. Without it, a frame with nothing but regions to ignore could not
# be told from one with a polyp drawn in white.
_LABELS_MARK = ("MicroAUNet", "labels: 0 background, 1..n polyps, 255 ignore")


def read_mask_file(path: Path) -> NDArray[np.uint8]:
    """Read a mask as labels.

    The brightest channel counts; of a palette with colours, the index does, unless black has
    another index than 0: programs that choose a palette for a picture put it anywhere. Then

    - a PNG file of `write_mask_file` is taken as it is;
    - a file of a lossless format whose values other than 0 and 255 are all at most 127, are
      not more than 32 different ones, and are not missing altogether, is a label image and is
      taken as it is: 1..n polyps, 255 ignore; where there is 255, the others have to be
      1..n without a gap, because white with a few stray grays is a drawn polyp (CVC-ClinicDB);
    - anything else is a picture of a mask: brighter than 127 is polyp 1. So are masks of 0 and
      255, and JPEG masks with gray edges (Kvasir-SEG).

    Parameters
    ----------
    path : Path
        An image file.

    Returns
    -------
    ndarray of uint8, shape (height, width)
        0 background, 1..n polyps, 255 ignore.

    Raises
    ------
    UnreadableError
        If the file cannot be decoded.
    """
    values, are_labels = read_mask_values(path)
    return values if are_labels else (values > 127).astype(np.uint8)


def read_mask_values(path: Path) -> tuple[NDArray[np.uint8], bool]:
    """Read the values of a mask as they are in the file.

    Parameters
    ----------
    path : Path
        An image file.

    Returns
    -------
    values : uint8 array, shape (height, width)
        The brightest channel, or the index of a palette, as `read_mask_file` says.
    are_labels : bool
        Whether `read_mask_file` takes them as they are, or as the picture of a mask.

    Raises
    ------
    UnreadableError
        If the file cannot be decoded.
    """
    with opened(path) as image:
        lossless = image.format in _LOSSLESS
        marked = _is_marked(image)
        values = _values(upright(image))
    if marked or not lossless:
        return values, marked
    present = np.flatnonzero(np.bincount(values.ravel(), minlength=256))
    labels = present[(present != 0) & (present != IGNORE)]
    few = 0 < len(labels) <= _MOST_LABELS and labels.max() <= _LARGEST_LABEL
    return values, bool(few and (IGNORE not in present or labels.max() == len(labels)))


def is_of_ours(path: Path) -> bool:
    """Tell whether a file is a PNG of `write_mask_file`; such are called as their frames are."""
    try:
        with opened(path) as image:
            return _is_marked(image)
    except UnreadableError:
        return False


def write_mask_file(path: Path, labels: NDArray[np.uint8]) -> None:
    """Write labels as an 8-bit gray PNG that `read_mask_file` reads back as they are.

    The file appears complete or not at all; one that exists is replaced.

    Parameters
    ----------
    path : Path
        Target, ``NAME.png``; its folder exists.
    labels : ndarray of uint8, shape (height, width)
        0 background, 1..n polyps, 255 ignore.
    """
    mark = PngImagePlugin.PngInfo()
    mark.add_text(*_LABELS_MARK)
    with replacing(path) as file:
        Image.fromarray(labels).save(file, format="PNG", pnginfo=mark)


def _is_marked(image: Image.Image) -> bool:
    key, value = _LABELS_MARK
    return bool(image.info.get(key) == value)


def _values(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode == "P" and _indices_are_labels(image):
        return np.asarray(image)
    if image.mode.startswith("I"):
        values = np.asarray(image)
        return (values if values.max() <= 255 else values >> 8).astype(np.uint8)
    brightest: NDArray[np.uint8] = np.asarray(on_black(image)).max(axis=2)
    return brightest


def _indices_are_labels(image: Image.Image) -> bool:
    palette = np.asarray(image.getpalette("RGB")).reshape(-1, 3)
    if (palette == palette[:, :1]).all():
        return False
    used = palette[np.unique(np.asarray(image))]
    return not palette[0].any() or bool(used.any(axis=1).all())
