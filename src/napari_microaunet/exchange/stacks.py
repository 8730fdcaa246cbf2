"""Masks of one size as slices of one file: TIFF for ImageJ, OME-TIFF, NIfTI.

Names of frames lie beside it, as a list in a JSON file; masks of several sizes are files of
their own::

    OUT/masks.tif, masks.json
    OUT/masks-1280x1024.tif, masks-1280x1024.json, ...     for several sizes
"""

from __future__ import annotations

import gzip
from abc import abstractmethod
from collections import defaultdict
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import uuid4

import numpy as np
from PIL import Image

from napari_microaunet.errors import InputError
from napari_microaunet.exchange.base import SCRATCH, Format, ImportedMask
from napari_microaunet.exchange.json_files import read_json, write_json
from napari_microaunet.exchange.places import check_name, file_of, target_file
from napari_microaunet.frames.images import DECODING_ERRORS, LARGEST_SIDE, opened
from napari_microaunet.frames.masks import IGNORE
from napari_microaunet.frames.sequence import UnreadableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_microaunet.exchange.base import Record
    from napari_microaunet.exchange.labelled import LabelledFrame

    Mask = NDArray[np.uint8]

# Tells our files, where the list of names is gone, from others', which have 255 for polyps.
_MARK = "MicroAUNet labels: 0 background, 1..n polyps, 255 ignore"
_SOFTWARE_TAG = 305
# Offsets in TIFF files have 32 bits, and ImageJ reads no BigTIFF.
_LARGEST_TIFF = 2**32 - 2**25
# Sides in NIfTI-1 have 15 bits.
_MOST_SLICES = 2**15 - 1


class _Stack(Format):
    """Masks as slices of one file.

    Attributes
    ----------
    suffix : str
        Ending of the file.
    """

    remark = "Frames of several sizes make several files."
    suffix: ClassVar[str]

    def files(self, frame: LabelledFrame) -> list[str]:  # noqa: ARG002
        return []

    def summary_files(self, frames: Sequence[LabelledFrame]) -> list[str]:
        return [f"{stem}{suffix}" for stem in _stacks(frames) for suffix in (self.suffix, ".json")]

    def write(self, folder: Path, frame: LabelledFrame, mask: Mask) -> Record:
        # Each mask is a file of its own until the stack is written.
        slice_name = f"{SCRATCH}/{uuid4().hex}.png"
        Image.fromarray(mask).save(target_file(folder, slice_name), compress_level=1)
        return {"slice": slice_name, "size": [frame.height, frame.width]}

    def finish(
        self,
        folder: Path,
        frames: Sequence[LabelledFrame],
        records: Callable[[], Iterator[Record]],
        still_wanted: Callable[[], None],
    ) -> None:
        for stem, members in _stacks(frames).items():
            size = members[0].height, members[0].width

            def masks(size: tuple[int, int] = size) -> Iterator[Mask]:
                for record in records():
                    still_wanted()
                    if record["size"] == [*size]:
                        yield np.asarray(Image.open(folder / record["slice"]))

            names = [frame.name for frame in members]
            self.write_stack(folder / f"{stem}{self.suffix}", masks(), (len(names), *size), names)
            write_json(folder / f"{stem}.json", names)

    def read(self, path: Path) -> Iterator[ImportedMask]:
        found = [path] if path.is_file() else sorted(path.glob(f"*{self.suffix}"))
        files = [file if file == path else file_of(path, file.name) for file in found]
        if not files:
            raise InputError(f"{path} holds no *{self.suffix}; give a file, or a folder with some.")
        for file in files:
            names = _names(file.with_name(f"{file.name.removesuffix(self.suffix)}.json"))
            yield from self.read_stack(file, names)

    @abstractmethod
    def write_stack(
        self, file: Path, masks: Iterator[Mask], shape: tuple[int, int, int], names: list[str]
    ) -> None:
        """Write masks of one size, number by height by width in all, as they come."""

    @abstractmethod
    def read_stack(self, file: Path, names: list[str] | None) -> Iterator[ImportedMask]:
        """Read the slices; without names they are in the order of the frames."""


