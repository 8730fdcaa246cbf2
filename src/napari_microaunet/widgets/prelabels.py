"""Kept probability maps, and the masks that follow from them as settings move."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from heapq import nsmallest
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from napari_microaunet.prelabel.confidence import confidence
from napari_microaunet.prelabel.masks import MaskSettings, mask_from
from napari_microaunet.prelabel.probability import ProbabilityMap
from napari_microaunet.widgets.jobs import Job
from napari_microaunet.widgets.mask_layer import MaskLayer, MaskState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from zarr.core.buffer import Buffer

    from napari_microaunet.frames.field_of_view import FieldOfView

# A slider that rests as long has been let go: other frames may follow, its undo step is closed.
_SETTLED_MS = 400
# Masks of other frames that are made at a stretch, the nearest first.
_AT_A_STRETCH = 16
# A frame looked at as long has come to stay: its mask becomes an undo step.
_LOOKED_AT_MS = 300

_BY_USER = (MaskState.HAND, MaskState.FILE)


@dataclass(frozen=True, eq=False)
class PackedMap:
    """A probability map, compressed: some kilobytes instead of 64."""

    values: bytes
    shape: tuple[int, int]
    field: FieldOfView
    frame_shape: tuple[int, int]

    @classmethod
    def pack(cls, probability: ProbabilityMap) -> PackedMap:
        """Compress a map; takes about a millisecond."""
        height, width = probability.values.shape
        return cls(
            zlib.compress(probability.values.tobytes(), 1),
            (height, width),
            probability.field,
            probability.frame_shape,
        )

    def unpack(self) -> ProbabilityMap:
        """Restore the map."""
        values = np.frombuffer(zlib.decompress(self.values), np.uint8).reshape(self.shape)
        return ProbabilityMap(values, self.field, self.frame_shape)


@dataclass(frozen=True, eq=False)
class Found:
    """What a model says of a frame, and the mask that follows from it at some settings."""

    map: PackedMap
    settings: MaskSettings
    chunk: Buffer | None


class Prelabels(QObject):
    """The maps of one sequence and the masks made from them. Lives in the GUI thread.

    The mask of the frame on show follows at once. Those of other frames follow
    in the background, or when they come on show if they have steps in the undo
    history. Masks made or changed by hand, and masks that came from files, are
    left alone.

    Parameters
    ----------
    masks : MaskLayer
        Where the masks go.
    settings : MaskSettings
        How maps become masks.

    Attributes
    ----------
    masks : MaskLayer
        Where the masks go.
    known : Signal(int)
        The map of this frame has come in.
    """

    known = Signal(int)

    def __init__(self, masks: MaskLayer, settings: MaskSettings) -> None:
        super().__init__()
        self.masks = masks
        self._settings = settings
        self._maps: dict[int, PackedMap] = {}
        # Frames whose mask is to follow from its map, and the digest of the mask that it may
        # replace: if somebody changes the mask in between, it stays.
        self._pending: dict[int, bytes] = {}
        self._moved = False
        self._following: Job | None = None
        self._settled = _timer(self, _SETTLED_MS, self._mark_pending)
        self._looked_at = _timer(self, _LOOKED_AT_MS, self._make_step)

    @property
    def is_settled(self) -> bool:
        """Whether all masks that can follow have followed."""
        timers = self._settled.isActive() or self._looked_at.isActive()
        return not timers and self._following is None and not self._next_to_follow()

    def close(self) -> None:
        """Stop following: the layer of masks is gone."""
        self._settled.stop()
        self._looked_at.stop()
        self._maps.clear()
        self._pending.clear()

    def __contains__(self, index: int) -> bool:
        return index in self._maps

    def waits(self, index: int) -> bool:
        """Tell whether the mask of a frame is yet to follow from its map."""
        return index in self._pending and self._pending[index] == self.masks.chunks.digest(index)

    def confidence(self, index: int) -> float | None:
        """Say how far the pre-label of a frame can be trusted, at the threshold as it is now."""
        packed = self._maps.get(index)
        return None if packed is None else confidence(packed.unpack(), self._settings.threshold)

    def receive(self, index: int, found: Found, permitted: Mapping[int, bytes]) -> bool:
        """Take in what a model says of a frame and let its mask follow.

        Parameters
        ----------
        index : int
            Number of the frame.
        found : Found
            Its map, and the mask that was made of it by the way.
        permitted : mapping of int to bytes
            Frames whose mask was made by the user and may be replaced
            nevertheless, with the digest of the mask that was spoken of.

        Returns
        -------
        bool
            False if the frame keeps the mask that it has.
        """
        self._maps[index] = found.map
        self.known.emit(index)
        digest = self.masks.chunks.digest(index)
        if self.masks.state(index) in _BY_USER and permitted.get(index) != digest:
            return False
        self._pending[index] = digest
        self._accept(index, found)
        if index == self.masks.shown:
            self._follow(index)
        return True

    def look(self, probability: ProbabilityMap, settings: MaskSettings) -> Found:
        """Make what `receive` takes in; may be called from any thread."""
        chunk = self.masks.chunks.encode(mask_from(probability, settings))
        return Found(PackedMap.pack(probability), settings, chunk)

    def set_settings(self, settings: MaskSettings) -> None:
        """Change how maps become masks."""
        if settings == self._settings:
            return
        dragging = self._settled.isActive()
        self._settings = settings
        self._moved = True
        if self._following is not None:
            self._following.cancel()
        self._settled.start()
        shown = self.masks.shown
        if shown in self._pending or self._follows(shown):
            self._pending[shown] = self.masks.chunks.digest(shown)
            self._follow(shown, replace_last=dragging)

    def show(self, index: int) -> None:
        """Bring the mask of the frame that has come on show up to date."""
        if self._moved and self._follows(index):
            self._pending[index] = self.masks.chunks.digest(index)
        self._follow(index)
        self._looked_at.start()

    def to_save(self) -> dict[int, PackedMap]:
        """List frames whose mask in the layer is yet to follow, with the maps to make it from."""
        self._mark_pending()
        return {index: self._maps[index] for index in self._pending if self.waits(index)}

    def _follows(self, index: int) -> bool:
        """Tell whether the mask of a frame is the model's, untouched."""
        return index in self._maps and self.masks.state(index) is MaskState.MODEL

    def _mark_pending(self) -> None:
        """Note all frames whose mask the settings have left behind."""
        if self._moved:
            shown = self.masks.shown
            for index in self._maps:
                if index != shown and self._follows(index):
                    self._pending[index] = self.masks.chunks.digest(index)
            self._moved = False
        self._follow_in_background()

    def _follow(self, index: int, replace_last: bool = False) -> None:
        """Bring the mask of the frame on show up to date, if it may be."""
        if self.waits(index):
            mask = mask_from(self._maps[index].unpack(), self._settings)
            self.masks.write(index, mask, MaskState.MODEL, replace_last)
        self._pending.pop(index, None)

    def _accept(self, index: int, found: Found) -> None:
        """Use a mask that was made in a thread, if it is still what is wanted."""
        fits = found.settings == self._settings and found.map is self._maps.get(index)
        if not fits or not self.waits(index):
            return
        if index == self.masks.shown:
            del self._pending[index]
            mask = self.masks.chunks.decode(index, found.chunk)
            self.masks.write(index, mask, MaskState.MODEL)
        elif self.masks.can_put(index):
            del self._pending[index]
            self.masks.put(index, found.chunk, MaskState.MODEL)

    def _can_follow(self, index: int) -> bool:
        return index != self.masks.shown and self.masks.can_put(index)

    def _next_to_follow(self) -> list[int]:
        shown = self.masks.shown
        waiting = filter(self._can_follow, filter(self.waits, self._pending))
        return nsmallest(_AT_A_STRETCH, waiting, key=lambda index: abs(index - shown))

    def _follow_in_background(self) -> None:
        batch = self._next_to_follow()
        if self._following is not None or self._settled.isActive() or not batch:
            return
        maps, settings = {index: self._maps[index] for index in batch}, self._settings

        def work(cancelled: Callable[[], bool]) -> Iterator[tuple[int, Found]]:
            for index, packed in maps.items():
                if cancelled():
                    return
                chunk = self.masks.chunks.encode(mask_from(packed.unpack(), settings))
                yield index, Found(packed, settings, chunk)

        self._following = Job("Bringing masks up to date", work, len(batch))
        self._following.item.connect(lambda item: self._accept(*item))
        self._following.ended.connect(self._on_followed)
        self._following.start(in_passing=True)

    def _on_followed(self) -> None:
        self._following = None
        self._follow_in_background()

    def _make_step(self) -> None:
        self.masks.make_step(self.masks.shown)


def _timer(parent: QObject, milliseconds: int, call: Callable[[], None]) -> QTimer:
    timer = QTimer(parent)
    timer.setInterval(milliseconds)
    timer.setSingleShot(True)
    timer.timeout.connect(call)
    return timer
