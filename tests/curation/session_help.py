"""Sessions of small frames, and what child processes do with them."""

from __future__ import annotations

import time

import numpy as np
from PIL import Image

from napari_microaunet.curation.session import KeptMap, MaskOrigin, Session
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


def numbered_mask(session, index, number):
    """Make a mask that holds a number, and more the larger it is."""
    frame = session.sequence.frames[index]
    mask = np.zeros((frame.height, frame.width), np.uint8)
    mask.ravel()[: 2 + number % 7] = 1
    mask.ravel()[-16:] = [int(bit) for bit in f"{number:016b}"]
    return mask


def number_in(mask):
    """Read the number of a `numbered_mask`; 0 from an empty one."""
    return int("".join(str(bit) for bit in mask.ravel()[-16:]), 2)


def paint_until_killed(frames, folder, pipe):
    """Change masks by hand and run a model over frames, and tell each time what was done."""
    session = Session(open_frames(frames), folder, annotator="ann")
    count = len(session.sequence)
    pipe.send(("opened", 0, 0, time.monotonic()))
    number = 0
    while True:
        number += 1
        index = number % (count // 2)
        mask = numbered_mask(session, index, number)
        # As a brush does: through the Zarr array.
        session.chunks.array[index, : mask.shape[0], : mask.shape[1]] = mask
        session.add_stroke(index)
        session.shown = index
        pipe.send(("stroke", index, number, time.monotonic()))
        index = count // 2 + number % (count - count // 2)
        session.put_map(index, map_of(1 + number % 250), confidence=0.5)
        session.put_mask(index, numbered_mask(session, index, number), MaskOrigin.MODEL)
        pipe.send(("prelabel", index, number, time.monotonic()))
        if number % 5 == 0:
            session.accept([index])
            pipe.send(("accept", index, number, time.monotonic()))
        time.sleep(0.003)


def hold_open(frames, folder, pipe):
    """Open a session, say whether it can be changed, and keep it until told to go."""
    session = Session(open_frames(frames), folder, annotator="somebody")
    pipe.send(session.notice)
    pipe.recv()
    session.close()
    pipe.send("closed")
