"""What the annotator decides about frames, done to the session and the layer of masks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_microaunet.curation.session import MaskOrigin, ReviewState
from napari_microaunet.widgets.prelabel_jobs import follow_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from napari_microaunet.curation.session import ReviewChange
    from napari_microaunet.widgets.mask_layer import MaskLayer
    from napari_microaunet.widgets.workbench import Workbench

# Masks that are made in so little time that the window need not be kept free meanwhile.
_MOST_AT_ONCE = 4


class Decisions:
    """Decides about frames of the sequence being worked on, which has masks.

    Each method says in a sentence what it has come to.

    Parameters
    ----------
    bench : Workbench
        Whose frames they are.
    """

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench

    def accept(self, indices: Sequence[int], ended: Callable[[str], None]) -> None:
        """Accept frames with the masks that belong to them.

        A mask that is yet to follow the sliders follows first. Frames without
        a mask, those that cannot be read, and those whose mask changes while
        others follow, are left out.

        Parameters
        ----------
        indices : sequence of int
            Numbers of the frames.
        ended : callable
            Told what it has come to, at once or after a job.
        """
        work, prelabels = self._bench.start_masks()
        masks, waiting = prelabels.masks, prelabels.waiting()
        unread = [i for i in indices if i in work.sequence.problems]
        bare = [
            i
            for i in indices
            if i not in waiting
            and i not in work.sequence.problems
            and masks.origin(i) is MaskOrigin.NONE
            and masks.session.status(i).state is not ReviewState.ACCEPTED
        ]
        left_out = {*unread, *bare}

        def decide(meant: Mapping[int, bytes]) -> None:
            accepted = [i for i in meant if masks.chunks.digest(i) == meant[i]]
            changed = [i for i in meant if masks.chunks.digest(i) != meant[i]]
            for index in accepted:
                prelabels.leave(index)
            masks.session.accept(accepted)
            ended(_accepted(accepted, bare, unread) + _changed(changed))

        chosen = [i for i in indices if i not in left_out]
        follow_settings(self._bench, decide, chosen, _MOST_AT_ONCE)

    def accept_as_negative(self, indices: Sequence[int]) -> str:
        """Empty the masks of frames and accept them: they show no polyp."""
        work, prelabels = self._bench.start_masks()
        masks, session = prelabels.masks, prelabels.masks.session
        readable = [index for index in indices if index not in work.sequence.problems]
        unread = [index for index in indices if index in work.sequence.problems]
        with session.step("Accept as negative"):
            for index in readable:
                prelabels.leave(index)
                self._empty(masks, index)
            session.accept(readable)
        for index in readable[-1:]:
            masks.changed.emit(index)
        return _sentence(readable, "accepted as negative: no polyp") + _cannot_be_read(unread)

    def _empty(self, masks: MaskLayer, index: int) -> None:
        if not masks.chunks.digest(index):
            # Nothing changes on the screen, only who says so.
            masks.session.put_mask(index, None, MaskOrigin.HAND)
        elif index == masks.shown:
            frame = masks.session.sequence.frames[index]
            # A step for Ctrl+Z as well.
            masks.write(index, np.zeros((frame.height, frame.width), np.uint8), MaskOrigin.HAND)
        elif masks.can_put(index):
            # Not by `set`: nobody need be told of each of thousands that are not on show.
            masks.session.put_mask(index, None, MaskOrigin.HAND)
        else:
            masks.set(index, None, MaskOrigin.HAND)

    def exclude(self, indices: Sequence[int], reason: str) -> str:
        """Leave frames out of everything."""
        _, prelabels = self._bench.start_masks()
        prelabels.masks.session.exclude(indices, reason)
        return _sentence(indices, f"excluded: {reason}")

    def reopen(self, indices: Sequence[int]) -> str:
        """Take back that frames were accepted or excluded; their masks stay."""
        _, prelabels = self._bench.start_masks()
        session = prelabels.masks.session
        states = {index: session.status(index).state for index in indices}
        accepted = [i for i, state in states.items() if state is ReviewState.ACCEPTED]
        excluded = [i for i, state in states.items() if state is ReviewState.EXCLUDED]
        if not (accepted or excluded):
            return "Nothing has been decided here yet."
        with session.step("Take back decisions"):
            session.include(excluded)
            session.unaccept([*accepted, *excluded])
        return _sentence([*accepted, *excluded], "to be done again")

    def note(self, indices: Sequence[int], text: str) -> str:
        """Note something about frames."""
        _, prelabels = self._bench.start_masks()
        prelabels.masks.session.note(indices, text)
        return _sentence(indices, "noted" if text else "without a note now")

    def undo(self) -> str:
        """Take back the last decision and go to where it was made."""
        _, prelabels = self._bench.start_masks()
        masks = prelabels.masks
        return self._returned("Taken back", masks.session.undo_review(masks.set))

    def redo(self) -> str:
        """Decide again what was taken back."""
        _, prelabels = self._bench.start_masks()
        masks = prelabels.masks
        return self._returned("Decided again", masks.session.redo_review(masks.set))

    def _returned(self, what: str, change: ReviewChange | None) -> str:
        if change is None:
            return f"{what}: there is nothing more."
        if self._bench.shown not in change.frames:
            self._bench.go_to(change.frames[0])
        kept = ""
        if change.kept:
            kept = f" {_frames(change.kept)} kept the mask that was changed since."
        return f"{what}: {change.title.lower()}, {_frames(change.frames).lower()}.{kept}"


def _frames(indices: Sequence[int]) -> str:
    return f"Frame {indices[0]}" if len(indices) == 1 else f"{len(indices)} frames"


def _sentence(indices: Sequence[int], what: str) -> str:
    return f"{_frames(indices)} {what}." if indices else ""


def _accepted(accepted: Sequence[int], bare: Sequence[int], unread: Sequence[int]) -> str:
    parts = [_sentence(accepted, "accepted")]
    if bare:
        has, it = ("has", "it shows") if len(bare) == 1 else ("have", "they show")
        parts.append(f"{_frames(bare)} {has} no mask yet: accept as negative if {it} no polyp.")
    return " ".join(filter(None, parts)) + _cannot_be_read(unread)


def _changed(changed: Sequence[int]) -> str:
    if not changed:
        return ""
    it, them = ("was", "it") if len(changed) == 1 else ("were", "them")
    return f" {_frames(changed)} {it} changed meanwhile: look at {them} again."


def _cannot_be_read(unread: Sequence[int]) -> str:
    return f" {_frames(unread)} cannot be read: exclude instead." if unread else ""
