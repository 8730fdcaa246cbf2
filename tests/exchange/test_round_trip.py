from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled_help import NAMES, as_kept, make_session
from scipy import ndimage

from napari_microaunet.exchange.base import Loss
from napari_microaunet.exchange.export import export, preview
from napari_microaunet.exchange.formats import FORMATS, find_format
from napari_microaunet.exchange.importing import read_labels
from napari_microaunet.exchange.labelled import labels_of_session
from napari_microaunet.frames.masks import IGNORE

EXACT = [one for one in FORMATS if not {Loss.PARTS, Loss.HOLES} & {*one.loses}]


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_masks_come_back_as_they_were_from_every_format(seed):
    with tempfile.TemporaryDirectory() as folder:
        session, masks = make_session(Path(folder), seed)
        frames = session.sequence.frames

        def encode(index, label):
            assert label.size in (None, masks[frames[index].name].shape)
            return session.chunks.encode(label.read(masks[frames[index].name].shape))

        with session:
            labels = labels_of_session(session)
            for format_ in EXACT:
                out = Path(folder) / format_.key
                summary = export(labels, format_, out)
                assert summary.frames == len(NAMES)
                assert summary.negatives == sum(not (m % 255).any() for m in masks.values())
                found = read_labels(format_, out, session.sequence, encode)
                assert len(found) == len(NAMES)
                for index, chunk in found.items():
                    name = frames[index].name
                    np.testing.assert_array_equal(
                        session.chunks.decode(index, chunk),
                        as_kept(masks[name], format_.loses),
                        f"{format_.key}: {name}",
                    )


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_yolo_comes_back_with_its_outlines_and_filled(seed):
    with tempfile.TemporaryDirectory() as folder:
        session, masks = make_session(Path(folder), seed)
        frames = session.sequence.frames

        def encode(index, label):
            return session.chunks.encode(label.read(masks[frames[index].name].shape))

        with session:
            export(labels_of_session(session), find_format("yolo"), Path(folder) / "out")
            found = read_labels(find_format("yolo"), Path(folder) / "out", session.sequence, encode)
            for index, chunk in found.items():
                mask = masks[frames[index].name]
                expected = np.zeros(mask.shape, bool)
                for label in set(np.unique(mask)) - {0, IGNORE}:
                    expected |= ndimage.binary_fill_holes(mask == label)
                np.testing.assert_array_equal(session.chunks.decode(index, chunk) > 0, expected)


@pytest.mark.parametrize("format_", FORMATS, ids=lambda one: one.key)
def test_the_preview_lists_what_is_written(format_, tmp_path):
    session, _ = make_session(tmp_path)
    with session:
        labels = labels_of_session(session, divide=format_.divides)
        planned = preview(labels, format_, first=len(NAMES))
        export(labels, format_, tmp_path / "out")
    written = {
        path.relative_to(tmp_path / "out").as_posix()
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
    }
    assert set(planned.first_files) == written
    assert planned.files == len(written)
    assert not list(tmp_path.glob("*.partial"))
