"""The runs that Label Studio keeps brush strokes in (thi.ng/rle-pack), as bytes.

32 bits: how many values follow; 5 bits: bits of a value, less 1; four times 4 bits: the bits of
the four sizes of a length, less 1. Then blocks: 1 bit that tells runs from single values, 2 bits
that choose the size of a length, the length less 1, and one value for a run, else all of them.
A pixel is four values, R, G, B and A (``label_studio_converter/brush.py``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_microaunet.errors import InputError
from napari_microaunet.exchange.regions import run_lengths

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Region = NDArray[np.bool_]

_CHANNELS = 4
_VALUE_BITS = 8
_LENGTH_BITS = (3, 4, 8, 16)
_LONGEST = 2 ** _LENGTH_BITS[-1]
# A value is inside from here on; brushes are 0 or 255.
_INSIDE = 128


def encode_brush(region: Region) -> list[int]:
    """Encode a region.

    Parameters
    ----------
    region : bool array, shape (height, width)

    Returns
    -------
    list of int
        Bytes.
    """
    bits = [f"{region.size * _CHANNELS:032b}", f"{_VALUE_BITS - 1:05b}"]
    bits += [f"{length - 1:04b}" for length in _LENGTH_BITS]
    for number, length in enumerate(run_lengths(region)):
        value = f"{255 * (number % 2):08b}"
        left = length * _CHANNELS
        while left:
            now = min(left, _LONGEST)
            bits.append(f"111{now - 1:016b}{value}")
            left -= now
    digits = np.frombuffer("".join(bits).encode(), np.uint8) - ord("0")
    encoded: list[int] = np.packbits(digits).tolist()
    return encoded


def decode_brush(encoded: Sequence[Any], size: tuple[int, int], file: Path, where: str) -> Region:
    """Decode a region.

    Parameters
    ----------
    encoded : sequence of int
        Bytes.
    size : (int, int)
        Height and width.
    file : Path
        What it stands in.
    where : str
        The frame, for the message.

    Returns
    -------
    bool array, shape (height, width)

    Raises
    ------
    InputError
        If it is damaged, or of another size.
    """
    try:
        stored = np.array(encoded)
        content = stored.astype(np.uint8)
        total = size[0] * size[1] * _CHANNELS if (content == stored).all() else -1
        values = np.concatenate(list(_blocks(np.unpackbits(content), total)))
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(
            f"{file}: a brush of {where} is damaged or of another size; export it again."
        ) from error
    region: Region = values.reshape(*size, _CHANNELS)[:, :, -1] >= _INSIDE
    return region


def _blocks(bits: NDArray[np.uint8], total: int) -> Iterator[NDArray[np.uint8]]:
    """Give the values of a brush block by block, exactly so many; raise ValueError else."""
    text = (bits + ord("0")).tobytes().decode()
    at = 0

    def number(count: int) -> int:
        nonlocal at
        at += count
        if at > len(text):
            raise ValueError("it ends early")
        return int(text[at - count : at], 2)

    if number(32) != total:
        raise ValueError("it is of another size")
    word = number(5) + 1
    if word > _VALUE_BITS:
        raise ValueError("its values are too large")
    sizes = [number(4) + 1 for _ in range(4)]
    left = total
    while left:
        is_run = number(1)
        length = number(sizes[number(2)]) + 1
        if length > left:
            raise ValueError("it is too long")
        left -= length
        if is_run:
            yield np.full(length, number(word), np.uint8)
        else:
            yield np.array([number(word) for _ in range(length)], np.uint8)
