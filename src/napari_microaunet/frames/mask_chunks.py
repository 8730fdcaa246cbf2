"""Masks of a sequence as compressed chunks, and the Zarr array made of them."""

from __future__ import annotations

import hashlib
import re
from abc import abstractmethod
from collections import UserDict
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numcodecs.zstd import Zstd  # type: ignore[import-untyped]
from zarr.codecs import ZstdCodec
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.storage import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from napari_microaunet.frames.sequence import FrameSequence

METADATA_NAME = "zarr.json"
"""Name of the file that makes a folder of chunks a Zarr array."""

# Of Zstandard: the fastest; masks are mostly runs of equal values.
_LEVEL = 1
# Names without folders: one listing tells which frames have a mask.
_NAMES: dict[str, Any] = {"name": "default", "separator": "."}
_NAME = re.compile(r"c(?:\.(\d+))?\.0\.0")
_DIGEST_BYTES = 16


def chunk_name(index: int) -> str:
    """Give the name, in the store of its array, of the chunk that holds a frame's values."""
    return f"c.{index}.0.0"


def chunk_digest(chunk: Buffer | None) -> bytes:
    """Tell masks of one frame apart: equal digests, equal masks; empty for an empty mask."""
    if chunk is None:
        return b""
    return hashlib.blake2b(chunk.to_bytes(), digest_size=_DIGEST_BYTES).digest()


def to_chunk(compressed: bytes) -> Buffer:
    """Make a chunk of what a file of it holds, without a copy."""
    return default_buffer_prototype().buffer.from_bytes(compressed)


def encode_chunk(values: NDArray[np.uint8], canvas_shape: tuple[int, int]) -> Buffer | None:
    """Compress values of one frame into a chunk.

    Parameters
    ----------
    values : uint8 array, shape (height, width)
        They lie top left on the canvas.
    canvas_shape : (int, int)
        Height and width of every chunk of the array.

    Returns
    -------
    Buffer or None
        None if all values are 0.
    """
    if not values.any():
        return None
    canvas = np.zeros(canvas_shape, np.uint8)
    canvas[: values.shape[0], : values.shape[1]] = values
    return to_chunk(Zstd(level=_LEVEL).encode(canvas))


