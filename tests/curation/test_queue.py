from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_microaunet.curation.queue import (
    ORDERS,
    Clues,
    disagreement,
    next_in_queue,
    order_frames,
    select,
)
from napari_microaunet.curation.session import ReviewState
from napari_microaunet.curation.temporal import Finding, FindingKind


@dataclass
class Queued:
    index: int
    name: str = ""
    state: ReviewState = ReviewState.UNSEEN
    confidence: float | None = None
    disagreement: float | None = None
    note: str = ""
    reason: str | None = None


def finding(index, text="The polyps jump."):
    return Finding(index, FindingKind.AREA, text)


def order(name, frames, clues=None):
    return order_frames(name, frames, clues).tolist()


def test_least_confident_first_and_unknown_last():
    frames = [Queued(i, confidence=c) for i, c in enumerate([0.9, None, 0.2, 0.9, 0.0])]
    assert order("confidence", frames) == [4, 2, 0, 3, 1]


def test_most_disagreement_first_and_unknown_last():
    frames = [Queued(i, disagreement=d) for i, d in enumerate([0.1, None, 0.8, 0.8, 0.0])]
    assert order("disagreement", frames) == [2, 3, 0, 4, 1]


def test_frames_with_most_findings_first():
    clues = Clues({3: [finding(3)], 1: [finding(1), finding(1)]})
    assert order("findings", [Queued(i) for i in range(5)], clues) == [1, 3, 0, 2, 4]


def test_near_duplicates_stand_together():
    clues = Clues(duplicates=np.array([5, 1, 2, 1, 5, 9]))
    assert order("duplicates", [Queued(i) for i in range(6)], clues) == [0, 4, 1, 3, 2, 5]
    # Of frames that are left by a filter, too.
    assert order("duplicates", [Queued(i) for i in (1, 2, 3, 4)], clues) == [1, 3, 2, 4]


chance = st.one_of(st.none(), st.floats(0, 1))


@given(
    st.sampled_from(list(ORDERS)),
    st.lists(st.tuples(chance, chance, st.integers(0, 3), st.integers(0, 3)), max_size=20),
    st.randoms(),
)
def test_every_order_holds_every_frame_once_whatever_order_it_is_given(name, rows, random):
    frames = [Queued(i, confidence=c, disagreement=d) for i, (c, d, _, _) in enumerate(rows)]
    clues = Clues(
        {i: [finding(i)] * n for i, (_, _, n, _) in enumerate(rows)},
        np.array([group for _, _, _, group in rows], np.int64),
    )
    found = order(name, frames, clues)
    assert sorted(found) == list(range(len(rows)))
    if name != "duplicates":
        random.shuffle(frames)
    assert order(name, frames, clues) == found


def test_frames_are_filtered():
    frames = [
        Queued(0, "case 1/a", ReviewState.ACCEPTED),
        Queued(1, "case 2/b", ReviewState.EDITED, note="Flat lesion"),
        Queued(2, "case 2/c", ReviewState.EXCLUDED, reason="glare"),
        Queued(3, "case 3/d", ReviewState.EDITED),
    ]
    clues = Clues({3: [finding(3)]})

    def left(**filters):
        return np.flatnonzero(select(frames, clues, **filters)).tolist()

    assert left() == [0, 1, 2, 3]
    assert left(states={ReviewState.EDITED}) == [1, 3]
    assert left(states=()) == []
    assert left(text="CASE 2") == [1, 2]
    assert left(text="lesion ") == [1]
    assert left(text="glare") == [2]
    assert left(text="jump") == [3]
    assert left(with_findings=True) == [3]
    assert left(states={ReviewState.EDITED}, text="case 2") == [1]
    assert select(frames, with_findings=True).tolist() == [False] * 4


def test_the_next_frame_is_the_next_that_is_not_done():
    queue = np.array([4, 2, 0, 3, 1])
    assert next_in_queue(queue, 4, set()) == 2
    assert next_in_queue(queue, 2, {0, 3}) == 1
    assert next_in_queue(queue, 1, {4}) == 2
    assert next_in_queue(queue, 7, {4}) == 2
    assert next_in_queue(queue, 3, {0, 1, 2, 4}) is None
    assert next_in_queue([], 3, set()) is None


# Disagreement


def blob(radius, shape=(64, 64), column=30):
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    far = np.hypot(rows - 32, columns - column) - radius
    return np.rint(255 / (1 + np.exp(np.clip(far, -30, 30)))).astype(np.uint8)


def test_disagreement_grows_as_outlines_part():
    found = [disagreement(blob(12), blob(12, column=30 + away)) for away in (0, 1, 2, 4, 8)]
    assert found[0] == 0
    assert found == sorted(found)
    assert len(set(found)) == len(found)
    assert found[-1] > 0.5


def test_models_of_which_one_sees_nothing_disagree_altogether():
    nothing = np.zeros((64, 64), np.uint8)
    assert disagreement(blob(12), nothing) == 1
    assert disagreement(nothing, nothing) == 0


def test_levels_decide_where_outlines_are():
    weak = blob(12) // 3  # never reaches 128
    assert disagreement(weak, weak // 2) == 0
    assert disagreement(weak, weak // 2, (40, 20)) > 0.3


def test_the_inside_of_a_large_polyp_does_not_count():
    whole = blob(22)
    hollow = np.where(blob(10) > 128, whole - 100, whole)  # still polyp, less certain
    assert disagreement(whole, hollow) == 0
    assert disagreement(whole, blob(23)) > 0


@given(arrays(np.uint8, (9, 11)), arrays(np.uint8, (9, 11)))
def test_disagreement_is_a_share_and_the_same_both_ways(one, other):
    found = disagreement(one, other)
    assert 0 <= found <= 1
    assert found == disagreement(other, one)
    assert disagreement(one, one) == 0
