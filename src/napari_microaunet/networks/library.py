"""The library of models: the bundled ones and the user's own.

A model is one ``.safetensors`` file. The user's own lie in the platform's data folder
(``~/.local/share/napari-microaunet/models`` on Linux), never in the working directory.
"""

from __future__ import annotations

import logging
import re
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from platformdirs import user_data_path

from napari_microaunet.atomic import replacing
from napari_microaunet.errors import InputError
from napari_microaunet.networks.checkpoint import ModelCard, load_checkpoint, read_card
from napari_microaunet.networks.onnx_export import forget_graphs, graph_with_card

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BUNDLED = Path(__file__).parent.parent / "weights"
BUNDLED_NAMES = ("student", "teacher", "expert")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Model:
    """One model that can be run.

    Attributes
    ----------
    name : str
        What it is chosen by: the file's stem; ``student``, ``teacher`` and ``expert`` are bundled.
    path : Path
        The checkpoint.
    card : ModelCard
        What the checkpoint says of itself.
    """

    name: str
    path: Path
    card: ModelCard

    @property
    def bundled(self) -> bool:
        """Whether the model came with the package."""
        return self.path.parent == BUNDLED


def user_models() -> Path:
    """Return the folder of the user's own models; it need not exist."""
    return user_data_path("napari-microaunet", appauthor=False) / "models"


def list_models() -> list[Model]:
    """List the bundled models, student first, then the user's own by name.

    A file that is no usable checkpoint is left out, with a line in the log.
    """
    models = []
    for path in _files():
        try:
            now = path.stat()
            card = _card(path, now.st_ino, now.st_mtime_ns, now.st_size)
            models.append(Model(path.stem, path, card))
        except (InputError, OSError) as error:
            _log.warning("left out of the list of models: %s", error)
    return models


@lru_cache(maxsize=256)
def _card(path: Path, *_as_it_is: int) -> ModelCard:
    """Read a card once while its file is the same: all lists of a window ask, again and again."""
    return read_card(path)


def find_model(name: str) -> Model:
    """Find a model by its name in the library, or by a path.

    Raises
    ------
    InputError
        If there is none, or the file is not usable.
    """
    for folder in (BUNDLED, user_models()):
        path = folder / f"{name}.safetensors"
        if path.parent == folder and path.is_file():
            return Model(name, path, read_card(path))
    path = Path(name)
    if path.suffix == ".safetensors" or path.is_file():
        return Model(path.stem, path, read_card(path))
    known = ", ".join(model.name for model in list_models())
    raise InputError(
        f"There is no model named {name!r}; choose one of {known}, or give a .safetensors file."
    )


def add_model(file: Path, name: str) -> Model:
    """Copy a checkpoint into the user's library, where every list of models finds it.

    Parameters
    ----------
    file : Path
        The checkpoint; it is read in full before anything is written.
    name : str
        What it is to be called.

    Raises
    ------
    InputError
        If the checkpoint does not fit its card, or the name cannot be used.
    """
    load_checkpoint(file)
    _write(_free_path(name), file.read_bytes())
    return find_model(name)


def export_model(model: Model, path: Path, *, overwrite: bool = False) -> None:
    """Copy a model's file, card included, to where the user wants it.

    Parameters
    ----------
    model : Model
        Any model; its file is read in full before anything is written.
    path : Path
        The file to write, ``.safetensors``; folders are made.
    overwrite : bool
        Whether a file that is there may be replaced.

    Raises
    ------
    InputError
        If the model's file is damaged, or ``path`` cannot be used.
    """
    _check_target(path, ".safetensors", overwrite)
    load_checkpoint(model.path)
    _write(path, model.path.read_bytes())


def export_graph(model: Model, path: Path, *, overwrite: bool = False) -> None:
    """Write a model as an ONNX graph with its card; see `onnx_export.graph_with_card`.

    Parameters
    ----------
    model : Model
        Any model.
    path : Path
        The file to write, ``.onnx``; folders are made.
    overwrite : bool
        Whether a file that is there may be replaced.

    Raises
    ------
    InputError
        If the model's file is damaged, or ``path`` cannot be used.
    """
    _check_target(path, ".onnx", overwrite)
    load_checkpoint(model.path)  # a graph that lies beside it says nothing of the file
    _write(path, graph_with_card(model))


