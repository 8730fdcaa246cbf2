"""Pre-labels as files: a mask per frame, an overlay per frame if asked for, one table.

::

    OUT/masks/NAME.png       0 and 255, or the polyps' numbers; native size
    OUT/overlays/NAME.jpg    the frame with its polyps outlined
    OUT/confidence.csv       one line per frame, unreadable ones included

Each file appears whole or not at all. The table is written last, also when the
run is stopped: it lists what was done.
"""

from __future__ import annotations

import csv
import io
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

import numpy as np
from PIL import Image
from scipy import ndimage

from napari_microaunet.atomic import replacing
from napari_microaunet.errors import InputError
from napari_microaunet.frames.masks import write_mask_file
from napari_microaunet.frames.sequence import check_beside_frames, unicode_name
from napari_microaunet.prelabel.confidence import confidence
from napari_microaunet.prelabel.masks import MaskSettings, mask_from

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from numpy.typing import NDArray

    from napari_microaunet.frames.sequence import FrameSequence
    from napari_microaunet.prelabel.predictor import Prediction, Predictor, TaskRunner

# Green is what mucosa never is.
_OUTLINE = (64, 255, 96)
# An outline this share of the frame's longer side shows at any zoom.
_OUTLINE_SHARE = 1 / 400


@dataclass(frozen=True)
class FrameResult:
    """What was done for one frame; one line of the table.

    Attributes
    ----------
    name : str
        The frame.
    confidence : float or None
        How far the mask can be trusted, in [0, 1].
    polyps : int
        How many polyps the mask holds.
    area : int
        Polyp pixels at native size.
    problem : str
        Why there is no mask; empty when there is one.
    """

    name: str
    confidence: float | None
    polyps: int
    area: int
    problem: str


@dataclass(frozen=True)
class OutputOptions:
    """What is written, and how.

    Attributes
    ----------
    overlay : bool
        Whether overlays are written.
    numbered : bool
        Whether masks hold the polyps' numbers 1..n instead of 255.
    overwrite : bool
        Whether files of an earlier run may be replaced.
    """

    overlay: bool = False
    numbered: bool = False
    overwrite: bool = False


