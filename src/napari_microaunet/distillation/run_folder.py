"""The folder of one training: what it was asked, what it did, what it can go on from.

::

    RUN/
    ├── recipe.json            the recipe as it was understood; a run never changes it
    ├── manifest.json          frames, groups and splits, frozen
    ├── metrics.jsonl          one JSON object a line: steps and validations
    ├── state.safetensors      everything that a resumed run needs
    ├── kept.safetensors       the model of the best validation so far, or the last, with its card
    ├── watched.jpg            a few held-out frames side by side (see `WatchedFrames`)
    └── curves.png             losses and validation scores
    soft_labels-HASH.safetensors   beside it: the teacher's labels, shared by runs of one folder

Nothing but the teacher's labels is written before the first step is about to be taken, so that
what is refused until then can be corrected and tried again. Every file is written whole beside
its target and moved into place, but for a line that is added to the metrics.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from pydantic import ValidationError

from napari_microaunet.atomic import replacing
from napari_microaunet.curation.dataset import open_dataset
from napari_microaunet.curation.manifest import MANIFEST_NAME, read_manifest, write_manifest
from napari_microaunet.distillation.recipe import Recipe
from napari_microaunet.errors import InputError, first_problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from torch import Tensor

    from napari_microaunet.curation.dataset import CuratedDataset
    from napari_microaunet.curation.manifest import Manifest

_FACTS = "facts"
_RECIPE = "recipe.json"


class RunFolder:
    """One training on disk.

    Parameters
    ----------
    path : Path
        The folder; it need not exist.
    recipe : Recipe
        What is to be trained.

    Raises
    ------
    InputError
        If the folder holds a training by another recipe, or something else, or lies among the
        frames.
    """

    def __init__(self, path: Path, recipe: Recipe) -> None:
        self.path = path
        self.recipe = recipe
        self.recipe_file = path / _RECIPE
        self.manifest_file = path / "manifest.json"
        self.metrics_file = path / "metrics.jsonl"
        self.state_file = path / "state.safetensors"
        self.kept_file = path / "kept.safetensors"
        self.curves_file = path / "curves.png"
        self.watched_file = path / "watched.jpg"
        if path.resolve().is_relative_to(recipe.data.resolve()):
            raise InputError(
                f"{path} lies among the frames in {recipe.data}, and its pictures would be taken "
                "for frames; choose a folder elsewhere for the training."
            )
        # Listed first: another process of the same training may be writing the recipe right now.
        files = path.iterdir() if path.is_dir() else ()
        others = [file for file in files if not file.name.startswith(".")]
        kept = kept_recipe(path)
        if kept is not None:
            self._compare(kept)
        elif others:
            raise InputError(
                f"{path} holds other files, such as {others[0].name}; choose an empty folder for "
                "the training."
            )

    def _compare(self, kept: Recipe) -> None:
        differ = [
            name
            for name in Recipe.model_fields
            if getattr(kept, name) != getattr(self.recipe, name)
        ]
        if differ:
            raise InputError(
                f"{self.path} holds a training that differs in {' and '.join(differ)}; choose "
                "another folder, or ask for the same again to go on with it, with the version of "
                "the package that began it."
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder if it is missing, and keep other trainings out of it.

        Raises
        ------
        InputError
            If another one is at it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.path / ".lock", timeout=0):
                yield
        except Timeout as error:
            raise InputError(
                f"Another process is training in {self.path} right now; wait for it, or choose "
                "another folder."
            ) from error

    def manifest(self) -> Manifest | None:
        """Read the frozen manifest; None in a run that has not begun."""
        return read_manifest(self.manifest_file) if self.manifest_file.is_file() else None

    def dataset(self, cancelled: Callable[[], bool] | None = None) -> CuratedDataset:
        """Open the recipe's frames as they were when the run began, or else as they are.

        A manifest of theirs may know other files, of before a mask was mended by hand: what is
        frozen are those that there are, so that the run can go on.

        Parameters
        ----------
        cancelled : callable, optional
            As for `open_dataset`, which says what is raised, too.
        """
        data, frozen = self.recipe.data, self.manifest()
        dataset = open_dataset(data, frozen, cancelled=cancelled)
        worked_out = not (data / MANIFEST_NAME).is_file()
        return dataset if frozen is not None or worked_out else dataset.as_it_is(cancelled)

    def begin(self, manifest: Manifest) -> None:
        """Freeze the recipe, and frames, groups and splits, unless that has been done."""
        if not self.recipe_file.is_file():
            with replacing(self.recipe_file) as file:
                file.write(self.recipe.model_dump_json(indent=1).encode())
        if not self.manifest_file.is_file():
            write_manifest(self.manifest_file, manifest)

    def add_metrics(self, line: Mapping[str, Any]) -> None:
        """Add one line to the metrics."""
        with self.metrics_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """Read the metrics so far; a last line that a kill cut short is left out.

        Raises
        ------
        InputError
            If another line is damaged.
        """
        if not self.metrics_file.is_file():
            return []
        complete = self.metrics_file.read_bytes().rpartition(b"\n")[0]
        try:
            return [json.loads(line) for line in complete.splitlines()]
        except ValueError as error:
            raise InputError(
                f"{self.metrics_file} is damaged ({error}); delete it to go on without it."
            ) from error

    def forget_metrics_after(self, step: int) -> None:
        """Drop the lines of steps that a resumed run takes again."""
        kept = [line for line in self.metrics() if line["step"] <= step]
        with replacing(self.metrics_file) as file:
            file.write("".join(json.dumps(line) + "\n" for line in kept).encode())


def save_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and what JSON can hold into one safetensors file, atomically."""
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as file:
        file.write(save(plain, metadata={_FACTS: json.dumps(facts)}))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file of `save_tensors`.

    Raises
    ------
    InputError
        If it is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()[_FACTS])
            return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118
    except (SafetensorError, TypeError, KeyError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is damaged ({error}); delete it and try again.") from error


def kept_recipe(folder: Path) -> Recipe | None:
    """Read the recipe of a run that has begun; None where none has.

    Raises
    ------
    InputError
        If it is damaged or from another version.
    """
    path = folder / _RECIPE
    if not path.is_file():
        return None
    try:
        return Recipe.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise InputError(
            f"{path} is damaged or from another version of the package ({first_problem(error)}); "
            "start a new training, in another folder."
        ) from error
