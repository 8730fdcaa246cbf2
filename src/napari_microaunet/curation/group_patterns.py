"""Groups that are found in the names of frames: a patient's number, say."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from napari_microaunet.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from pathlib import Path

    from napari_microaunet.curation.incoming import IncomingFrame
    from napari_microaunet.curation.manifest import FrameRecord


def found_by(pattern: str, name: str) -> str | None:
    """Return the group that a pattern finds in the name of a frame; None where it finds none."""
    found = re.search(pattern, name)
    return None if found is None else found.group(1 if found.re.groups else 0) or None


def grouped(frames: Sequence[IncomingFrame], patterns: Sequence[str]) -> list[IncomingFrame]:
    """Group frames that came without a pattern by the first that finds a group in their names.

    A pattern joins, and never divides: frames that are stated to belong together, those of a video
    say, get the group that it finds in all of their names, or keep the one that they have.

    Parameters
    ----------
    frames : sequence of IncomingFrame
        On their way into a dataset.
    patterns : sequence of str
        Those of the dataset.

    Returns
    -------
    list of IncomingFrame
        As they are where no pattern finds a group.
    """
    together = defaultdict(list)
    for frame in frames:
        if not frame.patterns:
            alone = frame.name if frame.stated is None else ""
            together[frame.source, frame.stated, alone].append(frame)
    groups: dict[IncomingFrame, str] = {}
    for members in together.values():
        found = (_found_in_all(pattern, [frame.name for frame in members]) for pattern in patterns)
        group = next(filter(None, found), None)
        if group is not None:
            groups |= dict.fromkeys(members, group)
    return [replace(frame, group=groups.get(frame, frame.group)) for frame in frames]


def check_groups(
    folder: Path,
    before: Sequence[FrameRecord],
    new_groups: Collection[str],
    patterns: Sequence[str],
) -> None:
    """Refuse to group new frames by what a dataset did not group its own by.

    Parameters
    ----------
    folder : Path
        Where the dataset is.
    before : sequence of FrameRecord
        Its frames.
    new_groups : collection of str
        Groups of frames that are to come.
    patterns : sequence of str
        What may have found them.

    Raises
    ------
    InputError
        If a pattern finds one of these groups, which the dataset does not have yet, in the name of
        a frame that is in another. One that it has, new frames join: a video whose names it is
        found in as well has stayed whole before.
    """
    new_groups = set(new_groups).difference(record.group for record in before)
    for record in before:
        for found in (found_by(pattern, record.name) for pattern in patterns):
            if found in new_groups:
                raise InputError(
                    f"{folder} has {record.name} in the group {record.group}, and not in "
                    f'"{found}", where a pattern finds it with new frames: both could come into '
                    "different splits: leave the pattern out if you have just given it "
                    "(--group-pattern), or write all of them to a new dataset."
                )


def _found_in_all(pattern: str, names: Iterable[str]) -> str | None:
    """Return the group that a pattern finds in all of some names, if it is the same one."""
    found = {found_by(pattern, name) for name in names}
    return found.pop() if len(found) == 1 else None
