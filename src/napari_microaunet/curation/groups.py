"""Which frames resemble each other, so that no split may come between them."""

from __future__ import annotations

import csv
import os
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from napari_microaunet.errors import InputError
from napari_microaunet.frames.field_of_view import ANALYSIS_SIDE, DARKEST_LIT, FieldOfView
from napari_microaunet.frames.folder import LAYOUTS
from napari_microaunet.frames.images import IMAGE_SUFFIXES, read_rgb
from napari_microaunet.frames.sequence import UnreadableError, unicode_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path, PurePath

    from numpy.typing import NDArray

    from napari_microaunet.frames.sequence import Frame, FrameSequence

SEQUENCES_TABLE = "sequences.csv"

# The outline of the picture, text and the panel of the scope's position are the same in frames
# of one scope whatever they show, so only the middle of the field of view counts.
_MIDDLE = 0.85
_SIDE = 32
# Length, in gray levels, of the differences of a thumbnail that are mere rounding.
_FLAT = 1e-6
# The lowest frequencies of the cosine transform that make the hash: 8 x 8, one bit each.
_FREQUENCIES = 8
# Calibrated by looking at the pairs that they link. 800 frames of Kvasir-SEG: 15, of which 14
# show one polyp twice, some with another zoom or with a panel burnt in, and one does not.
# CVC-ClinicDB: 185 of 486 frames, none across sequences. PolypGen's negative sequences: 383
# of 500 frames, and one pair of sequences by mistake. A hash alone, with 8 bits, links 14 pairs
# in the first and only 72 frames in the second.
_MOST_BITS = 16
_CORRELATION = 0.86
_BLOCK = 256


def find_groups(sequence: FrameSequence, cancelled: Callable[[], bool] | None = None) -> list[str]:
    """Group the frames of a sequence.

    A table ``sequences.csv`` with the columns ``frame`` and ``sequence`` decides, in the
    folder opened or nearer to the frames; else the folder that holds a frame inside the one
    opened (a folder named as negatives does not count, see `is_named_as_negatives`); all
    frames of a video or stack are one group; else every frame is a group of its own. Groups that
    hold near-duplicates of each other are then merged, under the name of the first.

    Parameters
    ----------
    sequence : FrameSequence
        From `open_frames`.
    cancelled : callable, optional
        Asked after every frame that is looked at.

    Returns
    -------
    list of str
        The name of each frame's group.

    Raises
    ------
    InputError
        If a table of sequences cannot be read.
    CancelledError
        If `cancelled` says so.
    """
    groups = stated_groups(sequence)
    if len(set(groups)) == 1:
        return groups
    _, labels = np.unique(np.array(groups), return_inverse=True)
    merged = merge_near_duplicates(thumbnails_of(sequence, cancelled), labels)
    _, first = np.unique(merged, return_index=True)
    names = {merged[index]: groups[index] for index in first}
    return [names[label] for label in merged]


def stated_groups(sequence: FrameSequence) -> list[str]:
    """Group the frames of a sequence by what tables, folders and files say, as `find_groups` does.

    Raises
    ------
    InputError
        If a table of sequences cannot be read.
    """
    return [
        _folder_group(frame.name) if stated is None else stated
        for frame, stated in zip(sequence.frames, stated_sequences(sequence), strict=True)
    ]


def stated_sequences(sequence: FrameSequence) -> list[str | None]:
    """Tell which video, stack or sequence of a table each frame is of; None for other stills.

    Raises
    ------
    InputError
        If a table of sequences cannot be read.
    """
    frames = sequence.frames
    if len(frames) > 1 and len({frame.source for frame in frames}) == 1:
        return [sequence.name] * len(frames)
    return tabled_sequences(sequence)


def tabled_sequences(sequence: FrameSequence) -> list[str | None]:
    """Tell which sequence a table ``sequences.csv`` gives to each frame; None where it is silent.

    Raises
    ------
    InputError
        If a table cannot be read, or names none of the images that are there.
    """
    tables: dict[Path, dict[str, str]] = {}
    root = root_of(sequence.path)
    found = [_tabled_sequence(frame, root, tables) for frame in sequence.frames]
    for folder in (folder for folder, table in tables.items() if table):
        inside = {
            _inside(frame.source.relative_to(folder))
            for frame in sequence.frames
            if frame.source.is_relative_to(folder)
        }
        if inside.isdisjoint(tables[folder]):
            _check_table(folder, tables[folder])
    return found


def is_named_as_negatives(folder: str) -> bool:
    """Tell whether a folder's name says that its frames show no polyp.

    Parameters
    ----------
    folder : str
        "negative", "negatives", "no polyp" or "no polyps", in any case, also with hyphens or
        underscores.
    """
    plain = "".join(letter for letter in folder.casefold() if letter not in " _-")
    return plain in {"negative", "negatives", "nopolyp", "nopolyps"}


