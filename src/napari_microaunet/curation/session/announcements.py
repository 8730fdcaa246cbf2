"""Who is told that something else is known of frames: each change at once, or many together."""

from __future__ import annotations

from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


class Announcements:
    """Tells somebody the numbers of frames whose status has changed. Safe from any thread.

    Parameters
    ----------
    on_change : callable, optional
        Who is told, in the thread that announces.
    """

    def __init__(self, on_change: Callable[[Sequence[int]], None] | None) -> None:
        self._on_change = on_change
        self._lock = Lock()  # the thread that writes announces as well
        # Frames to be announced together; None while each is announced at once.
        self._waiting: dict[int, None] | None = None

    def announce(self, indices: Sequence[int]) -> None:
        """Tell of some frames, now or with the others."""
        with self._lock:
            if self._waiting is not None:
                self._waiting |= dict.fromkeys(indices)
                return
        if self._on_change is not None and indices:
            self._on_change(indices)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Tell of all frames that change meanwhile at the end, at once: they may be thousands."""
        with self._lock:
            changed = self._waiting = {}
        try:
            yield
        finally:
            with self._lock:
                self._waiting = None
            self.announce(list(changed))
