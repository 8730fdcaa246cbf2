from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image

from napari_microaunet.distillation.evaluation import evaluate, summarise
from napari_microaunet.distillation.scores import FrameScore, score_frame
from napari_microaunet.frames import open_frames
from napari_microaunet.frames.masks import write_mask_file
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
    assert summary.positives_found.mean == 2 / 4
    assert summary.positives_flagged.mean == 3 / 4
    assert summary.negatives_flagged.mean == pytest.approx(1 / 3)
    # Two frames tie at Dice 0: ranks 4, 3, 1.5, 1.5 against 4, 3, 2, 1.
    assert summary.confidence_rank_correlation == pytest.approx(
        np.corrcoef([4, 3, 1.5, 1.5], [4, 3, 2, 1])[0, 1]
    )


def test_only_negative_frames_have_no_overlap_to_report():
    summary = summarise([score("quiet", polyp=0, marked=0, common=0)])
    assert summary.dice is summary.iou is summary.global_dice is None
    assert summary.positives_found is summary.confidence_rank_correlation is None
    assert summary.negatives_flagged.mean == 0


def test_sizes_are_shares_of_the_picture():
    scores = [
        score("small", polyp=49, marked=49, common=49),  # Dice 1
        score("just medium", polyp=50, marked=50, common=25),  # Dice 0.5
        score("still medium", polyp=149, marked=0, common=0),  # Dice 0
        score("large", polyp=150, marked=150, common=150),
        score("all of it", polyp=1000, marked=1000, common=1000),
        score("quiet", polyp=0, marked=0, common=0),
    ]
    by_size = summarise(scores).by_size
    assert {size: part.frames for size, part in by_size.items()} == {
        "small": 1,
        "medium": 2,
        "large": 2,
    }
    assert by_size["medium"].dice.mean == 0.25
    assert by_size["medium"].found.mean == 0.5
    assert by_size["large"].dice.mean == 1
    assert summarise(scores[:1]).by_size["large"].dice is None


@pytest.fixture
def labelled_frames(model, make_frame, tmp_path):
    """Six frames whose reference masks are what the model itself says, one of them broken."""
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    for i in range(6):
        Image.fromarray(make_frame(i, 160, 200 + i)).save(tmp_path / f"images/{i}.png")
    sequence = open_frames(tmp_path)
    settings = MaskSettings.of(model.card)
    for prediction in Predictor(model).predict(sequence):
        mask = mask_from(prediction.map, settings) > 0
        Image.fromarray(mask.astype(np.uint8) * 255).save(
            tmp_path / f"masks/{prediction.index}.png"
        )
    return tmp_path


def test_a_model_scored_against_its_own_masks_is_perfect(model, labelled_frames):
    (labelled_frames / "images/2.png").write_bytes(b"")
    (labelled_frames / "masks/4.png").unlink()
    write_mask_file(labelled_frames / "masks/5.png", np.full((160, 205), 255, np.uint8))
    result = evaluate(
        Predictor(model),
        open_frames(labelled_frames),
        MaskSettings.of(model.card),
    )
    assert [frame.name for frame in result.frames] == ["0", "1", "3"]
    assert set(result.problems) == {"2", "4", "5"}
    assert "ignored throughout" in result.problems["5"]  # no frame without a polyp
    assert (result.summary.positives, result.summary.negatives) == (3, 0)
    assert result.summary.dice.mean == result.summary.boundary_f.mean == 1
    assert result.summary.hausdorff95.mean == 0
    text = json.dumps(asdict(result))
    assert json.loads(text)["frames"][2]["dice"] == 1


def test_frames_known_to_be_without_polyps_need_no_masks(model, labelled_frames):
    sequence = open_frames(labelled_frames / "images")
    result = evaluate(
        Predictor(model),
        sequence,
        MaskSettings.of(model.card),
        [0, 3],
        no_polyps=True,
    )
    assert result.summary.negatives == 2
    assert result.summary.positives == 0
    assert result.summary.negatives_flagged.mean == 1


def test_the_curve_is_what_each_threshold_would_come_to_and_runs_the_network_once(
    model, labelled_frames, monkeypatch
):
    sequence = open_frames(labelled_frames)
    predictor = Predictor(model, batch=1, mirror_images=0)
    thresholds = (0.02, 0.5, 0.98)
    expected = [
        evaluate(predictor, sequence, MaskSettings(threshold)).summary for threshold in thresholds
    ]
    runs = []
    run = predictor.backend.run
    monkeypatch.setattr(predictor.backend, "run", lambda batch: runs.append(1) or run(batch))
    settings = MaskSettings.of(model.card)
    result = evaluate(
        predictor, sequence, settings, alternatives=[MaskSettings(one) for one in thresholds]
    )
    assert len(runs) == 6
    for point, summary in zip(result.curve, expected, strict=True):
        assert point.dice == pytest.approx(summary.dice.mean)
        assert point.positives_found == summary.positives_found.mean
        assert point.negatives_flagged is None
    assert evaluate(predictor, sequence, settings).curve == ()


def test_probabilities_are_held_against_the_masks(model, labelled_frames):
    sequence = open_frames(labelled_frames)
    predictor, settings = Predictor(model), MaskSettings.of(model.card)
    right = evaluate(predictor, sequence, settings).calibration
    nothing_there = evaluate(predictor, sequence, settings, no_polyps=True).calibration
    assert sum(part.pixels for part in right.bins) == 6 * 256 * 256
    assert right.brier < nothing_there.brier
    marked = right.bins[-1]
    assert marked.polyp_share == 1
    assert nothing_there.bins[-1].polyp_share == 0


def test_groups_are_what_intervals_are_over(model, labelled_frames):
    sequence = open_frames(labelled_frames)
    predictor, settings = Predictor(model), MaskSettings(0.98)
    groups = {str(i): "first clip" if i < 3 else "second clip" for i in range(6)}
    result = evaluate(predictor, sequence, settings, groups=groups)
    assert [frame.group for frame in result.frames] == list(groups.values())
    assert (result.summary.positive_groups, result.summary.negative_groups) == (2, 0)
    dice = [frame.dice for frame in result.frames]
    ends = sorted((np.mean(dice[:3]), np.mean(dice[3:])))
    assert (result.summary.dice.low, result.summary.dice.high) == pytest.approx(ends)
    with pytest.raises(KeyError):
        evaluate(predictor, sequence, settings, groups={"0": "first clip"})
