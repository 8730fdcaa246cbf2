from __future__ import annotations

from concurrent.futures import CancelledError

import numpy as np
import pytest
from PIL import Image
from small_frames import write_frames

from napari_microaunet.curation.dataset import open_dataset
from napari_microaunet.curation.manifest import write_manifest
from napari_microaunet.distillation.evaluation import evaluate
from napari_microaunet.distillation.side_by_side import side_by_side
from napari_microaunet.errors import InputError
from napari_microaunet.networks.library import Model, find_model
from napari_microaunet.prelabel.masks import MaskSettings
from napari_microaunet.prelabel.predictor import Predictor


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    return write_frames(tmp_path_factory.mktemp("compared") / "ward", polyps=20)


@pytest.fixture
def shy(model):
    """A model that marks next to nothing: the student, only where it is certain."""
    return Model("shy", model.path, model.card.model_copy(update={"threshold": 1.0}))


def test_each_model_is_scored_as_it_would_be_used(frames, model, shy):
    dataset, told = open_dataset(frames), []
    result = side_by_side(model, shy, dataset, progress=lambda *done: told.append(done))
    assert result.frames == "24 labelled frames of ward"
    for one, summary in ((model, result.first), (shy, result.second)):
        alone = evaluate(
            Predictor(one),
            dataset.sequence,
            MaskSettings.of(one.card),
            [i for i, frame in enumerate(dataset.frames) if frame.labelled],
            reference=dataset.mask,
            groups=dataset.groups,
        )
        assert summary == alone.summary
    better = result.first.dice.mean - result.second.dice.mean
    assert result.difference.dice.mean == pytest.approx(better)
    assert better > 0
    assert told == [(done, 48) for done in range(1, 49)]


def test_frames_that_a_model_has_learned_from_are_left_out(frames, model, shy):
    dataset = open_dataset(frames)
    learned = {"somewhere": dataset.content_hash("training")}
    taught = Model("t", model.path, model.card.model_copy(update={"training_data": learned}))
    held_out = dataset.indices("validation", labelled=True)
    result = side_by_side(shy, taught, dataset)
    assert result.frames == f"{len(held_out)} held-out frames of ward"
    assert result.first.positives + result.first.negatives == len(held_out) < 24


def test_what_either_model_has_learned_from_counts_also_under_one_name(frames, model, shy):
    dataset = open_dataset(frames)
    hashes = dataset.content_hash("training"), "of another dataset"
    first, second = (
        Model("m", one.path, one.card.model_copy(update={"training_data": {"dataset": sha256}}))
        for one, sha256 in zip((model, shy), hashes, strict=True)
    )
    assert "held-out frames of ward" in side_by_side(first, second, dataset).frames


def test_a_dataset_that_has_grown_since_is_known_by_its_name(frames, model, shy):
    learned = {"ward": "of fewer frames"}
    taught = Model("t", model.path, model.card.model_copy(update={"training_data": learned}))
    assert "held-out frames of ward" in side_by_side(shy, taught, open_dataset(frames)).frames


def test_of_a_curated_dataset_the_held_out_frames_are_taken(tmp_path, model, shy):
    folder = write_frames(tmp_path / "curated", polyps=20)
    manifest = open_dataset(folder).manifest
    write_manifest(folder / "manifest.json", manifest)
    result = side_by_side(model, shy, open_dataset(folder))
    assert "held-out frames" in result.frames
    everything = manifest.model_copy(
        update={
            "frames": tuple(
                frame.model_copy(update={"split": "training"}) for frame in manifest.frames
            )
        }
    )
    write_manifest(folder / "manifest.json", everything)
    with pytest.raises(InputError, match="no held-out frames with masks"):
        side_by_side(model, shy, open_dataset(folder))


def test_what_cannot_be_compared_is_said_in_a_sentence(tmp_path, model, shy, make_frame):
    (tmp_path / "bare").mkdir()
    Image.fromarray(make_frame(0)).save(tmp_path / "bare" / "0.png")
    with pytest.raises(InputError, match="no labelled frames"):
        side_by_side(model, shy, open_dataset(tmp_path / "bare"))
    folder = write_frames(tmp_path / "odd", polyps=2, negatives=0, unlabelled=0)
    for mask in (folder / "masks").iterdir():
        Image.fromarray(np.zeros((5, 5), np.uint8)).save(mask)
    with pytest.raises(InputError, match="no frame could be scored"):
        side_by_side(model, shy, open_dataset(folder))


def test_it_can_be_cancelled(frames, model):
    told = []
    with pytest.raises(CancelledError):
        side_by_side(
            model,
            find_model("student"),
            open_dataset(frames),
            progress=lambda done, _total: told.append(done),
            cancelled=lambda: len(told) > 3,
        )
    assert len(told) < 24