def _write(path: Path, content: bytes) -> None:
    with _changing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(content)


@contextmanager
def _changing(path: Path) -> Iterator[None]:
    """Say in a sentence why a file cannot be written, renamed or deleted."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{path} cannot be changed ({error.strerror}); check its folder, your permissions and "
            "the free space."
        ) from error


def _check_target(path: Path, suffix: str, overwrite: bool) -> None:
    """Refuse a file that is there already, is called otherwise, or would be a model's own."""
    if path.suffix != suffix:
        raise InputError(f"{path} does not end in {suffix}; give the file a name that does.")
    if path.resolve().parent in (BUNDLED.resolve(), user_models().resolve()):
        raise InputError(f"{path} lies in the library of models itself; choose another folder.")
    if path.exists() and not overwrite:
        raise InputError(
            f"{path} is there already; choose another name, or say that it may be replaced "
            "(--overwrite)."
        )


def rename_model(model: Model, name: str) -> Model:
    """Call one of the user's models otherwise.

    Raises
    ------
    InputError
        If it came with the package, or the name or the file cannot be used.
    """
    check_own(model)
    path = _free_path(name, but=model.path)
    with _changing(model.path):
        model.path.rename(path)
    return find_model(name)


def delete_model(model: Model) -> None:
    """Delete one of the user's models for good.

    Raises
    ------
    InputError
        If it came with the package, or its file cannot be deleted.
    """
    check_own(model)
    with _changing(model.path):
        model.path.unlink()
    if all(other.card.sha256 != model.card.sha256 for other in list_models()):
        forget_graphs(model.card.sha256)


@dataclass(frozen=True)
class Lineage:
    """What a model was trained from.

    Attributes
    ----------
    ancestors : tuple of Model
        Those in the library: the parent, its parent and so on.
    unknown : str
        Hash of the weights that the oldest of them was trained from, which no model of the
        library has; empty where it was trained from random ones.
    """

    ancestors: tuple[Model, ...]
    unknown: str


def lineage_of(card: ModelCard, models: Sequence[Model]) -> Lineage:
    """Follow the parents that cards name.

    Parameters
    ----------
    card : ModelCard
        Of the model.
    models : sequence of Model
        Among which ancestors are looked for; of several with the same weights the first counts.

    Returns
    -------
    Lineage
        Ends before a model that is in it already: cards are no proof, and may name each other.
    """
    known = {model.card.sha256: model for model in reversed(models)}
    known.pop(card.sha256, None)
    ancestors = []
    parent = card.parent
    while parent and parent in known:
        ancestors.append(known.pop(parent))
        parent = ancestors[-1].card.parent
    return Lineage(tuple(ancestors), parent)


def check_own(model: Model) -> None:
    """Refuse to change a model that is not the user's own.

    Raises
    ------
    InputError
        If it came with the package, or is a file elsewhere.
    """
    if model.path.parent != user_models():
        raise InputError(f"{model.name} is not in your library; only your own models change.")


def _files() -> list[Path]:
    """List the files of the library, whether they can be used or not."""
    bundled = [BUNDLED / f"{name}.safetensors" for name in BUNDLED_NAMES]
    return [*bundled, *sorted(user_models().glob("*.safetensors"))]


def _free_path(name: str, but: Path | None = None) -> Path:
    """Return where a model of that name is kept; `but` is a file whose name is given up."""
    if not re.fullmatch(r"[\w()+-][\w .()+-]{0,58}[\w()+-]|[\w()+-]", name):
        raise InputError(
            f"{name!r} cannot be a model's name; use up to 60 letters, digits, spaces, dots and "
            "hyphens."
        )
    if name.casefold() in {path.stem.casefold() for path in _files() if path != but}:
        raise InputError(f"There is a model called {name} already; choose another name.")
    return user_models() / f"{name}.safetensors"
