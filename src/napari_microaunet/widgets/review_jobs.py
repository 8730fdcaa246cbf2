"""What the queue needs to know and takes time to find out, as jobs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from napari_microaunet.curation.looks import FrameLook, clips, duplicates, look_over
from napari_microaunet.curation.queue import Clues, disagreement
from napari_microaunet.curation.session import KeptMap
from napari_microaunet.curation.temporal import by_frame, find_lapses, trace_masks
from napari_microaunet.prelabel.probability import least_value
from napari_microaunet.widgets.jobs import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from napari_microaunet.curation.session import Session
    from napari_microaunet.networks.library import Model
    from napari_microaunet.prelabel.predictor import Predictor
    from napari_microaunet.prelabel.probability import ProbabilityMap
    from napari_microaunet.widgets.workbench import Workbench

# Number of a frame, what the other model says of it if that is new, how far the two differ.
Compared = tuple[int, KeptMap | None, float | None]


def compare_shown(bench: Workbench, model: Model, open_predictor: Callable[[], Predictor]) -> Job:
    """Make a job that asks another model about the frame on show and keeps its answer.

    Parameters
    ----------
    bench : Workbench
        With masks.
    model : Model
        The other model.
    open_predictor : callable
        Makes it ready; called in the job's thread.
    """
    work, prelabels = bench.start_masks()
    sequence, index, session = work.sequence, bench.shown, prelabels.masks.session
    levels = _levels(bench, model)

    def predict(_cancelled: Callable[[], bool]) -> Iterator[Compared]:
        found = open_predictor().predict_frame(sequence.read(index), sequence.field_of_view(index))
        yield _compared(session, index, found, model, levels)

    job = Job(f"Asking {model.name} about the frame on show", predict)
    job.item.connect(lambda item: _keep(session, item))
    return job


def compare_all(bench: Workbench, model: Model, open_predictor: Callable[[], Predictor]) -> None:
    """Find out how far another model differs, on all frames that have a pre-label.

    What is known already is not computed again.

    Parameters
    ----------
    bench : Workbench
        With masks; its job runs.
    model : Model
        The other model.
    open_predictor : callable
        Makes it ready; called in the job's thread.
    """
    work, prelabels = bench.start_masks()
    sequence, session = work.sequence, prelabels.masks.session
    indices = [index for index in range(len(sequence)) if index in prelabels]
    if not indices:
        bench.message = "There are no pre-labels to compare yet."
        return
    levels = _levels(bench, model)

    def compare(cancelled: Callable[[], bool]) -> Iterator[Compared]:
        missing = []
        for index in indices:
            if cancelled():
                return
            kept = session.map(index, "compared")
            if kept is None or kept.card_sha256 != model.card.sha256:
                missing.append(index)
            elif session.status(index).disagreement is None:
                yield index, None, _disagreement(session, index, kept, levels)
            else:
                yield index, None, session.status(index).disagreement
        if not missing:
            return
        predictor = open_predictor()
        for one in predictor.predict(sequence, missing, cancelled=cancelled):
            if one.map is None:
                yield one.index, None, None
            else:
                yield _compared(session, one.index, one.map, model, levels)

    job = Job(f"Comparing {len(indices)} frames with {model.name}", compare, len(indices))
    job.item.connect(lambda item: _keep(session, item))
    bench.run(job, None, work)


@dataclass(frozen=True, eq=False)
class Looks:
    """What the pictures of a sequence tell.

    Attributes
    ----------
    frames : list of FrameLook
        All frames, in order.
    clips : int array, shape (number of frames,)
        The clip of each frame.
    duplicates : int array, shape (number of frames,)
        The group of near-duplicates of each frame.
    """

    frames: list[FrameLook]
    clips: NDArray[np.int64]
    duplicates: NDArray[np.int64]


def look_at_all(bench: Workbench, seen: Callable[[Looks], None]) -> None:
    """Look at the pictures of all frames.

    Parameters
    ----------
    bench : Workbench
        With frames; its job runs.
    seen : callable
        Told what there was to see, at the end.
    """
    work, _ = bench.start_masks()
    sequence = work.sequence

    def look(cancelled: Callable[[], bool]) -> Iterator[Looks | None]:
        frames = []
        for one in look_over(sequence):
            if cancelled():
                return
            frames.append(one)
            yield None
        yield Looks(frames, clips(sequence, frames), duplicates(frames))

    def take(item: Looks | None) -> None:
        if item is not None and bench.work is work:
            seen(item)

    job = Job(f"Looking at {len(sequence)} pictures", look, len(sequence) + 1)
    job.item.connect(take)
    bench.run(job, None, work)


def find_clues(session: Session, looks: Looks) -> Job:
    """Make a job that finds frames whose masks or pictures do not fit their neighbours.

    Its one item are `Clues`.
    """

    def find(_cancelled: Callable[[], bool]) -> Iterator[Clues]:
        trace = trace_masks(session.sequence.frames, session.statuses)
        findings = by_frame(find_lapses(trace, looks.clips, looks.frames))
        yield Clues(findings, looks.duplicates)

    return Job("Comparing frames with their neighbours", find)


def _levels(bench: Workbench, model: Model) -> tuple[int, int]:
    """From which values on the maps of both models say "polyp"."""
    return least_value(bench.settings.threshold), least_value(model.card.threshold)


def _compared(
    session: Session, index: int, found: ProbabilityMap, model: Model, levels: tuple[int, int]
) -> Compared:
    kept = KeptMap(found.values, found.field, model.name, model.card.sha256)
    return index, kept, _disagreement(session, index, kept, levels)


def _disagreement(
    session: Session, index: int, other: KeptMap, levels: tuple[int, int]
) -> float | None:
    one = session.map(index)
    if one is None:
        return None
    values = other.values
    if values.shape != one.values.shape:
        # Networks of different sizes see the same field of view.
        height, width = one.values.shape
        resized = Image.fromarray(values).resize((width, height), Image.Resampling.BILINEAR)
        values = np.asarray(resized)
    return disagreement(one.values, values, levels)


def _keep(session: Session, item: Compared) -> None:
    index, kept, differs = item
    if session.read_only:
        # It has been closed meanwhile.
        return
    if kept is not None:
        session.put_map(index, kept, role="compared")
    session.set_disagreement(index, differs)
