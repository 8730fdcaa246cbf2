"""Undo of what is decided about frames: accepted, excluded, noted, emptied."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

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
    """A mask at one moment."""

    chunk: Buffer | None
    digest: bytes
    origin: MaskOrigin


@dataclass
class Moment:
    """Some frames at one moment."""

    decisions: dict[int, Decision] = field(default_factory=dict)
    masks: dict[int, MaskBefore] = field(default_factory=dict)


@dataclass
class Step:
    """One thing the user did, to one frame or many, before and after."""

    title: str
    before: Moment = field(default_factory=Moment)
    after: Moment = field(default_factory=Moment)


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
