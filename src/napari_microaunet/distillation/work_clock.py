"""How long a training has worked, for a budget in minutes."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

_EVERY_S = 0.05
# What one look at the clock counts at most. A window halts the training for 0.15 s or as long as
# somebody draws; one that was killed while it did so, until somebody opens another.
_MOST_S = 0.15


class WorkClock:
    """Counts the seconds in which the process runs, in a ``with`` block.

    While a process is halted by a signal (`FinetuneJob.suspend`), or the computer sleeps, the
    system's clocks run on. So a thread looks at the clock twenty times a second, and time in which
    it could not is not counted.

    Parameters
    ----------
    seconds : float
        Where it begins to count.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds
        self._looked = time.monotonic()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_often, name="work clock", daemon=True)

    def __enter__(self) -> Self:
        self._looked = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.seconds()
        self._over.set()
        self._thread.join()

    def seconds(self) -> float:
        """Return the seconds so far; call it in the ``with`` block, or for its last value after."""
        with self._lock:
            if not self._over.is_set():
                now = time.monotonic()
                self._seconds += min(now - self._looked, _MOST_S)
                self._looked = now
            return self._seconds

    def _look_often(self) -> None:
        while not self._over.wait(_EVERY_S):
            self.seconds()
