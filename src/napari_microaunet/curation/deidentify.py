"""Frames that nobody can be recognised by: only the picture stays, and no metadata."""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from napari_microaunet.errors import InputError
from napari_microaunet.frames.field_of_view import find_picture, find_position_marker
from napari_microaunet.frames.folder import ImageFiles
from napari_microaunet.frames.sequence import spread

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_microaunet.curation.manifest import Blanked
    from napari_microaunet.frames import Frame, FrameSequence

    # Where frames come from, and their height and width.
    _Key = tuple[Path, int, int]

# That share an outline: enough that what is dark in one frame is lit in another.
_FRAMES_FOR_AN_OUTLINE = 16
# Of those that show an outline, this share may light up most of the border: then the layout has
# changed. Fewer, or one alone, are pages that a recorder shows between pictures.
_SHARE_OF_A_LAYOUT = 0.25
_FEWEST_OF_A_LAYOUT = 2


class Box(NamedTuple):
    """Part of a frame, in native pixels, end exclusive."""

    top: int
    left: int
    bottom: int
    right: int


class Deidentifier:
    """Blanks what is burnt into frames around the picture.

    Everything outside the convex outline of the lit picture becomes black, with all text that is
    there, and so does the panel that shows the scope's position. Text over the picture itself
    cannot be told from gloss and has to be named by boxes. Frames of which nothing is known to be
    picture become black as a whole.

    Parameters
    ----------
    boxes : sequence of Box
        Parts of every frame that are blanked as well.
    """

    def __init__(self, *boxes: Box) -> None:
        self._boxes = boxes
        self._pictures: dict[_Key, NDArray[np.bool_] | None] = {}
        self._members: dict[FrameSequence, dict[_Key, list[int]]] = {}
        self._looking = Lock()

    def blank(
        self, sequence: FrameSequence, index: int, image: NDArray[np.uint8]
    ) -> tuple[NDArray[np.uint8], tuple[Blanked, ...]]:
        """Blank a frame.

        Frames of a video or stack share one outline. Every other frame has its own or, where it is
        too dark to show one, that of the frames of its size in its folder. So it is where the two
        have little in common: what is lit in a dark frame may be a panel beside the picture.

        Parameters
        ----------
        sequence : FrameSequence
        index : int
            Number of the frame.
        image : uint8 array, shape (height, width, 3)
            Its pixels; left as they are.

        Returns
        -------
        image : uint8 array, shape (height, width, 3)
        blanked : tuple of str
            What was done, as in its `FrameRecord`.

        Raises
        ------
        InputError
            If none of the frames that show its outline can be read, or a box lies outside the
            frame: it was meant for frames of another size.
        """
        result = np.where(self._picture(sequence, index, image)[..., np.newaxis], image, 0)
        done: list[Blanked] = ["metadata", "outside the field of view"]
        marker = find_position_marker(image)
        if marker is not None:
            top, left, bottom, right = marker
            result[top:bottom, left:right] = 0
            done.append("position marker")
        height, width = image.shape[:2]
        for top, left, bottom, right in self._boxes:
            if top >= height or left >= width:
                raise InputError(
                    f"The box {top},{left},{bottom},{right} lies outside the frame "
                    f"{sequence.frames[index].name} of {width} x {height} px; write frames of "
                    "this size by themselves, with boxes of their own."
                )
            result[top:bottom, left:right] = 0
        if self._boxes:
            done.append("boxes")
        return result.astype(np.uint8, copy=False), tuple(done)

    def _picture(
        self, sequence: FrameSequence, index: int, image: NDArray[np.uint8]
    ) -> NDArray[np.bool_]:
        key, members = self._together(sequence, index)
        alone = len(members) == 1
        own = find_picture([image]) if alone or isinstance(sequence, ImageFiles) else None
        shared = None
        if not alone:
            try:
                with self._looking:  # frames are blanked in several threads, and one looks for all
                    shared = self._shared_picture(sequence, key, members)
            except InputError:
                if own is None:
                    raise
                return own
        if own is not None and (
            shared is None or 2 * (own & shared).sum() >= min(own.sum(), shared.sum())
        ):
            return own
        return np.zeros(image.shape[:2], bool) if shared is None else shared

    def _together(self, sequence: FrameSequence, index: int) -> tuple[_Key, Sequence[int]]:
        """Tell which frames a frame may share its outline with: of its video, or its folder."""
        stills = isinstance(sequence, ImageFiles)

        def key_of(frame: Frame) -> _Key:
            return frame.source.parent if stills else frame.source, frame.height, frame.width

        if sequence not in self._members:
            members = defaultdict(list)
            for number, frame in enumerate(sequence.frames):
                members[key_of(frame)].append(number)
            self._members[sequence] = members
        key = key_of(sequence.frames[index])
        return key, self._members[sequence][key]

    def _shared_picture(
        self, sequence: FrameSequence, key: _Key, members: Sequence[int]
    ) -> NDArray[np.bool_] | None:
        """Find the outline that all frames of a video, or of a folder and size, show together."""
        if key not in self._pictures:
            shown = []
            for member in spread(members, _FRAMES_FOR_AN_OUTLINE):
                with suppress(InputError):  # that one is damaged
                    shown.append(sequence.read(member))
            if not shown:
                raise InputError(
                    f"The outline of the picture in {key[0]} is not known, as none of the frames "
                    "tried can be read; repair it, or leave it out."
                )
            self._pictures[key] = find_picture(_without_pages(shown))
        return self._pictures[key]


def _without_pages(images: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    """Leave out those few that light up most of what is border in the others.

    A patient's form and a page without a signal do. Text in the border would stay for their sake.
    """
    outlines = [find_picture([image]) for image in images]
    found = [outline for outline in outlines if outline is not None]
    if not found:
        return list(images)
    enough = min(len(found), max(_FEWEST_OF_A_LAYOUT, _SHARE_OF_A_LAYOUT * len(found)))
    border = np.sum(found, axis=0) < enough
    return [
        image
        for image, outline in zip(images, outlines, strict=True)
        if outline is None or 2 * (outline & border).sum() <= border.sum()
    ]


def parse_box(text: str) -> Box:
    """Read a box from ``top,left,bottom,right``.

    Raises
    ------
    InputError
        If it is anything else, or empty.
    """
    try:
        top, left, bottom, right = (int(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(
            f'"{text}" is no box; give top,left,bottom,right in pixels, such as 0,0,40,200.'
        ) from error
    if not (0 <= top < bottom and 0 <= left < right):
        raise InputError(f'The box "{text}" is empty; top and left come first.')
    return Box(top, left, bottom, right)
