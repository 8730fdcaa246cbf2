"""JSON that others have written: strict, and bounded in size and depth."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NoReturn

from napari_microaunet.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LARGEST_FILE = 256 * 2**20
"""Bytes of a text file of labels; 10,000 frames with long outlines need a third of that."""


def read_text(path: Path, largest: int = LARGEST_FILE) -> str:
    """Read a text file.

    Raises
    ------
    InputError
        If it is missing, larger than so many bytes, or no text.
    """
    try:
        with path.open("rb") as file:
            content = file.read(largest + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check the path.") from error
    if len(content) > largest:
        raise InputError(
            f"{path} has more than {largest // 2**20} MiB; divide it into several files."
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no text in UTF-8; export it again.") from error


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises
    ------
    InputError
        If it is none, too large or too deep, holds NaN, or names a key twice in one object.
    """

    def refuse_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise InputError(f"{path} names a key twice in one object; export it again.")
        return found

    def refuse(constant: str) -> NoReturn:
        raise InputError(f"{path} holds {constant} where a number is needed; export it again.")

    text = read_text(path)
    try:
        return json.loads(text, object_pairs_hook=refuse_twins, parse_constant=refuse)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON that can be read ({error}).") from error


def write_json(path: Path, value: Any) -> None:
    """Write a small JSON file."""
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False), encoding="utf-8")


def lines_of_list(values: Iterator[Any]) -> Iterator[str]:
    """Write a long list as JSON, a line each, without ever holding all of it."""
    yield "["
    for number, value in enumerate(values):
        yield f"{',' if number else ''}\n{json.dumps(value, ensure_ascii=False)}"
    yield "\n]"
