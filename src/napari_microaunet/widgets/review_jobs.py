"""What the queue needs to know and takes time to find out, as jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_microaunet.curation.session import KeptMap
from napari_microaunet.widgets.jobs import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_microaunet.networks.library import Model
    from napari_microaunet.prelabel.predictor import Predictor
    from napari_microaunet.widgets.workbench import Workbench


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
    sequence, index = work.sequence, bench.shown

    def predict(_cancelled: Callable[[], bool]) -> Iterator[KeptMap]:
        found = open_predictor().predict_frame(sequence.read(index), sequence.field_of_view(index))
        yield KeptMap(found.values, found.field, model.name, model.card.sha256)

    def take(kept: KeptMap) -> None:
        if work.prelabels is prelabels:
            prelabels.masks.session.put_map(index, kept, role="compared")

    job = Job(f"Asking {model.name} about the frame on show", predict)
    job.item.connect(take)
    return job
