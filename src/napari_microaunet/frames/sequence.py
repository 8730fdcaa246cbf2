"""The noun everything else is built on: an ordered, lazily read sequence of frames."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from napari_microaunet.errors import InputError
from napari_microaunet.frames.field_of_view import FieldOfView, find_field_of_view

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

# Frames looked at for one field of view: enough that every short sequence of a folder is among
# them. 8 of the 486 frames of CVC-ClinicDB missed scopes whose picture is 15 px wider.
_FIELD_OF_VIEW_FRAMES = 64
# What stands in a name for bytes of a file name that are no UTF-8.
_NO_UNICODE = re.compile("[\ud800-\udfff]")


class UnreadableError(Exception):
    """Why one file or frame cannot be read, as half a sentence; stays inside ``frames``."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One RGB image of a sequence.

    Attributes
    ----------
    name : str
        Unique in its sequence (also where case does not count), with forward slashes and
        without extension: ``cju0q``, ``case 3/12``, ``clip_000012``.
    source : Path
        The file that holds the frame; frames of a video or a stack share theirs.
    height, width : int
        Native size in pixels, after EXIF orientation. A frame that could not be read has
        the size of the first one that could.
    """

    name: str
    source: Path
    height: int
    width: int


class FrameSequence(ABC):
    """Ordered frames whose pixels are read when they are asked for.

    Reading is safe from several threads at once.

    Parameters
    ----------
    path : Path
        What was opened.
    name : str
        What the sequence is called in the window and in the names of what is saved.
    frames : sequence of Frame
        At least one.
    problems : mapping of int to str, optional
        Frames already known to be unreadable, and why.
    folders : sequence of Path, optional
        The folder that each frame counts as one of, where that is not the one of its file.

    Attributes
    ----------
    path, name, frames
        As given; the name as `unicode_name` gives it, and `frames` is a tuple.
    canvas_shape : tuple of int
        Height and width of the smallest canvas that holds every frame, in pixels.
    problems : dict of int to str
        Frames known to be unreadable and why. It grows when a damaged frame is met and
        shrinks when a file turns out to be readable after all (a copy that has finished).
    unmeasured : frozenset of int
        Those of which not even the size was known when they were opened: `frames` has that of
        another for them.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        frames: Sequence[Frame],
        problems: Mapping[int, str] | None = None,
        folders: Sequence[Path] | None = None,
    ) -> None:
        if not frames:
            raise ValueError("a sequence needs at least one frame")
        self.path = path
        self.name = unicode_name(name)
        self.frames = tuple(frames)
        self.problems: dict[int, str] = dict(problems or {})
        self.unmeasured = frozenset(self.problems)
        height = max(frame.height for frame in frames)
        self.canvas_shape = height, max(frame.width for frame in frames)
        if folders is None:
            folders = [frame.source.parent for frame in self.frames]
        self._geometry = [
            (folder, frame.height, frame.width)
            for folder, frame in zip(folders, self.frames, strict=True)
        ]
        self._groups = defaultdict(list)
        for index, group in enumerate(self._geometry):
            self._groups[group].append(index)
        self._looking = Lock()
        self._fields_of_view: dict[tuple[Path, int, int], FieldOfView] = {}

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def has_masks(self) -> bool:
        """Whether masks were found beside at least one of the frames."""
        return False

    def read(self, index: int) -> NDArray[np.uint8]:
        """Read one frame.

        Parameters
        ----------
        index : int
            Number of the frame, from 0.

        Returns
        -------
        ndarray of uint8, shape (height, width, 3)
            RGB at native size.

        Raises
        ------
        InputError
            If the frame cannot be read; the reason is kept in `problems`.
        """
        frame = self.frames[index]
        try:
            image = self._decode(index)
            _check_size(image, frame)
        except UnreadableError as error:
            self.problems[index] = str(error)
            raise InputError(
                f"Frame {frame.name} of {frame.source} cannot be read: {error}."
            ) from error
        self.problems.pop(index, None)
        return image

    def read_mask(self, index: int) -> NDArray[np.uint8] | None:
        """Read the mask found beside a frame.

        Parameters
        ----------
        index : int
            Number of the frame, from 0.

        Returns
        -------
        ndarray of uint8, shape (height, width), or None
            Labels at the frame's native size: 0 background, 1..n polyps, 255 ignore.
            None where the frame has no mask.

        Raises
        ------
        InputError
            If the mask cannot be read or differs from the frame in size.
        """
        frame = self.frames[index]
        try:
            mask = self._decode_mask(index)
            if mask is not None:
                _check_size(mask, frame)
        except UnreadableError as error:
            raise InputError(
                f"The mask of frame {frame.name} ({frame.source}) cannot be used: {error}."
            ) from error
        return mask

    def field_of_view(self, index: int) -> FieldOfView:
        """Find the lit part of a frame inside the endoscope's black border.

        Frames of one size in one folder (all frames of a video or stack) share one scope
        and so one field of view. It is found when first asked for and then kept.

        Parameters
        ----------
        index : int
            Number of the frame, from 0.

        Returns
        -------
        FieldOfView
            The box, in pixels of the frame; the whole frame where no readable one shows it.
        """
        group = self._geometry[index]
        with self._looking:
            if group not in self._fields_of_view:
                self._fields_of_view[group] = self._find_field_of_view(index)
            return self._fields_of_view[group]

    def _find_field_of_view(self, index: int) -> FieldOfView:
        frame = self.frames[index]
        # Not by `problems`, to which reading adds: the same frames, whatever was read before.
        members = [i for i in self._groups[self._geometry[index]] if i not in self.unmeasured]
        images = []
        for member in self._samples(members):
            with suppress(UnreadableError):
                images.append(self._glance(member))
        if not images:
            return FieldOfView(0, 0, frame.height, frame.width)
        images = _at_one_size(images)
        field = find_field_of_view(images)
        down, across = frame.height / images[0].shape[0], frame.width / images[0].shape[1]
        return FieldOfView(
            int(field.top * down),
            int(field.left * across),
            min(frame.height, math.ceil(field.bottom * down)),
            min(frame.width, math.ceil(field.right * across)),
        )

    @abstractmethod
    def _decode(self, index: int) -> NDArray[np.uint8]:
        """Read one frame as uint8 (height, width, 3), or raise `UnreadableError`."""

    def _glance(self, index: int) -> NDArray[np.uint8]:
        """Read one frame for its field of view; may be smaller, down to `ANALYSIS_SIDE`."""
        return self._decode(index)

    def _decode_mask(self, index: int) -> NDArray[np.uint8] | None:  # noqa: ARG002
        """Read one frame's mask as labels, or raise `UnreadableError`."""
        return None

    def _samples(self, members: Sequence[int]) -> Sequence[int]:
        """Choose the frames of a group that its field of view is found from."""
        return spread(members, _FIELD_OF_VIEW_FRAMES)


