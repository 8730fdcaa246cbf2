"""Masks, maps and what is known of frames: in memory and, a moment later, on disk."""

from __future__ import annotations

import atexit
import errno
import time
from datetime import UTC, datetime
from threading import RLock
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from napari_microaunet.curation.session.announcements import Announcements
from napari_microaunet.curation.session.database import MapRow
from napari_microaunet.curation.session.folder import SessionFolder
from napari_microaunet.curation.session.places import (
    RecentSession,
    annotator_name,
    has_no_file,
    remember,
    session_folder_for,
)
from napari_microaunet.curation.session.review_steps import (
    MaskBefore,
    ReviewSteps,
    Step,
)
from napari_microaunet.curation.session.rows import (
    count_polyps,
    is_unmeasured,
    signature_of,
    state_of,
    status_of,
)
from napari_microaunet.curation.session.saver import Saver
from napari_microaunet.curation.session.states import (
    FrameStatus,
    KeptMap,
    MapRole,
    MaskOrigin,
)
from napari_microaunet.curation.session.writer import listening
from napari_microaunet.errors import InputError
from napari_microaunet.frames import FieldOfView
from napari_microaunet.frames.mask_chunks import (
    ChunkStore,
    MaskChunks,
    chunk_digest,
    decode_chunk,
    encode_chunk,
    to_chunk,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from zarr.core.buffer import Buffer

    from napari_microaunet.curation.session.chunk_files import ChunkFiles
    from napari_microaunet.curation.session.database import FrameRow
    from napari_microaunet.frames import FrameSequence

_FRAME_ON_SHOW = "frame on show"
_BY_MACHINE = (MaskOrigin.MODEL, MaskOrigin.PROPAGATED, MaskOrigin.FILE)


class KeptFrames:
    """Masks, maps and what is known of the frames of a sequence.

    Everything that changes it changes memory at once and is on disk within
    a second; nothing waits for the disk. Safe to use from any thread. Never read
    or write `chunks.array` in a callback.

    Parameters
    ----------
    sequence : FrameSequence
        The frames; they are only read.
    folder : Path, optional
        Where it lies; `session_folder_for` the sequence by default.
    is_stack : bool
        Whether the array of masks has an axis for frames.
    annotator : str, optional
        Who is at work; `annotator_name` by default.
    on_problem : callable, optional
        Told, in the thread that writes, `problem` whenever it changes.
    on_change : callable, optional
        Told the numbers of frames whose status has changed, in the thread that
        changed them or in the one that writes.

    Attributes
    ----------
    sequence : FrameSequence
        The frames.
    folder : Path
        Where it lies.
    annotator : str
        Who is at work.
    chunks : MaskChunks
        The masks. What is written to its Zarr array is a change by hand, unless
        that mask is known, as after an undo.
    notice : str or None
        Why the session is read-only; None if it is not.
    remarks : list of str
        What was noticed when it was opened, in sentences: how the frames differ
        from those when it was last open, masks that were damaged.

    Raises
    ------
    InputError
        If the folder is something else, or damaged, or cannot be made; it is
        left as it is.
    """

    def __init__(
        self,
        sequence: FrameSequence,
        folder: Path | None = None,
        *,
        is_stack: bool = True,
        annotator: str | None = None,
        on_problem: Callable[[str | None], None] | None = None,
        on_change: Callable[[Sequence[int]], None] | None = None,
    ) -> None:
        self.sequence = sequence
        self.folder = session_folder_for(sequence) if folder is None else folder
        self.annotator = annotator_name() if annotator is None else annotator
        self._lock = RLock()
        self._known: dict[int, dict[bytes, MaskOrigin]] = {}
        # What takes note of masks before they change, while a step of review is being made.
        self._step: Step | None = None
        self._steps = ReviewSteps()
        self._announcements = Announcements(on_change)
        self._folder = SessionFolder(self.folder, sequence, self.annotator)
        self.notice = self._folder.notice
        self.remarks = self._folder.remarks
        self._rows, self._maps = self._folder.rows, self._folder.maps
        self._settings = self._folder.settings
        self._statuses: list[FrameStatus | None] = [None] * len(self._rows)
        self.chunks = MaskChunks(sequence, is_stack, _Masks(self), self._folder.canvas_shape)
        self._saver = Saver(self._folder, self._lock, self._measure)
        if not self.read_only:
            self._saver.start(on_problem)
            self._log(None, "opened")
            self._count_anew()
            atexit.register(self.close)
            self._remember()

    # Opening and closing

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    @property
    def read_only(self) -> bool:
        """Whether nothing can be changed; `notice` says why."""
        return self.notice is not None

    @property
    def problem(self) -> str | None:
        """What is wrong with saving, in a sentence; None while all is well."""
        return self._saver.problem

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all is on disk; False if it is not, because of a `problem` or the time."""
        return self._saver.flush(timeout)

    def close(self) -> bool:
        """Save what is left and let others have the session; False if that was not possible.

        May be called twice. Nothing can be changed any more.
        """
        if self.read_only:
            return True
        atexit.unregister(self.close)
        self._log(None, "closed")
        self.notice = f"The session {self.folder} has been closed."
        saved = self._saver.stop()
        self._folder.close()
        self._remember()
        return saved

    def look_again(self) -> list[int]:
        """Take in what another window has saved since, where this one may only look.

        Costs next to nothing where nothing was saved.

        Returns
        -------
        list of int
            Numbers of the frames of which something else is known now; they
            have been announced.

        Raises
        ------
        InputError
            If the session cannot be read any more.
        """
        if self._folder.notice is None:
            # It is, or was, the one who may write.
            return []
        with self._lock:
            changed = self._folder.look_again()
            for index in changed:
                self._statuses[index] = None
        self._announcements.announce(changed)
        return changed

    def _remember(self) -> None:
        if has_no_file(self.sequence):
            return
        done = sum(state_of(row).is_decided for row in self._rows)
        path, name = self.sequence.path.absolute(), self.sequence.name
        entry = RecentSession(
            self.folder.absolute(), path, name, len(self._rows), done, datetime.now(UTC)
        )
        try:
            remember(entry)
        except OSError:
            # A list of what was open last is not worth a message.
            return

    # What is known

    @property
    def statuses(self) -> list[FrameStatus]:
        """What is known of every frame, in order; costs little."""
        with self._lock:
            return [
                self._status(index) if status is None else status
                for index, status in enumerate(self._statuses)
            ]

    def status(self, index: int) -> FrameStatus:
        """Tell what is known of a frame."""
        known = self._statuses[index]
        if known is not None:
            # The lock may be held for a while by who saves much.
            return known
        with self._lock:
            return self._statuses[index] or self._status(index)

    def origin(self, index: int) -> MaskOrigin:
        """Tell who made the mask of a frame, as it is now."""
        return self._rows[index].origin

    def _status(self, index: int) -> FrameStatus:
        status = self._statuses[index] = status_of(self._rows[index], index)
        return status

    # Masks and maps

    def put_mask(
        self, index: int, mask: Buffer | NDArray[np.uint8] | None, origin: MaskOrigin
    ) -> None:
        """Give a frame another mask.

        Parameters
        ----------
        index : int
            Number of the frame.
        mask : Buffer, uint8 array of shape (height, width), or None
            As `chunks` encodes it, or at native size; None for an empty one.
        origin : MaskOrigin
            Who made it.

        Raises
        ------
        ValueError
            If an array is not of the size of the frame.
        """
        if isinstance(mask, np.ndarray):
            frame = self.sequence.frames[index]
            if mask.shape != (frame.height, frame.width):
                raise ValueError(f"a mask of shape {mask.shape} does not fit frame {frame.name}")
            chunk = self.chunks.encode(mask)
        else:
            chunk = mask
        self._write_mask(index, chunk, origin)

    def set_origin(self, index: int, origin: MaskOrigin) -> None:
        """Say who made the mask that a frame has now, and has again after an undo."""
        with self._lock:
            self._check_writable()
            row = self._rows[index]
            if origin is row.origin:
                return
            if self._step is not None:
                self._step.note_mask(index, self._mask_before(index), signature_of(row))
            known = self._known.setdefault(index, {})
            # An undo may lead back beyond what was erased by hand, to where there was no mask yet.
            if origin is not MaskOrigin.HAND or known.get(row.digest) is not MaskOrigin.NONE:
                known[row.digest] = origin
            self._keep_start(row, origin, row.digest)
            row.origin = origin
            row.changed_pixels = None
            self._touch(index, f"mask: {origin.title}", files=self._folder.starts.waiting(row.slot))
        self._announcements.announce([index])

    def start(self, index: int) -> NDArray[np.uint8]:
        """Return the mask that the work by hand on a frame began with.

        Returns
        -------
        uint8 array, shape (height, width)
            The pre-label, the mask from a file, or an empty one, also where the
            one kept is damaged; the mask as it is where nothing was done by hand.
        """
        row = self._rows[index]
        if row.origin is not MaskOrigin.HAND:
            return self.chunks.mask(index)
        with self._lock:
            try:
                start = self._folder.starts.get(row.slot) if row.has_start else None
                return self.chunks.decode(index, None if start is None else to_chunk(start))
            except (OSError, RuntimeError, ValueError) as error:
                if isinstance(error, OSError) and error.errno != errno.EIO:
                    raise  # its drive is gone, and may come back
                if not self.read_only:
                    self._folder.drop_start(row)
                    self._saver.frame(index)
        return self.chunks.decode(index, None)

    def put_map(
        self,
        index: int,
        kept: KeptMap,
        role: MapRole = "model",
        confidence: float | None = None,
        threshold: float | None = None,
        is_taken: bool = True,
    ) -> None:
        """Keep what a model says of a frame.

        Parameters
        ----------
        index : int
            Number of the frame.
        kept : KeptMap
            Its probability map.
        role : {"model", "compared"}
            Which of the maps of the frame it is.
        confidence : float, optional
            How far a pre-label from it can be trusted, in [0, 1].
        threshold : float, optional
            What a pre-label from it counts as polyp, in [0, 1].
        is_taken : bool
            Whether the mask is made from it. A mask that stays keeps the model that it began with;
            where it began with none, the confidence is that of the map all the same.
        """
        height, width = kept.values.shape
        # A map without any probability has no chunk, as an empty mask has none.
        chunk = encode_chunk(kept.values, (height, width))
        with self._lock:
            self._check_writable()
            row, before = self._rows[index], self._maps.get((index, role))
            field = kept.field
            entry = MapRow(
                row.slot,
                role,
                height,
                width,
                *(field.top, field.left, field.bottom, field.right),
                kept.model,
                kept.card_sha256,
                chunk_digest(chunk),
            )
            if before is not None and (before.height, before.width) != (height, width):
                self._folder.map_files(before).put(row.slot, None)
            self._folder.map_files(entry).put(row.slot, None if chunk is None else chunk.to_bytes())
            self._maps[index, role] = entry
            self._saver.map(index, entry)
            if role == "model" and is_taken:
                row.model, row.threshold = kept.model, threshold
            if role == "model" and (is_taken or row.model is None):
                row.confidence = confidence
            self._touch(index, files=True, is_signed=False)
        self._announcements.announce([index])

    def map(self, index: int, role: MapRole = "model") -> KeptMap | None:
        """Return what a model said of a frame; None if there is nothing.

        Raises
        ------
        InputError
            If it cannot be read.
        """
        with self._lock:
            row = self._maps.get((index, role))
            if row is None:
                return None
            found = self._read(self._folder.map_files(row), row.slot) if row.digest else None
        chunk = None if found is None else to_chunk(found)
        if chunk_digest(chunk) != row.digest:
            # Killed between the two: the values are of another run than what is known of them.
            return None
        shape = row.height, row.width
        values = np.zeros(shape, np.uint8) if chunk is None else decode_chunk(chunk, shape)
        field = FieldOfView(row.field_top, row.field_left, row.field_bottom, row.field_right)
        return KeptMap(values, field, row.model, row.card_sha256)

    def has_map(self, index: int, role: MapRole = "model", model: str | None = None) -> bool:
        """Tell whether there is a map, of any model or of one, without reading it."""
        row = self._maps.get((index, role))
        return row is not None and model in (None, row.model)

    def set_confidence(self, index: int, confidence: float | None, threshold: float) -> None:
        """Say how far the pre-label of a frame can be trusted, at another threshold."""
        self._set_numbers(index, confidence=confidence, threshold=threshold)

    def set_disagreement(self, index: int, disagreement: float | None) -> None:
        """Say how far the two models differ about a frame."""
        self._set_numbers(index, disagreement=disagreement)

    def _set_numbers(self, index: int, **numbers: float | None) -> None:
        with self._lock:
            self._check_writable()
            row = self._rows[index]
            if all(getattr(row, name) == value for name, value in numbers.items()):
                return
            for name, value in numbers.items():
                setattr(row, name, value)
            self._touch(index, is_signed=False)
        self._announcements.announce([index])

    def _read(self, files: ChunkFiles, slot: int) -> bytes | None:
        try:
            return files.get(slot)
        except OSError as error:
            raise InputError(
                f"{error.filename or files.folder} cannot be read ({error.strerror}); see that "
                "its drive and folder are there."
            ) from error

    def _read_mask(self, index: int) -> Buffer | None:
        with self._lock:
            row = self._rows[index]
            if not row.digest:
                return None
            found = self._read(self._folder.masks, row.slot)
            chunk = None if found is None else to_chunk(found)
            if chunk_digest(chunk) == row.digest or self.read_only:
                return chunk
            # Somebody else has written to the Zarr array.
            chunk = self._folder.take_over(row, chunk)
            self._touch(index, "mask: changed by another program")
        self._announcements.announce([index])
        return chunk

    def _write_mask(
        self, index: int, chunk: Buffer | None, origin: MaskOrigin | None = None
    ) -> None:
        digest = chunk_digest(chunk)
        with self._lock:
            self._check_writable()
            row = self._rows[index]
            known = self._known.setdefault(index, {})
            known.setdefault(row.digest, row.origin)
            if origin is None:
                origin = known.get(digest, MaskOrigin.HAND)
            elif origin is not MaskOrigin.HAND or not digest:
                # Of the many masks that a brush makes none need be known: by hand is the rule.
                known[digest] = origin
            if digest == row.digest and origin is row.origin:
                return
            if self._step is not None:
                self._step.note_mask(index, self._mask_before(index), signature_of(row))
            self._keep_start(row, origin, digest)
            if digest != row.digest:
                self._folder.masks.put(row.slot, None if chunk is None else chunk.to_bytes())
            what = None if origin is row.origin else f"mask: {origin.title}"
            row.digest, row.origin = digest, origin
            row.area = row.polyps = None if digest else 0
            row.centre_row = row.centre_column = row.changed_pixels = None
            self._touch(index, what, files=True)
        self._announcements.announce([index])

    def _keep_start(self, row: FrameRow, origin: MaskOrigin, digest: bytes) -> None:
        """Keep the mask that work by hand begins with when another one takes its place.

        Erased, a mask is like none at first: that this is work by hand is said a moment later.
        Only what a machine makes anew, or what is drawn where there is none, begins elsewhere.
        """
        if origin in _BY_MACHINE or (row.origin is MaskOrigin.NONE and digest):
            if row.has_start:
                row.has_start = 0
                self._folder.starts.put(row.slot, None)
        elif row.origin in _BY_MACHINE and row.digest:
            row.has_start = 1
            self._folder.starts.put(row.slot, self._read(self._folder.masks, row.slot))

    def _mask_before(self, index: int) -> MaskBefore:
        chunk, row = self._read_mask(index), self._rows[index]
        start = self._read(self._folder.starts, row.slot) if row.has_start else None
        return MaskBefore(chunk, row.digest, row.origin, start)

    # How the session was left

    def setting(self, name: str, default: Any = None) -> Any:
        """Return a setting that `set_setting` has kept."""
        return self._settings.get(name, default)

    def set_setting(self, name: str, value: Any) -> None:
        """Keep a setting, anything that JSON can hold, such as the zoom or the model."""
        with self._lock:
            if self.read_only or self._settings.get(name) == value:
                return
            self._settings[name] = value
            self._saver.setting(name, value)

    @property
    def shown(self) -> int:
        """Number of the frame on show, kept by its name; the first one by default."""
        name = self._settings.get(_FRAME_ON_SHOW)
        return next((index for index, row in enumerate(self._rows) if row.name == name), 0)

    @shown.setter
    def shown(self, index: int) -> None:
        self.set_setting(_FRAME_ON_SHOW, self._rows[index].name)

    # Saving

    def _check_writable(self) -> None:
        if self.notice is not None:
            raise InputError(self.notice)

    def _touch(
        self, index: int, what: str | None = None, *, files: bool = False, is_signed: bool = True
    ) -> None:
        """Take note that a row has changed, and what happened, to save it soon.

        Masks, strokes and decisions are signed; a look, a note, an undo or a model's map makes
        nobody answer for the work of others.
        """
        row = self._rows[index]
        if is_signed:
            row.changed_at, row.annotator = time.time(), self.annotator
        self._statuses[index] = None
        if what is not None:
            self._log(row.slot, what)
        self._saver.frame(index, files=files)

    def _log(self, slot: int | None, what: str) -> None:
        with self._lock:
            self._saver.event(self.annotator, slot, what)

    def _count_anew(self) -> None:
        """Have what is not known of masks counted: after a crash, or an older version."""
        with self._lock:
            for index, row in enumerate(self._rows):
                if is_unmeasured(row):
                    self._saver.frame(index, files=True)

    def _measure(self, index: int) -> None:
        """Count the polyps of a mask that has changed, and what was changed by hand."""
        with self._lock:
            row = self._rows[index]
            if not is_unmeasured(row):
                return
            digest, origin = row.digest, row.origin
        mask = self.chunks.mask(index)
        by_hand = origin is MaskOrigin.HAND
        count = count_polyps(mask)
        with self._lock:
            if (row.digest, row.origin) != (digest, origin):
                return
            row.area, row.polyps, row.centre_row, row.centre_column = count
            # Not before: an undo of review puts another start under the same mask.
            row.changed_pixels = int(np.count_nonzero(mask != self.start(index))) if by_hand else 0
            self._statuses[index] = None
        with listening():
            self._announcements.announce([index])


class _Masks(ChunkStore):
    """The masks of a session by the number of their frame, as `MaskChunks` wants them."""

    def __init__(self, kept: KeptFrames) -> None:
        self._kept = kept

    def __getitem__(self, index: int) -> Buffer:
        chunk = self._kept._read_mask(index)
        if chunk is None:
            raise KeyError(index)
        return chunk

    def __setitem__(self, index: int, chunk: Buffer) -> None:
        chunks, frame = self._kept.chunks, self._kept.sequence.frames[index]
        kept: Buffer | None = chunk
        if chunks.canvas_shape != (frame.height, frame.width):
            # A brush paints on the padding beside the frame as well, of which a mask holds nothing.
            canvas = decode_chunk(chunk, chunks.canvas_shape)
            if canvas[frame.height :].any() or canvas[:, frame.width :].any():
                kept = chunks.encode(canvas[: frame.height, : frame.width])
        self._kept._write_mask(index, kept)

    def __delitem__(self, index: int) -> None:
        self._kept._write_mask(index, None)

    def __iter__(self) -> Iterator[int]:
        return (index for index, row in enumerate(self._kept._rows) if row.digest)

    def __len__(self) -> int:
        return sum(bool(row.digest) for row in self._kept._rows)

    def digest(self, index: int) -> bytes:
        """Give the digest of a mask, which is known without reading it."""
        return self._kept._rows[index].digest
