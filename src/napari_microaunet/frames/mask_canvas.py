"""The masks beside a sequence as one stack for the viewer, which can be painted on."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_microaunet.errors import InputError

if TYPE_CHECKING:
    import zarr
    from zarr.core.buffer import Buffer

    from napari_microaunet.frames.sequence import FrameSequence

# Of Zstandard: the fastest; masks are mostly runs of equal values.
_LEVEL = 1


def mask_canvas(sequence: FrameSequence) -> zarr.Array[Any]:
    """Stack the masks of a sequence on the canvas of its frames.

    A mask file is read when its frame is first looked at; opening costs nothing, and a frame
    costs the memory of its compressed labels. A mask that cannot be used is empty, with
    a warning that names it. What is painted stays in memory; the mask files are not touched.

    Parameters
    ----------
    sequence : FrameSequence
        With or without masks; without, the stack is empty.

    Returns
    -------
    zarr.Array of uint8, shape (frames, height, width)
        0 background, 1..n polyps, 255 ignore; in memory, one chunk per frame.
    """
    import zarr.codecs
    import zarr.storage

    height, width = sequence.canvas_shape
    return zarr.create_array(
        store=zarr.storage.MemoryStore(_MaskChunks(sequence)),
        shape=(len(sequence), height, width),
        chunks=(1, height, width),
        dtype=np.uint8,
        fill_value=0,
        compressors=zarr.codecs.ZstdCodec(level=_LEVEL),
    )


class _MaskChunks(dict[str, "Buffer"]):
    """The contents of the Zarr store: chunks appear when they are looked up the first time."""

    def __init__(self, sequence: FrameSequence) -> None:
        self._sequence = sequence
        # Chunks whose mask file counts: not those that were read, painted on or emptied since.
        self._unread = {f"c/{i}/0/0": i for i in range(len(sequence))} if sequence.has_masks else {}

    def __missing__(self, key: str) -> Buffer:
        from numcodecs.zstd import Zstd  # type: ignore[import-untyped]
        from zarr.core.buffer import default_buffer_prototype

        index = self._unread.pop(key)
        try:
            mask = self._sequence.read_mask(index)
        except InputError as error:
            warnings.warn(str(error), stacklevel=2)
            mask = None
        if mask is None:
            raise KeyError(key)
        padded = np.zeros(self._sequence.canvas_shape, np.uint8)
        padded[: mask.shape[0], : mask.shape[1]] = mask
        encoded = default_buffer_prototype().buffer.from_bytes(Zstd(level=_LEVEL).encode(padded))
        self[key] = encoded
        return encoded

    def __delitem__(self, key: str) -> None:
        self._unread.pop(key, None)
        super().__delitem__(key)
