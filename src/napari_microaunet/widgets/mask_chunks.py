"""Masks of a sequence as compressed chunks, and the Zarr array made of them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import zarr
from numcodecs.zstd import Zstd  # type: ignore[import-untyped]
from zarr.codecs import ZstdCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from zarr.core.buffer import Buffer

    from napari_microaunet.frames import FrameSequence

# Of Zstandard: the fastest; masks are mostly runs of equal values.
_LEVEL = 1


class MaskChunks:
    """One compressed chunk per frame, in memory; no chunk where a mask is empty.

    The chunks can be looked at, made and exchanged without Zarr, which takes
    long to do so while other threads are busy. Safe to read from any thread.

    Parameters
    ----------
    sequence : FrameSequence
        The frames.
    is_stack : bool
        Whether the array has an axis for frames.

    Attributes
    ----------
    array : zarr.Array of uint8, shape (N, H, W) or (H, W)
        The masks, top left on the canvas of the sequence.
    filled : set of int
        Frames that `fill` was called for.
    """

    def __init__(self, sequence: FrameSequence, is_stack: bool) -> None:
        self._sequence = sequence
        self._is_stack = is_stack
        self._canvas = sequence.canvas_shape
        self._chunks: dict[str, Buffer] = {}
        self._digests: dict[int, tuple[Buffer, bytes]] = {}
        self.filled: set[int] = set()
        self.array = zarr.create_array(
            MemoryStore(self._chunks),
            shape=(len(sequence), *self._canvas) if is_stack else self._canvas,
            chunks=(1, *self._canvas) if is_stack else self._canvas,
            dtype=np.uint8,
            fill_value=0,
            compressors=ZstdCodec(level=_LEVEL),
        )

    def __getitem__(self, index: int) -> Buffer | None:
        return self._chunks.get(self._name(index))

    def __setitem__(self, index: int, chunk: Buffer | None) -> None:
        if chunk is None:
            self._chunks.pop(self._name(index), None)
        else:
            self._chunks[self._name(index)] = chunk

    def fill(self, index: int, mask: NDArray[np.uint8]) -> None:
        """Give a frame its mask before anybody looks at the array."""
        self[index] = self.encode(mask)
        self.filled.add(index)

    def mask(self, index: int) -> NDArray[np.uint8]:
        """Decode the mask of a frame, uint8 labels of shape (height, width), native size."""
        return self.decode(index, self[index])

    def decode(self, index: int, chunk: Buffer | None) -> NDArray[np.uint8]:
        """Decode a chunk that was encoded for a frame, to its native size."""
        frame = self._sequence.frames[index]
        if chunk is None:
            return np.zeros((frame.height, frame.width), np.uint8)
        canvas = np.frombuffer(Zstd().decode(chunk.to_bytes()), np.uint8).reshape(self._canvas)
        return np.ascontiguousarray(canvas[: frame.height, : frame.width])

    def encode(self, mask: NDArray[np.uint8]) -> Buffer | None:
        """Compress a mask of native size into a chunk; None if it is empty."""
        if not mask.any():
            return None
        canvas = np.zeros(self._canvas, np.uint8)
        canvas[: mask.shape[0], : mask.shape[1]] = mask
        return default_buffer_prototype().buffer.from_bytes(Zstd(level=_LEVEL).encode(canvas))

    def digest(self, index: int) -> bytes:
        """Tell masks of one frame apart: equal digests, equal masks; empty for an empty mask."""
        chunk = self[index]
        if chunk is None:
            return b""
        seen = self._digests.get(index)
        if seen is None or seen[0] is not chunk:
            seen = chunk, hashlib.blake2b(chunk.to_bytes(), digest_size=16).digest()
            self._digests[index] = seen
        return seen[1]

    def _name(self, index: int) -> str:
        return f"c/{index}/0/0" if self._is_stack else "c/0/0"
