from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from napari_microaunet.distillation.evaluation import bootstrap_interval, evaluate, summarise
from napari_microaunet.distillation.scores import FrameScore, score_frame
from napari_microaunet.frames import open_frames
from napari_microaunet.prelabel.masks import MaskSettings, mask_from
from napari_microaunet.prelabel.predictor import Predictor


def score(name, *, polyp, marked, common, confidence=0.5) -> FrameScore:
    """Score a frame of 1000 pixels in a row: polyp from the left, marks overlap by `common`."""
    reference = np.zeros((1, 1000), np.uint8)
    reference[0, :polyp] = 1
    predicted = np.zeros((1, 1000), np.uint8)
    predicted[0, polyp - common : polyp - common + marked] = 1
    return score_frame(name, confidence, predicted, reference)


def test_means_shares_and_global_scores_by_hand():
    scores = [
        score("good", polyp=100, marked=100, common=100, confidence=0.9),  # Dice 1
        score("half", polyp=100, marked=100, common=50, confidence=0.6),  # Dice 0.5
        score("beside", polyp=200, marked=100, common=0, confidence=0.4),  # Dice 0
        score("missed", polyp=100, marked=0, common=0, confidence=0.3),  # Dice 0
        score("alarm", polyp=0, marked=10, common=0),
        score("quiet", polyp=0, marked=0, common=0),
        score("quiet too", polyp=0, marked=0, common=0),
    ]
    summary = summarise(scores)
    assert (summary.positives, summary.negatives) == (4, 3)
    assert summary.dice.mean == pytest.approx(1.5 / 4)
    assert summary.iou.mean == pytest.approx((1 + 50 / 150) / 4)
    # 150 pixels in common, 300 marked, 500 polyp; the false alarm is no part of it.
    assert summary.global_dice == pytest.approx(2 * 150 / 800)
    assert summary.global_iou == pytest.approx(150 / 650)
    assert summary.positives_found == 2 / 4
    assert summary.positives_flagged == 3 / 4
    assert summary.negatives_flagged == 1 / 3
    # Two frames tie at Dice 0: ranks 4, 3, 1.5, 1.5 against 4, 3, 2, 1.
    assert summary.confidence_rank_correlation == pytest.approx(
        np.corrcoef([4, 3, 1.5, 1.5], [4, 3, 2, 1])[0, 1]
    )


def test_only_negative_frames_have_no_overlap_to_report():
    summary = summarise([score("quiet", polyp=0, marked=0, common=0)])
    assert summary.dice is summary.iou is summary.global_dice is None
    assert summary.positives_found is summary.confidence_rank_correlation is None
    assert summary.negatives_flagged == 0


def test_the_interval_is_that_of_the_mean():
    values = np.random.default_rng(3).normal(0.7, 0.2, 400)
    interval = bootstrap_interval(values)
    low, high = stats.norm.interval(0.95, values.mean(), values.std() / np.sqrt(values.size))
    assert interval.mean == pytest.approx(values.mean())
    assert interval.low == pytest.approx(low, abs=0.002)
    assert interval.high == pytest.approx(high, abs=0.002)
    assert bootstrap_interval(values) == interval


def test_intervals_of_one_value_and_of_equal_values_are_that_value():
    for values in ([0.25], [0.25] * 9):
        interval = bootstrap_interval(np.array(values))
        assert (interval.mean, interval.low, interval.high) == (0.25, 0.25, 0.25)
    assert bootstrap_interval(np.array([])) is None


@pytest.fixture
def labelled_frames(model, make_frame, tmp_path):
    """Six frames whose reference masks are what the model itself says, one of them broken."""
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    for i in range(6):
        Image.fromarray(make_frame(i, 160, 200 + i)).save(tmp_path / f"images/{i}.png")
    sequence = open_frames(tmp_path)
    settings = MaskSettings(model.card.threshold)
    for prediction in Predictor(model).predict(sequence):
        mask = mask_from(prediction.map, settings) > 0
        Image.fromarray(mask.astype(np.uint8) * 255).save(
            tmp_path / f"masks/{prediction.index}.png"
        )
    return tmp_path


def test_a_model_scored_against_its_own_masks_is_perfect(model, labelled_frames):
    (labelled_frames / "images/2.png").write_bytes(b"")
    (labelled_frames / "masks/4.png").unlink()
    result = evaluate(
        Predictor(model),
        open_frames(labelled_frames),
        MaskSettings(model.card.threshold),
    )
    assert [frame.name for frame in result.frames] == ["0", "1", "3", "5"]
    assert set(result.problems) == {"2", "4"}
    assert result.summary.positives == 4
    assert result.summary.dice.mean == result.summary.surface_dice.mean == 1
    assert result.summary.hausdorff95.mean == 0
    text = json.dumps(asdict(result))
    assert json.loads(text)["frames"][3]["dice"] == 1


def test_frames_known_to_be_without_polyps_need_no_masks(model, labelled_frames):
    result = evaluate(
        Predictor(model),
        open_frames(labelled_frames / "images"),
        MaskSettings(model.card.threshold),
        [0, 3],
        without_polyps=True,
    )
    assert result.summary.negatives == 2
    assert result.summary.positives == 0
    assert result.summary.negatives_flagged == 1
