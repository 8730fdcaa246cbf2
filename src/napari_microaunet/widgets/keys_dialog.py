"""Where the user changes the keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import QDialog, QDialogButtonBox, QFormLayout, QKeySequenceEdit, QLabel, QWidget

from napari_microaunet.errors import InputError
from napari_microaunet.widgets.keys import ACTIONS, check_keys

if TYPE_CHECKING:
    from collections.abc import Mapping


class KeysDialog(QDialog):
    """All actions and their keys, to be changed.

    Parameters
    ----------
    keys : mapping of str to str
        Key of each action by name, as it is.
    parent : QWidget
        The dock.
    """

    def __init__(self, keys: Mapping[str, str], parent: QWidget) -> None:
        super().__init__(parent)
        self.setWindowTitle("Keys of MicroAUNet")
        self.edits = {action.name: QKeySequenceEdit() for action in ACTIONS}
        self.message = QLabel(wordWrap=True)
        layout = QFormLayout(self)
        for action in ACTIONS:
            self.edits[action.name].setKeySequence(QKeySequence(keys[action.name]))
            self.edits[action.name].keySequenceChanged.connect(self._check)
            layout.addRow(action.title, self.edits[action.name])
        layout.addRow(self.message)
        self.buttons = QDialogButtonBox(
            QDialogButtonBox.StandardButton.Ok
            | QDialogButtonBox.StandardButton.Cancel
            | QDialogButtonBox.StandardButton.RestoreDefaults
        )
        self.buttons.accepted.connect(self.accept)
        self.buttons.rejected.connect(self.reject)
        defaults = self.buttons.button(QDialogButtonBox.StandardButton.RestoreDefaults)
        defaults.clicked.connect(self._restore_defaults)
        layout.addRow(self.buttons)

    @property
    def keys(self) -> dict[str, str]:
        """Key of each action by name, as chosen."""
        portable = QKeySequence.SequenceFormat.PortableText
        return {name: edit.keySequence().toString(portable) for name, edit in self.edits.items()}

    def _restore_defaults(self) -> None:
        for action in ACTIONS:
            self.edits[action.name].setKeySequence(QKeySequence(action.key))

    def _check(self) -> None:
        problem = ""
        try:
            check_keys(self.keys)
        except InputError as error:
            problem = str(error)
        self.message.setText(problem)
        self.buttons.button(QDialogButtonBox.StandardButton.Ok).setEnabled(not problem)
