"""The recipe of a training: everything that decides its outcome, as data.

A recipe is a TOML file whose sections are the models below; what a file leaves out has the
default stated here. Unknown keys are refused, so that a misspelt one cannot be ignored.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from napari_microaunet.distillation.augmentation.settings import AugmentationSettings
from napari_microaunet.errors import InputError, first_problem
from napari_microaunet.networks import Network

if TYPE_CHECKING:
    from collections.abc import Mapping

_FINETUNING = Path(__file__).parent / "recipes" / "finetune.toml"
# An encoder that knows ImageNet is changed with care, as when the expert was trained.
_OF_NETWORK: dict[Network, dict[str, Value]] = {
    # Faster it forgets, for nothing: training/experiments.md.
    "expert": {"optimiser.learning_rate": 1e-4, "optimiser.encoder_factor": 0.1}
}

_HEADROOM = 1.25

Value = bool | int | float | str
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, le=100)]
Positive = Annotated[float, Field(gt=0)]
Temperature = Annotated[float, Field(gt=0, le=1000)]


class _Section(BaseModel):
    # JSON, in which a run keeps its recipe, knows no infinite numbers.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class BatchSettings(_Section):
    """What one step of the training looks at.

    Attributes
    ----------
    size : int
        Frames per step.
    chunk : int
        Most frames that go through the network at once; a larger step is computed in equal
        parts, and each process takes its share of them. Batch norms see one part at a time, and
        every part weighs the same: fewer frames at once weigh polyps and frames without a mask a
        little more, where a part has fewer of the others.
    echo : int
        How often each augmented view is used (see `Views`): a tiny network takes steps faster
        than a processor makes views.
    negatives : float
        Share of negative frames among those with a mask, in [0, 1); one that the teacher gives
        (`Teacher.pseudo_labels`) counts. So frames without a mask do not take the place of polyps
        alone: a network that sees fewer polyps with each negative frame overlooks more.
    unlabelled : float
        Share of frames without a mask; used only where there is a teacher.
    most_unlabelled : int
        Frames without a mask that are read at most, spread evenly over them: a long video has
        more than the teacher can label and the memory can hold.
    source_weights : dict of str to float
        How often a frame of a source is drawn, relative to the others (1).
    """

    size: Annotated[int, Field(ge=1, le=4096)] = 16
    chunk: Annotated[int, Field(ge=1)] = 4096
    echo: Annotated[int, Field(ge=1, le=16)] = 1
    negatives: Annotated[float, Field(ge=0, lt=1)] = 0.3
    unlabelled: Share = 0.15
    most_unlabelled: Annotated[int, Field(ge=0)] = 1000
    source_weights: dict[str, Weight] = {}


class Replay(_Section):
    """Frames that the model knew before, shown again so that it forgets less.

    Attributes
    ----------
    share : float
        Of the frames in every batch, in [0, 1).
    data : Path, optional
        A curated dataset, or another folder with masks, whose training split is replayed, relative
        to the recipe's file; rendered frames that come with the package by default. Files that are
        held out in the dataset at hand are not replayed; frames that only resemble them are.
    """

    share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    data: Path | None = None


class SizeSettings(_Section):
    """How large frames are shown to the network.

    Attributes
    ----------
    side : int
        Height and width in pixels, in the end and in use.
    kept : int, optional
        Height and width of the frames that views are cut from; a quarter more than ``side`` by
        default, for zooming in.
    first : int
        Height and width at first: a small network learns its colours and coarse shapes from
        small frames in a third of the time.
    first_share : float
        Share of the budget spent on frames of that size, in [0, 1].
    """

    side: Annotated[int, Field(ge=32, le=2048)] = 256
    kept: Annotated[int, Field(ge=32, le=4096)] | None = None
    first: Annotated[int, Field(ge=32, le=2048)] = 160
    first_share: Share = 0.5

    @property
    def read_at(self) -> int:
        """Height and width of the frames in memory."""
        return self.kept or round(self.side * _HEADROOM)

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.first_share > 0 and self.first > self.side:
            raise ValueError("first is larger than side; lower it, or set first_share to 0")
        return self


class Budget(_Section):
    """When the training ends; exactly one is given.

    Attributes
    ----------
    minutes : float, optional
        Time in the training loop, over all its resumptions.
    epochs : float, optional
        Passes over as many frames as the training split has.
    steps : int, optional
        Steps of the optimiser.
    """

    minutes: Positive | None = None
    epochs: Positive | None = None
    steps: Annotated[int, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(value is not None for value in (self.minutes, self.epochs, self.steps)) != 1:
            raise ValueError("give one of minutes, epochs and steps")
        return self


class OptimiserSettings(_Section):
    """AdamW (Loshchilov and Hutter, arXiv 1711.05101), warm-up, cosine, averaging.

    Attributes
    ----------
    learning_rate : float
        At the top of the schedule.
    encoder_factor : float
        The encoder's learning rate relative to that; below 1 for pre-trained encoders. With 0 the
        encoder stays as it is, its batch norms' averages too, and a step takes less time.
    weight_decay : float
        The regularisation of the weights that both stages of the paper have.
    warm_up : float
        Share of the budget in which the learning rate rises, in [0, 1).
    last : float
        Learning rate at the end relative to the top.
    clip : float
        Largest norm of a step's gradient.
    average : float
        Decay per step of the moving average of the weights, which is what is validated and
        kept. It starts faster, so that short runs do not remember their first weights.
    """

    learning_rate: Positive = 2e-3
    encoder_factor: Weight = 1.0
    weight_decay: Weight = 1e-2
    warm_up: Annotated[float, Field(ge=0, lt=1)] = 0.03
    last: Share = 0.01
    clip: Positive = 1.0
    average: Share = 0.998


class Teacher(_Section):
    """Who teaches, and how.

    Attributes
    ----------
    model : str
        A model's name in the library, or its file.
    soft_labels : {"each view", "once"}
        Whether the teacher looks at every augmented batch, or labels every frame once before
        the training, and its labels follow the frame through the augmentation. The first is
        what the paper does and what aligning features needs; the second costs a fraction.
    pseudo_labels : bool
        Whether frames without a mask teach as if the teacher had drawn one, too, where it is sure
        (`soft_labels.pseudo_labels`); it has labelled them once.
    """

    model: str
    soft_labels: Literal["each view", "once"] = "each view"
    pseudo_labels: bool = False

    @model_validator(mode="after")
    def _labelled_once(self) -> Self:
        if self.pseudo_labels and self.soft_labels != "once":
            raise ValueError('pseudo_labels needs soft_labels = "once"')
        return self


class ImitationStage(_Section):
    """The first stage: do as the teacher does (arXiv 2511.01143, stage 1).

    Attributes
    ----------
    share : float
        Share of the budget, in (0, 1]; the preference stage has the rest.
    segmentation, boundary : float
        Weights of the losses on labels: everywhere, and in the band around the outline.
    divergence, features : float
        Weights of the losses against the teacher: its probabilities and its five skips. A cosine
        moves from the second to the first in the course of the stage.
    temperature : float
        Softens both sides' probabilities.
    band : int
        Half the width of the band around the outline, in pixels.
    """

    share: Annotated[float, Field(gt=0, le=1)] = 0.7
    segmentation: Weight = 1.0
    boundary: Weight = 0.0
    divergence: Weight = 1.0
    features: Weight = 0.0
    temperature: Temperature = 2.0
    band: Annotated[int, Field(ge=1, le=64)] = 5


class PreferenceStage(_Section):
    """The second stage: prefer polyp to what looks like it (arXiv 2511.01143, stage 2).

    Attributes
    ----------
    segmentation, boundary, divergence : float
        Weights as in the first stage.
    contrast : float
        Weight of the contrastive loss over hard pixels.
    pixels : int
        Most pixels of either kind that are compared at once.
    dimensions : int
        Of the pixel embeddings.
    temperature : float
        Of the contrastive loss.
    false_positive_weight : float
        How much more a background pixel weighs that the student takes for polyp.
    """

    segmentation: Weight = 1.0
    boundary: Weight = 0.0
    divergence: Weight = 0.5
    contrast: Weight = 0.1
    pixels: Annotated[int, Field(ge=2, le=8192)] = 256
    dimensions: Annotated[int, Field(ge=1, le=256)] = 16
    temperature: Temperature = 0.1
    false_positive_weight: Annotated[float, Field(ge=1)] = 3.0


class ValidationSettings(_Section):
    """How often a training is judged, and which of its weights it keeps.

    Attributes
    ----------
    keep : str
        "last": the weights at the end of the budget; in a long training on many frames they are
        better than what so few validation frames can choose (figures: training/experiments.md).
        "best": those of the best validation, as wherever a training ends before its budget.
    times : int
        Validations in the course of the budget.
    frames : int
        Most validation frames that are looked at, spread evenly over the split.
    patience : int
        The training ends after so many validations without a better one.
    """

    keep: Literal["last", "best"] = "last"
    times: Annotated[int, Field(ge=1)] = 20
    frames: Annotated[int, Field(ge=1)] = 200
    patience: Annotated[int, Field(ge=1)] = 1000


class Recipe(_Section):
    """One training.

    Attributes
    ----------
    title : str
        The model's name on its card.
    data : Path
        A curated dataset, or another folder with masks; relative to the recipe's file.
    network : str
        One of ``networks.NETWORKS``.
    start : str
        Weights to start from: a model's name in the library or its file (relative to the
        recipe's file if it is there); empty to start from random ones.
    standardise : bool, optional
        Whether the network is shown every frame at mean 0 and standard deviation 1; by default as
        the weights that it starts from, and not where it starts from random ones.
    teacher : Teacher, optional
        Without one the training is plain: no divergence, no features.
    seed : int
        Of the weights, the order of frames and the augmentation.
    preference : PreferenceStage, optional
        Left out when ``imitation.share`` is 1.
    """

    title: Annotated[str, Field(min_length=1, max_length=100)]
    data: Path
    network: Network = "microaunet"
    start: str = ""
    standardise: bool | None = None
    teacher: Teacher | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1
    budget: Budget
    batch: BatchSettings = BatchSettings()
    replay: Replay = Replay()
    size: SizeSettings = SizeSettings()
    augmentation: AugmentationSettings = AugmentationSettings()
    optimiser: OptimiserSettings = OptimiserSettings()
    imitation: ImitationStage = ImitationStage()
    preference: PreferenceStage = PreferenceStage()
    validation: ValidationSettings = ValidationSettings()

    @model_validator(mode="after")
    def _leaves_room(self) -> Self:
        if self.batch.unlabelled + self.replay.share >= 1:
            raise ValueError(
                "batch.unlabelled and replay.share leave no room for labelled frames in a batch; "
                "choose shares that add up to less than 1"
            )
        return self

    @model_validator(mode="after")
    def _features_need_views(self) -> Self:
        once = self.teacher is not None and self.teacher.soft_labels == "once"
        if once and self.imitation.features > 0:
            raise ValueError('imitation.features needs teacher.soft_labels = "each view"')
        return self


def read_recipe(path: Path) -> Recipe:
    """Read a recipe; paths in it become absolute.

    Raises
    ------
    InputError
        If the file is missing, is no TOML, or does not describe a training.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{path}: the recipe cannot be read ({error.strerror}); check the path."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: the recipe is no TOML file ({error}).") from error
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as error:
        raise InputError(
            f"{path}: {first_problem(error)}; see the recipes in training/."
        ) from error
    folder = path.absolute().parent
    changed: dict[str, object] = {
        "data": folder / recipe.data,
        "start": _beside(folder, recipe.start),
    }
    if recipe.replay.data is not None:
        changed["replay"] = recipe.replay.model_copy(update={"data": folder / recipe.replay.data})
    if recipe.teacher is not None:
        model = _beside(folder, recipe.teacher.model)
        changed["teacher"] = recipe.teacher.model_copy(update={"model": model})
    return recipe.model_copy(update=changed)


