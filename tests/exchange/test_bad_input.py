"""Whatever the file: one sentence that names it, no change to the session, bounded memory."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
from concurrent.futures import CancelledError

import numpy as np
import pytest
from hostile import REASONS, corpus, tiff_of
from labelled_help import emptied, make_session, masks_of
from PIL import Image
from pycocotools import mask as coco_masks

from napari_microaunet.curation.session import MaskOrigin, ReviewState, Session
from napari_microaunet.curation.session.chunk_files import ChunkFiles
from napari_microaunet.errors import InputError
from napari_microaunet.exchange.export import export
from napari_microaunet.exchange.formats import find_format
from napari_microaunet.exchange.importing import import_labels
from napari_microaunet.exchange.labelled import labels_of_session
from napari_microaunet.frames import open_frames
from napari_microaunet.frames.masks import IGNORE

# More than any of the files is worth, far less than what they claim.
MOST_KIB = 500 * 1024


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """A session on one frame of 20 x 30 px, with a mask."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "frames").mkdir()
    Image.new("RGB", (30, 20), "red").save(folder / "frames" / "a.png")
    with Session(open_frames(folder / "frames")) as session:
        mask = np.zeros((20, 30), np.uint8)
        mask[4:9, 5:12] = 1
        session.put_mask(0, mask, MaskOrigin.MODEL)
        yield session


def peak_kib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def refusal(session, key, path):
    """Import a file, and give what was said against it; None if it was taken."""
    try:
        import_labels(session, find_format(key), path, overwrite=True)
    except InputError as error:
        return str(error)
    return None


def test_every_hostile_file_is_refused_in_a_sentence(session, tmp_path):
    before = session.chunks.digest(0)
    files = corpus(tmp_path / "corpus")
    assert len(files) > 100
    assert REASONS.keys() <= files.keys()
    for title, (key, path) in files.items():
        memory = peak_kib()
        said = refusal(session, key, path)
        assert said is not None, title
        assert str(path) in said, f"{title}: {said}"
        assert REASONS.get(title, "") in said, f"{title}: {said}"
        assert "\n" not in said, title
        assert len(said.replace(str(path.parent), "")) < 300, title
        assert session.chunks.digest(0) == before, title
        assert session.origin(0) is MaskOrigin.MODEL
        assert peak_kib() - memory < MOST_KIB, title


def test_what_follows_the_pixels_of_a_page_is_not_unpacked(session, tmp_path):
    file = tmp_path / "masks.tif"
    file.write_bytes(tiff_of(30, 20, 700))
    memory = peak_kib()
    assert refusal(session, "tiff", file) is None
    assert (session.chunks.mask(0) == 1).all()
    assert peak_kib() - memory < MOST_KIB


def test_an_outline_that_crosses_itself_is_filled_as_coco_fills_it(session, tmp_path):
    points = [2, 2, 20, 15, 20, 2, 2, 15]
    image = {"id": 1, "file_name": "a.png", "height": 20, "width": 30}
    one = {"image_id": 1, "category_id": 1, "iscrowd": 0, "segmentation": [points]}
    file = tmp_path / "x.json"
    file.write_text(json.dumps({"images": [image], "annotations": [one]}))
    assert refusal(session, "coco", file) is None
    expected = coco_masks.decode(coco_masks.frPyObjects([points], 20, 30))[:, :, 0]
    np.testing.assert_array_equal(session.chunks.mask(0), expected)
    assert 0 < expected.sum() < 13 * 18


def test_nothing_is_imported_where_one_file_of_many_is_damaged(tmp_path):
    session, masks = make_session(tmp_path)
    with session:
        export(labels_of_session(session), find_format("labels"), tmp_path / "out")
        last = sorted((tmp_path / "out" / "masks").rglob("*.png"))[-1]
        last.write_bytes(last.read_bytes()[:-30])
        with emptied(tmp_path, session) as second:
            assert str(last) in refusal(second, "labels", tmp_path / "out")
            assert not any(mask.any() for mask in masks_of(second).values())
            assert {second.origin(index) for index in range(len(masks))} == {MaskOrigin.NONE}


