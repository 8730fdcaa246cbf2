from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
from small_frames import SIDE, write_frames

from napari_microaunet.curation.dataset import open_dataset
from napari_microaunet.distillation.advice import advise
from napari_microaunet.frames.masks import write_mask_file

if TYPE_CHECKING:
    from pathlib import Path


def sentences(folder: Path) -> str:
    advice = advise(open_dataset(folder))
    return " ".join((*advice.obstacles, *advice.warnings))


def test_a_good_dataset_is_counted_and_nothing_stands_in_the_way(tmp_path: Path) -> None:
    told = []
    dataset = open_dataset(write_frames(tmp_path / "good", polyps=60))
    advice = advise(dataset, lambda done, total: told.append((done, total)))
    assert sum(advice.polyps.values()) == 60
    assert sum(advice.negatives.values()) == 4
    assert sum(advice.unlabelled.values()) == 4
    assert advice.groups == 65  # the four unlabelled frames lie in a folder of their own
    assert advice.obstacles == advice.warnings == ()
    assert told[-1] == (68, 68)


def test_what_is_missing_is_said_in_words(tmp_path: Path) -> None:
    assert "at least 10 are needed" in sentences(write_frames(tmp_path / "few", polyps=5))
    assert "only 24 frames with a polyp" in sentences(write_frames(tmp_path / "some"))
    no_negatives = write_frames(tmp_path / "none", polyps=60, negatives=0)
    assert "accept some negative frames" in sentences(no_negatives)
    ignored = np.full((SIDE, SIDE), 255, np.uint8)
    shutil.copy(no_negatives / "images" / "0.png", no_negatives / "images" / "blank.png")
    write_mask_file(no_negatives / "masks" / "blank.png", ignored)
    assert "accept some negative frames" in sentences(no_negatives)


def test_one_video_is_not_enough(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "video")
    lines = [f"{number}.png,a" for number in range(24)]
    (folder / "sequences.csv").write_text("\n".join(["frame,sequence", *lines]))
    assert "one video or folder" in sentences(folder)
