"""Folders of images, with or without masks beside them: the layouts that polyp sets come in."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from natsort import natsort_keygen, ns

from napari_microaunet.errors import InputError
from napari_microaunet.frames.field_of_view import ANALYSIS_SIDE
from napari_microaunet.frames.images import IMAGE_SUFFIXES, read_rgb, read_size
from napari_microaunet.frames.masks import is_of_ours, read_mask_file
from napari_microaunet.frames.sequence import Frame, FrameSequence, UnreadableError, unicode_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

_log = logging.getLogger(__name__)

# Kvasir-SEG, PolypGen, CVC-ColonDB and ETIS-Larib; CVC-ClinicDB.
LAYOUTS = {"images": "masks", "original": "ground truth"}
_LAYOUT_NAMES = frozenset({*LAYOUTS, *LAYOUTS.values()})
# Headers are waited for more than they are computed, most of all on network drives.
_HEADER_THREADS = 8


class ImageFiles(FrameSequence):
    """Frames that are an image file each, with a mask file each where there is one.

    Parameters
    ----------
    path : Path
        What was opened.
    name : str
        Name of the sequence.
    files : sequence of (str, Path, Path or None)
        Name of the frame, its image and its mask.
    unused_masks : sequence of Path
        Masks that were found beside the frames and belong to none of them.
    folders : sequence of Path, optional
        As for `FrameSequence`.

    Attributes
    ----------
    mask_files : list of Path or None
        The mask of each frame.
    unused_masks : list of Path
        As given.

    Raises
    ------
    InputError
        If none of the files is a readable image.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        files: Sequence[tuple[str, Path, Path | None]],
        unused_masks: Sequence[Path] = (),
        folders: Sequence[Path] | None = None,
    ) -> None:
        with ThreadPoolExecutor(_HEADER_THREADS) as pool:
            sizes = list(pool.map(_size_or_problem, (image for _, image, _ in files)))
        readable = next((size for size in sizes if not isinstance(size, str)), None)
        if readable is None:
            raise InputError(
                f"None of the {len(files)} image files in {path} can be read; "
                f"the first is {files[0][1].name}: {sizes[0]}."
            )
        problems = {i: size for i, size in enumerate(sizes) if isinstance(size, str)}
        frames = [
            Frame(frame_name, image, *(readable if isinstance(size, str) else size))
            for (frame_name, image, _), size in zip(files, sizes, strict=True)
        ]
        super().__init__(path, name, frames, problems, folders)
        self.mask_files = [mask for _, _, mask in files]
        self.unused_masks = list(unused_masks)

    @property
    def has_masks(self) -> bool:
        """Whether masks were found beside at least one of the frames."""
        return any(self.mask_files)

    def _decode(self, index: int) -> NDArray[np.uint8]:
        return read_rgb(self.frames[index].source)

    def _glance(self, index: int) -> NDArray[np.uint8]:
        return read_rgb(self.frames[index].source, ANALYSIS_SIDE)

    def _decode_mask(self, index: int) -> NDArray[np.uint8] | None:
        mask = self.mask_files[index]
        return None if mask is None else read_mask_file(mask)


def open_folder(path: Path) -> ImageFiles:
    """Open a folder of images and of folders of images.

    Frames are in natural order (``img2`` before ``img10``). Wherever a folder holds ``images``
    and ``masks``, or ``Original`` and ``Ground Truth``, the first are the frames and files of
    equal stem in the second are their masks; so it is for a folder that has its masks in
    a folder ``masks`` of its own, and for ``images`` itself with ``masks`` beside it. Images that
    differ by extension alone, ``a.jpg`` and ``a.png``, are frames ``a`` and ``a_png``: masks that
    are called so, as ours are, belong to these; those of others, to the image of their whole name.
    Hidden files and folders are left out, and so are sessions (``NAME.microaunet``). Links are
    followed, as sets are often put together from links, but not round in circles. A folder inside
    that cannot be listed (``lost+found`` of a drive) is left out, with a line in the log.

    Parameters
    ----------
    path : Path
        The folder.

    Returns
    -------
    ImageFiles
        One frame per image file.

    Raises
    ------
    InputError
        If there is no image, or none that can be read.
    """
    trees = [_masks_beside(path)]
    files = _in_order(_walk(path, PurePosixPath(), trees[0], frozenset(), trees))
    if not files:
        raise InputError(
            f"{path} holds no images that you may read; choose a folder with files of the types "
            f"{', '.join(sorted(IMAGE_SUFFIXES))}, or a single video or TIFF stack."
        )
    name = path.parent.name if path.name.lower() in LAYOUTS else path.name
    used = {mask for _, _, mask in files}
    masks = (mask for tree in trees for same_stem in tree.values() for mask in same_stem)
    return ImageFiles(path, name, files, sorted(set(masks) - used))


def holds_images(path: Path) -> bool:
    """Tell whether a folder, or one directly inside it, holds an image file; opens none.

    Parameters
    ----------
    path : Path
        The folder.
    """
    files, folders = _listing(path)
    return bool(files) or any(_listing(folder)[0] for folder in folders.values())


