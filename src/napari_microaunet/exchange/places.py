"""Names of frames as paths: nothing that is written or read leaves its folder."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NoReturn

from napari_microaunet.curation.groups import root_of
from napari_microaunet.errors import InputError
from napari_microaunet.frames.folder import LAYOUTS, ImageFiles
from napari_microaunet.frames.images import IMAGE_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_microaunet.frames import Frame, FrameSequence

# File systems allow 255 bytes; endings and what is added to names need some.
_LONGEST_NAME = 200
_HASH_DIGITS = 8


def check_name(name: str, file: Path) -> str:
    """Refuse a name that could lead out of a folder.

    Parameters
    ----------
    name : str
        Relative, with forward slashes.
    file : Path
        What the name stands in, for the message.

    Returns
    -------
    str
        The name as it is.

    Raises
    ------
    InputError
        If it is absolute, has a backslash, a drive or a NUL, a part that is empty, . or .., or
        is a file name that is no Unicode.
    """
    parts = name.split("/")
    plain = all(part not in ("", ".", "..") for part in parts) and not {"\\", "\0"} & {*name}
    if not plain or parts[0][1:2] == ":" or not _is_unicode(name):
        raise InputError(
            f"{file} names {name[:_LONGEST_NAME]!r}, which is no plain path below a folder; "
            "rename the frame."
        )
    return name


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def target_file(folder: Path, relative: str) -> Path:
    """Give the path of a file below a folder that is being written, and make its folder."""
    target = folder / check_name(relative, folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def check_file_name(file_name: object, file: Path) -> str:
    """Refuse what is no name of an image, as it stands in a file of labels.

    Parameters
    ----------
    file_name : str
        Such as ``case 3/12.jpg``.
    file : Path
        What it stands in, for the message.

    Returns
    -------
    str
        The name as it is.

    Raises
    ------
    InputError
        As `check_name`.
    """
    if not isinstance(file_name, str):
        raise InputError(f"{file} names {file_name!r} where the name of an image is needed.")
    return check_name(file_name, file)


def file_names(sequence: FrameSequence) -> list[str]:
    """Tell what the image files of frames are called in the folder that holds all of them.

    That is the folder opened, or ``images`` in it where that is the layout. So ``a.jpg`` and
    ``a.png`` are told apart, whose frames are called ``a`` and ``a_png``.

    Parameters
    ----------
    sequence : FrameSequence
        The frames.

    Returns
    -------
    list of str
        With endings and forward slashes. Frames of videos and stacks are PNG files of their names;
        files elsewhere, and those whose names are no Unicode, are called after their frames, too.
    """
    frames = sequence.frames
    if not isinstance(sequence, ImageFiles):
        return [f"{frame.name}.png" for frame in frames]
    folder = root_of(sequence.path)
    inside = [frame.source for frame in frames if frame.source.is_relative_to(folder)]
    tops = {file.relative_to(folder).parts[0] for file in inside}
    top = tops.pop() if len(tops) == 1 else ""
    if top.lower() in LAYOUTS and not frames[0].name.startswith(f"{top}/"):
        folder /= top

    def called(frame: Frame) -> str:
        name = ""
        if frame.source.is_relative_to(folder):
            name = frame.source.relative_to(folder).as_posix()
        return name if name and _is_unicode(name) else frame.name + frame.source.suffix

    return [called(frame) for frame in frames]


def without_suffix(name: str) -> str:
    """Take the ending of an image off a name; other dots belong to the name."""
    suffix = PurePosixPath(name).suffix
    return name[: -len(suffix)] if suffix.lower() in IMAGE_SUFFIXES else name


def flat_name(name: str) -> str:
    """Turn the name of a frame into one for a layout without subfolders.

    ``case 3/12`` becomes ``case 3__12``. Where that could be of another name as well
    (``case 3__12`` itself), and where it is very long, it gets a hash besides, so that
    different names stay different whatever other frames there are.
    """
    flat = name.replace("/", "__")
    if flat.replace("__", "/") == name and len(flat.encode()) <= _LONGEST_NAME:
        return flat
    kept = flat.encode()[: _LONGEST_NAME - _HASH_DIGITS].decode(errors="ignore")
    return f"{kept}-{hashlib.sha256(name.encode()).hexdigest()[:_HASH_DIGITS]}"


def files_below(folder: Path, suffixes: frozenset[str]) -> Iterator[tuple[str, Path]]:
    """Find the files with certain endings in a folder and the folders in it, in order.

    Parameters
    ----------
    folder : Path
        Where to look.
    suffixes : frozenset of str
        Lower-case, with the dot.

    Yields
    ------
    (str, Path)
        Path relative to the folder, without the ending, with forward slashes; and the file.

    Raises
    ------
    InputError
        If there is a link to a folder, or one to a file outside, or a folder that cannot be read.
    """

    def refuse(error: OSError) -> NoReturn:
        raise InputError(
            f"{error.filename} cannot be read ({error.strerror}); check the path."
        ) from error

    root = folder.resolve()
    for parent, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(one for one in folders if not one.startswith("."))
        for one in folders:
            if (path := Path(parent, one)).is_symlink():
                raise InputError(f"{path} is a link to a folder; put the folder itself there.")
        for one in sorted(files):
            path = Path(parent, one)
            if path.suffix.lower() in suffixes and not one.startswith("."):
                _check_link(path, root)
                yield path.relative_to(folder).as_posix()[: -len(path.suffix)], path


def folder_of(path: Path, *names: str) -> Path:
    """Choose the first of some folders that an export has, or the path itself if it has none.

    Raises
    ------
    InputError
        If it is a link out of the export.
    """
    for name in names:
        folder = path / name
        if folder.is_dir():
            _check_link(folder, path.resolve())
            return folder
    return path


def file_of(path: Path, relative: str) -> Path:
    """Choose a file of an export, or the file itself where that was given.

    Raises
    ------
    InputError
        If it is missing, or a link out of the folder.
    """
    if not path.is_dir():
        return path
    file = path / relative
    if not file.exists() and not file.is_symlink():
        raise InputError(f"{path} holds no {relative}; give the folder of an export, or the file.")
    _check_link(file, path.resolve())
    return file


def _check_link(path: Path, root: Path) -> None:
    """Refuse a link that leads nowhere, round in circles, or out of a folder that is resolved."""
    if not path.is_symlink():
        return
    try:
        found = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise InputError(f"{path} is a link that leads nowhere; take it away.") from error
    if not found.is_relative_to(root):
        raise InputError(f"{path} is a link to {found}, out of its folder; copy that instead.")
