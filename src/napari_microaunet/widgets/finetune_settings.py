"""What is asked of a fine-tuning: model, teacher, time, and the rest under Advanced."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from magicgui.widgets import CheckBox, ComboBox, FileEdit, FloatSpinBox, SpinBox
from qtpy.QtWidgets import QFormLayout, QWidget

from napari_microaunet.distillation.jobs import FinetuneRequest, spare_threads
from napari_microaunet.distillation.recipe import finetuning_recipe
from napari_microaunet.networks.library import list_models
from napari_microaunet.widgets.choices import device_choices, keep_choice, model_choices
from napari_microaunet.widgets.section import Foldable, as_wide_as_the_dock, hint

if TYPE_CHECKING:
    from pathlib import Path

    from magicgui.widgets.bases import ValueWidget

    from napari_microaunet.distillation.recipe import Recipe, Value
    from napari_microaunet.widgets.workbench import Workbench

_SIDES = (160, 192, 256, 320, 384)


class FinetuneSettings(QWidget):
    """A form whose defaults do the right thing; what few people change is folded away.

    Parameters
    ----------
    bench : Workbench
        Tells when there are other models.
    """

    def __init__(self, bench: Workbench) -> None:
        super().__init__()
        self.model = ComboBox(label="Model", choices=model_choices)
        self.teacher = ComboBox(label="Teacher", choices=_teacher_choices, nullable=False)
        self.teacher.value = next(
            (value for value in self.teacher.choices if value == "expert"), None
        )
        self.adapt = CheckBox(text="Teach the teacher first", label="")
        self.minutes = SpinBox(label="Minutes", min=1, max=24 * 60, value=10)
        self.device = ComboBox(label="Device", choices=device_choices())
        self.goes_on = CheckBox(text="Goes on when the window is closed", value=True, label="")

        recipe = self._recipe()
        self.threads = SpinBox(label="Cores", min=1, max=os.cpu_count() or 1, value=spare_threads())
        self.reference = FileEdit(label="Reference", mode="d", nullable=True)
        self.seed = SpinBox(label="Seed", min=0, max=2**31 - 1, value=recipe.seed)
        # By what they change in the recipe.
        self.advanced: dict[str, ValueWidget] = {
            "size.side": ComboBox(
                label="Input size",
                choices=[("the model's own", None), *((f"{s} x {s}", s) for s in _SIDES)],
            ),
            "optimiser.encoder_factor": ComboBox(
                label="Layers",
                choices=lambda _: [
                    ("as the time allows", None),
                    ("all", self._recipe().optimiser.encoder_factor),
                    ("all but the encoder", 0.0),
                ],
            ),
            "optimiser.learning_rate": FloatSpinBox(
                label="Learning rate",
                min=1e-5,
                max=1e-2,
                step=1e-5,
                value=recipe.optimiser.learning_rate,
            ),
            "batch.size": SpinBox(label="Batch", min=2, max=256, value=recipe.batch.size),
            "batch.negatives": _share("Negatives", recipe.batch.negatives),
            "batch.unlabelled": _share("Not labelled", recipe.batch.unlabelled),
            "replay.share": _share("Replayed", recipe.replay.share),
            "imitation.share": _share("Imitation", recipe.imitation.share, least=0.05),
            "imitation.divergence": _weight("Teacher counts", recipe.imitation.divergence),
            "imitation.boundary": _weight("Outline counts", recipe.imitation.boundary),
            "preference.contrast": _weight("Contrast counts", recipe.preference.contrast),
            "validation.patience": SpinBox(
                label="Patience", min=1, max=1000, value=recipe.validation.patience
            ),
        }
        self._defaults = {name: one.value for name, one in self.advanced.items()}
        as_wide_as_the_dock(
            *(
                one.native
                for one in (self.model, self.teacher, self.device, *self.advanced.values())
                if isinstance(one, ComboBox)
            )
        )
        self._add_hints()
        self.model.changed.connect(self._suit_model)
        bench.models_changed.connect(self._on_models)

        layout = QFormLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setVerticalSpacing(5)
        for row in (self.model, self.teacher):
            layout.addRow(row.label, row.native)
        layout.addRow(self.adapt.native)
        for row in (self.minutes, self.device):
            layout.addRow(row.label, row.native)
        layout.addRow(self.goes_on.native)
        folded = QWidget()
        below = QFormLayout(folded)
        below.setContentsMargins(0, 0, 0, 0)
        below.setVerticalSpacing(5)
        for row in (self.threads, *self.advanced.values(), self.seed, self.reference):
            below.addRow(row.label, row.native)
        layout.addRow(Foldable("Advanced", folded, unfolded=False))

    def request(self, dataset: Path | None) -> FinetuneRequest | None:
        """Return what is asked for; None where there is no model.

        Parameters
        ----------
        dataset : Path or None
            The frames to learn from; None for those of the session.
        """
        model = self.model.value
        if model is None:
            return None
        return FinetuneRequest(
            title=f"{model.name}, {self.minutes.value} min",
            dataset=dataset,
            start=str(model.path),
            teacher=self.teacher.value,
            adapt_teacher=self.adapt.value and self.teacher.value is not None,
            minutes=self.minutes.value,
            reference=self.reference.value,
            device=self.device.value,
            threads=self.threads.value,
            seed=self.seed.value,
            changes=self.changes(),
        )

    def changes(self) -> dict[str, Value]:
        """Return what differs from the package's recipe."""
        return {
            name: one.value
            for name, one in self.advanced.items()
            if one.value != self._defaults[name]
        }

    def _recipe(self) -> Recipe:
        model = self.model.value
        return finetuning_recipe() if model is None else finetuning_recipe(model.card.network)

    def _suit_model(self) -> None:
        """Have what nobody has set be what the package does with this model."""
        layers, rate = (
            self.advanced[f"optimiser.{name}"] for name in ("encoder_factor", "learning_rate")
        )
        as_before = layers.value not in (None, 0.0)
        layers.reset_choices()
        if as_before:
            layers.value = self._recipe().optimiser.encoder_factor
        default = self._recipe().optimiser.learning_rate
        if rate.value == self._defaults["optimiser.learning_rate"]:
            rate.value = default
        self._defaults["optimiser.learning_rate"] = default

    def _on_models(self) -> None:
        if not keep_choice(self.model):
            self._suit_model()
        before = self.teacher.value
        self.teacher.reset_choices()
        self.teacher.value = before if before in self.teacher.choices else "expert"

    def _add_hints(self) -> None:
        hint(
            self.model.native,
            "The model that is taught further. The student gains most from few frames; the expert\n"
            "gained nothing from a hundred.",
        )
        hint(
            self.teacher.native,
            "The model that teaches beside your labels. The expert knows most; without a teacher\n"
            "the frames that are not reviewed teach nothing.",
        )
        hint(
            self.adapt.native,
            "The teacher learns from your frames first, in two fifths of the time. In ten minutes\n"
            "that gained nothing; for frames that look unlike all it knows it may.",
        )
        hint(self.minutes.native, "Time to train; reading and scoring come on top.")
        hint(self.device.native, "A graphics card is many times as fast.")
        hint(
            self.goes_on.native,
            "The run is found again when the window is opened next. Otherwise it is stopped, and\n"
            "can go on from where it was.",
        )
        hint(
            self.threads.native,
            "Processor cores that the run takes. With all of them it is over sooner, and this\n"
            "window is slower meanwhile.",
        )
        hint(
            self.reference.native,
            "Frames with masks that show what the model forgets; by default sample frames that\n"
            "come with the plugin. A data set that it knew well tells more.",
        )
        hint(
            self.seed.native,
            "Another number draws frames and views in another order: what differs between two\n"
            "such runs is chance.",
        )
        for name, text in _ADVANCED_HINTS.items():
            hint(self.advanced[name].native, text)


