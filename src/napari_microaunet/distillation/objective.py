"""What a step of the training minimises, in either stage (arXiv 2511.01143)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from napari_microaunet.distillation.curriculum import imitation_weights
from napari_microaunet.distillation.losses import (
    boundary_loss,
    divergence,
    feature_alignment,
    segmentation_loss,
)
from napari_microaunet.distillation.preference import preference_loss

if TYPE_CHECKING:
    from torch import Tensor

    from napari_microaunet.distillation.learner import LearnerOutputs
    from napari_microaunet.distillation.recipe import Recipe

Stage = Literal["imitation", "preference"]


def stage_at(recipe: Recipe, progress: float) -> Stage:
    """Return the stage that a share of the budget, in [0, 1], belongs to."""
    return "imitation" if progress < recipe.imitation.share else "preference"


def weighted_losses(
    recipe: Recipe,
    progress: float,
    student: LearnerOutputs,
    labels: Tensor,
    teacher_probabilities: Tensor | None,
    teacher_skips: list[Tensor] | None,
) -> dict[str, Tensor]:
    """Return the terms of the loss by name, times their weights.

    Terms of weight 0 are left out, but for the segmentation's.

    Parameters
    ----------
    recipe : Recipe
        Says the weights.
    progress : float
        Share of the budget that is used up, in [0, 1].
    student : LearnerOutputs
        Of the network that learns.
    labels : uint8 Tensor, shape (batch, 1, height, width)
        0 background, 1 polyp, 255 ignore.
    teacher_probabilities : float Tensor, shape (batch, 1, height, width), optional
        In [0, 1].
    teacher_skips : list of 5 Tensors, optional
        The teacher's features of the same frames.
    """
    first = stage_at(recipe, progress) == "imitation"
    stage = recipe.imitation if first else recipe.preference
    band = recipe.imitation.band
    terms = {"segmentation": stage.segmentation * segmentation_loss(student.logits, labels)}
    if stage.boundary:
        terms["boundary"] = stage.boundary * boundary_loss(student.logits, labels, band)
    to_features, to_probabilities = (
        imitation_weights(progress / recipe.imitation.share) if first else (0.0, 1.0)
    )
    if recipe.imitation.features == 0:
        to_probabilities = 1.0  # nothing to move from
    if teacher_probabilities is not None and stage.divergence and to_probabilities > 0:
        terms["divergence"] = (stage.divergence * to_probabilities) * divergence(
            student.logits, teacher_probabilities, recipe.imitation.temperature, labels
        )
    if teacher_skips is not None and student.skips is not None and to_features > 0:
        weight = recipe.imitation.features * to_features
        terms["features"] = weight * feature_alignment(student.skips, teacher_skips, labels)
    if not first and student.embeddings is not None:
        preference = recipe.preference
        terms["contrast"] = preference.contrast * preference_loss(
            student.embeddings,
            labels,
            torch.sigmoid(student.logits.detach()),
            teacher_probabilities,
            pixels=preference.pixels,
            temperature=preference.temperature,
            false_positive_weight=preference.false_positive_weight,
            band=band,
        )
    return terms
