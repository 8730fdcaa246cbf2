"""Where sessions lie, which ones there were last, and who is at work."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import sqlite3
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from platformdirs import user_config_path, user_data_path

from napari_microaunet.atomic import replacing
from napari_microaunet.curation.session.database import DATABASE_NAME, Identity, read_identity
from napari_microaunet.errors import InputError
from napari_microaunet.frames.arrays import ArraySequence
from napari_microaunet.frames.sample_data import sample_data_folder
from napari_microaunet.frames.sequence import spread

if TYPE_CHECKING:
    from napari_microaunet.frames import FrameSequence

SUFFIX = ".microaunet"

_PROGRAM = "napari-microaunet"
# Hexadecimal digits that tell sequences of one name apart.
_HASH_DIGITS = 12
# Frames that stand for an array, which may be too large to be read as a whole.
_HASHED_FRAMES = 4
# Another window is at the list for some milliseconds; nobody waits for more.
_LOCK_S = 1.0
# As many as a menu shows.
_RECENT = 20


@dataclass(frozen=True)
class RecentSession:
    """A session that was open some time ago.

    Attributes
    ----------
    folder : Path
        The session.
    path : Path
        Its frames.
    name : str
        Name of the sequence.
    frames : int
        How many there are.
    done : int
        How many of them were accepted or excluded.
    when : datetime
        When it was open last, in UTC.
    """

    folder: Path
    path: Path
    name: str
    frames: int
    done: int
    when: datetime


def session_folder_for(sequence: FrameSequence) -> Path:
    """Choose where the session of a sequence lies; nothing is made.

    Beside what was opened, as ``NAME.microaunet``; if that session belongs to
    other frames, as ``NAME-2.microaunet``, and so on. Sample data, arrays that
    come from no file, and frames in a place that cannot be written to have
    theirs in the user's data folder.

    Parameters
    ----------
    sequence : FrameSequence
        The frames.

    Returns
    -------
    Path
        An existing session of these frames, or a folder that does not exist.
        If something else is in the way, its path: opening it says so.
    """
    path = sequence.path.absolute()
    own = f"{sequence.name}-{_identity(sequence)}"
    apart = _free_or_ours(user_data_path(_PROGRAM, appauthor=False) / "sessions", own, sequence)
    if has_no_file(sequence) or _is_sample(path):
        return apart
    beside = _free_or_ours(path.parent, sequence.name, sequence)
    if beside.exists() or (not apart.exists() and _can_write(path.parent)):
        return beside
    return apart


def _is_sample(path: Path) -> bool:
    try:
        return path.resolve().is_relative_to(sample_data_folder().resolve())
    except InputError:  # not installed
        return False


def has_no_file(sequence: FrameSequence) -> bool:
    """Tell whether frames are of an array that was read from no file that is still there."""
    return isinstance(sequence, ArraySequence) and not sequence.path.is_file()


def _belongs_to(identity: Identity, sequence: FrameSequence) -> bool:
    """Tell whether a session was made for these frames, maybe before some came or went.

    Its frames were opened from a file or folder of this name, and half of
    them, or of these, have their names in common.
    """
    if identity.path.name != sequence.path.absolute().name:
        return False
    names = {frame.name for frame in sequence.frames}
    return 2 * len(names & identity.names) >= min(len(names), len(identity.names))


def recent_sessions() -> list[RecentSession]:
    """List the sessions that were open last, newest first; those that are gone are left out."""
    found = []
    for entry in _read_json(_recent_file(), []):
        try:
            one = RecentSession(
                Path(entry["folder"]),
                Path(entry["path"]),
                str(entry["name"]),
                int(entry["frames"]),
                int(entry["done"]),
                datetime.fromtimestamp(entry["when"], UTC),
            )
            if (one.folder / DATABASE_NAME).is_file() and one.path.exists():
                found.append(one)
        except (TypeError, KeyError, ValueError, OSError):  # the last one of a drive that is gone
            continue
    return found


def remember(session: RecentSession) -> None:
    """Put a session at the top of the list of recent ones.

    Raises
    ------
    OSError
        If the list cannot be written.
    """
    file = _recent_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_name(f".{file.name}.lock"), timeout=_LOCK_S):
        others = [one for one in recent_sessions() if one.folder != session.folder]
        entries = [
            {
                "folder": str(one.folder),
                "path": str(one.path),
                "name": one.name,
                "frames": one.frames,
                "done": one.done,
                "when": one.when.timestamp(),
            }
            for one in [session, *others][:_RECENT]
        ]
        _write_json(file, entries)


def annotator_name() -> str:
    """Give the name that work is signed with: the one that was set, or that of the user."""
    name = _read_json(_user_file(), {}).get("annotator")
    if isinstance(name, str) and name:
        return name
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a number without a name, as in containers
        return "unknown"


def set_annotator_name(name: str) -> None:
    """Set the name that work is signed with from now on; an empty one is that of the user.

    Raises
    ------
    InputError
        If it cannot be kept.
    """
    file = _user_file()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _write_json(file, {"annotator": name.strip()})
    except OSError as error:
        raise InputError(
            f"{file} cannot be written ({error.strerror}); the name holds until the program ends."
        ) from error


def _free_or_ours(parent: Path, name: str, sequence: FrameSequence) -> Path:
    for number in count(1):
        folder = parent / f"{name}{f'-{number}' if number > 1 else ''}{SUFFIX}"
        if not (folder / DATABASE_NAME).is_file():
            break
        try:
            identity = read_identity(folder / DATABASE_NAME)
        except (InputError, OSError, sqlite3.Error):
            # Whoever opens it is told.
            break
        if identity is None or _belongs_to(identity, sequence):
            break
    return folder


def _identity(sequence: FrameSequence) -> str:
    """Tell sequences of one name apart: by their path or, without a file, by some pixels."""
    digest = hashlib.blake2b()
    if has_no_file(sequence):
        digest.update(repr((len(sequence), sequence.canvas_shape)).encode())
        for index in spread(range(len(sequence)), _HASHED_FRAMES):
            try:
                digest.update(sequence.read(index).tobytes())
            except InputError:
                digest.update(b"unreadable")
    else:
        digest.update(os.fsencode(sequence.path.resolve()))  # names may be no UTF-8
    return digest.hexdigest()[:_HASH_DIGITS]


def _can_write(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _recent_file() -> Path:
    return user_data_path(_PROGRAM, appauthor=False) / "recent.json"


def _user_file() -> Path:
    return user_config_path(_PROGRAM, appauthor=False) / "user.json"


def _read_json(file: Path, default: Any) -> Any:
    """Read what this program has written for itself; what is missing or damaged is no loss."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return default
    return found if isinstance(found, type(default)) else default


def _write_json(file: Path, value: Any) -> None:
    with replacing(file) as target:
        target.write(json.dumps(value, indent=1).encode())
