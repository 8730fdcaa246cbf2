"""What a dataset holds, in figures."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_microaunet.curation.manifest import SPLITS
from napari_microaunet.curation.placing import KINDS, kind_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_microaunet.curation.check.checks import Evidence
    from napari_microaunet.curation.check.measure import FrameFacts
    from napari_microaunet.curation.manifest import FrameRecord, Manifest


def polyp_shares(evidence: Evidence) -> list[float]:
    """List the share of the frame that polyps cover, of the frames that show one."""
    return [
        mask.polyp_pixels / (mask.height * mask.width)
        for _, mask in evidence.masks
        if mask.polyp_pixels
    ]


def statistics(evidence: Evidence) -> dict[str, Any]:
    """Sum up a dataset.

    Returns
    -------
    dict
        Of JSON's types: ``frames``, ``groups``; ``kinds`` (frames by split and kind);
        ``sources`` and ``sizes`` (frames by source, and by width x height); ``polyp_shares``
        (quantiles of the share of the frame that polyps cover, of frames that show one);
        ``polyps_per_frame`` (frames by the number of connected regions); ``classes`` (pixels of
        background, of polyp, and to ignore).
    """
    sizes = Counter(f"{picture.width} x {picture.height}" for _, picture in evidence.pictures)
    shares = polyp_shares(evidence)
    quantiles: list[float] = np.quantile(shares, (0, 0.25, 0.5, 0.75, 1)).tolist() if shares else []
    polyp = sum(mask.polyp_pixels for _, mask in evidence.masks)
    ignored = sum(mask.ignored_pixels for _, mask in evidence.masks)
    pixels = sum(mask.height * mask.width for _, mask in evidence.masks)
    regions = Counter(str(mask.regions.size) for _, mask in evidence.masks)
    return {
        "frames": len(evidence.facts),
        "groups": len({one.record.group for one in evidence.facts}),
        "kinds": _count(map(_measured, evidence.facts)),
        "sources": dict(Counter(one.record.source for one in evidence.facts).most_common()),
        "sizes": dict(sizes.most_common()),
        "polyp_shares": quantiles,
        "polyps_per_frame": dict(sorted(regions.items(), key=lambda item: int(item[0]))),
        "classes": {"background": pixels - polyp - ignored, "polyp": polyp, "ignore": ignored},
    }


def count_kinds(manifest: Manifest) -> dict[str, dict[str, int]]:
    """Count the frames of every kind in every split."""
    return _count(manifest.frames)


def _count(records: Iterable[FrameRecord]) -> dict[str, dict[str, int]]:
    counts = Counter((record.split, kind_of(record)) for record in records)
    return {split: {kind: counts[split, kind] for kind in KINDS} for split in SPLITS}


def _measured(facts: FrameFacts) -> FrameRecord:
    """Describe a frame by what its mask was found to hold."""
    if facts.mask is None:
        return facts.record
    if facts.mask.ignored_throughout:
        return facts.record.model_copy(update={"mask": None, "negative": False})
    measured = {
        "polyp_pixels": facts.mask.polyp_pixels,
        "height": facts.mask.height,
        "width": facts.mask.width,
        "negative": not facts.mask.polyp_pixels,
    }
    return facts.record.model_copy(update=measured)
