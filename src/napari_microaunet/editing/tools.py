"""The mask operations that a window offers: one table, from which it makes its buttons.

A new tool is a function like those in `masks` and a line in `MASK_TOOLS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_microaunet.editing import masks

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_microaunet.editing.labels import Mask


@dataclass(frozen=True)
class Parameter:
    """A number that the user may set for a tool.

    Attributes
    ----------
    name : str
        Keyword of the tool's function.
    title : str
        In the window.
    default, least, most, step : float
        In `unit`.
    unit : str
        In the window, behind the number.
    """

    name: str
    title: str
    default: float
    least: float
    most: float
    step: float
    unit: str


@dataclass(frozen=True)
class MaskTool:
    """A mask operation, as the window shows it.

    Attributes
    ----------
    name : str
        Unique; for settings, keys and logs.
    title : str
        On the button.
    tooltip : str
        What the tool does to the mask.
    function : callable
        ``(mask, label, **parameters) -> mask``: `label` is the number of the
        polyp, None for all.
    parameters : tuple of Parameter
        What the user may set.
    """

    name: str
    title: str
    tooltip: str
    function: Callable[..., Mask]
    parameters: tuple[Parameter, ...] = ()


MASK_TOOLS: dict[str, MaskTool] = {
    tool.name: tool
    for tool in (
        MaskTool(
            "grow",
            "Grow",
            "The outline moves outwards. It stops at other polyps and at ignored regions.",
            masks.grow,
            (Parameter("pixels", "by", 2, 1, 50, 0.5, "px"),),
        ),
        MaskTool(
            "shrink",
            "Shrink",
            "The outline moves inwards, except along the frame's edge and ignored regions.\n"
            "A polyp that is thinner than twice this is deleted.",
            masks.shrink,
            (Parameter("pixels", "by", 2, 1, 50, 0.5, "px"),),
        ),
        MaskTool(
            "smooth",
            "Smooth",
            "Bumps and bays narrower than this are rounded off. The area stays the same.",
            masks.smooth,
            (Parameter("width", "narrower than", 10, 1, 100, 1, "px"),),
        ),
        MaskTool(
            "fill_holes",
            "Fill holes",
            "Background inside a polyp becomes polyp.",
            masks.fill_holes,
        ),
        MaskTool(
            "remove_specks",
            "Remove specks",
            "Parts smaller than this become background, and so do whole polyps.",
            masks.remove_specks,
            (Parameter("smallest", "smaller than", 100, 2, 10_000, 10, "px²"),),
        ),
        MaskTool(
            "keep_largest",
            "Keep largest part",
            "The other parts of the polyp become background.\n"
            "On all: only the largest part of the whole frame stays.",
            masks.keep_largest,
        ),
        MaskTool(
            "split",
            "Split",
            "Parts of a polyp that do not touch become polyps of their own.",
            masks.split,
        ),
        MaskTool(
            "merge",
            "Merge",
            "The polyp and the nearest other one become one polyp. On all: all become one.\n"
            "Where the gap between them is small enough, a bridge closes it.",
            masks.merge,
            (Parameter("gap", "bridge gaps up to", 0, 0, 200, 1, "px"),),
        ),
        MaskTool(
            "renumber",
            "Renumber",
            "Polyps are numbered anew, the largest first.\n"
            "On one polyp: this one first, then the others by size.",
            masks.renumber,
        ),
        MaskTool(
            "delete",
            "Delete",
            "The polyp becomes background. On the key, the cursor has to be on it where there are\n"
            "several.",
            masks.delete,
        ),
        MaskTool(
            "polyp_to_ignore",
            "Ignore polyp",
            "The polyp becomes a region that training and scores leave out. On the key, the\n"
            "cursor has to be on it where there are several.",
            masks.polyp_to_ignore,
        ),
        MaskTool(
            "ignore_to_polyp",
            "Ignored to polyp",
            "Ignored regions that touch the polyp, such as glare on it, become part of it.",
            masks.ignore_to_polyp,
        ),
        MaskTool(
            "ignore_to_background",
            "Ignored to background",
            "Ignored regions that touch the polyp become background. On all: every ignored region.",
            masks.ignore_to_background,
        ),
    )
}
