from __future__ import annotations

import json

import pytest

from napari_microaunet.widgets.folds import user_sections_file


@pytest.fixture(autouse=True)
def nothing_folded_yet():
    user_sections_file().unlink(missing_ok=True)
    yield
    user_sections_file().unlink(missing_ok=True)


def unfolded(used):
    """Sections that are not folded."""
    return [title for title, section in used.dock.sections.items() if not section.isHidden()]


def test_what_is_folded_stays_so_in_the_next_window(use):
    used = use(show=True)
    every = list(used.dock.sections)
    assert unfolded(used) == every
    used.dock.foldables["Pre-label"].heading.click()
    assert "Pre-label" not in unfolded(used)
    used.viewer.window.remove_dock_widget("all")
    again = used.reopen()
    assert unfolded(again) == [title for title in every if title != "Pre-label"]
    again.dock.foldables["Pre-label"].heading.click()
    assert unfolded(again) == every


@pytest.mark.parametrize("content", ["no JSON", "[]", '{"Edit": 3, "Other": false}'])
def test_a_damaged_file_is_no_loss(use, content):
    user_sections_file().parent.mkdir(parents=True, exist_ok=True)
    user_sections_file().write_text(content)
    used = use(show=True)
    assert unfolded(used) == list(used.dock.sections)


def test_what_comes_before_review_makes_room_once_it_has_begun(use, folder):
    used = use(show=True)
    used.open(folder)
    used.prelabel_all()
    used.go_to(1)
    # Looking is no review.
    assert {"Frames", "Pre-label"} <= set(unfolded(used))
    used.review.actions["accept"]()
    used.qtbot.waitUntil(lambda: used.bench.shown == 2)
    assert not {"Frames", "Pre-label"} & set(unfolded(used))
    assert {"Review", "Edit"} <= set(unfolded(used))
    # Once: who wants them back has them.
    used.dock.foldables["Frames"].heading.click()
    used.review.actions["accept"]()
    used.qtbot.waitUntil(lambda: used.bench.shown == 3)
    assert "Frames" in unfolded(used)
    assert json.loads(user_sections_file().read_text()) == {"Frames": True}


def test_what_the_user_chose_stays_when_review_begins(use, folder):
    used = use(show=True)
    used.open(folder)
    heading = used.dock.foldables["Pre-label"].heading
    heading.click()
    heading.click()
    review = used.dock.foldables["Review"].heading
    review.click()
    assert {"Frames", "Pre-label"} <= set(unfolded(used))
    review.click()
    assert "Pre-label" in unfolded(used)
    assert "Frames" not in unfolded(used)
