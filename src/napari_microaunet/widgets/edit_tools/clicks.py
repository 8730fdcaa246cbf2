"""Clicks: each says what belongs to a polyp and what does not; the mask follows."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from napari.layers import Points

from napari_microaunet.editing.clicks import refine
from napari_microaunet.editing.labels import free_labels, label_at
from napari_microaunet.widgets.edit_tools.in_passing import InPassing
from napari_microaunet.widgets.edit_tools.mode import ClickMode
from napari_microaunet.widgets.mask_layer import geometry_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_microaunet.editing.labels import Mask
    from napari_microaunet.widgets.edit_tools.edits import Edits

# A click on background means the nearest of the polyps that are no further than this share of the
# radius of a disc as large as the polyp; where there is none it begins a new one.
_BELONGS = 1.0
# Size of the marks on the screen, in pixels, when the first one is set.
_MARK = 14
_WITHIN, _OUTSIDE = "#00c853", "#ff1744"


class Clicks(NamedTuple):
    """What has been clicked about one polyp; places are (row, column) of the frame."""

    label: int
    positive: tuple[tuple[int, int], ...] = ()
    negative: tuple[tuple[int, int], ...] = ()


class ClickRefinement(ClickMode):
    """Left clicks belong to a polyp, right clicks do not.

    Clicks stay in force and on show until another polyp or frame is clicked, or
    until the mask is changed by something else.
    """

    title = "Clicks"
    help = (
        "Clicks: left on what belongs to the polyp, right (or Shift) on what does not; "
        "Escape leaves."
    )

    def __init__(self, edits: Edits) -> None:
        super().__init__(edits)
        self._work = InPassing(edits)
        # Clicks that a mask came from, by its digest: an undo takes them back as well.
        self._clicks_of: dict[bytes, Clicks] = {}
        self._waiting: list[tuple[tuple[int, int], bool]] = []
        edits.changed.connect(self._show_clicks)

    @property
    def actions(self) -> dict[str, Callable[[], object]]:
        """What it does on keys."""
        return {"clicks": self.toggle}

    @property
    def is_busy(self) -> bool:
        """Whether the mask of a click is being computed."""
        return self._work.is_busy

    def begin(self) -> bool:
        """Take in clicks."""
        self._clicks_of.clear()
        self._waiting.clear()
        return super().begin()

    def end(self) -> None:
        """Forget the clicks."""
        if self._waiting:
            self.edits.say(f"Clicks: {len(self._waiting)} came too late and were not used.")
        self._waiting.clear()
        super().end()

    def clicked(self, point: tuple[float, float], secondary: bool) -> None:
        """Refine a polyp by a click; `secondary` says that it does not belong to it."""
        pixel = round(point[0]), round(point[1])
        if all(0 <= at < length for at, length in zip(pixel, self.edits.mask.shape, strict=True)):
            self._waiting.append((pixel, not secondary))
            self._next()

    def _next(self) -> None:
        if self._work.is_busy or not self._waiting or not self.is_on:
            return
        edits = self.edits
        point, belongs = self._waiting.pop(0)
        mask = edits.mask
        so_far = self._clicks_of.get(self._digest)
        label = self._meant(mask, point, belongs, None if so_far is None else so_far.label)
        if label is None:
            edits.say("Clicks: there is no polyp here to take anything from.")
            return
        clicks = so_far if so_far is not None and so_far.label == label else Clicks(label)
        if belongs:
            clicks = clicks._replace(positive=(*clicks.positive, point))
        else:
            clicks = clicks._replace(negative=(*clicks.negative, point))
        probability, read = edits.probability(), edits.reader()

        def compute() -> Mask:
            return refine(
                mask, label, read(), probability, list(clicks.positive), list(clicks.negative)
            )

        def told(changed: bool) -> None:
            self._clicks_of[self._digest] = clicks
            edits.choose(label)
            self._show_clicks()
            counted = f"{len(clicks.positive)} within, {len(clicks.negative)} outside"
            edits.say(
                f"Clicks, polyp {label}: {counted}{'' if changed else '; nothing to change'}."
            )

        self._work.start(self.title, compute, told, self._next)

    def _meant(
        self, mask: Mask, point: tuple[int, int], belongs: bool, label: int | None
    ) -> int | None:
        """Say which polyp a click is about; of a new one where there is none near."""
        here = label_at(mask, point, 0)
        if here is not None:
            return here
        if label is not None and not belongs:
            return label
        within = {}
        for near, area in self.edits.areas.items():
            rows, columns = np.nonzero(mask == near)
            away = np.hypot(rows - point[0], columns - point[1]).min()
            if away <= _BELONGS * np.sqrt(area / np.pi):
                within[near] = away
        if within:
            return min(within, key=lambda near: within[near])
        return next(iter(free_labels(mask)), None) if belongs else None

    @property
    def _digest(self) -> bytes:
        return self.edits.masks.chunks.digest(self.edits.index)

    def _show_clicks(self) -> None:
        """Mark the clicks that the mask on show came from."""
        if not self.is_on:
            return
        clicks = self._clicks_of.get(self._digest)
        if clicks is None or not clicks.positive + clicks.negative:
            self.hide_layer()
            return
        places = self.in_layer(np.array(clicks.positive + clicks.negative))
        counts = len(clicks.positive), len(clicks.negative)
        symbols = ["cross"] * counts[0] + ["hbar"] * counts[1]
        colours = [_WITHIN] * counts[0] + [_OUTSIDE] * counts[1]
        layer = self.layer
        # napari cannot take points away from a layer that is being sliced asynchronously.
        if isinstance(layer, Points) and len(layer.data) <= len(places):
            layer.data, layer.symbol, layer.face_color = places, symbols, colours
            return
        self.hide_layer()
        masks = self.edits.masks.layer
        self.show_layer(
            Points(
                places,
                name=f"{masks.name} (clicks)",
                symbol=symbols,
                face_color=colours,
                size=_MARK * self.edits.pixel(),
                border_color="white",
                **geometry_of(masks),
            )
        )
