"""Masks that tools are computing, which belong to the frame that was on show."""

from __future__ import annotations

import time
from typing import Protocol

from napari.utils.notifications import show_info

# What a tool computes takes some tenths of a second; until then the window may stand still.
_LONGEST_S = 3.0
_NAP_S = 0.005


class Tool(Protocol):
    """A tool that computes a mask in a thread."""

    def deliver(self) -> None:
        """Write the mask if it has come."""


class EditsUnderway:
    """Tools that are computing a mask; true while there are any. Lives in the GUI thread.

    Attributes
    ----------
    unfinished : str or None
        What the user has begun with a tool and is to end first, in a sentence.
    """

    def __init__(self) -> None:
        self.unfinished: str | None = None
        self._tools: set[Tool] = set()

    def __bool__(self) -> bool:
        return bool(self._tools)

    def add(self, tool: Tool) -> None:
        """Take note that a tool has begun."""
        self._tools.add(tool)

    def discard(self, tool: Tool) -> None:
        """Take note that a tool has ended, if it had begun."""
        self._tools.discard(tool)

    def finish(self) -> bool:
        """Wait until all have written their masks.

        Returns
        -------
        bool
            False if they take too long; the user is told so.
        """
        until = time.monotonic() + _LONGEST_S
        while self._tools and time.monotonic() < until:
            for tool in list(self._tools):
                tool.deliver()
            time.sleep(_NAP_S)
        if self._tools:
            show_info("An edit is still being computed: a moment.")
        return not self._tools
