"""Snap: the outline goes to the strongest edge of the picture near it, in a thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QObject

from napari_microaunet.editing.snapping import snap
from napari_microaunet.widgets.edit_tools.in_passing import InPassing

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_microaunet.widgets.edit_tools.edits import Edits

_TITLE = "Snap"


class Snap(QObject):
    """Snaps one polyp or all.

    Parameters
    ----------
    edits : Edits
        What is edited.
    """

    def __init__(self, edits: Edits) -> None:
        super().__init__()
        self._edits = edits
        self._work = InPassing(edits)

    @property
    def actions(self) -> dict[str, Callable[[], object]]:
        """What it does on keys."""
        return {"snap": lambda: self.run(by_key=True)}

    @property
    def is_busy(self) -> bool:
        """Whether an outline is on its way."""
        return self._work.is_busy

    def run(self, *, by_key: bool = False) -> None:
        """Snap the polyp under the cursor, with `by_key`, or the chosen one."""
        edits = self._edits
        if not edits.can_edit():
            return
        label = edits.pointed_at() if by_key else edits.chosen
        if label is None:
            edits.say(f"{_TITLE}: there is no polyp on this frame.")
            return
        wanted = None if edits.all_polyps else label
        mask, probability, read = edits.mask, edits.probability(), edits.reader()
        whom = "all polyps" if wanted is None else f"polyp {wanted}"

        def told(changed: bool) -> None:
            done = "went to the nearest edges" if changed else "lies on the edge already"
            edits.say(f"{_TITLE}, {whom}: the outline {done}.")

        edits.say(f"{_TITLE}, {whom} …")
        self._work.start(_TITLE, lambda: snap(mask, wanted, read(), None, probability), told)
