"""The thread that brings work to the disk, so that nobody has to wait for it."""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
from contextlib import contextmanager
from threading import Condition, Thread
from typing import TYPE_CHECKING

from napari_microaunet.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_log = logging.getLogger(__name__)


@contextmanager
def listening() -> Iterator[None]:
    """Keep what a listener does wrong, such as a window that is gone, from stopping the thread."""
    try:
        yield
    except Exception:  # noqa: BLE001
        _log.exception("a listener has failed")


# What comes in within as long is written together: the dabs of a stroke, a mask and its map.
_TOGETHER_S = 0.2
# How soon it is tried again after the disk has refused.
_RETRY_S = 1.0


class Writer:
    """Calls a function in a thread of its own whenever there is something to write.

    Parameters
    ----------
    save : callable
        Writes some of what waits; returns whether there is more. Raises OSError,
        sqlite3.Error or InputError where that cannot be done; nothing may be lost then.
    database : Path
        The file that an sqlite3.Error speaks of.
    on_problem : callable or None
        Told, in the thread, a sentence about what is wrong, or None when it works again.

    Attributes
    ----------
    problem : str or None
        That sentence.
    """

    def __init__(
        self,
        save: Callable[[], bool],
        database: Path,
        on_problem: Callable[[str | None], None] | None,
    ) -> None:
        self._save = save
        self._database = database
        self._on_problem = on_problem
        self.problem: str | None = None
        self._changed = Condition()
        self._waits = self._busy = self._hurry = self._stopping = False
        self._failures = 0
        # A program that ends without `stop` shall not hang on a full disk.
        self._thread = Thread(target=self._run, name="session-writer", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Say that there is something to write; with the lock held that guards it."""
        if self._waits:
            # What is written is looked for after this is reset, and under that lock.
            return
        with self._changed:
            if not self._waits:
                self._waits = True
                self._changed.notify_all()

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all is written; return whether it is.

        Parameters
        ----------
        timeout : float, optional
            In seconds. A disk that refuses is not waited for.
        """
        with self._changed:
            failures = self._failures
            self._hurry = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._is_idle() or self._failures > failures, timeout)
            self._hurry = False
            return self._is_idle()

    def stop(self) -> bool:
        """Write what there is, end the thread, return whether all is written."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join()
        return self._is_idle()

    def _is_idle(self) -> bool:
        return not (self._waits or self._busy)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waits or self._stopping)
                if not self._waits:
                    return
                self._changed.wait_for(lambda: self._hurry or self._stopping, _TOGETHER_S)
                self._waits, self._busy = False, True
            succeeded = self._save_some()
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                if not succeeded:
                    if self._stopping:
                        return
                    self._changed.wait_for(lambda: self._hurry or self._stopping, _RETRY_S)

    def _save_some(self) -> bool:
        try:
            while self._save():
                pass
        except (OSError, sqlite3.Error, InputError) as error:
            problem = _in_words(error, self._database)
        except Exception as error:  # noqa: BLE001
            # A defect of ours. The thread goes on all the same: it holds people's work.
            _log.exception("saving has failed")
            problem = (
                f"Saving to {self._database.parent} has failed ({error}): save the masks as files "
                "as well, and report this."
            )
        else:
            self._tell(None)
            return True
        with self._changed:
            self._waits = True
            self._failures += 1
        self._tell(problem)
        return False

    def _tell(self, problem: str | None) -> None:
        if problem != self.problem:
            self.problem = problem
            if self._on_problem is not None:
                with listening():
                    self._on_problem(problem)


_MAKE_ROOM = "make room on the disk"
_ALLOW = "allow writing to the folder"
_BY_ERRNO = {
    errno.ENOSPC: _MAKE_ROOM,
    errno.EDQUOT: _MAKE_ROOM,
    errno.EACCES: _ALLOW,
    errno.EPERM: _ALLOW,
    errno.EROFS: _ALLOW,
}
_BY_SQLITE = {sqlite3.SQLITE_FULL: _MAKE_ROOM, sqlite3.SQLITE_READONLY: _ALLOW}
_BY_DEFAULT = "see that its drive and folder are there"


def _in_words(error: OSError | sqlite3.Error | InputError, database: Path) -> str:
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError):
        file, reason = error.filename or database, error.strerror or str(error)
        advice = _BY_ERRNO.get(error.errno or 0, _BY_DEFAULT)
    else:
        file, reason = database, str(error)
        # The lowest byte is the kind of error, the others say more.
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        advice = _BY_SQLITE.get(code, _BY_DEFAULT)
        # SQLite cannot open its journal there, and says no more than that.
        if database.exists() and not os.access(database.parent, os.W_OK):
            advice = _ALLOW
    return (
        f"{file} cannot be written ({reason}): {advice}; your work is kept in memory meanwhile, "
        "and saved as soon as that is possible."
    )
