"""What follows from one row of a session's table of frames."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from napari_microaunet.curation.session.review_steps import Decision, Signature
from napari_microaunet.curation.session.states import FrameStatus, MaskOrigin, ReviewState
from napari_microaunet.frames.masks import IGNORE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_microaunet.curation.session.database import FrameRow

_STATES = {
    MaskOrigin.NONE: ReviewState.UNSEEN,
    MaskOrigin.MODEL: ReviewState.PRELABELLED,
    MaskOrigin.PROPAGATED: ReviewState.PRELABELLED,
    MaskOrigin.FILE: ReviewState.EDITED,
    MaskOrigin.HAND: ReviewState.EDITED,
}


class PolypCount(NamedTuple):
    """Pixels and number of the polyps of a mask, and their centre in native pixels."""

    area: int
    polyps: int
    centre_row: float | None
    centre_column: float | None


def state_of(row: FrameRow) -> ReviewState:
    """Tell how far the work on a frame has come."""
    if row.reason is not None:
        return ReviewState.EXCLUDED
    if row.accepted is not None and row.accepted == row.digest:
        return ReviewState.ACCEPTED
    return _STATES[row.origin]


def status_of(row: FrameRow, index: int) -> FrameStatus:
    """Tell what is known of the frame with a number."""
    changed = None if row.changed_at is None else datetime.fromtimestamp(row.changed_at, UTC)
    centre = row.centre_row, row.centre_column
    return FrameStatus(
        index,
        row.name,
        state_of(row),
        row.origin,
        row.confidence,
        row.area,
        row.polyps,
        row.reason,
        row.note,
        row.seconds,
        row.seconds_editing,
        row.strokes,
        row.changed_pixels,
        row.model,
        row.annotator,
        changed,
        None if centre[0] is None or centre[1] is None else (centre[0], centre[1]),
        row.disagreement,
        row.threshold,
        row.digest,
    )


def decision_of(row: FrameRow) -> Decision:
    """Return what was decided and noted about a frame."""
    return Decision(row.accepted, row.accepted_at, row.reason, row.note)


def signature_of(row: FrameRow) -> Signature:
    """Return who changed a frame or decided on it last."""
    return Signature(row.digest, row.annotator, row.changed_at)


def is_unmeasured(row: FrameRow) -> bool:
    """Tell whether a mask has changed since its polyps were counted."""
    return row.area is None or row.changed_pixels is None


def count_polyps(mask: NDArray[np.uint8]) -> PolypCount:
    """Count the polyps of a mask, an uint8 array of shape (height, width)."""
    # Most rows of most masks are empty.
    occupied = np.flatnonzero(mask.any(axis=1))
    part = mask[occupied[0] : occupied[-1] + 1] if occupied.size else mask[:0]
    rows, columns = np.nonzero((part > 0) & (part != IGNORE))
    if not rows.size:
        return PolypCount(0, 0, None, None)
    polyps = int(np.count_nonzero(np.bincount(part[rows, columns])))
    return PolypCount(rows.size, polyps, float(rows.mean() + occupied[0]), float(columns.mean()))
