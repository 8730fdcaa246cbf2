"""The masks beside a sequence as one stack for the viewer, which can be painted on."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from napari_microaunet.errors import InputError

if TYPE_CHECKING:
    import zarr
    from zarr.core.buffer import Buffer

    from napari_microaunet.frames.sequence import FrameSequence


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
    # Zarr takes long to import, and most readers of frames do without masks.
    from napari_microaunet.frames.mask_chunks import chunk_array

    return chunk_array(_ReadWhenLookedAt(sequence), len(sequence), sequence.canvas_shape)


class _ReadWhenLookedAt(dict[int, "Buffer"]):
    """Chunks that appear when they are looked up the first time."""

    def __init__(self, sequence: FrameSequence) -> None:
        self._sequence = sequence
        # Frames whose mask file counts: not those that were read, painted on or emptied since.
        self._unread = set(range(len(sequence))) if sequence.has_masks else set()

    def __missing__(self, index: int) -> Buffer:
        from napari_microaunet.frames.mask_chunks import encode_chunk

        self._unread.remove(index)
        try:
            mask = self._sequence.read_mask(index)
        except InputError as error:
            warnings.warn(str(error), stacklevel=2)
            mask = None
        chunk = None if mask is None else encode_chunk(mask, self._sequence.canvas_shape)
        if chunk is None:
            raise KeyError(index)
        self[index] = chunk
        return chunk

    def __delitem__(self, index: int) -> None:
        self._unread.discard(index)
        super().__delitem__(index)
