"""How good a model is on frames with reference masks.

Frames with a polyp and frames without one are told apart by their reference
mask and never mixed: overlap and boundary scores are means over the former, the
latter only count as flagged or not.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from napari_microaunet.curation.groups import lies_among_negatives
from napari_microaunet.curation.placing import POLYP_SIZES, polyp_size
from napari_microaunet.distillation.bootstrap import Interval, bootstrap_interval
from napari_microaunet.distillation.calibration import Calibration, calibration, count_pixels
from napari_microaunet.distillation.scores import FrameScore, score_frame
from napari_microaunet.distillation.thresholds import (
    OperatingPoint,
    ThresholdCurve,
    overlaps_at,
)
from napari_microaunet.errors import InputError
from napari_microaunet.frames.masks import IGNORE, IGNORED_THROUGHOUT
from napari_microaunet.prelabel.confidence import confidence
from napari_microaunet.prelabel.masks import MaskSettings, mask_from

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from napari_microaunet.distillation.scores import Overlap
    from napari_microaunet.frames.sequence import FrameSequence
    from napari_microaunet.prelabel.predictor import Predictor, TaskRunner

    ReferenceMasks = Callable[[int], NDArray[np.uint8] | None]


@dataclass(frozen=True)
class SizeSummary:
    """What the positive frames with polyps of one size come to.

    Attributes
    ----------
    frames : int
        How many there are.
    dice, found : Interval or None
        As in `Summary`; None when there is no such frame.
    """

    frames: int
    dice: Interval | None
    found: Interval | None


@dataclass(frozen=True)
class Summary:
    """What a set of frame scores comes to.

    Attributes
    ----------
    positives, negatives : int
        Frames with and without a polyp in their reference mask.
    positive_groups, negative_groups : int
        How many groups the frames with and without a polyp come in, which is what intervals are
        over. Where all are of one group, intervals are over frames.
    dice, iou, hausdorff95, boundary_f : Interval or None
        Means over the positive frames; None when there is none.
    global_dice, global_iou : float or None
        From the pixels of all positive frames counted together, so that large
        polyps and large frames weigh more.
    positives_found, positives_flagged : Interval or None
        Share of positive frames where the prediction meets the reference in at
        least one pixel, and where it marks anything at all.
    negatives_flagged : Interval or None
        Share of negative frames where the prediction marks anything: false alarms.
    by_size : dict of str to SizeSummary
        Positive frames by the share of the field of view that their polyps cover
        together: small (below 5 %), medium, large (from 15 % on).
    confidence_rank_correlation : float or None
        Spearman correlation of confidence and Dice over the positive frames;
        None for fewer than three frames or when one of the two is constant.
    """

    positives: int
    negatives: int
    positive_groups: int
    negative_groups: int
    dice: Interval | None
    iou: Interval | None
    hausdorff95: Interval | None
    boundary_f: Interval | None
    global_dice: float | None
    global_iou: float | None
    positives_found: Interval | None
    positives_flagged: Interval | None
    negatives_flagged: Interval | None
    by_size: dict[str, SizeSummary]
    confidence_rank_correlation: float | None


@dataclass(frozen=True)
class Evaluation:
    """The scores of a model on a set of frames.

    Attributes
    ----------
    summary : Summary
        What they come to.
    calibration : Calibration or None
        Whether the probabilities mean what they say; None when no frame was scored.
    curve : tuple of OperatingPoint
        What other settings would come to, where they were asked for.
    frames : tuple of FrameScore
        One per frame that could be scored.
    problems : dict of str to str
        Frames that could not be scored, by name, and why.
    """

    summary: Summary
    calibration: Calibration | None
    curve: tuple[OperatingPoint, ...]
    frames: tuple[FrameScore, ...]
    problems: dict[str, str]


@dataclass(frozen=True, eq=False)
class _Scored:
    """What one frame adds to an evaluation, some kilobytes.

    Attributes
    ----------
    score : FrameScore
        Its group is its name, still.
    pixels : int64 array, shape (256, 2)
        Of `count_pixels`.
    overlaps : list of Overlap
        Of `overlaps_at`, for the curve.
    """

    score: FrameScore
    pixels: NDArray[np.int64]
    overlaps: list[Overlap]


def evaluate(
    predictor: TaskRunner,
    sequence: FrameSequence,
    settings: MaskSettings,
    indices: Sequence[int] | None = None,
    *,
    reference: ReferenceMasks | None = None,
    no_polyps: bool = False,
    groups: Mapping[str, str] | None = None,
    alternatives: Sequence[MaskSettings] = (),
    progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Evaluation:
    """Predict frames and score them against reference masks, at native size.

    The network runs once per frame, also for the curve over settings, and a
    probability map is let go as soon as it is scored. What frames add is brought
    together in their order, so that every figure is the same to the last bit
    whoever scored them.

    Parameters
    ----------
    predictor : TaskRunner
        The model: a `Predictor` or a `ClusterPredictor`.
    sequence : FrameSequence
        The frames.
    settings : MaskSettings
        How probabilities become masks.
    indices : sequence of int, optional
        Which frames; all by default.
    reference : callable, optional
        Gives the reference mask of a frame by its number, such as `CuratedDataset.mask`, or None
        for a frame without one; by default the masks beside the frames, and an empty one for a
        frame without a mask in a folder that is named as negatives. It is pickled for a cluster.
    no_polyps : bool
        Whether the frames are known to show no polyp; no reference is read then.
    groups : mapping of str to str, optional
        The group of each frame by the frame's name, such as the clip it is from:
        frames of one group resemble each other, and intervals are over groups. By
        default every frame is a group of its own.
    alternatives : sequence of MaskSettings, optional
        For the curve, such as `thresholds.CANDIDATES`; no curve by default. The time for a
        frame grows with the thresholds among them.
    progress, cancelled : callable, optional
        As for `Predictor.predict`.

    Returns
    -------
    Evaluation
        Of the frames that were done when it was cancelled.

    Raises
    ------
    KeyError
        If `groups` leaves out a frame.
    """
    chosen = range(len(sequence)) if indices is None else indices
    names = [sequence.frames[index].name for index in chosen]
    group_of = {name: name if groups is None else groups[name] for name in names}
    outcomes: dict[int, _Scored | str] = {}
    task = partial(
        _score_frames,
        settings=settings,
        reference=reference,
        no_polyps=no_polyps,
        alternatives=alternatives,
    )
    predictor.carry_out(task, sequence, chosen, outcomes, progress=progress, cancelled=cancelled)

    scores = []
    problems = {}
    curve = ThresholdCurve(alternatives)
    pixels = np.zeros((256, 2), np.int64)
    for index, name in zip(chosen, names, strict=True):
        outcome = outcomes.get(index)
        if isinstance(outcome, str):
            problems[name] = outcome
        elif outcome is not None:
            scores.append(replace(outcome.score, group=group_of[name]))
            pixels += outcome.pixels
            curve.add(outcome.overlaps)
    return Evaluation(
        summarise(scores), calibration(pixels), curve.points(), tuple(scores), problems
    )


def _score_frames(
    predictor: Predictor,
    sequence: FrameSequence,
    indices: Sequence[int],
    results: dict[int, _Scored | str],
    *,
    settings: MaskSettings,
    reference: ReferenceMasks | None,
    no_polyps: bool,
    alternatives: Sequence[MaskSettings],
    progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> None:
    """Score some frames, or say why one cannot be; a `FrameTask`."""
    read_reference = sequence.read_mask if reference is None else reference
    predictions = predictor.predict(sequence, indices, progress=progress, cancelled=cancelled)
    with closing(predictions):
        for prediction in predictions:
            frame = sequence.frames[prediction.index]
            if prediction.map is None:
                results[prediction.index] = prediction.problem or ""
                continue
            try:
                labels = None if no_polyps else read_reference(prediction.index)
            except InputError as error:
                results[prediction.index] = str(error)
                continue
            negative = reference is None and lies_among_negatives(sequence.path, frame.name)
            if no_polyps or (labels is None and negative):
                labels = np.zeros((frame.height, frame.width), np.uint8)
            if labels is None:
                results[prediction.index] = f"Frame {frame.name} has no reference mask."
                continue
            if (labels == IGNORE).all():
                results[prediction.index] = IGNORED_THROUGHOUT.format(frame.name)
                continue
            mask = mask_from(prediction.map, settings)
            score = score_frame(
                frame.name,
                confidence(prediction.map, mask, settings.threshold),
                mask,
                labels,
                field=prediction.map.field,
            )
            results[prediction.index] = _Scored(
                score,
                count_pixels(prediction.map, labels),
                overlaps_at(prediction.map, labels, alternatives),
            )


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
    return Summary(
        positives=len(positives),
        negatives=len(negatives),
        positive_groups=len({score.group for score in positives}),
        negative_groups=len({score.group for score in negatives}),
        dice=_mean("dice", positives),
        iou=_mean("iou", positives),
        hausdorff95=_mean("hausdorff95", positives),
        boundary_f=_mean("boundary_f", positives),
        global_dice=2 * both / (2 * both + wrong) if positives else None,
        global_iou=both / (both + wrong) if positives else None,
        positives_found=_mean("found", positives),
        positives_flagged=_mean("flagged", positives),
        negatives_flagged=_mean("flagged", negatives),
        by_size={
            size: _of_size([s for s in positives if polyp_size(s.polyp_share) == size])
            for size in POLYP_SIZES
        },
        confidence_rank_correlation=_rank_correlation(
            _values("confidence", positives), _values("dice", positives)
        ),
    )


def _of_size(positives: Sequence[FrameScore]) -> SizeSummary:
    return SizeSummary(len(positives), _mean("dice", positives), _mean("found", positives))


def _values(field: str, scores: Sequence[FrameScore]) -> NDArray[np.float64]:
    return np.array([getattr(score, field) for score in scores], float)


def _mean(field: str, scores: Sequence[FrameScore]) -> Interval | None:
    """Average a field, over the frames that have it."""
    having = [score for score in scores if getattr(score, field) is not None]
    return bootstrap_interval(_values(field, having), [score.group for score in having])


def _rank_correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float | None:
    if first.size < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(stats.spearmanr(first, second).statistic)
