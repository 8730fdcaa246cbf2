"""How good a model is on frames with reference masks.

Frames with a polyp and frames without one are told apart by their reference
mask and never mixed: overlap and boundary scores are means over the former, the
latter only count as flagged or not.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from napari_microaunet.distillation.scores import FrameScore, score_frame
from napari_microaunet.errors import InputError
from napari_microaunet.prelabel.confidence import confidence
from napari_microaunet.prelabel.masks import MaskSettings, mask_from

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from napari_microaunet.frames.sequence import FrameSequence
    from napari_microaunet.prelabel.predictor import Predictor

_RESAMPLES = 10_000
_SEED = 0


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % percentile bootstrap interval over frames."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Summary:
    """What a set of frame scores comes to.

    Attributes
    ----------
    positives, negatives : int
        Frames with and without a polyp in their reference mask.
    dice, iou, hausdorff95, surface_dice : Interval or None
        Means over the positive frames; None when there is none.
    global_dice, global_iou : float or None
        From the pixels of all positive frames counted together, so that large
        polyps and large frames weigh more.
    positives_found, positives_flagged : float or None
        Share of positive frames where the prediction meets the reference in at
        least one pixel, and where it marks anything at all.
    negatives_flagged : float or None
        Share of negative frames where the prediction marks anything: false alarms.
    confidence_rank_correlation : float or None
        Spearman correlation of confidence and Dice over the positive frames;
        None for fewer than three frames or when one of the two is constant.
    """

    positives: int
    negatives: int
    dice: Interval | None
    iou: Interval | None
    hausdorff95: Interval | None
    surface_dice: Interval | None
    global_dice: float | None
    global_iou: float | None
    positives_found: float | None
    positives_flagged: float | None
    negatives_flagged: float | None
    confidence_rank_correlation: float | None


@dataclass(frozen=True)
class Evaluation:
    """The scores of a model on a set of frames.

    Attributes
    ----------
    summary : Summary
        What they come to.
    frames : tuple of FrameScore
        One per frame that could be scored.
    problems : dict of str to str
        Frames that could not be scored, by name, and why.
    """

    summary: Summary
    frames: tuple[FrameScore, ...]
    problems: dict[str, str]


def evaluate(
    predictor: Predictor,
    sequence: FrameSequence,
    settings: MaskSettings,
    indices: Sequence[int] | None = None,
    *,
    without_polyps: bool = False,
    progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Evaluation:
    """Predict frames and score them against the masks beside them, at native size.

    Parameters
    ----------
    predictor : Predictor
        The model.
    sequence : FrameSequence
        Frames with masks.
    settings : MaskSettings
        How probabilities become masks.
    indices : sequence of int, optional
        Which frames; all by default.
    without_polyps : bool
        Whether every frame is known to show no polyp, so that no masks are needed.
    progress, cancelled : callable, optional
        As for `Predictor.predict`.

    Returns
    -------
    Evaluation
        Of the frames that were done when it was cancelled.
    """
    scores = []
    problems = {}
    predictions = predictor.predict(sequence, indices, progress=progress, cancelled=cancelled)
    with closing(predictions):
        for prediction in predictions:
            frame = sequence.frames[prediction.index]
            if prediction.map is None:
                problems[frame.name] = prediction.problem or ""
                continue
            try:
                reference = (
                    np.zeros((frame.height, frame.width), np.uint8)
                    if without_polyps
                    else sequence.read_mask(prediction.index)
                )
            except InputError as error:
                problems[frame.name] = str(error)
                continue
            if reference is None:
                problems[frame.name] = f"Frame {frame.name} has no reference mask."
                continue
            trust = confidence(prediction.map, settings.threshold)
            mask = mask_from(prediction.map, settings)
            scores.append(score_frame(frame.name, trust, mask, reference))
    return Evaluation(summarise(scores), tuple(scores), problems)


def summarise(scores: Sequence[FrameScore]) -> Summary:
    """Bring the scores of frames together.

    Parameters
    ----------
    scores : sequence of FrameScore
        May be empty.

    Returns
    -------
    Summary
    """
    positives = [score for score in scores if score.positive]
    negatives = [score for score in scores if not score.positive]
    both = sum(score.true_positive for score in positives)
    wrong = sum(score.false_positive + score.false_negative for score in positives)
    dice = np.array([score.dice for score in positives], float)
    trust = np.array([score.confidence for score in positives], float)
    return Summary(
        positives=len(positives),
        negatives=len(negatives),
        dice=bootstrap_interval(dice),
        iou=bootstrap_interval(np.array([score.iou for score in positives], float)),
        hausdorff95=bootstrap_interval(np.array([score.hausdorff95 for score in positives], float)),
        surface_dice=bootstrap_interval(
            np.array([score.surface_dice for score in positives], float)
        ),
        global_dice=2 * both / (2 * both + wrong) if positives else None,
        global_iou=both / (both + wrong) if positives else None,
        positives_found=_share([score.found for score in positives]),
        positives_flagged=_share([score.flagged for score in positives]),
        negatives_flagged=_share([score.flagged for score in negatives]),
        confidence_rank_correlation=_rank_correlation(trust, dice),
    )


def bootstrap_interval(values: NDArray[np.float64]) -> Interval | None:
    """Mean of per-frame values with its 95 % percentile bootstrap interval.

    10,000 resamples, seeded. Frames are drawn one by one; frames of one clip
    resemble each other, so over clips the interval is narrower than it should be.

    Parameters
    ----------
    values : float array, shape (n,)
        One value per frame.

    Returns
    -------
    Interval or None
        None for no values; of a single value the interval is that value.
    """
    if values.size == 0:
        return None
    if values.size == 1:
        return Interval(float(values[0]), float(values[0]), float(values[0]))
    result = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=_RESAMPLES,
        batch=500,
        confidence_level=0.95,
        method="percentile",
        rng=np.random.default_rng(_SEED),
    )
    interval = result.confidence_interval
    return Interval(float(values.mean()), float(interval.low), float(interval.high))


def _share(flags: Sequence[bool]) -> float | None:
    return float(np.mean(flags)) if flags else None


def _rank_correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float | None:
    if first.size < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(stats.spearmanr(first, second).statistic)
