"""The round of the README, command by command, as it is written there."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
from pycocotools.coco import COCO
from small_frames import write_frames

from napari_microaunet.curation.session import MaskOrigin, Session
from napari_microaunet.frames import open_frames
from napari_microaunet.frames.masks import read_mask_file
from napari_microaunet.networks.library import delete_model, find_model

README = Path(__file__).parents[1] / "README.md"


def commands() -> list[list[str]]:
    section = README.read_text(encoding="utf-8").partition("### A whole round by commands")[2]
    block = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    assert block is not None
    return [shlex.split(line, comments=True) for line in block[1].splitlines()]


def correct(frames: Path, masks: Path) -> None:
    """Do by hand what the first command opens the window for."""
    session = Session(open_frames(frames))
    for index, frame in enumerate(session.sequence.frames):
        mask = read_mask_file(masks / f"{frame.name}.png")
        session.put_mask(index, mask, MaskOrigin.HAND)
    session.accept(range(len(session.sequence)))
    assert session.close()


@pytest.mark.timeout(300)
def test_the_round_of_the_readme(microaunet, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = write_frames(tmp_path / "made", negatives=0, unlabelled=0)
    for name, numbers in (("first", range(20)), ("rest", range(20, 24))):
        (tmp_path / "ward" / name).mkdir(parents=True)
        for number in numbers:
            shutil.copy(made / "images" / f"{number}.png", tmp_path / "ward" / name)
    for program, *arguments in commands():
        if program == "napari":
            correct(tmp_path / arguments[0], made / "masks")
            continue
        assert program == "microaunet"
        if "--minutes" in arguments:
            arguments[arguments.index("--minutes") + 1] = "0.1"
        code, _, said = microaunet(*arguments)
        assert code == 0, (arguments, said)
    delete_model(find_model("ward 3"))
    assert len(list((tmp_path / "rest" / "masks").iterdir())) == 4
    images = [len(COCO(str(file)).imgs) for file in (tmp_path / "coco").rglob("instances*.json")]
    assert sum(images) == 20