def test_corrected_and_accepted_masks_are_not_replaced_unless_asked(tmp_path):
    session, masks = make_session(tmp_path)
    with session:
        export(labels_of_session(session), find_format("labels"), tmp_path / "out")
        with emptied(tmp_path, session) as second:
            mine = np.ones_like(second.chunks.mask(0))
            second.put_mask(0, mine, MaskOrigin.HAND)
            with pytest.raises(InputError, match="--overwrite"):
                import_labels(second, find_format("labels"), tmp_path / "out")
            np.testing.assert_array_equal(second.chunks.mask(0), mine)
            import_labels(second, find_format("labels"), tmp_path / "out", overwrite=True)
            np.testing.assert_array_equal(
                second.chunks.mask(0), masks[second.sequence.frames[0].name]
            )
            second.undo_review()
            np.testing.assert_array_equal(second.chunks.mask(0), mine)


def test_a_cancelled_import_changes_nothing(tmp_path):
    session, _ = make_session(tmp_path)
    with session:
        export(labels_of_session(session), find_format("labels"), tmp_path / "out")
        with emptied(tmp_path, session) as second:
            done = []
            with pytest.raises(CancelledError):
                import_labels(
                    second,
                    find_format("labels"),
                    tmp_path / "out",
                    progress=lambda now, _all: done.append(now),
                    cancelled=lambda: len(done) == 3,
                )
            assert not any(mask.any() for mask in masks_of(second).values())


def test_names_of_classes_that_unfold_without_end_are_not_unfolded(session, tmp_path):
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("1 0.2 0.2 0.5 0.2 0.5 0.6\n")
    laughs = "".join(f"l{n}: &l{n} [{f'*l{n - 1}, ' * 10}]\n" for n in range(1, 9))
    names = "names: [*l8, Ignore]\n"
    (tmp_path / "data.yaml").write_text(f"l0: &l0 {'laugh' * 10}\n{laughs}{names}")
    memory = peak_kib()
    assert refusal(session, "yolo", tmp_path) is None
    assert set(np.unique(session.chunks.mask(0))) == {0, IGNORE}
    assert peak_kib() - memory < MOST_KIB


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everywhere")
def test_a_folder_that_cannot_be_read_is_not_left_out(session, tmp_path):
    (tmp_path / "masks" / "inner").mkdir(parents=True)
    Image.new("L", (30, 20)).save(tmp_path / "masks" / "a.png")
    (tmp_path / "masks" / "inner").chmod(0o000)
    assert str(tmp_path / "masks" / "inner") in refusal(session, "png", tmp_path)


def test_an_import_that_the_disk_refused_says_what_is_there_and_goes_on(tmp_path, monkeypatch):
    names = tuple(f"{number:02}" for number in range(40))
    session, masks = make_session(tmp_path, names=names)
    with session:
        export(labels_of_session(session), find_format("labels"), tmp_path / "out")
    filled = [name for name, mask in masks.items() if mask.any()]
    save, written = ChunkFiles.save, []

    def save_some(files, slot, chunk):
        written.append(slot)
        if len(written) > len(filled) // 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(files, slot, chunk)

    with emptied(tmp_path, session) as second, monkeypatch.context() as patch:
        patch.setattr(ChunkFiles, "save", save_some)
        said = refusal(second, "labels", tmp_path / "out")
        assert "make room on the disk" in said
        assert "in memory" not in said
        saved = int(re.match(r"(\d+) of 40 masks are saved", said)[1])
    assert 40 - len(filled) < saved < 40
    with emptied(tmp_path, session) as second:
        assert import_labels(second, find_format("labels"), tmp_path / "out").frames == 40
        for name, mask in masks_of(second).items():
            np.testing.assert_array_equal(mask, masks[name])


def test_a_mask_that_is_there_already_keeps_what_was_decided(tmp_path):
    session, _ = make_session(tmp_path)
    with session:
        export(labels_of_session(session), find_format("labels"), tmp_path / "out")
        import_labels(session, find_format("labels"), tmp_path / "out")
        assert {status.state for status in session.statuses} == {ReviewState.ACCEPTED}
        assert MaskOrigin.FILE not in {status.origin for status in session.statuses}
