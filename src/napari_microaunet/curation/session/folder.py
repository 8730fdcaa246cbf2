"""The folder of a session: what it holds, how it is opened, who may write to it."""

from __future__ import annotations

import errno
import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from napari_microaunet.curation.session.chunk_files import ChunkFiles
from napari_microaunet.curation.session.database import (
    DATABASE_NAME,
    Contents,
    Database,
    read_database,
)
from napari_microaunet.curation.session.lock import SessionLock
from napari_microaunet.curation.session.matching import differences, match_frames
from napari_microaunet.curation.session.replaced_files import (
    SeenFile,
    replacements,
    seen_files,
)
from napari_microaunet.curation.session.rows import status_of
from napari_microaunet.curation.session.states import MaskOrigin
from napari_microaunet.errors import InputError
from napari_microaunet.frames.mask_chunks import (
    chunk_digest,
    decode_chunk,
    encode_chunk,
    to_chunk,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from zarr.core.buffer import Buffer

    from napari_microaunet.curation.session.database import FrameRow, MapRow
    from napari_microaunet.curation.session.states import MapRole
    from napari_microaunet.frames import FrameSequence

_Item = TypeVar("_Item")

# Files that are written side by side; more did not help on a solid-state disk.
_FILES_AT_ONCE = 8


class WaitingChunk(NamedTuple):
    """What the file of a slot is about to hold; None for no file."""

    files: ChunkFiles
    slot: int
    chunk: bytes | None


class SessionFolder:
    """A session on disk.

    ::

        NAME.microaunet/
        ├── session.sqlite                      see `database`
        ├── session-version-N.sqlite            from before a newer program changed its tables
        ├── masks-WIDTHxHEIGHT.zarr/            the masks, one chunk per frame
        ├── starting-masks-WIDTHxHEIGHT.zarr/   what the work by hand began with, where there is any
        ├── maps/ROLE-WIDTHxHEIGHT.zarr/        the probability maps
        ├── splits.json                         of fine-tunings on it, see `curation.learning`
        ├── .lock                               held by the one who may write
        └── .owner.json                         who that is

    Parameters
    ----------
    path : Path
        The folder; made if it is missing.
    sequence : FrameSequence
        The frames.
    annotator : str
        Who opens it.

    Attributes
    ----------
    notice : str or None
        Why it cannot be written to, in a sentence.
    remarks : list of str
        What was noticed in opening it.
    canvas_shape : (int, int)
        Height and width of every mask.
    masks, starts : ChunkFiles
        The masks by the slots of their frames.
    rows : list of FrameRow
        One per frame of the sequence.
    maps : dict of (int, str) to MapRow
        By the number of the frame in the sequence and the role.
    settings : dict
        As they were left.

    Raises
    ------
    InputError
        If it is something else, or damaged, or cannot be made; it is left as it is.
    """

    def __init__(self, path: Path, sequence: FrameSequence, annotator: str) -> None:
        _check(path)
        self.path = path
        self.database_file = path / DATABASE_NAME
        self._database: Database | None = None
        self._map_files: dict[tuple[MapRole, int, int], ChunkFiles] = {}
        self._pool = ThreadPoolExecutor(_FILES_AT_ONCE, "session-files")
        self._lock = SessionLock(path)
        self.notice = self._take_lock(annotator)
        try:
            self._open(sequence)
        except BaseException:
            self.close()
            raise

    def _take_lock(self, annotator: str) -> str | None:
        """Try to become the one who writes; return why that is not possible."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if self._lock.acquire(annotator):
                return None
        except OSError as error:
            if not self.database_file.is_file():
                raise InputError(
                    f"The session {self.path} cannot be made ({error.strerror}); make room, "
                    "or choose a folder that can be written to."
                ) from error
            return (
                f"The session {self.path} cannot be written to ({error.strerror}): it can be "
                "looked at, but not changed."
            )
        return (
            f"The session {self.path} is open {self._lock.owner()}: here it can be "
            "looked at, but not changed."
        )

    def _open(self, sequence: FrameSequence) -> None:
        self._seen = _version(self.database_file)
        contents = self._contents()
        kept, facts = contents.frames, contents.facts
        match = match_frames(kept, sequence)
        self.remarks = differences(match) if kept else []
        self.rows, self.settings = match.rows, contents.settings
        canvas = tuple(facts.get("canvas", sequence.canvas_shape))
        self._set_canvas(canvas)
        changed = [] if self.notice else self._check_masks(contents)
        wanted = tuple(np.maximum(canvas, sequence.canvas_shape).tolist())
        if wanted != canvas:
            self._enlarge(kept, wanted)
        index_of = {row.slot: index for index, row in enumerate(self.rows)}
        found_maps = [] if self.notice else self._check_maps(contents)
        self.maps = {
            (index_of[row.slot], row.role): row
            for row in (*contents.maps, *found_maps)
            if row.slot in index_of
        }
        self._slots = len(kept) + len(match.added)
        # Written with the first thing that is saved.
        with_maps = {one.slot for one in found_maps}
        self._first_rows: tuple[list[FrameRow], list[MapRow]] | None = (
            [*match.added, *changed, *(row for row in kept if row.slot in with_maps)],
            found_maps,
        )
        files: dict[str, SeenFile] = {}
        if not self.notice:
            seen = {name: SeenFile(*file) for name, file in facts.get("files", {}).items()}
            files = seen_files(sequence, seen)
            self.remarks += replacements(sequence, self.rows, files)
        path, name = sequence.path.absolute(), sequence.name
        before = Path(facts.get("path", path))
        if before.name != path.name and before.exists():
            # These frames are from elsewhere for once: it stays the session of its own.
            path, name = before, facts["name"]
        self._facts = {
            "path": str(path),
            "name": name,
            "canvas": self.canvas_shape,
            "files": files,
        }

    def _contents(self) -> Contents:
        if self.notice:
            try:
                return read_database(self.database_file)
            except (OSError, sqlite3.Error) as error:
                raise InputError(
                    f"{self.database_file} cannot be read ({error}); see that its drive is there."
                ) from error
        try:
            self._database = Database(self.database_file)
            return self._database.load()
        except (OSError, sqlite3.Error) as error:
            # Of a new session there is nothing to read, and its first write is tried again.
            if not self.database_file.is_file() or not self.database_file.stat().st_size:
                return Contents({}, {}, [], [], [], [])
            raise InputError(
                f"{self.database_file} cannot be opened ({error}); make room on the disk, or "
                "see that its drive is there."
            ) from error

    def look_again(self) -> list[int]:
        """Take in what another program has written since, where this one may only look.

        Returns
        -------
        list of int
            Numbers of the frames of which something else is known now.

        Raises
        ------
        InputError
            If the database cannot be read.
        """
        version = _version(self.database_file)
        if version == self._seen:
            return []
        contents = self._contents()
        if tuple(contents.facts.get("canvas", self.canvas_shape)) != self.canvas_shape:
            # Larger frames have come: they are for who opens the session anew.
            return []
        self._seen = version
        for files in self._all_files():
            files.forget_read()
        rows = {row.slot: row for row in contents.frames}
        index_of = {row.slot: index for index, row in enumerate(self.rows)}
        maps = {
            (index_of[row.slot], row.role): row for row in contents.maps if row.slot in index_of
        }
        changed = {key[0] for key, row in maps.items() if self.maps.get(key) != row}
        self.maps.update(maps)
        for index, row in enumerate(self.rows):
            now = rows.get(row.slot)
            if now is not None and now.name == row.name and now != row:
                self.rows[index] = now
                changed.add(index)
        return sorted(changed)

    def _set_canvas(self, canvas: tuple[int, ...]) -> None:
        height, width = self.canvas_shape = canvas[0], canvas[1]
        size = f"{width}x{height}.zarr"
        self.masks = ChunkFiles(self.path / f"masks-{size}", self.canvas_shape)
        self.starts = ChunkFiles(self.path / f"starting-masks-{size}", self.canvas_shape)

    def _check_masks(self, contents: Contents) -> list[FrameRow]:
        """Find masks that were written, but not yet entered, when the program was killed."""
        on_disk, starts = self.masks.on_disk(), self.starts.on_disk()
        intended = {(mask.slot, mask.digest): mask.origin for mask in contents.intended_masks}
        unsure = {slot for slot, _ in intended}
        changed = []
        for row in contents.frames:
            if row.slot not in unsure and bool(row.digest) == (row.slot in on_disk):
                continue
            chunk = _as_chunk(self.masks.get(row.slot) if row.slot in on_disk else None)
            if chunk_digest(chunk) != row.digest:
                self.take_over(row, chunk)
                row.origin = intended.get((row.slot, row.digest), row.origin)
                row.has_start = int(row.slot in starts)
                changed.append(row)
        return changed

    def _check_maps(self, contents: Contents) -> list[MapRow]:
        """Find probability maps that were written, but not yet entered, likewise."""
        found = []
        rows = {row.slot: row for row in contents.frames}
        for one in contents.intended_maps:
            if chunk_digest(_as_chunk(self._map_chunk(one))) == one.digest:
                found.append(one)
                row = rows[one.slot]
                # The user's masks keep the model that they began with.
                keeps = row.model is not None and status_of(row, one.slot).is_users
                if one.role == "model" and not keeps:
                    row.model = one.model
        return found

    def _map_chunk(self, row: MapRow) -> bytes | None:
        files = self.map_files(row)
        return files.get(row.slot) if row.slot in files.on_disk() else None

    def take_over(self, row: FrameRow, chunk: Buffer | None) -> Buffer | None:
        """Believe the file of a mask rather than its row; return the mask if it can be used."""
        if chunk is not None and not _is_sound(chunk, self.canvas_shape):
            self.masks.set_aside(row.slot)
            self._remark_damaged(row, self.masks)
            chunk = None
        row.digest, row.origin = chunk_digest(chunk), MaskOrigin.HAND
        row.area = row.polyps = row.changed_pixels = None
        return chunk

    def drop_start(self, row: FrameRow) -> None:
        """Go on as if work by hand had begun with an empty mask, as the one kept is damaged."""
        self.starts.set_aside(row.slot)
        self._remark_damaged(row, self.starts)
        row.has_start = 0

    def _remark_damaged(self, row: FrameRow, files: ChunkFiles) -> None:
        what = "mask" if files is self.masks else "starting mask"
        self.remarks.append(
            f"The {what} of frame {row.name} is damaged: it is empty now, and the file lies in "
            f"{files.folder} under a name with .damaged."
        )

    def _enlarge(self, rows: Iterable[FrameRow], canvas: tuple[int, ...]) -> None:
        """Write all masks anew because a frame has come that is larger than the others."""
        if self._database is None:
            raise InputError(
                f"The session {self.path} has no room for the larger frames that have come; "
                "open it where it can be written to."
            )
        old_canvas, old_masks, old_starts = self.canvas_shape, self.masks, self.starts
        self._set_canvas(canvas)
        by_slot = {row.slot: row for row in rows}
        try:
            for old, new in ((old_masks, self.masks), (old_starts, self.starts)):
                # What is left of a try that was killed.
                shutil.rmtree(new.folder, ignore_errors=True)
                for slot in old.on_disk():
                    row, found = by_slot[slot], to_chunk(old.get(slot) or b"")
                    if not _is_sound(found, old_canvas):
                        old.set_aside(slot)
                        if new is self.masks:
                            self.take_over(row, None)
                        else:
                            row.has_start = 0
                        self._remark_damaged(row, new)
                        continue
                    chunk = encode_chunk(decode_chunk(found, old_canvas), self.canvas_shape)
                    compressed = None if chunk is None else chunk.to_bytes()
                    new.put(slot, compressed)
                    new.prepare(len(by_slot))
                    new.save(slot, compressed)
                    if new is self.masks:
                        accepted = row.accepted == row.digest
                        row.digest = chunk_digest(chunk)
                        row.accepted = row.digest if accepted else row.accepted
                for file in old.folder.glob("*.damaged"):
                    new.prepare(len(by_slot))
                    shutil.copy(file, new.folder)
                new.sync()
            self._database.save(by_slot.values(), facts={"canvas": self.canvas_shape})
        except (OSError, sqlite3.Error) as error:
            raise InputError(
                f"The masks in {self.path} cannot be written anew for the larger frames that "
                f"have come ({error}); make room on the disk and open it again."
            ) from error
        for old in (old_masks, old_starts):
            shutil.rmtree(old.folder, ignore_errors=True)

    def map_files(self, row: MapRow) -> ChunkFiles:
        """Return the array that holds a map."""
        key = row.role, row.height, row.width
        if key not in self._map_files:
            folder = self.path / "maps" / f"{row.role}-{row.width}x{row.height}.zarr"
            self._map_files[key] = ChunkFiles(folder, (row.height, row.width))
        return self._map_files[key]

    def waits_for_files(self, slot: int) -> bool:
        """Tell whether there is a chunk of a frame that is yet to be saved."""
        return any(files.waiting(slot) for files in self._all_files())

    def waiting_chunks(self, slots: Sequence[int]) -> list[WaitingChunk]:
        """List all chunks of some frames that are yet to be saved, as they are now."""
        return [
            WaitingChunk(files, slot, chunk)
            for files in self._all_files()
            for slot, chunk in files.waiting_chunks(slots).items()
        ]

    def save_files(self, chunks: Sequence[WaitingChunk]) -> None:
        """Bring chunks to the disk; what has been put in their places since goes on waiting.

        Raises
        ------
        OSError
            If that cannot be done; they go on waiting.
        """
        arrays = {one.files for one in chunks}
        for files in arrays:
            files.prepare(self._slots)
        self._side_by_side(lambda one: one.files.save(one.slot, one.chunk), chunks)
        self._side_by_side(ChunkFiles.sync, arrays)

    def _side_by_side(self, act: Callable[[_Item], None], items: Iterable[_Item]) -> None:
        """Do the same to many files: syncs that wait for the disk together take hardly longer."""
        running = []
        for item in items:
            try:
                running.append(self._pool.submit(act, item))
            except RuntimeError:
                # The program is ending: pools take on nothing any more, and work must not be lost.
                act(item)
        wait(running)
        for one in running:
            one.result()

    def _all_files(self) -> list[ChunkFiles]:
        return [self.masks, self.starts, *self._map_files.copy().values()]

    def database(self) -> Database:
        """Return the database, opened again if that is needed, to write to it.

        Raises
        ------
        OSError, sqlite3.Error, InputError
            If it cannot be written to.
        """
        if self._database is None:
            if self._first_rows is None and not self.database_file.is_file():
                raise FileNotFoundError(
                    errno.ENOENT, "it has been taken away", str(self.database_file)
                )
            self._database = Database(self.database_file)
        self._database.check_place()
        if self._first_rows is not None:
            rows, maps = self._first_rows
            self._database.save(rows, maps, facts=self._facts)
            self._first_rows = None
        return self._database

    def disconnect(self) -> None:
        """Let go of a database that has refused: a drive that comes back is another one."""
        database, self._database = self._database, None
        if database is not None:
            database.close()

    def close(self) -> None:
        """Let others have it."""
        self._pool.shutdown()
        self.disconnect()
        self._lock.release()


def _check(path: Path) -> None:
    """Refuse a folder that is something else."""
    if not path.exists():
        return
    if not path.is_dir():
        raise InputError(f"{path} is no folder; move it away to begin a session there.")
    others = [item.name for item in path.iterdir() if not item.name.startswith(".")]
    if others and DATABASE_NAME not in others:
        raise InputError(
            f"{path} is no session, it holds {others[0]}; move it away to begin a session there."
        )


def _version(database: Path) -> tuple[int, ...]:
    """Tell states of a database apart without opening it, by its files."""
    wal = database.with_name(f"{database.name}-wal")
    stats = [file.stat() for file in (database, wal) if file.exists()]
    return tuple(value for one in stats for value in (one.st_mtime_ns, one.st_size))


def _as_chunk(found: bytes | None) -> Buffer | None:
    return None if found is None else to_chunk(found)


def _is_sound(chunk: Buffer, canvas: tuple[int, int]) -> bool:
    try:
        decode_chunk(chunk, canvas)
    except (RuntimeError, ValueError):
        return False
    return True
