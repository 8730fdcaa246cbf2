"""The dataset check: what is wrong, doubtful or unusual about frames, masks and splits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_microaunet.curation.check.checks import (
    CHECKS,
    SEVERITIES,
    Evidence,
    Finding,
    Severity,
    run_checks,
)
from napari_microaunet.curation.check.measure import measure
from napari_microaunet.curation.groups import thumbnails_of
from napari_microaunet.frames.folder import ImageFiles

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_microaunet.curation.dataset import CuratedDataset

__all__ = [
    "CHECKS",
    "SEVERITIES",
    "Evidence",
    "Finding",
    "Severity",
    "find_problems",
    "gather",
    "run_checks",
]


def find_problems(
    dataset: CuratedDataset,
    progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> list[Finding]:
    """Check a dataset.

    Parameters
    ----------
    dataset : CuratedDataset
        From `open_dataset`.
    progress, cancelled
        As for `measure`.

    Returns
    -------
    list of Finding
        The most severe first.

    Raises
    ------
    CancelledError
        If `cancelled` says so.
    """
    return run_checks(gather(dataset, progress, cancelled))


def gather(
    dataset: CuratedDataset,
    progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Evidence:
    """Collect what `run_checks` and the report are made from; otherwise like `find_problems`."""
    facts = measure(dataset, progress, cancelled)
    if isinstance(dataset.sequence, ImageFiles):
        # The very thumbnails that groups and splits are made by.
        return Evidence(dataset, facts, thumbnails_of(dataset.sequence))
    nothing = np.zeros((32, 32), np.float32)
    shown = [nothing if one.picture is None else one.picture.glance.thumbnail for one in facts]
    return Evidence(dataset, facts, np.stack(shown))
