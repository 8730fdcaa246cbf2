"""What lists of models and devices offer."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

from napari_microaunet.networks.library import Model, list_models

if TYPE_CHECKING:
    from magicgui.widgets import ComboBox


def model_choices(_widget: object) -> list[tuple[str, Model]]:
    """List the models of the library."""
    return [(model.name, model) for model in list_models()]


def keep_choice(models: ComboBox) -> bool:
    """Offer the library as it is now; a model that was chosen stays so, under a new name, too.

    Parameters
    ----------
    models : ComboBox
        A list of models; nobody is told of its change.

    Returns
    -------
    bool
        Whether the same model is chosen; one that is gone gives way to the first.
    """
    before = models.value
    with models.changed.blocked():
        models.reset_choices()
        if before is not None and before not in models.choices:
            same = (model for model in models.choices if model.card == before.card)
            models.value = next(same, models.value)
    after = models.value
    return before is not None and after is not None and after.card == before.card


def device_choices() -> list[tuple[str, str]]:
    """List devices that this machine may have, without importing PyTorch, which takes seconds."""
    choices = [("automatic", "auto"), ("processor (CPU)", "cpu")]
    if shutil.which("nvidia-smi"):
        choices.append(("NVIDIA graphics card (CUDA)", "cuda"))
    if sys.platform == "darwin":
        choices.append(("Apple graphics (MPS)", "mps"))
    return choices
