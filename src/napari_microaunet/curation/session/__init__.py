"""The session on disk: masks, probability maps, decisions and what they have cost."""

from __future__ import annotations

from napari_microaunet.curation.session.edit_costs import (
    EditCost,
    EditCostSummary,
    summarise,
    write_edit_costs,
)
from napari_microaunet.curation.session.places import (
    RecentSession,
    annotator_name,
    recent_sessions,
    session_folder_for,
    set_annotator_name,
)
from napari_microaunet.curation.session.review_steps import ReviewChange
from napari_microaunet.curation.session.session import Session
from napari_microaunet.curation.session.states import (
    FrameStatus,
    KeptMap,
    MapRole,
    MaskOrigin,
    ReviewState,
)

__all__ = [
    "EditCost",
    "EditCostSummary",
    "FrameStatus",
    "KeptMap",
    "MapRole",
    "MaskOrigin",
    "RecentSession",
    "ReviewChange",
    "ReviewState",
    "Session",
    "annotator_name",
    "recent_sessions",
    "session_folder_for",
    "set_annotator_name",
    "summarise",
    "write_edit_costs",
]
