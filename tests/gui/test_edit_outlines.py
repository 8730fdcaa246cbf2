from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Points, Shapes
from pointing import Mouse, press
from qtpy.QtCore import Qt
from skimage.draw import disk

from napari_microaunet.curation.session import MaskOrigin, ReviewState
from napari_microaunet.editing.boundary import polygons_of
from napari_microaunet.editing.labels import areas_of, labels_of
from napari_microaunet.editing.snapping import snap
from napari_microaunet.frames.masks import read_mask_file

SHIFT = Qt.KeyboardModifier.ShiftModifier
UNDO = (Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
REDO = (Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier | SHIFT)
BOUNDARY, SNAP = (Qt.Key.Key_B, SHIFT), (Qt.Key.Key_E, SHIFT)
LOCK = (Qt.Key.Key_I, SHIFT)
SCISSORS, CLICKS = (Qt.Key.Key_Z, SHIFT), (Qt.Key.Key_Q, SHIFT)


@pytest.fixture
def begun(use, folder):
    """The dock on frames, of which the one on show has two discs; the first with a hole."""
    used = use(show=True)
    used.open(folder)
    draw_discs(used)
    return used, Mouse(used)


def native(used, index=None):
    return used.masks.chunks.mask(used.bench.shown if index is None else index)


def draw_discs(used):
    height, width = native(used).shape
    mask = np.zeros((height, width), np.uint8)
    mask[disk((height * 0.5, width * 0.3), height * 0.2)] = 1
    mask[disk((height * 0.5, width * 0.3), height * 0.06)] = 0
    mask[disk((height * 0.5, width * 0.7), height * 0.1)] = 2
    used.masks.edit(used.bench.shown, mask, "drawn by the test")


def centre(used, label):
    rows, columns = np.nonzero(native(used) == label)
    return rows.mean(), columns.mean()


def temporary(used):
    return [layer for layer in used.viewer.layers if isinstance(layer, Shapes | Points)]


def wait_for_polygons(used):
    used.qtbot.waitUntil(lambda: used.edit.boundary.layer is not None, timeout=60_000)


def enter_boundary(used):
    press(used, *BOUNDARY)
    wait_for_polygons(used)


def drag_a_vertex_away(used, mouse, by=40):
    """Drag the vertex of the first ring that is furthest down; return where it was and is."""
    ring = used.edit.boundary.layer.data[0][:, -2:]
    start = ring[ring[:, 0].argmax()]
    end = start + np.array((by, 0))
    mouse.drag(start, end)
    return start, end


def test_dragging_a_vertex_moves_the_mask_in_one_undo_step(begun, slicing):
    used, mouse = begun
    edit, start = used.edit, native(used)
    mouse.move(*centre(used, 2))
    enter_boundary(used)
    assert edit.boundary_button.isChecked()
    (layer,) = temporary(used)
    assert used.viewer.layers.selection.active is layer
    assert layer.mode == "direct"
    # One polyp, in few vertices; nothing has changed by looking at it.
    assert len(layer.data) == len(polygons_of(start, 2)) == 1
    used.qtbot.wait(200)
    np.testing.assert_array_equal(native(used), start)

    drag_a_vertex_away(used, mouse)
    # The mask follows while the mode is on.
    used.qtbot.waitUntil(lambda: (native(used) != start).any(), timeout=20_000)
    drag_a_vertex_away(used, mouse, by=15)
    press(used, Qt.Key.Key_Return)
    assert not temporary(used)
    assert not edit.boundary_button.isChecked()
    assert used.viewer.layers.selection.active is used.layer
    moved = native(used)
    assert areas_of(moved)[2] > areas_of(start)[2]
    np.testing.assert_array_equal(moved == 1, start == 1)
    # Far from the vertex, not a pixel has changed.
    top = round(centre(used, 2)[0]) - 20
    np.testing.assert_array_equal(moved[:top], start[:top])
    press(used, *UNDO)
    np.testing.assert_array_equal(native(used), start)
    press(used, *REDO)
    np.testing.assert_array_equal(native(used), moved)


def test_accept_takes_the_outline_as_the_last_drag_left_it(begun):
    used, mouse = begun
    index, start = used.bench.shown, native(used)
    mouse.move(*centre(used, 2))
    enter_boundary(used)
    used.edit.boundary._follow.setInterval(60_000)  # hands quicker than the mask follows
    drag_a_vertex_away(used, mouse)
    np.testing.assert_array_equal(native(used), start)
    press(used, Qt.Key.Key_Q)
    used.qtbot.wait(300)
    assert areas_of(native(used, index))[2] > areas_of(start)[2]
    assert used.work.session.status(index).state is ReviewState.ACCEPTED


def test_a_locked_vertex_stays_when_it_is_dragged_and_others_move(begun):
    used, mouse = begun
    start = native(used)
    mouse.move(*centre(used, 2))
    enter_boundary(used)
    layer = used.edit.boundary.layer

    def vertices():
        return layer.data[0][:, -2:].copy()

    def index_of(vertex):
        return int(np.abs(vertices() - vertex).sum(axis=1).argmin())

    lowest = vertices()[vertices()[:, 0].argmax()]
    mouse.move(*lowest)
    press(used, *LOCK)
    (marks,) = (one for one in temporary(used) if isinstance(one, Points))
    np.testing.assert_allclose(marks.data[:, -2:], [lowest])
    assert used.viewer.layers.selection.active is layer
    before = vertices()
    mouse.drag(lowest, lowest + np.array((40, 0)))
    used.qtbot.waitUntil(lambda: "stays where it is" in used.edit.said.text(), timeout=20_000)
    np.testing.assert_array_equal(vertices(), before)
    used.qtbot.wait(200)
    np.testing.assert_array_equal(native(used), start)

    # The lock outlasts a vertex that is added before it and one that is removed.
    at = index_of(lowest)
    press(used, Qt.Key.Key_2)
    mouse.click(*(before[at - 1] + lowest) / 2 + 2)
    assert len(vertices()) == len(before) + 1
    press(used, Qt.Key.Key_1)
    highest = vertices()[vertices()[:, 0].argmin()]
    mouse.click(*highest)
    assert len(vertices()) == len(before)
    press(used, Qt.Key.Key_D)
    beside = vertices()[(index_of(lowest) + 1) % len(before)]
    mouse.drag(beside, beside + np.array((0, 30)))
    assert np.abs(vertices() - (beside + np.array((0, 30)))).max(axis=1).min() < 2
    # Nor does it go along when the whole shape is moved.
    press(used, Qt.Key.Key_S)
    inside = vertices().mean(axis=0)
    mouse.drag(inside, inside + np.array((10, 25)))
    used.qtbot.waitUntil(lambda: (vertices() == lowest).all(axis=1).any(), timeout=20_000)
    used.qtbot.waitUntil(lambda: (native(used) != start).any(), timeout=20_000)

    # Unlocked, it moves again; all of it is one undo step.
    press(used, Qt.Key.Key_D)
    mouse.move(*lowest)
    press(used, *LOCK)
    assert not [one for one in temporary(used) if isinstance(one, Points)]
    mouse.drag(lowest, lowest + np.array((15, 0)))
    assert not (vertices() == lowest).all(axis=1).any()
    press(used, Qt.Key.Key_Return)
    assert not temporary(used)
    moved = native(used)
    press(used, *UNDO)
    np.testing.assert_array_equal(native(used), start)
    press(used, *REDO)
    np.testing.assert_array_equal(native(used), moved)


def test_escape_discards_and_vertices_are_added_and_removed_with_naparis_own_tools(begun):
    used, mouse = begun
    used.go_to(2)
    used.prelabel.run_shown()
    used.wait_for_job()
    used.settle()
    start = native(used)
    assert used.masks.origin(2) is MaskOrigin.MODEL
    enter_boundary(used)
    layer = used.edit.boundary.layer
    count = len(layer.data[0])
    press(used, Qt.Key.Key_2)
    assert layer.mode == "vertex_insert"
    ring = layer.data[0][:, -2:]
    mouse.click(*(ring[0] + ring[1]) / 2 + 15)
    assert len(layer.data[0]) == count + 1
    press(used, Qt.Key.Key_D)
    drag_a_vertex_away(used, mouse)
    used.qtbot.waitUntil(lambda: (native(used) != start).any(), timeout=20_000)
    press(used, Qt.Key.Key_1)
    ring = layer.data[0][:, -2:]
    mouse.click(*ring[ring[:, 0].argmax()])
    assert len(layer.data[0]) == count
    press(used, Qt.Key.Key_Escape)
    assert not temporary(used)
    np.testing.assert_array_equal(native(used), start)
    # Nor is the frame taken for one that was corrected.
    assert used.masks.origin(2) is MaskOrigin.MODEL
    press(used, *UNDO)
    assert not native(used).any()


def test_holes_and_all_polyps_have_outlines_and_deleted_ones_go(begun):
    used, _ = begun
    start = native(used)
    used.edit.all_polyps.setChecked(True)
    used.edit.boundary_button.click()
    wait_for_polygons(used)
    layer = used.edit.boundary.layer
    assert len(layer.data) == 3
    np.testing.assert_array_equal(layer.features["label"], [1, 1, 2])
    np.testing.assert_array_equal(layer.features["hole"], [False, True, False])
    # The hole is deleted: it is filled. So is a polyp: it is gone.
    layer.selected_data = {1}
    layer.remove_selected()
    layer.selected_data = {1}
    layer.remove_selected()
    used.edit.boundary_button.click()
    assert labels_of(native(used)) == [1]
    inside = tuple(round(at) for at in centre(used, 1))
    assert start[inside] == 0
    assert native(used)[inside] == 1
    used.layer.undo()
    np.testing.assert_array_equal(native(used), start)


def test_a_new_shape_becomes_part_of_the_polyp(begun):
    used, mouse = begun
    start = native(used)
    mouse.move(*centre(used, 2))
    enter_boundary(used)
    height, width = start.shape
    corners = [(0.85, 0.6), (0.85, 0.8), (0.95, 0.7)]
    press(used, Qt.Key.Key_P)
    for row, column in corners:
        mouse.click(height * row, width * column)
    # Ends the shape, not the mode.
    press(used, Qt.Key.Key_Escape)
    assert used.edit.boundary.is_on
    press(used, Qt.Key.Key_Return)
    assert native(used)[round(height * 0.88), round(width * 0.7)] == 2
    assert areas_of(native(used))[2] > areas_of(start)[2] + 0.05 * height * 0.1 * width


def test_a_new_shape_goes_to_the_polyp_whose_outline_is_selected_an_ellipse_as_one(begun):
    used, mouse = begun
    start = native(used)
    used.edit.all_polyps.setChecked(True)
    enter_boundary(used)
    layer = used.edit.boundary.layer
    # Polyp 1 has two rings, polyp 2 one.
    layer.selected_data = {2}
    height, width = start.shape
    top, left, size = round(height * 0.7), round(width * 0.55), round(height * 0.25)
    press(used, Qt.Key.Key_E)
    assert layer.mode == "add_ellipse"
    mouse.drag((top, left), (top + size, left + size))
    press(used, Qt.Key.Key_Escape)
    press(used, Qt.Key.Key_Return)
    drawn = native(used)
    np.testing.assert_array_equal(drawn == 1, start == 1)
    assert drawn[top + size // 2, left + size // 2] == 2
    added = areas_of(drawn)[2] - areas_of(start)[2]
    # The box around it has 1.27 times this area.
    assert added == pytest.approx(np.pi / 4 * size**2, rel=0.05)


def test_another_frame_in_the_middle_of_boundary_mode_keeps_the_work(begun, slicing):
    used, mouse = begun
    start = native(used, 0)
    mouse.move(*centre(used, 2))
    enter_boundary(used)
    drag_a_vertex_away(used, mouse)
    # At once, before the mask has followed.
    press(used, Qt.Key.Key_Right)
    assert used.bench.shown == 1
    assert not temporary(used)
    assert not used.edit.boundary.is_on
    assert areas_of(native(used, 0))[2] > areas_of(start)[2]
    assert not native(used, 1).any()
    press(used, Qt.Key.Key_Left)
    press(used, *UNDO)
    np.testing.assert_array_equal(native(used, 0), start)


def test_boundary_mode_makes_room_when_the_mask_or_its_layer_is_changed_by_others(begun):
    used, _ = begun
    used.edit.boundary_button.click()
    wait_for_polygons(used)
    used.edit.mask_tools.buttons["grow"].click()
    assert not used.edit.boundary.is_on
    grown = native(used)
    used.edit.boundary_button.click()
    wait_for_polygons(used)
    used.viewer.layers.remove(temporary(used)[0])
    assert not used.edit.boundary.is_on
    np.testing.assert_array_equal(native(used), grown)
    used.edit.boundary_button.click()
    wait_for_polygons(used)
    used.viewer.window.remove_dock_widget(used.dock)
    assert not temporary(used)


def test_snapping_takes_the_outline_to_the_edge_in_one_undo_step(use, folder, exact_masks):
    used = use(show=True)
    used.open(folder)
    mouse = Mouse(used)
    for index in (0, 3):
        used.go_to(index)
        frame = used.work.sequence.frames[index]
        truth = read_mask_file(next(exact_masks.glob(f"{frame.name}.*")))
        if not labels_of(truth):
            continue
        # Drawn a little beside the polyp.
        start = np.roll(truth, 4, axis=1)
        used.masks.edit(index, start, "drawn by the test")
        mouse.move(*centre(used, labels_of(start)[0]))
        press(used, *SNAP)
        used.qtbot.waitUntil(lambda: "outline" in used.edit.said.text(), timeout=60_000)
        used.qtbot.waitUntil(lambda: not used.edit.snap.is_busy, timeout=20_000)
        wanted = snap(start, labels_of(start)[0], used.work.sequence.read(index))
        np.testing.assert_array_equal(native(used), wanted)
        assert (wanted != start).any()
        press(used, *UNDO)
        np.testing.assert_array_equal(native(used), start)


def test_a_mask_that_changes_while_snapping_is_left_alone(begun):
    used, _ = begun
    used.edit.snap_button.click()
    used.edit.mask_tools.buttons["grow"].click()
    grown = native(used)
    used.qtbot.waitUntil(lambda: "left alone" in used.edit.said.text(), timeout=60_000)
    used.qtbot.waitUntil(lambda: not used.edit.snap.is_busy, timeout=20_000)
    np.testing.assert_array_equal(native(used), grown)


def loop(used, label, count=8):
    """Places around a disc of `draw_discs`."""
    row, column = centre(used, label)
    radius = np.sqrt(np.count_nonzero(native(used) == label) / np.pi) * 1.6
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return [(row + radius * np.sin(a), column + radius * np.cos(a)) for a in angles]


def test_scissors_make_a_polyp_of_what_the_line_encloses(begun):
    used, mouse = begun
    places = loop(used, 2)
    start = native(used)
    used.edit.edits.choose(2)
    used.edit.mask_tools.buttons["delete"].click()
    without = native(used)
    assert 2 not in labels_of(without)
    used.layer.mode = "paint"
    press(used, *SCISSORS)
    assert used.layer.mode == "pan_zoom"
    for place in places[:3]:
        mouse.click(*place)
    mouse.move(*places[3])
    used.qtbot.waitUntil(lambda: used.edit.scissors._to_mouse is not None, timeout=60_000)
    (layer,) = temporary(used)
    # The line leads to the mouse.
    used.qtbot.waitUntil(lambda: np.abs(layer.data[0][-1][-2:] - places[3]).max() < 3)
    # One click too many, taken back.
    mouse.click(5, 5)
    press(used, Qt.Key.Key_Backspace)
    for place in places[3:]:
        mouse.click(*place)
    np.testing.assert_array_equal(native(used), without)
    zoom = used.viewer.camera.zoom
    mouse.double_click(*places[-1])
    used.qtbot.waitUntil(lambda: (native(used) != without).any(), timeout=60_000)
    assert used.viewer.camera.zoom == zoom
    cut = native(used)
    assert labels_of(cut) == [1, 2]
    assert (cut == 2)[start == 2].mean() > 0.9
    np.testing.assert_array_equal(cut == 1, start == 1)
    assert not temporary(used)
    # Enter closes as well; what overlaps a polyp is added to it.
    shift = np.array((0, 0.05 * start.shape[1]))
    for place in places:
        mouse.click(*(place + shift))
    press(used, Qt.Key.Key_Return)
    used.qtbot.waitUntil(lambda: (native(used) != cut).any(), timeout=60_000)
    assert labels_of(native(used)) == [1, 2]
    assert areas_of(native(used))[2] > areas_of(cut)[2]
    press(used, Qt.Key.Key_Escape)
    assert not used.edit.scissors_button.isChecked()
    assert used.layer.mode == "paint"
    press(used, *UNDO)
    np.testing.assert_array_equal(native(used), cut)
    press(used, *UNDO)
    np.testing.assert_array_equal(native(used), without)


def test_a_tool_of_naparis_or_another_frame_ends_the_scissors(begun):
    used, mouse = begun
    press(used, *SCISSORS)
    mouse.click(30, 30)
    mouse.move(60, 60)
    press(used, Qt.Key.Key_2)
    assert not used.edit.scissors.is_on
    assert used.layer.mode == "paint"
    assert not temporary(used)
    press(used, *SCISSORS)
    press(used, Qt.Key.Key_Right)
    assert not used.edit.scissors.is_on
    assert not temporary(used)
    # A drag moves the picture: it is no click.
    press(used, *SCISSORS)
    mouse.drag((30, 30), (60, 60))
    assert not used.edit.scissors._clicks
    press(used, Qt.Key.Key_Escape)
    assert not used.edit.scissors.is_on


def test_scissors_that_are_left_and_entered_at_once_stay_on(begun):
    used, mouse = begun
    for _ in range(3):
        press(used, *SCISSORS)
    assert used.edit.scissors.is_on
    mouse.click(30, 30)
    # The thread of the first time ends meanwhile.
    used.qtbot.wait(1000)
    assert used.edit.scissors.is_on
    assert used.edit.scissors._clicks


@pytest.fixture
def prelabelled(use, folder):
    """The dock on pre-labelled frames."""
    used = use(show=True)
    used.open(folder)
    used.prelabel_all()
    return used, Mouse(used)


def wait_for_clicks(used):
    clicks = used.edit.clicks
    used.qtbot.waitUntil(lambda: not (clicks.is_busy or clicks._waiting), timeout=60_000)


def wait_for_marks(used, count):
    """With asynchronous slicing, napari tells of an undo when it has sliced anew."""
    used.qtbot.waitUntil(
        lambda: sum(len(layer.data) for layer in temporary(used)) == count, timeout=20_000
    )


def test_clicks_add_and_take_away_each_in_one_undo_step(prelabelled, slicing):
    used, mouse = prelabelled
    used.go_to(1)
    start = native(used)
    label = used.edit.edits.chosen
    rows, columns = np.nonzero(start == label)
    used.layer.mode = "paint"
    press(used, *CLICKS)
    assert used.edit.clicks_button.isChecked()
    assert used.layer.mode == "pan_zoom"

    inside = (round(rows.mean()), round(columns.mean()))
    mouse.click(*inside, button=Qt.MouseButton.RightButton)
    wait_for_clicks(used)
    less = native(used)
    assert less[inside] == 0
    assert ((less == label) <= (start == label)).all()
    below = (rows.max() + 6, round(columns[rows == rows.max()].mean()))
    mouse.click(*below)
    wait_for_clicks(used)
    more = native(used)
    # It was so near that the polyp was meant, which has grown.
    assert more[below] == label
    assert more[inside] == 0
    (marks,) = temporary(used)
    np.testing.assert_allclose(
        sorted(map(tuple, marks.data[:, -2:])), sorted([inside, below]), atol=1.01
    )
    assert used.viewer.layers.selection.active is used.layer

    # An undo takes the click and its mark back; redo brings them again.
    press(used, *UNDO)
    np.testing.assert_array_equal(native(used), less)
    wait_for_marks(used, 1)
    press(used, *REDO)
    np.testing.assert_array_equal(native(used), more)
    wait_for_marks(used, 2)
    press(used, *UNDO)
    press(used, *UNDO)
    np.testing.assert_array_equal(native(used), start)
    wait_for_marks(used, 0)
    assert not temporary(used)
    press(used, Qt.Key.Key_Escape)
    assert not used.edit.clicks.is_on
    assert used.layer.mode == "paint"


def test_a_click_far_from_all_polyps_begins_one_and_shift_takes_away(begun):
    used, mouse = begun
    press(used, *CLICKS)
    place = (round(native(used).shape[0] * 0.9), round(native(used).shape[1] * 0.95))
    mouse.click(*place, held=SHIFT)
    wait_for_clicks(used)
    assert "no polyp here" in used.edit.said.text()
    mouse.click(*place)
    wait_for_clicks(used)
    assert native(used)[place] == 3
    assert labels_of(native(used)) == [1, 2, 3]
    mouse.click(*place, held=SHIFT)
    wait_for_clicks(used)
    assert native(used)[place] == 0
    # Another frame ends the mode and takes the marks away.
    press(used, Qt.Key.Key_Right)
    assert not used.edit.clicks.is_on
    assert not temporary(used)


def test_a_click_beside_a_small_polyp_is_about_that_one_even_near_a_large_one(begun):
    used, mouse = begun
    height, width = native(used).shape
    mask = np.zeros((height, width), np.uint8)
    mask[disk((height * 0.5, width * 0.3), height * 0.3)] = 1
    small = round(width * 0.3 + height * 0.42)
    mask[disk((height * 0.5, small), height * 0.04)] = 2
    used.masks.edit(used.bench.shown, mask, "drawn by the test")
    press(used, *CLICKS)
    # The large one is in hand, and would be within reach.
    mouse.click(height * 0.5, width * 0.3)
    wait_for_clicks(used)
    assert used.edit.edits.chosen == 1
    beside = (round(height * 0.5), round(small + height * 0.05))
    mouse.click(*beside)
    wait_for_clicks(used)
    assert native(used)[beside] == 2
    np.testing.assert_array_equal(native(used) == 1, mask == 1)
