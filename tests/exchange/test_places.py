from __future__ import annotations

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from napari_microaunet.errors import InputError
from napari_microaunet.exchange.places import check_name, flat_name, target_file, without_suffix

# Short, so that two of them are often nearly the same.
names = st.text("ab_/-. é", min_size=1, max_size=8)


@given(names, names)
@example("a/b", "a__b")
@example("a/_b", "a_/b")
@example("a" * 300, "a" * 301)
def test_different_frames_have_different_flat_names(one, other):
    assume(one != other)
    assert flat_name(one) != flat_name(other)


@given(st.text(min_size=1))
@example("息肉" * 100)
def test_flat_names_fit_into_one_folder(name):
    assume("\\" not in name)
    assert "/" not in flat_name(name)
    assert len(flat_name(name).encode(errors="replace")) < 250


@given(st.text("a./\\:\0C", min_size=1, max_size=8))
def test_what_passes_stays_below_its_folder(tmp_path_factory, name):
    folder = tmp_path_factory.getbasetemp() / "target"
    try:
        check_name(name, folder)
    except InputError:
        return
    target = target_file(folder, name)
    assert target.resolve().is_relative_to(folder.resolve())
    assert target != folder


@pytest.mark.parametrize(
    ("file", "name"), [("a.png", "a"), ("a.v1.JPG", "a.v1"), ("a.v1", "a.v1"), ("x/.png", "x/.png")]
)
def test_only_endings_of_images_are_taken_off(file, name):
    assert without_suffix(file) == name