def open_images(paths: Sequence[Path]) -> ImageFiles:
    """Open image files one by one, or several together.

    Parameters
    ----------
    paths : sequence of Path
        At least one image file; they are put in natural order.

    Returns
    -------
    ImageFiles
        One frame per file, without masks.

    Raises
    ------
    InputError
        If none can be read.
    """
    files = [_File(PurePosixPath(path.name), path, {}) for path in paths]
    alone = len(paths) == 1
    return ImageFiles(
        paths[0] if alone else paths[0].parent,
        paths[0].stem if alone else paths[0].parent.name,
        _in_order(files),
    )


class _File(NamedTuple):
    relative: PurePosixPath
    image: Path
    masks: Mapping[str, list[Path]]

    @property
    def stem(self) -> str:
        return self.relative.with_suffix("").as_posix()


def _walk(
    folder: Path,
    inside: PurePosixPath,
    masks: Mapping[str, list[Path]],
    above: frozenset[Path],
    trees: list[dict[str, list[Path]]],
) -> Iterator[_File]:
    """Find the images of a folder; ``masks`` maps ``inside``/stem to what may be their masks.

    Trees of masks that are met on the way are added to ``trees``.
    """
    above |= {folder.resolve()}
    files, folders = _listing(folder)
    for images_name, masks_name in LAYOUTS.items():
        if masks_name in folders:
            found = _mask_tree(folders.pop(masks_name), inside)
            trees.append(found)
            if images_name in folders:
                yield from _walk(folders.pop(images_name), inside, found, above, trees)
            else:
                masks = {**masks, **found}
    for file in files:
        yield _File(inside / file.name, file, masks)
    for child in folders.values():
        # A link back to a folder above would go round in circles.
        if child.resolve() not in above:
            yield from _walk(child, inside / child.name, masks, above, trees)


def _listing(folder: Path) -> tuple[list[Path], dict[str, Path]]:
    """List the image files of a folder, and its folders by name, those of layouts in lower case.

    A folder that cannot be listed holds nothing, with a line in the log.
    """
    files, folders = [], {}
    try:
        paths = list(folder.iterdir())
    except OSError as error:
        _log.warning("left out of the frames: %s", error)
        return [], {}
    for path in paths:
        if path.name.startswith((".", "__MACOSX")) or path.name.endswith(".microaunet"):
            continue
        if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises where it may not look
            folders[path.name] = path
        elif path.suffix.lower() in IMAGE_SUFFIXES:
            files.append(path)
    for name in sorted(folders):
        lower = name.lower()
        if lower in _LAYOUT_NAMES and lower not in folders:
            folders[lower] = folders.pop(name)
    return files, folders


def _mask_tree(folder: Path, inside: PurePosixPath) -> dict[str, list[Path]]:
    found = defaultdict(list)
    for file in _walk(folder, inside, {}, frozenset(), []):
        found[file.stem].append(file.image)
    return found


def _masks_beside(folder: Path) -> dict[str, list[Path]]:
    masks_name = LAYOUTS.get(folder.name.lower())
    if masks_name is None:
        return {}
    _, siblings = _listing(folder.parent)
    if masks_name not in siblings:
        return {}
    return _mask_tree(siblings[masks_name], PurePosixPath())


def _in_order(files: Iterable[_File]) -> list[tuple[str, Path, Path | None]]:
    """Sort naturally, give names and masks; files that differ by extension alone keep it.

    Names are Unicode also where those of the files are not (`unicode_name`).
    """
    natural = natsort_keygen(alg=ns.PATH | ns.IGNORECASE)
    taken: set[str] = set()
    named = []
    for file in sorted(
        files, key=lambda file: (natural(file.relative.as_posix()), file.relative.as_posix())
    ):
        name = unicode_name(file.stem)
        while name.casefold() in taken:
            name += f"_{file.image.suffix[1:]}"
        taken.add(name.casefold())
        named.append((name, file))
    return [
        (name, file.image, mask) for (name, file), mask in zip(named, _masks_of(named), strict=True)
    ]


def _masks_of(named: Sequence[tuple[str, _File]]) -> list[Path | None]:
    """Choose the mask of each frame, given by its name and file.

    A mask is called as its frame is or as its image is, which differ where images differ by
    extension alone. Of these, a mask that bears the name that such a frame alone has, or that we
    wrote, shows that all are called as frames are.
    """
    found = {
        name: min(file.masks[name])
        for name, file in named
        if name != file.stem and name in file.masks
    }
    taken = set(found.values())
    alike = defaultdict(list)
    for name, file in named:
        alike[file.image.with_suffix("")].append((name, file))
    for same in alike.values():
        several = len(same) > 1
        called_as_frames = several and any(
            name in found or any(map(is_of_ours, file.masks.get(file.stem, ())))
            for name, file in same
        )
        for name, file in same:
            masks = [mask for mask in file.masks.get(file.stem, ()) if mask not in taken]
            if called_as_frames:
                masks = masks if name == file.stem else []
            elif several:
                # Who could tell whose another one is.
                masks = [mask for mask in masks if mask.name == file.image.name]
            if masks:
                found.setdefault(name, min(masks))
    return [found.get(name) for name, _ in named]


def _size_or_problem(path: Path) -> tuple[int, int] | str:
    try:
        return read_size(path)
    except UnreadableError as error:
        return str(error)
