"""Frames that a model knew before, among those that it learns."""

from __future__ import annotations

import pytest
from small_frames import write_frames

from napari_microaunet.curation import open_dataset, write_manifest
from napari_microaunet.distillation.recipe import Replay
from napari_microaunet.distillation.replay import load_replayed
from napari_microaunet.distillation.training_frames import Batches, load_split
from napari_microaunet.errors import InputError


def never():
    return False


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return open_dataset(write_frames(tmp_path_factory.mktemp("replay") / "frames"))


def test_the_package_brings_frames_that_its_models_learned_from(dataset):
    frames = load_replayed(Replay(share=0.2), dataset, 64, never)
    assert len(frames) == 60
    assert set(frames.kinds) == {"replayed"}
    assert set(frames.sources) == {"rendered"}
    polyps = (frames.labels == 1).flatten(1).any(1)
    assert polyps.float().mean() == pytest.approx(0.75, abs=0.05)
    assert not frames.problems


def test_held_out_frames_are_never_replayed(dataset, tmp_path):
    # The same files elsewhere, as a curator's older dataset may hold them, all for training.
    again = open_dataset(write_frames(tmp_path / "older"))
    frames = tuple(frame.model_copy(update={"split": "training"}) for frame in again.frames)
    write_manifest(tmp_path / "older" / "manifest.json", replace_frames(again.manifest, frames))
    replayed = load_replayed(Replay(share=0.2, data=tmp_path / "older"), dataset, 64, never)
    held_out = [f.image_sha256 for f in dataset.frames if f.split != "training" and f.labelled]
    labelled = sum(frame.labelled for frame in dataset.frames)
    assert held_out
    assert len(replayed) == labelled - len(held_out)


def test_a_folder_without_masks_is_refused_by_name(dataset, tmp_path):
    write_frames(tmp_path / "bare", polyps=0, negatives=0)
    with pytest.raises(InputError, match=r"bare holds no labelled training frame"):
        load_replayed(Replay(share=0.2, data=tmp_path / "bare"), dataset, 64, never)


def test_damaged_frames_are_left_out_and_named(dataset, tmp_path):
    folder = write_frames(tmp_path / "older")
    older = open_dataset(folder)
    training = older.indices("training", labelled=True)
    (folder / older.frames[training[0]].image).write_bytes(b"no picture")
    (folder / older.frames[training[1]].mask).write_bytes(b"")
    frames = load_replayed(Replay(share=0.2, data=folder), dataset, 64, never)
    damaged = {older.frames[index].name for index in training[:2]}
    assert frames.problems.keys() == damaged
    assert len(frames) > 0
    assert damaged.isdisjoint(frames.names)
    for index in training:
        (folder / older.frames[index].image).write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"older holds no labelled training frame"):
        load_replayed(Replay(share=0.2, data=folder), dataset, 64, never)


@pytest.mark.parametrize("kind", ["missing", "empty", "a file"])
def test_what_is_no_dataset_is_refused_by_name(dataset, tmp_path, kind):
    path = tmp_path / "older"
    if kind == "empty":
        path.mkdir()
    if kind == "a file":
        path.write_bytes(b"{}")
    with pytest.raises(InputError, match="older"):
        load_replayed(Replay(share=0.2, data=path), dataset, 64, never)


def test_every_batch_has_its_share_of_them(dataset):
    training, _ = load_split(dataset, 64)
    joined = training.joined(load_replayed(Replay(share=0.25), dataset, 64, never))
    batches = Batches(joined, 16, seed=1, negatives=0.25, unlabelled=0.0, replayed=0.25)
    for step in range(5):
        assert sum(joined.kinds[i] == "replayed" for i in batches.indices(step)) == 4


def test_shares_that_leave_no_room_are_refused(dataset):
    training, _ = load_split(dataset, 64)
    with pytest.raises(InputError, match=r"0\.6 replayed"):
        Batches(training, 16, seed=1, negatives=0.25, unlabelled=0.25, replayed=0.6)


def replace_frames(manifest, frames):
    return manifest.model_copy(update={"frames": frames})
