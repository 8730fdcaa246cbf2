"""The layouts of Kvasir-SEG and CVC-ClinicDB: a folder of frames, one of black and white masks.

Frames lie in no subfolders there, so names are flat (`flat_name`). Masks are PNG, never JPEG, whose
edges turn gray.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from napari_microaunet.exchange.base import POLYP, Format, ImportedMask, Loss
from napari_microaunet.exchange.frame_files import store_frame, suffix_if_copied
from napari_microaunet.exchange.json_files import write_json
from napari_microaunet.exchange.places import flat_name, folder_of, target_file
from napari_microaunet.exchange.png import read_mask_files, write_binary
from napari_microaunet.exchange.regions import parts_of
from napari_microaunet.frames.masks import IGNORE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from napari_microaunet.exchange.base import Record
    from napari_microaunet.exchange.labelled import LabelledFrame

    Mask = NDArray[np.uint8]

# Spelt so by the authors of Kvasir-SEG.
_BOXES = "kavsir_bboxes.json"


class _Layout(Format):
    """A folder of frames and a folder of masks.

    Attributes
    ----------
    images, masks : str
        The two folders.
    """

    loses = (Loss.IGNORE, Loss.NUMBERS)
    is_flat = True
    images: ClassVar[str]
    masks: ClassVar[str]

    def files(self, frame: LabelledFrame) -> list[str]:
        name = flat_name(frame.name)
        suffix = suffix_if_copied(frame) or ".png"
        return [f"{self.images}/{name}{suffix}", f"{self.masks}/{name}.png"]

    def write(self, folder: Path, frame: LabelledFrame, mask: Mask) -> Record:
        name = flat_name(frame.name)
        store_frame(frame, folder, f"{self.images}/{name}")
        write_binary(target_file(folder, f"{self.masks}/{name}.png"), mask)
        return {}

    def read(self, path: Path) -> Iterator[ImportedMask]:
        return read_mask_files(folder_of(path, self.masks))


class Kvasir(_Layout):
    """The layout of Kvasir-SEG, with the boxes of the polyps."""

    key = "kvasir"
    title = "Kvasir-SEG layout"
    images = "images"
    masks = "masks"

    def summary_files(self, frames: Sequence[LabelledFrame]) -> list[str]:  # noqa: ARG002
        return [_BOXES]

    def write(self, folder: Path, frame: LabelledFrame, mask: Mask) -> Record:
        super().write(folder, frame, mask)
        boxes = [
            {
                "label": POLYP,
                "xmin": part.left,
                "ymin": part.top,
                "xmax": part.left + part.region.shape[1],
                "ymax": part.top + part.region.shape[0],
            }
            for part in parts_of(mask)
            if part.label != IGNORE
        ]
        size = {"height": frame.height, "width": frame.width}
        return {flat_name(frame.name): size | {"bbox": boxes}}

    def finish(
        self,
        folder: Path,
        frames: Sequence[LabelledFrame],  # noqa: ARG002
        records: Callable[[], Iterator[Record]],
        still_wanted: Callable[[], None],
    ) -> None:
        boxes: Record = {}
        for record in records():
            still_wanted()
            boxes |= record
        write_json(folder / _BOXES, boxes)


class Cvc(_Layout):
    """The layout of CVC-ClinicDB."""

    key = "cvc"
    title = "CVC-ClinicDB layout"
    images = "Original"
    masks = "Ground Truth"
