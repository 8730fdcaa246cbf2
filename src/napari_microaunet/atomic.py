"""Files that are there whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file beside the target that takes its place when the block is left.

    Where the block raises, or the program is killed, the target stays as it was. An OSError, for
    instance of a full disk, names the target.

    Parameters
    ----------
    path : Path
        The target, in a folder that exists; a file that is there is replaced.

    Yields
    ------
    binary file
        Write the content to it.
    """
    # Not tempfile: its files may be read by their owner alone, and so might the target then.
    # Nothing of the target's name in it, which may be as long as a name can be.
    part = path.with_name(f".{uuid4().hex}.part")
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        # From a write, which knows no name, or about the file beside it, of which nobody knows.
        is_ours = error.filename is None or str(error.filename) == str(part)
        if error.errno is not None and is_ours:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        part.unlink(missing_ok=True)