def lies_among_negatives(path: Path, name: str) -> bool:
    """Tell whether a frame lies in a folder that is named as negatives.

    Parameters
    ----------
    path : Path
        What was opened.
    name : str
        Of the frame.
    """
    folders = (root_of(path).name, *PurePosixPath(name).parts[:-1])
    return any(map(is_named_as_negatives, folders))


def root_of(path: Path) -> Path:
    """Find the folder that everything of a sequence lies below.

    Parameters
    ----------
    path : Path
        What was opened: a folder, also ``images`` with ``masks`` beside it, or a file.
    """
    return path if path.is_dir() and path.name.lower() not in LAYOUTS else path.parent


def thumbnail(image: NDArray[np.uint8], field: FieldOfView) -> NDArray[np.float32]:
    """Reduce a frame to what near-duplicates have in common.

    Parameters
    ----------
    image : uint8 array, shape (height, width, 3)
        RGB, of any size.
    field : FieldOfView
        Its field of view.

    Returns
    -------
    float32 array, shape (32, 32)
        The gray middle of the field of view, with mean 0 and length 1; zeros where it is
        without any contrast.
    """
    down = (field.bottom - field.top) * (1 - _MIDDLE) / 2
    across = (field.right - field.left) * (1 - _MIDDLE) / 2
    box = (field.left + across, field.top + down, field.right - across, field.bottom - down)
    middle = Image.fromarray(image).resize((_SIDE, _SIDE), Image.Resampling.BOX, box=box)
    gray = np.asarray(middle.convert("L"), np.float64)  # of a flat frame, nothing is to remain
    lit = np.asarray(middle).max(axis=2) > DARKEST_LIT  # the border is no likeness either
    if lit.any():
        gray = np.where(lit, gray, gray[lit].mean())
    gray -= gray.mean()
    length = np.linalg.norm(gray)
    return np.asarray(gray / length if length > _FLAT else np.zeros_like(gray), np.float32)


def thumbnails_of(
    sequence: FrameSequence, cancelled: Callable[[], bool] | None = None
) -> NDArray[np.float32]:
    """Reduce all frames to thumbnails, as `thumbnail` does.

    Parameters
    ----------
    sequence : FrameSequence
        Every frame in an image file of its own.
    cancelled : callable, optional
        Asked after every frame.

    Returns
    -------
    float32 array, shape (n, 32, 32)
        Zeros for what cannot be read, which then is in the `problems` of the sequence.

    Raises
    ------
    CancelledError
        If `cancelled` says so.
    """

    def look(index: int) -> NDArray[np.float32]:
        frame = sequence.frames[index]
        try:
            # Reduced while it is decoded, where the format allows.
            image = read_rgb(frame.source, ANALYSIS_SIDE)
        except UnreadableError as error:
            sequence.problems[index] = str(error)
            return np.zeros((_SIDE, _SIDE), np.float32)
        down, across = image.shape[0] / frame.height, image.shape[1] / frame.width
        top, left, bottom, right = sequence.field_of_view(index)
        field = FieldOfView(
            int(top * down), int(left * across), round(bottom * down), round(right * across)
        )
        return thumbnail(image, field)

    thumbnails = np.empty((len(sequence), _SIDE, _SIDE), np.float32)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for index, found in enumerate(pool.map(look, range(len(sequence)))):
            if cancelled is not None and cancelled():
                pool.shutdown(cancel_futures=True)
                raise CancelledError
            thumbnails[index] = found
    return thumbnails


