"""One annotator's work on one sequence of frames, decided, undone and measured."""

from __future__ import annotations

import time
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from napari_microaunet.curation.session.database import read_events
from napari_microaunet.curation.session.edit_costs import LONGEST_PAUSE_S, EditCost, seconds_left
from napari_microaunet.curation.session.kept_frames import KeptFrames
from napari_microaunet.curation.session.review_steps import (
    ReviewChange,
    Step,
)
from napari_microaunet.curation.session.rows import decision_of, signature_of, state_of
from napari_microaunet.curation.session.states import (
    MaskOrigin,
    ReviewState,
)
from napari_microaunet.frames.mask_chunks import chunk_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from zarr.core.buffer import Buffer

    from napari_microaunet.curation.session.database import Event, FrameRow


class Session(KeptFrames):
    """One annotator's work on one sequence: what `KeptFrames` keeps, decisions and their cost.

    `step`, `undo_review` and `redo_review` belong to one thread. Parameters, attributes and
    errors are those of `KeptFrames`.
    """

    # Review

    def accept(self, indices: Iterable[int]) -> None:
        """Accept frames with the masks that they have; with an empty one, as negative frames."""

        def decide(row: FrameRow) -> str:
            row.accepted, row.accepted_at, row.reason = row.digest, time.time(), None
            return "accepted"

        self._decide(indices, "Accept", decide)

    def unaccept(self, indices: Iterable[int]) -> None:
        """Take back that frames were accepted."""

        def decide(row: FrameRow) -> str:
            row.accepted = row.accepted_at = None
            return "no longer accepted"

        self._decide(indices, "Take back acceptance", decide)

    def exclude(self, indices: Iterable[int], reason: str) -> None:
        """Leave frames out of everything, for a reason."""

        def decide(row: FrameRow) -> str:
            row.reason = reason
            return f"excluded: {reason}"

        self._decide(indices, "Exclude", decide)

    def include(self, indices: Iterable[int]) -> None:
        """Take back that frames were excluded."""

        def decide(row: FrameRow) -> str:
            row.reason = None
            return "no longer excluded"

        self._decide(indices, "Take back exclusion", decide)

    def note(self, indices: Iterable[int], text: str) -> None:
        """Note something about frames, in place of what was noted before."""

        def decide(row: FrameRow) -> str:
            row.note = text
            return f"noted: {text}"

        self._decide(indices, "Note", decide, is_signed=False)

    def _decide(
        self,
        indices: Iterable[int],
        title: str,
        decide: Callable[[FrameRow], str],
        *,
        is_signed: bool = True,
    ) -> None:
        changed = []
        with self.step(title) as step, self._lock:
            self._check_writable()
            for index in indices:
                row = self._rows[index]
                step.before.decisions.setdefault(index, decision_of(row))
                if is_signed:
                    step.before.signatures.setdefault(index, signature_of(row))
                self._touch(index, decide(row), is_signed=is_signed)
                changed.append(index)
        self._announcements.announce(changed)

    def forget_former_acceptance(self, index: int) -> None:
        """Forget that a frame was accepted with another mask than the one it has.

        To be called before a mask comes that nobody has asked for: were it equal to the one
        accepted formerly, it would be accepted by itself.
        """
        with self._lock:
            self._check_writable()
            row = self._rows[index]
            if row.accepted not in (None, row.digest):
                row.accepted = row.accepted_at = None
                self._touch(index, is_signed=False)

    def holds(self, index: int, chunk: Buffer | None) -> bool:
        """Tell whether a mask from elsewhere is the user's own: it is to stay as it is."""
        status = self.status(index)
        return status.is_users and status.digest == chunk_digest(chunk)

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Make one step for `undo_review` of all decisions and masks that are put meanwhile.

        Parameters
        ----------
        title : str
            What the step is called, as in "Accept as negative". A step inside
            another is part of that one.
        """
        if self._step is not None:
            yield self._step
            return
        step = self._step = Step(title)
        try:
            with self._announcements.together():
                yield step
        finally:
            self._step = None
            with self._lock:
                for index in step.before.decisions:
                    step.after.decisions[index] = decision_of(self._rows[index])
                for index in step.before.masks:
                    step.after.masks[index] = self._mask_before(index)
                for index in step.before.signatures:
                    step.after.signatures[index] = signature_of(self._rows[index])
            if step.after != step.before:
                self._steps.add(step)

    def undo_review(
        self, write: Callable[[int, Buffer | None, MaskOrigin], None] | None = None
    ) -> ReviewChange | None:
        """Take back the last step of review.

        Parameters
        ----------
        write : callable, optional
            Exchanges the mask of a frame, as `put_mask` does, which is the default.

        Returns
        -------
        ReviewChange or None
            What has changed; None if there was no step.
        """
        self._check_writable()
        if not self._steps.done:
            return None
        step = self._steps.done.pop()
        self._steps.undone.append(step)
        return self._return_to(step, undo=True, write=write or self.put_mask)

    def redo_review(
        self, write: Callable[[int, Buffer | None, MaskOrigin], None] | None = None
    ) -> ReviewChange | None:
        """Take a step of review again that was taken back; otherwise like `undo_review`."""
        self._check_writable()
        if not self._steps.undone:
            return None
        step = self._steps.undone.pop()
        self._steps.done.append(step)
        return self._return_to(step, undo=False, write=write or self.put_mask)

    def _return_to(
        self, step: Step, *, undo: bool, write: Callable[[int, Buffer | None, MaskOrigin], None]
    ) -> ReviewChange:
        now, then = (step.after, step.before) if undo else (step.before, step.after)
        written, kept = [], []
        with self._announcements.together():
            for index, mask in then.masks.items():
                if self._rows[index].digest == now.masks[index].digest:
                    write(index, mask.chunk, mask.origin)
                    self._start_again(index, mask.start)
                    written.append(index)
                else:
                    kept.append(index)
            with self._lock:
                for index, decision in then.decisions.items():
                    row = self._rows[index]
                    row.accepted, row.accepted_at = decision.accepted, decision.accepted_at
                    row.reason, row.note = decision.reason, decision.note
                    what = f"{'undone' if undo else 'redone'}: {step.title}"
                    self._touch(index, what, is_signed=False)
                for index, signature in then.signatures.items():
                    row = self._rows[index]
                    # A mask that has been changed since is that of who changed it.
                    if row.digest == signature.digest:
                        _, row.annotator, row.changed_at = signature
                        self._touch(index, is_signed=False)
            self._announcements.announce(sorted({*then.decisions, *then.signatures}))
        frames = sorted({*then.decisions, *then.masks})
        return ReviewChange(step.title, tuple(frames), tuple(written), tuple(kept))

    def _start_again(self, index: int, start: bytes | None) -> None:
        """Have the work by hand on a mask that has come back begin where it began before."""
        with self._lock:
            row = self._rows[index]
            if row.has_start or start is not None:
                row.has_start = int(start is not None)
                self._folder.starts.put(row.slot, start)
            row.changed_pixels = None
            self._touch(index, files=True, is_signed=False)

    # What the work costs

    def add_time(self, index: int, seconds: float, *, editing: bool = False) -> None:
        """Count the time since the annotator's last sign of life on a frame.

        Parameters
        ----------
        index : int
            Number of the frame.
        seconds : float
            More than `LONGEST_PAUSE_S` is a pause and does not count; nor does
            time on a frame that is accepted.
        editing : bool
            Whether the mask was edited meanwhile.
        """
        row = self._rows[index]
        if self.read_only or seconds > LONGEST_PAUSE_S or state_of(row) is ReviewState.ACCEPTED:
            return
        with self._lock:
            row.seconds += seconds
            row.seconds_editing += seconds if editing else 0
            self._touch(index, is_signed=False)
        self._announcements.announce([index])

    def add_stroke(self, index: int, what: str = "stroke") -> None:
        """Count a stroke or another edit of a mask by hand; `what` goes into the events."""
        with self._lock:
            self._check_writable()
            self._rows[index].strokes += 1
            self._touch(index, what)
        self._announcements.announce([index])

    def edit_costs(self) -> list[EditCost]:
        """List what the accepted frames have cost, in their order."""
        with self._lock:
            return [
                EditCost(
                    row.name,
                    None if row.origin is MaskOrigin.FILE else row.model,
                    row.annotator,
                    row.seconds,
                    row.seconds_editing,
                    row.strokes,
                    row.changed_pixels,
                    None
                    if row.accepted_at is None
                    else datetime.fromtimestamp(row.accepted_at, UTC),
                )
                for row in self._rows
                if state_of(row) is ReviewState.ACCEPTED
            ]

    def time_left(self) -> float | None:
        """Estimate how long the other frames will take, in seconds; None if it is too early."""
        remaining = sum(not state_of(row).is_decided for row in self._rows)
        return seconds_left(self.edit_costs(), remaining)

    def events(self) -> list[Event]:
        """Read all that happened and is on disk, in order."""
        return read_events(self._folder.database_file)
