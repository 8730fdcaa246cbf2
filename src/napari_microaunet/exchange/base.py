"""What every format is asked to do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from scipy import ndimage

from napari_microaunet.frames.masks import IGNORE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_microaunet.exchange.labelled import LabelledFrame
    from napari_microaunet.exchange.regions import Part

    Mask = NDArray[np.uint8]
    Record = dict[str, Any]
    """What a format wants to know of a frame again when all are written; goes into JSON."""

SPLIT_NAMES = {"training": "train", "validation": "val", "test": "test"}
"""Splits as COCO, YOLO and Pascal VOC call them."""

POLYP = "polyp"
IGNORED = "ignore"
"""The two classes, where a format has classes."""

SCRATCH = ".scratch"
"""Folder of a partial export for what `Format.write` leaves to `Format.finish`."""


class Loss(Enum):
    """Something in masks that a format cannot keep; the value says what becomes of it."""

    IGNORE = "regions to ignore become background"
    NUMBERS = "polyps lose their numbers, and those that touch become one"
    GAPS = "numbers of polyps that have gaps become 1..n"
    PARTS = "parts of a polyp become polyps of their own"
    HOLES = "holes in polyps are filled"

    def is_in(self, parts: Sequence[Part]) -> bool:
        """Tell whether a mask, taken apart, has it."""
        polyps = [part.region for part in parts if part.label != IGNORE]
        if self is Loss.IGNORE:
            return len(polyps) < len(parts)
        if self is Loss.NUMBERS:
            return len(polyps) > 1
        if self is Loss.GAPS:
            numbers = [part.label for part in parts if part.label != IGNORE]
            return numbers != [*range(1, len(numbers) + 1)]
        if self is Loss.PARTS:
            return any(ndimage.label(region, np.ones((3, 3)))[1] > 1 for region in polyps)
        return any((ndimage.binary_fill_holes(region) != region).any() for region in polyps)


@dataclass(frozen=True)
class ImportedMask:
    """A mask as a file of labels gives it.

    Attributes
    ----------
    name : str or int
        The frame, as the file calls it; its number from 0 in files without names.
    file : Path
        The file, for messages.
    size : (int, int) or None
        Height and width that the file states; None if it does not.
    read : callable
        Gives the mask for a frame of that height and width, uint8 array of shape
        (height, width): 0 background, 1..n polyps, 255 ignore; or raises `InputError`.
    is_file_name : bool
        Whether the name is that of the frame's image file, with its ending.
    other_names : tuple of str
        What the frame is called where another folder was opened; tried in this order. Of several
        files that are meant, the one counts that lies where the last name says.
    """

    name: str | int
    file: Path
    size: tuple[int, int] | None
    read: Callable[[tuple[int, int]], Mask]
    is_file_name: bool = False
    other_names: tuple[str, ...] = ()


class Format(ABC):
    """How masks are written for other tools, and read from them.

    Attributes
    ----------
    key : str
        What it is called on the command line.
    title : str
        What it is called in the window.
    loses : tuple of Loss
        What it cannot keep.
    remark : str
        What else is to be known, a sentence; or empty.
    divides : bool
        Whether what is written depends on the splits.
    is_flat : bool
        Whether it has no subfolders for frames, which are called by their `flat_name`.
    """

    key: ClassVar[str]
    title: ClassVar[str]
    loses: tuple[Loss, ...] = ()
    remark: ClassVar[str] = ""
    divides: ClassVar[bool] = False
    is_flat: ClassVar[bool] = False

    @abstractmethod
    def files(self, frame: LabelledFrame) -> list[str]:
        """List what is written for a frame, relative to the folder of the export."""

    def summary_files(self, frames: Sequence[LabelledFrame]) -> list[str]:  # noqa: ARG002
        """List what is written once for all frames, likewise."""
        return []

    def check(self, frames: Sequence[LabelledFrame]) -> None:  # noqa: B027
        """Refuse frames that cannot be written together; most formats take all.

        Raises
        ------
        InputError
            If they cannot.
        """

    @abstractmethod
    def write(self, folder: Path, frame: LabelledFrame, mask: Mask) -> Record:
        """Write the files of a frame; called from several threads.

        Raises
        ------
        InputError
            If the frame cannot be read or does not fit the format.
        """

    def finish(  # noqa: B027 - most formats have nothing to do
        self,
        folder: Path,
        frames: Sequence[LabelledFrame],
        records: Callable[[], Iterator[Record]],
        still_wanted: Callable[[], None],
    ) -> None:
        """Write the files of `summary_files`.

        Parameters
        ----------
        folder : Path
            The export.
        frames : sequence of LabelledFrame
            Those that were written.
        records : callable
            Gives what `write` has returned, in the order of the frames; may be called again.
        still_wanted : callable
            Raises where the export was cancelled; called now and then.
        """

    @abstractmethod
    def read(self, path: Path) -> Iterator[ImportedMask]:
        """Read labels.

        Parameters
        ----------
        path : Path
            An export, or a file of it.

        Yields
        ------
        ImportedMask
            One for each frame.

        Raises
        ------
        InputError
            If there is nothing that can be read.
        """