class ImageJTiff(_Stack):
    """A TIFF stack for ImageJ, uncompressed."""

    key = "tiff"
    title = "TIFF stack (ImageJ)"
    suffix = ".tif"

    def check(self, frames: Sequence[LabelledFrame]) -> None:
        for stem, members in _stacks(frames).items():
            if len(members) * members[0].height * members[0].width > _LARGEST_TIFF:
                raise InputError(
                    f"{stem}.tif would be larger than the 4 GB that ImageJ reads; "
                    "export as ome-tiff, or fewer frames."
                )

    def write_stack(
        self, file: Path, masks: Iterator[Mask], shape: tuple[int, int, int], names: list[str]
    ) -> None:
        import tifffile

        metadata = {"axes": "TYX", "Labels": names}
        tifffile.imwrite(
            file,
            masks,
            shape=shape,
            dtype=np.uint8,
            imagej=True,
            software=_MARK,
            metadata=metadata,
        )

    def read_stack(self, file: Path, names: list[str] | None) -> Iterator[ImportedMask]:
        try:
            with opened(file) as image:
                count, size = getattr(image, "n_frames", 1), (image.height, image.width)
                tags = getattr(image, "tag_v2", {})
                ours = names is not None or tags.get(_SOFTWARE_TAG) == _MARK

                def values(number: int) -> NDArray[Any]:
                    return _page(image, number, size, file)

                read = _reader(values, count, file, ours=ours)
                if names is None or len(names) == count:
                    # The file stays open: finding a page takes a walk past all before it.
                    yield from _imported(file, names, count, size, read)
        except UnreadableError as error:
            raise InputError(f"{file} cannot be read: {error}; export it again.") from error
        # Here, because `opened` takes every ValueError for damage.
        if names is not None and len(names) != count:
            raise _wrong_count(file, count, names)


class OmeTiff(ImageJTiff):
    """An OME-TIFF stack, compressed, of any length."""

    key = "ome-tiff"
    title = "OME-TIFF stack"
    suffix = ".ome.tif"

    def check(self, frames: Sequence[LabelledFrame]) -> None:
        """Accept everything: BigTIFF has room."""

    def write_stack(
        self, file: Path, masks: Iterator[Mask], shape: tuple[int, int, int], names: list[str]
    ) -> None:
        import tifffile

        tifffile.imwrite(
            file,
            masks,
            shape=shape,
            dtype=np.uint8,
            ome=True,
            bigtiff=True,
            compression="zlib",
            software=_MARK,
            metadata={"axes": "TYX", "Description": "\n".join(names)},
        )


class Nifti(_Stack):
    """A NIfTI volume: x, y and the number of the frame."""

    key = "nifti"
    title = "NIfTI volume"
    suffix = ".nii.gz"

    def check(self, frames: Sequence[LabelledFrame]) -> None:
        if max(map(len, _stacks(frames).values())) > _MOST_SLICES:
            raise InputError(f"A NIfTI file holds {_MOST_SLICES} slices; export fewer frames.")

    def write_stack(
        self,
        file: Path,
        masks: Iterator[Mask],
        shape: tuple[int, int, int],
        names: list[str],  # noqa: ARG002
    ) -> None:
        import nibabel

        count, height, width = shape
        header = nibabel.Nifti1Header()
        header.set_data_dtype(np.uint8)
        header.set_data_shape((width, height, count))
        header["vox_offset"] = header.single_vox_offset
        header["descrip"] = _MARK.encode()
        with gzip.open(file, "wb", compresslevel=1) as target:
            header.write_to(target)
            # x is the fastest index of NIfTI, as the column is of an array.
            target.writelines(mask.tobytes() for mask in masks)

    def read_stack(self, file: Path, names: list[str] | None) -> Iterator[ImportedMask]:
        import nibabel
        from nibabel.filebasedimages import ImageFileError
        from nibabel.spatialimages import HeaderDataError
        from nibabel.wrapstruct import WrapStructError

        errors = (*DECODING_ERRORS, ImageFileError, HeaderDataError, WrapStructError)
        try:
            # Not nibabel.load, which opens a dozen formats more.
            volume: Any = nibabel.Nifti1Image.from_filename(file, keep_file_open=True)
            shape: tuple[int, ...] = volume.shape
        except errors as error:
            raise InputError(
                f"{file} cannot be read as NIfTI ({error}); export it again."
            ) from error
        if len(shape) != 3 or max(shape[:2]) > LARGEST_SIDE:
            raise InputError(f"{file} is no stack of masks; it has the shape {shape}.")
        if names is not None and len(names) != shape[2]:
            raise _wrong_count(file, shape[2], names)
        ours = names is not None or volume.header["descrip"].item() == _MARK.encode()

        def values(number: int) -> NDArray[Any]:
            try:
                return np.asarray(volume.dataobj[..., number]).T
            except errors as error:
                raise InputError(f"{file} is damaged or ends early ({error}).") from error

        read = _reader(values, shape[2], file, ours=ours)
        yield from _imported(file, names, shape[2], (shape[1], shape[0]), read)


