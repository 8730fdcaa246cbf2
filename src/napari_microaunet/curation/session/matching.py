"""Which frame of a sequence is which frame of a session."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_microaunet.curation.session.database import FrameRow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_microaunet.frames import FrameSequence

_NAMED = 3


@dataclass(frozen=True)
class Match:
    """The frames of a session, in the order of a sequence.

    Attributes
    ----------
    rows : list of FrameRow
        One per frame of the sequence.
    added : list of FrameRow
        Those that the session did not have; in `rows` as well.
    gone : list of FrameRow
        Those that the sequence does not have.
    """

    rows: list[FrameRow]
    added: list[FrameRow]
    gone: list[FrameRow]


def match_frames(kept: Sequence[FrameRow], sequence: FrameSequence) -> Match:
    """Find the row of each frame by its name and size, and make rows for new ones.

    A frame of another size is another frame: its mask would not fit. The size of
    a frame that cannot be read is not known, so its name alone counts.
    """
    by_identity = {(row.name, row.height, row.width): row for row in kept}
    by_name = {row.name: row for row in kept}
    next_slot = max((row.slot for row in kept), default=-1) + 1
    rows: list[FrameRow] = []
    added: list[FrameRow] = []
    for index, frame in enumerate(sequence.frames):
        row = by_identity.get((frame.name, frame.height, frame.width))
        if row is None and index in sequence.problems:
            row = by_name.get(frame.name)
        if row is None:
            row = FrameRow(next_slot + len(added), frame.name, frame.height, frame.width)
            added.append(row)
        rows.append(row)
    present = {row.slot for row in rows}
    return Match(rows, added, [row for row in kept if row.slot not in present])


def differences(match: Match) -> list[str]:
    """Say in sentences how the frames differ from those of the session."""
    sentences = []
    if match.gone:
        sentences.append(
            f"{count_of(match.gone)} of this session {_is(match.gone)} not among those that were "
            f"opened ({names_of(match.gone)}): what was done on them is kept for when they return."
        )
    if match.added:
        sentences.append(
            f"{count_of(match.added)} {_is(match.added)} new in this session "
            f"({names_of(match.added)})."
        )
    return sentences


def count_of(rows: Sequence[FrameRow]) -> str:
    """Say how many frames there are."""
    return f"{len(rows)} frame{'s' if len(rows) > 1 else ''}"


def _is(rows: Sequence[FrameRow]) -> str:
    return "are" if len(rows) > 1 else "is"


def names_of(rows: Sequence[FrameRow]) -> str:
    """Name the first of some frames, and say how many more there are."""
    names = ", ".join(row.name for row in rows[:_NAMED])
    return f"{names} and {len(rows) - _NAMED} more" if len(rows) > _NAMED else names
