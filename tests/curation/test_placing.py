from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_microaunet.curation.check.statistics import count_kinds
from napari_microaunet.curation.groups import near_duplicate_pairs
from napari_microaunet.curation.manifest import FrameRecord, Manifest
from napari_microaunet.curation.placing import Shares, kind_of, place_frames
from napari_microaunet.errors import InputError


def picture(number):
    """Make the thumbnail of a picture that resembles no other."""
    flat = np.random.default_rng(number).normal(size=(8, 8)).repeat(4, 0).repeat(4, 1)
    flat -= flat.mean()
    return (flat / np.linalg.norm(flat)).astype(np.float32)


# Frames by group and by what they show; equal pictures are near-duplicates.
batches = st.lists(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 14)), min_size=1, max_size=8),
    min_size=1,
    max_size=4,
)


@given(batches, st.integers(0, 3))
@settings(max_examples=100)
def test_frames_never_move_and_neither_group_nor_likeness_is_divided(batches, seed):
    """A dataset that grows, batch by batch."""
    placed, pictures = [], []
    for number, batch in enumerate(batches):
        new = [
            FrameRecord(
                name=f"{number}/{index}",
                image=f"{number}/{index}.png",
                mask=f"{number}/{index}.png",
                group=f"group {group}",
                split="training",
                source="s",
                height=10,
                width=10,
                polyp_pixels=shown,
            )
            for index, (group, shown) in enumerate(batch)
        ]
        before = list(placed)
        shown = [*pictures, *(shown for _, shown in batch)]
        result = place_frames(
            [*placed, *new],
            [record.split for record in placed] + [None] * len(new),
            len(placed),
            np.stack([picture(one) for one in shown]),
            Shares(0.5, 0.3, 0.2),
            seed,
        )
        first = len(placed)
        assert result.splits.keys() | result.leaks.keys() == set(range(first, first + len(new)))
        assert not result.splits.keys() & result.leaks.keys()
        for index, split in result.splits.items():
            placed.append(new[index - first].model_copy(update={"split": split}))
            pictures.append(shown[index])
        assert placed[:first] == before
        Manifest(name="set", frames=tuple(placed))  # refuses a group in two splits
        _, splits = np.unique([record.split for record in placed], return_inverse=True)
        thumbnails = np.stack([picture(one) for one in pictures])
        assert len(near_duplicate_pairs(thumbnails, splits)) == 0


@pytest.mark.parametrize("between", ["its own", "b"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_splits_that_frames_bring_are_kept_and_what_is_between_is_left_out(place, between):
    """A new frame resembles one that is held out and one that was learned from."""
    shift = 0.45 * picture(2)
    pictures = {"a": picture(1) + shift, "b": picture(1) - shift, "between": picture(1)}
    kinds = ["a", "b"]
    kinds.insert(place, "between")
    brought = {"a": "validation", "b": "training", "between": None}
    groups = {"a": "a", "b": "b", "between": between}
    records = [
        FrameRecord(
            name=kind, image=f"{kind}.png", group=groups[kind], split="training", source="s"
        )
        for kind in kinds
    ]
    thumbnails = np.stack([pictures[kind] / np.linalg.norm(pictures[kind]) for kind in kinds])
    result = place_frames(
        records, [brought[kind] for kind in kinds], 0, thumbnails, Shares(1, 0, 0), 1
    )
    assert {kinds[index]: split for index, split in result.splits.items()} == {
        "a": "validation",
        "b": "training",
    }
    assert list(result.leaks) == [place]


@pytest.mark.parametrize("shares", [(0.5, 0.5, 0.5), (1.2, -0.2, 0), (0, 0, 0)])
def test_shares_have_to_add_up(shares):
    with pytest.raises(InputError, match="add up to 1"):
        Shares(*shares)


def test_kinds_are_told_by_the_share_of_the_frame():
    def kind(pixels, **fields):
        record = FrameRecord(
            name="a",
            image="a.png",
            group="a",
            split="test",
            source="s",
            height=100,
            width=100,
            polyp_pixels=pixels,
            **fields,
        )
        return kind_of(record)

    masked = {"mask": "m.png"}
    assert [kind(n, **masked) for n in (1, 499, 500, 1500)] == ["small", "small", "medium", "large"]
    assert kind(0, negative=True) == "negative"
    assert kind(None) == kind(0, **masked) == "unlabelled"
    assert kind(None, **masked) == "not measured"


def test_no_frame_is_missing_from_the_table_of_kinds():
    fields = {"group": "a", "split": "test", "source": "s", "height": 100, "width": 100}
    counted = [{"mask": "m.png", "polyp_pixels": pixels} for pixels in (None, 0, 1, 500, 1500)]
    kinds = [*counted, {"negative": True}, {}]
    frames = tuple(
        FrameRecord(name=str(number), image=f"{number}.png", **fields, **kind)
        for number, kind in enumerate(kinds)
    )
    assert count_kinds(Manifest(name="set", frames=frames))["test"] == {
        "large": 1,
        "medium": 1,
        "small": 1,
        "negative": 1,
        "unlabelled": 2,
        "not measured": 1,
    }
