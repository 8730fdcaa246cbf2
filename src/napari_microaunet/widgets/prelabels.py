"""Kept probability maps, and the masks that follow from them as settings move."""

from __future__ import annotations

from dataclasses import dataclass
from heapq import nsmallest
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, QTimer, Signal

from napari_microaunet.curation.session import KeptMap, MaskOrigin, ReviewState
from napari_microaunet.prelabel.confidence import confidence
from napari_microaunet.prelabel.masks import MaskSettings, mask_from
from napari_microaunet.prelabel.probability import ProbabilityMap
from napari_microaunet.widgets.jobs import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from zarr.core.buffer import Buffer

    from napari_microaunet.networks.library import Model
    from napari_microaunet.widgets.mask_layer import MaskLayer

# A slider that rests as long has been let go: other frames may follow, its undo step is closed.
_SETTLED_MS = 400
# Masks of other frames that are made at a stretch, the nearest first.
_AT_A_STRETCH = 16
# Setting of the session: masks of this model have yet to follow the settings.
_BEHIND = "masks behind settings"
# A frame looked at as long has come to stay: its mask becomes an undo step.
_LOOKED_AT_MS = 300


@dataclass(frozen=True, eq=False)
class Found:
    """What a model says of a frame, and the mask that follows from it at some settings."""

    kept: KeptMap
    settings: MaskSettings
    confidence: float
    chunk: Buffer | None


