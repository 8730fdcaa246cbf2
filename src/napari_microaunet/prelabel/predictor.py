"""Runs a model over a sequence while frames ahead are decoded and results behind are used."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from math import ceil
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from napari_microaunet.errors import InputError
from napari_microaunet.prelabel.backends import open_backend
from napari_microaunet.prelabel.preprocessing import prepare
from napari_microaunet.prelabel.probability import ProbabilityMap, quantise

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from numpy.typing import NDArray

    from napari_microaunet.frames.field_of_view import FieldOfView
    from napari_microaunet.frames.sequence import FrameSequence
    from napari_microaunet.networks.library import Model

# How often a wait looks whether the caller has cancelled, in seconds.
_POLL = 0.05
# Axes of a batch (B, 3, h, w) along which it is mirrored, beside the batch as it is: left to right,
# upside down, both.
_FLIPS = ((), (3,), (2,), (2, 3))

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says about one frame of a sequence.

    Attributes
    ----------
    index : int
        The frame's place in the sequence.
    map : ProbabilityMap or None
        None when the frame could not be read.
    problem : str or None
        Why the frame could not be read.
    """

    index: int
    map: ProbabilityMap | None
    problem: str | None


class FrameTask(Protocol[Result]):
    """Something to be done with the predictions of frames, here or on another machine.

    Another machine gets it pickled: a function of a module, with its options bound by `partial`.
    """

    def __call__(
        self,
        predictor: Predictor,
        sequence: FrameSequence,
        indices: Sequence[int],
        results: dict[int, Result],
        *,
        progress: Callable[[int, int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> None:
        """Do it.

        Parameters
        ----------
        predictor : Predictor
            The model.
        sequence : FrameSequence
            Where the frames come from.
        indices : sequence of int
            Which of them.
        results : dict of int to anything
            To be filled by the frames' numbers, so that what was done is known however it ends.
        progress, cancelled : callable, optional
            As for `Predictor.predict`.
        """
        ...


class TaskRunner(Protocol):
    """A model with somebody to run it: a `Predictor` here, a `ClusterPredictor` elsewhere."""

    def carry_out(
        self,
        task: FrameTask[Result],
        sequence: FrameSequence,
        indices: Sequence[int],
        results: dict[int, Result],
        *,
        progress: Callable[[int, int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> None:
        """Do a task; parameters are those of `FrameTask`, results may come in any order."""
        ...


@dataclass(frozen=True, eq=False)
class _PreparedFrame:
    """A frame as the network wants it, and where it came from."""

    values: NDArray[np.float32]
    field: FieldOfView
    frame_shape: tuple[int, int]


class Predictor:
    """A model that is ready to pre-label frames.

    Parameters
    ----------
    model : Model
        From the model library.
    backend : {"auto", "onnx", "torch"}
        What runs it; see `open_backend`.
    device : str
        "auto", "cpu", "cuda", "cuda:1", "mps".
    batch : int, optional
        Frames per call of the network. By default what suits the backend: 1 on
        a CPU, where several calls at once use the cores better than a large
        batch, and 16 on a graphics card.
    mirror_images : {0, 1, 3}, optional
        Over how many mirror images beside the frame probabilities are averaged
        (test-time augmentation): none; left to right; upside down and both ways, too.
        Better by a little for twice or four times the work. By default what the
        model's card says.

    Raises
    ------
    InputError
        If the backend, the device, the batch or the number of mirror images cannot be used.
    """

    def __init__(
        self,
        model: Model,
        backend: str = "auto",
        device: str = "auto",
        batch: int | None = None,
        mirror_images: int | None = None,
    ) -> None:
        self.model = model
        self.backend = open_backend(model, backend, device)
        self.batch = self.backend.batch if batch is None else batch
        if self.batch < 1:
            raise InputError(f"The batch must hold at least one frame, not {batch}.")
        images = model.card.mirror_images if mirror_images is None else mirror_images
        if images not in (0, 1, 3):
            raise InputError(f"A frame has 1 or 3 mirror images, or 0 for none, not {images}.")
        self._flips = _FLIPS[: 1 + images]

    def carry_out(
        self,
        task: FrameTask[Result],
        sequence: FrameSequence,
        indices: Sequence[int],
        results: dict[int, Result],
        *,
        progress: Callable[[int, int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> None:
        """Do a task in this process; see `TaskRunner.carry_out`."""
        task(self, sequence, indices, results, progress=progress, cancelled=cancelled)

    def predict_frame(self, frame: NDArray[np.uint8], field: FieldOfView) -> ProbabilityMap:
        """Predict one frame, in the calling thread.

        Parameters
        ----------
        frame : uint8 array, shape (height, width, 3)
            RGB, native size.
        field : FieldOfView
            The box of it that shows the picture.

        Returns
        -------
        ProbabilityMap
        """
        return self._run([self._prepare(frame, field)])[0]

    def predict(
        self,
        sequence: FrameSequence,
        indices: Sequence[int] | None = None,
        *,
        progress: Callable[[int, int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Generator[Prediction]:
        """Predict frames one after the other, in the order asked for.

        Threads decode ahead and run the network while the caller uses the
        results; a fixed number of frames is in flight, whatever the length of
        the sequence. A frame that cannot be read gives a prediction with its
        problem and does not stop the rest.

        Parameters
        ----------
        sequence : FrameSequence
            Where the frames come from.
        indices : sequence of int, optional
            Which of them; all by default.
        progress : callable, optional
            Told ``(done, total)`` in the calling thread, before each prediction
            is handed over.
        cancelled : callable, optional
            Asked at least twenty times a second while waiting; the iterator
            ends when it says True. Closing the iterator has the same effect.

        Yields
        ------
        Prediction
        """
        order = range(len(sequence)) if indices is None else indices
        chunks = (order[start : start + self.batch] for start in range(0, len(order), self.batch))
        cores = os.cpu_count() or 1
        # Of a video, one thread reads while another resizes; more would overtake one another
        # and make it seek.
        one_file = len({sequence.frames[index].source for index in order}) == 1
        readers = min(2, cores) if one_file else cores
        most_in_flight = self.backend.simultaneous + ceil(2 * cores / self.batch)
        decoders = ThreadPoolExecutor(readers, "decode")
        runners = ThreadPoolExecutor(self.backend.simultaneous, "run")
        in_flight: deque[Future[list[Prediction]]] = deque()
        done = 0
        try:
            while True:
                for chunk in islice(chunks, most_in_flight - len(in_flight)):
                    frames = [decoders.submit(self._read, sequence, index) for index in chunk]
                    in_flight.append(runners.submit(self._predict_chunk, chunk, frames))
                if not in_flight:
                    return
                next_chunk = in_flight.popleft()
                while wait([next_chunk], timeout=_POLL).not_done:
                    if cancelled is not None and cancelled():
                        return
                for prediction in next_chunk.result():
                    if cancelled is not None and cancelled():
                        return
                    done += 1
                    if progress is not None:
                        progress(done, len(order))
                    yield prediction
        finally:
            # Not waiting: what a thread is in the middle of ends by itself, unseen.
            decoders.shutdown(wait=False, cancel_futures=True)
            runners.shutdown(wait=False, cancel_futures=True)

    def _read(self, sequence: FrameSequence, index: int) -> _PreparedFrame | str:
        """Decode and prepare one frame, or say why that is not possible."""
        try:
            return self._prepare(sequence.read(index), sequence.field_of_view(index))
        except (InputError, OSError) as error:
            return str(error)

    def _prepare(self, frame: NDArray[np.uint8], field: FieldOfView) -> _PreparedFrame:
        height, width = frame.shape[:2]
        return _PreparedFrame(prepare(frame, field, self.model.card), field, (height, width))

    def _predict_chunk(
        self, indices: Sequence[int], frames: Sequence[Future[_PreparedFrame | str]]
    ) -> list[Prediction]:
        """Wait for the frames of one batch and run the network on those that could be read."""
        outcomes = [frame.result() for frame in frames]
        maps = iter(self._run([frame for frame in outcomes if not isinstance(frame, str)]))
        predictions = []
        for index, outcome in zip(indices, outcomes, strict=True):
            if isinstance(outcome, str):
                predictions.append(Prediction(index, None, outcome))
            else:
                predictions.append(Prediction(index, next(maps), None))
        return predictions

    def _run(self, frames: Sequence[_PreparedFrame]) -> list[ProbabilityMap]:
        if not frames:
            return []
        batch = np.stack([frame.values for frame in frames])
        total = np.zeros((batch.shape[0], *batch.shape[2:]), np.float32)
        for axes in self._flips:
            mirrored = self.backend.run(np.ascontiguousarray(np.flip(batch, axes)))
            total += np.flip(mirrored, tuple(axis - 1 for axis in axes))
        return [
            ProbabilityMap(quantise(probabilities), frame.field, frame.frame_shape)
            for probabilities, frame in zip(total / len(self._flips), frames, strict=True)
        ]
