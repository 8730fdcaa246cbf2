"""A program at work on a session, killed at a random moment, and what is then on disk."""

from __future__ import annotations

import time
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from napari_microaunet.curation.session import KeptMap, MaskOrigin, ReviewState, Session
from napari_microaunet.frames import FieldOfView, open_frames

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from pathlib import Path

    from numpy.typing import NDArray

FRAMES = 24
HEIGHT, WIDTH = 96, 128
# A mask holds its number in so many pixels of its first row and its last.
_BITS = 32
# Numbers grow from one kill to the next: no kill can be later than so many.
_NUMBERS_PER_KILL = 100_000
SAVED_WITHIN_S = 1.0
"""The policy: what is older is on disk."""

# Killed while it opens, in the middle of the first writes, and well after.
_LONGEST_RUN_S = 2.0
# As fast as a model pre-labels small frames, and much faster than anybody paints.
_PACE_S = 0.02
_ACCEPTED_EVERY = 5


@dataclass(frozen=True)
class Done:
    """Something that the program has said it did; `at` by the monotonic clock, in seconds."""

    what: str
    index: int
    number: int
    at: float


@dataclass(frozen=True)
class Kill:
    """What one kill came to.

    Attributes
    ----------
    seed : int
        Of the moment.
    writes : int
        Strokes, pre-labels and decisions until then.
    faults : tuple of str
        What is wrong with the session besides; empty if nothing is.
    lost : int
        Strokes, pre-labels and decisions that are not on disk.
    late : int
        Those of them that should be, because they are too old.
    oldest_lost : float
        Age of the oldest of them, in seconds.
    opening : float
        How long the session took to open after it, in seconds.
    """

    seed: int
    writes: int
    faults: tuple[str, ...]
    lost: int
    late: int
    oldest_lost: float
    opening: float


def write_frames(folder: Path) -> None:
    """Write the frames that the program works on."""
    folder.mkdir(parents=True)
    pixels = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    for index in range(FRAMES):
        Image.fromarray(pixels).save(folder / f"{index:02d}.png")


