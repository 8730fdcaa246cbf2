"""Model cards in words, for the window and the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_microaunet.networks.library import lineage_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import JsonValue

    from napari_microaunet.networks.checkpoint import ModelCard
    from napari_microaunet.networks.library import Model

_HASH_LETTERS = 12  # enough to tell hashes apart; the whole is on the card


def card_facts(model: Model, models: Sequence[Model]) -> list[tuple[str, str]]:
    """Say what a model's card holds besides its figures.

    Parameters
    ----------
    model : Model
        The model.
    models : sequence of Model
        The library, for the lineage.

    Returns
    -------
    list of tuple of 2 str
        What it is about, and the fact; plain text, as the card has it, so of any length.
    """
    card = model.card
    height, width = card.input_size
    learned_from = "; ".join(
        f"{name} ({sha256[:_HASH_LETTERS]})" for name, sha256 in card.training_data.items()
    )
    standardised = ", every frame at mean 0 and standard deviation 1" if card.standardise else ""
    return [
        ("Title", card.name),
        ("About", card.description or "nothing is said"),
        ("Network", f"{card.network}, {width} x {height} pixels{standardised}"),
        ("Marks from", _marks_from(card)),
        ("Lineage", _lineage(model, models)),
        ("Data", learned_from or "not noted"),
        ("Recipe", _recipe(card.recipe)),
        ("Made", card.created or "not noted"),
        ("Licence", card.licence or "not noted"),
        ("Weights", card.sha256[:_HASH_LETTERS]),
    ]


def _marks_from(card: ModelCard) -> str:
    images = {0: "", 1: ", averaged over the mirror image", 3: ", averaged over mirror images"}
    mirrored = images[card.mirror_images]
    return f"probability {card.threshold:.2f}, least peak {card.least_peak:.2f}{mirrored}"


def _lineage(model: Model, models: Sequence[Model]) -> str:
    lineage = lineage_of(model.card, models)
    oldest = (
        f"weights {lineage.unknown[:_HASH_LETTERS]}, not in the library"
        if lineage.unknown
        else "random weights"
    )
    return " ← ".join([*(one.name for one in (model, *lineage.ancestors)), oldest])


def _recipe(recipe: dict[str, JsonValue]) -> str:
    """Say the little of a recipe that most ask for; a card may hold any."""
    if not recipe:
        return "not noted"
    budget, teacher = recipe.get("budget"), recipe.get("teacher")
    said = []
    if isinstance(budget, dict):
        said += [f"{value} {unit}" for unit, value in budget.items() if value is not None]
    if isinstance(teacher, dict):
        said.append(f"taught by {teacher.get('model')}")
    said.append(f"seed {recipe.get('seed')}")
    return ", ".join(said)
