"""A recipe that trains in a second, for several tests."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

from napari_microaunet.distillation.recipe import Recipe

if TYPE_CHECKING:
    from pathlib import Path

RECIPE = """
title = "small"
budget.steps = 6
batch = { size = 8, chunk = 4 }
size = { side = 64, first = 48, first_share = 0.5 }
teacher.model = "teacher"
imitation = { share = 0.5, features = 0.1, boundary = 0.2 }
validation = { keep = "best", times = 3, frames = 8 }
"""


def small_recipe(data: Path, **changes: object) -> Recipe:
    """Return `RECIPE` for some frames; ``changes`` are sections and fields."""
    return Recipe.model_validate(tomllib.loads(RECIPE) | {"data": data} | changes)
