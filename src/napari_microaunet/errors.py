"""The one error that is meant for users' eyes, and what puts others into its words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class InputError(ValueError):
    """Something that the user gave cannot be used.

    The message is shown as it is: one sentence that names the file or setting,
    says what is wrong with it and what to do. Nothing has been changed or lost
    when it is raised.
    """


def first_problem(error: ValidationError) -> str:
    """Say in half a sentence where something read does not fit its model and why."""
    problem = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message
