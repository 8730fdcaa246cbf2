"""Where the picture is: the lit part of a frame inside the endoscope's black border."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

# Borders are black to dark grey (CVC-ClinicDB: up to 22 of 255); lit mucosa is far brighter.
_DARKEST_LIT = 32
# Analysed at this side length: burnt-in letters are then one or two pixels thin.
ANALYSIS_SIDE = 160
# The panel that shows where the scope lies (RGB 44, 183, 142) is greener than red by 139 of 255.
# Tissue never is by half of that, nor is dye, which is bluer than green.
_GREENEST_TISSUE = 70
# Structures thinner than this (letters, rulers, reflections on the border) are not the picture.
_THINNEST_PICTURE = 7
# A picture covers at least this share of the frame; below it nothing can be told apart.
_SMALLEST_SHARE = 0.1


class FieldOfView(NamedTuple):
    """Box of a frame that holds the endoscope's picture, in pixels, end exclusive.

    It says which part of a frame a network is shown. It never changes the
    geometry of anything that is saved.
    """

    top: int
    left: int
    bottom: int
    right: int


def find_field_of_view(images: Iterable[NDArray[np.uint8]]) -> FieldOfView:
    """Find the box around the lit picture in frames that share one geometry.

    The brightest value that each pixel takes over all images decides, so that
    a dark lumen in one frame does not count as border. Letters and other thin
    overlays in the border are removed by an opening, the green panel with the
    scope's position by its colour, other overlays by keeping the largest lit region.

    Parameters
    ----------
    images : iterable of uint8 arrays, shape (height, width, 3)
        One or more frames of one size; a few spread over a sequence are best.

    Returns
    -------
    FieldOfView
        The box; the whole frame where no border can be told from the picture.

    Raises
    ------
    ValueError
        If there is no image, or sizes differ.
    """
    from scipy import ndimage  # late: half a second that listing frames does not need

    shape: tuple[int, ...] | None = None
    brightest: NDArray[np.uint8] | None = None
    for image in images:
        if shape is not None and image.shape != shape:
            raise ValueError(f"frames of one size are needed, got {shape} and {image.shape}")
        shape = image.shape
        scale = min(1.0, ANALYSIS_SIDE / max(shape[:2]))
        size = (max(1, round(shape[1] * scale)), max(1, round(shape[0] * scale)))
        colours = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))
        red, green, blue = np.moveaxis(colours.astype(np.int16), 2, 0)
        panel = (green - red > _GREENEST_TISSUE) & (green > blue)
        small = np.where(panel, 0, colours.max(axis=2))
        brightest = small if brightest is None else np.maximum(brightest, small)
    if shape is None or brightest is None:
        raise ValueError("at least one frame is needed to find the field of view")

    height, width = shape[:2]
    whole = FieldOfView(0, 0, height, width)
    # Padding by the edge's own values keeps a picture that touches the frame's edge whole.
    pad = _THINNEST_PICTURE
    lit = np.pad(brightest > _DARKEST_LIT, pad, mode="edge")
    opened = ndimage.binary_opening(lit, np.ones((_THINNEST_PICTURE, _THINNEST_PICTURE), bool))
    regions, count = ndimage.label(opened[pad:-pad, pad:-pad])
    if count == 0:
        return whole
    sizes = np.bincount(regions.ravel())
    sizes[0] = 0
    rows, columns = ndimage.find_objects(regions)[int(sizes.argmax()) - 1]
    if (rows.stop - rows.start) * (columns.stop - columns.start) < _SMALLEST_SHARE * regions.size:
        return whole
    across, down = width / brightest.shape[1], height / brightest.shape[0]
    return FieldOfView(
        int(rows.start * down),
        int(columns.start * across),
        min(height, int(np.ceil(rows.stop * down))),
        min(width, int(np.ceil(columns.stop * across))),
    )
