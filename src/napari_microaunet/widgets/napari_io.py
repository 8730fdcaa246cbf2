"""What napari calls to open frames and to save labels: readers and a writer."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
from napari.utils.notifications import show_warning

from napari_microaunet.atomic import replacing
from napari_microaunet.errors import InputError
from napari_microaunet.frames import FrameSequence, open_frames
from napari_microaunet.frames.canvas import canvas
from napari_microaunet.frames.folder import LAYOUTS, ImageFiles, holds_images
from napari_microaunet.frames.images import IMAGE_SUFFIXES
from napari_microaunet.frames.mask_canvas import mask_canvas
from napari_microaunet.frames.masks import write_mask_file
from napari_microaunet.frames.sequence import check_beside_frames
from napari_microaunet.frames.sources import SOURCES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from napari.types import LayerData
    from numpy.typing import NDArray

FRAME_SEQUENCE = "frame_sequence"
"""Key of a layer's metadata under which the `FrameSequence` is found that it shows."""

# Classic TIFF has 32-bit offsets; some room is left for the headers of the pages.
_LARGEST_CLASSIC_TIFF = 2**32 - 2**25

# Problems that are named in a message; the dock lists all of them.
_NAMED_PROBLEMS = 5


def get_reader(path: str | list[str]) -> Callable[[str | list[str]], list[LayerData]] | None:
    """Tell napari whether frames can be opened from a path (npe2 reader).

    Parameters
    ----------
    path : str or list of str
        A folder, a video, a TIFF file or an image; or several images for one stack.

    Returns
    -------
    callable or None
        `read_frames`; None where other plugins should try.
    """
    paths = [Path(item) for item in ([path] if isinstance(path, str) else path)]
    if len(paths) > 1:
        accepted = all(item.suffix.lower() in IMAGE_SUFFIXES for item in paths)
    elif paths[0].is_dir():
        accepted = holds_images(paths[0])
    else:
        accepted = any(source.accepts(paths[0]) for source in SOURCES)
    return read_frames if accepted else None


def read_frames(path: str | list[str]) -> list[LayerData]:
    """Open frames, and the masks beside them, as layers.

    Parameters
    ----------
    path : str or list of str
        What `get_reader` accepted.

    Returns
    -------
    list of layer data tuples
        As `layers_of` gives them.
    """
    alone = path if isinstance(path, str) else path[0] if len(path) == 1 else None
    sequence = open_frames(path if alone is None else alone)
    if sequence.problems:
        named = [
            f"{sequence.frames[index].name}: {reason}"
            for index, reason in sorted(sequence.problems.items())[:_NAMED_PROBLEMS]
        ]
        more = len(sequence.problems) - len(named)
        show_warning(
            f"{len(sequence.problems)} of {len(sequence)} frames cannot be read and are shown "
            f"gray. {'; '.join(named)}{f'; and {more} more' if more else ''}."
        )
    return layers_of(sequence)


def layers_of(sequence: FrameSequence) -> list[LayerData]:
    """Make the layers that show a sequence.

    Parameters
    ----------
    sequence : FrameSequence
        The frames.

    Returns
    -------
    list of layer data tuples
        The image layer with the lazy stack and, where masks were found, a labels layer.
        Both carry the sequence in their metadata as ``frame_sequence``.
    """
    metadata = {FRAME_SEQUENCE: sequence}
    # The stack keeps frames itself. Napari's cache would fill a quarter of the memory with them.
    shown = {"name": sequence.name, "rgb": True, "cache": False, "metadata": dict(metadata)}
    layers: list[LayerData] = [(canvas(sequence), shown, "image")]
    if sequence.has_masks:
        drawn = {"name": f"{sequence.name} masks", "cache": False, "metadata": dict(metadata)}
        layers.append((mask_canvas(sequence), drawn, "labels"))
    return layers


