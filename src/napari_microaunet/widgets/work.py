"""What there is of one sequence in one viewer: frames, masks, pre-labels, the session."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari.utils.notifications import show_error
from qtpy.QtCore import QObject, Signal

from napari_microaunet.curation.session import Session

if TYPE_CHECKING:
    from pathlib import Path

    from napari.layers import Image

    from napari_microaunet.frames import FrameSequence
    from napari_microaunet.widgets.mask_layer import MaskLayer
    from napari_microaunet.widgets.prelabels import Prelabels


class Work(QObject):
    """What there is of one sequence in one viewer.

    Attributes
    ----------
    image : Image
        The layer that shows the frames.
    sequence : FrameSequence
        The frames.
    masks : MaskLayer or None
        Their masks, once there are any.
    prelabels : Prelabels or None
        What a model said of them; there whenever `masks` are.
    mask_folder : Path or None
        Where masks were last read from or saved to: saving there again needs no
        question.
    status_changed : Signal(object)
        Numbers of frames whose `FrameStatus` has changed.
    problem_changed : Signal()
        `session.problem` has come or gone.
    """

    status_changed = Signal(object)
    problem_changed = Signal()

    def __init__(self, image: Image, sequence: FrameSequence) -> None:
        super().__init__()
        self.image = image
        self.sequence = sequence
        self.masks: MaskLayer | None = None
        self.prelabels: Prelabels | None = None
        self.mask_folder: Path | None = None
        self._session: Session | None = None

    @property
    def session(self) -> Session | None:
        """The session that the masks are kept in, once it is open."""
        return self._session

    def open_session(self) -> Session:
        """Open the session, if it is not yet; may be called from any thread.

        Raises
        ------
        InputError
            If it cannot be opened.
        """
        if self._session is None:
            self._session = Session(
                self.sequence,
                is_stack=self.image.ndim == 3,
                on_problem=lambda _: self.problem_changed.emit(),
                on_change=self.status_changed.emit,
            )
            # Made here, so that the window does not wait for thousands of them later.
            _ = self._session.statuses
        return self._session

    def drop_masks(self) -> None:
        """Forget masks whose layer has been removed; they stay in their session."""
        if self.masks is not None and self.prelabels is not None:
            self.masks.close()
            self.prelabels.close()
        self.masks = self.prelabels = None
        session, self._session = self._session, None
        if session is not None and not session.close():
            show_error(session.problem or f"The session {session.folder} could not be saved.")
