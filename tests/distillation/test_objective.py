"""What a step minimises: every term times the weight that the recipe gives it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_training import small_recipe

from napari_microaunet.distillation.learner import LearnerOutputs
from napari_microaunet.distillation.losses import (
    boundary_loss,
    divergence,
    feature_alignment,
    segmentation_loss,
)
from napari_microaunet.distillation.objective import weighted_losses
from napari_microaunet.distillation.preference import preference_loss

SIDE, BAND, TEMPERATURE = 16, 2, 3.0
HOW = {"share": 0.6, "band": BAND, "temperature": TEMPERATURE}
IMITATION = HOW | {"segmentation": 2.0, "boundary": 3.0, "divergence": 5.0, "features": 7.0}
SAMPLE = {"pixels": 64, "temperature": 0.5, "false_positive_weight": 2.0}
PREFERENCE = SAMPLE | {"segmentation": 11, "boundary": 13, "divergence": 17, "contrast": 19}

drawn = torch.Generator().manual_seed(0)
LOGITS = torch.randn(2, 1, SIDE, SIDE, generator=drawn)
TAUGHT = torch.rand(2, 1, SIDE, SIDE, generator=drawn)
SKIPS, TEACHER_SKIPS = (
    [torch.randn(2, 3, 8, 8, generator=drawn) for _ in range(5)] for _ in range(2)
)
EMBEDDINGS = torch.nn.functional.normalize(torch.randn(2, 4, 8, 8, generator=drawn), dim=1)
LABELS = torch.zeros(2, 1, SIDE, SIDE, dtype=torch.uint8)
LABELS[:, :, 3:11, 5:13] = 1
STUDENT = LearnerOutputs(LOGITS, SKIPS, EMBEDDINGS)


def terms(progress: float, *, taught: bool = True, **weights: float) -> dict[str, float]:
    """Return the weighted terms as numbers; ``weights`` are other ones of the imitation stage."""
    recipe = small_recipe(Path(), imitation=IMITATION | weights, preference=PREFERENCE)
    torch.manual_seed(1)  # the contrast draws its pixels
    # What has no weight in a recipe is not even computed.
    student = STUDENT if recipe.imitation.features else STUDENT._replace(skips=None)
    by_teacher = (TAUGHT, TEACHER_SKIPS) if taught else (None, None)
    found = weighted_losses(recipe, progress, student, LABELS, *by_teacher)
    return {name: float(term) for name, term in found.items()}


def unweighted() -> dict[str, float]:
    """Return what the losses themselves come to."""
    torch.manual_seed(1)
    found = {
        "segmentation": segmentation_loss(LOGITS, LABELS),
        "boundary": boundary_loss(LOGITS, LABELS, BAND),
        "divergence": divergence(LOGITS, TAUGHT, TEMPERATURE, LABELS),
        "features": feature_alignment(SKIPS, TEACHER_SKIPS, LABELS),
        "contrast": preference_loss(
            EMBEDDINGS,
            LABELS,
            torch.sigmoid(LOGITS),
            TAUGHT,
            band=BAND,
            **SAMPLE,  # type: ignore[arg-type]
        ),
    }
    return {name: float(loss) for name, loss in found.items()}


def times(**weights: float) -> object:
    losses = unweighted()
    return pytest.approx({name: weight * losses[name] for name, weight in weights.items()})


@pytest.mark.parametrize(
    # The stage is done by 0, 1/3 and 2/3; half a cosine gives 1, 3/4, 1/4.
    ("progress", "to_features"),
    [(0.0, 1.0), (0.2, 3 / 4), (0.4, 1 / 4)],
)
def test_imitation_moves_from_features_to_probabilities(
    progress: float, to_features: float
) -> None:
    found = terms(progress)
    expected = {"segmentation": 2, "boundary": 3, "features": 7 * to_features}
    if to_features < 1:
        expected["divergence"] = 5 * (1 - to_features)
    assert found == times(**expected)


@pytest.mark.parametrize("progress", [0.6, 1.0])
def test_preference_has_weights_of_its_own(progress: float) -> None:
    assert terms(progress) == times(segmentation=11, boundary=13, divergence=17, contrast=19)


def test_without_features_the_probabilities_count_whole_from_the_start() -> None:
    assert terms(0.0, features=0) == times(segmentation=2, boundary=3, divergence=5)


def test_what_has_no_weight_or_no_teacher_is_left_out() -> None:
    silent = terms(0.2, segmentation=0, boundary=0, divergence=0, features=0)
    assert silent == {"segmentation": 0}
    assert terms(0.2, taught=False) == times(segmentation=2, boundary=3)
    assert set(terms(0.8, taught=False)) == {"segmentation", "boundary", "contrast"}