def write_prelabels(
    predictor: TaskRunner,
    sequence: FrameSequence,
    out: Path,
    settings: MaskSettings,
    options: OutputOptions,
    *,
    progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> list[FrameResult]:
    """Pre-label a sequence into a folder.

    Parameters
    ----------
    predictor : TaskRunner
        The model: a `Predictor`, or a `ClusterPredictor`, whose workers write the masks.
    sequence : FrameSequence
        The frames; they are only read.
    out : Path
        The folder; made if it is missing.
    settings : MaskSettings
        How probabilities become masks.
    options : OutputOptions
        What is written.
    progress, cancelled : callable, optional
        As for `Predictor.predict`.

    Returns
    -------
    list of FrameResult
        One per frame that was done, in the order of the sequence.

    Raises
    ------
    InputError
        If `out` holds the frames, a name leads out of it, or files are there
        that may not be replaced.
    OSError
        If a file cannot be written.
    """
    targets = _Targets(sequence, out.absolute(), options)
    targets.check()
    out.mkdir(parents=True, exist_ok=True)
    done: dict[int, FrameResult] = {}
    sign = out.absolute() / f".{uuid4().hex}.part"
    sign.touch()
    task = partial(_write_frames, sign=sign, settings=settings, options=options)
    try:
        predictor.carry_out(
            task, sequence, range(len(sequence)), done, progress=progress, cancelled=cancelled
        )
        targets.remove_parts()
    finally:
        sign.unlink(missing_ok=True)
        results = [done[index] for index in sorted(done)]
        if results:
            with _new_file(targets.table) as file:
                file.write(_table(results))
    return results


def _write_frames(
    predictor: Predictor,
    sequence: FrameSequence,
    indices: Sequence[int],
    results: dict[int, FrameResult],
    *,
    sign: Path,
    settings: MaskSettings,
    options: OutputOptions,
    progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> None:
    """Write the files of some frames beside a sign that the run left there; a `FrameTask`."""
    if not sign.is_file():  # on another machine the path may lead to another folder
        raise InputError(
            f"{sign.parent} is not there, or is another folder than where the command was given: "
            "choose one that all machines share."
        )
    targets = _Targets(sequence, sign.parent, options)
    underway: deque[tuple[int, Future[FrameResult]]] = deque()
    writers = os.cpu_count() or 1
    predictions = predictor.predict(sequence, indices, progress=progress, cancelled=cancelled)
    try:
        with closing(predictions), ThreadPoolExecutor(writers, "write") as pool:
            for prediction in predictions:
                future = pool.submit(targets.write, prediction, settings)
                underway.append((prediction.index, future))
                # Never far behind: what waits to be written lies in memory.
                if len(underway) == 2 * writers:
                    index, future = underway[0]
                    results[index] = future.result()
                    underway.popleft()  # not before: Ctrl+C may come while it is waited for
            for _, future in underway:
                future.result()
    finally:
        results.update((i, future.result()) for i, future in underway if _succeeded(future))


class _Targets:
    """Where the files of a sequence go."""

    def __init__(self, sequence: FrameSequence, out: Path, options: OutputOptions) -> None:
        self._sequence = sequence
        self._options = options
        self._out = out
        self.table = out / "confidence.csv"

    def check(self) -> None:
        """Refuse what must not be written to, before any work is done."""
        out, masks = self._out, (self._out / "masks").resolve()
        check_beside_frames(self._sequence, out)
        for frame in self._sequence.frames:
            if not (masks / frame.name).resolve().is_relative_to(masks):
                raise InputError(
                    f'The frame name "{frame.name}" leads out of {out}: rename the file.'
                )
            self._check_free(self._mask(frame.name))
            if self._options.overlay:
                self._check_free(self._overlay(frame.name))
        self._check_free(self.table)

    def write(self, prediction: Prediction, settings: MaskSettings) -> FrameResult:
        """Make and write the files of one frame."""
        name = self._sequence.frames[prediction.index].name
        if self._options.overwrite:
            # Where this run has none, an earlier run's would be taken for its own.
            for path in (self._mask(name), self._overlay(name)):
                path.unlink(missing_ok=True)
        if prediction.map is None:
            return FrameResult(name, None, 0, 0, prediction.problem or "")
        mask = mask_from(prediction.map, settings)
        if self._options.overlay:
            try:
                frame = self._sequence.read(prediction.index)
            except InputError as error:
                return FrameResult(name, None, 0, 0, str(error))
            with _new_file(self._overlay(name)) as file:
                Image.fromarray(outlined(frame, mask)).save(file, "JPEG", quality=90)
        path = self._mask(name)
        if self._options.numbered:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_mask_file(path, mask)
        else:
            with _new_file(path) as file:
                Image.fromarray(mask > 0).convert("L").save(file, "PNG", compress_level=3)
        trust = confidence(prediction.map, mask, settings.threshold)
        return FrameResult(name, trust, int(mask.max()), int(np.count_nonzero(mask)), "")

    def remove_parts(self) -> None:
        """Delete what a process left half written when it was killed; see `replacing`."""
        for pattern in (".*.part", "masks/**/.*.part", "overlays/**/.*.part"):
            for part in self._out.glob(pattern):
                part.unlink()

    # Not with_suffix: a name may hold a dot of its own.
    def _mask(self, name: str) -> Path:
        return self._out / "masks" / f"{name}.png"

    def _overlay(self, name: str) -> Path:
        return self._out / "overlays" / f"{name}.jpg"

    def _check_free(self, path: Path) -> None:
        if path.exists() and not self._options.overwrite:
            raise InputError(
                f"{path} is there already: choose another folder, "
                "or say that files may be replaced (--overwrite)."
            )


def outlined(frame: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Draw the outline of every polyp into a copy of a frame.

    Parameters
    ----------
    frame : uint8 array, shape (height, width, 3)
        RGB.
    mask : uint8 array, shape (height, width)
        0 for background.

    Returns
    -------
    uint8 array, shape (height, width, 3)
    """
    drawn = frame.copy()
    thickness = max(1, round(max(frame.shape) * _OUTLINE_SHARE))
    for number, box in enumerate(ndimage.find_objects(mask), start=1):
        if box is None:
            continue
        polyp = mask[box] == number
        inside = ndimage.binary_erosion(polyp, iterations=thickness)
        drawn[box][polyp & ~inside] = _OUTLINE
    return drawn


@contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing whole, in a folder that may not be there yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        yield file


def _succeeded(future: Future[FrameResult]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


def _table(results: list[FrameResult]) -> bytes:
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, [field.name for field in fields(FrameResult)])
    table.writeheader()
    for result in results:
        row = asdict(result) | {"problem": unicode_name(result.problem)}  # it may name a file
        if result.confidence is not None:
            row["confidence"] = f"{result.confidence:.4f}"
        table.writerow(row)
    return text.getvalue().encode()
