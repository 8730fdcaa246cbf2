"""The one error that is meant for users' eyes."""

from __future__ import annotations


class InputError(ValueError):
    """Something that the user gave cannot be used.

    The message is shown as it is: one sentence that names the file or setting,
    says what is wrong with it and what to do. Nothing has been changed or lost
    when it is raised.
    """
