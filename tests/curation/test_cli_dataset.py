from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from napari_microaunet.curation import open_dataset
from napari_microaunet.curation.session import MaskOrigin, Session
from napari_microaunet.frames import open_frames


@pytest.fixture
def sessions(tmp_path, write_frame):
    """Two annotators' sessions of the same six frames; their third masks differ."""
    for seed in range(6):
        write_frame(tmp_path / "case" / f"{seed}.png", seed)
    folders = []
    for annotator in ("Ada", "Ben"):
        folders.append(tmp_path / f"{annotator}.microaunet")
        with Session(open_frames(tmp_path / "case"), folders[-1], annotator=annotator) as session:
            for index in range(5):
                mask = np.zeros((24, 32), np.uint8)
                mask[5:12, 6 : 16 + (4 if (annotator, index) == ("Ben", 2) else 0)] = 1
                session.put_mask(index, mask, MaskOrigin.HAND)
            session.accept(range(4))
    return folders


def test_from_sessions_to_one_reconciled_dataset(microaunet, sessions, tmp_path):
    shares = ["--shares", "0.5", "0.25", "0.25"]
    for folder, name in zip(sessions, ("a", "b"), strict=True):
        code, out, _ = microaunet(
            "dataset", "write", folder, "--out", tmp_path / name, *shares, "--json"
        )
        assert code == 0
        told = json.loads(out)
        assert told["added"] == [f"case/{index}" for index in range(4)]
        assert sum(sum(kinds.values()) for kinds in told["splits"].values()) == 4

    code, out, _ = microaunet("dataset", "diff", tmp_path / "a", tmp_path / "b")
    assert code == 1
    assert "~ case/2: mask_sha256" in out
    assert microaunet("dataset", "diff", tmp_path / "a", tmp_path / "a")[:2] == (
        0,
        "No difference.\n",
    )

    table = tmp_path / "decisions.csv"
    compare = ["dataset", "compare", tmp_path / "a", tmp_path / "b"]
    code, out, _ = microaunet(*compare, "--decisions", table, "--json")
    assert code == 0
    assert json.loads(out)[0]["name"] == "case/2"
    assert "4 frames, 3 of them identical" in microaunet(*compare)[1]

    reconcile = ["dataset", "reconcile", tmp_path / "a", tmp_path / "b", "--decisions", table]
    code, _, err = microaunet(*reconcile, "--out", tmp_path / "both")
    assert code == 2
    assert "case/2" in err
    lines = table.read_text().splitlines()
    table.write_text("\n".join(f"{line}union" if line.endswith(",") else line for line in lines))
    assert microaunet(*reconcile, "--out", tmp_path / "both")[0] == 0
    assert np.count_nonzero(open_dataset(tmp_path / "both").mask(2)) == 7 * 14


def test_append_takes_what_was_accepted_since(microaunet, sessions, tmp_path):
    folder = tmp_path / "set"
    assert microaunet("dataset", "write", sessions[0], "--out", folder)[0] == 0
    before = open_dataset(folder).frames
    with Session(open_frames(tmp_path / "case"), sessions[0]) as session:
        session.accept([4])
    code, _, err = microaunet("dataset", "append", folder, sessions[0])
    assert code == 0
    assert "1 frames added, 0 updated, 4 unchanged, 0 left out" in err
    assert open_dataset(folder).frames[:4] == before
    assert microaunet("dataset", "append", folder, sessions[0], "--include", "edited")[0] == 0


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--shares", "1", "1", "0"], "do not add up to 1"),
        (["--blank", "0,0,9,9"], "--blank is a part of --deidentify"),
        (["--deidentify", "--link"], "leave out --link"),
        (["--deidentify", "--blank", "0,0"], "is no box"),
        (["--group-pattern", "("], "is no regular expression"),
        (["--group-pattern", "patient"], "finds no group in the name"),
    ],
)
def test_requests_that_cannot_be_met(microaunet, sessions, tmp_path, options, problem):
    code, _, err = microaunet("dataset", "write", sessions[0], "--out", tmp_path / "set", *options)
    assert code == 2
    assert problem in err.replace("\n", " ")
    assert not (tmp_path / "set").exists()


def test_check_exits_by_the_worst_finding(microaunet, tmp_path, write_set):
    """Clean, then with a warning, then with an error."""
    source = write_set(tmp_path / "stills", 8)
    folder = tmp_path / "set"
    microaunet("dataset", "write", source, "--out", folder, "--shares", "0.5", "0.5", "0")
    assert microaunet("check", folder, "--json")[0] == 0

    record = open_dataset(folder).frames[0]
    gray = np.zeros((24, 32), np.uint8)
    gray[5:9, 8:20] = 200
    Image.fromarray(gray).save(source / "masks" / "0.png")
    code, out, _ = microaunet("check", source, "--json")
    assert code == 1
    report = json.loads(out)
    assert report["counts"]["gray"] == 1
    assert report["severity"] == "warning"
    assert report["statistics"]["frames"] == 8

    (folder / record.image).write_bytes(b"no image")
    html = tmp_path / "reports" / "report.html"
    code, out, _ = microaunet("check", folder, "--html", html)
    assert code == 3
    assert "error" in out
    text = html.read_text(encoding="utf-8")
    assert record.name in text
    assert text.count("data:image/svg+xml;base64,") == 4
    assert 'src="http' not in text
    assert 'href="http' not in text


def test_the_report_shows_frames_and_escapes_their_names(microaunet, tmp_path, write_frame):
    folder = tmp_path / "set"
    for seed in range(3):
        name = f"here & there [red] {seed}"
        mask = folder / "masks" / f"{name}.png"
        write_frame(folder / "images" / f"{name}.png", seed, mask)
        Image.new("L", (32, 24)).save(mask)
    html = tmp_path / "report.html"
    code, out, _ = microaunet("check", folder, "--html", html)
    assert code == 1
    assert "[red]" in out  # no markup
    text = html.read_text(encoding="utf-8")
    assert "here &amp; there [red] 1" in text
    assert "here & there" not in text
    assert text.count("data:image/jpeg;base64,") == 3


def test_what_is_odd_about_the_frames_of_a_session_is_said(microaunet, sessions, tmp_path):
    (tmp_path / "case" / "5.png").unlink()
    out = tmp_path / "out"
    for arguments in (
        ("dataset", "write", sessions[0], "--out", tmp_path / "set"),
        ("export", sessions[0], "--format", "png", "--out", out),
        ("import", out, sessions[0], "--format", "png", "--overwrite"),
    ):
        code, _, said = microaunet(*arguments)
        assert code == 0, said
        assert "1 frame of this session is not among those that were opened" in said
