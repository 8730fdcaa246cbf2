"""Running a model over frames, off the GUI thread."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from napari_microaunet.curation.session import MaskOrigin
from napari_microaunet.prelabel.predictor import Predictor
from napari_microaunet.widgets.jobs import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from zarr.core.buffer import Buffer

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
            found = None
            if one.map is not None:
                found = prelabels.look(one.map, predictor.model, bench.settings)
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
    sequence, index, settings = work.sequence, bench.shown, bench.settings

    def predict(_cancelled: Callable[[], bool]) -> Iterator[tuple[int, Found]]:
        predictor = open_predictor()
        found = predictor.predict_frame(sequence.read(index), sequence.field_of_view(index))
        yield index, prelabels.look(found, predictor.model, settings)

    def take(item: tuple[int, Found]) -> None:
        if work.prelabels is prelabels:
            prelabels.receive(*item, {})

    job = Job("Pre-labelling the frame on show", predict)
    job.item.connect(take)
    return job


def follow_settings(bench: Workbench, then: Callable[[], None]) -> None:
    """Have all masks follow the sliders, those with undo steps as well, and go on.

    Parameters
    ----------
    bench : Workbench
        With frames.
    then : callable
        Called when all have followed; not if that is cancelled.
    """
    work, prelabels = bench.start_masks()
    masks, settings, moved = prelabels.masks, bench.settings, False
    waiting = {index: masks.chunks.digest(index) for index in sorted(prelabels.to_save())}

    def follow(cancelled: Callable[[], bool]) -> Iterator[tuple[int, float, Buffer | None]]:
        for item in prelabels.followed(waiting, settings):
            if cancelled():
                return
            yield item

    def take(item: tuple[int, float, Buffer | None]) -> None:
        nonlocal moved
        index, trust, chunk = item
        if bench.settings != settings:
            moved = True  # by a slider: these masks follow in another round, see `end`
            return
        if work.masks is masks and masks.chunks.digest(index) == waiting[index]:
            prelabels.leave(index)
            masks.session.set_confidence(index, trust, settings.threshold)
            masks.set(index, chunk, MaskOrigin.MODEL)

    def end(complete: bool) -> None:
        if complete and work.masks is masks:
            if moved or bench.settings != settings:
                follow_settings(bench, then)
            else:
                then()

    if waiting:
        job = Job(f"Bringing {len(waiting)} masks up to date", follow, len(waiting))
        job.item.connect(take)
        bench.run(job, end, work)
    else:
        then()


def _summary(total: int, unreadable: int, kept: int) -> str:
    parts = [f"Pre-labelled {total - unreadable - kept} of {total} frames."]
    if kept:
        parts.append(f"{kept} kept the mask that you had given them.")
    if unreadable:
        parts.append(f"{unreadable} could not be read.")
    return " ".join(parts)
