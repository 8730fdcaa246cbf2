"""The tables of a session: what is known of its frames, what happened, how it was left."""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from napari_microaunet.curation.session.states import MapRole, MaskOrigin
from napari_microaunet.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

DATABASE_NAME = "session.sqlite"

# "MAUN": tells our files from others that SQLite can open.
_APPLICATION_ID = 0x4D41554E
SCHEMA_VERSION = 5

_SCHEMA = """
CREATE TABLE frames (
    slot INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    height INTEGER NOT NULL,
    width INTEGER NOT NULL,
    origin TEXT NOT NULL,
    digest BLOB NOT NULL,
    has_start INTEGER NOT NULL,
    accepted BLOB,
    accepted_at REAL,
    reason TEXT,
    note TEXT NOT NULL,
    confidence REAL,
    area INTEGER,
    polyps INTEGER,
    centre_row REAL,
    centre_column REAL,
    disagreement REAL,
    threshold REAL,
    changed_pixels INTEGER,
    seconds REAL NOT NULL,
    seconds_editing REAL NOT NULL,
    strokes INTEGER NOT NULL,
    model TEXT,
    annotator TEXT,
    changed_at REAL
);
CREATE TABLE maps (
    slot INTEGER NOT NULL,
    role TEXT NOT NULL,
    height INTEGER NOT NULL,
    width INTEGER NOT NULL,
    field_top INTEGER NOT NULL,
    field_left INTEGER NOT NULL,
    field_bottom INTEGER NOT NULL,
    field_right INTEGER NOT NULL,
    model TEXT NOT NULL,
    card_sha256 TEXT NOT NULL,
    digest BLOB NOT NULL,
    PRIMARY KEY (slot, role)
) WITHOUT ROWID;
CREATE TABLE intended_masks (
    slot INTEGER NOT NULL,
    origin TEXT NOT NULL,
    digest BLOB NOT NULL,
    UNIQUE (slot, digest)
);
CREATE TABLE intended_maps AS SELECT * FROM maps LIMIT 0;
CREATE UNIQUE INDEX one_intended_map ON intended_maps (slot, role, digest);
CREATE TABLE events (
    id INTEGER PRIMARY KEY,
    time REAL NOT NULL,
    annotator TEXT NOT NULL,
    slot INTEGER,
    what TEXT NOT NULL
);
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""

# What leads from one version of the schema to the next, by the version it starts from.
MIGRATIONS = {
    # Area is counted anew, and the centre with it.
    1: """
    ALTER TABLE frames ADD COLUMN centre_row REAL;
    ALTER TABLE frames ADD COLUMN centre_column REAL;
    ALTER TABLE frames ADD COLUMN disagreement REAL;
    UPDATE frames SET area = NULL WHERE length(digest) > 0;
    """,
    2: """
    CREATE TABLE intended_masks (
        slot INTEGER PRIMARY KEY,
        origin TEXT NOT NULL,
        digest BLOB NOT NULL
    );
    CREATE TABLE intended_maps AS SELECT * FROM maps LIMIT 0;
    CREATE UNIQUE INDEX one_intended_map ON intended_maps (slot, role);
    """,
    3: "ALTER TABLE frames ADD COLUMN threshold REAL;",
    # What a program that was killed had entered is still to be looked at.
    4: """
    ALTER TABLE intended_masks RENAME TO intended_before;
    CREATE TABLE intended_masks (
        slot INTEGER NOT NULL,
        origin TEXT NOT NULL,
        digest BLOB NOT NULL,
        UNIQUE (slot, digest)
    );
    INSERT INTO intended_masks SELECT slot, origin, digest FROM intended_before;
    DROP TABLE intended_before;
    DROP INDEX one_intended_map;
    CREATE UNIQUE INDEX one_intended_map ON intended_maps (slot, role, digest);
    """,
}


@dataclass(slots=True)
class FrameRow:
    """One frame in the table, column by column; times in seconds since 1970.

    Attributes
    ----------
    slot : int
        Its number in the session, which stays when frames come and go.
    name, height, width
        As in the sequence.
    origin : MaskOrigin
        Who made its mask.
    digest : bytes
        Of the chunk of its mask; empty for an empty mask.
    has_start : int
        1 if the mask that the work by hand began with is kept.
    accepted : bytes or None
        Digest of the mask that was accepted.
    accepted_at : float or None
        When.
    """

    slot: int
    name: str
    height: int
    width: int
    origin: MaskOrigin = MaskOrigin.NONE
    digest: bytes = b""
    has_start: int = 0
    accepted: bytes | None = None
    accepted_at: float | None = None
    reason: str | None = None
    note: str = ""
    confidence: float | None = None
    area: int | None = 0
    polyps: int | None = 0
    centre_row: float | None = None
    centre_column: float | None = None
    disagreement: float | None = None
    threshold: float | None = None
    changed_pixels: int | None = 0
    seconds: float = 0.0
    seconds_editing: float = 0.0
    strokes: int = 0
    model: str | None = None
    annotator: str | None = None
    changed_at: float | None = None


@dataclass(frozen=True, slots=True)
class MapRow:
    """What is known of one probability map besides its values; column by column."""

    slot: int
    role: MapRole
    height: int
    width: int
    field_top: int
    field_left: int
    field_bottom: int
    field_right: int
    model: str
    card_sha256: str
    digest: bytes


class IntendedMask(NamedTuple):
    """A mask that the file of a frame is about to hold, and who made it."""

    slot: int
    origin: MaskOrigin
    digest: bytes


class Event(NamedTuple):
    """Something that happened, of the session as a whole where there is no slot."""

    time: float
    annotator: str
    slot: int | None
    what: str


class Identity(NamedTuple):
    """Whose session a database is of: where its frames were opened from, and their names."""

    path: Path
    names: frozenset[str]


@dataclass(frozen=True)
class Contents:
    """All of a database but its events."""

    facts: dict[str, Any]
    settings: dict[str, Any]
    frames: list[FrameRow]
    maps: list[MapRow]
    intended_masks: list[IntendedMask]
    intended_maps: list[MapRow]


_FRAME_COLUMNS = [field.name for field in fields(FrameRow)]
_MAP_COLUMNS = [field.name for field in fields(MapRow)]
_ORIGIN = _FRAME_COLUMNS.index("origin")


class Database:
    """An open database that can be written to, made if it is missing.

    It is in WAL mode, so that another window can read while this one writes,
    and syncs at every commit: what is committed outlasts a power cut. That costs
    one sync per transaction, in the writing thread alone. Without it (NORMAL),
    a power cut would take all transactions since the last checkpoint, which may
    be minutes of work.

    Parameters
    ----------
    path : Path
        The file, in a folder that exists.

    Raises
    ------
    InputError
        If it is damaged, something else, or newer than this program; it is left as it is.
    OSError, sqlite3.Error
        If it cannot be written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with _named(path):
            self._connection = sqlite3.connect(path, timeout=1, check_same_thread=False)
            try:
                self._prepare()
                state = path.stat()
            except BaseException:
                self._connection.close()
                raise
        self._file = state.st_dev, state.st_ino

    def _prepare(self) -> None:
        version = _checked_version(self._connection, self.path)
        _check_pages(self._connection, self.path)
        if version is not None and version < SCHEMA_VERSION:
            self._migrate(version)
        try:
            self._connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            # Network drives do without; one writer is all that is needed.
            if error.sqlite_errorcode in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY):
                raise
        self._connection.execute("PRAGMA synchronous = FULL")
        if version is None:
            self._run(
                f"{_SCHEMA} PRAGMA application_id = {_APPLICATION_ID}; "
                f"PRAGMA user_version = {SCHEMA_VERSION};"
            )

    def _migrate(self, version: int) -> None:
        copy = self.path.with_name(f"{self.path.stem}-version-{version}{self.path.suffix}")
        with closing(sqlite3.connect(copy)) as target:
            self._connection.backup(target)
        for step in range(version, SCHEMA_VERSION):
            self._run(f"{MIGRATIONS[step]} PRAGMA user_version = {step + 1};")

    def _run(self, script: str) -> None:
        """Run statements, all or none of them."""
        try:
            self._connection.executescript(f"BEGIN IMMEDIATE; {script} COMMIT;")
        except sqlite3.Error:
            self._connection.rollback()
            raise

    def check_place(self) -> None:
        """Notice that the file has been taken away or replaced, which SQLite does not.

        Raises
        ------
        OSError
            If so.
        """
        state = self.path.stat()
        if (state.st_dev, state.st_ino) != self._file:
            raise FileNotFoundError(2, "another file has taken its place", str(self.path))

    def load(self) -> Contents:
        """Read everything but the events."""
        with _named(self.path):
            return _load(self._connection)

    def save(
        self,
        frames: Iterable[FrameRow] = (),
        maps: Iterable[MapRow] = (),
        events: Iterable[Event] = (),
        settings: Mapping[str, Any] | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """Write all of this in one transaction; rows of the same frames are replaced.

        What was intended for the files of these frames has been done with it.
        """
        frames = list(frames)
        with self._connection as connection:
            slots = [(frame.slot,) for frame in frames]
            connection.executemany("DELETE FROM intended_masks WHERE slot = ?", slots)
            connection.executemany("DELETE FROM intended_maps WHERE slot = ?", slots)
            connection.executemany(_replace("frames", _FRAME_COLUMNS), map(_frame_values, frames))
            connection.executemany(_replace("maps", _MAP_COLUMNS), map(_map_values, maps))
            connection.executemany(
                "INSERT INTO events (time, annotator, slot, what) VALUES (?, ?, ?, ?)", events
            )
            for table, values in (("settings", settings), ("facts", facts)):
                connection.executemany(
                    _replace(table, ["name", "value"]),
                    ((name, json.dumps(value)) for name, value in (values or {}).items()),
                )

    def intend(self, masks: Iterable[IntendedMask], maps: Iterable[MapRow]) -> None:
        """Enter what files are about to hold, to know whose they are if they come no further.

        It is added to what was intended before: of a frame that changes again and again, the file
        may hold any of it until the row follows.
        """
        with self._connection as connection:
            connection.executemany(
                _replace("intended_masks", IntendedMask._fields),
                ((mask.slot, mask.origin.value, mask.digest) for mask in masks),
            )
            connection.executemany(_replace("intended_maps", _MAP_COLUMNS), map(_map_values, maps))

    def close(self) -> None:
        """Put the journal into the file and close it."""
        self._connection.close()


def read_database(path: Path) -> Contents:
    """Read a database that must not be written to.

    Parameters
    ----------
    path : Path
        The file; another process may be writing to it.

    Raises
    ------
    InputError
        If it is damaged, something else, or of another version of this program.
    """
    with _reading(path) as connection:
        return _load(connection)


def read_identity(path: Path) -> Identity | None:
    """Read whose session a database is of, whatever its version; None if it has no frames yet.

    Raises
    ------
    InputError
        If it is damaged or something else.
    """
    with _opened(path) as (connection, version):
        if version is None:
            return None
        found = connection.execute("SELECT value FROM facts WHERE name = 'path'").fetchone()
        names = frozenset(name for (name,) in connection.execute("SELECT name FROM frames"))
        return None if found is None else Identity(Path(json.loads(found[0])), names)


def read_events(path: Path) -> list[Event]:
    """Read all that happened, in order; another process may be writing."""
    with _reading(path) as connection:
        found = connection.execute(
            "SELECT time, annotator, slot, what FROM events ORDER BY time, id"
        )
        return [Event(*row) for row in found]


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    with _opened(path) as (connection, version):
        if version is None:
            raise InputError(f"{path} is being made right now; try again in a moment.")
        if version < SCHEMA_VERSION:
            raise InputError(
                f"{path} is of an older version of this program and cannot be brought up to "
                "date here; open it where it can be written to."
            )
        _check_pages(connection, path)
        yield connection


@contextmanager
def _opened(path: Path) -> Iterator[tuple[sqlite3.Connection, int | None]]:
    """Open a database that is only read, with the version of its schema."""
    with _named(path), ExitStack() as stack:

        def connect(database: str) -> sqlite3.Connection:
            return stack.enter_context(closing(sqlite3.connect(database, uri=True)))

        connection = connect(f"{path.absolute().as_uri()}?mode=ro")
        try:
            version = _checked_version(connection, path)
        except sqlite3.OperationalError:
            # The journal of a folder that cannot be written to cannot be opened; a copy's can.
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="microaunet-")))
            for file in (path, path.with_name(f"{path.name}-wal")):
                if file.exists():
                    shutil.copy(file, folder)
            connection = connect((folder / path.name).as_uri())
            version = _checked_version(connection, path)
        yield connection, version


