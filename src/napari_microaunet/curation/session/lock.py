"""One writer per session: whoever comes second may look."""

from __future__ import annotations

import json
import os
import socket
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from napari_microaunet.atomic import replacing

if TYPE_CHECKING:
    from pathlib import Path

LOCK_NAME = ".lock"
OWNER_NAME = ".owner.json"


class SessionLock:
    """The right to write to a session. It ends with the process, however that ends.

    Parameters
    ----------
    folder : Path
        The session.
    """

    def __init__(self, folder: Path) -> None:
        self._owner_file = folder / OWNER_NAME
        # Taken in one thread and given back in another.
        self._lock = FileLock(folder / LOCK_NAME, timeout=0, thread_local=False)

    def acquire(self, annotator: str) -> bool:
        """Take it, and leave word of who has it; return whether it could be had.

        Raises
        ------
        OSError
            If the folder cannot be written to.
        """
        try:
            self._lock.acquire()
        except Timeout:
            return False
        owner = {
            "annotator": annotator,
            "computer": socket.gethostname(),
            "process": os.getpid(),
            "since": datetime.now(UTC).timestamp(),
        }
        # Who it is matters less than that there is one: a full disk is no reason to stop here.
        with suppress(OSError), replacing(self._owner_file) as file:
            file.write(json.dumps(owner).encode())
        return True

    def is_free(self) -> bool:
        """Tell whether it could be had; it is not kept."""
        try:
            with self._lock:
                return True
        except (OSError, Timeout):
            return False

    def release(self) -> None:
        """Give it back."""
        self._lock.release()

    def owner(self) -> str:
        """Say who has it and since when."""
        try:
            owner = json.loads(self._owner_file.read_text(encoding="utf-8"))
            since = datetime.fromtimestamp(owner["since"], UTC).astimezone()
            return f"by {owner['annotator']} on {owner['computer']} since {since:%H:%M on %d %B %Y}"
        except (OSError, ValueError, TypeError, KeyError):
            return "elsewhere"
