"""Running a model over frames, off the GUI thread."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING

from napari_microaunet.frames.mask_chunks import chunk_digest
from napari_microaunet.prelabel.predictor import Predictor
from napari_microaunet.widgets.jobs import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from napari_microaunet.networks.library import Model
    from napari_microaunet.widgets.prelabels import Found
    from napari_microaunet.widgets.workbench import Workbench


class Predictors:
    """Models made ready to run: each once, in the thread that first needs it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ready: dict[tuple[Path, str, str], Predictor] = {}

    def get(self, model: Model, device: str) -> Predictor:
        """Make a model ready to run on a device, if it is not yet."""
        key = model.path, model.card.sha256, device
        with self._lock:
            if key not in self._ready:
                self._ready[key] = Predictor(model, device=device)
            return self._ready[key]


def prelabel(
    bench: Workbench,
    open_predictor: Callable[[], Predictor],
    indices: Sequence[int],
    permitted: Mapping[int, bytes],
) -> None:
    """Pre-label frames of the sequence being worked on.

    Parameters
    ----------
    bench : Workbench
        With frames.
    open_predictor : callable
        Called in the job's thread.
    indices : sequence of int
        Which frames, in this order.
    permitted : mapping of int to bytes
        Frames whose mask by the user may be replaced, with its digest.
    """
    work, prelabels = bench.start_masks()
    unreadable = kept = 0

    def predict(cancelled: Callable[[], bool]) -> Iterator[tuple[int, Found | None]]:
        predictor = open_predictor()
        for one in predictor.predict(work.sequence, indices, cancelled=cancelled):
            found = None if one.map is None else prelabels.look(one.map, predictor.model)
            yield one.index, found

    def take(item: tuple[int, Found | None]) -> None:
        nonlocal unreadable, kept
        index, found = item
        if found is None:
            unreadable += 1
            bench.frame_changed.emit(index)
        elif work.prelabels is prelabels:
            kept += not prelabels.receive(index, found, permitted)

    def end(complete: bool) -> None:
        if complete:
            bench.message = _summary(len(indices), unreadable, kept)

    job = Job(f"Pre-labelling {len(indices)} frames", predict, len(indices))
    job.item.connect(take)
    bench.run(job, end, work)


def prelabel_shown(bench: Workbench, open_predictor: Callable[[], Predictor]) -> Job:
    """Make a job that pre-labels the frame on show, for live mode."""
    work, prelabels = bench.start_masks()
    sequence, index = work.sequence, bench.shown

    def predict(_cancelled: Callable[[], bool]) -> Iterator[tuple[int, Found]]:
        predictor = open_predictor()
        found = predictor.predict_frame(sequence.read(index), sequence.field_of_view(index))
        yield index, prelabels.look(found, predictor.model)

    def take(item: tuple[int, Found]) -> None:
        if work.prelabels is prelabels:
            prelabels.receive(*item, {})

    job = Job("Pre-labelling the frame on show", predict)
    job.item.connect(take)
    return job


def follow_settings(
    bench: Workbench,
    then: Callable[[Mapping[int, bytes]], None],
    indices: Iterable[int] | None = None,
    at_once: int = 0,
) -> None:
    """Have masks follow the sliders, those with undo steps as well, and go on.

    Parameters
    ----------
    bench : Workbench
        With frames.
    then : callable
        Called when all have followed, not if that is cancelled, with the digests of their masks:
        what these were before or became by following, whatever was drawn meanwhile.
    indices : iterable of int, optional
        Numbers of the frames; all by default.
    at_once : int
        As many follow without a job.
    """
    work, prelabels = bench.start_masks()
    digest = prelabels.masks.chunks.digest
    digests = {i: digest(i) for i in (range(len(work.sequence)) if indices is None else indices)}

    def take(item: tuple[int, Found | None]) -> None:
        index, found = item
        prelabels.put(index, found)
        if found is not None:
            digests[index] = chunk_digest(found.chunk)

    def go_on(complete: bool) -> None:
        if not complete or work.prelabels is not prelabels:
            return
        # Those again for which a slider has moved meanwhile.
        waiting = {i: wanted for i, wanted in prelabels.waiting().items() if i in digests}
        if not waiting:
            then(digests)
        elif len(waiting) <= at_once:
            for item in prelabels.following(waiting):
                take(item)
            then(digests)
        else:
            follow = partial(prelabels.following, waiting)
            job = Job(f"Bringing {len(waiting)} masks up to date", follow, len(waiting))
            job.item.connect(take)
            bench.run(job, go_on, work)

    go_on(True)


def _summary(total: int, unreadable: int, kept: int) -> str:
    parts = [f"Pre-labelled {total - unreadable - kept} of {total} frames."]
    if kept:
        parts.append(f"{kept} kept the mask that you had given them.")
    if unreadable:
        parts.append(f"{unreadable} could not be read.")
    return " ".join(parts)
