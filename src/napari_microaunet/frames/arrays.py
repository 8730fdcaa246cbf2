"""Arrays as frames: a stack in memory, on disk or computed lazily."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from napari_microaunet.errors import InputError
from napari_microaunet.frames.images import DECODING_ERRORS, brightest_of, check_sides, to_uint8
from napari_microaunet.frames.sequence import Frame, FrameSequence, UnreadableError, spread

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Frames that the brightest value of a whole stack is taken from.
_BRIGHTNESS_FRAMES = 16
_COLOUR_CHANNELS = (3, 4)


class ArrayLike(Protocol):
    """What NumPy, dask and Zarr arrays have in common."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""

    def __getitem__(self, index: Any, /) -> Any:
        """Values by index, convertible to a NumPy array."""


class ArraySequence(FrameSequence):
    """Frames that are slices of one array.

    Values other than uint8 are scaled to 8 bits, all frames alike (`to_uint8`). A single
    channel becomes gray, a fourth one is left out.

    Parameters
    ----------
    array : array-like
        NumPy, memory-mapped, dask or Zarr array of shape (frames, rows, columns),
        (frames, rows, columns, channels) or (frames, channels, rows, columns); without the
        first axis it is one frame. Safe to read from several threads.
    name : str
        Name of the sequence; its frames are ``NAME_000000``, ``NAME_000001``, ...
    axes : str, optional
        Letters of the axes as tifffile gives them, of which Y, X, C and S count: an axis with
        the name of something else holds no colours. Without them, or with Q or ?, the shape alone
        decides.
    path : Path, optional
        The file that holds the array.

    Raises
    ------
    InputError
        If the shape is not that of a stack of frames.
    """

    def __init__(
        self, array: ArrayLike, name: str, axes: str | None = None, path: Path | None = None
    ) -> None:
        path = Path(name) if path is None else path
        roles = _roles(array.shape, axes or "?" * len(array.shape))
        if roles is None or array.dtype.kind not in "buif":
            raise InputError(
                f"{path} is an array of {array.dtype} and shape {array.shape}, which is no stack "
                "of frames; save it as (frames, rows, columns), with 3 colour channels if any."
            )
        lengths = dict(zip(roles, array.shape, strict=True))
        try:
            check_sides(lengths["X"], lengths["Y"])
        except UnreadableError as error:
            raise InputError(f"{path} cannot be used: {error}; scale it down.") from error
        names = (f"{name}_{number:06d}" for number in range(lengths.get("T", 1)))
        frames = [Frame(frame_name, path, lengths["Y"], lengths["X"]) for frame_name in names]
        super().__init__(path, name, frames)
        self._array = array
        self._roles = roles
        self._brightest = None if array.dtype == np.uint8 else self._find_brightest()

    def _decode(self, index: int) -> NDArray[np.uint8]:
        colours = to_uint8(self._values(index), self._brightest)[:, :, :3]
        return np.ascontiguousarray(np.broadcast_to(colours, (*colours.shape[:2], 3)))

    def _values(self, index: int) -> NDArray[Any]:
        """Read the values of one frame, shape (rows, columns, channels)."""
        where = {"T": index, "1": 0}
        try:
            values = np.asarray(self._array[tuple(where.get(r, slice(None)) for r in self._roles)])
        except DECODING_ERRORS as error:
            raise UnreadableError(f"the stack is damaged there ({error})") from error
        if "C" not in self._roles:
            return values[:, :, np.newaxis]
        return values if self._roles[-1] == "C" else np.moveaxis(values, 0, 2)

    def _find_brightest(self) -> float:
        brightest = 0.0
        for index in spread(range(len(self)), _BRIGHTNESS_FRAMES):
            try:
                brightest = max(brightest, brightest_of(self._values(index)))
            except UnreadableError as error:
                self.problems[index] = str(error)
        return brightest


def _roles(shape: tuple[int, ...], letters: str) -> str | None:
    """Give each axis a role.

    Returns
    -------
    str or None
        T frames, Y rows, X columns, C colours, 1 for an axis of length 1 that is left out.
        None where the axes do not make a stack.
    """
    if len(shape) < 2 or 0 in shape:
        return None
    last_is_colour = len(shape) > 2 and shape[-1] in _COLOUR_CHANNELS and letters[-1] != "X"
    leading, picture = (-3, "YXC") if last_is_colour else (-2, "YX")
    roles = ["1" if length == 1 else "?" for length in shape[:leading]]
    open_axes = [axis for axis, role in enumerate(roles) if role == "?"]
    has_colours = open_axes and not last_is_colour and shape[open_axes[-1]] in _COLOUR_CHANNELS
    # Three gray frames are likelier than one in three channels, unless it says channels; and where
    # it says slices, they are no colours.
    if has_colours and letters[open_axes[-1]] in ("CSQ?" if len(open_axes) > 1 else "CS"):
        roles[open_axes.pop()] = "C"
    if len(open_axes) > 1:
        return None
    for axis in open_axes:
        roles[axis] = "T"
    return "".join(roles) + picture
