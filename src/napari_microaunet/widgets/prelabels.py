"""Kept probability maps, and the masks that follow from them as settings move."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from functools import partial
from heapq import nsmallest
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_error
from qtpy.QtCore import QObject, Qt, QTimer, Signal, Slot

from napari_microaunet.curation.session import KeptMap, MaskOrigin, ReviewState
from napari_microaunet.errors import InputError
from napari_microaunet.prelabel.confidence import confidence
from napari_microaunet.prelabel.masks import MaskSettings, mask_from
from napari_microaunet.prelabel.probability import ProbabilityMap
from napari_microaunet.widgets.jobs import Job

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from zarr.core.buffer import Buffer

    from napari_microaunet.networks.library import Model
    from napari_microaunet.widgets.jobs import Cancelled
    from napari_microaunet.widgets.mask_layer import MaskLayer

# A slider that rests as long has been let go: other frames may follow, its undo step is closed.
_SETTLED_MS = 400
# Masks of other frames that are made at a stretch, the nearest first.
_AT_A_STRETCH = 16
# Setting of the session: models of which masks have yet to follow, and the settings for these.
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
    another model than the one whose settings have changed, are left alone; where
    they have yet to follow, they follow the settings of their own.

    Parameters
    ----------
    masks : MaskLayer
        Where the masks go.
    settings : MaskSettings
        How maps become masks, until `set_settings` is told otherwise.

    Attributes
    ----------
    masks : MaskLayer
        Where the masks go.
    known : Signal(int)
        The map of this frame has come in.
    """

    known = Signal(int)
    # The map of this frame cannot be read, and why; emitted in any thread.
    _unreadable = Signal(int, str)

    def __init__(self, masks: MaskLayer, settings: MaskSettings) -> None:
        super().__init__()
        self.masks = masks
        self._session = masks.session
        behind = self._session.setting(_BEHIND) or {}
        if isinstance(behind, str):  # of an earlier version: the model, which the sliders are for
            behind = {behind: asdict(settings)}
        # Of the sliders, and of the models that have been adjusted or have run.
        self._latest = settings
        self._settings = {model: settings_from(kept) for model, kept in behind.items()}
        # Models of which masks have yet to follow; for `_moved`, it is yet to be noted which masks.
        self._behind = set() if self._session.read_only else set(self._settings)
        self._moved = set(self._behind)
        # Frames whose mask is to follow from its map, and the digest of the mask that it may
        # replace: if somebody changes the mask in between, it stays.
        self._pending: dict[int, bytes] = {}
        # Why maps cannot be read, as far as the user has been told.
        self._told: set[str] = set()
        self._unreadable.connect(self._tell, Qt.ConnectionType.QueuedConnection)
        self._following: Job | None = None
        # What `_following` makes of older maps of these frames is of no use.
        self._received_meanwhile: set[int] = set()
        self._settled = QTimer(self, interval=_SETTLED_MS, singleShot=True, timeout=self._mark_all)
        self._looked_at = QTimer(
            self, interval=_LOOKED_AT_MS, singleShot=True, timeout=self._make_step
        )
        if self._moved:
            self._settled.start()

    @property
    def is_settled(self) -> bool:
        """Whether all masks that can follow have followed."""
        timers = self._settled.isActive() or self._looked_at.isActive()
        return not timers and self._following is None and not self._next_of(self._waiting())

    def close(self) -> None:
        """Stop following: the layer of masks is gone."""
        self._settled.stop()
        self._looked_at.stop()
        self._pending.clear()

    def __contains__(self, index: int) -> bool:
        return self._session.has_map(index)

    def wants(self, index: int) -> MaskSettings | None:
        """Give the settings that the mask of a frame is yet to follow; None if it is not to."""
        if self._pending.get(index) != self.masks.chunks.digest(index):
            return None
        return self._settings.get(self._session.status(index).model or "")

    def waiting(self) -> dict[int, MaskSettings]:
        """List the frames whose masks are yet to follow, and the settings that each wants."""
        self._mark_all()
        return self._waiting()

    def map(self, index: int) -> ProbabilityMap | None:
        """Return what a model said of a frame, if one did and it can be read; from any thread."""
        kept = self._kept(index)
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
        digest, users = self.masks.chunks.digest(index), self.masks.is_users(index)
        is_taken = not users or permitted.get(index) == digest
        self._session.put_map(
            index,
            found.kept,
            confidence=found.confidence,
            threshold=found.settings.threshold,
            is_taken=is_taken,
        )
        self.known.emit(index)
        if not is_taken:
            return False
        self._settings.setdefault(found.kept.model, found.settings)
        self._pending[index] = digest
        # A mask of the user's is given up at once: that it may be is known here alone.
        at_once = users or index == self.masks.shown
        if at_once or self.masks.can_put(index):
            self.put(index, found)
        if at_once:
            self._follow(index)  # where a slider has moved meanwhile
        elif index in self._pending:
            # It waits until it is shown; if that never comes, for the session to be opened again.
            self._keep_behind(self._behind | {found.kept.model})
        return True

    def look(self, probability: ProbabilityMap, model: Model) -> Found:
        """Make what `receive` takes in, by the settings of a model; from any thread."""
        return self._found(
            KeptMap(probability.values, probability.field, model.name, model.card.sha256),
            probability,
            self._settings.get(model.name, self._latest),
        )

    def following(
        self, wanted: Mapping[int, MaskSettings], cancelled: Cancelled = lambda: False
    ) -> Iterator[tuple[int, Found | None]]:
        """Make the masks of frames from their maps; may be called from any thread.

        Parameters
        ----------
        wanted : mapping of int to MaskSettings
            The frames, as `waiting` lists them.
        cancelled : callable
            Asked before each.

        Yields
        ------
        index, found
            What `put` takes: None where a map cannot be read.
        """
        for index, settings in wanted.items():
            if cancelled():
                return
            kept = self._kept(index)
            if kept is None:
                yield index, None
            else:
                yield index, self._found(kept, self._unpacked(index, kept), settings)

    def put(self, index: int, found: Found | None, replace_last: bool = False) -> None:
        """Use a mask that follows from a map, if it is still what is wanted.

        Parameters
        ----------
        index : int
            Number of the frame.
        found : Found or None
            From `following`; where it is None, the mask stays as it is.
        replace_last : bool
            As for `MaskLayer.write`; the frame is on show.
        """
        if found is None:
            # Not to be tried again and again, but when a slider moves.
            self.leave(index)
        elif found.settings == self.wants(index):
            self.leave(index)
            self._session.set_confidence(index, found.confidence, found.settings.threshold)
            self._session.forget_former_acceptance(index)
            if index == self.masks.shown:
                mask = self.masks.chunks.decode(index, found.chunk)
                self.masks.write(index, mask, MaskOrigin.MODEL, replace_last)
            else:
                self.masks.set(index, found.chunk, MaskOrigin.MODEL, undoable=True)

    def _kept(self, index: int) -> KeptMap | None:
        try:
            kept = self._session.map(index)
        except InputError as error:
            self._unreadable.emit(index, str(error))
            return None
        if kept is None and index in self:
            folder = self._session.folder
            why = f"its map in {folder}, frame {index}, is damaged; pre-label it again."
            self._unreadable.emit(index, why)
        return kept

    @Slot(int, str)
    def _tell(self, index: int, why: str) -> None:
        # Where a drive is gone, it is the same for all frames.
        if why not in self._told:
            self._told.add(why)
            name = self._session.sequence.frames[index].name
            show_error(f"The mask of frame {name} cannot follow the model: {why}")

    def _found(self, kept: KeptMap, probability: ProbabilityMap, settings: MaskSettings) -> Found:
        mask = mask_from(probability, settings)
        trust = confidence(probability, mask, settings.threshold)
        return Found(kept, settings, trust, self.masks.chunks.encode(mask))

    def _unpacked(self, index: int, kept: KeptMap) -> ProbabilityMap:
        frame = self._session.sequence.frames[index]
        return ProbabilityMap(kept.values, kept.field, (frame.height, frame.width))

    def set_settings(self, settings: MaskSettings, model: str) -> None:
        """Change how the maps of a model become masks."""
        self._latest = settings
        if settings == self._settings.get(model) or self._session.read_only:
            return
        dragging = self._settled.isActive()
        self._settings[model] = settings
        self._moved.add(model)
        self._keep_behind(self._behind | {model})
        if self._following is not None:
            self._following.cancel()
        self._settled.start()
        self._mark(self.masks.shown)
        self._follow(self.masks.shown, replace_last=dragging)

    def show(self, index: int) -> None:
        """Bring the mask of the frame that has come on show up to date."""
        self._mark(index)
        self._follow(index)
        self._looked_at.start()

    def leave(self, index: int) -> None:
        """Let the mask of a frame be: somebody decides on it as it is."""
        self._pending.pop(index, None)

    def _keep_behind(self, models: set[str]) -> None:
        """Keep in the session of which models masks have yet to follow, and what."""
        self._behind = models
        kept = {model: asdict(self._settings[model]) for model in models}
        self._session.set_setting(_BEHIND, kept or None)

    def _mark(self, index: int) -> None:
        """Note that a mask is to follow if settings have moved for it: the model's, untouched."""
        status = self._session.status(index)
        untouched = status.origin is MaskOrigin.MODEL and status.state is ReviewState.PRELABELLED
        # The mask may have been kept when another model ran: that one's map is not for it.
        has_its_map = self._session.has_map(index, model=status.model)
        if status.model in self._moved and untouched and has_its_map:
            self._pending[index] = status.digest

    def _mark_all(self) -> None:
        """Note all masks that settings have left behind; the one on show never is."""
        if self._moved:
            shown = self.masks.shown
            for index in range(len(self._session.sequence)):
                if index != shown:
                    self._mark(index)
            self._moved.clear()
        self._follow_in_background()

    def _follow(self, index: int, replace_last: bool = False) -> None:
        """Bring the mask of a frame up to date at once, if it is to be."""
        wanted = self.wants(index)
        if wanted is not None:
            for item in self.following({index: wanted}):
                self.put(*item, replace_last)
        self._pending.pop(index, None)

    def _waiting(self) -> dict[int, MaskSettings]:
        wanted = ((index, self.wants(index)) for index in self._pending)
        return {index: settings for index, settings in wanted if settings is not None}

    def _next_of(self, waiting: Mapping[int, MaskSettings]) -> list[int]:
        """Choose those that can follow in the background, the nearest first."""
        shown = self.masks.shown  # asked once: it takes its time, for ten thousand frames
        able = (index for index in waiting if index != shown and self.masks.can_put(index))
        return nsmallest(_AT_A_STRETCH, able, key=lambda index: abs(index - shown))

    def _follow_in_background(self) -> None:
        waiting = self._waiting()
        models = {self._session.status(index).model or "" for index in waiting}
        self._keep_behind(self._moved | models)
        batch = self._next_of(waiting)
        if self._following is not None or self._settled.isActive() or not batch:
            return

        def take(item: tuple[int, Found | None]) -> None:
            if item[0] not in self._received_meanwhile:
                self.put(*item)

        self._received_meanwhile.clear()
        work = partial(self.following, {index: waiting[index] for index in batch})
        self._following = Job("Bringing masks up to date", work, len(batch))
        self._following.item.connect(take)
        self._following.ended.connect(self._on_followed)
        self._following.start(in_passing=True)

    def _on_followed(self) -> None:
        self._following = None
        self._follow_in_background()

    def _make_step(self) -> None:
        self.masks.make_step(self.masks.shown)


def settings_from(kept: Mapping[str, Any]) -> MaskSettings:
    """Restore settings that a session keeps, of this version or another."""
    names = {field.name for field in fields(MaskSettings)}
    return MaskSettings(**{name: kept[name] for name in names & kept.keys()})
