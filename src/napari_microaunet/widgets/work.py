"""What there is of one sequence in one viewer: frames, masks, pre-labels, the session."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

from napari.utils.notifications import show_error
from qtpy.QtCore import QObject, Signal

from napari_microaunet.curation.session import Session, session_folder_for

if TYPE_CHECKING:
    from pathlib import Path

    from napari.layers import Image

    from napari_microaunet.frames import FrameSequence
    from napari_microaunet.widgets.mask_layer import MaskLayer
    from napari_microaunet.widgets.prelabels import Prelabels

# Those whose last changes the disk has refused, by the folders of their sessions.
_unsaved: dict[Path, Work] = {}


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
        Where masks were last saved to: saving there again needs no question.
    reads_beside : bool
        Whether masks that lie beside the frames are yet to be read.
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
        self.reads_beside = False
        self._session: Session | None = None
        # The window may ask for a session that is being opened in a thread.
        self._opening = Lock()
        self.problem_changed.connect(self._close_if_saved)

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
        with self._opening:
            if self._session is None:
                self._session = self._unsaved_session() or Session(
                    self.sequence,
                    is_stack=self.image.ndim == 3,
                    on_problem=lambda _: self.problem_changed.emit(),
                    on_change=self.status_changed.emit,
                )
                # Made here, so that the window does not wait for thousands of them later.
                _ = self._session.statuses
            elif _unsaved.get(self._session.folder) is self:
                del _unsaved[self._session.folder]
            return self._session

    def _unsaved_session(self) -> Session | None:
        """Take over a session of these frames that was left before all of it was saved."""
        other = _unsaved.get(session_folder_for(self.sequence))
        if other is None or other._frames() != self._frames():
            return None
        with other._opening:
            session, other._session = other._session, None
        if session is not None:
            del _unsaved[session.folder]
            # It goes on telling the one that has opened it.
            other.problem_changed.connect(self.problem_changed)
            other.status_changed.connect(self.status_changed)
        return session

    def _frames(self) -> tuple[object, ...]:
        frames = self.sequence.frames
        return self.image.ndim, [(frame.name, frame.height, frame.width) for frame in frames]

    def drop_masks(self) -> None:
        """Forget masks whose layer has been removed; they stay in their session.

        It is closed, unless the disk refuses what is new in it: then it goes on
        trying, and who opens the same frames next goes on with it.
        """
        if self.masks is not None and self.prelabels is not None:
            self.masks.close()
            self.prelabels.close()
        self.masks = self.prelabels = None
        with self._opening:
            session = self._session
            if session is None:
                return
            if session.flush():
                self._session = None
                session.close()
                return
            # It goes on trying; with its lock released, others would see the state on disk.
            _unsaved[session.folder] = self
        show_error(session.problem or f"The session {session.folder} could not be saved yet.")

    def _close_if_saved(self) -> None:
        """Let others have a session that was left, now that all of it is saved."""
        with self._opening:
            session = self._session
            if session is None or session.problem or _unsaved.get(session.folder) is not self:
                return
            del _unsaved[session.folder]
            self._session = None
        session.close()