class Prelabels(QObject):
    """The maps of one sequence and the masks made from them. Lives in the GUI thread.

    The mask of the frame on show follows at once. Those of other frames follow
    in the background, or when they come on show if they have steps in the undo
    history, or before they are exported, or when the session is opened again.
    Masks made or changed by hand, masks that came from files, and those of
    another model than the one whose settings have changed, are left alone.

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
        self._session = masks.session
        # Frames whose mask is to follow from its map, and the digest of the mask that it may
        # replace: if somebody changes the mask in between, it stays.
        self._pending: dict[int, bytes] = {}
        # The model whose settings have changed, or "" for any; kept until all masks have followed.
        self._model: str = self._session.setting(_BEHIND) or ""
        self._moved = self._session.setting(_BEHIND) is not None and not self._session.read_only
        self._following: Job | None = None
        # What `_following` makes of older maps of these frames is of no use.
        self._received_meanwhile: set[int] = set()
        self._settled = _timer(self, _SETTLED_MS, self._mark_pending)
        self._looked_at = _timer(self, _LOOKED_AT_MS, self._make_step)
        if self._moved:
            self._settled.start()

    @property
    def is_settled(self) -> bool:
        """Whether all masks that can follow have followed."""
        timers = self._settled.isActive() or self._looked_at.isActive()
        return not timers and self._following is None and not self._next_to_follow()

    def close(self) -> None:
        """Stop following: the layer of masks is gone."""
        self._settled.stop()
        self._looked_at.stop()
        self._pending.clear()

    def __contains__(self, index: int) -> bool:
        return self._session.has_map(index)

    def waits(self, index: int) -> bool:
        """Tell whether the mask of a frame is yet to follow from its map."""
        return index in self._pending and self._pending[index] == self.masks.chunks.digest(index)

    def map(self, index: int) -> ProbabilityMap | None:
        """Return what a model said of a frame, if one did."""
        kept = self._session.map(index)
        return None if kept is None else self._unpacked(index, kept)

    def confidence(self, index: int) -> float | None:
        """Say how far the pre-label of a frame can be trusted, at the threshold as it is now."""
        return self._session.status(index).confidence

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
        self._received_meanwhile.add(index)
        threshold = found.settings.threshold
        self._session.put_map(index, found.kept, confidence=found.confidence, threshold=threshold)
        self.known.emit(index)
        digest = self.masks.chunks.digest(index)
        if self.masks.is_users(index) and permitted.get(index) != digest:
            return False
        self._pending[index] = digest
        self._accept(index, found)
        if index == self.masks.shown:
            self._follow(index)
        elif index in self._pending:
            # It waits until it is shown; if that never comes, for the session to be opened again.
            self._session.set_setting(_BEHIND, found.kept.model)
        return True

    def look(self, probability: ProbabilityMap, model: Model, settings: MaskSettings) -> Found:
        """Make what `receive` takes in; may be called from any thread."""
        return self._found(
            KeptMap(probability.values, probability.field, model.name, model.card.sha256),
            probability,
            settings,
        )

    def _found(self, kept: KeptMap, probability: ProbabilityMap, settings: MaskSettings) -> Found:
        chunk = self.masks.chunks.encode(mask_from(probability, settings))
        return Found(kept, settings, confidence(probability, settings), chunk)

    def _unpacked(self, index: int, kept: KeptMap) -> ProbabilityMap:
        frame = self._session.sequence.frames[index]
        return ProbabilityMap(kept.values, kept.field, (frame.height, frame.width))

    def set_settings(self, settings: MaskSettings, model: str | None = None) -> None:
        """Change how the maps of a model, or all of them, become masks."""
        if settings == self._settings or self._session.read_only:
            return
        dragging = self._settled.isActive()
        self._settings = settings
        self._model = model or ""
        # A mask that waits for the settings of another model stays as it is: these are none of it.
        for index in [index for index in self._pending if self._is_of_another(index)]:
            del self._pending[index]
        self._session.set_setting(_BEHIND, self._model)
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

    def to_save(self) -> set[int]:
        """List frames whose mask in the layer is yet to follow its map."""
        self._mark_pending()
        return {index for index in self._pending if self.waits(index)}

    def followed(
        self, indices: Iterable[int], settings: MaskSettings
    ) -> Iterator[tuple[int, float, Buffer | None]]:
        """Make the masks of frames from their maps; may be called from any thread.

        Yields
        ------
        index, confidence, chunk
            Of the frames that have a map.
        """
        for index in indices:
            kept = self._session.map(index)
            if kept is not None:
                found = self._found(kept, self._unpacked(index, kept), settings)
                yield index, found.confidence, found.chunk

    def leave(self, index: int) -> None:
        """Let the mask of a frame be: somebody decides on it as it is."""
        self._pending.pop(index, None)

    def _follows(self, index: int) -> bool:
        """Tell whether the mask of a frame is the model's, untouched."""
        status = self._session.status(index)
        models = status.origin is MaskOrigin.MODEL and not self._is_of_another(index)
        return index in self and models and status.state is ReviewState.PRELABELLED

    def _is_of_another(self, index: int) -> bool:
        """Tell whether a frame has a mask of another model than the one that is adjusted."""
        status = self._session.status(index)
        return status.origin is MaskOrigin.MODEL and self._model not in ("", status.model)

    def _mark_pending(self) -> None:
        """Note all frames whose mask the settings have left behind."""
        if self._moved:
            shown = self.masks.shown
            for index in range(len(self._session.sequence)):
                if index != shown and self._follows(index):
                    self._pending[index] = self.masks.chunks.digest(index)
            self._moved = False
        self._follow_in_background()

    def _follow(self, index: int, replace_last: bool = False) -> None:
        """Bring the mask of the frame on show up to date, if it may be."""
        probability = self.map(index) if self.waits(index) else None
        if probability is not None:
            trust = confidence(probability, self._settings)
            self._session.set_confidence(index, trust, self._settings.threshold)
            mask = mask_from(probability, self._settings)
            self.masks.write(index, mask, MaskOrigin.MODEL, replace_last)
        self._pending.pop(index, None)

    def _accept(self, index: int, found: Found) -> None:
        """Use a mask that was made in a thread, if it is still what is wanted."""
        if found.settings != self._settings or not self.waits(index):
            return
        self._session.set_confidence(index, found.confidence, found.settings.threshold)
        if index == self.masks.shown:
            del self._pending[index]
            mask = self.masks.chunks.decode(index, found.chunk)
            self.masks.write(index, mask, MaskOrigin.MODEL)
        elif self.masks.can_put(index):
            del self._pending[index]
            self.masks.put(index, found.chunk, MaskOrigin.MODEL)

    def _next_to_follow(self) -> list[int]:
        shown = self.masks.shown  # asked once: it takes its time, for ten thousand frames
        waiting = (
            index
            for index in self._pending
            if index != shown and self.waits(index) and self.masks.can_put(index)
        )
        return nsmallest(_AT_A_STRETCH, waiting, key=lambda index: abs(index - shown))

    def _follow_in_background(self) -> None:
        batch = self._next_to_follow()
        if not self._moved and not any(map(self.waits, self._pending)):
            self._session.set_setting(_BEHIND, None)
        if self._following is not None or self._settled.isActive() or not batch:
            return
        settings, session = self._settings, self._session

        def work(cancelled: Callable[[], bool]) -> Iterator[tuple[int, Found]]:
            for index in batch:
                kept = session.map(index)
                if cancelled():
                    return
                if kept is not None:
                    yield index, self._found(kept, self._unpacked(index, kept), settings)

        def take(item: tuple[int, Found]) -> None:
            if item[0] not in self._received_meanwhile:
                self._accept(*item)

        self._received_meanwhile.clear()
        self._following = Job("Bringing masks up to date", work, len(batch))
        self._following.item.connect(take)
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
