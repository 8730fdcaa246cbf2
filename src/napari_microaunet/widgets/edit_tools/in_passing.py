"""Masks that take a moment to compute: in a thread, and written if nothing came between."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QObject

from napari_microaunet.widgets.jobs import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_microaunet.editing.labels import Mask
    from napari_microaunet.widgets.edit_tools.edits import Edits


class InPassing(QObject):
    """Computes masks of the frame on show, one after the other.

    Parameters
    ----------
    edits : Edits
        What is edited.
    """

    def __init__(self, edits: Edits) -> None:
        super().__init__()
        self._edits = edits
        self._job: Job | None = None
        edits.bench.closing.connect(self.cancel)

    @property
    def is_busy(self) -> bool:
        """Whether a mask is being computed."""
        return self._job is not None

    def cancel(self) -> None:
        """Do without what is being computed."""
        if self._job is not None:
            self._job.cancel()

    def deliver(self) -> None:
        """Write what has been computed by now."""
        if self._job is not None:
            self._job.deliver()

    def start(
        self,
        title: str,
        compute: Callable[[], Mask],
        told: Callable[[bool], object],
        ended: Callable[[], object] = lambda: None,
    ) -> bool:
        """Compute a mask and write it as one undo step.

        Parameters
        ----------
        title : str
            Name of the tool.
        compute : callable
            Called in a thread; gives a new mask of the frame on show.
        told : callable
            Told whether the mask was changed, once it is written.
        ended : callable
            Called at the end, whatever it came to.

        Returns
        -------
        bool
            False if another one is still being computed: the user is told.
        """
        edits = self._edits
        if self._job is not None:
            edits.say(f"{title}: a moment, the last one is still being computed.")
            return False
        masks, index = edits.masks, edits.index
        digest = masks.chunks.digest(index)

        def work(_cancelled: Callable[[], bool]) -> Iterator[Mask]:
            yield compute()

        def take(mask: Mask) -> None:
            work = edits.bench.work
            if work is None or work.masks is not masks or masks.chunks.digest(index) != digest:
                edits.say(f"{title}: the mask has changed meanwhile, so it was left alone.")
            elif edits.index == index:
                told(edits.apply(title, mask))
            elif not np.array_equal(mask, masks.chunks.mask(index)):
                masks.edit(index, mask, title)
                edits.say(f"{title}: done on frame {index}, which you have left meanwhile.")

        def end() -> None:
            self._job = None
            ended()
            if self._job is None:
                edits.bench.edits_underway.discard(self)

        edits.bench.edits_underway.add(self)
        self._job = Job(title, work)
        self._job.item.connect(take)
        self._job.ended.connect(end)
        self._job.start(in_passing=True)
        return True
