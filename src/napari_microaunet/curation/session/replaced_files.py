"""Files that others of the same name have taken the place of since their frames were worked on."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING, NamedTuple

from napari_microaunet.curation.session.matching import count_of, names_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from napari_microaunet.curation.session.database import FrameRow
    from napari_microaunet.frames import FrameSequence

_PART_BYTES = 4096
_HASH_BYTES = 8


class SeenFile(NamedTuple):
    """What a file was like.

    Attributes
    ----------
    size : int
        In bytes.
    modified : int
        When, in nanoseconds since 1970.
    part : str
        Hash of a part of it: copied, a file is another time's, but not another one.
    since : float
        When it was seen to be another one than before, in seconds since 1970; 0 if it never was.
    """

    size: int
    modified: int
    part: str
    since: float


def seen_files(sequence: FrameSequence, before: Mapping[str, SeenFile]) -> dict[str, SeenFile]:
    """Look at the files that frames come from.

    Parameters
    ----------
    sequence : FrameSequence
        The frames.
    before : mapping of str to SeenFile
        What was seen when the session was last open.

    Returns
    -------
    dict of str to SeenFile
        By the name of the first frame in each file, so that both can be moved; those that are
        gone or damaged as they were.
    """
    seen = dict(before)
    for path, index in _first_frames(sequence).items():
        if index in sequence.problems:
            continue
        name = sequence.frames[index].name
        known = before.get(name)
        try:
            state = path.stat()
            if known is None or known[:2] != (state.st_size, state.st_mtime_ns):
                part = _hash_part(path, state.st_size)
                same = known is None or (known.size, known.part) == (state.st_size, part)
                since = (0.0 if known is None else known.since) if same else time.time()
                seen[name] = SeenFile(state.st_size, state.st_mtime_ns, part, since)
        except OSError:  # an array that comes from no file, or a drive that is gone
            continue
    return seen


def _first_frames(sequence: FrameSequence) -> dict[Path, int]:
    """Give the number of the first frame in each file."""
    first: dict[Path, int] = {}
    for index, frame in enumerate(sequence.frames):
        first.setdefault(frame.source, index)
    return first


def _hash_part(path: Path, size: int) -> str:
    with path.open("rb") as file:
        # Files of one kind begin alike, and their last pixels are often black.
        file.seek(max(0, (size - _PART_BYTES) // 2))
        return hashlib.blake2b(file.read(_PART_BYTES), digest_size=_HASH_BYTES).hexdigest()


def replacements(
    sequence: FrameSequence, rows: Sequence[FrameRow], seen: Mapping[str, SeenFile]
) -> list[str]:
    """Say in a sentence which masks may belong to other pictures.

    Parameters
    ----------
    sequence : FrameSequence
        The frames.
    rows : sequence of FrameRow
        What is known of each.
    seen : mapping of str to SeenFile
        From `seen_files`.

    Returns
    -------
    list of str
        Empty if there are none. A frame that has been accepted or, where it is not, changed
        since its file was replaced is none of them.
    """
    replaced = {
        path: seen[rows[index].name].since
        for path, index in _first_frames(sequence).items()
        if rows[index].name in seen
    }
    doubtful = []
    for frame, row in zip(sequence.frames, rows, strict=True):
        is_accepted = row.accepted is not None and row.accepted == row.digest
        when = row.accepted_at if is_accepted else row.changed_at
        if (row.digest or is_accepted) and (when or 0.0) < replaced.get(frame.source, 0.0):
            doubtful.append(row)
    if not doubtful:
        return []
    return [
        f"Other files have taken the place of those that the masks of {count_of(doubtful)} were "
        f"made for ({names_of(doubtful)}): see whether they fit, and accept again those that do."
    ]
