"""The job of a window: there is one at a time, and others wait for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from napari.utils.notifications import show_info
from qtpy.QtCore import QObject, Signal

from napari_microaunet.widgets.jobs import SingleCall

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_microaunet.widgets.jobs import Cancelled, Job, Told
    from napari_microaunet.widgets.work import Work

_Result = TypeVar("_Result")


class OneJob(QObject):
    """Runs one job at a time. Lives in the GUI thread.

    Attributes
    ----------
    job : Job or None
        What is running.
    message : str
        What the last job came to.
    job_changed : Signal()
        A job has begun or ended.
    """

    job_changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.job: Job | None = None
        self.message = ""
        self._job_work: Work | None = None

    def run(
        self, job: Job, ended: Callable[[bool], None] | None = None, work: Work | None = None
    ) -> None:
        """Start a job, unless another one is running.

        Parameters
        ----------
        job : Job
            What to do.
        ended : callable, optional
            Told at the end whether all of it was done; may set `message` and
            start the next job.
        work : Work, optional
            What the job is for: it is cancelled when the user turns to another.
        """
        if self.is_busy():
            return

        def end(complete: bool) -> None:
            self.job = self._job_work = None
            if not complete:
                self.message = f"{job.title}: stopped after {job.done} of {job.total}."
            if ended is not None:
                ended(complete)
            self.job_changed.emit()

        self.job, self._job_work = job, work
        self.message = ""
        job.ended.connect(end)
        job.start()
        self.job_changed.emit()

    def run_with_progress(
        self,
        title: str,
        run: Callable[[Told, Cancelled], _Result],
        ended: Callable[[_Result | None], None],
        work: Work | None = None,
    ) -> None:
        """Start a job that is a single call, unless another job is running.

        Parameters
        ----------
        title : str
            What is being done, for the user.
        run : callable
            As for `SingleCall`.
        ended : callable
            Told at the end what `run` returned; None where that was cancelled or failed.
        work : Work, optional
            As for `run`.
        """
        job = SingleCall(title, run)
        self.run(job, lambda complete: ended(job.result if complete else None), work)

    def is_busy(self) -> bool:
        """Tell whether a job is running; if so, the user is told to wait for it."""
        if self.job is not None:
            show_info(f"{self.job.title} is still running: wait for it or cancel it first.")
        return self.job is not None

    def cancel(self) -> None:
        """Cancel what is running, if it can be."""
        if self.job is not None and self.job.can_stop:
            self.job.cancel()
        elif self.job is not None:
            show_info(f"{self.job.title} cannot be cancelled: a moment.")

    def cancel_job_of(self, work: Work | None) -> None:
        """Cancel what is running if it is for a sequence."""
        if work is not None and self._job_work is work:
            self.cancel()
