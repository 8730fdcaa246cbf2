"""The chunks of one Zarr array as files: read when asked for, written when there is time."""

from __future__ import annotations

import os
from collections import OrderedDict
from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING

from napari_microaunet.atomic import replacing
from napari_microaunet.frames.mask_chunks import METADATA_NAME, array_metadata, chunk_name

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

# Of some kilobytes each: more than anybody steps through before the file system forgets them.
_KEPT = 512


class ChunkFiles:
    """A folder that is a Zarr array, uint8 of shape (slots, height, width), one chunk per slot.

    What is put is in memory until it is saved; of what is on disk, the last
    chunks that were read are kept. Safe to use from any thread.

    Parameters
    ----------
    folder : Path
        The array; `prepare` makes it.
    shape : (int, int)
        Height and width of every chunk.
    """

    def __init__(self, folder: Path, shape: tuple[int, int]) -> None:
        self.folder = folder
        self.shape = shape
        self._waiting: dict[int, bytes | None] = {}
        self._read: OrderedDict[int, bytes | None] = OrderedDict()
        self._lock = Lock()
        self._prepared = 0
        self._unsynced = False

    def prepare(self, slots: int) -> None:
        """Make the folder, or make it longer."""
        if self._prepared == slots:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        file, metadata = self.folder / METADATA_NAME, array_metadata(slots, self.shape)
        if not file.is_file() or file.read_bytes() != metadata:
            with replacing(file) as target:
                target.write(metadata)
        self._prepared = slots

    def on_disk(self) -> set[int]:
        """List the slots that have a file."""
        names = os.listdir(self.folder) if self.folder.is_dir() else []  # noqa: PTH208
        numbers = (name.removeprefix("c.").removesuffix(".0.0") for name in names)
        return {int(number) for number in numbers if number.isdecimal()}

    def get(self, slot: int) -> bytes | None:
        """Return a chunk, compressed; None if there is none.

        Raises
        ------
        OSError
            If there may be one that cannot be read.
        """
        with self._lock:
            for known in (self._waiting, self._read):
                if slot in known:
                    chunk = known[slot]
                    break
            else:
                chunk = self._read_file(slot)
            if slot not in self._waiting:
                self._keep(slot, chunk)
            return chunk

    def put(self, slot: int, chunk: bytes | None) -> None:
        """Give a slot another chunk, or none, in memory."""
        with self._lock:
            self._waiting[slot] = chunk
            self._read.pop(slot, None)

    def waiting(self, slot: int) -> bool:
        """Tell whether a slot is yet to be saved."""
        return slot in self._waiting

    def waiting_chunks(self, slots: Iterable[int]) -> dict[int, bytes | None]:
        """Return the chunks of those slots that are yet to be saved, as they are now."""
        with self._lock:
            return {slot: self._waiting[slot] for slot in slots if slot in self._waiting}

    def save(self, slot: int, chunk: bytes | None) -> None:
        """Write the file of a slot; `sync` has it outlast a power cut.

        After a crash, its old chunk is there or the new one.

        Parameters
        ----------
        slot : int
            One that waits.
        chunk : bytes or None
            What `waiting_chunks` gave; what has been put since goes on waiting.

        Raises
        ------
        OSError
            If that cannot be done; it goes on waiting.
        """
        file = self.folder / chunk_name(slot)
        try:
            if chunk is None:
                file.unlink(missing_ok=True)
            else:
                with replacing(file) as target:
                    target.write(chunk)
            self._unsynced = True
        except OSError as error:
            self._prepared = 0
            # The file beside it that is to take its place says nothing to anybody.
            raise OSError(error.errno, error.strerror, str(file)) from error
        with self._lock:
            if self._waiting[slot] is chunk:
                del self._waiting[slot]
                self._keep(slot, chunk)

    def sync(self) -> None:
        """Have the names of what was saved outlast a power cut, as the contents do.

        Raises
        ------
        OSError
            If that cannot be done.
        """
        # Windows sees to that by itself.
        if self._unsynced and os.name == "posix":
            folder = os.open(self.folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        self._unsynced = False

    def set_aside(self, slot: int) -> None:
        """Take a damaged chunk out of the array; its file is kept under another name."""
        file = self.folder / chunk_name(slot)
        with self._lock, suppress(OSError):
            file.replace(file.with_name(f"{file.name}.damaged"))
            self._read.pop(slot, None)

    def forget_read(self) -> None:
        """Read chunks from the disk again: another program may have written them."""
        with self._lock:
            self._read.clear()

    def _read_file(self, slot: int) -> bytes | None:
        try:
            return (self.folder / chunk_name(slot)).read_bytes()
        except FileNotFoundError:
            # A drive that is gone must not look like a frame without a mask.
            os.stat(self.folder)  # noqa: PTH116
            return None

    def _keep(self, slot: int, chunk: bytes | None) -> None:
        self._read[slot] = chunk
        self._read.move_to_end(slot)
        while len(self._read) > _KEPT:
            self._read.popitem(last=False)