def write_labels(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Save a labels layer (npe2 writer).

    A path with ``.tif`` or ``.tiff`` becomes one TIFF stack of the size of the layer. Any other
    becomes a folder (``.png`` at its end is left out) with one PNG file per frame, at the native
    size and under the name of the frame; a layer of one frame and a path with ``.png`` become
    one PNG file. Frames that cannot be read are left out of a folder.

    Parameters
    ----------
    path : str
        Where to save.
    data : array-like of integers, shape (frames, height, width) or (height, width)
        0 background, 1..n polyps, 255 ignore.
    meta : dict
        Attributes of the layer; ``meta["metadata"]["frame_sequence"]`` gives names and sizes.

    Returns
    -------
    list of str
        The files that were written.

    Raises
    ------
    InputError
        If there are labels above 255 (65535 in a TIFF stack), the folder is not empty, the file
        is one that the frames are read from, or it would be taken for one of them.
    """
    target = Path(path)
    stem, suffix = target.stem, target.suffix.lower()
    sequence = meta.get("metadata", {}).get(FRAME_SEQUENCE)
    masks = data if data.ndim > 2 else np.asarray(data)[np.newaxis]
    is_image = suffix == ".png" and masks.shape[0] == 1
    if target.suffix == ".png" and not is_image:
        target = target.with_suffix("")
    if sequence is not None:
        spare_frames(sequence, target, [target])
    if suffix in {".tif", ".tiff"}:
        _write_stack(target, masks)
        return [path]
    names = _names_and_sizes(masks, sequence, stem)
    if is_image:
        ((_, height, width),) = names.values()
        write_mask_file(target, _labels(masks[0], np.uint8)[:height, :width])
        return [path]
    return _write_folder(target, masks, names)


def spare_frames(sequence: FrameSequence, target: Path, files: Iterable[Path]) -> None:
    """Refuse to write masks over the frames, whatever name leads there, or among them.

    Parameters
    ----------
    sequence : FrameSequence
        The frames.
    target : Path
        The folder or file that is chosen; folders ``masks`` among the frames are for masks.
    files : iterable of Path
        What is about to be written.

    Raises
    ------
    InputError
        If one of them is a file that the frames are read from, or would be taken for one.
    """
    frames = identities_of(sequence)
    for file in files:
        if file_identity(file) in frames:
            raise InputError(
                f"{file} is where the frames are read from, and they are never written to: "
                "choose another folder or name for the masks."
            )
    place, opened = target.resolve(), sequence.path.resolve()
    inside = place.relative_to(opened).parts if place.is_relative_to(opened) else ()
    # A video or a stack is opened by itself: nothing beside it is taken for more of its frames.
    in_masks = any(name.lower() in LAYOUTS.values() for name in inside)
    if isinstance(sequence, ImageFiles) and not in_masks:
        check_beside_frames(sequence, target)


def identities_of(sequence: FrameSequence) -> set[tuple[int, int] | None]:
    """Identify the files that frames are read from; see `file_identity`."""
    sources = {frame.source for frame in sequence.frames}
    return {file_identity(source) for source in sources} - {None}


def file_identity(file: Path) -> tuple[int, int] | None:
    """Tell files apart as `os.path.samefile` does; None where there is none."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _names_and_sizes(
    masks: Any, sequence: FrameSequence | None, stem: str
) -> dict[int, tuple[str, int, int]]:
    """Give name, height and width of the mask file of each frame that can be read."""
    if sequence is None or len(sequence) != masks.shape[0]:
        return {index: (f"{stem}_{index:06d}", *masks.shape[1:]) for index in range(masks.shape[0])}
    return {
        index: (frame.name, frame.height, frame.width)
        for index, frame in enumerate(sequence.frames)
        if index not in sequence.problems
    }


def _write_folder(folder: Path, masks: Any, files: Mapping[int, tuple[str, int, int]]) -> list[str]:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists already; choose a new name or empty it first.")
    # The folder appears whole or not at all.
    parts = folder.with_name(f".{folder.name}.{uuid4().hex}.part")
    try:
        for index, (name, height, width) in files.items():
            file = parts / f"{name}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            write_mask_file(file, _labels(masks[index], np.uint8)[:height, :width])
        if folder.exists():
            folder.rmdir()
        parts.replace(folder)
    finally:
        shutil.rmtree(parts, ignore_errors=True)
    return [str(folder / f"{name}.png") for name, _, _ in files.values()]


def _write_stack(target: Path, masks: Any) -> None:
    import tifffile

    dtype = np.uint8 if masks.dtype.itemsize == 1 else np.uint16
    with replacing(target) as file:
        tifffile.imwrite(
            file,
            (_labels(masks[index], dtype) for index in range(masks.shape[0])),
            shape=masks.shape,
            dtype=dtype,
            photometric="minisblack",
            compression="zlib",
            bigtiff=np.prod(masks.shape) * np.dtype(dtype).itemsize > _LARGEST_CLASSIC_TIFF,
            metadata={"axes": "TYX"},
        )


def _labels(mask: Any, dtype: type[np.unsignedinteger[Any]]) -> NDArray[Any]:
    """Return one mask with labels of a type that the file can hold."""
    values = np.asarray(mask)
    largest = np.iinfo(dtype).max
    if values.size and (values.max() > largest or values.min() < 0):
        raise InputError(
            f"The layer holds labels outside 0 to {largest}, which the file cannot; "
            "renumber them, or save as .tif."
        )
    return values.astype(dtype)
