"""Where the files of a dataset are made, and how they come to their places.

A new dataset is built beside its place and moved there. Of one that grows, the files are made in a
folder inside it, then moved into place, the manifest last. Killed before that, it is as it was;
killed while files are moved, it opens, and the same command completes it. What has been replaced,
perhaps a picture with a name in it, is listed before the manifest and removed after it: killed in
between, the next one that appends removes it.
"""

from __future__ import annotations

import shutil
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING
from uuid import uuid4

from filelock import FileLock, Timeout
from pydantic import TypeAdapter, ValidationError

from napari_microaunet.atomic import replacing
from napari_microaunet.curation.dataset import check_files
from napari_microaunet.curation.manifest import MANIFEST_NAME, RelativePath, write_manifest
from napari_microaunet.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from napari_microaunet.curation.manifest import FrameRecord, Manifest

# Inside a dataset, hidden from whatever opens the folder as plain images.
_STAGE = ".incoming"
_LOCK = ".lock"
_REPLACED = ".replaced.json"
_NAMES = TypeAdapter(list[RelativePath])


@contextmanager
def stage_beside(folder: Path) -> Iterator[Path]:
    """Give a folder on the same drive that is gone when the block is left."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    stage = folder.with_name(f".{folder.name}.{uuid4().hex}.part")
    stage.mkdir()
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


@contextmanager
def stage_inside(folder: Path) -> Iterator[Path]:
    """Give a folder in a dataset that no other program has, and that is gone after the block."""
    stage = folder / _STAGE
    stage.mkdir(exist_ok=True)
    try:
        with FileLock(stage / _LOCK, timeout=0):
            _clear(stage)  # of a run that was killed
            try:
                yield stage
            finally:
                _clear(stage)
                with suppress(OSError):  # some systems remove no file that is open
                    (stage / _LOCK).unlink()
    except Timeout as error:
        raise InputError(
            f"{folder} is being appended to by another program; wait for it to end."
        ) from error
    finally:
        with suppress(OSError):  # it is another program's by now
            stage.rmdir()


def _clear(stage: Path) -> None:
    for path in stage.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != _LOCK:
            path.unlink()


def made(path: Path) -> Path:
    """Return a path whose folder is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write_file(path: Path, content: bytes) -> None:
    """Write a file, to the disk itself."""
    with replacing(path) as file:
        file.write(content)


def link_file(file: Path, target: Path) -> None:
    """Make a hard link of a file.

    Raises
    ------
    OSError
        If that cannot be done there; it says so.
    """
    try:
        target.hardlink_to(file.resolve())
    except OSError as error:
        raise OSError(
            error.errno, f"no hard link of it can be made, copy the frames: {error.strerror}", file
        ) from error


def publish(stage: Path, folder: Path, manifest: Manifest) -> None:
    """Turn what was staged into the dataset."""
    used = _files(manifest.frames)
    for path in [path for path in stage.rglob("*") if path.is_file()]:
        if path.relative_to(stage).as_posix() not in used:  # of a frame that was left out
            path.unlink()
    write_manifest(stage / MANIFEST_NAME, manifest)
    try:
        stage.rename(folder)
    except OSError as error:
        raise InputError(
            f"{folder} cannot be made ({error.strerror}); choose another place."
        ) from error


def move_in(
    stage: Path,
    folder: Path,
    before: Sequence[FrameRecord],
    records: Sequence[FrameRecord],
    manifest: Manifest,
) -> None:
    """Move the files of frames into the dataset, then the manifest; remove what they replace."""
    # A link there that leads out of the folder would be followed.
    check_files(folder, manifest)
    for name in _files(records):
        if (stage / name).exists():
            (stage / name).replace(made(folder / name))
    replaced = sorted(_files(before) - _files(manifest.frames))
    if replaced:
        with replacing(folder / _REPLACED) as file:
            file.write(_NAMES.dump_json(replaced))
    write_manifest(folder / MANIFEST_NAME, manifest)
    remove_replaced(folder, manifest)


def remove_replaced(folder: Path, manifest: Manifest) -> None:
    """Remove files that were listed as replaced, but for those that the manifest lists, too."""
    listed = folder / _REPLACED
    try:
        names = _NAMES.validate_json(listed.read_bytes())
    except FileNotFoundError:
        return
    except ValidationError:  # no list of ours
        names = []
    inside, used = folder.resolve(), {*_files(manifest.frames), MANIFEST_NAME}
    for name in set(names) - used:
        if (folder / name).resolve().is_relative_to(inside):
            (folder / name).unlink(missing_ok=True)
    listed.unlink()


def _files(records: Sequence[FrameRecord]) -> set[str]:
    return {name for one in records for name in (one.image, one.mask) if name is not None}