def decode_chunk(chunk: Buffer, canvas_shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Restore the values of a chunk, uint8 of the shape of the canvas; read only."""
    return np.frombuffer(Zstd().decode(chunk.to_bytes()), np.uint8).reshape(canvas_shape)


def chunk_array(
    chunks: MutableMapping[int, Buffer],
    count: int,
    canvas_shape: tuple[int, int],
    is_stack: bool = True,
) -> zarr.Array[Any]:
    """Make the Zarr array of chunks that lie in a mapping, one per frame.

    Parameters
    ----------
    chunks : mutable mapping of int to Buffer
        Chunks by the number of their frame. What is written to the array goes
        there in an instant; a missing one is all 0.
    count : int
        Number of frames.
    canvas_shape : (int, int)
        Height and width of every chunk.
    is_stack : bool
        Whether the array has an axis for frames; without, there is one frame.

    Returns
    -------
    zarr.Array of uint8, shape (count, height, width) or (height, width)
    """
    return zarr.create_array(
        MemoryStore(_Names(chunks, is_stack)),
        shape=(count, *canvas_shape) if is_stack else canvas_shape,
        chunks=(1, *canvas_shape) if is_stack else canvas_shape,
        dtype=np.uint8,
        fill_value=0,
        compressors=ZstdCodec(level=_LEVEL),
        chunk_key_encoding=_NAMES,
    )


def array_metadata(count: int, canvas_shape: tuple[int, int]) -> bytes:
    """Write what `METADATA_NAME` has to hold for a folder of such chunks to be a Zarr array."""
    chunks = chunk_array({}, count, canvas_shape)
    return bytes(
        chunks.metadata.to_buffer_dict(default_buffer_prototype())[METADATA_NAME].to_bytes()
    )


class ChunkStore(MutableMapping[int, Buffer]):
    """Chunks by the number of their frame. Safe to use from any thread."""

    @abstractmethod
    def digest(self, index: int) -> bytes:
        """Give the `chunk_digest` of a frame; costs little."""


class ChunksInMemory(UserDict[int, Buffer], ChunkStore):
    """Chunks that are gone when the program ends."""

    def __init__(self) -> None:
        super().__init__()
        self._digests: dict[int, tuple[Buffer, bytes]] = {}

    def digest(self, index: int) -> bytes:
        """Give the `chunk_digest` of a frame, computed once for each chunk."""
        chunk = self.data.get(index)
        if chunk is None:
            return b""
        seen = self._digests.get(index)
        if seen is None or seen[0] is not chunk:
            seen = chunk, chunk_digest(chunk)
            self._digests[index] = seen
        return seen[1]


class MaskChunks:
    """One compressed chunk per frame; no chunk where a mask is empty.

    The chunks can be looked at, made and exchanged without Zarr, which takes
    long to do so while other threads are busy. Safe to read from any thread.

    Parameters
    ----------
    sequence : FrameSequence
        The frames.
    is_stack : bool
        Whether the array has an axis for frames.
    store : ChunkStore, optional
        Where the chunks are kept; in memory by default.
    canvas_shape : (int, int), optional
        Height and width of every chunk, at least those of the canvas of the
        sequence, which are the default.

    Attributes
    ----------
    array : zarr.Array of uint8, shape (N, H, W) or (H, W)
        The masks, top left on the canvas.
    canvas_shape : (int, int)
        Height and width of the canvas.
    """

    def __init__(
        self,
        sequence: FrameSequence,
        is_stack: bool,
        store: ChunkStore | None = None,
        canvas_shape: tuple[int, int] | None = None,
    ) -> None:
        self._sequence = sequence
        self._store = ChunksInMemory() if store is None else store
        self.canvas_shape = sequence.canvas_shape if canvas_shape is None else canvas_shape
        self.array = chunk_array(self._store, len(sequence), self.canvas_shape, is_stack)

    def __getitem__(self, index: int) -> Buffer | None:
        return self._store.get(index)

    def __setitem__(self, index: int, chunk: Buffer | None) -> None:
        if chunk is None:
            self._store.pop(index, None)
        else:
            self._store[index] = chunk

    def mask(self, index: int) -> NDArray[np.uint8]:
        """Decode the mask of a frame, uint8 labels of shape (height, width), native size."""
        return self.decode(index, self[index])

    def decode(self, index: int, chunk: Buffer | None) -> NDArray[np.uint8]:
        """Decode a chunk that was encoded for a frame, to its native size."""
        frame = self._sequence.frames[index]
        if chunk is None:
            return np.zeros((frame.height, frame.width), np.uint8)
        canvas = decode_chunk(chunk, self.canvas_shape)
        return np.ascontiguousarray(canvas[: frame.height, : frame.width])

    def encode(self, mask: NDArray[np.uint8]) -> Buffer | None:
        """Compress a mask of native size into a chunk; None if it is empty."""
        return encode_chunk(mask, self.canvas_shape)

    def digest(self, index: int) -> bytes:
        """Tell masks of one frame apart: equal digests, equal masks; empty for an empty mask."""
        return self._store.digest(index)


class _Names(MutableMapping[str, Buffer]):
    """What Zarr sees of chunks: they have names, and the array's metadata lie among them."""

    def __init__(self, chunks: MutableMapping[int, Buffer], is_stack: bool) -> None:
        self._chunks = chunks
        self._is_stack = is_stack
        self._others: dict[str, Buffer] = {}

    def __deepcopy__(self, _memo: object) -> _Names:
        """Copy the chunks into memory: a copy of the array is nobody's masks."""
        chunks = ChunksInMemory()
        chunks.update(self._chunks)
        copy = _Names(chunks, self._is_stack)
        copy._others = dict(self._others)
        return copy

    def __getitem__(self, name: str) -> Buffer:
        index = _index_of(name)
        return self._others[name] if index is None else self._chunks[index]

    def __setitem__(self, name: str, value: Buffer) -> None:
        index = _index_of(name)
        if index is None:
            self._others[name] = value
        else:
            self._chunks[index] = value

    def __delitem__(self, name: str) -> None:
        index = _index_of(name)
        if index is None:
            del self._others[name]
        else:
            del self._chunks[index]

    def __iter__(self) -> Iterator[str]:
        yield from self._others
        yield from (chunk_name(index) if self._is_stack else "c.0.0" for index in self._chunks)

    def __len__(self) -> int:
        return len(self._others) + len(self._chunks)


def _index_of(name: str) -> int | None:
    """Read the number of the frame from the name of a chunk; None for other names."""
    match = _NAME.fullmatch(name)
    return None if match is None else int(match[1] or 0)
