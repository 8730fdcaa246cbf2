"""A sequence as one lazy stack for the viewer, read ahead of the annotator's steps."""

from __future__ import annotations

from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import TYPE_CHECKING
from uuid import uuid4
from weakref import finalize

import numpy as np

from napari_microaunet.errors import InputError

if TYPE_CHECKING:
    import dask.array
    from numpy.typing import NDArray

    from napari_microaunet.frames.sequence import FrameSequence

# Shown where a frame cannot be read: neither border nor picture.
PLACEHOLDER_GRAY = 128

# 40 frames of full HD: a few seconds of going back and forth.
_KEPT_BYTES = 256 * 2**20
# Held down, an arrow key steps 30 times a second: a quarter of a second ahead.
_AHEAD = 8
# One decodes while another waits for the disk; more would take cores from the viewer.
_THREADS = 2


class ReadAhead:
    """Frames by number, with the next ones in the direction of the steps read in advance.

    A step is to a neighbour. A jump reads nothing in advance: it is often one of many, when
    a slider is dragged. Safe to use from several threads.

    Parameters
    ----------
    sequence : FrameSequence
        Where frames come from.
    kept_bytes : int, optional
        Upper limit of the memory that frames are kept in, in bytes; the last one that was
        asked for is kept in any case.
    ahead : int, optional
        How many frames are read in advance; 0 for none.
    """

    def __init__(
        self, sequence: FrameSequence, kept_bytes: int = _KEPT_BYTES, ahead: int = _AHEAD
    ) -> None:
        self._sequence = sequence
        self._kept_bytes = kept_bytes
        self._ahead = ahead
        self._last = 0
        self._step = 1
        # By how long ago they were asked for; a future is pending, being read, or read.
        self._frames: OrderedDict[int, Future[NDArray[np.uint8]]] = OrderedDict()
        self._lock = Lock()
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="read-ahead")
        # Nothing more is read, and the sequence is let go, when the layer is gone.
        finalize(self, self._pool.shutdown, wait=False, cancel_futures=True)

    def read(self, index: int) -> NDArray[np.uint8]:
        """Return a frame, and start to read the ones that follow.

        Parameters
        ----------
        index : int
            Number of the frame.

        Returns
        -------
        ndarray of uint8, shape (height, width, 3)
            RGB at native size; shared, so not to be written to.

        Raises
        ------
        InputError
            If the frame cannot be read.
        """
        with self._lock:
            frame = self._frames.get(index)
            # One that still waits its turn is read here and now; one that failed, once more.
            read_here = frame is None or frame.cancel() or _failed(frame)
            if frame is None or read_here:
                frame = self._frames[index] = Future()
                frame.set_running_or_notify_cancel()
            self._frames.move_to_end(index)
        if read_here:
            self._fulfil(frame, index)
        self._look_ahead(index)
        return frame.result()

    def _fulfil(self, frame: Future[NDArray[np.uint8]], index: int) -> None:
        try:
            frame.set_result(self._sequence.read(index))
        except BaseException as error:
            frame.set_exception(error)
            if not isinstance(error, InputError):
                raise

    def _look_ahead(self, index: int) -> None:
        with self._lock:
            step, self._last = index - self._last, index
            if step != 0:
                self._step = step if abs(step) == 1 else 0
            coming = (index + self._step * ahead for ahead in range(1, self._ahead + 1))
            wanted = [
                number for number in coming if number != index and 0 <= number < len(self._sequence)
            ]
            for number, frame in list(self._frames.items()):
                if number != index and number not in wanted and frame.cancel():
                    del self._frames[number]
            room = self._kept_bytes - self._size(index)
            for number in wanted:
                room -= self._size(number)
                if room < 0:
                    break
                if number not in self._frames:
                    self._frames[number] = self._pool.submit(self._sequence.read, number)
                self._frames.move_to_end(number)
            if index in self._frames:  # another thread may have needed its room meanwhile
                self._frames.move_to_end(index)
            self._forget()

    def _forget(self) -> None:
        excess = sum(map(self._size, self._frames)) - self._kept_bytes
        while excess > 0 and len(self._frames) > 1:
            number, frame = self._frames.popitem(last=False)
            frame.cancel()
            excess -= self._size(number)

    def _size(self, index: int) -> int:
        frame = self._sequence.frames[index]
        return frame.height * frame.width * 3


def _failed(frame: Future[NDArray[np.uint8]]) -> bool:
    return frame.done() and frame.exception() is not None


def canvas(sequence: FrameSequence, *, read_ahead: bool = True) -> dask.array.Array:
    """Stack a sequence lazily on a canvas that holds its largest frame.

    Frames lie in the top left corner; the rest of the canvas is black. One that cannot be
    read is a gray rectangle (128). Memory stays bounded however many frames are looked at, as
    long as the viewer does not keep them as well: give the layer ``cache=False``.

    Parameters
    ----------
    sequence : FrameSequence
        The frames.
    read_ahead : bool, optional
        Whether to keep frames in memory and read the next ones in advance.

    Returns
    -------
    dask.array.Array of uint8, shape (frames, height, width, 3)
        One chunk per frame.
    """
    import dask.array

    height, width = sequence.canvas_shape
    read = ReadAhead(sequence).read if read_ahead else sequence.read

    def block(block_id: tuple[int, int, int, int]) -> NDArray[np.uint8]:
        index = block_id[0]
        frame = sequence.frames[index]
        try:
            image = read(index)
        except InputError:
            image = np.full((frame.height, frame.width, 3), PLACEHOLDER_GRAY, np.uint8)
        if image.shape[:2] == (height, width):
            return image[np.newaxis]
        padded = np.zeros((1, height, width, 3), np.uint8)
        padded[0, : frame.height, : frame.width] = image
        return padded

    stack: dask.array.Array = dask.array.map_blocks(
        block,
        chunks=((1,) * len(sequence), (height,), (width,), (3,)),
        dtype=np.uint8,
        meta=np.empty((0, 0, 0, 0), np.uint8),
        # A name of its own spares dask the attempt to hash the sequence.
        name=f"canvas-{uuid4().hex}",
    )
    return stack
