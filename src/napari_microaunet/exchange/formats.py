"""The table of formats: a new one is one module and one line here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_microaunet.errors import InputError
from napari_microaunet.exchange.coco import Coco
from napari_microaunet.exchange.cvat import Cvat
from napari_microaunet.exchange.label_studio import LabelStudio
from napari_microaunet.exchange.layouts import Cvc, Kvasir
from napari_microaunet.exchange.png import BinaryPng, LabelPng
from napari_microaunet.exchange.stacks import ImageJTiff, Nifti, OmeTiff
from napari_microaunet.exchange.voc import Voc
from napari_microaunet.exchange.yolo import Yolo

if TYPE_CHECKING:
    from napari_microaunet.exchange.base import Format

FORMATS: tuple[Format, ...] = (
    BinaryPng(),
    LabelPng(),
    Kvasir(),
    Cvc(),
    Coco(),
    Yolo(),
    Voc(),
    Cvat(),
    LabelStudio(),
    ImageJTiff(),
    OmeTiff(),
    Nifti(),
)


def find_format(key: str) -> Format:
    """Find a format by what it is called on the command line.

    Raises
    ------
    InputError
        If there is none.
    """
    for one in FORMATS:
        if one.key == key:
            return one
    raise InputError(f"There is no format {key!r}; choose {', '.join(one.key for one in FORMATS)}.")