def _checked_version(connection: sqlite3.Connection, path: Path) -> int | None:
    """Find the version of the schema, None if there is none yet; writes nothing."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if application == version == tables == 0:
        return None
    if application != _APPLICATION_ID:
        raise InputError(f"{path} belongs to another program; move it away to begin a session.")
    if version > SCHEMA_VERSION:
        raise InputError(
            f"{path} was made by a newer version of napari-microaunet; update this one to open it."
        )
    return version


def _check_pages(connection: sqlite3.Connection, path: Path) -> None:
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise _damaged(path, found)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Say of a damaged file which one it is."""
    try:
        yield
    except sqlite3.OperationalError:
        raise
    except (sqlite3.DatabaseError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, reason: str) -> InputError:
    return InputError(
        f"{path} is damaged ({' '.join(reason.split())}); put a copy of it in its place, or move "
        f"the folder {path.parent.name} away to begin anew: its masks are in the Zarr arrays there."
    )


def _load(connection: sqlite3.Connection) -> Contents:
    def select(table: str, columns: Iterable[str], order: str = "1") -> sqlite3.Cursor:
        return connection.execute(f"SELECT {', '.join(columns)} FROM {table} ORDER BY {order}")  # noqa: S608

    frames = []
    for values in select("frames", _FRAME_COLUMNS):
        row = list(values)
        row[_ORIGIN] = MaskOrigin(row[_ORIGIN])
        frames.append(FrameRow(*row))
    facts, settings = (
        {name: json.loads(value) for name, value in select(table, ("name", "value"))}
        for table in ("facts", "settings")
    )
    maps = [MapRow(*row) for row in select("maps", _MAP_COLUMNS)]
    # Maps of several sizes may all be there: the last one counts.
    intended_maps = [MapRow(*row) for row in select("intended_maps", _MAP_COLUMNS, "rowid")]
    intended_masks = [
        IntendedMask(slot, MaskOrigin(origin), digest)
        for slot, origin, digest in select("intended_masks", IntendedMask._fields)
    ]
    return Contents(facts, settings, frames, maps, intended_masks, intended_maps)


def _map_values(row: MapRow) -> list[Any]:
    return [getattr(row, name) for name in _MAP_COLUMNS]


def _frame_values(row: FrameRow) -> list[Any]:
    values = [getattr(row, name) for name in _FRAME_COLUMNS]
    values[_ORIGIN] = row.origin.value
    return values


def _replace(table: str, columns: Sequence[str]) -> str:
    places = ", ".join("?" * len(columns))
    return f"INSERT OR REPLACE INTO {table} ({', '.join(columns)}) VALUES ({places})"  # noqa: S608
