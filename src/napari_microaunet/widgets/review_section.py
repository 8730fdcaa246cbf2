"""Review: which frame is next, and what is decided about it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from napari.utils.notifications import show_info
from qtpy.QtCore import QPoint, Qt
from qtpy.QtGui import QCursor, QKeySequence, QShortcut
from qtpy.QtWidgets import (
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QMenu,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_microaunet.curation.session import ReviewState
from napari_microaunet.curation.session.edit_costs import FEWEST_FRAMES, looked_at
from napari_microaunet.widgets.activity import Activity
from napari_microaunet.widgets.edit_cost_panel import EditCostPanel
from napari_microaunet.widgets.progress_row import duration
from napari_microaunet.widgets.review_canvas import StateInPicture
from napari_microaunet.widgets.review_comparison import ComparisonRow
from napari_microaunet.widgets.review_decisions import Decisions
from napari_microaunet.widgets.review_queue import QueuePanel
from napari_microaunet.widgets.section import (
    Foldable,
    bring_into_sight,
    hint,
    primary_button,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_microaunet.curation.session import Session
    from napari_microaunet.widgets.workbench import Workbench

_BAR_HEIGHT = 4

REASONS = ("glare", "blur", "instrument", "not mucosa", "duplicate")
"""Why frames are excluded, for the most part."""


class ReviewSection(QWidget):
    """How far the work is, the queue of frames, and what is decided about them."""

    title = "Review"

    def __init__(self, bench: Workbench) -> None:
        super().__init__()
        self._bench = bench
        self._decisions = Decisions(bench)
        self._activity = Activity(bench)
        self._in_picture = StateInPicture(bench.viewer)

        self.progress = QLabel(wordWrap=True)
        self.bar = QProgressBar(textVisible=False)
        self.bar.setFixedHeight(_BAR_HEIGHT)
        self.comparison = ComparisonRow(bench)
        self.comparison.said.connect(self._say)
        self.panel = QueuePanel(bench, self.comparison.other_model)
        self.queue = self.panel.table
        bench.selected = lambda: self.queue.selected
        self.queue.selectionModel().selectionChanged.connect(bench.selected_changed)
        self.queue.entered.connect(self._leave_dock)
        self.queue.customContextMenuRequested.connect(self._show_menu)

        self.accept_button = primary_button("Accept")
        self.negative_button = QPushButton("No polyp")
        self.exclude_button = QPushButton("Exclude…")
        self.note_button = QPushButton("Note…")
        self.undo_button = QPushButton("Undo")
        self.redo_button = QPushButton("Redo")
        self.reopen_button = QPushButton("Reopen")
        self.message = QLabel(wordWrap=True)
        self._asked = QLabel()
        self.answer = QLineEdit()
        self._answered: Callable[[str], None] | None = None
        # What was there before anything was typed, where that counts without Enter.
        self._unless: str | None = None
        self._add_hints()

        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 0, 8, 0)
        layout.setSpacing(5)
        layout.addWidget(self.progress)
        layout.addWidget(self.bar)
        layout.addWidget(self.panel)
        layout.addWidget(self.accept_button)
        buttons = QGridLayout()
        buttons.setSpacing(5)
        for place, button in enumerate(self._decision_buttons):
            buttons.addWidget(button, *divmod(place, 3))
        layout.addLayout(buttons)
        layout.addWidget(self.comparison)
        question = QHBoxLayout()
        question.addWidget(self._asked)
        question.addWidget(self.answer)
        layout.addLayout(question)
        layout.addWidget(self.message)
        self.costs = EditCostPanel(bench)
        layout.addWidget(Foldable("Edit cost", self.costs, unfolded=False))

        self.accept_button.clicked.connect(self.accept)
        self.negative_button.clicked.connect(self.accept_as_negative)
        self.exclude_button.clicked.connect(self._exclude_from_button)
        self.note_button.clicked.connect(self.note)
        self.undo_button.clicked.connect(self.undo)
        self.redo_button.clicked.connect(self.redo)
        self.reopen_button.clicked.connect(self.reopen)
        self.answer.returnPressed.connect(self._take_answer)
        escape = QShortcut(QKeySequence(Qt.Key.Key_Escape), self.answer)
        escape.setContext(Qt.ShortcutContext.WidgetShortcut)
        escape.activated.connect(self._end_question)
        bench.work_changed.connect(self._on_work)
        bench.shown_changed.connect(self._show_state)
        bench.status_changed.connect(self._on_status)
        bench.closing.connect(self._leave_question)
        bench.closing.connect(self._in_picture.hide)
        self.panel.refreshed.connect(self._on_refreshed)
        self._asked.hide()
        self.answer.hide()
        self._on_work()

    @property
    def actions(self) -> dict[str, Callable[[], object]]:
        """What the section does on keys."""
        return {
            "accept": self.accept,
            "accept_as_negative": self.accept_as_negative,
            "exclude": self.exclude,
            "reopen": self.reopen,
            "next_in_queue": partial(self.panel.step, 1),
            "previous_in_queue": partial(self.panel.step, -1),
            "note": self.note,
            "undo_review": self.undo,
            "redo_review": self.redo,
            "masks_visible": self.switch_masks,
            "compare": self.comparison.button.click,
        }

    @property
    def _decision_buttons(self) -> tuple[QPushButton, ...]:
        return (
            self.negative_button,
            self.exclude_button,
            self.note_button,
            self.undo_button,
            self.redo_button,
            self.reopen_button,
        )

    @property
    def obstacle(self) -> str | None:
        """Why nothing can be decided, in a sentence; None if it can."""
        work = self._bench.work
        if work is None or work.masks is None or work.session is None:
            return "Open frames to review them."
        return work.session.notice

    # Decisions

    def accept(self) -> None:
        """Accept the selected frames, or the one on show and go on."""
        targets = self._targets()
        if targets:
            self._decisions.accept(targets, partial(self._decided, targets))

    def accept_as_negative(self) -> None:
        """Accept the selected frames as showing no polyp, or the one on show and go on."""
        targets = self._targets()
        if targets:
            self._decided(targets, self._decisions.accept_as_negative(targets))

    def exclude(self) -> None:
        """Ask why the selected frames, or the one on show, are to be left out."""
        self._ask_reason(QCursor.pos())

    def reopen(self) -> None:
        """Take back the decision about the selected frames, or the one on show."""
        targets = self._targets()
        if targets:
            self._say(self._decisions.reopen(targets))

    def note(self) -> None:
        """Ask for a note on the selected frames, or the one on show."""
        self._leave_question()
        targets, session = self._targets(), self._session
        if targets and session is not None:
            known = {session.status(index).note for index in targets}
            text = known.pop() if len(known) == 1 else ""
            self._ask(f"Note, {_named(targets)}", text, partial(self._note, session, targets), True)

    def undo(self) -> None:
        """Take back the last decision."""
        if self._targets():
            self._say(self._decisions.undo())

    def redo(self) -> None:
        """Decide again what was taken back."""
        if self._targets():
            self._say(self._decisions.redo())

    def _targets(self) -> list[int]:
        """List the frames that are decided on; none, with a word to the user, if none can be."""
        if self.obstacle is not None:
            show_info(self.obstacle)
            return []
        if self._bench.is_drawing() or not self._bench.edits_underway.finish():
            return []
        self._activity.flush()
        selected = self.queue.selected
        return selected if len(selected) > 1 else [self._bench.shown]

    def _decided(self, targets: Sequence[int], message: str) -> None:
        self._say(message)
        session = self._session
        one_done = (
            session is not None
            and len(targets) == 1
            and session.status(targets[0]).state.is_decided
        )
        if one_done and not self.panel.go_to_next():
            self._say(f"{message} All frames of the queue are done.")

    def _note(self, session: Session, targets: Sequence[int], text: str) -> None:
        if session is self._session:
            self._say(self._decisions.note(targets, text))
        elif not session.read_only:
            session.note(targets, text)

    def _exclude(self, targets: Sequence[int], reason: str) -> None:
        if reason:
            self._decided(targets, self._decisions.exclude(targets, reason))

    def _exclude_from_button(self) -> None:
        self._ask_reason(self.exclude_button.mapToGlobal(QPoint(0, self.exclude_button.height())))

    def _ask_reason(self, where: QPoint) -> None:
        targets = self._targets()
        if not targets:
            return
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        what = _named(targets)
        menu.addAction(f"Exclude {what}, why?").setEnabled(False)
        for number, reason in enumerate(REASONS, 1):
            menu.addAction(f"&{number}  {reason}", partial(self._exclude, targets, reason))
        other = partial(self._ask, f"Reason, {what}", "", partial(self._exclude, targets))
        menu.addAction(f"&{len(REASONS) + 1}  other…", other)
        menu.popup(where)

    def _show_menu(self, where: QPoint) -> None:
        if self.obstacle is not None:
            return
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.addAction("Accept", self.accept)
        menu.addAction("Accept as negative: no polyp", self.accept_as_negative)
        menu.addAction("Exclude…", self.exclude)
        menu.addAction("Note…", self.note)
        menu.addSeparator()
        menu.addAction("Take back the decision", self.reopen)
        menu.popup(self.queue.viewport().mapToGlobal(where))

    # Questions that are answered in a line

    def _ask(
        self, what: str, text: str, answered: Callable[[str], None], as_typed: bool = False
    ) -> None:
        """Ask something; `as_typed`: what has been typed counts without Enter as well."""
        self._leave_question()
        self._answered = answered
        self._unless = text if as_typed else None
        self._asked.setText(what)
        self.answer.setText(text)
        self._asked.show()
        self.answer.show()
        bring_into_sight(self.answer)
        self.answer.selectAll()
        self.answer.setFocus()

    def _take_answer(self) -> None:
        answered, text = self._answered, self.answer.text().strip()
        self._end_question()
        if answered is not None:
            answered(text)

    def _leave_question(self) -> None:
        """End a question because something else has come; a note that was typed is kept."""
        if self._answered is None:
            return
        if self._unless is None or self._unless == self.answer.text().strip():
            self._end_question()
        else:
            self._take_answer()

    def _end_question(self) -> None:
        self._answered = None
        self._asked.hide()
        self.answer.hide()
        self._leave_dock()

    def _leave_dock(self) -> None:
        self.window().setFocus()

    def switch_masks(self) -> None:
        """Hide the masks, or show them again."""
        work = self._bench.work
        if work is not None and work.masks is not None:
            work.masks.layer.visible = not work.masks.layer.visible

    # What is shown

    @property
    def _session(self) -> Session | None:
        work = self._bench.work
        return None if work is None or work.masks is None else work.session

    def _on_work(self) -> None:
        self._leave_question()
        obstacle = self.obstacle
        for button in (self.accept_button, *self._decision_buttons):
            button.setEnabled(obstacle is None)
        self._say(obstacle or "")
        self._show_progress()
        self._show_state()

    def _on_status(self, indices: Sequence[int]) -> None:
        if self._bench.shown in indices:
            self._show_state()

    def _show_state(self) -> None:
        session = self._session
        if session is None:
            self._in_picture.hide()
        else:
            shown = self._bench.shown
            self._in_picture.show(session.status(shown), self.panel.finding(shown))

    def _on_refreshed(self) -> None:
        self._show_progress()
        self._show_state()

    def _show_progress(self) -> None:
        session = self._session
        self.costs.refresh()
        for widget in (self.progress, self.bar):
            widget.setVisible(session is not None)
        if session is None:
            return
        states = [status.state for status in session.statuses]
        accepted = states.count(ReviewState.ACCEPTED)
        done = accepted + states.count(ReviewState.EXCLUDED)
        self.bar.setMaximum(len(states))
        self.bar.setValue(done)
        self.progress.setText(
            " · ".join([f"{done} of {len(states)} done", *_pace(session, states)])
        )

    def _say(self, message: str) -> None:
        self.message.setText(message)

    def _add_hints(self) -> None:
        hint(
            self.progress,
            "Frames that are accepted or excluded. The time left is estimated from the pace of\n"
            "the frames that you looked at and accepted last; pauses do not count.",
        )
        hint(
            self.accept_button,
            "The mask is right: go on to the next frame that is not done, in the order of the\n"
            "table. With several rows selected, accepts all of them.",
            "accept",
        )
        hint(
            self.negative_button,
            "There is no polyp in the frame: its mask is emptied and accepted as negative.",
            "accept_as_negative",
        )
        hint(
            self.exclude_button,
            "The frame is of no use: it is left out of training and exports, and its mask stays.",
            "exclude",
        )
        hint(self.note_button, "Write down something about the frame.", "note")
        hint(
            self.undo_button,
            "Take back the last decision or note, of all frames that it was made for.\n"
            "Strokes are taken back with Ctrl+Z.",
            "undo_review",
        )
        hint(self.redo_button, "Decide again what was taken back.", "redo_review")
        hint(
            self.reopen_button,
            "The frame is to be done again: neither accepted nor excluded. Its mask stays.",
            "reopen",
        )


def _named(targets: Sequence[int]) -> str:
    return f"frame {targets[0]}" if len(targets) == 1 else f"{len(targets)} frames"


def _pace(session: Session, states: Sequence[ReviewState]) -> list[str]:
    """Say how fast the work goes and how long it will take."""
    left = sum(not state.is_decided for state in states)
    if not left:
        return []
    seconds = session.time_left()
    if seconds is not None:
        return [f"{seconds / left:.0f} s a frame", f"about {duration(seconds)} left"]
    more = FEWEST_FRAMES - len(looked_at(session.edit_costs()))
    return [f"time left after {more} more"] if more < left else []
