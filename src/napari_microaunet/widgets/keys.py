"""Every key of the plugin, in one table that the user can change."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import ref

from app_model.types import KeyBinding, KeyCode
from napari.components import ViewerModel
from napari.layers import Labels
from platformdirs import user_config_path

from napari_microaunet.atomic import replacing
from napari_microaunet.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    from napari import Viewer
    from napari.layers import Layer


@dataclass(frozen=True)
class Action:
    """Something that a key does.

    Attributes
    ----------
    name : str
        What the widgets and the user's own table call it.
    key : str
        The key it has unless the user chose another one.
    title : str
        What it does, as tooltips and the dialog say it.
    """

    name: str
    key: str
    title: str


# napari's own keys for viewer, menus, image and Labels layers are all left alone, and its arrows;
# letters that Shapes and Points layers use are avoided, because corrections are drawn with them.
ACTIONS = (
    Action("open_folder", "Shift+O", "Open a folder of frames"),
    Action("open_file", "Shift+F", "Open a video or a TIFF stack"),
    Action("open_masks", "Shift+M", "Open masks that were saved earlier"),
    Action("save_masks", "Shift+S", "Save the masks"),
    Action("prelabel_frame", "G", "Pre-label the frame on show"),
    Action("prelabel", "Shift+G", "Pre-label the frames chosen in the dock"),
    Action("cancel", "Shift+C", "Cancel the task at the foot of the dock; a fine-tuning has Stop"),
    Action("live", "W", "Switch live mode on or off"),
    Action("threshold_down", "J", "Lower the threshold"),
    Action("threshold_up", "K", "Raise the threshold"),
    Action("smallest_area_down", "Shift+J", "Keep smaller polyps"),
    Action("smallest_area_up", "Shift+K", "Drop larger specks"),
    Action("fill_holes", "Shift+H", "Switch filling of holes on or off"),
    Action("largest_only", "Shift+N", "Switch keeping only the largest polyp on or off"),
    Action("overlay", "H", "Next way of drawing the masks: filled, outline, both"),
    Action("accept", "Q", "Accept the mask and go on to the next frame that is not done"),
    Action("accept_as_negative", "N", "Accept as negative: empty the mask, there is no polyp"),
    Action("exclude", "Shift+X", "Exclude the frame, for a reason"),
    Action("reopen", "Shift+R", "Take back the decision about the frame"),
    Action("next_in_queue", "PageDown", "Go to the next frame of the queue"),
    Action("previous_in_queue", "PageUp", "Go to the previous frame of the queue"),
    Action("note", "Shift+Y", "Write a note on the frame"),
    Action("undo_review", "U", "Take back the last decision"),
    Action("redo_review", "Shift+U", "Decide again what was taken back"),
    Action("masks_visible", "Alt+T", "Hide the masks, or show them again"),
    Action("compare", "Shift+T", "Compare with another model on the frame on show"),
    Action("focus_dock", "Shift+D", "Go to the dock; Tab moves on, Escape returns to the picture"),
    # Edit. napari's own tools of Labels layers are on 1 to 7.
    Action("brush", "8", "Paint the polyp under the cursor"),
    Action("ignore_brush", "9", "Paint what is to be ignored"),
    Action("new_polyp", "0", "Paint a new polyp"),
    Action("all_polyps", "Alt+A", "Let tools work on all polyps, or on one again"),
    Action("tool_grow", ".", "Grow the polyp"),
    Action("tool_shrink", ",", "Shrink the polyp"),
    Action("tool_smooth", "/", "Smooth the polyp"),
    Action("tool_fill_holes", "Alt+O", "Fill the holes of the polyp"),
    Action("tool_remove_specks", "Alt+R", "Remove specks of the polyp"),
    Action("tool_keep_largest", "Alt+B", "Keep the largest part of the polyp"),
    Action("tool_split", "Alt+D", "Split the polyp into its parts"),
    Action("tool_merge", "Alt+M", "Merge the polyp with the nearest one"),
    Action("tool_renumber", "Alt+N", "Renumber the polyps, this one first"),
    Action("tool_delete", "Delete", "Delete the polyp"),
    Action("tool_polyp_to_ignore", "Alt+I", "Ignore the polyp"),
    Action("tool_ignore_to_polyp", "Alt+Y", "Make ignored regions at the polyp part of it"),
    Action("tool_ignore_to_background", "Alt+U", "Make ignored regions at the polyp background"),
    Action("contour_down", "Alt+J", "Move the outline to where the model is less sure"),
    Action("contour_up", "Alt+K", "Move the outline to where the model is surer"),
    Action("boundary", "Shift+B", "Drag the vertices of the polyp's outline, or end it"),
    Action("lock_vertex", "Shift+I", "Lock the vertex under the cursor, or unlock it"),
    Action("snap", "Shift+E", "Snap the outline to the nearest edges"),
    Action("clicks", "Shift+Q", "Refine a polyp by clicks, or end it"),
    Action("scissors", "Shift+Z", "Cut a polyp out along its edges, or end it"),
    Action("propagate", "Alt+G", "Propagate the mask to other frames"),
    Action("apply_propagation", "Alt+E", "Write the masks that were propagated"),
    Action("copy_from_previous", "Alt+Q", "Copy the mask of the previous frame"),
    # Export
    Action("export", "Alt+X", "Export masks for other tools"),
)


def user_keys_file() -> Path:
    """Path of the user's own table, a JSON object from action name to key."""
    return user_config_path("napari-microaunet", appauthor=False) / "keys.json"


