"""The robot annotator: it gets there, counts what it does, and does the same every time."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import ndimage

from napari_microaunet.editing.boundary import fill_polygons
from napari_microaunet.frames.rendered import render_frame

if TYPE_CHECKING:
    from types import ModuleType

    from numpy.typing import NDArray

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def effort() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        return import_module("annotation_effort")


@pytest.fixture(scope="module")
def rendered() -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    frame, mask = render_frame(3, height=240, width=320, polyps=1)
    return frame, mask > 0


def disc(shape, centre, radius):
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return np.hypot(rows - centre[0], columns - centre[1]) <= radius


def blurred(region, sigma=6.0):
    """What a model might believe of a region."""
    return np.rint(255 * ndimage.gaussian_filter(region.astype(float), sigma)).astype(np.uint8)


def numbered(region):
    return region.astype(np.uint8)


def grey(shape):
    return np.full((*shape, 3), 128, np.uint8)


def test_the_robot_gets_there_from_nothing_and_counts_each_action(effort, rendered):
    frame, reference = rendered
    scene = effort.Scene(frame, reference, None)
    done = effort.annotate(scene, np.zeros(reference.shape, np.uint8), effort.TOOLS)
    assert done.dice_before == 0
    assert done.dice >= effort.TARGET
    assert 0 < done.actions < effort.LIMIT
    assert done.actions == sum(step.actions for step in done.steps)
    scores = [done.dice_before, *(step.dice for step in done.steps)]
    assert scores == sorted(scores)
    assert done.with_handling > done.actions


def test_the_robot_does_the_same_every_time(effort, rendered):
    frame, reference = rendered
    wrong = numbered(np.roll(reference, (9, -12), axis=(0, 1)))
    scene = effort.Scene(frame, reference, blurred(reference))
    assert effort.annotate(scene, wrong, effort.TOOLS) == effort.annotate(
        scene, wrong, effort.TOOLS
    )


def test_a_good_prelabel_needs_nothing(effort, rendered):
    frame, reference = rendered
    done = effort.annotate(effort.Scene(frame, reference, None), numbered(reference), effort.TOOLS)
    assert (done.actions, done.steps, done.dice) == (0, (), 1)


def test_one_drag_of_the_slider_mends_a_wrong_threshold(effort, rendered):
    frame, reference = rendered
    probability = blurred(reference)
    scene = effort.Scene(frame, reference, probability)
    done = effort.annotate(scene, numbered(probability > 240), effort.TOOLS)
    assert done.dice_before < effort.TARGET
    assert [(step.tool, step.actions) for step in done.steps] == [("contour slider", 1)]


def test_a_false_polyp_is_deleted_by_one_action(effort):
    reference = disc((200, 200), (60, 60), 30)
    mask = numbered(reference)
    mask[disc((200, 200), (150, 140), 25)] = 2
    scene = effort.Scene(grey((200, 200)), reference, None)
    done = effort.annotate(scene, mask, effort.TOOLS)
    assert [(step.tool, step.actions) for step in done.steps] == [("delete", 1)]
    assert done.dice == 1


def test_a_dab_paints_a_round_polyp_and_an_eraser_takes_one_off(effort):
    reference = disc((200, 200), (90, 80), 25)
    for tool, region in (("brush", ~disc((200, 200), (0, 0), 1e3)), ("eraser", reference.copy())):
        if tool == "eraser":
            region |= disc((200, 200), (90, 128), 18)
        scene = effort.Scene(grey((200, 200)), reference, None)
        done = effort.annotate(scene, numbered(region), {tool: effort.TOOLS[tool]})
        assert done.actions == 1, tool
        assert done.dice >= effort.TARGET, tool
        # Taking it up and setting its width.
        assert done.with_handling == 3, tool


def test_taking_up_a_tool_counts_as_an_action_where_asked_for(effort, rendered):
    frame, reference = rendered
    scene = effort.Scene(frame, reference, blurred(reference))
    nothing = np.zeros(reference.shape, np.uint8)
    done = effort.annotate(scene, nothing, effort.TOOLS, count_handling=True)
    assert done.dice >= effort.TARGET
    assert done.actions == done.with_handling > sum(step.actions for step in done.steps)
    free = effort.annotate(scene, nothing, effort.TOOLS)
    assert free.actions == sum(step.actions for step in free.steps)


def test_a_tool_in_hand_is_not_taken_up_again(effort):
    steps = [effort.Step("brush", 1, 36, 0.6), effort.Step("brush", 1, 36, 0.7)]
    assert effort.handling("brush", 36, []) == 2
    assert effort.handling("brush", 36, steps) == 0
    assert effort.handling("brush", 12, steps) == 1
    assert effort.handling("eraser", 36, steps) == 1
    assert effort.handling("click", None, steps) == 1
    assert effort.handling("snap", None, steps) == 0


def test_entering_boundary_mode_is_counted_once(effort):
    reference = np.zeros((200, 200), bool)
    reference[50:150, 50:150] = True
    mask = numbered(reference)
    # Two corners pulled in, far enough for both to be needed.
    for row, column in ((50, 50), (149, 149)):
        rows, columns = np.ogrid[:200, :200]
        mask[np.abs(rows - row) + np.abs(columns - column) < 40] = 0
    scene = effort.Scene(grey((200, 200)), reference, None)
    done = effort.annotate(scene, mask, {"vertex": effort.TOOLS["vertex"]})
    assert done.dice >= effort.TARGET
    assert [step.actions for step in done.steps] == [2] + [1] * (len(done.steps) - 1)


def test_what_is_out_of_reach_counts_as_the_limit(effort):
    reference = disc((120, 120), (60, 60), 30)
    scene = effort.Scene(grey((120, 120)), reference, None)
    mask = numbered(disc((120, 120), (60, 60), 20))
    done = effort.annotate(scene, mask, {"delete": effort.TOOLS["delete"]})
    assert done.actions == effort.LIMIT
    assert done.dice == done.dice_before < effort.TARGET


def test_polygons_have_few_vertices_and_reach_the_target(effort, rendered):
    square = np.zeros((100, 120), bool)
    square[20:80, 30:90] = True
    round_one = disc((140, 140), (70, 70), 50)
    _, reference = rendered
    rows, columns = np.nonzero(reference)
    drawn = reference[
        rows.min() - 2 : rows.max() + 3,
        columns.min() - 2 : columns.max() + 3,
    ]
    for region, most in ((square, 4), (round_one, 6), (drawn, 12)):
        anywhere = effort.fewest_vertices(region)
        on_outline = effort.vertices_on_outline(region)
        for polygon in (anywhere, on_outline):
            assert effort.dice(fill_polygons([polygon], region.shape), region) >= effort.TARGET
        assert len(anywhere.exterior) <= min(most, len(on_outline.exterior))


def test_drawing_counts_beginning_and_closing_each_polyp_and_skips_specks(effort):
    shape = (200, 300)
    reference = np.zeros(shape, bool)
    reference[20:100, 20:100] = True
    reference[20:100, 160:240] = True
    reference[150:153, 150:153] = True
    done = effort.draw(reference, effort.vertices_on_outline)
    assert done.dice >= effort.TARGET
    assert done.actions == 2 * (4 + 2)


def test_medians_and_shares_are_of_the_frames_of_a_start(effort):
    rows = [
        effort.Row(
            data_set, f"{n}", f"{data_set} {n // 2}", start, effort.Effort(0.8, 0.96, actions)
        )
        for data_set in ("one", "other")
        for n in range(4)
        for start, actions in ((effort.POLYGON, 9), ("student", n))
    ]
    by_name = {(of.data_set, of.start): of for of in effort.summarise(rows)}
    student = by_name["all", "student"]
    assert student.frames == 8
    assert student.median == 1.5
    assert student.share == pytest.approx(1.5 / 9)
    assert student.few == (0.25, 0.25, 0.25, 0.25)
    assert student.median_interval[0] <= student.median <= student.median_interval[1]
    assert by_name["one", effort.POLYGON].share == 1
    assert "| one (4) | student |" in effort.as_markdown(list(by_name.values()), [])
