"""What the sections of one dock share: a viewer, its frames, their masks, the running job."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

from napari.layers import Image, Labels
from napari.utils.notifications import show_error, show_info, show_warning
from qtpy.QtCore import QTimer, Signal

from napari_microaunet.errors import InputError
from napari_microaunet.frames import FrameSequence, open_frames
from napari_microaunet.prelabel.masks import MaskSettings
from napari_microaunet.widgets.edits_underway import EditsUnderway
from napari_microaunet.widgets.fit import FitToFrame
from napari_microaunet.widgets.jobs import Job
from napari_microaunet.widgets.looking_on import LookingOn
from napari_microaunet.widgets.mask_files import masks_beside, masks_from_layer
from napari_microaunet.widgets.mask_layer import MaskLayer, shown_frame, shows_nothing
from napari_microaunet.widgets.napari_io import FRAME_SEQUENCE, layers_of
from napari_microaunet.widgets.one_job import OneJob
from napari_microaunet.widgets.prelabels import Prelabels, settings_from
from napari_microaunet.widgets.session_view import SessionView
from napari_microaunet.widgets.work import Work, layers_of_sequence

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from napari import Viewer
    from napari.types import LayerData
    from napari.utils.events import Event

    from napari_microaunet.curation.session import Session
    from napari_microaunet.frames.sequence import Frame

# How soon to look again whether another job has ended.
_RETRY_MS = 200
_UNFINISHED = (
    "Something is being drawn: end it first, a polygon by Enter. Escape takes back a polygon, or "
    "a stroke by the right button."
)


class Workbench(OneJob):
    """One annotator at work in one viewer, and the one job that runs. Lives in the GUI thread.

    Attributes
    ----------
    viewer : Viewer
        The viewer it belongs to.
    work : Work or None
        The sequence being worked on.
    works : list of Work
        All that are open.
    settings : MaskSettings
        How probability maps become masks, in the sequence being worked on.
    selected : callable
        Gives the numbers of the frames that are selected in the queue.
    edits_underway : EditsUnderway
        Masks that tools are computing.
    work_changed : Signal()
        Another sequence is being worked on, or none, or its masks have come or gone.
    layers_changed : Signal()
        Layers have come, gone or been renamed.
    shown_changed : Signal(int)
        Another frame is on show.
    frame_changed : Signal(int)
        What is known of this frame, its mask included, may have changed.
    status_changed : Signal(object)
        The `FrameStatus` of frames being worked on, by their numbers, has changed.
    problem_changed : Signal()
        Saving what is being worked on has failed, or works again.
    selected_changed : Signal()
        Other frames are `selected`.
    settings_changed : Signal()
        `settings` are those of a session that was opened or turned to.
    models_changed : Signal()
        The library of models has changed.
    closing : Signal()
        The dock is about to go.
    """

    work_changed = Signal()
    layers_changed = Signal()
    shown_changed = Signal(int)
    frame_changed = Signal(int)
    status_changed = Signal(object)
    problem_changed = Signal()
    selected_changed = Signal()
    settings_changed = Signal()
    models_changed = Signal()
    closing = Signal()

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self.viewer = viewer
        self.work: Work | None = None
        self.settings = MaskSettings()
        self.selected: Callable[[], Sequence[int]] = list
        self.edits_underway = EditsUnderway()
        self.works: list[Work] = []
        self._fit = FitToFrame(viewer)
        self._view = SessionView(self)
        self._looking_on = LookingOn(self)
        self._closed = False
        self._last_shown = -1
        self._wanted: Frame | None = None
        self.job_changed.connect(self._show_wanted)
        viewer.layers.events.inserted.connect(self._on_inserted)
        viewer.layers.events.removed.connect(self._on_removed)
        viewer.layers.events.renamed.connect(self._on_renamed)
        viewer.dims.events.current_step.connect(self._on_step)
        opened = [image for image in self.images if FRAME_SEQUENCE in image.metadata]
        if opened:
            QTimer.singleShot(0, partial(self._adopt, opened[-1]))

    @property
    def shown(self) -> int:
        """Number of the frame on show."""
        return 0 if self.work is None else shown_frame(self.viewer, self.work.image)

    @property
    def session(self) -> Session | None:
        """The session of the sequence being worked on, once it is open."""
        return None if self.work is None else self.work.session

    @property
    def may_change(self) -> bool:
        """Whether there are frames whose masks can be changed here."""
        return self.work is not None and (self.session is None or not self.session.read_only)

    @property
    def images(self) -> list[Image]:
        """Image layers that frames can be taken from."""
        return [layer for layer in self.viewer.layers if isinstance(layer, Image)]

    def go_to(self, index: int) -> None:
        """Show another frame."""
        self.edits_underway.finish()
        if self.work is not None and self.work.image.ndim > 2:
            image, dims = self.work.image, self.viewer.dims
            dims.set_point(dims.ndim - image.ndim, image.data_to_world((index, 0, 0))[-3])

    def show_frame(self, sequence: FrameSequence, index: int) -> None:
        """Show a frame of any sequence: of the open one where it is in it, or open its own.

        Parameters
        ----------
        sequence : FrameSequence
            Where the frame is from.
        index : int
            Its number there.
        """
        # Later, in the middle of a stroke, nobody would want to go there.
        if self.is_busy():
            return
        self._wanted = sequence.frames[index]
        if not self._show_wanted():
            self.open(sequence.path)

    def _show_wanted(self) -> bool:
        """Go to the frame that was asked for, if it is among those that are open."""
        work, wanted = self.work, self._wanted
        if work is None or wanted is None or self.job is not None:
            return False
        # A folder and one inside it name the same file differently; frames of a video share one.
        there = [
            (frame.name == wanted.name, index)
            for index, frame in enumerate(work.sequence.frames)
            if frame.source.absolute() == wanted.source.absolute()
        ]
        if not there:
            return False
        self.go_to(max(there)[1])
        # Opening goes to the first frame, and back to where a session was left.
        if work.masks is not None:
            self._wanted = None
        return True

    def close(self) -> None:
        """Stop what is running: the dock is gone. May be called twice."""
        if self._closed:
            return
        self._closed = True
        self.closing.emit()
        if self.job is not None:
            self.job.cancel()
        for work in list(self.works):
            work.drop_masks()
            self._forget(work)
        self.work = None
        # Else it would open the sessions of what comes next before a dock that is on show does.
        layers, dims = self.viewer.layers.events, self.viewer.dims.events
        layers.inserted.disconnect(self._on_inserted)
        layers.removed.disconnect(self._on_removed)
        layers.renamed.disconnect(self._on_renamed)
        dims.current_step.disconnect(self._on_step)

    # Frames

    def open(self, path: Path, masks: bool = True) -> None:
        """Open frames in the background and show them.

        Parameters
        ----------
        path : Path
            A folder of images, a video, a TIFF stack.
        masks : bool
            Whether masks that lie beside the frames are read.
        """

        def work(_cancelled: Callable[[], bool]) -> list[tuple[FrameSequence, LayerData]]:
            sequence = open_frames(path)
            # Found and imported here, so that the window does not wait for it later.
            sequence.field_of_view(0)
            return [(sequence, layers_of(sequence)[0])]

        def end(complete: bool) -> None:
            if not complete:
                self._wanted = None
            elif self.work is not None and self.work.masks is None:
                self.work.reads_beside = masks
                # napari takes its time for each new layer: one at a time.
                QTimer.singleShot(0, partial(self._open_session, self.work))

        job = Job(f"Opening {path.name}", work)
        job.item.connect(self._show)
        self.run(job, end)

    def _show(self, opened: tuple[FrameSequence, LayerData]) -> None:
        sequence, (data, options, _) = opened
        known = self._open_already(sequence)
        if known is not None:
            self.choose(known.image)
            return
        options["axis_labels"] = ("frame", "row", "column")
        self.choose(self.viewer.add_image(data, **options))
        readable = (i for i in range(len(sequence)) if i not in sequence.problems)
        self.go_to(next(readable, 0))

    def _open_session(self, work: Work) -> None:
        """Open the session of frames that have just come on show, then add its masks."""
        if self._closed:
            return

        def end(_complete: bool) -> None:
            # Cancelled too late, it is open: without masks it would be of no use.
            if work is self.work and work.session is not None:
                QTimer.singleShot(0, partial(self._add_masks, work))
            else:
                self._wanted = None

        def open_it(cancelled: Callable[[], bool]) -> list[Session]:
            # A dock that has been closed before this thread began would not close it.
            return [] if cancelled() else [work.open_session()]

        self.run(Job(f"Opening the session of {work.sequence.name}", open_it), end, work)

    def _add_masks(self, work: Work) -> None:
        if work is not self.work:
            return
        try:
            self.go_on_with_masks()
        except InputError as error:
            show_error(str(error))
            return
        if work.reads_beside:
            work.reads_beside = False
            masks_beside(self)

    def choose(self, image: Image | None) -> None:
        """Work on the frames of an image layer, or on none."""
        if self.work is not None and self.work.image is image:
            self._resume(self.work)
            return
        self.cancel_job_of(self.work)
        known = next((work for work in self.works if work.image is image), None)
        self.work = known
        if self.work is None and image is not None:
            try:
                self.work = Work(image)
            except InputError as error:
                show_error(str(error))
            else:
                self.works.append(self.work)
                self.work.status_changed.connect(self._on_status)
                self.work.problem_changed.connect(self._on_problem)
        if self.session is not None:
            # Before anybody is told: it is the frame that was left, whatever the other one shows.
            self._last_shown = self.session.shown
            self.go_to(self._last_shown)
        self._last_shown = self.shown
        if self.work is not None and self.work.prelabels is not None:
            self._take_settings(self.work.prelabels.masks.session)
            self.work.prelabels.show(self.shown)
        self.work_changed.emit()
        if self.work is not None:
            self._bring_into_sight(self.work)
        if known is not None:
            self._resume(known)

    def choose_again(self, image: Image) -> None:
        """Work on a layer that the user has picked, with its masks if they were taken away."""
        known = any(work.image is image for work in self.works)
        self.choose(image)
        work = self.work
        if known and work is not None and work.masks is None and not self.mask_layers(work):
            self._open_session(work)

    def _bring_into_sight(self, work: Work) -> None:
        """Show one sequence and no other: keys act on what is seen."""
        for other in self.works:
            if other is not work:
                other.hide(self.viewer)
        work.show(self.viewer)
        # Masks that came with the frames lie above them.
        layer = work.layers(self.viewer)[-1] if work.masks is None else work.masks.layer
        self.viewer.layers.selection.active = layer
        self._stay_within()
        if work.masks is not None:
            self._look_at(work)

    def _stay_within(self) -> bool:
        """Go back to the nearest frame where the sliders are beyond the last; tell whether so."""
        beyond = self.work is not None and shows_nothing(self.viewer, self.work.image)
        if beyond:
            self.go_to(self.shown)
        return beyond

    def _open_already(self, sequence: FrameSequence) -> Work | None:
        """Find the same frames among those that are open, and say so: they have one session.

        One that may only be looked at is left, to be opened anew: it may be free by now.
        """
        known = next((work for work in self.works if work.shares_session(sequence)), None)
        if known is not None and known.masks is not None and known.masks.session.read_only:
            self.viewer.layers.remove(known.masks.layer)
        elif known is not None:
            show_info(f"{sequence.name} is open in this window already.")
        return known

    def _forget(self, work: Work) -> None:
        """Work no more on a sequence; what the disk has refused of it may still be saved."""
        self.works.remove(work)
        work.status_changed.disconnect(self._on_status)
        work.problem_changed.disconnect(self._on_problem)

    # Masks

    def start_masks(self, layer: Labels | None = None) -> tuple[Work, Prelabels]:
        """Give the sequence being worked on a layer for masks, if it has none yet.

        Parameters
        ----------
        layer : Labels, optional
            A layer to take over for it.

        Raises
        ------
        InputError
            If there is no sequence, or its session cannot be opened.
        """
        work = self.work
        if work is None:
            raise InputError("There are no frames yet: open some, or choose an image layer.")
        if work.prelabels is None:
            session = work.open_session()
            self._take_settings(session)
            work.masks = MaskLayer(self.viewer, work.image, session, layer)
            work.prelabels = Prelabels(work.masks, self.settings)
            for sentence in filter(None, (session.notice, *session.remarks)):
                show_warning(sentence)
            work.masks.changed.connect(self.frame_changed)
            work.masks.changed_elsewhere.connect(partial(self._on_changed_elsewhere, work))
            work.masks.replaced.connect(partial(self._on_replaced, work))
            work.prelabels.known.connect(self.frame_changed)
            self.work_changed.emit()
        return work, work.prelabels

    def go_on_with_masks(self, layer: Labels | None = None) -> None:
        """Give the sequence being worked on its masks, and show it as its session was left.

        Parameters
        ----------
        layer : Labels, optional
            A layer to take over for them.

        Raises
        ------
        InputError
            If there is no sequence, or its session cannot be opened.
        """
        work, _ = self.start_masks(layer)
        # Not before: with the first layers, napari's own docks grow and the canvas shrinks.
        self._look_at(work)
        self._show_wanted()
        self._wanted = None

    def _look_at(self, work: Work) -> None:
        """Show a sequence as it was left."""
        self._fit.start(work, self.shown)
        self._view.restore()

    def mask_layers(self, work: Work) -> list[Labels]:
        """List the layers that show masks of a sequence, whoever made them."""
        return [layer for layer in work.layers(self.viewer) if isinstance(layer, Labels)]

    def _give_masks(self, work: Work) -> None:
        """Give the sequence being worked on the masks that came with it, or its session's."""
        theirs = self.mask_layers(work)
        if theirs:
            # What is drawn before it is taken over, nobody would keep.
            theirs[0].editable = False
            self._take_over(work, theirs[0])
        else:
            self._add_masks(work)

    def _resume(self, work: Work) -> None:
        """Give the sequence being worked on its masks, where that was cut short."""
        if work.masks is None and (work.session is not None or self.mask_layers(work)):
            self._give_masks(work)

    def _take_over(self, work: Work, layer: Labels, replace: bool = False) -> None:
        """Take over a layer for the sequence being worked on, once no other job is running."""
        if work is not self.work or work.masks is not None:
            return
        if self.job is None:
            masks_from_layer(self, work, layer, replace=replace)
        else:
            QTimer.singleShot(_RETRY_MS, partial(self._take_over, work, layer, replace))

    def _take_settings(self, session: Session) -> None:
        """Go on with the settings that a session was left with, if it has any."""
        kept = session.setting("masks")
        if kept is not None:
            self.settings = settings_from(kept)
            self.settings_changed.emit()
        else:
            session.set_setting("masks", asdict(self.settings))

    def set_settings(self, settings: MaskSettings, model: str) -> None:
        """Change how a model's probability maps of the sequence being worked on become masks.

        Parameters
        ----------
        settings : MaskSettings
            The new ones.
        model : str
            Name of the model whose maps they are for.
        """
        self.settings = settings
        if self.work is not None and self.work.prelabels is not None:
            self.work.prelabels.set_settings(settings, model)
        if self.session is not None:
            self.session.set_setting("masks", asdict(settings))
        self.frame_changed.emit(self.shown)

    # What keeps keys from acting

    def is_read_only(self) -> bool:
        """Tell whether the session may only be looked at; if so, the user is told why."""
        notice = None if self.session is None else self.session.notice
        if notice is not None:
            show_info(notice)
        return notice is not None

    def is_drawing(self) -> bool:
        """Tell whether a stroke or a line has begun; if so, the user is told to end it."""
        masks = None if self.work is None else self.work.masks
        unfinished = self.edits_underway.unfinished
        if masks is not None and masks.is_drawing:
            unfinished = _UNFINISHED
        if unfinished is not None:
            show_info(unfinished)
        return unfinished is not None

    # What the user does to layers and sliders

    def _on_inserted(self, event: Event) -> None:
        layer = event.value
        if isinstance(layer, Image):
            ours = FRAME_SEQUENCE in layer.metadata
            if ours or (self.work is None and layer.rgb):
                # napari has not finished with the new layer yet.
                QTimer.singleShot(0, partial(self._adopt, layer))
        self.layers_changed.emit()

    def _adopt(self, image: Image) -> None:
        """Work on an image layer that has come from outside, and on masks that came with it."""
        sequence = image.metadata.get(FRAME_SEQUENCE)
        # A copy of the layer, made in napari, shows the same sequence.
        known = any(work.image is image or work.sequence is sequence for work in self.works)
        if self._closed or known or image not in self.viewer.layers:
            return
        same = None if sequence is None else self._open_already(sequence)
        if same is not None:
            for layer in layers_of_sequence(self.viewer, sequence):
                self.viewer.layers.remove(layer)
            self.choose_again(same.image)
            return
        self.choose(image)
        if self.work is not None:
            self._give_masks(self.work)

    def _on_changed_elsewhere(self, work: Work, index: int) -> None:
        """Show what undo or redo has done to a frame that is not on show: nobody else would."""
        where = f" of {work.sequence.name}."
        if work is self.work:
            self.go_to(index)
            # Not in the middle of a stroke.
            where = ", which is on show now." if self.shown == index else "."
        self.frame_changed.emit(index)
        show_info(f"Undo or redo has changed frame {index}{where}")

    def _on_replaced(self, work: Work) -> None:
        """Take over what somebody has put in the place of the masks."""
        if work.masks is not None:
            layer = work.masks.layer
            self.cancel_job_of(work)
            work.drop_masks()
            self.work_changed.emit()
            if work is self.work and layer.data.shape[-2:] == work.sequence.canvas_shape:
                self._take_over(work, layer, replace=True)

    def _on_problem(self) -> None:
        work = self.sender()
        if isinstance(work, Work) and work.session is not None and work.session.problem:
            show_error(work.session.problem)
        self.problem_changed.emit()

    def _on_status(self, indices: Sequence[int]) -> None:
        if self.work is not None and self.work is self.sender():
            self.status_changed.emit(indices)

    def _on_removed(self, event: Event) -> None:
        ours = False
        for work in list(self.works):
            gone = event.value is work.image
            if gone or (work.masks is not None and event.value is work.masks.layer):
                self.cancel_job_of(work)
                work.drop_masks()
                ours = True
            if gone:
                self._forget(work)
        if self.work is not None and self.work not in self.works:
            self.choose(next(iter(self.works)).image if self.works else None)
        # Of other layers nobody need know: who draws one would draw it again.
        if ours:
            self.work_changed.emit()
        self.layers_changed.emit()

    def _on_renamed(self) -> None:
        self.layers_changed.emit()

    def _on_step(self) -> None:
        if self._stay_within():
            return
        shown = self.shown
        if self.work is None or shown == self._last_shown:
            return
        if self.is_drawing():
            # napari would draw on from there to here, through all frames in between.
            self.go_to(self._last_shown)
            return
        last, self._last_shown = self._last_shown, shown
        if self.work.masks is not None:
            self.work.masks.look_for_undo(last)
        self._fit.follow(self.work, shown)
        if self.session is not None:
            self.session.shown = shown
        if self.work.prelabels is not None:
            self.work.prelabels.show(shown)
        self.shown_changed.emit(shown)
