"""Sources of one name told apart, as ``video.mp4`` of many patients."""

from __future__ import annotations

import itertools
from collections import defaultdict
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from napari_microaunet.curation.incoming import IncomingFrame, name_in_dataset
from napari_microaunet.curation.originals import hash_original, original_of
from napari_microaunet.errors import InputError
from napari_microaunet.frames.sequence import spread

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from napari_microaunet.curation.manifest import FrameRecord

# Compared to tell whether two sources of one name are one: some may have been replaced since.
_FRAMES_COMPARED = 16


def told_apart(
    frames: Sequence[IncomingFrame],
    before: Sequence[FrameRecord],
    cancelled: Callable[[], bool] | None,
) -> list[IncomingFrame]:
    """Give numbers to sources that are called as others are, as ``video.mp4`` of many folders.

    Parameters
    ----------
    frames : sequence of IncomingFrame
        On their way into a dataset.
    before : sequence of FrameRecord
        That are in it already.
    cancelled : callable, optional
        Asked before each source.

    Returns
    -------
    list of IncomingFrame
        In the same order. A source is that of the same name if it has any of its pictures, or no
        name of a frame in common with it. Otherwise its name, and those of its frames and groups,
        have a number.

    Raises
    ------
    CancelledError
        If `cancelled` says so.
    """
    # By source, then by name inside: the original, or whose it is.
    taken: dict[str, dict[str, str | IncomingFrame | None]] = defaultdict(dict)
    for record in before:
        inside = _inside(record.source, record.name)
        taken[record.source.casefold()][inside] = original_of(record)
    members = defaultdict(list)
    for frame in frames:
        members[frame.sequence, frame.source].append(frame)
    found: dict[IncomingFrame, IncomingFrame] = {}
    for (_, source), together in members.items():
        if cancelled is not None and cancelled():
            raise CancelledError
        name = _source_name(together, taken)
        for frame in together:
            taken[name.casefold()].setdefault(_inside(source, frame.name), frame)
            found[frame] = frame if name == source else _of_source(frame, name)
    return [found[frame] for frame in frames]


def _source_name(
    together: Sequence[IncomingFrame],
    taken: Mapping[str, Mapping[str, str | IncomingFrame | None]],
) -> str:
    """Name the source of frames: as one that has the same pictures, else by the first name free.

    One that has no frame of the same name might be the same source, and counts as it.
    """
    source, possible = together[0].source, None
    for number in itertools.count(1):
        name = source if number == 1 else f"{source}-{number}"
        there = taken.get(name.casefold())
        is_same = None if there is None else _is_same(together, there)
        if is_same:
            return name
        if is_same is None and possible is None:
            possible = name
        if there is None:
            break
    return possible or name


def _is_same(
    together: Sequence[IncomingFrame], there: Mapping[str, str | IncomingFrame | None]
) -> bool | None:
    """Tell whether a source has any of the pictures of another; None if no name is in both."""
    first = together[0]
    here = {_inside(first.source, frame.name): frame for frame in together}
    # Of a dataset, all frames are on their way; of a session, those that count alone.
    for index, frame in enumerate(first.sequence.frames if first.split is None else ()):
        inside = _inside(first.source, frame.name)
        if inside in there and inside not in here:
            here[inside] = replace(first, index=index, original_sha256=None)
    recorded = {original for original in there.values() if isinstance(original, str)}
    common = [inside for inside in here if there.get(inside) is not None]
    answer = None
    for number in spread(range(len(common)), _FRAMES_COMPARED):
        other = there[common[number]]
        with suppress(InputError):  # of one that cannot be read, the others tell
            original = hash_original(here[common[number]])
            if original in recorded:
                return True
            if isinstance(other, IncomingFrame) and hash_original(other) == original:
                return True
            answer = False
    return answer


def _inside(source: str, name: str) -> str:
    return name.removeprefix(f"{source}/")


def _of_source(frame: IncomingFrame, source: str) -> IncomingFrame:
    """Call the source of a frame otherwise, and what is called after it."""
    before, group = frame.source, frame.group
    if name_in_dataset(before, group) == group or group == before:  # else, a pattern found it
        group = source + group.removeprefix(before)
    return replace(
        frame,
        name=name_in_dataset(source, _inside(before, frame.name)),
        source=source,
        group=group,
    )
