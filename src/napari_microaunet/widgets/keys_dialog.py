"""Where the user changes the keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app_model.backends.qt import QKeyBindingSequence, qkeysequence2modelkeybinding
from app_model.types import KeyBinding
from qtpy.QtCore import QSize
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QFormLayout,
    QFrame,
    QKeySequenceEdit,
    QLabel,
    QMenu,
    QMenuBar,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from napari_microaunet.errors import InputError
from napari_microaunet.widgets.keys import ACTIONS, check_keys, check_naparis_keys

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

# Fits a small laptop's screen; the table of keys is longer.
_SIZE = QSize(560, 600)


class KeysDialog(QDialog):
    """All actions and their keys, to be changed.

    Parameters
    ----------
    keys : mapping of str to str
        Key of each action by name, as it is.
    menus : collection of KeyBinding
        What napari's menus have, see `menu_keys`.
    parent : QWidget
        The dock.
    """

    def __init__(
        self, keys: Mapping[str, str], menus: Collection[KeyBinding], parent: QWidget
    ) -> None:
        super().__init__(parent)
        self._menus = menus
        self.setWindowTitle("Keys of MicroAUNet")
        self.edits = {action.name: QKeySequenceEdit() for action in ACTIONS}
        self.message = QLabel(wordWrap=True)
        form = QWidget()
        rows = QFormLayout(form)
        for action in ACTIONS:
            self.edits[action.name].setKeySequence(_to_qt(keys[action.name]))
            self.edits[action.name].keySequenceChanged.connect(self._check)
            rows.addRow(action.title, self.edits[action.name])
        scroll = QScrollArea(widgetResizable=True, frameShape=QFrame.Shape.NoFrame)
        scroll.setWidget(form)
        self.buttons = QDialogButtonBox(
            QDialogButtonBox.StandardButton.Ok
            | QDialogButtonBox.StandardButton.Cancel
            | QDialogButtonBox.StandardButton.RestoreDefaults
        )
        self.buttons.accepted.connect(self.accept)
        self.buttons.rejected.connect(self.reject)
        defaults = self.buttons.button(QDialogButtonBox.StandardButton.RestoreDefaults)
        defaults.clicked.connect(self._restore_defaults)
        layout = QVBoxLayout(self)
        layout.addWidget(scroll)
        layout.addWidget(self.message)
        layout.addWidget(self.buttons)
        self.resize(_SIZE)

    @property
    def keys(self) -> dict[str, str]:
        """Key of each action by name, as chosen."""
        sequences = {name: edit.keySequence() for name, edit in self.edits.items()}
        return {name: str(qkeysequence2modelkeybinding(keys)) for name, keys in sequences.items()}

    def _restore_defaults(self) -> None:
        for action in ACTIONS:
            self.edits[action.name].setKeySequence(_to_qt(action.key))

    def _check(self) -> None:
        problem = ""
        try:
            check_keys(self.keys)
            check_naparis_keys(self.keys, self._menus)
        except InputError as error:
            problem = str(error)
        self.message.setText(problem)
        self.buttons.button(QDialogButtonBox.StandardButton.Ok).setEnabled(not problem)


def menu_keys(window: QWidget) -> set[KeyBinding]:
    """Return the keys of a window's menus, which Qt serves before whatever has the keyboard.

    Parameters
    ----------
    window : QWidget
        napari's, or any part of it.

    Returns
    -------
    set of KeyBinding
        Shortcuts, and what opens a menu: Alt and a letter, on Linux and Windows.
    """
    while (parent := window.parentWidget()) is not None:
        window = parent
    sequences: list[QKeySequence] = []
    # The actions themselves are children of the application.
    for menu in window.findChildren(QMenu):
        sequences += [keys for action in menu.actions() for keys in action.shortcuts()]
    for bar in window.findChildren(QMenuBar):
        sequences += [QKeySequence.mnemonic(action.text()) for action in bar.actions()]
    return {qkeysequence2modelkeybinding(keys) for keys in sequences if not keys.isEmpty()}


def _to_qt(key: str) -> QKeySequence:
    """Give a key to Qt, which has other names for some: "PgDown" for "PageDown"."""
    return QKeyBindingSequence(KeyBinding.from_str(key))
