"""What has been changed and is not yet on disk, and how it gets there."""

from __future__ import annotations

import sqlite3
import time
from copy import copy
from itertools import islice
from typing import TYPE_CHECKING, Any, get_args

from napari_microaunet.curation.session.database import Event, IntendedMask
from napari_microaunet.curation.session.states import MapRole, MaskOrigin
from napari_microaunet.curation.session.writer import Writer
from napari_microaunet.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from threading import RLock

    from napari_microaunet.curation.session.database import Database, MapRow
    from napari_microaunet.curation.session.folder import SessionFolder, WaitingChunk

_ROLES: tuple[MapRole, ...] = get_args(MapRole)
# Frames whose files are written together, before it is looked for what matters more.
_FRAMES_AT_A_TIME = 16
# Rows without files that share a transaction: while they are copied, nobody else gets the lock.
_ROWS_AT_A_TIME = 1000


class Saver:
    """Takes note of what has changed in a session, and saves it a moment later.

    Of each frame, the files of its chunks are replaced first and then, in one
    transaction, its rows and what happened to it. Frames that have changed at the
    same time share the transaction, because a sync takes as long for many as for one.
    What the files are about to hold, and who made it, is entered before: a kill that
    comes in between is noticed by it, and a model's mask does not pass for the annotator's.

    All but `start`, `flush` and `stop` are called with the lock held.

    Parameters
    ----------
    folder : SessionFolder
        Where to; its rows and maps are what is saved.
    lock : RLock
        Held by whoever changes them.
    measure : callable
        Called in the writing thread, without the lock, for a frame that is about to be saved.
    """

    def __init__(self, folder: SessionFolder, lock: RLock, measure: Callable[[int], None]) -> None:
        self._folder = folder
        self._lock = lock
        self._measure = measure
        self._writer: Writer | None = None
        # In the order they were changed.
        self._rows: dict[int, None] = {}
        self._files: dict[int, None] = {}
        self._maps: dict[tuple[int, MapRole], MapRow] = {}
        self._settings: dict[str, Any] = {}
        self._events: dict[int | None, list[Event]] = {}

    @property
    def problem(self) -> str | None:
        """What is wrong with saving, in a sentence; None while all is well."""
        return None if self._writer is None else self._writer.problem

    def start(self, on_problem: Callable[[str | None], None] | None) -> None:
        """Start to save; `on_problem` is told of `problem` whenever it changes."""
        self._writer = Writer(self._save, self._folder.database_file, on_problem)

    def frame(self, index: int, *, files: bool = False) -> None:
        """Take note that the row of a frame has changed.

        Parameters
        ----------
        index : int
            Number of the frame.
        files : bool
            Whether its mask or a map has: that takes longer than a row alone.
        """
        if files or index in self._files:
            self._files[index] = None
        else:
            self._rows[index] = None
        self._wake()

    def map(self, index: int, row: MapRow) -> None:
        """Take note that a frame has another map."""
        self._maps[index, row.role] = row
        self.frame(index, files=True)

    def setting(self, name: str, value: Any) -> None:
        """Take note that a setting has changed."""
        self._settings[name] = value
        self._wake()

    def event(self, annotator: str, slot: int | None, what: str) -> None:
        """Take note that something happened, to a frame or to the session as a whole."""
        self._events.setdefault(slot, []).append(Event(time.time(), annotator, slot, what))
        self._wake()

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all is on disk; return whether it is."""
        return self._writer is None or self._writer.flush(timeout)

    def stop(self) -> bool:
        """Save what there is, for the last time; return whether all is saved."""
        return self._writer is None or self._writer.stop()

    def _wake(self) -> None:
        if self._writer is not None:
            self._writer.wake()

    def _save(self) -> bool:
        """Save some of what waits; return whether there is more."""
        try:
            return self._save_some(self._folder.database())
        except (OSError, sqlite3.Error, InputError):
            self._folder.disconnect()
            raise

    def _save_some(self, database: Database) -> bool:
        rows = self._folder.rows
        with self._lock:
            # What was done by hand goes first: a model can do its part again.
            with_files = sorted(
                self._files, key=lambda index: rows[index].origin is not MaskOrigin.HAND
            )[:_FRAMES_AT_A_TIME]
            rows_alone = (index for index in self._rows if index not in self._files)
            without = list(islice(rows_alone, _ROWS_AT_A_TIME))
        self._commit(database, without, of_session=True)
        if with_files:
            self._folder.save_files(self._intend(database, with_files))
            self._commit(database, with_files)
        with self._lock:
            return bool(self._files or self._rows or self._settings)

    def _intend(self, database: Database, indices: Sequence[int]) -> list[WaitingChunk]:
        """Enter what the files of frames are about to hold; return that."""
        with self._lock:
            rows = [self._folder.rows[index] for index in indices]
            chunks = self._folder.waiting_chunks([row.slot for row in rows])
            masks = [
                IntendedMask(row.slot, row.origin, row.digest)
                for row in rows
                if self._folder.masks.waiting(row.slot)
            ]
            maps = [self._maps[key] for key in self._keys(indices)]
        database.intend(masks, maps)
        return chunks

    def _keys(self, indices: Sequence[int]) -> list[tuple[int, MapRole]]:
        """List the maps of frames that have changed."""
        keys = [(index, role) for index in indices for role in _ROLES]
        return [key for key in keys if key in self._maps]

    def _commit(
        self,
        database: Database,
        indices: Sequence[int],
        *,
        of_session: bool = False,
    ) -> None:
        """Write the rows of frames, and what happened to them, in one transaction."""
        for index in indices:
            self._measure(index)
        with self._lock:
            # Of what has been put since they were chosen, intention and files come first.
            rows = {
                index: copy(row)
                for index in indices
                if not self._folder.waits_for_files((row := self._folder.rows[index]).slot)
            }
            for index in rows:
                self._rows.pop(index, None)
                self._files.pop(index, None)
            maps = {key: self._maps.pop(key) for key in self._keys(list(rows))}
            slots = [*(row.slot for row in rows.values()), *([None] if of_session else [])]
            events = {slot: self._events.pop(slot) for slot in slots if slot in self._events}
            settings: dict[str, Any] = {}
            if of_session:
                settings, self._settings = self._settings, settings
        happened = [event for some in events.values() for event in some]
        if not (rows or settings or happened):
            return
        try:
            database.save(rows.values(), maps.values(), happened, settings)
        except BaseException:
            with self._lock:
                # It waits again, behind what has come meanwhile.
                self._rows |= dict.fromkeys(rows)
                self._maps = maps | self._maps
                self._settings = settings | self._settings
                for slot, some in events.items():
                    self._events[slot] = some + self._events.get(slot, [])
            raise
