"""The queue of frames in the dock: in which order, which of them, and the table."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QLineEdit, QVBoxLayout, QWidget

from napari_microaunet.curation.queue import ORDERS, Clues, next_in_queue, order_frames, select
from napari_microaunet.curation.session import ReviewState
from napari_microaunet.widgets.review_jobs import Looks, compare_all, find_clues, look_at_all
from napari_microaunet.widgets.review_table import STATE_WORDS, ReviewQueue
from napari_microaunet.widgets.section import hint

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_microaunet.curation.session import Session
    from napari_microaunet.curation.temporal import Finding
    from napari_microaunet.networks.library import Model
    from napari_microaunet.prelabel.predictor import Predictor
    from napari_microaunet.widgets.jobs import Job
    from napari_microaunet.widgets.prelabels import Prelabels
    from napari_microaunet.widgets.workbench import Workbench

# A burst of changes is shown once: the queue of 20,000 frames takes its time. While changes go
# on, it has this share of the window's time at the most.
_REFRESH_MS = 250
_MOST_REFRESHING = 0.1
_LETTERS = 6
_ROOM_FOR_BAR = 24
_QUEUE = "queue"
# Orders that need a look at all pictures, which is not kept.
_BY_LOOKS = ("findings", "duplicates")
_WITH_FINDINGS = "with findings"
_TOOLTIP = Qt.ItemDataRole.ToolTipRole

FILTERS: dict[str, dict[str, Any]] = {
    "all": {},
    "to do": {"states": frozenset(state for state in ReviewState if not state.is_decided)},
    **{STATE_WORDS[state]: {"states": frozenset([state])} for state in ReviewState},
    _WITH_FINDINGS: {"with_findings": True},
}
"""Which frames are in the queue: what `select` is asked for, by the words of the window."""


class QueuePanel(QWidget):
    """Order, filter, search and the table.

    Parameters
    ----------
    bench : Workbench
        Whose frames they are.
    other_model : callable
        Gives the model that pre-labels are compared with, and what makes it ready.

    Attributes
    ----------
    table : ReviewQueue
        The table.
    refreshed : Signal()
        States may have changed since the last time.
    """

    refreshed = Signal()

    def __init__(
        self,
        bench: Workbench,
        other_model: Callable[[], tuple[Model, Callable[[], Predictor]]],
    ) -> None:
        super().__init__()
        self._bench = bench
        self._other_model = other_model
        self._prelabels: Prelabels | None = None
        self._clues = Clues()
        self._remarks: dict[int, str] = {}
        # What had been found about the frame on show when it came on show.
        self._found_then: Sequence[Finding] = ()
        self._looks: Looks | None = None
        self._finding: Job | None = None
        # Whether masks have changed since the last findings.
        self._moved = False
        self.order, self.filter, self.search = QComboBox(), QComboBox(), QLineEdit()
        for name, order in ORDERS.items():
            self.order.addItem(order.title, name)
            self.order.setItemData(self.order.count() - 1, order.tooltip, _TOOLTIP)
        self.filter.addItems(list(FILTERS))
        for box in (self.order, self.filter):
            # Their longest entries would make the dock wider; the open list shows all of each.
            box.setSizeAdjustPolicy(
                QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
            )
            box.setMinimumContentsLength(_LETTERS)
            box.view().setMinimumWidth(box.view().sizeHintForColumn(0) + _ROOM_FOR_BAR)
        self.search.setPlaceholderText("Search names and notes")
        self.search.setClearButtonEnabled(True)
        self.table = ReviewQueue()
        self._add_hints()
        choice = QHBoxLayout()
        choice.addWidget(self.order, 3)
        choice.addWidget(self.filter, 2)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(5)
        layout.addLayout(choice)
        layout.addWidget(self.search)
        layout.addWidget(self.table)

        self.table.go_to.connect(bench.go_to)
        self.order.activated.connect(self._on_choice)
        self.filter.activated.connect(self._on_choice)
        self.search.textChanged.connect(self._list_soon)
        self._refresh = QTimer(
            self, interval=_REFRESH_MS, singleShot=True, timeout=self._on_refresh
        )
        bench.work_changed.connect(self._on_work)
        bench.shown_changed.connect(self._on_shown)
        bench.frame_changed.connect(self._on_frame)
        bench.status_changed.connect(self._on_status)
        bench.job_changed.connect(self._list_soon)
        self._on_work()

    def step(self, by: int) -> None:
        """Go to another frame, so many rows further down."""
        frames = self.table.table.frames
        row = self.table.table.row_of(self._bench.shown) + by
        if 0 <= row < len(frames):
            self._bench.go_to(int(frames[row]))

    def go_to_next(self) -> bool:
        """Go to the next frame that is not done; False if there is none."""
        session = self._session
        if session is None:
            return False
        done = {status.index for status in session.statuses if status.state.is_decided}
        following = next_in_queue(self.table.table.frames, self._bench.shown, done)
        if following is not None:
            self._bench.go_to(following)
        return following is not None

    def finding(self, index: int) -> str:
        """Say what was found about a frame, in sentences; empty if nothing was."""
        return self._remarks.get(index, "")

    @property
    def _session(self) -> Session | None:
        work = self._bench.work
        return None if work is None or work.masks is None else work.session

    def _on_work(self) -> None:
        work = self._bench.work
        prelabels = None if work is None else work.prelabels
        if prelabels is not self._prelabels:
            self._prelabels, self._looks = prelabels, None
            self._found_then = ()
            self._set_clues(Clues())
            if prelabels is not None:
                prelabels.known.connect(self._on_new_map)
            self._restore()
        self._on_refresh()

    def _on_new_map(self, index: int) -> None:
        """Forget how far another model differed from the pre-label that was there before."""
        session = self._session
        if session is not None and self.sender() is self._prelabels:
            session.set_disagreement(index, None)

    def _on_shown(self, index: int) -> None:
        session = self._session
        self._found_then = self._clues.findings.get(index, ())
        if session is not None:
            if self.table.table.row_of(index) < 0:
                self._list(session)
            self.table.follow(index)

    def _on_frame(self, _index: int) -> None:
        self._moved = True

    def _on_status(self, indices: Sequence[int]) -> None:
        self.table.table.update_frames(indices)
        self._list_soon()

    def _list_soon(self) -> None:
        if not self._refresh.isActive():
            self._refresh.start()

    def _on_refresh(self) -> None:
        began, session = perf_counter(), self._session
        if session is None:
            self.table.show_frames(None, (), {})
        else:
            self._list(session)
            if self._moved and self._looks is not None:
                self._find(session, self._looks)
        self.refreshed.emit()
        spent_ms = 1000 * (perf_counter() - began)
        self._refresh.setInterval(max(_REFRESH_MS, round(spent_ms / _MOST_REFRESHING)))

    def _on_choice(self) -> None:
        """Show what was chosen, and find out what it needs to know."""
        session = self._session
        if session is None:
            return
        order, chosen = self.order.currentData(), self.filter.currentText()
        session.set_setting(_QUEUE, {"order": order, "filter": chosen})
        self._list(session)
        if order == "disagreement" and not session.read_only:
            compare_all(self._bench, *self._other_model())
        elif order in _BY_LOOKS or chosen == _WITH_FINDINGS:
            if self._looks is None:
                look_at_all(self._bench, self._on_looks)
            else:
                self._find(session, self._looks)

    def _on_looks(self, looks: Looks) -> None:
        session = self._session
        if session is not None:
            self._looks = looks
            self._find(session, looks)

    def _find(self, session: Session, looks: Looks) -> None:
        """Find anew what does not fit, in passing."""
        shown = session.status(self._bench.shown)
        if shown.digest and shown.area is None and not session.read_only and not session.problem:
            # What has just been drawn is yet to be measured: it would count as no mask.
            self._moved = True
            self._list_soon()
        elif self._finding is None:
            self._moved = False
            self._finding = find_clues(session, looks)
            self._finding.item.connect(partial(self._on_clues, looks))
            self._finding.ended.connect(self._on_found)
            self._finding.start(in_passing=True)

    def _on_clues(self, looks: Looks, clues: Clues) -> None:
        # The user may have turned to other frames meanwhile.
        if looks is self._looks:
            self._set_clues(clues)

    def _on_found(self, _complete: bool) -> None:
        self._finding = None
        self._list_soon()

    def _set_clues(self, clues: Clues) -> None:
        self._clues = clues
        # Mended, it keeps its place: where else would the next one be found?
        self._found_then = clues.findings.get(self._bench.shown, self._found_then)
        self._remarks = {
            index: " ".join(one.text for one in found) for index, found in clues.findings.items()
        }

    def _restore(self) -> None:
        session = self._session
        kept = {} if session is None else session.setting(_QUEUE, {})
        order, chosen = kept.get("order"), kept.get("filter", "")
        self.order.setCurrentIndex(0 if order in _BY_LOOKS else max(0, self.order.findData(order)))
        self.filter.setCurrentIndex(
            0 if chosen == _WITH_FINDINGS else max(0, self.filter.findText(chosen))
        )
        self.search.clear()

    def _list(self, session: Session) -> None:
        statuses, shown = session.statuses, self._bench.shown
        wanted = FILTERS[self.filter.currentText()]
        left = select(statuses, self._clues, text=self.search.text(), **wanted)
        # The frame on show stays, so that its place in the queue is not lost.
        left[shown] = True
        findings = {**self._clues.findings}
        if self._found_then:
            findings[shown] = self._found_then
        clues = replace(self._clues, findings=findings)
        order = order_frames(self.order.currentData(), statuses, clues)
        self.table.show_frames(session, order[left[order]].tolist(), self._remarks)
        self.table.follow(shown)

    def _add_hints(self) -> None:
        hint(
            self.order,
            "Which frames come first. What takes time to find out is found out in the background\n"
            "when you choose the order, and again when you choose it again.",
        )
        hint(self.filter, "Which frames are in the queue; the one on show always is.")
        hint(
            self.search,
            "Only frames whose name, note, reason or finding contains this, in any case.",
        )
        hint(
            self.table,
            "One click or an arrow key shows a frame. With Shift or Ctrl several are selected:\n"
            "what you decide is then decided for all of them.",
            "next_in_queue",
            "previous_in_queue",
        )