_ADVANCED_HINTS = {
    "size.side": "Frames are resized to this for the network. A larger size shows small polyps\n"
    "better; the model is slower, and gets fewer steps in the same time.",
    "optimiser.encoder_factor": "Without the encoder a step is quicker and less is forgotten, but\n"
    "frames that look quite unlike the known ones are learned less well.",
    "optimiser.learning_rate": "How far a step goes. Half of it where the loss jumps or stops\n"
    "being a number; twice of it where the curve is still falling at the end.",
    "batch.size": "Frames a step looks at. Fewer take less memory and give more, rougher steps.",
    "batch.negatives": "Share of frames without a polyp among those with a mask in a step. More\n"
    "of them mean fewer false alarms, and more polyps overlooked.",
    "batch.unlabelled": "Share of frames that nobody has reviewed, which the teacher labels. More\n"
    "help where you have accepted few frames and the teacher is good.",
    "replay.share": "Share of frames that the model knew before, rendered ones that come with the\n"
    "plugin: more of them, less is forgotten and less is learned.",
    "imitation.share": "Share of the time in which the model imitates the teacher; in the rest it\n"
    "learns to prefer polyps to what looks like them. 1 leaves the second stage out.",
    "imitation.divergence": "How much the teacher counts beside your masks, which count 1.",
    "imitation.boundary": "How much the band around the outline counts beside the whole mask:\n"
    "sharper outlines, in exchange for the rest.",
    "preference.contrast": "How much it counts in the second stage that polyps and what looks\n"
    "like them are told apart: fewer false alarms.",
    "validation.patience": "The run ends early after so many validations without a better one.",
}


def _share(label: str, value: float, least: float = 0.0) -> FloatSpinBox:
    return FloatSpinBox(label=label, min=least, max=1, step=0.05, value=value)


def _weight(label: str, value: float) -> FloatSpinBox:
    return FloatSpinBox(label=label, min=0, max=10, step=0.05, value=value)


def _teacher_choices(_widget: object) -> list[tuple[str, str | None]]:
    return [*((model.name, model.name) for model in list_models()), ("none", None)]
