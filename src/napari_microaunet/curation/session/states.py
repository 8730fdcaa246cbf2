"""What is known of a frame: who made its mask, what was decided, what it has cost."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from datetime import datetime

    import numpy as np
    from numpy.typing import NDArray

    from napari_microaunet.frames import FieldOfView

MapRole = Literal["model", "compared"]
"""What a probability map is for: the pre-label, or a comparison with another model."""


class MaskOrigin(Enum):
    """Who made the mask of a frame.

    Attributes
    ----------
    title : str
        The same in words for the window.
    """

    NONE = "none"
    MODEL = "model"
    PROPAGATED = "propagated"
    FILE = "file"
    HAND = "hand"

    @property
    def title(self) -> str:
        """The same in words for the window."""
        return _TITLES[self]


_TITLES = {
    MaskOrigin.NONE: "no mask",
    MaskOrigin.MODEL: "pre-labelled",
    MaskOrigin.PROPAGATED: "propagated from another frame",
    MaskOrigin.FILE: "mask from a file",
    MaskOrigin.HAND: "corrected by hand",
}


class ReviewState(Enum):
    """How far the work on a frame has come.

    A frame is accepted exactly while its mask is the one that was accepted;
    with an empty mask it is a negative frame.
    """

    UNSEEN = "unseen"
    PRELABELLED = "prelabelled"
    EDITED = "edited"
    ACCEPTED = "accepted"
    EXCLUDED = "excluded"

    @property
    def is_decided(self) -> bool:
        """Whether somebody has answered for the frame: it needs no look any more."""
        return self in _DECIDED


# Propagation is asked for, on frames that the user looks at.
_BY_USER = (MaskOrigin.HAND, MaskOrigin.FILE, MaskOrigin.PROPAGATED)
_DECIDED = (ReviewState.ACCEPTED, ReviewState.EXCLUDED)


@dataclass(frozen=True, slots=True)
class FrameStatus:
    """All that is known of one frame.

    Attributes
    ----------
    index : int
        Number of the frame in its sequence.
    name : str
        Name of the frame.
    state : ReviewState
        How far the work on it has come.
    origin : MaskOrigin
        Who made its mask.
    confidence : float or None
        How far its pre-label can be trusted, in [0, 1].
    area : int or None
        Polyp pixels at native size; None for the moment until they have been counted.
    polyps : int or None
        How many polyps the mask holds, likewise.
    reason : str or None
        Why the frame is excluded.
    note : str
        What the annotator has noted.
    seconds : float
        How long it was looked at until it was accepted.
    seconds_editing : float
        The part of them in which it was edited.
    strokes : int
        How many strokes and other edits its mask has had.
    changed_pixels : int or None
        Pixels that differ from the mask that the work by hand began with, the
        model's, a file's or an empty one; None until counted.
    model : str or None
        The model whose pre-label was taken for its mask last.
    annotator : str or None
        Who changed its mask or decided on it last.
    changed : datetime or None
        When, in UTC.
    centre : (float, float) or None
        Row and column of the centre of all polyp pixels, at native size; None where there is none.
    disagreement : float or None
        How far the two models differ, as `Session.set_disagreement` was told.
    threshold : float or None
        Probability from which on a pixel was polyp in that pre-label, in [0, 1].
    digest : bytes
        Of the mask that all this is said of, as `MaskChunks.digest` gives it.
    """

    index: int
    name: str
    state: ReviewState
    origin: MaskOrigin
    confidence: float | None
    area: int | None
    polyps: int | None
    reason: str | None
    note: str
    seconds: float
    seconds_editing: float
    strokes: int
    changed_pixels: int | None
    model: str | None
    annotator: str | None
    changed: datetime | None
    centre: tuple[float, float] | None
    disagreement: float | None
    threshold: float | None
    digest: bytes

    @property
    def is_users(self) -> bool:
        """Whether the mask was made, asked for, brought or decided on by the user.

        No model's run and no import may take such a mask away unless the user says so.
        """
        return self.origin in _BY_USER or self.state.is_decided


@dataclass(frozen=True, eq=False)
class KeptMap:
    """A probability map as a session keeps it.

    Attributes
    ----------
    values : uint8 array, shape (h, w)
        Probabilities at the network's size; 0 stands for 0, 255 for 1.
    field : FieldOfView
        The box of the frame, in native pixels, that the values cover.
    model : str
        The model's name.
    card_sha256 : str
        The hash on the model's card.
    """

    values: NDArray[np.uint8]
    field: FieldOfView
    model: str
    card_sha256: str
