from __future__ import annotations

import json

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_microaunet.frames.arrays import ArraySequence
from napari_microaunet.frames.mask_chunks import (
    METADATA_NAME,
    ChunksInMemory,
    MaskChunks,
    array_metadata,
    chunk_array,
    chunk_digest,
    chunk_name,
    decode_chunk,
    encode_chunk,
    to_chunk,
)

SEQUENCE = ArraySequence(np.zeros((3, 20, 30), np.uint8), "layer")
MASK = np.zeros((20, 30), np.uint8)
MASK[3:6, 4:9] = 2


@pytest.fixture
def chunks():
    return MaskChunks(SEQUENCE, is_stack=True)


@given(arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_values_come_back(values):
    canvas = 12, 15
    chunk = encode_chunk(values, canvas)
    if not values.any():
        assert chunk is None
        return
    restored = decode_chunk(chunk, canvas)
    np.testing.assert_array_equal(restored[: values.shape[0], : values.shape[1]], values)
    assert restored.sum() == values.sum()
    assert to_chunk(chunk.to_bytes()) == chunk
    assert chunk_digest(encode_chunk(values, canvas)) == chunk_digest(chunk)


def test_array_and_chunks_are_the_same(chunks):
    chunks[1] = chunks.encode(MASK)
    np.testing.assert_array_equal(chunks.array[1], MASK)
    chunks.array[2, 0, 0] = 9
    assert chunks.mask(2).sum() == 9
    assert chunks[0] is None
    assert chunks.mask(0).shape == (20, 30)
    chunks.array[2] = 0
    assert chunks[2] is None
    chunks[1] = None
    chunks[1] = None
    assert np.asarray(chunks.array[:]).max() == 0


def test_digest_tells_masks_apart_however_they_were_made(chunks):
    assert chunks.digest(0) == b""
    chunks[0] = chunks.encode(MASK)
    chunks.array[1] = MASK
    assert chunks.digest(0) == chunks.digest(1) != b""
    chunks.array[1, 19, 29] = 1
    assert chunks.digest(0) != chunks.digest(1)
    chunks.array[1, 19, 29] = 0
    assert chunks.digest(0) == chunks.digest(1)


def test_picture_without_an_axis_for_frames():
    chunks = MaskChunks(SEQUENCE, is_stack=False)
    chunks.array[3:6, 4:9] = 2
    np.testing.assert_array_equal(chunks.mask(0), MASK)


def test_canvas_that_is_larger_than_the_frames():
    chunks = MaskChunks(SEQUENCE, is_stack=True, canvas_shape=(25, 40))
    chunks[0] = chunks.encode(MASK)
    assert chunks.array.shape == (3, 25, 40)
    np.testing.assert_array_equal(chunks.mask(0), MASK)


def test_folder_of_chunks_with_metadata_is_a_zarr_array(tmp_path):
    (tmp_path / METADATA_NAME).write_bytes(array_metadata(3, (20, 30)))
    (tmp_path / chunk_name(2)).write_bytes(encode_chunk(MASK, (20, 30)).to_bytes())
    array = zarr.open(str(tmp_path), mode="r+")
    assert array.shape == (3, 20, 30)
    np.testing.assert_array_equal(array[2], MASK)
    array[0] = MASK
    # Painted with Zarr or put as a chunk: one file.
    assert (tmp_path / chunk_name(0)).read_bytes() == (tmp_path / chunk_name(2)).read_bytes()
    assert json.loads(array_metadata(4, (20, 30)))["shape"] == [4, 20, 30]


def test_array_can_be_listed():
    store = ChunksInMemory()
    array = chunk_array(store, 3, (20, 30))
    array[1] = MASK
    assert list(store) == [1]
    assert array.nchunks_initialized == 1
