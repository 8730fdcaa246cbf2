from __future__ import annotations

from collections import Counter

from hypothesis import example, given
from hypothesis import strategies as st

from napari_microaunet.curation.splits import fill_splits, split_groups

group_names = st.sets(st.text(max_size=8), max_size=20)


def test_the_split_is_that_of_the_hash():
    # sha256("a") starts with ca, "b" with 3e, "c" with 2e: 0.79, 0.24 and 0.18 of the way.
    assert split_groups("abc") == {"a": "training", "b": "training", "c": "validation"}


def test_about_a_fifth_validates():
    splits = split_groups(f"case {number}" for number in range(5000))
    assert 900 < list(splits.values()).count("validation") < 1100


@given(group_names, group_names)
def test_groups_that_are_added_move_no_other(groups, more):
    before, after = split_groups(groups | {"a"}), split_groups(groups | {"a"} | more)
    assert {group: after[group] for group in before} == before


@given(group_names, group_names, group_names)
def test_both_splits_get_one_of_what_they_need(masked, negative, others):
    negative -= masked
    splits = split_groups(masked | negative | others, masked, negative)
    assert splits.keys() == masked | negative | others
    for needed in (masked, negative):
        if len(needed) > 1:
            assert {splits[group] for group in needed} == {"training", "validation"}
        else:
            assert {splits[group] for group in needed} <= {"training"}


@given(group_names, group_names)
@example({"1S", "000"}, {""})  # the first two would both validate
@example({"a", "c"}, {"b", "d"})
def test_what_has_both_sides_already_is_moved_by_nothing(needed, more):
    # "a" trains by its hash, so that the other one is where its own hash has it.
    by_name = {group: split_groups({group, "a"})[group] for group in needed}
    if len(set(by_name.values())) == 2:
        after = split_groups(needed | more, needed | more)
        assert {group: after[group] for group in needed} == by_name


def test_the_group_nearest_to_the_other_side_changes_over():
    # "d" (18) and "c" (2e) validate by their hash, "a" (ca) and "b" (3e) train.
    assert split_groups("ab", "ab") == {"a": "training", "b": "validation"}
    assert split_groups("cd", "cd") == {"c": "training", "d": "validation"}
    assert split_groups("a", "a") == {"a": "training"}


def test_a_single_group_trains():
    # Its hash begins with 0c: 0.05 of the way.
    assert split_groups(["video"]) == {"video": "training"}
    assert split_groups(["video"], ["video"]) == {"video": "training"}
    # So does the only one that has what both splits need.
    assert split_groups(["video", "a"], ["video"]) == {"video": "training", "a": "training"}
    assert split_groups("cd") == {"c": "training", "d": "validation"}


SHARES = {"training": 0.7, "validation": 0.15, "test": 0.15}


def filled(groups, splits):
    counts = {split: Counter() for split in SHARES}
    for name, split in splits.items():
        counts[split] += groups[name]
    return counts


def test_every_kind_gets_its_shares():
    groups = {f"s{n}": Counter(small=1) for n in range(200)}
    groups |= {f"l{n}": Counter(large=1) for n in range(40)}
    groups |= {f"n{n}": Counter(negative=1) for n in range(100)}
    counts = filled(groups, fill_splits(groups, SHARES, {}, 1))
    assert counts["training"] == {"small": 140, "large": 28, "negative": 70}
    assert counts["validation"] == {"small": 30, "large": 6, "negative": 15}
    assert counts["test"] == {"small": 30, "large": 6, "negative": 15}


def test_the_seed_decides_and_what_is_taken_counts():
    groups = {f"s{n}": Counter(small=1) for n in range(20)}
    first, again, other = (fill_splits(groups, SHARES, {}, seed) for seed in (1, 1, 2))
    assert first == again != other
    taken = {"training": Counter(small=140)}
    counts = filled(groups, fill_splits(groups, SHARES, taken, 1))
    assert counts["training"].total() == 0
    assert counts["validation"].total() == counts["test"].total() == 10


@given(
    st.dictionaries(
        st.text(max_size=4),
        st.dictionaries(st.sampled_from("abc"), st.integers(1, 9), min_size=1).map(Counter),
    ),
    st.integers(0, 5),
)
def test_every_group_gets_one_split_and_none_that_has_no_share(groups, seed):
    splits = fill_splits(groups, {"training": 0.8, "validation": 0.2, "test": 0.0}, {}, seed)
    assert splits.keys() == groups.keys()
    assert set(splits.values()) <= {"training", "validation"}
