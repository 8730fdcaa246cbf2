"""Folders of images, with or without masks beside them: the layouts that polyp sets come in."""

from __future__ import annotations

import logging
import os
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from natsort import natsort_keygen, ns

from napari_microaunet.errors import InputError
from napari_microaunet.frames.field_of_view import ANALYSIS_SIDE
from napari_microaunet.frames.images import IMAGE_SUFFIXES, read_rgb, read_size
from napari_microaunet.frames.masks import read_mask_file
from napari_microaunet.frames.sequence import Frame, FrameSequence, UnreadableError, unicode_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

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
        super().__init__(path, name, frames, problems)
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
    differ by extension alone have the mask of their whole name, or none: ``a.png`` that of
    ``masks/a.png``, and ``a.jpg`` beside it none.
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
    files = list(_walk(path, PurePosixPath(), trees[0], frozenset(), trees))
    if not files:
        raise InputError(
            f"{path} holds no images that you may read; choose a folder with files of the types "
            f"{', '.join(sorted(IMAGE_SUFFIXES))}, or a single video or TIFF stack."
        )
    name = path.parent.name if path.name.lower() in LAYOUTS else path.name
    used = {file.mask for file in files}
    masks = (mask for tree in trees for same_stem in tree.values() for mask in same_stem)
    return ImageFiles(path, name, _in_order(files), sorted(set(masks) - used))


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
    files = [_File(PurePosixPath(path.name), path, None) for path in paths]
    alone = len(paths) == 1
    return ImageFiles(
        paths[0] if alone else paths[0].parent,
        paths[0].stem if alone else paths[0].parent.name,
        _in_order(files),
    )


class _File(NamedTuple):
    relative: PurePosixPath
    image: Path
    mask: Path | None


def _walk(
    folder: Path,
    inside: PurePosixPath,
    masks: Mapping[str, list[Path]],
    above: frozenset[Path],
    trees: list[dict[str, list[Path]]],
) -> Iterator[_File]:
    """Find the images of a folder; ``masks`` maps ``inside``/stem to the masks of that tree.

    Trees of masks that are met on the way are added to ``trees``.
    """
    above |= {folder.resolve()}
    files, folders = _listing(folder)
    for images_name, masks_name in LAYOUTS.items():
        if masks_name in folders:
            found = _mask_tree(folders.pop(masks_name))
            trees.append(found)
            if images_name in folders:
                layout = _walk(folders.pop(images_name), PurePosixPath(), found, above, trees)
                yield from (file._replace(relative=inside / file.relative) for file in layout)
            else:
                masks = dict(masks) | {(inside / stem).as_posix(): m for stem, m in found.items()}
    often = Counter(file.stem for file in files)
    for file in files:
        named = masks.get((inside / file.stem).as_posix(), [])
        of_whole_name = [mask for mask in named if mask.name == file.name]
        # Of several images, who could tell whose another one is.
        mine = of_whole_name or (named if often[file.stem] == 1 else [])
        yield _File(inside / file.name, file, min(mine, default=None))
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


def _mask_tree(folder: Path) -> dict[str, list[Path]]:
    found = defaultdict(list)
    for file in _walk(folder, PurePosixPath(), {}, frozenset(), []):
        found[file.relative.with_suffix("").as_posix()].append(file.image)
    return found


def _masks_beside(folder: Path) -> dict[str, list[Path]]:
    masks_name = LAYOUTS.get(folder.name.lower())
    if masks_name is None:
        return {}
    _, siblings = _listing(folder.parent)
    return _mask_tree(siblings[masks_name]) if masks_name in siblings else {}


def _in_order(files: Sequence[_File]) -> list[tuple[str, Path, Path | None]]:
    """Sort naturally and give names; files that differ by extension alone keep it in the name.

    Names are Unicode also where those of the files are not (`unicode_name`).
    """
    natural = natsort_keygen(alg=ns.PATH | ns.IGNORECASE)
    taken: set[str] = set()
    named = []
    for file in sorted(files, key=lambda file: natural(file.relative.as_posix())):
        name = unicode_name(file.relative.with_suffix("").as_posix())
        while name.casefold() in taken:
            name += f"_{file.image.suffix[1:]}"
        taken.add(name.casefold())
        named.append((name, file.image, file.mask))
    return named


def _size_or_problem(path: Path) -> tuple[int, int] | str:
    try:
        return read_size(path)
    except UnreadableError as error:
        return str(error)
