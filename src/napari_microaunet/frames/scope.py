"""The scope that rendered frames are seen through: lens, picture outline, burnt-in text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from napari_microaunet.frames.colon_scene import Array, unit

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Room that the outline leaves free of the frame's edge, and how wide the picture is for its height.
_PICTURE_SHARE = 0.97
_PICTURE_ASPECT = 1.22
_TEXT_COLOUR = (235, 235, 235)


@dataclass(frozen=True)
class Camera:
    """Where the scope is, which way it looks and how wide.

    Attributes
    ----------
    position : float32 array, shape (3,)
        The lens, in tube radii.
    axes : float32 array, shape (3, 3)
        Orthonormal rows: right, down and forward in the picture.
    half_view : float
        Angle between forward and the picture's corner, in radians.
    """

    position: Array
    axes: Array
    half_view: float

    def rays(self, height: int, width: int) -> Array:
        """Make the ray of every pixel of a picture, by an equidistant fisheye.

        Parameters
        ----------
        height, width : int
            Size of the picture.

        Returns
        -------
        float32 array, shape (3, height, width)
            Of length 1; the angle to forward grows linearly with the radius.
        """
        half = 0.5 * np.hypot(height, width)
        y, x = np.mgrid[:height, :width].astype(np.float32)
        y, x = (y - (height - 1) / 2) / half, (x - (width - 1) / 2) / half
        radius = np.hypot(x, y)
        angle = radius * np.float32(self.half_view)
        side = np.sin(angle) / np.maximum(radius, 1e-6)
        local = np.stack([x * side, y * side, np.cos(angle)]).astype(np.float32)
        return np.asarray(np.einsum("ij,ihw->jhw", self.axes, local), np.float32)


def aim(position: Array, target: Array, roll: float, half_view: float) -> Camera:
    """Point a camera at a target.

    Parameters
    ----------
    position, target : float32 arrays, shape (3,)
        The lens, and the point it has in the middle of its picture.
    roll : float
        Turn about the line of sight, in radians.
    half_view : float
        As in :class:`Camera`.

    Returns
    -------
    Camera
    """
    forward = unit(target - position)
    right = unit(np.cross(np.array([0, 1, 0], np.float32), forward))
    down = np.cross(forward, right)
    cos, sin = np.cos(roll), np.sin(roll)
    axes = np.stack([cos * right + sin * down, cos * down - sin * right, forward])
    return Camera(position.astype(np.float32), axes.astype(np.float32), half_view)


@dataclass(frozen=True)
class Overlay:
    """What the processor puts around and over the picture.

    Attributes
    ----------
    outline : {"octagon", "round", "square"}
        Shape of the picture; a round one may be cut off above and below.
    corner : float
        What is cut from an octagon's corners, or their radius in a square, in picture heights.
    black : int
        Value of the border, 0..255.
    side : float
        Where the picture sits between left (0) and right (1).
    text : tuple of str
        Lines burnt in at the left, with a clock below; none without lines.
    marker : tuple of int, or None
        RGB of a position marker in the lower left corner.
    """

    outline: str
    corner: float
    black: int
    side: float
    text: tuple[str, ...]
    marker: tuple[int, int, int] | None

    def picture_box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Place the picture in a frame.

        Parameters
        ----------
        height, width : int
            Size of the frame.

        Returns
        -------
        tuple of int
            Top, left, bottom and right of the picture, end exclusive.
        """
        tall = round(height * _PICTURE_SHARE)
        wide = min(round(width * _PICTURE_SHARE), round(tall * _PICTURE_ASPECT))
        top, left = (height - tall) // 2, round((width - wide) * self.side)
        return top, left, top + tall, left + wide

    def picture_shape(self, height: int, width: int) -> NDArray[np.bool_]:
        """Tell which pixels of the picture's box show the picture.

        Parameters
        ----------
        height, width : int
            Size of the box.

        Returns
        -------
        bool array, shape (height, width)
        """
        y, x = np.mgrid[:height, :width].astype(np.float32)
        y, x = np.abs(y - (height - 1) / 2), np.abs(x - (width - 1) / 2)
        if self.outline == "round":
            return np.asarray(np.hypot(x, y) < 0.5 * width * 0.99)
        cut = self.corner * height
        if self.outline == "octagon":
            return np.asarray(x + y < (height + width) / 2 - cut)
        rounded = np.hypot(np.maximum(x - width / 2 + cut, 0), np.maximum(y - height / 2 + cut, 0))
        return np.asarray(rounded < cut)

    def draw(self, frame: NDArray[np.uint8], mask: NDArray[np.uint8], second: float) -> None:
        """Burn text and marker into a frame, in place.

        Parameters
        ----------
        frame : uint8 array, shape (height, width, 3)
            RGB, changed in place.
        mask : uint8 array, shape (height, width)
            Ends where the marker begins; thin text does not count.
        second : float
            Time on the clock, in seconds.
        """
        height, width = mask.shape
        image = Image.fromarray(frame)
        pencil = ImageDraw.Draw(image)
        size = max(6, height // 34)
        font = ImageFont.load_default(size)
        clock = f"12:{int(second) // 60:02d}:{int(second) % 60:02d}"
        for row, line in enumerate((*self.text, clock) if self.text else ()):
            place = (round(0.012 * width), round(0.22 * height + 1.5 * size * row))
            pencil.text(place, line, fill=_TEXT_COLOUR, font=font)
        if self.marker is not None:
            top, right = round(0.72 * height), round(0.22 * width)
            pencil.rectangle((0, top, right, height), fill=self.marker)
            # Two loops: a scope's shape from two sides.
            trace = tuple(channel // 3 for channel in self.marker)
            inset = (height - top) // 8
            for middle in (right // 3, 2 * right // 3):
                loop = (middle - inset, top + inset, middle + inset, height - inset)
                pencil.arc(loop, 90, 330, fill=trace, width=max(1, size // 5))
            mask[top:, : right + 1] = 0
        frame[:] = np.asarray(image)
