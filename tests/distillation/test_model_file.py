"""The model that a training leaves: with which settings, and with figures from which frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import ndimage
from small_frames import SIDE, write_frames
from small_training import small_recipe

from napari_microaunet.curation.dataset import open_dataset
from napari_microaunet.distillation import model_file
from napari_microaunet.distillation.model_file import Scorer, write_model
from napari_microaunet.distillation.run_folder import RunFolder
from napari_microaunet.distillation.trainer import Outcome
from napari_microaunet.frames import FieldOfView
from napari_microaunet.networks import build
from napari_microaunet.networks.checkpoint import ModelCard, read_card, save_checkpoint
from napari_microaunet.prelabel.predictor import Prediction
from napari_microaunet.prelabel.probability import ProbabilityMap, quantise

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from napari_microaunet.curation.dataset import CuratedDataset
    from napari_microaunet.prelabel.predictor import FrameTask

RIM, ALARM, CORE = 0.45, 0.65, 0.96


class PaleRims:
    """A predictor by which polyps have pale rims, and false alarms are a little less pale.

    In the frames of the test split a halo belongs to what is as sure as the rim elsewhere.
    """

    def __init__(self, dataset: CuratedDataset) -> None:
        self.dataset = dataset

    def carry_out(self, task: FrameTask[Any], *given: Any, **options: Any) -> None:
        task(self, *given, **options)  # type: ignore[arg-type]

    def predict(self, _: object, indices: Sequence[int], **__: object) -> Iterator[Prediction]:
        for index in indices:
            mask = self.dataset.mask(index)
            assert mask is not None
            polyp = mask > 0
            values = np.zeros((SIDE, SIDE), np.float32)
            if not polyp.any():
                values[10:30, 10:30] = ALARM
            elif self.dataset.frames[index].split == "test":
                values[ndimage.binary_dilation(polyp, iterations=3)] = RIM
                values[polyp] = CORE
            else:
                values[polyp] = RIM
                values[ndimage.binary_erosion(polyp, iterations=3)] = CORE
            field = FieldOfView(0, 0, SIDE, SIDE)
            found = ProbabilityMap(quantise(values), field, (SIDE, SIDE))
            yield Prediction(index, found, None)


@pytest.fixture
def dataset(tmp_path: Path) -> CuratedDataset:
    """Return frames a third of which are for validation, and a third for the test."""
    found = open_dataset(write_frames(tmp_path / "frames", polyps=12, negatives=6, unlabelled=0))
    frames = tuple(
        frame.model_copy(update={"split": ("training", "validation", "test")[number % 3]})
        for number, frame in enumerate(found.manifest.frames)
    )
    return open_dataset(found.path, found.manifest.model_copy(update={"frames": frames}))


def test_threshold_and_peak_are_chosen_on_validation_frames(
    dataset: CuratedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_file, "Predictor", lambda *_, **__: PaleRims(dataset))
    (tmp_path / "run").mkdir()
    run = RunFolder(tmp_path / "run", small_recipe(dataset.path))
    run.begin(dataset.manifest)
    network = build("microaunet")
    card = ModelCard(name="small", network="microaunet", widths=network.widths)
    save_checkpoint(run.kept_file, network, card)
    scores = write_model(
        tmp_path / "model.safetensors",
        run,
        dataset,
        Outcome(finished=True, steps=6, minutes=1.0, best=None),
        Scorer("cpu", lambda _: None, lambda: False),
    )
    found = read_card(tmp_path / "model.safetensors")
    # The highest threshold that takes the rims, and the highest peak that polyps reach and false
    # alarms do not. By the test frames it were 0.9.
    assert (found.threshold, found.least_peak) == (0.45, 0.95)
    # The figures are those of the test frames, with these settings: their halos are marked.
    test = [frame.name for frame in dataset.frames if frame.split == "test"]
    assert {score.name for score in scores.frames} == set(test)
    assert 0.5 < found.metrics["frames mean Dice"] < 0.95
    assert found.metrics["frames negatives flagged"] == 0
    assert "which judged" not in found.description
