"""What a model learns from while a session is under way, and which frames it never learns from.

A session is fine-tuned on again and again, each time with more frames, often from the model that
the last time made. So its splits are kept in its folder, as ``splits.json``: a frame that was held
out once stays so, and no model is judged by frames that it or its parent has learned from.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from napari_microaunet.atomic import replacing
from napari_microaunet.curation.incoming import incoming_frames
from napari_microaunet.curation.manifest import Split
from napari_microaunet.errors import InputError
from napari_microaunet.frames.sequence import spread

if TYPE_CHECKING:
    from napari_microaunet.curation.incoming import IncomingFrame
    from napari_microaunet.curation.manifest import Manifest
    from napari_microaunet.curation.session import Session

_FILE = "splits.json"
_SPLITS = TypeAdapter(dict[str, Split])


def frames_to_learn_from(session: Session, most_unlabelled: int) -> list[IncomingFrame]:
    """List what a model can learn from while a session is under way.

    Parameters
    ----------
    session : Session
        With accepted frames.
    most_unlabelled : int
        So many of the others come along at most, spread evenly.

    Returns
    -------
    list of IncomingFrame
        In the order of the session, with the splits that `keep_splits` kept. Only accepted frames
        have their masks: an edited one may be half done.

    Raises
    ------
    InputError
        If those cannot be read.
    """
    frames = incoming_frames(session, "all")
    accepted = {
        number
        for number, frame in enumerate(frames)
        if frame.annotation is not None and frame.annotation.state == "accepted"
    }
    others = sorted(set(range(len(frames))) - accepted)
    splits = _kept(session)
    chosen = []
    for number in sorted(accepted.union(spread(others, most_unlabelled))):
        frame = replace(frames[number], split=splits.get(frames[number].name))
        chosen.append(frame if number in accepted else replace(frame, read_mask=lambda: None))
    return chosen


def keep_splits(session: Session, written: Manifest) -> None:
    """Keep the splits of frames for the next time.

    Parameters
    ----------
    session : Session
        Where they are from; one that may only be looked at stays as it is.
    written : Manifest
        Of the dataset that they were written to.
    """
    if session.read_only:
        return
    splits = _kept(session) | {frame.name: frame.split for frame in written.frames}
    with replacing(session.folder / _FILE) as file:
        file.write(_SPLITS.dump_json(splits))


def _kept(session: Session) -> dict[str, Split]:
    try:
        return _SPLITS.validate_json((session.folder / _FILE).read_bytes())
    except (FileNotFoundError, ValidationError):  # not there yet, or damaged: they are drawn anew
        return {}
    except OSError as error:
        raise InputError(
            f"{session.folder / _FILE} cannot be read ({error.strerror}), and says which frames "
            "are held out; see that its drive is there."
        ) from error
