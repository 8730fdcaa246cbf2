"""What a session costs: opening a long one, saving a stroke, and what a kill can take.

``python benchmarks/session.py`` makes a session of 10,000 frames of full HD, opens it, steps
through it and paints on it, and prints times and memory. ``--kills 300`` kills a program at work
as often instead, at random moments, and says what was lost.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import psutil
import typer
from rich.console import Console
from rich.table import Table
from session_kills import Kill, kill_once

from napari_microaunet.curation.session import KeptMap, MaskOrigin, Session
from napari_microaunet.frames import FieldOfView
from napari_microaunet.frames.arrays import ArraySequence
from napari_microaunet.frames.mask_chunks import MaskChunks

if TYPE_CHECKING:
    from numpy.typing import NDArray

HEIGHT, WIDTH = 1080, 1920
MAP_SIDE = 256
MEBIBYTE = 2**20
# A brush of 41 pixels that is dragged leaves so many dabs a stroke.
DABS, BRUSH = 30, 41
# Masks that are told apart by their place; more would only take longer to make.
DIFFERENT = 16
# Where a session is filled quickly, because there is nothing to sync with; not what is measured.
_FAST = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108
# As many sessions are killed side by side.
_AT_ONCE = 3
_KILLS_EACH = 10


def frames_of(count: int) -> ArraySequence:
    """Make frames that take no room: what they show does not matter here."""
    one = np.zeros((1, 1, 1, 3), np.uint8)
    return ArraySequence(np.broadcast_to(one, (count, HEIGHT, WIDTH, 3)), "frames")


def polyp(number: int) -> NDArray[np.uint8]:
    """Make the mask of a round polyp that is somewhere else in each frame."""
    rows, columns = np.ogrid[:HEIGHT, :WIDTH]
    row, column = 300 + number % 480, 400 + 7 * number % 1100
    return np.asarray((rows - row) ** 2 + (columns - column) ** 2 < 150**2, np.uint8)


def fill(folder: Path, count: int) -> None:
    """Give every frame a mask and a map, in a process of its own."""
    random = np.random.default_rng(0)
    field = FieldOfView(0, 0, HEIGHT, WIDTH)
    values = np.zeros((MAP_SIDE, MAP_SIDE), np.uint8)
    values[60:160, 90:200] = random.integers(0, 255, (100, 110))
    kept = KeptMap(values, field, "student", "ab" * 32)
    with Session(frames_of(count), folder) as session:
        chunks = [session.chunks.encode(polyp(number)) for number in range(DIFFERENT)]
        for index in range(count):
            session.put_map(index, kept, confidence=0.7)
            session.put_mask(index, chunks[index % DIFFERENT], MaskOrigin.MODEL)


def use(folder: Path, count: int) -> list[tuple[str, str]]:
    """Open a session, step through it and paint on it, in a process of its own."""
    process = psutil.Process()
    sequence = frames_of(count)
    # What the first array of a process costs is not the session's.
    with Session(frames_of(1), folder.with_name("other.microaunet")) as other:
        other.chunks.array[0, 0, 0] = 1
    lines = []

    def say(what: str, value: str) -> None:
        lines.append((what, value))

    def memory() -> str:
        return f"{process.memory_info().rss / MEBIBYTE:.0f} MiB"

    say("memory before", memory())
    start = time.perf_counter()
    session = Session(sequence, folder)
    say(f"opening {count} frames", f"{time.perf_counter() - start:.2f} s")
    say("memory after opening", memory())
    start = time.perf_counter()
    found = session.statuses
    say(f"first list of {len(found)} statuses", f"{(time.perf_counter() - start) * 1e3:.0f} ms")
    start = time.perf_counter()
    session.accept([count // 2])
    found = session.statuses
    say("list after a change", f"{(time.perf_counter() - start) * 1e3:.1f} ms")
    times = []
    for index in range(0, count, 5):
        start = time.perf_counter()
        np.asarray(session.chunks.array[index])
        session.map(index)
        times.append(time.perf_counter() - start)
    say(f"mask and map of {len(times)} frames, median", f"{np.median(times) * 1e3:.1f} ms each")
    say("memory after stepping", memory())
    session.flush()
    in_memory = MaskChunks(sequence, is_stack=True)
    dabs: dict[str, list[float]] = {"in memory": [], "in the session": []}
    ends, until_saved = [], []
    for index in range(0, 17 * 50, 17):
        in_memory[index] = session.chunks[index]
        for dab in range(DABS):
            corner = 200 + 5 * dab
            for where, chunks in zip(dabs, (in_memory, session.chunks), strict=True):
                start = time.perf_counter()
                chunks.array[index, corner : corner + BRUSH, corner : corner + BRUSH] = 2
                dabs[where].append(time.perf_counter() - start)
        start = time.perf_counter()
        session.add_stroke(index)
        ends.append(time.perf_counter() - start)
        session.flush()
        until_saved.append(time.perf_counter() - start)
    for where, seconds in dabs.items():
        say(f"a dab {where}, median", f"{np.median(seconds) * 1e3:.1f} ms")
        say(f"a dab {where}, 99 %", f"{np.percentile(seconds, 99) * 1e3:.1f} ms")
    say("end of a stroke in the caller, median", f"{np.median(ends) * 1e3:.2f} ms")
    say("end of a stroke in the caller, longest", f"{max(ends) * 1e3:.1f} ms")
    say("a stroke until on disk, flushed, median", f"{np.median(until_saved) * 1e3:.0f} ms")
    say("a stroke until on disk, flushed, longest", f"{max(until_saved) * 1e3:.0f} ms")
    chunk = session.chunks.encode(polyp(5))
    puts = []
    for index in range(200):
        start = time.perf_counter()
        session.put_mask(index, chunk, MaskOrigin.HAND)
        puts.append(time.perf_counter() - start)
    say("put_mask in the caller, median", f"{np.median(puts) * 1e3:.2f} ms")
    start = time.perf_counter()
    session.flush()
    say("200 frames until on disk", f"{time.perf_counter() - start:.2f} s")
    start = time.perf_counter()
    session.accept(range(count))
    say(f"accepting {count} frames, in the caller", f"{(time.perf_counter() - start) * 1e3:.0f} ms")
    session.flush()
    say(f"accepting {count} frames, until on disk", f"{time.perf_counter() - start:.2f} s")
    say("memory at the end", memory())
    session.close()
    return lines


def open_after_kill(folder: Path, count: int) -> list[tuple[str, str]]:
    """Open a session that was not closed, in a process of its own."""
    start = time.perf_counter()
    session = Session(frames_of(count), folder)
    seconds = time.perf_counter() - start
    session.close()
    return [("opening after a kill", f"{seconds:.2f} s")]


def leave_open(folder: Path, count: int) -> None:
    """Open a session and end without closing it, in a process of its own."""
    session = Session(frames_of(count), folder)
    session.accept([0])
    session.flush()
    os._exit(1)


def measure(count: int) -> Table:
    """Measure one session and put the figures into a table."""
    context = get_context("spawn")
    table = Table("what", "figure", title=f"A session of {count} frames, {WIDTH} x {HEIGHT}")
    with tempfile.TemporaryDirectory() as place, tempfile.TemporaryDirectory(dir=_FAST) as fast:
        folder, made = Path(place) / "long.microaunet", Path(fast) / "long.microaunet"
        with ProcessPoolExecutor(1, context) as pool:
            pool.submit(fill, made, count).result()
        shutil.copytree(made, folder)
        with ProcessPoolExecutor(1, context) as pool:
            lines = pool.submit(use, folder, count).result()
        process = context.Process(target=leave_open, args=(folder, count))
        process.start()
        process.join()
        with ProcessPoolExecutor(1, context) as pool:
            lines += pool.submit(open_after_kill, folder, count).result()
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        lines.append(("size on disk", f"{size / MEBIBYTE:.0f} MiB"))
    for line in lines:
        table.add_row(*line)
    return table


def kill(count: int, console: Console) -> None:
    """Kill a program at work so many times, and print what the policy was broken by."""
    place = Path(tempfile.mkdtemp())

    def one_session(first: int) -> list[Kill]:
        # A session goes on after some kills, and then a new one is begun.
        return [
            kill_once(place / f"{first}-{seed // (_KILLS_EACH * _AT_ONCE)}", seed)
            for seed in range(first, count, _AT_ONCE)
        ]

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        kills = [one for some in pool.map(one_session, range(_AT_ONCE)) for one in some]
    shutil.rmtree(place)
    for one in kills:
        for fault in one.faults:
            console.print(f"kill {one.seed}: {fault}")
    ages = [one.oldest_lost for one in kills]
    table = Table("what", "figure", title=f"{count} kills at random moments")
    table.add_row("sessions that were damaged", str(sum(bool(one.faults) for one in kills)))
    table.add_row("writes before the kills", str(sum(one.writes for one in kills)))
    table.add_row("writes lost, all of the last moment", str(sum(one.lost for one in kills)))
    table.add_row("writes lost that were older than a second", str(sum(one.late for one in kills)))
    table.add_row("age of the oldest lost write, median", f"{np.median(ages):.2f} s")
    table.add_row("age of the oldest lost write, 95 %", f"{np.percentile(ages, 95):.2f} s")
    table.add_row("age of the oldest lost write, longest", f"{max(ages):.2f} s")
    table.add_row("opening after it, longest", f"{max(one.opening for one in kills):.2f} s")
    console.print(table)


def main(
    frames: Annotated[int, typer.Option(help="Frames of the session.")] = 10_000,
    kills: Annotated[int, typer.Option(help="Kill a program so often instead.")] = 0,
) -> None:
    """Print what a session costs, or what a kill takes."""
    console = Console()
    if kills:
        kill(kills, console)
    else:
        console.print(measure(frames))


if __name__ == "__main__":
    # Nothing of this is to show up among the user's recent sessions.
    with tempfile.TemporaryDirectory() as own:
        os.environ["XDG_DATA_HOME"] = os.environ["XDG_CONFIG_HOME"] = own
        typer.run(main)
