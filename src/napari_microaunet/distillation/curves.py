"""The picture of a training: losses and validation scores over its steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_microaunet.atomic import replacing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def draw_curves(metrics: Sequence[dict[str, Any]], path: Path) -> None:
    """Write a PNG of a run's metrics.

    Parameters
    ----------
    metrics : sequence of dict
        `RunFolder.metrics`.
    path : Path
        The file.
    """
    from matplotlib.figure import Figure

    steps = [line for line in metrics if line["event"] == "step"]
    validations = [line for line in metrics if line["event"] == "validation"]
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    losses, scores = figure.subplots(1, 2)
    for name in dict.fromkeys(name for line in steps for name in line["losses"]):
        there = [line for line in steps if name in line["losses"]]
        losses.plot([line["step"] for line in there], [line["losses"][name] for line in there])
        losses.lines[-1].set_label(name)
    taken = [line["step"] for line in validations]
    for key, label in (
        ("dice", "mean Dice"),
        ("positives_found", "polyps found"),
        ("negatives_flagged", "negatives flagged"),
    ):
        values = [line[key] for line in validations]
        if None not in values:
            scores.plot(taken, values, marker=".", label=label)
    preference = next((line["step"] for line in steps if line["stage"] == "preference"), None)
    for axes, title in ((losses, "losses, weighted"), (scores, "validation, network size")):
        if preference is not None:
            axes.axvline(preference, color="grey", linestyle=":", label="preference stage")
        axes.set(title=title, xlabel="step")
        axes.legend(fontsize="small")
    scores.set_ylim(0, 1)
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=110)
