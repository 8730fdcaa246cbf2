"""The frames of the domain-shift table: whose they are, and how its figures come about."""

from __future__ import annotations

from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_frames import write_frames

from napari_microaunet.curation import open_dataset

if TYPE_CHECKING:
    from types import ModuleType

TRAINING = Path(__file__).parents[2] / "training"


@pytest.fixture(scope="module")
def shift(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TRAINING))
        module = import_module("domain_shift")
        patch.setattr(module, "SHIFT", tmp_path_factory.mktemp("shift"))
        yield module


@given(st.lists(st.integers(6, 25), min_size=18, max_size=25), st.integers(0, 50))
def test_the_user_has_a_hundred_frames_in_sequences_of_their_own(
    shift: ModuleType, lengths: list[int], seed: int
) -> None:
    groups = [f"{number}" for number, length in enumerate(lengths) for _ in range(length)]
    splits = shift.users_split(groups, seed)
    assert splits == shift.users_split(groups, seed)
    count = Counter(splits.values())
    of_users = {groups[index] for index, split in splits.items() if split != "test"}
    assert len(of_users) == shift.USERS_SEQUENCES
    there = sum(group in of_users for group in groups)
    assert count["training"] + count["validation"] == min(shift.USERS_FRAMES, there)
    assert count["test"] == len(groups) - there
    of_group: dict[str, set[str]] = {}
    for index, split in splits.items():
        of_group.setdefault(groups[index], set()).add(split)
    assert all(len(of) == 1 for of in of_group.values())


def test_frames_of_several_sets_come_under_one_manifest(shift: ModuleType, tmp_path: Path) -> None:
    first, second = (open_dataset(write_frames(tmp_path / name)) for name in ("one", "two"))
    folder = shift.write_frames(
        tmp_path / "both", "both", [(first, {0: "training"}), (second, {0: "test", 30: "test"})]
    )
    dataset = open_dataset(folder)
    assert [frame.split for frame in dataset.frames] == ["training", "test", "test"]
    assert (dataset.read(0) == first.read(0)).all()
    assert (dataset.mask(1) == second.mask(0)).all()


def test_a_change_is_the_mean_over_frames_and_seeds(shift: ModuleType, tmp_path: Path) -> None:
    dataset = open_dataset(write_frames(tmp_path / "hospital"))
    shift.write_frames(shift.SHIFT / "frames-1", "hospital", [(dataset, {0: "test", 1: "test"})])
    names = [frame.name for frame in open_dataset(shift.SHIFT / "frames-1").frames]

    def report(*after: float) -> dict:
        frames = [
            {"name": name, "before": 0.5, "after": one}
            for name, one in zip(names, after, strict=False)
        ]
        return {"held_out": {"frames": frames}}

    change = shift.mean_change([report(0.6, 0.5), report(0.8)], "held_out")
    assert change.mean == pytest.approx((0.2 + 0.0) / 2)
