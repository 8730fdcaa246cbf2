from __future__ import annotations

import json

import numpy as np
import pytest
from labelled_help import NAMES, emptied, make_session, masks_of

from napari_microaunet.curation.session import MaskOrigin, ReviewState
from napari_microaunet.exchange.export import MARK
from napari_microaunet.exchange.labelled import open_session


def test_labels_go_out_and_come_in_again(tmp_path, microaunet):
    session, masks = make_session(tmp_path)
    session.close()
    emptied(tmp_path, session).close()
    out = tmp_path / "out"
    code, _, said = microaunet("export", session.folder, "--format", "coco", "--out", out)
    assert code == 0
    assert f"{len(NAMES)} frames exported" in said
    code, _, said = microaunet("import", out, tmp_path / "second.microaunet", "--format", "coco")
    assert code == 0, said
    with open_session(tmp_path / "second.microaunet") as second:
        for name, mask in masks_of(second).items():
            np.testing.assert_array_equal(mask, masks[name])
        assert {second.origin(index) for index in range(len(NAMES))} == {MaskOrigin.FILE}
        assert ReviewState.ACCEPTED not in {status.state for status in second.statuses}


def test_a_dry_run_shows_the_tree_and_writes_nothing(tmp_path, microaunet):
    session, _ = make_session(tmp_path)
    session.close()
    out = tmp_path / "out"
    arguments = "export", session.folder, "--format", "png", "--out", out, "--dry-run"
    code, said, _ = microaunet(*arguments)
    assert code == 0
    assert "masks/a.png" in said
    assert "regions to ignore become background" in said
    assert not out.exists()
    _, said, _ = microaunet(*arguments, "--json")
    assert json.loads(said)["frames"] == len(NAMES)


@pytest.mark.parametrize("behind", ["", "student", {"student": 0.4}, None, {}])
def test_masks_that_have_not_followed_the_threshold_are_not_exported_in_silence(
    tmp_path, microaunet, behind
):
    session, masks = make_session(tmp_path, names=("a", "b"))
    session.unaccept([1])
    session.put_mask(1, masks["b"], MaskOrigin.MODEL)
    session.set_setting("masks behind settings", behind)
    session.close()
    for include in ("all", "accepted"):
        code, _, said = microaunet(
            "export",
            session.folder,
            *("--format", "labels", "--include", include, "--out", tmp_path / include),
        )
        assert code == 0, said
        told = "have followed" in said.replace("\n", " ") and str(session.folder) in said
        assert told == (include == "all" and behind not in (None, {}))


def test_an_earlier_export_is_kept_unless_asked(tmp_path, microaunet):
    session, _ = make_session(tmp_path)
    session.close()
    arguments = "export", session.folder, "--format", "labels", "--out", tmp_path / "out"
    assert microaunet(*arguments)[0] == 0
    (tmp_path / "out" / "masks" / "a.png").write_bytes(b"mine")
    code, _, said = microaunet(*arguments)
    assert code == 2
    assert "--overwrite" in said
    assert (tmp_path / "out" / "masks" / "a.png").read_bytes() == b"mine"
    assert microaunet(*arguments, "--overwrite")[0] == 0
    assert (tmp_path / "out" / "masks" / "a.png").read_bytes() != b"mine"
    assert sorted(path.name for path in tmp_path.iterdir() if "out" in path.name) == ["out"]


def test_a_folder_of_something_else_is_never_replaced(tmp_path, microaunet):
    session, _ = make_session(tmp_path)
    session.close()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    arguments = "export", session.folder, "--format", "png", "--out", tmp_path / "out"
    code, _, said = microaunet(*arguments, "--overwrite")
    assert code == 2
    assert "something else" in said
    assert (tmp_path / "out" / "thesis.txt").read_text() == "mine"


def test_a_dataset_keeps_its_own_splits(tmp_path, microaunet):
    session, _ = make_session(tmp_path)
    session.close()
    labels = tmp_path / "data"
    assert microaunet("export", session.folder, "--format", "labels", "--out", labels)[0] == 0
    (tmp_path / "frames").rename(labels / "images")
    out = tmp_path / "out"
    code, _, said = microaunet("export", labels, "--format", "coco", "--out", out)
    assert code == 0, said
    assert (out / "annotations" / "instances_train.json").is_file()
    assert (out / "annotations" / "instances_val.json").is_file()
    assert json.loads((out / MARK).read_text())["frames"] == len(NAMES)


def test_an_unknown_format_is_refused_with_those_there_are(tmp_path, microaunet):
    code, _, said = microaunet("export", tmp_path, "--format", "word", "--out", tmp_path / "x")
    assert code == 2
    assert "coco" in said


def test_an_export_into_the_folder_where_one_is(tmp_path, microaunet, monkeypatch):
    session, _ = make_session(tmp_path)
    session.close()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    code, _, said = microaunet("export", session.folder, "--format", "png", "--out", ".")
    assert code == 0, said
    assert (tmp_path / "here" / "masks" / "a.png").is_file()