def _stacks(frames: Sequence[LabelledFrame]) -> dict[str, list[LabelledFrame]]:
    """Sort frames by size, under the names of the files."""
    by_size = defaultdict(list)
    for frame in frames:
        by_size[frame.width, frame.height].append(frame)
    if len(by_size) == 1:
        return {"masks": [*frames]}
    return {f"masks-{width}x{height}": members for (width, height), members in by_size.items()}


def _names(file: Path) -> list[str] | None:
    if not file.exists():
        return None
    names = read_json(file_of(file.parent, file.name))
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{file} is no list of names; take it away if it is something else.")
    return [check_name(name, file) for name in names]


def _wrong_count(file: Path, slices: int, names: list[str]) -> InputError:
    return InputError(f"{file} has {slices} slices, but {len(names)} names; export it again.")


def _imported(
    file: Path,
    names: list[str] | None,
    count: int,
    size: tuple[int, int],
    read: Callable[[int], Mask],
) -> Iterator[ImportedMask]:
    for number in range(count):
        name = number if names is None else names[number]

        def read_slice(_size: tuple[int, int], number: int = number) -> Mask:
            return read(number)

        yield ImportedMask(name, file, size, read_slice)


def _reader(
    values: Callable[[int], NDArray[Any]], count: int, file: Path, *, ours: bool
) -> Callable[[int], Mask]:
    """Give what reads a slice; in files of others whose values are 0 and 255, those are polyps."""

    @cache
    def has_numbers() -> bool:
        slices = (_labels(values(number), file) for number in range(count))
        return any(not np.isin(one, (0, IGNORE)).all() for one in slices)

    def read(number: int) -> Mask:
        labels = _labels(values(number), file)
        if ours or IGNORE not in labels or has_numbers():
            return labels
        return (labels > 0).astype(np.uint8)

    return read


def _page(image: Image.Image, number: int, size: tuple[int, int], file: Path) -> NDArray[Any]:
    try:
        image.seek(number)
        # Before anything is decoded: each page has a size of its own to lie about.
        values = np.asarray(image) if (image.height, image.width) == size else None
    except DECODING_ERRORS as error:
        raise InputError(f"{file} is damaged or ends early ({error}).") from error
    if values is None:
        raise InputError(f"{file} has pages of several sizes; export a file for each.")
    return values


def _labels(values: NDArray[Any], file: Path) -> Mask:
    if values.dtype.kind not in "buif":
        raise InputError(f"{file} holds {values.dtype} where labels of 0 to 255 are needed.")
    if values.ndim != 2 or not np.isfinite(values).all() or values.min() < 0 or values.max() > 255:
        raise InputError(f"{file} holds values that are no labels of 0 to 255.")
    labels = values.astype(np.uint8)
    if (labels != values).any():
        raise InputError(f"{file} holds values that are no whole numbers.")
    return labels
