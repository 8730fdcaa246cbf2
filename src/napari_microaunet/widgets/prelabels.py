"""Kept probability maps, and the masks that follow from them as settings move."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from napari_microaunet.prelabel.confidence import confidence
from napari_microaunet.prelabel.masks import MaskSettings, mask_from
from napari_microaunet.prelabel.probability import ProbabilityMap
from napari_microaunet.widgets.mask_layer import MaskLayer, MaskState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from napari_microaunet.frames.field_of_view import FieldOfView

# A slider that rests as long has been let go: other frames may follow, its undo step is closed.
_SETTLED_MS = 400
# One mask of another frame at a time, with room for the user's events in between.
_BACKGROUND_MS = 15
# A frame looked at as long has come to stay: its mask becomes an undo step.
_LOOKED_AT_MS = 150

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
    known : Signal(int)
        The map of this frame has come in.
    """

    known = Signal(int)

    def __init__(self, masks: MaskLayer, settings: MaskSettings) -> None:
        super().__init__()
        self._masks = masks
        self._settings = settings
        self._maps: dict[int, PackedMap] = {}
        # Frames whose mask is to follow from its map, and the digest of the mask that it may
        # replace: if somebody changes the mask in between, it stays.
        self._pending: dict[int, bytes] = {}
        self._moved = False
        self._settled = _timer(self, _SETTLED_MS, self._mark_pending, single=True)
        self._background = _timer(self, _BACKGROUND_MS, self._follow_one)
        self._looked_at = _timer(self, _LOOKED_AT_MS, self._make_step, single=True)

    def close(self) -> None:
        """Stop following: the layer of masks is gone."""
        for timer in (self._settled, self._background, self._looked_at):
            timer.stop()

    def __contains__(self, index: int) -> bool:
        return index in self._maps

    def waits(self, index: int) -> bool:
        """Tell whether the mask of a frame is yet to follow from its map."""
        return index in self._pending and self._pending[index] == self._masks.digest(index)

    def confidence(self, index: int) -> float | None:
        """Say how far the pre-label of a frame can be trusted, at the threshold as it is now."""
        packed = self._maps.get(index)
        return None if packed is None else confidence(packed.unpack(), self._settings.threshold)

    def receive(self, index: int, packed: PackedMap, permitted: Mapping[int, bytes]) -> bool:
        """Take in the map of a frame and let its mask follow.

        Parameters
        ----------
        index : int
            Number of the frame.
        packed : PackedMap
            Its map.
        permitted : mapping of int to bytes
            Frames whose mask was made by the user and may be replaced
            nevertheless, with the digest of the mask that was spoken of.

        Returns
        -------
        bool
            False if the frame keeps the mask that it has.
        """
        self._maps[index] = packed
        self.known.emit(index)
        digest = self._masks.digest(index)
        if self._masks.state(index) in _BY_USER and permitted.get(index) != digest:
            return False
        self._pending[index] = digest
        if index == self._masks.shown:
            self._follow(index)
        else:
            self._background.start()
        return True

    def set_settings(self, settings: MaskSettings) -> None:
        """Change how maps become masks."""
        if settings == self._settings:
            return
        dragging = self._settled.isActive()
        self._settings = settings
        self._moved = True
        self._background.stop()
        self._settled.start()
        shown = self._masks.shown
        if shown in self._pending or self._follows(shown):
            self._pending[shown] = self._masks.digest(shown)
            self._follow(shown, replace_last=dragging)

    def show(self, index: int) -> None:
        """Bring the mask of the frame that has come on show up to date."""
        if self._moved and self._follows(index):
            self._pending[index] = self._masks.digest(index)
        self._follow(index)
        self._looked_at.start()

    def to_save(self) -> dict[int, PackedMap]:
        """List frames whose mask in the layer is yet to follow, with the maps to make it from."""
        self._mark_pending()
        return {index: self._maps[index] for index in self._pending if self.waits(index)}

    def _follows(self, index: int) -> bool:
        """Tell whether the mask of a frame is the model's, untouched."""
        return index in self._maps and self._masks.state(index) is MaskState.MODEL

    def _mark_pending(self) -> None:
        """Note all frames whose mask the settings have left behind."""
        if self._moved:
            shown = self._masks.shown
            for index in self._maps:
                if index != shown and self._follows(index):
                    self._pending[index] = self._masks.digest(index)
            self._moved = False
        if self._pending:
            self._background.start()

    def _follow(self, index: int, replace_last: bool = False) -> None:
        digest = self._pending.pop(index, None)
        if digest is None or digest != self._masks.digest(index):
            return
        mask: NDArray[np.uint8] = mask_from(self._maps[index].unpack(), self._settings)
        if index != self._masks.shown and self._masks.can_put(index):
            self._masks.put(index, mask, MaskState.MODEL)
        else:
            self._masks.write(index, mask, MaskState.MODEL, replace_last)

    def _follow_one(self) -> None:
        """Bring the frame nearest to the one on show up to date, of those that may wait."""
        shown = self._masks.shown
        waiting = [i for i in self._pending if i != shown and self._masks.can_put(i)]
        if waiting:
            self._follow(min(waiting, key=lambda index: abs(index - shown)))
        else:
            self._background.stop()

    def _make_step(self) -> None:
        self._masks.make_step(self._masks.shown)


def _timer(parent: QObject, milliseconds: int, call: object, single: bool = False) -> QTimer:
    timer = QTimer(parent)
    timer.setInterval(milliseconds)
    timer.setSingleShot(single)
    timer.timeout.connect(call)
    return timer
