"""One image file to pixels: any format, mode, depth and orientation to upright 8-bit RGB."""

from __future__ import annotations

import struct
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from napari_microaunet.frames.sequence import UnreadableError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})

# 8K video is 7680 wide; a longer side is a damaged header or a decompression bomb, and one
# such frame would stretch the canvas of all the others.
LARGEST_SIDE = 8192

# What Pillow and tifffile raise on damaged files, depending on the format and the damage.
DECODING_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    AssertionError,
    RuntimeError,
    struct.error,
    zlib.error,
)

# EXIF 2.32, tag 0x0112: how the stored picture is turned to stand upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Sensors of these depths are stored in 16 bits, often unscaled.
_BIT_DEPTHS = (8, 10, 12, 14, 16)


def read_size(path: Path) -> tuple[int, int]:
    """Read the size of an image from its header, without decoding it.

    Parameters
    ----------
    path : Path
        A file in one of the formats of `IMAGE_SUFFIXES`.

    Returns
    -------
    tuple of int
        Height and width of the upright image, in pixels.

    Raises
    ------
    UnreadableError
        If the file is missing, empty, no image, absurdly large, or holds several frames.
    """
    with opened(path) as image:
        height, width = image.height, image.width
        if image.format == "TIFF" and getattr(image, "is_animated", False):
            image.seek(1)
            # Second pages of another size are thumbnails and levels of a pyramid.
            if (image.height, image.width) == (height, width):
                raise UnreadableError("it holds several pages; open the stack by itself")
            image.seek(0)
        return (width, height) if _orientation(image) >= 5 else (height, width)


def read_rgb(path: Path, smallest_side: int | None = None) -> NDArray[np.uint8]:
    """Decode an image file.

    Transparent pixels are shown on black. Gray values of 16 bits are scaled as `to_uint8` says;
    colours of 16 bits keep their upper byte.

    Parameters
    ----------
    path : Path
        A file in one of the formats of `IMAGE_SUFFIXES`.
    smallest_side : int, optional
        JPEG files are decoded to a half, a quarter or an eighth, much faster, as long as both
        sides keep so many pixels.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
        The upright image in RGB.

    Raises
    ------
    UnreadableError
        If the file cannot be decoded to its end.
    """
    with opened(path) as image:
        if smallest_side is not None:
            image.draft(None, (smallest_side, smallest_side))
        stored = upright(image)
        if stored.mode[0] in "IF":
            gray = to_uint8(np.asarray(stored))
            return np.repeat(gray[:, :, np.newaxis], 3, axis=2)
        return np.asarray(on_black(stored))


def to_uint8(values: NDArray[Any], brightest: float | None = None) -> NDArray[np.uint8]:
    """Scale gray or colour values of any type to 8 bits.

    Booleans become 0 and 255. Integers are taken to have the smallest of 8, 10, 12, 14 and
    16 bits that holds the brightest value, and lose the lower ones. Beyond, and for floats, the
    brightest value becomes 255; floats are taken to lie in [0, 1] where the brightest does.
    Negative values become 0.

    Parameters
    ----------
    values : ndarray
        Any shape; bool, integer or float.
    brightest : float, optional
        The brightest value of the whole sequence, so that all its frames are scaled alike;
        of `values` where it is not given (`brightest_of`).

    Returns
    -------
    ndarray of uint8
        Same shape.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype == bool:
        return np.where(values, np.uint8(255), np.uint8(0))
    if brightest is None:
        brightest = brightest_of(values)
    if np.issubdtype(values.dtype, np.integer):
        bits = next((b for b in _BIT_DEPTHS if brightest < 2**b), None)
        if bits is not None:
            shifted = np.clip(values, 0, None) >> (bits - 8)
            # Other frames may be brighter than those that the sequence's brightest was taken of.
            clipped: NDArray[np.uint8] = np.minimum(shifted, 255).astype(np.uint8)
            return clipped
    scaled = np.nan_to_num(values / max(brightest, 1.0), nan=0.0, posinf=1.0, neginf=0.0)
    rounded: NDArray[np.uint8] = (np.clip(scaled, 0, 1) * 255).round().astype(np.uint8)
    return rounded


def brightest_of(values: NDArray[Any]) -> float:
    """Return the largest value of an array, infinite ones left out; 0 if there is none above."""
    return float(np.max(values, where=np.isfinite(values), initial=0))


def upright(image: Image.Image) -> Image.Image:
    """Turn an image as its EXIF orientation says."""
    turn = _UPRIGHT.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def stands_upright(path: Path) -> bool:
    """Tell whether an image can be read, and upright without a look at its EXIF orientation."""
    try:
        with opened(path) as image:
            return _orientation(image) not in _UPRIGHT
    except UnreadableError:
        return False


def on_black(image: Image.Image) -> Image.Image:
    """Convert an image of any 8-bit mode to RGB, transparent pixels on black."""
    if image.has_transparency_data:
        opaque = Image.new("RGBA", image.size, "black")
        opaque.alpha_composite(image.convert("RGBA"))
        return opaque.convert("RGB")
    return image.convert("RGB")


def check_sides(width: int, height: int) -> None:
    """Raise `UnreadableError` for a frame that is larger than any camera's, sides in pixels."""
    if max(width, height) > LARGEST_SIDE:
        raise UnreadableError(
            f"it claims {width} x {height} px, more than {LARGEST_SIDE} px a side are refused"
        )


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Open an image, and give every way in which Pillow fails on it one plain reason.

    Parameters
    ----------
    path : Path
        The file.

    Yields
    ------
    PIL.Image.Image
        The image, not decoded yet.

    Raises
    ------
    UnreadableError
        If opening it, or anything done with it inside the block, fails.
    """
    try:
        if path.stat().st_size == 0:
            raise UnreadableError("the file is empty")
        # By a file: with a path, Pillow maps gray and RGBA TIFF files into memory by their upright
        # sides before it turns them.
        with path.open("rb") as file, Image.open(file) as image:
            check_sides(*image.size)
            yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableError(f"more than {LARGEST_SIDE} px a side are refused") from error
    except FileNotFoundError as error:
        raise UnreadableError("the file is missing") from error
    except PermissionError as error:
        raise UnreadableError("the file may not be read by you") from error
    except UnidentifiedImageError as error:
        raise UnreadableError("the content is no image of a known format") from error
    except DECODING_ERRORS as error:
        raise UnreadableError(f"the file is damaged or ends early ({error})") from error


def _orientation(image: Image.Image) -> int:
    # Pillow turns TIFF files by itself. For PNG files it would decode the whole image to look
    # for EXIF data behind the pixels, so only data before them counts.
    if image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info):
        return 1
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    return orientation if orientation in _UPRIGHT else 1
