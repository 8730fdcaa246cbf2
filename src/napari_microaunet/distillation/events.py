"""What a training tells about itself while it runs: JSON objects with the key "event"."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

Event = dict[str, Any]

TELL_EVERY = 1.0  # seconds


def telling(report: Callable[[Event], None], name: str) -> Callable[[int, int], None]:
    """Return what reports the progress of a preparation, at most once a second.

    Parameters
    ----------
    report : callable
        Called with events ``{"event": name, "done": done, "total": total}``.
    name : str
        What is prepared.
    """
    told = 0.0

    def tell(done: int, total: int) -> None:
        nonlocal told
        if time.monotonic() - told > TELL_EVERY or done == total:
            told = time.monotonic()
            report({"event": name, "done": done, "total": total})

    return tell
