"""Videos: any frame by its number, exactly the one that decoding from the start would give."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from itertools import chain, dropwhile
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from napari_microaunet.errors import InputError
from napari_microaunet.frames.images import check_sides
from napari_microaunet.frames.sequence import Frame, FrameSequence, UnreadableError, unicode_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from av import Packet, VideoFrame
    from av.container import InputContainer
    from av.video.reformatter import VideoReformatter
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm"})

_MOST_TRIED = 5  # first frames and key frames that may be damaged before a video is refused
# The window, its read-ahead and a prediction each read on without losing their place.
_MOST_DECODERS = 3
# Decoded frames that a decoder keeps, so that stepping back does not decode from the last key
# frame each time: 20 of full HD.
_KEPT_BYTES = 64 * 2**20
# Full HD decodes many times faster than it is looked at with these; each holds some frames.
_DECODER_THREADS = 4
# Decoding on over so many frames costs less than a seek, which has to fill the decoder first.
_SEEK_COST = 8


@dataclass(frozen=True)
class _Index:
    """Where the frames of a video are; they are numbered in the order they are shown.

    Attributes
    ----------
    count : int
        How many there are.
    numbers : dict of int to int, or None
        Number of the frame that is shown at a time (in units of the stream's time base). None
        where the container does not tell those times (AVI with B-frames): frames have then
        been counted in a pass over the file, and are counted again from each key frame.
    key_frames : tuple of int
        Numbers of the frames that decoding can start from, ascending.
    key_times : tuple of int
        Where to seek for each of them.
    """

    count: int
    numbers: dict[int, int] | None
    key_frames: tuple[int, ...]
    key_times: tuple[int, ...]

    def key_before(self, number: int) -> int:
        """Position in ``key_frames`` of the last one up to a frame, -1 if there is none."""
        return bisect_right(self.key_frames, number) - 1


class Video(FrameSequence):
    """The frames of a video file.

    Parameters
    ----------
    path : Path
        The file.

    Raises
    ------
    InputError
        If it holds no video that can be decoded.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._index = _read_index(path)
            first = _Decoder(path, self._index)
            height, width = _first_readable(first, self._index).shape[:2]
        except UnreadableError as error:
            raise InputError(
                f"{path} cannot be used as a video: {error}; "
                "convert it to MP4 with H.264, or to a folder of images."
            ) from error
        self._decoders = [first]
        self._choosing = Lock()
        stem = unicode_name(path.stem)
        names = (f"{stem}_{number:06d}" for number in range(self._index.count))
        super().__init__(path, stem, [Frame(name, path, height, width) for name in names])

    def _decode(self, index: int) -> NDArray[np.uint8]:
        with self._choosing:
            decoder = self._nearest(index)
        return decoder.read(index)

    def _samples(self, members: Sequence[int]) -> Sequence[int]:
        # No other frames have to be decoded for a key frame.
        keys = self._index.key_frames
        wanted = super()._samples(members)
        if not keys:
            return wanted
        return sorted({keys[max(0, self._index.key_before(number))] for number in wanted})

    def _nearest(self, number: int) -> _Decoder:
        """Choose the decoder that comes to a frame without a seek, or the longest unused one."""
        near = (decoder for decoder in self._decoders if decoder.is_near(number))
        decoder = next(near, None)
        if decoder is None and len(self._decoders) < _MOST_DECODERS:
            decoder = _Decoder(self.path, self._index)
        elif decoder is None:
            decoder = self._decoders.pop(0)
        else:
            self._decoders.remove(decoder)
        self._decoders.append(decoder)
        decoder.goal = number
        return decoder


def _first_readable(decoder: _Decoder, index: _Index) -> NDArray[np.uint8]:
    """Return a frame that tells the size of all; the first ones may be damaged."""
    few = sorted({0, *range(min(_MOST_TRIED, index.count)), *index.key_frames[:_MOST_TRIED]})
    for number in few[:-1]:
        try:
            return decoder.read(number)
        except UnreadableError:
            continue
    return decoder.read(few[-1])


class _Decoder:
    """One open file with its place in it. Threads take turns.

    Attributes
    ----------
    goal : int
        Number of the frame that it was last sent for; its neighbours will be kept as well.
    """

    _coming: Iterator[tuple[int, VideoFrame]]

    def __init__(self, path: Path, index: _Index) -> None:
        from av.video.reformatter import VideoReformatter

        self._path = path
        self._index = index
        self._lock = Lock()
        self._kept: OrderedDict[int, VideoFrame] = OrderedDict()
        # One for all frames: each has threads of its own.
        self._reformatter = VideoReformatter()
        self.goal = 0
        self._restart()

    def is_near(self, number: int) -> bool:
        """Tell whether a frame can be had without a seek, or will after the reads that wait."""
        is_beside = abs(number - self.goal) <= _SEEK_COST
        return is_beside or number in self._kept or self._comes_up(number)

    def read(self, number: int) -> NDArray[np.uint8]:
        """Return a frame as uint8 (height, width, 3), or raise `UnreadableError`."""
        with self._lock:
            return _rgb(self._find(number), self._reformatter)

    def _find(self, number: int) -> VideoFrame:
        if number not in self._kept and self._comes_up(number):
            self._advance(number)
        if number in self._kept:
            return self._kept[number]
        for key in range(self._index.key_before(number), -2, -1):
            self._seek(key)
            first = self._advance(number)
            if number in self._kept:
                return self._kept[number]
            # Some containers seek a little too far; only then does an earlier key frame help.
            if first is not None and first <= number:
                break
        raise UnreadableError("the video is damaged there")

    def _comes_up(self, number: int) -> bool:
        """Tell whether decoding on leads to a frame sooner than a seek."""
        key = self._index.key_before(number)
        from_key = number - self._index.key_frames[key] if key >= 0 else number
        return 0 <= number - self._next <= from_key + _SEEK_COST

    def _advance(self, number: int) -> int | None:
        """Decode up to a frame and keep what comes; return the number of the first."""
        first = None
        for shown, frame in self._coming:
            first = shown if first is None else first
            self._next = shown + 1
            self._kept[shown] = frame
            size = sum(plane.buffer_size for plane in frame.planes)
            while len(self._kept) > max(1, _KEPT_BYTES // size):
                self._kept.popitem(last=False)
            if shown >= number:
                break
        return first

    def _seek(self, key: int) -> None:
        """Go to a key frame, or for -1 to the start of the file."""
        if key < 0:
            self._restart()
            return
        import av

        try:
            self._container.seek(self._index.key_times[key], stream=self._stream)
        except av.FFmpegError:  # a file that can be read from its start alone
            self._coming = iter(())
        else:
            self._coming = self._after_seek(key)
        self._next = self._index.key_frames[key]

    def _restart(self) -> None:
        self._container, self._stream = _open(self._path)
        self._coming = self._numbered(_decoded(_packets(self._container, self._stream)), 0)
        self._next = 0

    def _after_seek(self, key: int) -> Iterator[tuple[int, VideoFrame]]:
        packets = _packets(self._container, self._stream)
        landing = next(packets, None)
        if landing is None:  # the drive is gone, or the file is cut off there
            return
        frames = _decoded(chain((landing,), packets))
        if self._index.numbers is None:
            if landing.dts != self._index.key_times[key]:
                return
            frames = dropwhile(lambda frame: not frame.key_frame, frames)
        elif landing.pts is not None:
            # What is shown before the key frame refers to frames that were skipped.
            frames = dropwhile(partial(_is_before, landing.pts), frames)
        yield from self._numbered(frames, self._index.key_frames[key])

    def _numbered(
        self, frames: Iterator[VideoFrame], start: int
    ) -> Iterator[tuple[int, VideoFrame]]:
        numbers = self._index.numbers
        if numbers is None:
            return enumerate(frames, start)
        return ((numbers[frame.pts], frame) for frame in frames if frame.pts in numbers)


def _open(path: Path) -> tuple[InputContainer, VideoStream]:
    """Open a file with its main picture stream."""
    import av
    from av.video.stream import VideoStream

    try:
        container = av.open(str(path), metadata_errors="replace")
    except av.FFmpegError as error:
        raise UnreadableError(f"it is damaged or no video ({error.strerror})") from error
    stream = container.streams.best("video")
    if not isinstance(stream, VideoStream):
        raise UnreadableError("it holds no pictures")
    if stream.codec_context is None:
        raise UnreadableError("its codec is not supported")
    check_sides(stream.codec_context.width, stream.codec_context.height)
    stream.thread_type = "AUTO"
    stream.codec_context.thread_count = _DECODER_THREADS
    return container, stream


def _read_index(path: Path) -> _Index:
    container, stream = _open(path)
    with container:
        packets = [p for p in _packets(container, stream) if p.size and not p.is_discard]
        # AVI keeps no times. Where frames are not stored in the order they are shown, those
        # that FFmpeg makes up instead are wrong.
        guessed = container.format.name == "avi" and stream.codec_context.has_b_frames
    times = {packet.pts for packet in packets if packet.pts is not None}
    keys = [packet for packet in packets if packet.is_keyframe]
    if guessed or len(times) < len(packets):
        return _count_frames(path, [packet.dts for packet in keys if packet.dts is not None])
    # What is shown before the first key frame cannot be decoded.
    first = keys[0].pts if keys else None
    shown = sorted(time for time in times if first is None or time >= first)
    numbers = {time: number for number, time in enumerate(shown)}
    if not numbers:
        raise UnreadableError("it holds no frames")
    key_times = sorted(packet.pts for packet in keys if packet.pts in numbers)
    return _Index(
        len(numbers), numbers, tuple(numbers[time] for time in key_times), tuple(key_times)
    )


def _count_frames(path: Path, key_times: list[int]) -> _Index:
    """Decode a file without times once, to number its frames."""
    count, key_frames = 0, []
    container, stream = _open(path)
    with container:
        for frame in _decoded(_packets(container, stream)):
            if frame.key_frame:
                key_frames.append(count)
            count += 1
    if count == 0:
        raise UnreadableError("none of its frames can be decoded")
    if len(key_frames) != len(key_times):
        # It is not known where to seek for which: always decode from the start.
        key_frames, key_times = [], []
    return _Index(count, None, tuple(key_frames), tuple(key_times))


def _packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
    """Yield the packets of a stream up to its end, or to where the file is damaged.

    The last one is empty and makes the decoder hand out what it holds back.
    """
    import av

    try:
        yield from container.demux(stream)
    except av.FFmpegError:
        return


def _decoded(packets: Iterable[Packet[VideoStream]]) -> Iterator[VideoFrame]:
    """Decode packets and leave out the ones that are damaged."""
    import av

    for packet in packets:
        try:
            yield from packet.decode()
        except av.FFmpegError:
            continue


def _is_before(time: int, frame: VideoFrame) -> bool:
    return frame.pts is None or frame.pts < time


def _rgb(frame: VideoFrame, reformatter: VideoReformatter) -> NDArray[np.uint8]:
    image = reformatter.reformat(frame, format="rgb24").to_ndarray()
    # Both count turns counter-clockwise; a recorder that was held upright asks for them.
    return np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90)))
