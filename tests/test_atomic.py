from __future__ import annotations

import contextlib
import errno
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_microaunet.atomic import replacing


@given(st.binary(max_size=2000))
def test_a_file_is_replaced_whole_and_leaves_nothing_beside_it(tmp_path_factory, content):
    target = tmp_path_factory.mktemp("folder") / "file.bin"
    for text in (b"before", content):
        with replacing(target) as file:
            file.write(text)
    assert target.read_bytes() == content
    assert list(target.parent.iterdir()) == [target]


def test_until_the_block_is_left_the_old_file_is_there(tmp_path):
    target = tmp_path / "file"
    target.write_bytes(b"before")
    with replacing(target) as file:
        file.write(b"after")
        assert target.read_bytes() == b"before"
    assert target.read_bytes() == b"after"


def test_a_block_that_fails_leaves_the_old_file_and_no_rest(tmp_path):
    target = tmp_path / "file"
    target.write_bytes(b"before")
    with contextlib.suppress(KeyboardInterrupt), replacing(target) as file:
        file.write(b"half of it")
        raise KeyboardInterrupt
    assert target.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_is_told_with_the_name_of_the_file(tmp_path):
    target = tmp_path / "file"
    with pytest.raises(OSError, match="No space") as caught, replacing(target):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(target)
    assert list(tmp_path.iterdir()) == []


def test_a_target_that_cannot_be_replaced_is_named(tmp_path):
    target = tmp_path / "folder"
    target.mkdir()
    with pytest.raises(OSError, match="directory") as caught, replacing(target) as file:
        file.write(b"content")
    assert caught.value.filename == str(target)
    assert list(tmp_path.iterdir()) == [target]


def test_the_name_of_another_file_that_fails_is_kept(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, replacing(tmp_path / "file"):
        (tmp_path / "another").read_bytes()
    assert str(caught.value.filename) == str(tmp_path / "another")


def test_a_name_may_be_as_long_as_names_can_be(tmp_path):
    target = tmp_path / ("a" * 251 + ".png")
    with replacing(target) as file:
        file.write(b"mask")
        (part,) = tmp_path.glob(".*.part")  # by which leftovers are found
        assert part.name.startswith(".")
    assert target.read_bytes() == b"mask"


def test_what_is_written_is_readable_like_any_other_file(tmp_path):
    ordinary, target = tmp_path / "ordinary", tmp_path / "file"
    ordinary.touch()
    with replacing(target):
        pass
    assert stat.S_IMODE(target.stat().st_mode) == stat.S_IMODE(ordinary.stat().st_mode)
