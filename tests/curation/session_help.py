"""Sessions of small frames, and what child processes do with them."""

from __future__ import annotations

import numpy as np
from PIL import Image

from napari_microaunet.curation.session import KeptMap, Session
from napari_microaunet.frames import FieldOfView, open_frames

SIZES = ((20, 30), (40, 10), (20, 30), (15, 50))


def write_frames(folder, sizes=SIZES):
    """Write gray frames of these sizes, named by their number."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (height, width) in enumerate(sizes):
        pixels = np.full((height, width, 3), 90 + number, np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def mask_of(session, index, top=0, left=0, label=1):
    """Make a mask for a frame with a polyp of 12 pixels."""
    frame = session.sequence.frames[index]
    mask = np.zeros((frame.height, frame.width), np.uint8)
    mask[top : top + 4, left : left + 3] = label
    return mask


def map_of(value, side=8):
    """Make a probability map that is the same everywhere."""
    field = FieldOfView(1, 2, 10, 9)
    return KeptMap(np.full((side, side), value, np.uint8), field, "student", "ab" * 32)


def hold_open(frames, folder, pipe):
    """Open a session, say whether it can be changed, and keep it until told to go."""
    session = Session(open_frames(frames), folder, annotator="somebody")
    pipe.send(session.notice)
    pipe.recv()
    session.close()
    pipe.send("closed")
