"""What there is of one sequence in one viewer: frames, masks, pre-labels, the session."""

from __future__ import annotations

import re
from threading import Lock
from typing import TYPE_CHECKING

from napari.utils.notifications import show_error
from qtpy.QtCore import QObject, Signal

from napari_microaunet.curation.session import Session, session_folder_for
from napari_microaunet.errors import InputError
from napari_microaunet.frames.arrays import ArraySequence
from napari_microaunet.widgets.napari_io import FRAME_SEQUENCE

if TYPE_CHECKING:
    from pathlib import Path

    from napari import Viewer
    from napari.layers import Image, Layer

    from napari_microaunet.frames import FrameSequence
    from napari_microaunet.widgets.mask_layer import MaskLayer
    from napari_microaunet.widgets.prelabels import Prelabels

# Those whose last changes the disk has refused, by the folders of their sessions.
_unsaved: dict[Path, Work] = {}


class Work(QObject):
    """What there is of one sequence in one viewer.

    Parameters
    ----------
    image : Image
        The layer that shows the frames.

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

    Raises
    ------
    InputError
        If the layer has more axes than frames, rows and columns.
    """

    status_changed = Signal(object)
    problem_changed = Signal()

    def __init__(self, image: Image) -> None:
        super().__init__()
        self.image = image
        self.sequence = _frames_of(image)
        self.masks: MaskLayer | None = None
        self.prelabels: Prelabels | None = None
        self.mask_folder: Path | None = None
        self.reads_beside = False
        self._hidden: list[Layer] = []
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

    def shares_session(self, sequence: FrameSequence) -> bool:
        """Tell whether frames that have been opened have the same session as these."""
        if self.sequence.path.absolute() != sequence.path.absolute():
            return False
        return session_folder_for(self.sequence) == session_folder_for(sequence)

    def layers(self, viewer: Viewer) -> list[Layer]:
        """List the layers that show the frames or masks of them, whoever made them."""
        return layers_of_sequence(viewer, self.sequence)

    def hide(self, viewer: Viewer) -> None:
        """Take all of it out of sight, until `show`."""
        seen = [layer for layer in self.layers(viewer) if layer.visible]
        self._hidden += seen
        for layer in seen:
            layer.visible = False

    def show(self, viewer: Viewer) -> None:
        """Put the frames in sight, and whatever `hide` has taken out of it and is still there."""
        for layer in self.layers(viewer):
            if not layer.visible and (layer is self.image or layer in self._hidden):
                layer.visible = True
        self._hidden.clear()

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


def layers_of_sequence(viewer: Viewer, sequence: FrameSequence) -> list[Layer]:
    """List the layers of a viewer that show a sequence or masks of it."""
    return [one for one in viewer.layers if one.metadata.get(FRAME_SEQUENCE) is sequence]


def _frames_of(image: Image) -> FrameSequence:
    """Take the frames of an image layer: those it was opened from, or its pixels."""
    if FRAME_SEQUENCE not in image.metadata:
        if image.ndim > 3:
            raise InputError(
                f"The layer {image.name} has {image.ndim} axes: choose one with frames, rows and "
                "columns, or a single picture."
            )
        axes = "T" * (image.ndim - 2) + "YX" + ("S" if image.rgb else "")
        # Masks are saved under the names of the frames, so these must do as names of files.
        name = re.sub(r"[^\w .()-]", "_", image.name)
        pixels = image.data[0] if image.multiscale else image.data
        # Kept with the layer: a dock that is closed and opened again finds the masks by it.
        image.metadata[FRAME_SEQUENCE] = ArraySequence(pixels, name, axes)
    sequence: FrameSequence = image.metadata[FRAME_SEQUENCE]
    return sequence
