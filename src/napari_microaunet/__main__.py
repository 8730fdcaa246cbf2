"""``python -m napari_microaunet`` is ``microaunet``."""

from __future__ import annotations

from napari_microaunet.cli import main

main()