def load_keys(file: Path) -> dict[str, str]:
    """Read the key of every action.

    Parameters
    ----------
    file : Path
        The user's own table; it may be missing and need not name every action.

    Returns
    -------
    dict of str to str
        Action name to key.

    Raises
    ------
    InputError
        If the file cannot be used.
    """
    keys = {action.name: action.key for action in ACTIONS}
    if not file.exists():
        return keys
    try:
        own = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"The keys in {file} cannot be read ({error}): correct or delete it."
        ) from error
    if not isinstance(own, dict) or not all(isinstance(key, str) for key in own.values()):
        raise InputError(f"{file} is no table from actions to keys: correct or delete it.")
    # Actions of an older or newer version are of no concern.
    keys |= {name: key for name, key in own.items() if name in keys}
    check_keys(keys)
    return keys


def check_keys(keys: Mapping[str, str]) -> None:
    """Check that every key can be understood and none is given to two actions.

    Parameters
    ----------
    keys : mapping of str to str
        Action name to key.

    Raises
    ------
    InputError
        Naming the first action whose key is no good.
    """
    titles = {action.name: action.title for action in ACTIONS}
    taken: dict[KeyBinding, str] = {}
    for name, key in keys.items():
        binding = KeyBinding.from_str(key)
        if not binding.parts or binding.part0.key == KeyCode.UNKNOWN:
            raise InputError(f'"{key}" for "{titles[name]}" is no key: choose another.')
        if binding in taken:
            raise InputError(
                f'{key} is set for "{titles[taken[binding]]}" and for "{titles[name]}": '
                "give one of them another key."
            )
        taken[binding] = name


def check_naparis_keys(keys: Mapping[str, str], menus: Collection[KeyBinding]) -> None:
    """Check that no key is one of napari's own, which would act instead.

    Parameters
    ----------
    keys : mapping of str to str
        Action name to key.
    menus : collection of KeyBinding
        The keys of napari's menus; those of viewers and Labels layers are known.

    Raises
    ------
    InputError
        Naming the first action that has such a key.
    """
    titles = {action.name: action.title for action in ACTIONS}
    taken = {*ViewerModel.class_keymap, *Labels.class_keymap, *menus}
    for name, key in keys.items():
        if KeyBinding.from_str(key) in taken:
            raise InputError(
                f'{key} for "{titles[name]}" is one of napari\'s own keys: choose another.'
            )


def save_keys(file: Path, keys: Mapping[str, str]) -> None:
    """Write the user's own table; only keys that differ from the defaults are kept.

    Parameters
    ----------
    file : Path
        Where `load_keys` finds it.
    keys : mapping of str to str
        Action name to key.

    Raises
    ------
    InputError
        If a key is no good, or the file cannot be written.
    """
    check_keys(keys)
    own = {action.name: keys[action.name] for action in ACTIONS if keys[action.name] != action.key}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as part:
            part.write(json.dumps(own, indent=2).encode())
    except OSError as error:
        raise InputError(f"The keys cannot be written to {file}: {error}.") from error


class KeyBindings:
    """The keys of one dock, bound on its viewer and on the layers it made.

    A key that somebody else has bound there already stays theirs.

    Parameters
    ----------
    viewer : Viewer
        Where the keys act.
    actions : mapping of str to callable
        What each action does, by name; actions without an entry get no key.
    keys : mapping of str to str
        Action name to key.

    Attributes
    ----------
    active : dict of str to str
        Action name to key, of those that act in the viewer.
    """

    def __init__(
        self, viewer: Viewer, actions: Mapping[str, Callable[[], object]], keys: Mapping[str, str]
    ) -> None:
        self._actions = actions
        self._keys = keys
        # Layers that have been removed are not kept, nor what they show.
        self._bound: list[tuple[ref[Viewer | Layer], list[str]]] = []
        self.active = self.bind(viewer)

    def bind(self, target: Viewer | Layer) -> dict[str, str]:
        """Bind the keys on the viewer or on a layer, whose keys come before the viewer's.

        Returns
        -------
        dict of str to str
            Action name to key, of those that act.
        """
        if any(target is bound() for bound, _ in self._bound):
            return {}
        others = {*target.keymap, *target.class_keymap}
        active = {
            name: self._keys[name]
            for name in self._actions
            if KeyBinding.from_str(self._keys[name]) not in others
        }
        for name, key in active.items():

            def press(_target: object, action: Callable[[], object] = self._actions[name]) -> None:
                action()

            target.bind_key(key, press)
        self._bound.append((ref(target), list(active.values())))
        return active

    def unbind(self) -> None:
        """Take all keys back."""
        for bound, keys in self._bound:
            target = bound()
            if target is not None:
                for key in keys:
                    target.bind_key(key, None)
        self._bound.clear()