def finetuning_recipe(network: Network = "microaunet") -> Recipe:
    """Return the package's recipe for fine-tuning, without data, model, seed and budget.

    Parameters
    ----------
    network : {"microaunet", "malunet", "expert"}
        What is to be fine-tuned.
    """
    content = tomllib.loads(_FINETUNING.read_text(encoding="utf-8"))
    whose = {"title": "fine-tuned", "data": Path(), "budget": Budget(minutes=10)}
    recipe = Recipe.model_validate(content | whose | {"network": network})
    return changed(recipe, _OF_NETWORK.get(network, {}))


def changed(recipe: Recipe, changes: Mapping[str, Value]) -> Recipe:
    """Return a recipe that differs in some fields.

    Parameters
    ----------
    recipe : Recipe
        Stays as it is.
    changes : mapping of str to value
        What differs, by field, or by section and field, such as "optimiser.learning_rate".

    Raises
    ------
    InputError
        If there is no such field, or the value is none that it can have.
    """
    content = recipe.model_dump()
    for key, value in changes.items():
        *sections, field = key.split(".")
        section: Any = content
        for name in sections:
            section = section.get(name)
            if not isinstance(section, dict):
                raise InputError(f"A recipe has no {key}; see the recipes in training/.")
        section[field] = value
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise InputError(f"The recipe cannot be changed so: {first_problem(error)}.") from error


def _beside(folder: Path, model: str) -> str:
    """Return the file that a recipe means, or the name as it is."""
    path = folder / model
    return str(path) if model and path.is_file() else model
