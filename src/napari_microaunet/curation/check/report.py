"""The report of a dataset check: one HTML file that needs nothing else, or JSON."""

from __future__ import annotations

import base64
import io
from collections import defaultdict
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, PackageLoader, select_autoescape
from PIL import Image
from scipy import ndimage

from napari_microaunet.atomic import replacing
from napari_microaunet.curation.check.checks import CHECKS, SEVERITIES
from napari_microaunet.curation.check.statistics import polyp_shares, statistics
from napari_microaunet.curation.placing import KINDS
from napari_microaunet.editing.labels import polyps_in
from napari_microaunet.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.figure import Figure

    from napari_microaunet.curation.check.checks import Evidence, Finding
    from napari_microaunet.curation.dataset import CuratedDataset

_THUMBNAIL_SIDE = 128
# Findings of one check that are shown, and frames of one finding; the JSON report has all.
_MOST_FINDINGS, _MOST_PICTURES = 24, 6
_OUTLINE = (255, 230, 0)


def as_json(evidence: Evidence, findings: Sequence[Finding]) -> dict[str, Any]:
    """Put a report into JSON's types: name, worst severity, counts, findings, statistics."""
    counts = {name: sum(finding.check == name for finding in findings) for name in CHECKS}
    return {
        "dataset": evidence.dataset.name,
        "path": str(evidence.dataset.path),
        "severity": worst(findings),
        "counts": counts,
        "findings": [asdict(finding) for finding in findings],
        "statistics": statistics(evidence),
    }


def worst(findings: Sequence[Finding]) -> str | None:
    """Return the worst severity of some findings; None if there is none."""
    return max((f.severity for f in findings), key=SEVERITIES.index, default=None)


def write_html(evidence: Evidence, findings: Sequence[Finding], path: Path) -> None:
    """Write the report as HTML; the file appears complete or not at all.

    Parameters
    ----------
    evidence : Evidence
        From `gather`.
    findings : sequence of Finding
        From `run_checks`.
    path : Path
        The file; one that is there is replaced.
    """
    environment = Environment(
        loader=PackageLoader("napari_microaunet.curation.check", "."),
        autoescape=select_autoescape(),
    )
    numbers = {record.name: index for index, record in enumerate(evidence.dataset.frames)}
    by_check: dict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        by_check[finding.check].append(finding)
    thumbnails = {
        name: _thumbnail(evidence.dataset, numbers[name])
        for found in by_check.values()
        for finding in found[:_MOST_FINDINGS]
        for name in finding.frames[:_MOST_PICTURES]
    }
    text = environment.get_template("report.html").render(
        dataset=evidence.dataset,
        checks=[(name, check, by_check[name]) for name, check in CHECKS.items()],
        most_findings=_MOST_FINDINGS,
        most_pictures=_MOST_PICTURES,
        thumbnails=thumbnails,
        statistics=statistics(evidence),
        kinds=KINDS,
        plots=_plots(evidence),
    )
    with replacing(path) as file:
        file.write(text.encode())


def _thumbnail(dataset: CuratedDataset, index: int) -> str | None:
    """Make a small picture with the outline of its polyps; None if the frame cannot be read."""
    try:
        image = Image.fromarray(dataset.read(index))
    except InputError:
        return None
    image.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE))
    try:
        mask = dataset.mask(index)
    except InputError:
        mask = None
    pixels = np.array(image)
    if mask is not None:
        small = Image.fromarray(polyps_in(mask).astype(np.uint8))
        polyp = np.asarray(small.resize(image.size, Image.Resampling.NEAREST)) > 0
        pixels[polyp & ~ndimage.binary_erosion(polyp)] = _OUTLINE
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, format="JPEG", quality=80)
    return base64.b64encode(encoded.getvalue()).decode()


def _plots(evidence: Evidence) -> list[tuple[str, str]]:
    """Draw the distributions; give titles and SVG."""
    from matplotlib.figure import Figure  # late: a second that other commands do not need

    def figure() -> tuple[Figure, Any]:
        drawn = Figure(figsize=(4.2, 2.6), layout="constrained")
        return drawn, drawn.add_subplot()

    plots = []
    drawn, axes = figure()
    axes.hist([100 * share for share in polyp_shares(evidence)], bins=40)
    axes.set(xlabel="polyp, % of the frame", ylabel="frames")
    plots.append(("How large polyps are", _svg(drawn)))

    drawn, axes = figure()
    kinds = statistics(evidence)["kinds"]
    left = np.zeros(len(kinds))
    for kind in KINDS:
        counts = np.array([of[kind] for of in kinds.values()])
        axes.barh(list(kinds), counts, left=left, label=kind)
        left += counts
    axes.set(xlabel="frames")
    axes.legend(fontsize=7)
    plots.append(("What the splits hold", _svg(drawn)))

    drawn, axes = figure()
    colours = np.array([picture.colour for _, picture in evidence.pictures]).reshape(-1, 3)
    axes.scatter(colours[:, 0], colours[:, 1], c=np.clip(colours / 255, 0, 1), s=9)
    axes.set(xlabel="mean red", ylabel="mean green")
    plots.append(("Colours", _svg(drawn)))

    drawn, axes = figure()
    axes.hist([picture.sharpness for _, picture in evidence.pictures], bins=40)
    axes.set(xlabel="sharpness", ylabel="frames")
    plots.append(("Sharpness", _svg(drawn)))
    return plots


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    # Without a date, the same dataset has the same report.
    figure.savefig(text, format="svg", metadata={"Date": None})
    return base64.b64encode(text.getvalue().encode()).decode()
