"""Undo of what is decided about frames: accepted, excluded, noted, emptied."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from zarr.core.buffer import Buffer

    from napari_microaunet.curation.session.states import MaskOrigin

# As many steps as napari keeps.
_MOST_STEPS = 100


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided about a frame at one moment."""

    accepted: bytes | None
    accepted_at: float | None
    reason: str | None
    note: str


@dataclass(frozen=True, slots=True)
class MaskBefore:
    """A mask at one moment, and the compressed one that the work by hand on it began with."""

    chunk: Buffer | None
    digest: bytes
    origin: MaskOrigin
    start: bytes | None


class Signature(NamedTuple):
    """Who answered for the mask with this digest at one moment, and since when."""

    digest: bytes
    annotator: str | None
    changed_at: float | None


@dataclass
class Moment:
    """Some frames at one moment."""

    decisions: dict[int, Decision] = field(default_factory=dict)
    masks: dict[int, MaskBefore] = field(default_factory=dict)
    # To sign anew what is decided already is nothing to take back.
    signatures: dict[int, Signature] = field(default_factory=dict, compare=False)


@dataclass
class Step:
    """One thing the user did, to one frame or many, before and after."""

    title: str
    before: Moment = field(default_factory=Moment)
    after: Moment = field(default_factory=Moment)

    def note_mask(self, index: int, mask: MaskBefore, signature: Signature) -> None:
        """Take note of a mask that is about to change, unless the step has changed it already."""
        self.before.masks.setdefault(index, mask)
        self.before.signatures.setdefault(index, signature)


@dataclass(frozen=True)
class ReviewChange:
    """What taking back a step, or taking it again, has come to.

    Attributes
    ----------
    title : str
        What the step was called.
    frames : tuple of int
        Frames of the step.
    masks : tuple of int
        Frames whose mask has been exchanged.
    kept : tuple of int
        Frames whose mask had been changed since, and was left alone.
    """

    title: str
    frames: tuple[int, ...]
    masks: tuple[int, ...]
    kept: tuple[int, ...]


class ReviewSteps:
    """The steps that can be taken back, and those that can be taken again."""

    def __init__(self) -> None:
        self.done: deque[Step] = deque(maxlen=_MOST_STEPS)
        self.undone: list[Step] = []

    def add(self, step: Step) -> None:
        """Add a step that has just been made."""
        self.done.append(step)
        self.undone.clear()
