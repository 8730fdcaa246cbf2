"""Which sections of the dock are folded: as the user left them, or out of the way of review."""

from __future__ import annotations

import json
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from platformdirs import user_config_path
from qtpy.QtCore import QObject

from napari_microaunet.atomic import replacing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from qtpy.QtWidgets import QScrollArea

    from napari_microaunet.widgets.section import Foldable
    from napari_microaunet.widgets.workbench import Workbench

# What is done before review begins, and what review is done in.
_BEFORE, _REVIEW = ("Frames", "Pre-label"), ("Review", "Edit")


def user_sections_file() -> Path:
    """Path of what the user has folded: a JSON object from heading to whether it is unfolded."""
    return user_config_path("napari-microaunet", appauthor=False) / "sections.json"


class Folds(QObject):
    """Keeps what the user folds and unfolds, for the next window as well.

    When review begins, the sections that come before it are folded, once, unless
    the user has folded or unfolded them before.

    Parameters
    ----------
    bench : Workbench
        Whose frames are reviewed.
    sections : mapping of str to Foldable
        The sections by heading.
    scroll : QScrollArea
        What they lie in: what is on the screen there stays where it is.
    """

    def __init__(
        self, bench: Workbench, sections: Mapping[str, Foldable], scroll: QScrollArea
    ) -> None:
        super().__init__(scroll)
        self._bench, self._sections, self._scroll = bench, sections, scroll
        self._choices = _read()
        self._has_begun = False
        self._shown = bench.shown
        for title, section in sections.items():
            section.unfold(self._choices.get(title, True))
            section.chosen.connect(partial(self._on_chosen, title))
        bench.shown_changed.connect(self._on_shown)

    def _on_chosen(self, title: str, unfolded: bool) -> None:
        self._choices[title] = unfolded
        file = user_sections_file()
        # A choice that cannot be kept is not worth a message.
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            with replacing(file) as part:
                part.write(json.dumps(self._choices, indent=1).encode())
        if unfolded and title in _REVIEW:
            self._begin_review()

    def _on_shown(self, index: int) -> None:
        """Notice that the user is done with a frame, and not about to press a button again."""
        before, self._shown = self._shown, index
        work = self._bench.work
        if work is None or work.session is None or before >= len(work.sequence):
            return
        status = work.session.status(before)
        if status.strokes or status.state.is_decided:
            self._begin_review()

    def _begin_review(self) -> None:
        if self._has_begun:
            return
        self._has_begun = True
        bar = self._scroll.verticalScrollBar()
        at, height = bar.value(), 0
        for title in _BEFORE:
            if title not in self._choices:
                section = self._sections[title]
                height += section.height()
                section.unfold(False)
                height -= section.sizeHint().height()
        bar.setValue(max(0, at - height))


def _read() -> dict[str, bool]:
    try:
        found = json.loads(user_sections_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        # What is missing or damaged is no loss.
        return {}
    if not isinstance(found, dict):
        return {}
    return {title: unfolded for title, unfolded in found.items() if isinstance(unfolded, bool)}
