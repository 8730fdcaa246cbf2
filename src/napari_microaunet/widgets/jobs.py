"""Work off the GUI thread: a worker computes, the GUI thread receives what it hands over."""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Generic, TypeVar

from napari.qt.threading import FunctionWorker, create_worker
from napari.utils.notifications import show_error
from qtpy.QtCore import QCoreApplication, QEvent, QObject, Qt, Signal, Slot

from napari_microaunet.errors import InputError

log = logging.getLogger(__name__)

Told = Callable[[int, int], None]
"""Is told what is done and the whole."""
Cancelled = Callable[[], bool]
"""Tells whether to stop."""
Work = Callable[[Cancelled], Iterable[object]]

_Result = TypeVar("_Result")

# Items on their way to the GUI thread: the work waits rather than filling memory, and the GUI
# thread never has more than these to deal with at a stretch.
_MOST_UNDERWAY = 4
# A tenth of the window's share where both want a core.
_NICENESS = 10


class Job(QObject):
    """One task in a thread of its own, with progress, cancel and errors in plain words.

    Its signals are emitted in the GUI thread, in the order in which the work
    gives its items. An error ends the job and is shown to the user.

    Parameters
    ----------
    title : str
        What is being done, for the user: "Pre-labelling 120 frames".
    work : callable
        Called in the thread with a function that tells whether to stop; gives
        the items one by one. It must ask at least once a second.
    total : int
        How many items there will be.
    can_stop : bool
        Whether the user may cancel it: not where the work is done to its end in any case.

    Attributes
    ----------
    item : Signal(object)
        One item of the work; `done` counts it already.
    ended : Signal(bool)
        The last signal: whether the work came to its end, that is, was neither
        cancelled nor stopped by an error.
    """

    item = Signal(object)
    ended = Signal(bool)
    _handed_over = Signal(object)
    _left = Signal(object)

    def __init__(self, title: str, work: Work, total: int = 1, *, can_stop: bool = True) -> None:
        super().__init__()
        self.title = title
        self.total = total
        self.can_stop = can_stop
        self.done = 0
        self._work = work
        self._cancelled = threading.Event()
        self._room = threading.Semaphore(_MOST_UNDERWAY)
        self._worker: FunctionWorker | None = None
        self._started = time.monotonic()
        # Queued: emitted in the worker's thread, received in the GUI thread.
        self._handed_over.connect(self._receive, Qt.ConnectionType.QueuedConnection)
        self._left.connect(self._end, Qt.ConnectionType.QueuedConnection)

    def __str__(self) -> str:
        # napari names running tasks so when it asks whether to close the window.
        return self.title

    def start(self, in_passing: bool = False) -> None:
        """Start the thread.

        Parameters
        ----------
        in_passing : bool
            Whether it is over so soon that napari need not ask about it when
            its window is closed. It keeps a record of the others for good.
        """
        make = FunctionWorker if in_passing else partial(create_worker, _start_thread=False)
        self._worker = make(self)
        self._worker.start()

    def cancel(self) -> None:
        """Ask the work to stop; `ended` tells when it has."""
        self._cancelled.set()

    def deliver(self) -> None:
        """Emit at once what has come from the thread, for somebody who waits for it."""
        QCoreApplication.sendPostedEvents(self, QEvent.Type.MetaCall)

    def is_cancelled(self) -> bool:
        """Tell whether the job is to stop: by `cancel`, a closing window or the program's end."""
        closing = self._worker is not None and self._worker.abort_requested
        return self._cancelled.is_set() or closing or not threading.main_thread().is_alive()

    @property
    def seconds_left(self) -> float | None:
        """Estimate of the time left from the time taken; None before the first item."""
        if self.done == 0:
            return None
        return (time.monotonic() - self._started) * (self.total - self.done) / self.done

    def __call__(self) -> None:
        """Do the work; this is what runs in the thread."""
        if sys.platform == "linux":
            # Niceness is each thread's own there, and its children's: the window comes first.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        failure: Exception | None = None
        try:
            for item in self._work(self.is_cancelled):
                while not self._room.acquire(timeout=0.1) and not self.is_cancelled():
                    pass
                if self.is_cancelled():
                    break
                self._handed_over.emit(item)
        except Exception as error:  # noqa: BLE001 - whatever it is, the user is told by `_end`
            failure = error
        self._left.emit(failure)

    # A slot that PyQt knows: `deliver` reaches no others.
    @Slot(object)
    def _receive(self, item: object) -> None:
        self._room.release()
        if self.is_cancelled():
            # It was on its way already; what it was for may be gone.
            return
        self.done += 1
        self.item.emit(item)

    @Slot(object)
    def _end(self, failure: Exception | None) -> None:
        if isinstance(failure, InputError):
            show_error(str(failure))
        elif failure is not None:
            log.error("%s failed", self.title, exc_info=failure)
            show_error(f"{self.title} failed unexpectedly: {failure}. The log has the details.")
        self.ended.emit(failure is None and not self.is_cancelled())
        # napari keeps its workers, and Qt what was connected, where no garbage collector looks: all
        # that the job was for, frames in memory among it, would stay for good.
        del self._work
        self.deleteLater()


class SingleCall(Job, Generic[_Result]):
    """A job that is a single call, which tells its progress and returns something.

    Parameters
    ----------
    title : str
        What is being done, for the user.
    run : callable
        Called in a thread with a function that is to be told what is done and the whole, and one
        that tells whether to stop, upon which it must end by itself.

    Attributes
    ----------
    result : object or None
        What the call returned; None until it has.
    """

    def __init__(self, title: str, run: Callable[[Told, Cancelled], _Result]) -> None:
        super().__init__(title, self._counts)
        self._run = run
        self.result: _Result | None = None

    def _counts(self, cancelled: Cancelled) -> Iterator[int]:
        """Make the call; yield how much of it is done, one by one."""
        counts: queue.SimpleQueue[int | None] = queue.SimpleQueue()

        def told(done: int, total: int) -> None:
            self.total = total
            counts.put(done)

        with ThreadPoolExecutor(1, "work") as pool:
            future = pool.submit(self._run, told, cancelled)
            del self._run  # with what it is for, as `_end` says
            future.add_done_callback(lambda _: counts.put(None))
            seen = 0
            while (done := counts.get()) is not None:
                yield from range(seen + 1, done + 1)
                seen = max(seen, done)
            with suppress(CancelledError):
                self.result = future.result()
