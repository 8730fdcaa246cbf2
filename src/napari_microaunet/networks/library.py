"""The library of models: the bundled ones and the user's own.

A model is one ``.safetensors`` file. The user's own lie in the platform's data folder
(``~/.local/share/napari-microaunet/models`` on Linux), never in the working directory.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_data_path

from napari_microaunet.atomic import replacing
from napari_microaunet.errors import InputError
from napari_microaunet.networks.checkpoint import ModelCard, load_checkpoint, read_card

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
    paths = [BUNDLED / f"{name}.safetensors" for name in BUNDLED_NAMES]
    for path in [*paths, *sorted(user_models().glob("*.safetensors"))]:
        try:
            models.append(Model(path.stem, path, read_card(path)))
        except InputError as error:
            _log.warning("left out of the list of models: %s", error)
    return models


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
    path = _free_path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as copy:
        copy.write(file.read_bytes())
    return find_model(name)


def rename_model(model: Model, name: str) -> Model:
    """Call one of the user's models otherwise.

    Raises
    ------
    InputError
        If it came with the package, or the name cannot be used.
    """
    _check_own(model)
    model.path.rename(_free_path(name))
    return find_model(name)


def delete_model(model: Model) -> None:
    """Delete one of the user's models.

    Raises
    ------
    InputError
        If it came with the package.
    """
    _check_own(model)
    model.path.unlink()


def _check_own(model: Model) -> None:
    if model.path.parent != user_models():
        raise InputError(f"{model.name} is not in your library; only your own models change.")


def _free_path(name: str) -> Path:
    """Return where a model of that name is kept."""
    if not re.fullmatch(r"[\w()+-][\w .()+-]{0,58}[\w()+-]|[\w()+-]", name):
        raise InputError(
            f"{name!r} cannot be a model's name; use up to 60 letters, digits, spaces, dots and "
            "hyphens."
        )
    if name.casefold() in {known.name.casefold() for known in list_models()}:
        raise InputError(f"There is a model called {name} already; choose another name.")
    return user_models() / f"{name}.safetensors"
