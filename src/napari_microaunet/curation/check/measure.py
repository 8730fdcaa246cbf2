"""What is measured of every frame of a dataset, in one pass, for all checks."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from scipy import ndimage

from napari_microaunet.curation.looks import Glance, glance_at
from napari_microaunet.editing.labels import boxes_of, parts_of, polyps_in
from napari_microaunet.errors import InputError
from napari_microaunet.frames.folder import ImageFiles
from napari_microaunet.frames.masks import IGNORE, read_mask_values
from napari_microaunet.frames.sequence import UnreadableError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_microaunet.curation.dataset import CuratedDataset
    from napari_microaunet.curation.manifest import FrameRecord
    from napari_microaunet.frames import FieldOfView

# Colour and sharpness are measured at one side length, or large frames would count as blurred.
_SIDE = 256


@dataclass(frozen=True, eq=False)
class Picture:
    """What is measured of a frame's picture.

    Attributes
    ----------
    height, width : int
        In pixels.
    digest : str
        SHA-256 of the decoded pixels, in hexadecimal.
    glance : Glance
        What it is compared by.
    colour : float64 array, shape (3,)
        Mean red, green and blue of the field of view, 0..255.
    sharpness : float
        Standard deviation of the Laplacian of the brightness, per gray level of contrast.
    """

    height: int
    width: int
    digest: str
    glance: Glance
    colour: NDArray[np.float64]
    sharpness: float


@dataclass(frozen=True, eq=False)
class Mask:
    """What is measured of a frame's mask.

    Attributes
    ----------
    height, width : int
        In pixels.
    polyp_pixels, ignored_pixels : int
        What it comes to.
    gray_pixels : int
        Pixels of the file that are neither labels nor 0 nor 255.
    regions : int array, shape (n,)
        Pixels of each connected region of polyp.
    at_edge : bool
        Whether a polyp touches the edge of the field of view or of the frame.
    outside_pixels : int
        Polyp pixels outside the field of view.
    """

    height: int
    width: int
    polyp_pixels: int
    ignored_pixels: int
    gray_pixels: int
    regions: NDArray[np.int64]
    at_edge: bool
    outside_pixels: int

    @property
    def ignored_throughout(self) -> bool:
        """Whether it says nothing of the frame."""
        return self.ignored_pixels == self.height * self.width


@dataclass(frozen=True, eq=False)
class FrameFacts:
    """All that is measured of one frame.

    Attributes
    ----------
    record : FrameRecord
        What the manifest says.
    picture : Picture or None
        None where it cannot be read.
    mask : Mask or None
        None where there is none, or where it cannot be read.
    problems : tuple of str
        What cannot be read, and why.
    changed : tuple of str
        Files whose hash is not that of the manifest.
    """

    record: FrameRecord
    picture: Picture | None
    mask: Mask | None
    problems: tuple[str, ...]
    changed: tuple[str, ...]


def measure(
    dataset: CuratedDataset,
    progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> list[FrameFacts]:
    """Measure all frames of a dataset, in order.

    Parameters
    ----------
    dataset : CuratedDataset
    progress : callable, optional
        Told ``(done, total)`` in the calling thread.
    cancelled : callable, optional
        Asked after every frame.

    Raises
    ------
    CancelledError
        If `cancelled` says so.
    """
    one_file = not isinstance(dataset.sequence, ImageFiles)
    # More threads would overtake one another in a video and make it seek.
    pool = ThreadPoolExecutor(1 if one_file else os.cpu_count(), "measure")
    facts = []
    try:
        count = len(dataset.frames)
        for one in pool.map(lambda index: _measure_frame(dataset, index), range(count)):
            if cancelled is not None and cancelled():
                raise CancelledError
            facts.append(one)
            if progress is not None:
                progress(len(facts), count)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return facts


def _measure_frame(dataset: CuratedDataset, index: int) -> FrameFacts:
    record = dataset.frames[index]
    problems = []
    picture = mask = None
    field = dataset.field_of_view(index)
    try:
        picture = _measure_picture(dataset.read(index), field)
    except InputError as error:
        problems.append(str(error))
    file = _mask_file(dataset, index)
    if file is not None:
        try:
            mask = _measure_mask(*read_mask_values(file), field)
        except UnreadableError as error:
            problems.append(f"The mask of frame {record.name} ({file}) cannot be read: {error}.")
    files = {dataset.sequence.frames[index].source: record.image_sha256}
    if file is not None:
        files[file] = record.mask_sha256
    changed = [path.name for path, digest in files.items() if _differs(path, digest)]
    return FrameFacts(record, picture, mask, tuple(problems), tuple(changed))


def _mask_file(dataset: CuratedDataset, index: int) -> Path | None:
    sequence = dataset.sequence
    return sequence.mask_files[index] if isinstance(sequence, ImageFiles) else None


def _differs(path: Path, digest: str | None) -> bool:
    if digest is None:
        return False
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() != digest
    except OSError:  # which is a problem of its own
        return False


def _measure_picture(image: NDArray[np.uint8], field: FieldOfView) -> Picture:
    top, left, bottom, right = field
    inside = image[top:bottom, left:right]
    small = Image.fromarray(inside).resize((_SIDE, _SIDE), Image.Resampling.BOX)
    gray = np.asarray(small.convert("L"), np.float64)
    contrast = max(gray.std(), 1.0)
    return Picture(
        image.shape[0],
        image.shape[1],
        hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest(),
        glance_at(image, field),
        np.asarray(small).reshape(-1, 3).mean(axis=0),
        float(ndimage.laplace(gray).std() / contrast),
    )


def _measure_mask(values: NDArray[np.uint8], are_labels: bool, field: FieldOfView) -> Mask:
    if are_labels:
        polyp, gray = polyps_in(values), 0
    else:
        polyp = values > 127
        gray = int(np.count_nonzero((values != 0) & (values != 255)))
    labels = values if are_labels else polyp.astype(np.uint8)
    parts = [parts_of(labels[box] == label)[1] for label, box in boxes_of(labels, None)]
    top, left, bottom, right = field
    inside = polyp[top:bottom, left:right]
    edges = (inside[:1], inside[-1:], inside[:, :1], inside[:, -1:])
    return Mask(
        height=values.shape[0],
        width=values.shape[1],
        polyp_pixels=int(np.count_nonzero(polyp)),
        ignored_pixels=int(np.count_nonzero(values == IGNORE)) if are_labels else 0,
        gray_pixels=gray,
        regions=np.concatenate([np.zeros(0, np.int64), *parts]),
        at_edge=any(edge.any() for edge in edges),
        outside_pixels=int(np.count_nonzero(polyp) - np.count_nonzero(inside)),
    )