def unicode_name(name: str) -> str:
    """Make the name of a file one that can be saved anywhere.

    On Linux, file names are bytes, and those of old archives are often no UTF-8: ``Grün`` as
    Windows packed it becomes ``Gr%FCn``. Different files may get the same name by that.

    Parameters
    ----------
    name : str
        As the file system gives it.

    Returns
    -------
    str
        Valid Unicode; bytes that are no UTF-8 are a percent sign and two hexadecimal digits.
    """
    return _NO_UNICODE.sub(lambda found: f"%{ord(found[0]) & 0xFF:02X}", name)


def spread(members: Sequence[int], most: int) -> list[int]:
    """Choose at most so many members, evenly from the first to the last."""
    count = min(len(members), most)
    return [members[i] for i in np.linspace(0, len(members) - 1, count).astype(int)]


def _at_one_size(images: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    """Reduce glances to the smallest: only some formats are decoded to fewer pixels."""
    height, width = min(image.shape[:2] for image in images)
    return [
        image
        if image.shape[:2] == (height, width)
        else np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BOX))
        for image in images
    ]


def _check_size(pixels: NDArray[np.uint8], frame: Frame) -> None:
    if pixels.shape[:2] != (frame.height, frame.width):
        raise UnreadableError(
            f"it is {pixels.shape[1]} x {pixels.shape[0]} px large "
            f"and not {frame.width} x {frame.height} as expected"
        )


def check_beside_frames(sequence: FrameSequence, target: Path) -> None:
    """Refuse to write where the next who opens the frames would find more of them.

    Parameters
    ----------
    sequence : FrameSequence
        The frames.
    target : Path
        The folder or file that is to be written.

    Raises
    ------
    InputError
        If it lies in the folder that was opened, or frames lie in it.
    """
    place, opened = target.resolve(), sequence.path.resolve()
    sources = {frame.source for frame in sequence.frames}
    if (opened.is_dir() and place.is_relative_to(opened)) or any(
        source.resolve().is_relative_to(place) for source in sources
    ):
        raise InputError(
            f"{target} lies among the frames, and who opened that folder would take what is "
            "written there for frames: choose a folder beside them."
        )