def perceptual_hashes(thumbnails: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Hash thumbnails so that alike ones differ in few bits.

    Every bit says whether one of the low frequencies of the cosine transform is above their
    median ("pHash": Zauner, Implementation and benchmarking of perceptual image hash
    functions, 2010).

    Parameters
    ----------
    thumbnails : float32 array, shape (n, 32, 32)
        From `thumbnail`.

    Returns
    -------
    uint64 array, shape (n,)
    """
    from scipy.fft import dctn  # late: opening a video does not need it

    waves = dctn(thumbnails, axes=(1, 2), norm="ortho")[:, :_FREQUENCIES, :_FREQUENCIES]
    flat = waves.reshape(len(thumbnails), -1)
    # The first one is the mean, which is 0.
    bits = flat > np.median(flat[:, 1:], axis=1, keepdims=True)
    bits[:, 0] = False
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]


def merge_near_duplicates(
    thumbnails: NDArray[np.float32], groups: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Merge groups that hold near-duplicates of each other.

    Two frames are near-duplicates if their hashes differ in 16 bits at the most and their
    thumbnails have a correlation of more than 0.86.

    Parameters
    ----------
    thumbnails : float32 array, shape (n, 32, 32)
        From `thumbnail`; zeros are like nothing else.
    groups : int array, shape (n,)
        The group of each frame, numbered from 0.

    Returns
    -------
    int array, shape (n,)
        The group of each frame, numbered anew.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    hashes = perceptual_hashes(thumbnails)
    count = len(thumbnails)
    for start in range(0, count, _BLOCK):
        one, other = _alike(thumbnails, hashes, groups, start)
        links = groups[one], groups[other]
        graph = coo_array((np.ones(len(one), bool), links), shape=(count, count))
        groups = connected_components(graph, directed=False)[1][groups]
    return groups


def near_duplicate_pairs(
    thumbnails: NDArray[np.float32], groups: NDArray[np.int64]
) -> NDArray[np.int64]:
    """List frames of different groups that are near-duplicates, as `merge_near_duplicates` does.

    Parameters
    ----------
    thumbnails : float32 array, shape (n, 32, 32)
        From `thumbnail`.
    groups : int array, shape (n,)
        The group of each frame.

    Returns
    -------
    int array, shape (pairs, 2)
        Numbers of frames, the smaller one first.
    """
    hashes = perceptual_hashes(thumbnails)
    blocks = range(0, len(thumbnails), _BLOCK)
    pairs = [np.stack(_alike(thumbnails, hashes, groups, start), axis=1) for start in blocks]
    found = np.concatenate([np.zeros((0, 2), np.int64), *pairs])
    return np.unique(np.sort(found, axis=1), axis=0)


def _alike(
    thumbnails: NDArray[np.float32],
    hashes: NDArray[np.uint64],
    groups: NDArray[np.int64],
    start: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the near-duplicates that a block of frames has in other groups, from the block on."""
    flat = thumbnails.reshape(len(thumbnails), -1)
    rows, later = slice(start, start + _BLOCK), slice(start, None)
    near = np.bitwise_count(hashes[rows, None] ^ hashes[None, later]) <= _MOST_BITS
    near &= groups[rows, None] != groups[None, later]
    some_rows, some_columns = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
    likeness = flat[rows][some_rows] @ flat[later][some_columns].T
    one, other = np.nonzero(near[np.ix_(some_rows, some_columns)] & (likeness > _CORRELATION))
    return start + some_rows[one], start + some_columns[other]


def _folder_group(name: str) -> str:
    """Return the group that the folder of a frame gives to it, by its name."""
    inside_of = PurePosixPath(name).parent
    if all(is_named_as_negatives(part) for part in inside_of.parts):
        return name
    return inside_of.as_posix()


def _tabled_sequence(frame: Frame, root: Path, tables: dict[Path, dict[str, str]]) -> str | None:
    """Return the sequence that a table gives to a frame."""
    for folder in frame.source.parents:
        if not folder.is_relative_to(root):
            break
        if folder not in tables:
            tables[folder] = _read_table(folder / SEQUENCES_TABLE)
        sequence = tables[folder].get(_inside(frame.source.relative_to(folder)))
        if sequence is not None:
            return unicode_name((folder.relative_to(root) / f"sequence {sequence}").as_posix())
    return None


def _check_table(folder: Path, table: Mapping[str, str]) -> None:
    """Refuse a table that keeps no frames together: it names no image there, opened or not."""
    files = (file for file in folder.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
    if {_inside(file.relative_to(folder)) for file in files}.isdisjoint(table):
        raise InputError(
            f"{folder / SEQUENCES_TABLE} names no image that is there (the first row names "
            f"{next(iter(table))}); name images by their paths from the table's folder on, "
            "capital letters included, such as case 3/12.png."
        )


def _read_table(path: Path) -> dict[str, str]:
    """Read a table of sequences, by names of frames without extension; none is an empty one."""
    if not path.is_file():
        return {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [
                ((row["frame"] or "").strip(), (row["sequence"] or "").strip())
                for row in csv.DictReader(file, skipinitialspace=True, strict=True)
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a table ({error}); correct it.") from error
    except KeyError as error:
        raise InputError(
            f"{path} has no column {error}; the columns frame and sequence are needed."
        ) from error
    table: dict[str, str] = {}
    for frame, sequence in rows:
        if frame and sequence:
            name = _inside(PurePosixPath(frame.replace("\\", "/")))
            if table.setdefault(name, sequence) != sequence:
                raise InputError(
                    f"{path} has {frame} in {table[name]} as well as in {sequence}; correct it, "
                    "or rename one of two files that differ by their ending alone."
                )
    return table


def _inside(path: PurePath) -> str:
    """Name an image as a table does: without its ending, and without the folder of a layout."""
    if path.suffix.lower() in IMAGE_SUFFIXES:
        path = path.with_suffix("")
    if len(path.parts) > 1 and path.parts[0].lower() in LAYOUTS:
        path = path.relative_to(path.parts[0])
    return unicode_name(path.as_posix())
