"""Where the picture is: the lit part of a frame inside the endoscope's black border."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

# Borders are black to dark grey (CVC-ClinicDB: up to 22 of 255); lit mucosa is far brighter.
DARKEST_LIT = 32
"""Of 255, in the brightest channel: what is no brighter is border."""
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
    shape, region = _lit_region(images)
    height, width = shape
    if region is None:
        return FieldOfView(0, 0, height, width)
    rows, columns = (np.flatnonzero(region.any(axis=axis)) for axis in (1, 0))
    across, down = width / region.shape[1], height / region.shape[0]
    return FieldOfView(
        int(rows[0] * down),
        int(columns[0] * across),
        min(height, int(np.ceil((rows[-1] + 1) * down))),
        min(width, int(np.ceil((columns[-1] + 1) * across))),
    )


def find_picture(images: Iterable[NDArray[np.uint8]]) -> NDArray[np.bool_] | None:
    """Tell which pixels are inside the convex outline of the picture, as `find_field_of_view` does.

    Parameters
    ----------
    images : iterable of uint8 arrays, shape (height, width, 3)
        One or more frames of one size.

    Returns
    -------
    bool array, shape (height, width), or None
        All true where there is no border; None where no picture shows, as in dark frames.

    Raises
    ------
    ValueError
        If there is no image, or sizes differ.
    """
    from skimage.morphology import convex_hull_image

    (height, width), region = _lit_region(images)
    if region is None:
        return None
    outline = Image.fromarray(convex_hull_image(region))
    return np.asarray(outline.resize((width, height), Image.Resampling.NEAREST))


def find_position_marker(image: NDArray[np.uint8]) -> FieldOfView | None:
    """Find the box of the green panel that shows where the scope lies; None if there is none.

    Parameters
    ----------
    image : uint8 array, shape (height, width, 3)
        RGB.
    """
    from scipy import ndimage

    colours = _reduced(image)
    regions, count = ndimage.label(_is_panel(colours))
    if count == 0:
        return None
    sizes = np.bincount(regions.ravel())
    sizes[0] = 0
    if sizes.max() < _THINNEST_PICTURE**2:
        return None
    rows, columns = ndimage.find_objects(regions)[int(sizes.argmax()) - 1]
    down, across = image.shape[0] / colours.shape[0], image.shape[1] / colours.shape[1]
    # One analysed pixel more on each side: the edge of the panel is a mixture with what is beside.
    return FieldOfView(
        max(0, int((rows.start - 1) * down)),
        max(0, int((columns.start - 1) * across)),
        min(image.shape[0], int(np.ceil((rows.stop + 1) * down))),
        min(image.shape[1], int(np.ceil((columns.stop + 1) * across))),
    )


def _lit_region(
    images: Iterable[NDArray[np.uint8]],
) -> tuple[tuple[int, int], NDArray[np.bool_] | None]:
    """Return the size of the frames, and the picture at the side of analysis, if it is found."""
    from scipy import ndimage  # late: half a second that listing frames does not need

    shape: tuple[int, ...] | None = None
    brightest: NDArray[np.uint8] | None = None
    for image in images:
        if shape is not None and image.shape != shape:
            raise ValueError(f"frames of one size are needed, got {shape} and {image.shape}")
        shape = image.shape
        colours = _reduced(image)
        small = np.where(_is_panel(colours), 0, colours.max(axis=2))
        brightest = small if brightest is None else np.maximum(brightest, small)
    if shape is None or brightest is None:
        raise ValueError("at least one frame is needed to find the field of view")

    # Padding by the edge's own values keeps a picture that touches the frame's edge whole.
    pad = _THINNEST_PICTURE
    lit = np.pad(brightest > DARKEST_LIT, pad, mode="edge")
    opened = ndimage.binary_opening(lit, np.ones((_THINNEST_PICTURE, _THINNEST_PICTURE), bool))
    regions, count = ndimage.label(opened[pad:-pad, pad:-pad])
    size = shape[0], shape[1]
    if count == 0:
        return size, None
    sizes = np.bincount(regions.ravel())
    sizes[0] = 0
    largest = int(sizes.argmax())
    rows, columns = ndimage.find_objects(regions)[largest - 1]
    if (rows.stop - rows.start) * (columns.stop - columns.start) < _SMALLEST_SHARE * regions.size:
        return size, None
    return size, regions == largest


def _reduced(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    scale = min(1.0, ANALYSIS_SIDE / max(image.shape[:2]))
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))


def _is_panel(colours: NDArray[np.uint8]) -> NDArray[np.bool_]:
    red, green, blue = np.moveaxis(colours.astype(np.int16), 2, 0)
    panel: NDArray[np.bool_] = (green - red > _GREENEST_TISSUE) & (green > blue)
    return panel
