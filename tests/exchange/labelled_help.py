"""Sessions with masks of every kind, made from a seed."""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy import ndimage

from napari_microaunet.curation.session import MaskOrigin, Session
from napari_microaunet.frames import open_frames
from napari_microaunet.frames.masks import IGNORE

NAMES = ("a", "case 3/12", "case 3/b.v1", "x__y", "Überbein 息肉", "x/y")


def random_mask(rng, height, width):
    """Draw a mask: blobs with holes and islands, ignored regions, single pixels, or nothing."""
    mask = np.zeros((height, width), np.uint8)
    if rng.random() < 0.2:
        return mask
    for label in range(1, rng.integers(1, 5) + 1):
        noise = ndimage.gaussian_filter(rng.random((height, width)), rng.uniform(0.4, 3))
        mask[noise > np.quantile(noise, rng.uniform(0.7, 0.99))] = label
    if rng.random() < 0.5:
        mask[rng.random((height, width)) > 0.97] = IGNORE
    return in_order(mask)


def in_order(mask):
    """Renumber polyps 1..n, in the order of their numbers; some may have been painted over."""
    labels = [label for label in np.unique(mask) if 0 < label < IGNORE]
    table = np.zeros(256, np.uint8)
    table[IGNORE] = IGNORE
    table[labels] = np.arange(1, len(labels) + 1)
    return table[mask]


def write_frames(folder, seed, names=NAMES, suffix=".png"):
    """Write frames of different sizes."""
    rng = np.random.default_rng(seed)
    for name in names:
        height, width = rng.integers(8, 40, 2)
        file = folder / f"{name}{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (height, width, 3), np.uint8)).save(file)
    return folder


def make_session(folder, seed=0, names=NAMES, suffix=".png"):
    """Make an open session, every frame accepted with a random mask; give its masks as well."""
    rng = np.random.default_rng(seed)
    write_frames(folder / "frames", seed, names, suffix)
    session = Session(open_frames(folder / "frames"), annotator="somebody")
    masks = {}
    for index, frame in enumerate(session.sequence.frames):
        masks[frame.name] = random_mask(rng, frame.height, frame.width)
        session.put_mask(index, masks[frame.name], MaskOrigin.HAND)
    session.accept(range(len(session.sequence)))
    return session, masks


def emptied(folder, session):
    """Open a second session, without any mask, on the frames of another."""
    return Session(open_frames(session.sequence.path), folder / "second.microaunet")


def masks_of(session):
    """Read the masks of a session by the names of the frames."""
    return {
        frame.name: session.chunks.mask(index)
        for index, frame in enumerate(session.sequence.frames)
    }


def as_kept(mask, lost):
    """Tell what is left of a mask where something is lost."""
    names = {one.name for one in lost}
    kept = mask.copy()
    if "IGNORE" in names:
        kept[mask == IGNORE] = 0
    if "NUMBERS" in names:
        kept[(kept > 0) & (kept < IGNORE)] = 1
    return kept
