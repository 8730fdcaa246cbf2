"""Curated datasets: frames and masks with a manifest that says how they are grouped and split."""

from __future__ import annotations

from napari_microaunet.curation.dataset import CuratedDataset, open_dataset
from napari_microaunet.curation.manifest import FrameRecord, Manifest, read_manifest, write_manifest

__all__ = [
    "CuratedDataset",
    "FrameRecord",
    "Manifest",
    "open_dataset",
    "read_manifest",
    "write_manifest",
]
