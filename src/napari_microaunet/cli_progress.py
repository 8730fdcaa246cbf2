"""The bar that commands show while they work, and what several of them are asked."""

from __future__ import annotations

from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


class IncludeChoice(StrEnum):
    """Which frames of a session are taken."""

    ACCEPTED = "accepted"
    EDITED = "edited"
    ALL = "all"


def tell_remarks(remarks: Iterable[str]) -> None:
    """Say on stderr what is odd about the frames of a session."""
    for sentence in remarks:
        typer.echo(sentence, err=True)


@contextmanager
def progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar with the time left on stderr, so that stdout stays for results.

    Yields
    ------
    callable
        To be told what is done, and the whole.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
