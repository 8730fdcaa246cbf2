"""What a section of the dock is, and the little that all of them share."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Protocol

from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QMessageBox,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_microaunet.curation.session import MaskOrigin

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from napari_microaunet.curation.session import FrameStatus
    from napari_microaunet.widgets.mask_layer import MaskLayer

_HINT, _ACTIONS = "microaunet_hint", "microaunet_actions"
_FEWEST_LETTERS = 12


class Section(Protocol):
    """One task in the dock: a QWidget.

    Attributes
    ----------
    title : str
        Its heading.
    actions : dict of str to callable
        What it does on the keys of `keys.ACTIONS`, by their names.
    """

    title: str
    actions: Mapping[str, Callable[[], object]]


class Foldable(QWidget):
    """A section under its heading, which folds and unfolds it.

    Parameters
    ----------
    title : str
        The heading.
    content : QWidget
        The section.
    unfolded : bool
        Whether it is at first.

    Attributes
    ----------
    heading : QPushButton
        What the user presses.
    chosen : Signal(bool)
        The user has unfolded it, or folded it.
    """

    chosen = Signal(bool)

    def __init__(self, title: str, content: QWidget, unfolded: bool = True) -> None:
        super().__init__()
        self._title = title
        self._content = content
        self.heading = QPushButton(objectName="heading")
        self.heading.setCheckable(True)
        self.heading.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.heading.toggled.connect(self._fold)
        self.heading.clicked.connect(self.chosen)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 6)
        layout.setSpacing(4)
        layout.addWidget(self.heading)
        layout.addWidget(content)
        self.heading.setChecked(unfolded)
        self._fold(unfolded)

    def unfold(self, unfolded: bool) -> None:
        """Unfold it, or fold it."""
        self.heading.setChecked(unfolded)

    def _fold(self, unfolded: bool) -> None:
        self.heading.setText(f"{'▾' if unfolded else '▸'} {self._title}")
        self._content.setVisible(unfolded)


def bring_into_sight(widget: QWidget) -> None:
    """Unfold what a widget lies in, and scroll to it."""
    parent = widget.parentWidget()
    while parent is not None:
        if isinstance(parent, Foldable):
            parent.unfold(True)
        elif isinstance(parent, QScrollArea):
            # Not before what has just been unfolded has its place.
            QTimer.singleShot(0, partial(parent.ensureWidgetVisible, widget))
        parent = parent.parentWidget()


def hint(widget: QWidget, text: str, *actions: str) -> None:
    """Give a widget its tooltip; the dock adds the keys of the actions it stands for."""
    widget.setProperty(_HINT, text)
    widget.setProperty(_ACTIONS, list(actions))
    widget.setToolTip(text)


def show_keys_in_hints(dock: QWidget, keys: Mapping[str, str]) -> None:
    """Write the keys of all actions into the tooltips of a dock."""
    for widget in dock.findChildren(QWidget):
        text, actions = widget.property(_HINT), widget.property(_ACTIONS)
        if text and actions:
            lines = " / ".join(keys[action] for action in actions if action in keys)
            widget.setToolTip(f"{text}\nKey: {lines}" if lines else text)


def may_replace(
    parent: QWidget, masks: MaskLayer | None, indices: list[int]
) -> dict[int, bytes] | None:
    """Ask whether masks that the user made or brought may be replaced.

    Parameters
    ----------
    parent : QWidget
        Where the question is shown.
    masks : MaskLayer or None
        The masks.
    indices : list of int
        Frames that are about to get another mask.

    Returns
    -------
    dict of int to bytes, or None
        Frames whose mask may be replaced, with its digest; None if nothing is
        to be done at all.
    """
    if masks is None:
        return {}
    theirs = {i: masks.chunks.digest(i) for i in indices if masks.is_users(i)}
    if not theirs:
        return {}
    kinds = Counter(_kind(masks.session.status(index)) for index in theirs)
    listed = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    question = QMessageBox(parent)
    question.setWindowTitle("Replace masks?")
    question.setText(
        f"{len(theirs)} of {len(indices)} frames have masks that are not the model's: {listed}."
    )
    question.setInformativeText("Replaced masks can be brought back with Ctrl+Z on their frame.")
    keep = question.addButton("Keep these masks", QMessageBox.ButtonRole.AcceptRole)
    replace = question.addButton("Replace them", QMessageBox.ButtonRole.DestructiveRole)
    question.addButton(QMessageBox.StandardButton.Cancel)
    question.setDefaultButton(keep)
    question.exec()
    if question.clickedButton() is keep:
        return {}
    return theirs if question.clickedButton() is replace else None


def _kind(status: FrameStatus) -> str:
    if status.state.is_decided:
        return status.state.value
    kinds = {MaskOrigin.FILE: "from files", MaskOrigin.PROPAGATED: "propagated"}
    return kinds.get(status.origin, "drawn or corrected by hand")


def as_wide_as_the_dock(*combos: QComboBox) -> None:
    """Keep long choices from making the dock wider; their ends show in the open list."""
    for combo in combos:
        combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        combo.setMinimumContentsLength(_FEWEST_LETTERS)


def primary_button(text: str) -> QPushButton:
    """Make one of the few buttons that stand out."""
    return QPushButton(text, objectName="primary")
