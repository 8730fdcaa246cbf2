"""Labels into a folder that appears when it is whole: with preview, progress, cancel and resume.

While it is written, the folder is called ``NAME.partial`` and holds a journal, a line per
frame that is done. The same export goes on with it; another one begins anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter, deque
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from filelock import FileLock, Timeout

from napari_microaunet.curation.session.database import DATABASE_NAME
from napari_microaunet.errors import InputError
from napari_microaunet.exchange.base import SCRATCH, Loss
from napari_microaunet.exchange.json_files import read_json, write_json
from napari_microaunet.exchange.places import check_name
from napari_microaunet.exchange.regions import parts_of
from napari_microaunet.frames.masks import IGNORE
from napari_microaunet.frames.sources import absolute

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from napari_microaunet.exchange.base import Format, Record
    from napari_microaunet.exchange.labelled import LabelledFrame, LabelSet

MARK = "microaunet-export.json"
"""Summary in every export, with a list of its files; nothing else is ever replaced."""

_JOURNAL, _LOCK = ".journal.jsonl", ".lock"
_JOURNAL_VERSION = 2
# Frames on the way per core: enough that none waits, few enough that memory stays flat.
_AHEAD = 3


@dataclass(frozen=True)
class Preview:
    """What an export will write.

    Attributes
    ----------
    first_files : tuple of str
        Those of the first frames, and those for all frames, relative to the target.
    files : int
        How many there will be in all.
    frames : int
        How many frames there are.
    by_split : dict of str to int
        Frames by split; empty where the format does not tell splits apart.
    warnings : tuple of str
        What the format cannot keep, in sentences.
    """

    first_files: tuple[str, ...]
    files: int
    frames: int
    by_split: dict[str, int]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Summary:
    """What an export has written.

    Attributes
    ----------
    target : str
        The folder.
    format : str
        Key of the format.
    frames : int
        How many frames.
    negatives : int
        How many of them show no polyp.
    polyps : int
        How many polyps there are in all.
    warnings : tuple of str
        What was lost, and in how many frames, in sentences.
    """

    target: str
    format: str
    frames: int
    negatives: int
    polyps: int
    warnings: tuple[str, ...]


def preview(labels: LabelSet, format_: Format, first: int = 3) -> Preview:
    """Tell what an export will write, without reading any mask.

    Parameters
    ----------
    labels : LabelSet
        The frames.
    format_ : Format
        One of `FORMATS`.
    first : int
        How many frames are listed.

    Returns
    -------
    Preview

    Raises
    ------
    InputError
        If one of the first frames cannot be read, or the frames do not fit the format.
    """
    format_.check(labels.frames)
    shown = [name for frame in labels.frames[:first] for name in format_.files(frame)]
    once = [*format_.summary_files(labels.frames), MARK]
    per_frame = len(format_.files(labels.frames[0]))
    return Preview(
        (*shown, *once),
        per_frame * len(labels.frames) + len(once),
        len(labels.frames),
        dict(Counter(frame.split for frame in labels.frames)) if format_.divides else {},
        tuple(
            [f"{format_.title}: {loss.value}." for loss in format_.loses]
            + ([format_.remark] if format_.remark else [])
        ),
    )


def export(
    labels: LabelSet,
    format_: Format,
    target: Path,
    *,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Summary:
    """Write labels into a folder.

    Parameters
    ----------
    labels : LabelSet
        The frames.
    format_ : Format
        One of `FORMATS`.
    target : Path
        The folder; missing or empty.
    overwrite : bool
        Whether an earlier export there is replaced, once this one is whole.
    progress : callable, optional
        Told the frames that are done and all.
    cancelled : callable, optional
        Asked now and then whether to stop.

    Returns
    -------
    Summary
        As written into the folder.

    Raises
    ------
    InputError
        If the target is taken, or what is there is not all of an earlier export; if it lies among
        the frames, or a frame cannot be read or exported. The target is as it was then.
    CancelledError
        If it was cancelled. The same call goes on.
    OSError
        If a file cannot be written. The same call goes on.
    """
    # "." has no name; and a link is to be refused, not followed.
    target = absolute(target)
    _check_target(labels, target, overwrite)
    for frame in labels.frames:
        check_name(frame.name, labels.source)
    format_.check(labels.frames)
    partial = target.with_name(f"{target.name}.partial")

    def still_wanted() -> None:
        if cancelled is not None and cancelled():
            raise CancelledError

    with _reserved(partial):
        journal = _Journal(partial, _fingerprint(labels, format_))
        _write_frames(labels, format_, partial, journal, progress or _ignore, still_wanted)
        kept = [
            frame
            for frame, line in zip(labels.frames, journal.lines(), strict=True)
            if not line["left_out"]
        ]
        if not kept:
            raise InputError(
                f"All frames to be exported of {labels.source} are ignored throughout, which "
                f"{format_.title} cannot say; choose another format."
            )
        format_.finish(partial, kept, journal.records, still_wanted)
        summary = _summarise(target, format_, journal)
        write_json(partial / MARK, asdict(summary) | {"files": _files_of(partial)})
        # Much can have been put there since the export began.
        _check_target(labels, target, overwrite)
        journal.path.unlink()
        # Not before: with the journal, the export goes on, and needs them.
        shutil.rmtree(partial / SCRATCH, ignore_errors=True)
    (partial / _LOCK).unlink(missing_ok=True)
    _move(partial, target)
    return summary


def _ignore(_done: int, _total: int) -> None:
    pass


def _check_target(labels: LabelSet, target: Path, overwrite: bool) -> None:
    if target.is_symlink():
        raise InputError(f"{target} is a link; give the folder that is meant.")
    if target.exists():
        if not target.is_dir():
            raise InputError(f"{target} is a file; give another folder.")
        if any(target.iterdir()):
            if not (target / MARK).is_file():
                raise InputError(f"{target} holds something else; give a new folder.")
            if not overwrite:
                raise InputError(
                    f"{target} holds an earlier export; give another folder, or say that it may "
                    "be replaced (--overwrite)."
                )
            _check_replaced(target)
    place, source = target.resolve(), labels.source.resolve()
    if source.is_relative_to(place) and source != place:
        raise InputError(f"{target} holds the frames, {labels.source}; give another folder.")
    if place == source or (source.is_dir() and place.is_relative_to(source)):
        raise InputError(
            f"{target} lies among the frames, and what is written there would be taken for "
            "frames; give a folder beside them."
        )
    if any((folder / DATABASE_NAME).exists() for folder in (place, *place.parents)):
        raise InputError(f"{target} lies in a session; give a folder beside it.")


def _check_replaced(target: Path) -> None:
    """Refuse to replace an export that holds anything besides what was exported."""
    mark = read_json(target / MARK)
    listed = mark.get("files") if isinstance(mark, dict) else None
    # Exports of earlier versions list nothing.
    written = {MARK, *map(str, listed)} if isinstance(listed, list) else None
    for path in target.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            continue
        name = path.relative_to(target).as_posix()
        if path.name == DATABASE_NAME or (written is not None and name not in written):
            raise InputError(
                f"{target} holds {name}, which no export has written; move it, or give another "
                "folder."
            )


def _files_of(partial: Path) -> list[str]:
    """List the files of a whole export, relative to it."""
    names = (path.relative_to(partial) for path in partial.rglob("*") if path.is_file())
    return sorted(
        name.as_posix() for name in names if name.parts[0] not in (_JOURNAL, _LOCK, SCRATCH, MARK)
    )


@contextmanager
def _reserved(partial: Path) -> Iterator[None]:
    """Make the partial folder, and have no other export write there meanwhile."""
    if partial.is_symlink():
        raise InputError(f"{partial} is a link; take it away.")
    if partial.exists() and not any((partial / name).is_file() for name in (_JOURNAL, _LOCK)):
        if (partial / MARK).is_file():
            # Whole, but the program was killed before it could be moved.
            _check_replaced(partial)
        elif any(partial.iterdir()):
            raise InputError(f"{partial} is in the way; move it.")
    partial.mkdir(parents=True, exist_ok=True)
    lock = FileLock(partial / _LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(
            f"{partial} is being written by another export; wait for it to end."
        ) from error
    try:
        yield
    finally:
        lock.release()


class _Journal:
    """The frames of a partial export that are done, one line of JSON each, in order."""

    def __init__(self, partial: Path, fingerprint: str) -> None:
        self.path = partial / _JOURNAL
        header = json.dumps({"export": fingerprint}) + "\n"
        lines = self.path.read_bytes().splitlines(keepends=True) if self.path.is_file() else []
        # A program that was killed may have left half a line.
        whole = [line for line in lines if line.endswith(b"\n")]
        if whole and whole[0] == header.encode():
            self.done = len(whole) - 1
            os.truncate(self.path, sum(map(len, whole)))
            return
        for path in partial.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != _LOCK:
                path.unlink()
        # As text, lines would end otherwise on Windows.
        self.path.write_bytes(header.encode())
        self.done = 0

    def add(self, line: Record) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self.done += 1

    def lines(self) -> Iterator[dict[str, Any]]:
        with self.path.open(encoding="utf-8") as file:
            for line in islice(file, 1, None):
                yield json.loads(line)

    def records(self) -> Iterator[Record]:
        return (line["record"] for line in self.lines() if not line["left_out"])


def _fingerprint(labels: LabelSet, format_: Format) -> str:
    """Tell exports apart: by format, frames, splits and masks."""
    digest = hashlib.sha256(f"{_JOURNAL_VERSION} {format_.key}".encode())
    for frame in labels.frames:
        stated = (frame.name, frame.height, frame.width, frame.split, str(frame.file), frame.digest)
        digest.update(repr(stated).encode())
    return digest.hexdigest()


def _write_frames(
    labels: LabelSet,
    format_: Format,
    partial: Path,
    journal: _Journal,
    progress: Callable[[int, int], None],
    still_wanted: Callable[[], None],
) -> None:
    def write(frame: LabelledFrame) -> Record:
        mask = frame.read_mask()
        if (mask == IGNORE).all() and Loss.IGNORE in format_.loses:
            # As background throughout it would be one without a polyp, which nobody has said.
            return {"left_out": True}
        parts = list(parts_of(mask))
        return {
            "left_out": False,
            "polyps": sum(part.label != IGNORE for part in parts),
            "negative": not mask.all() and all(part.label == IGNORE for part in parts),
            "lost": [loss.name for loss in format_.loses if loss.is_in(parts)],
            "record": format_.write(partial, frame, mask),
        }

    total, cores = len(labels.frames), os.cpu_count() or 1
    waiting: deque[Future[Record]] = deque()
    progress(journal.done, total)
    with ThreadPoolExecutor(cores, "export") as pool:
        try:
            for frame in labels.frames[journal.done :]:
                waiting.append(pool.submit(write, frame))
                if len(waiting) >= _AHEAD * cores:
                    journal.add(waiting.popleft().result())
                    progress(journal.done, total)
                still_wanted()
            while waiting:
                still_wanted()
                journal.add(waiting.popleft().result())
                progress(journal.done, total)
        finally:
            pool.shutdown(cancel_futures=True)


def _summarise(target: Path, format_: Format, journal: _Journal) -> Summary:
    lost: Counter[str] = Counter()
    frames = polyps = negatives = left_out = 0
    for line in journal.lines():
        if line["left_out"]:
            left_out += 1
            continue
        frames += 1
        polyps += line["polyps"]
        negatives += line["negative"]
        lost.update(line["lost"])
    counted = {Loss[name].value: count for name, count in lost.items()}
    if left_out:
        counted["frames that are ignored throughout are left out"] = left_out
    warnings = [f"{what} ({n} frame{'s' if n > 1 else ''})." for what, n in counted.items()]
    return Summary(str(target), format_.key, frames, negatives, polyps, tuple(warnings))


def _move(partial: Path, target: Path) -> None:
    """Put the finished folder in place of what was there."""
    if not target.exists():
        partial.rename(target)
        return
    old = target.with_name(f".{target.name}.{uuid4().hex}.old")
    target.rename(old)
    try:
        partial.rename(target)
    except OSError:
        old.rename(target)
        raise
    shutil.rmtree(old)
