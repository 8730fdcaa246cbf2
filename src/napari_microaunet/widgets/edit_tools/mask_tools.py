"""Buttons for the mask operations of `editing.tools`, made from its table."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtWidgets import QDoubleSpinBox, QGridLayout, QPushButton, QWidget

from napari_microaunet.editing.labels import polyps_in
from napari_microaunet.editing.tools import MASK_TOOLS
from napari_microaunet.widgets.section import hint

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_microaunet.editing.labels import Mask
    from napari_microaunet.editing.tools import MaskTool, Parameter
    from napari_microaunet.widgets.edit_tools.edits import Edits


# On a key, these want the polyp under the cursor where there are several.
_TAKE_AWAY = frozenset({"delete", "polyp_to_ignore"})


class MaskTools(QWidget):
    """One button for each tool, with a box for each number that it takes.

    Parameters
    ----------
    edits : Edits
        What is edited.

    Attributes
    ----------
    buttons : dict of str to QPushButton
        By name of the tool.
    boxes : dict of (str, str) to QDoubleSpinBox
        By names of tool and parameter.
    """

    def __init__(self, edits: Edits) -> None:
        super().__init__()
        self._edits = edits
        self.buttons: dict[str, QPushButton] = {}
        self.boxes: dict[tuple[str, str], QDoubleSpinBox] = {}
        layout = QGridLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.setColumnStretch(0, 1)
        layout.setColumnStretch(1, 1)
        # Those with a number first, each in a row of its own; the others two in a row.
        for tool in sorted(MASK_TOOLS.values(), key=lambda tool: not tool.parameters):
            row, column = divmod(layout.count(), 2)
            layout.addWidget(self._button(tool), row, column)
            for column, parameter in enumerate(tool.parameters, start=1):
                layout.addWidget(self._box(tool, parameter), row, column)

    @property
    def actions(self) -> dict[str, Callable[[], object]]:
        """What it does on keys: each tool under its name."""
        return {
            f"tool_{name}": partial(self.run, tool, by_key=True)
            for name, tool in MASK_TOOLS.items()
        }

    def run(self, tool: MaskTool, *, by_key: bool = False) -> None:
        """Run a tool on the frame on show.

        Parameters
        ----------
        tool : MaskTool
            What to do.
        by_key : bool
            Whether it is meant for the polyp under the cursor; a button's is
            the chosen one.
        """
        edits = self._edits
        if not edits.can_edit():
            return
        label = edits.pointed_at() if by_key else edits.chosen
        before, areas = edits.mask, edits.areas
        if label is None and not (edits.all_polyps and before.any()):
            how = "; for what is ignored, choose all polyps" if before.any() else ""
            edits.say(f"{tool.title}: there is no polyp on this frame{how}.")
            return
        label = None if edits.all_polyps else label
        is_taken = by_key and label is not None and tool.name in _TAKE_AWAY
        if is_taken and len(areas) > 1 and edits.under_cursor() is None:
            edits.say(f"{tool.title}: there is no polyp under the cursor.")
            return
        numbers = {
            parameter.name: self.boxes[tool.name, parameter.name].value()
            for parameter in tool.parameters
        }
        after = tool.function(before, label, **numbers)
        whom = "all polyps" if label is None else f"polyp {label}"
        if not edits.apply(tool.title, after):
            edits.say(f"{tool.title}: nothing to change on {whom}.")
            return
        if label is not None:
            self._choose_again(after[before == label])
        gained = sum(edits.areas.values()) - sum(areas.values())
        changed = f"{np.count_nonzero(after != before):,} px changed"
        edits.say(f"{tool.title}, {whom}: {f'{gained:+,} px' if gained else changed}.")

    def _choose_again(self, now: Mask) -> None:
        """Have a polyp stay chosen under its new number, or as the smaller one; `now` it is."""
        numbers = now[polyps_in(now)]
        if numbers.size:
            self._edits.choose(int(np.bincount(numbers).argmax()))

    def _button(self, tool: MaskTool) -> QPushButton:
        button = self.buttons[tool.name] = QPushButton(tool.title)
        hint(button, tool.tooltip, f"tool_{tool.name}")
        button.clicked.connect(lambda: self.run(tool))
        return button

    def _box(self, tool: MaskTool, parameter: Parameter) -> QDoubleSpinBox:
        box = self.boxes[tool.name, parameter.name] = QDoubleSpinBox()
        box.setDecimals(0 if float(parameter.step).is_integer() else 1)
        box.setRange(parameter.least, parameter.most)
        box.setSingleStep(parameter.step)
        box.setValue(parameter.default)
        box.setSuffix(f" {parameter.unit}")
        box.setAccessibleName(f"{tool.title} {parameter.title}")
        hint(box, tool.tooltip)
        return box
