"""The dock: sections in the order of the work, the job that is running, the keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app_model.backends.qt import qkeycombo2modelkey
from app_model.types import KeyBinding
from napari.utils.notifications import show_error
from qtpy.QtCore import QEvent, QSize, Qt, QTimer
from qtpy.QtWidgets import (
    QAbstractItemView,
    QFrame,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from napari_microaunet.errors import InputError
from napari_microaunet.widgets.check_section import CheckSection
from napari_microaunet.widgets.edit_section import EditSection
from napari_microaunet.widgets.export_section import ExportSection
from napari_microaunet.widgets.finetune_section import FinetuneSection
from napari_microaunet.widgets.folds import Folds
from napari_microaunet.widgets.frames_section import FramesSection
from napari_microaunet.widgets.keys import (
    ACTIONS,
    KeyBindings,
    load_keys,
    save_keys,
    user_keys_file,
)
from napari_microaunet.widgets.keys_dialog import KeysDialog, menu_keys
from napari_microaunet.widgets.models_section import ModelsSection
from napari_microaunet.widgets.prelabel_section import PrelabelSection
from napari_microaunet.widgets.progress_row import ProgressRow
from napari_microaunet.widgets.review_section import ReviewSection
from napari_microaunet.widgets.section import Foldable, Section, hint, show_keys_in_hints
from napari_microaunet.widgets.style import style_sheet
from napari_microaunet.widgets.workbench import Workbench

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import napari.viewer
    from qtpy.QtCore import QObject
    from qtpy.QtGui import QKeyEvent

# In the order of the work; a new section is one file and one line here.
SECTIONS: tuple[Callable[[Workbench], Section], ...] = (
    FramesSection,
    PrelabelSection,
    ReviewSection,
    EditSection,
    ExportSection,
    CheckSection,
    FinetuneSection,
    ModelsSection,
)
# napari's keys that mean something to whoever looks at a list: other frames, undo, a brush or the
# eraser. Of the keys of Edit those do that take a tool in hand, and those that do not go by the
# cursor.
_KEYS_FROM_LISTS = ("Left", "Right", "Ctrl+Z", "Ctrl+Shift+Z", "P", "E")
_EDITS_FROM_LISTS = {
    *("brush", "ignore_brush", "new_polyp", "boundary", "clicks", "scissors"),
    *("all_polyps", "propagate", "apply_propagation", "copy_from_previous"),
}


class MicroAUNetDock(QWidget):
    """Everything that the plugin offers in napari's window.

    Parameters
    ----------
    viewer : Viewer
        The viewer that the dock is in; napari passes it.

    Attributes
    ----------
    bench : Workbench
        What the sections share.
    sections : dict of str to Section
        The sections by title.
    foldables : dict of str to Foldable
        What folds each of them.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        # napari hands plugins a proxy that wraps every layer anew on each access; the workbench
        # tells layers apart by identity. Only public attributes are used all the same.
        viewer = getattr(viewer, "__wrapped__", viewer)
        self.bench = Workbench(viewer)
        self.sections: dict[str, Section] = {}
        self.foldables: dict[str, Foldable] = {}

        column = QVBoxLayout()
        column.setContentsMargins(0, 0, 0, 0)
        for make in SECTIONS:
            section = make(self.bench)
            self.sections[section.title] = section
            self.foldables[section.title] = Foldable(section.title, section)
            column.addWidget(self.foldables[section.title])
        column.addStretch()
        content = QWidget()
        content.setLayout(column)
        scroll = _ScrollArea(widgetResizable=True, frameShape=QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(content)
        self._folds = Folds(self.bench, self.foldables, scroll)
        keys_button = QPushButton("Keys…")
        hint(keys_button, "See and change the keys of everything in this dock.")
        keys_button.clicked.connect(self.change_keys)
        layout = QVBoxLayout(self)
        layout.addWidget(scroll)
        self.progress = ProgressRow(self.bench)
        layout.addWidget(self.progress)
        layout.addWidget(keys_button)

        try:
            self._keys = load_keys(user_keys_file())
        except InputError as error:
            self._keys = {action.name: action.key for action in ACTIONS}
            show_error(str(error))
        self._bindings = self._bind_keys(self._keys)
        self.bench.work_changed.connect(self._bind_keys_on_masks)
        viewer.events.theme.connect(self._restyle)
        self._restyle()
        # napari puts the dock into its window only after this.
        QTimer.singleShot(0, self._watch_window)

    def change_keys(self) -> None:
        """Let the user change keys."""
        dialog = KeysDialog(self._keys, menu_keys(self), self)
        if dialog.exec() != KeysDialog.DialogCode.Accepted:
            return
        try:
            save_keys(user_keys_file(), dialog.keys)
        except InputError as error:
            show_error(str(error))
        self._keys = dialog.keys
        self._bindings.unbind()
        self._bindings = self._bind_keys(self._keys)
        self._bind_keys_on_masks()

    def focus(self) -> None:
        """Move the keyboard to the dock."""
        self.setFocus()
        self.focusNextChild()

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802 - Qt's name
        """Go back to the picture on Escape; other keys are napari's, from lists only some."""
        if event.key() == Qt.Key.Key_Escape:
            self.window().setFocus()
        elif isinstance(self.focusWidget(), QAbstractItemView) and not self._acts_from_list(event):
            event.accept()
        else:
            super().keyPressEvent(event)

    def event(self, event: QEvent) -> bool:
        """Stop everything when napari takes the dock out of its window."""
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self._close()
        return bool(super().event(event))

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        """Stop everything when the window goes for good, the dock with it."""
        if event.type() == QEvent.Type.DeferredDelete:
            self._close()
        return bool(super().eventFilter(watched, event))

    def _acts_from_list(self, event: QKeyEvent) -> bool:
        """Tell whether a key means something to whoever looks at a list, and not at the picture."""
        edits = self.sections[EditSection.title].actions.keys() - _EDITS_FROM_LISTS
        keys = [key for name, key in self._bindings.active.items() if name not in edits]
        pressed = KeyBinding.from_int(int(qkeycombo2modelkey(event.keyCombination())))
        return pressed in map(KeyBinding.from_str, (*keys, *_KEYS_FROM_LISTS))

    def _watch_window(self) -> None:
        window: QWidget = self
        # Not `window()`: a floating dock is one of its own.
        while (parent := window.parentWidget()) is not None:
            window = parent
        window.installEventFilter(self)

    def _close(self) -> None:
        self._bindings.unbind()
        self.bench.close()

    def _bind_keys(self, keys: Mapping[str, str]) -> KeyBindings:
        actions: dict[str, Callable[[], object]] = {"focus_dock": self.focus}
        for section in self.sections.values():
            actions |= section.actions
        bindings = KeyBindings(self.bench.viewer, actions, keys)
        show_keys_in_hints(self, bindings.active)
        return bindings

    def _bind_keys_on_masks(self) -> None:
        work = self.bench.work
        if work is not None and work.masks is not None:
            self._bindings.bind(work.masks.layer)

    def _restyle(self) -> None:
        self.setStyleSheet(style_sheet(self.bench.viewer.theme))


class _ScrollArea(QScrollArea):
    """Scrolls up and down only, so it is never narrower than what is in it."""

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802 - Qt's name
        """Leave arrows and Page keys to napari and to the queue, instead of scrolling."""
        event.ignore()

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        bar = self.verticalScrollBar().sizeHint().width()
        return QSize(self.widget().minimumSizeHint().width() + bar, 200)
