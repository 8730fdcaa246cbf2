"""A window that may only look at a session follows what the other one saves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari.utils.notifications import show_info
from qtpy.QtCore import QObject, QTimer

from napari_microaunet.curation.session.lock import SessionLock
from napari_microaunet.errors import InputError

if TYPE_CHECKING:
    from napari_microaunet.curation.session import Session
    from napari_microaunet.widgets.workbench import Workbench

_EVERY_MS = 2000


class LookingOn(QObject):
    """Looks every two seconds whether there is anything new in a session that is read-only.

    Once, it tells that nobody else has it any more.

    Parameters
    ----------
    bench : Workbench
        Whose session it is.
    """

    def __init__(self, bench: Workbench) -> None:
        super().__init__(bench)
        self._bench = bench
        self._told: Session | None = None
        self._timer = QTimer(self, interval=_EVERY_MS, timeout=self.look)
        bench.work_changed.connect(self._on_work)
        bench.closing.connect(self._timer.stop)

    def look(self) -> None:
        """Take in what is new."""
        work = self._bench.work
        if work is None or work.masks is None:
            return
        masks = work.masks
        try:
            changed = masks.session.look_again()
        except InputError:
            # The drive may come back; what is known stays on show.
            return
        if masks.shown in changed:
            masks.layer.refresh()
            masks.changed.emit(masks.shown)
        if self._told is not masks.session and SessionLock(masks.session.folder).is_free():
            self._told = masks.session
            show_info(
                f"{work.sequence.name} has been closed elsewhere: open its frames again to go on "
                "with them here."
            )

    def _on_work(self) -> None:
        work = self._bench.work
        if work is not None and work.session is not None and work.session.read_only:
            self._timer.start()
        else:
            self._timer.stop()
