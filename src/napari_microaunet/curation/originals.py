"""What the frames of a dataset were taken from: by its hash a frame is known again."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from napari_microaunet.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from napari_microaunet.curation.incoming import IncomingFrame
    from napari_microaunet.curation.manifest import FrameRecord


def original_of(record: FrameRecord) -> str | None:
    """Return the hash of what a frame was taken from; version 1 knew that of its file alone."""
    return record.original_sha256 or record.image_sha256


def hash_original(frame: IncomingFrame) -> str:
    """Hash what a frame was taken from: its file, or the pixels of one of several in a file.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    if frame.original_sha256 is not None:
        return frame.original_sha256
    if frame.file is not None:
        return hashlib.sha256(file_content(frame.file)).hexdigest()
    return hash_pixels(frame.sequence.read(frame.index))


def hash_pixels(image: NDArray[np.uint8]) -> str:
    """Hash the pixels and the shape of a picture."""
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()


def file_content(path: Path) -> bytes:
    """Read a file.

    Raises
    ------
    InputError
        If that is not possible.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}); put it back, or exclude the frame."
        ) from error