def mask_with(number: int) -> NDArray[np.uint8]:
    """Make a mask that can be told from all others by the number it holds."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[10 : 20 + number % 60, 10 : 30 + number % 70] = 1
    mask[[0, -1], :_BITS] = [int(bit) for bit in f"{number:0{_BITS}b}"]
    return mask


def number_in(mask: NDArray[np.uint8]) -> int | None:
    """Read the number of a mask, 0 from an empty one; None if it is none of `mask_with`.

    The upper half may be of a later number: that is a stroke in hand.
    """
    numbers = []
    for row, half in ((0, slice(None, HEIGHT // 2)), (-1, slice(HEIGHT // 2, None))):
        number = int("".join(str(bit) for bit in mask[row, :_BITS]), 2)
        expected = mask_with(number)[half] if number else np.zeros_like(mask[half])
        if not np.array_equal(mask[half], expected):
            return None
        numbers.append(number)
    upper, lower = numbers
    return lower if upper >= lower else None


def work(frames: Path, pipe: Connection, number: int) -> None:
    """Paint on the first half of the frames and pre-label the second, until killed."""
    session = Session(open_frames(frames), annotator="ann")
    half = FRAMES // 2

    def say(what: str, index: int) -> None:
        pipe.send(Done(what, index, number, time.monotonic()))

    while True:
        number += 1
        index = number % half
        # As a brush does: through the Zarr array, in two dabs.
        mask = mask_with(number)
        session.chunks.array[index, : HEIGHT // 2] = mask[: HEIGHT // 2]
        session.chunks.array[index, HEIGHT // 2 :] = mask[HEIGHT // 2 :]
        session.add_stroke(index)
        session.shown = index
        say("stroke", index)
        index += half
        field = FieldOfView(0, 0, HEIGHT, WIDTH)
        values = np.full((32, 32), 1 + number % 250, np.uint8)
        session.put_map(index, KeptMap(values, field, "student", "ab" * 32), confidence=0.5)
        session.put_mask(index, mask_with(number), MaskOrigin.MODEL)
        say("prelabel", index)
        if number % _ACCEPTED_EVERY == 0:
            session.accept([index])
            say("accept", index)
        time.sleep(_PACE_S)


def kill_once(folder: Path, seed: int, saved_within: float = SAVED_WITHIN_S) -> Kill:
    """Let the program work, kill it at a moment that the seed decides, and look.

    Parameters
    ----------
    folder : Path
        Made, with frames and their session in it; or one that was used before,
        whose session goes on.
    seed : int
        Of the moment; higher than those of former kills of that session.
    saved_within : float
        In seconds; what is older has to be on disk.
    """
    frames = folder / "frames"
    if not frames.is_dir():
        write_frames(frames)
    # Modules are loaded once, so that a kill costs no more than the time until it.
    context = get_context("forkserver")
    context.set_forkserver_preload(["napari_microaunet.curation.session"])
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(
        target=work, args=(frames, theirs, seed * _NUMBERS_PER_KILL), daemon=True
    )
    process.start()
    theirs.close()
    done: list[Done] = []
    # Counted from the first write, but for some that are killed while they open the session.
    moment = float(np.random.default_rng(seed).uniform(-0.1, _LONGEST_RUN_S))
    if moment > 0:
        done.append(ours.recv())
    end = time.monotonic() + abs(moment)
    while time.monotonic() < end:
        if ours.poll(max(0.0, end - time.monotonic())):
            done.append(ours.recv())
    process.kill()
    killed = time.monotonic()
    process.join()
    try:
        while True:
            done.append(ours.recv())
    except (EOFError, OSError):
        pass
    start = time.monotonic()
    session = Session(open_frames(frames), annotator="ann")
    opening = time.monotonic() - start
    try:
        faults, lost = look(session, done, killed - saved_within)
    finally:
        session.close()
    ages = [killed - one.at for one in lost]
    late = sum(age > saved_within for age in ages)
    return Kill(seed, len(done), tuple(faults), len(lost), late, max(ages, default=0.0), opening)


def look(session: Session, done: list[Done], before: float) -> tuple[list[str], list[Done]]:
    """Compare a session with what was done to it, of which all `before` a time has to be there.

    Returns
    -------
    list of str
        What should not be.
    list of Done
        What is not on disk.
    """
    faults = [] if not session.read_only else [f"read-only: {session.notice}"]
    faults += session.remarks
    lost: list[Done] = []
    for status in session.statuses:
        index = status.index
        number = number_in(session.chunks.mask(index))
        if number is None:
            faults.append(f"the mask of frame {index} is torn")
            continue
        mine = [one for one in done if one.index == index]
        masks = [one for one in mine if one.what != "accept"]
        lost += [one for one in masks if one.number > number]
        if masks and number and status.origin is MaskOrigin.NONE:
            faults.append(f"frame {index} has a mask that nobody made")
        in_flight = not mine or mine[-1].at > before or masks[-1].number > number
        if mine and masks[0].what == "stroke" and status.origin is not MaskOrigin.HAND and number:
            faults.append(f"the strokes on frame {index} count as {status.origin.title}")
        if mine and masks[0].what == "prelabel" and not in_flight:
            kept = session.map(index)
            if kept is None or kept.values.min() != 1 + number % 250:
                faults.append(f"frame {index} has lost its probability map")
            if status.origin is not MaskOrigin.MODEL:
                faults.append(f"the pre-label of frame {index} counts as {status.origin.title}")
        # What is missing is counted as lost, and not as a fault once more.
        accepted = mine and mine[-1].what == "accept"
        if accepted and status.state is not ReviewState.ACCEPTED:
            lost.append(mine[-1])
    strokes = [one for one in done if one.what == "stroke"]
    old = [one for one in strokes if one.at < before]
    shown = {one.index for one in strokes if one.at >= before}
    if old and session.shown not in shown | {old[-1].index}:
        faults.append(f"it opens at frame {session.shown}")
    return faults, lost
