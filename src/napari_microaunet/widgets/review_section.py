"""Review: which frame is next, and what is decided about it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from magicgui.widgets import ComboBox
from napari.utils.notifications import show_info
from qtpy.QtCore import QPoint, Qt, QTimer
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
from napari_microaunet.curation.session.edit_costs import FEWEST_FRAMES
from napari_microaunet.networks.library import Model, list_models
from napari_microaunet.prelabel.masks import mask_from
from napari_microaunet.prelabel.probability import ProbabilityMap
from napari_microaunet.widgets.activity import Activity
from napari_microaunet.widgets.edit_cost_panel import EditCostPanel
from napari_microaunet.widgets.prelabel_jobs import Predictors
from napari_microaunet.widgets.progress_row import duration
from napari_microaunet.widgets.review_canvas import Comparison, StateInPicture
from napari_microaunet.widgets.review_decisions import Decisions
from napari_microaunet.widgets.review_jobs import compare_shown
from napari_microaunet.widgets.review_table import ReviewQueue
from napari_microaunet.widgets.section import Foldable, hint, primary_button

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from napari_microaunet.curation.session import Session
    from napari_microaunet.widgets.jobs import Job
    from napari_microaunet.widgets.workbench import Workbench

_DONE = (ReviewState.ACCEPTED, ReviewState.EXCLUDED)
# A burst of changes is shown once: counting takes its time with 20,000 frames.
_REFRESH_MS = 250
_BAR_HEIGHT = 4
_COMPARED_FIRST = "teacher"
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
        self._comparison = Comparison(bench.viewer)
        self._predictors = Predictors()
        self._comparing: Job | None = None

        self.progress = QLabel(wordWrap=True)
        self.bar = QProgressBar(textVisible=False)
        self.bar.setFixedHeight(_BAR_HEIGHT)
        self.queue = ReviewQueue()
        self.queue.go_to.connect(bench.go_to)
        self.queue.entered.connect(self._leave_dock)
        self.queue.customContextMenuRequested.connect(self._show_menu)

        self.accept_button = primary_button("Accept")
        self.negative_button = QPushButton("No polyp")
        self.exclude_button = QPushButton("Exclude…")
        self.note_button = QPushButton("Note…")
        self.compare_button = QPushButton("Compare", checkable=True)
        self.undo_button = QPushButton("Undo")
        self.redo_button = QPushButton("Redo")
        self.reopen_button = QPushButton("Reopen")
        self.other_model = ComboBox(label="Compare with", choices=_other_models)
        self.message = QLabel(wordWrap=True)
        self._asked = QLabel()
        self.answer = QLineEdit()
        self._answered: Callable[[str], None] | None = None
        self._add_hints()

        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 0, 8, 0)
        layout.setSpacing(5)
        layout.addWidget(self.progress)
        layout.addWidget(self.bar)
        layout.addWidget(self.queue)
        layout.addWidget(self.accept_button)
        buttons = QGridLayout()
        buttons.setSpacing(5)
        for place, button in enumerate(self._decision_buttons):
            buttons.addWidget(button, *divmod(place, 3))
        layout.addLayout(buttons)
        comparison = QHBoxLayout()
        comparison.addWidget(QLabel(self.other_model.label))
        comparison.addWidget(self.other_model.native, 1)
        comparison.addWidget(self.compare_button)
        layout.addLayout(comparison)
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
        self.compare_button.toggled.connect(self._compare)
        self.other_model.changed.connect(self._compare)
        self.undo_button.clicked.connect(self.undo)
        self.redo_button.clicked.connect(self.redo)
        self.reopen_button.clicked.connect(self.reopen)
        self.answer.returnPressed.connect(self._take_answer)
        escape = QShortcut(QKeySequence(Qt.Key.Key_Escape), self.answer)
        escape.setContext(Qt.ShortcutContext.WidgetShortcut)
        escape.activated.connect(self._end_question)
        self._refresh = QTimer(self)
        self._refresh.setInterval(_REFRESH_MS)
        self._refresh.setSingleShot(True)
        self._refresh.timeout.connect(self._on_refresh)
        bench.work_changed.connect(self._on_work)
        bench.shown_changed.connect(self._on_shown)
        bench.frame_changed.connect(self._on_frame)
        bench.status_changed.connect(self._on_status)
        bench.closing.connect(self._on_closing)
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
            "next_in_queue": partial(self.step, 1),
            "previous_in_queue": partial(self.step, -1),
            "note": self.note,
            "undo_review": self.undo,
            "redo_review": self.redo,
            "masks_visible": self.switch_masks,
            "compare": self.compare_button.click,
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
        targets, session = self._targets(), self._session
        if targets and session is not None:
            known = {session.status(index).note for index in targets}
            self._ask("Note", known.pop() if len(known) == 1 else "", partial(self._note, targets))

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
        self._activity.flush()
        selected = self.queue.selected
        return selected if len(selected) > 1 else [self._bench.shown]

    def _decided(self, targets: Sequence[int], message: str) -> None:
        self._say(message)
        session = self._session
        if session is not None and len(targets) == 1 and _is_done(session, targets[0]):
            self._go_to_next_doubtful(session)

    def _note(self, targets: Sequence[int], text: str) -> None:
        self._say(self._decisions.note(targets, text))

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
        menu.addSection(f"Why {'this frame' if len(targets) == 1 else f'{len(targets)} frames'}?")
        for number, reason in enumerate(REASONS, 1):
            menu.addAction(f"&{number}  {reason}", partial(self._exclude, targets, reason))
        other = partial(self._ask, "Reason", "", partial(self._exclude, targets))
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

    def _ask(self, what: str, text: str, answered: Callable[[str], None]) -> None:
        self._answered = answered
        self._asked.setText(what)
        self.answer.setText(text)
        self._asked.show()
        self.answer.show()
        self.answer.selectAll()
        self.answer.setFocus()

    def _take_answer(self) -> None:
        answered, text = self._answered, self.answer.text().strip()
        self._end_question()
        if answered is not None:
            answered(text)

    def _end_question(self) -> None:
        self._answered = None
        self._asked.hide()
        self.answer.hide()
        self._leave_dock()

    def _leave_dock(self) -> None:
        self.window().setFocus()

    # Getting about

    def step(self, by: int) -> None:
        """Go to another frame of the queue, so many rows further down."""
        frames = self.queue.table.frames
        row = self.queue.table.row_of(self._bench.shown) + by
        if 0 <= row < len(frames):
            self._bench.go_to(int(frames[row]))

    def switch_masks(self) -> None:
        """Hide the masks, or show them again."""
        work = self._bench.work
        if work is not None and work.masks is not None:
            work.masks.layer.visible = not work.masks.layer.visible

    def _go_to_next_doubtful(self, session: Session) -> None:
        frames = self.queue.table.frames
        row = self.queue.table.row_of(self._bench.shown) + 1
        for index in (*frames[row:], *frames[:row]):
            if not _is_done(session, int(index)):
                self._bench.go_to(int(index))
                return
        self._say(f"{self.message.text()} All frames of the queue are done.")

    # Comparing

    def _compare(self) -> None:
        """Draw where the other model's mask differs from the one on show, if that is wanted."""
        self._comparison.hide()
        work, index = self._bench.work, self._bench.shown
        wanted = self.compare_button.isChecked() and self.obstacle is None
        if not wanted or work is None or work.masks is None or index in work.sequence.problems:
            return
        model = self.other_model.value
        kept = work.masks.session.map(index, "compared")
        if kept is None or kept.card_sha256 != model.card.sha256:
            self._ask_other_model(model)
            return
        frame = work.sequence.frames[index]
        probability = ProbabilityMap(kept.values, kept.field, (frame.height, frame.width))
        settings = replace(self._bench.settings, threshold=model.card.threshold)
        mask, other = work.masks.chunks.mask(index), mask_from(probability, settings)
        self._comparison.show(work.masks.layer, mask, other)
        self._say(
            f"{model.name}: white is its outline and what it alone marks, dark what it leaves "
            f"out. Dice with the mask on show {_dice(mask, other):.2f}."
        )

    def _ask_other_model(self, model: Model) -> None:
        if self._comparing is None:
            predictor = partial(self._predictors.get, model, "auto")
            self._comparing = compare_shown(self._bench, model, predictor)
            self._comparing.ended.connect(self._on_compared)
            self._comparing.start(in_passing=True)

    def _on_compared(self, complete: bool) -> None:
        self._comparing = None
        if complete:
            # The user may have gone on to another frame meanwhile.
            self._compare()

    def _on_frame(self, index: int) -> None:
        if index == self._bench.shown and self.compare_button.isChecked():
            self._compare()

    # What is shown

    @property
    def _session(self) -> Session | None:
        work = self._bench.work
        return None if work is None or work.masks is None else work.session

    def _on_work(self) -> None:
        if self._answered is not None:
            self._end_question()
        obstacle = self.obstacle
        for button in (self.accept_button, *self._decision_buttons, self.compare_button):
            button.setEnabled(obstacle is None)
        self.other_model.enabled = obstacle is None
        self.other_model.reset_choices()
        if self._session is None:
            self._comparison.remove()
        self._say(obstacle or "")
        self._on_refresh()
        self._on_shown(self._bench.shown)

    def _on_closing(self) -> None:
        self._in_picture.hide()
        self._comparison.remove()

    def _on_shown(self, index: int) -> None:
        session = self._session
        if session is None:
            self._in_picture.hide()
            return
        self._in_picture.show(session.status(index))
        if self.queue.table.row_of(index) < 0:
            self._list_frames(session)
        self.queue.follow(index)
        self._compare()

    def _on_status(self, indices: Sequence[int]) -> None:
        session, shown = self._session, self._bench.shown
        if session is None:
            return
        self.queue.table.update_frames(indices)
        if shown in indices:
            self._in_picture.show(session.status(shown))
        self._refresh.start()

    def _on_refresh(self) -> None:
        session = self._session
        self._show_progress(session)
        self.costs.refresh()
        if session is None:
            self.queue.show_frames(None, (), {})
        else:
            self._list_frames(session)

    def _list_frames(self, session: Session) -> None:
        self.queue.show_frames(session, range(len(session.sequence)), {})
        self.queue.follow(self._bench.shown)

    def _show_progress(self, session: Session | None) -> None:
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
            " · ".join([f"{done} of {len(states)} done", *_pace(session, states, accepted)])
        )

    def _say(self, message: str) -> None:
        self.message.setText(message)

    def _add_hints(self) -> None:
        hint(
            self.progress,
            "Frames that are accepted or excluded. The time left is estimated from the pace of\n"
            "the frames that you accepted last; pauses do not count.",
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
        hint(
            self.compare_button,
            "Show where another model's mask differs from the one on show. Again: no longer.",
            "compare",
        )
        hint(
            self.other_model.native,
            "The model that masks are compared with, here and in the order by disagreement.",
        )
        hint(self.redo_button, "Decide again what was taken back.", "redo_review")
        hint(
            self.reopen_button,
            "The frame is to be done again: neither accepted nor excluded. Its mask stays.",
            "reopen",
        )
        hint(
            self.queue,
            "One click or an arrow key shows a frame. With Shift or Ctrl several are selected:\n"
            "what you decide is then decided for all of them.",
            "next_in_queue",
            "previous_in_queue",
        )


def _other_models(_widget: object) -> list[tuple[str, Model]]:
    """List all models, the one that the student is best compared with first."""
    models = sorted(list_models(), key=lambda model: model.name != _COMPARED_FIRST)
    return [(model.name, model) for model in models]


def _dice(mask: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Dice of all that is marked in two masks; 1 where nothing is in either."""
    both = np.count_nonzero((mask > 0) & (other > 0))
    either = np.count_nonzero(mask) + np.count_nonzero(other)
    return 2 * both / either if either else 1.0


def _is_done(session: Session, index: int) -> bool:
    return session.status(index).state in _DONE


def _pace(session: Session, states: Sequence[ReviewState], accepted: int) -> list[str]:
    """Say how fast the work goes and how long it will take."""
    left = len(states) - sum(state in _DONE for state in states)
    if not left:
        return []
    seconds = session.time_left()
    if seconds is not None:
        return [f"{seconds / left:.0f} s a frame", f"about {duration(seconds)} left"]
    more = FEWEST_FRAMES - accepted
    return [f"time left after {more} more"] if more < left else []
