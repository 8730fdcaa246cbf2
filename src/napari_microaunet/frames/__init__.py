"""Files to a sequence of frames: folders of images, TIFF stacks, videos; the field of view."""

from __future__ import annotations

from napari_microaunet.frames.field_of_view import FieldOfView, find_field_of_view
from napari_microaunet.frames.sequence import Frame, FrameSequence
from napari_microaunet.frames.sources import open_frames

__all__ = ["FieldOfView", "Frame", "FrameSequence", "find_field_of_view", "open_frames"]
