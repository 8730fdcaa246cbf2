"""Groups that are found in the names of frames: a patient's number, say."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from napari_microaunet.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from napari_microaunet.curation.incoming import IncomingFrame
    from napari_microaunet.curation.manifest import FrameRecord


def found_by(pattern: str, name: str) -> str | None:
    """Return the group that a pattern finds in the name of a frame; None where it finds none."""
    found = re.search(pattern, name)
    return None if found is None else found.group(1 if found.re.groups else 0) or None


def grouped(frames: Sequence[IncomingFrame], patterns: Sequence[str]) -> list[IncomingFrame]:
    """Group frames that came without a pattern by the first that finds a group in all of them.

    Parameters
    ----------
    frames : sequence of IncomingFrame
        On their way into a dataset.
    patterns : sequence of str
        Those of the dataset.

    Returns
    -------
    list of IncomingFrame
        As they are where no pattern finds anything in the names of their source.

    Raises
    ------
    InputError
        If one finds a group in some names of a source, but not in all.
    """
    by_source: dict[str, list[IncomingFrame]] = {}
    for frame in frames:
        if not frame.patterns:
            by_source.setdefault(frame.source, []).append(frame)
    groups: dict[IncomingFrame, str] = {}
    for source, members in by_source.items():
        for pattern in patterns:
            found = {frame: group for frame in members if (group := found_by(pattern, frame.name))}
            if found and len(found) < len(members):
                nameless = next(frame.name for frame in members if frame not in found)
                raise InputError(
                    f'The dataset groups frames by the pattern "{pattern}", which is found in some '
                    f"names of {source}, but not in {nameless}; rename that frame, exclude it, or "
                    "give a pattern for all of them (--group-pattern)."
                )
            if found:
                groups |= found
                break
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
        If a pattern finds one of these groups in the name of a frame that is in another.
    """
    for record in before:
        for group in (found_by(pattern, record.name) for pattern in patterns):
            if group in new_groups and record.group != group:
                raise InputError(
                    f"{folder} has {record.name} in the group {record.group}, and not in "
                    f'"{group}", where a pattern finds it with new frames: both could come into '
                    "different splits: leave the pattern out, or write a new dataset with it."
                )
