from __future__ import annotations

import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_microaunet.curation import open_dataset, read_manifest, write_manifest
from napari_microaunet.curation.agreement import (
    combine,
    compare_annotations,
    compare_manifests,
    compare_masks,
    read_decisions,
    reconcile,
    write_decisions,
)
from napari_microaunet.curation.incoming import incoming_frames
from napari_microaunet.curation.session import MaskOrigin, Session
from napari_microaunet.curation.writer import write_dataset
from napari_microaunet.errors import InputError
from napari_microaunet.frames import open_frames


def box(top, left, bottom, right, label=1):
    mask = np.zeros((24, 32), np.uint8)
    mask[top:bottom, left:right] = label
    return mask


EMPTY = box(0, 0, 0, 0)
MASKS = {
    "Ada": [box(4, 4, 12, 12), box(4, 4, 12, 12), EMPTY, box(4, 4, 12, 12)],
    "Ben": [box(4, 4, 12, 12), box(4, 6, 12, 14), EMPTY, box(14, 20, 20, 28)],
}


@pytest.fixture
def versions(tmp_path, write_frame):
    """Two annotators' datasets of the same four frames."""
    for seed in range(4):
        write_frame(tmp_path / "case" / f"{seed}.png", seed)
    for annotator, masks in MASKS.items():
        folder = tmp_path / f"{annotator}.microaunet"
        with Session(open_frames(tmp_path / "case"), folder, annotator=annotator) as session:
            for index, mask in enumerate(masks):
                session.put_mask(index, mask, MaskOrigin.HAND)
            session.accept(range(4))
            write_dataset(incoming_frames(session), tmp_path / annotator)
    return [open_dataset(tmp_path / annotator) for annotator in MASKS]


def test_scores_of_two_shifted_boxes():
    found = compare_masks("a", box(4, 4, 12, 12), box(4, 6, 12, 14))
    assert found.dice == pytest.approx(2 * 48 / 128)
    assert found.different_pixels == 32
    # By hand: of 768 pixels 32 differ; each marks 64.
    chance = (64 / 768) ** 2 + (704 / 768) ** 2
    assert found.kappa == pytest.approx((1 - 32 / 768 - chance) / (1 - chance))
    # Outlines of 28 pixels each; the corners count once.
    assert 0 < found.boundary_distance < 2
    assert compare_masks("a", EMPTY, EMPTY).dice == 1
    assert compare_masks("a", EMPTY, box(0, 0, 3, 3)).boundary_distance is None
    assert compare_masks("a", EMPTY, box(0, 0, 3, 3)).dice == 0


def test_what_one_ignores_is_left_out():
    one, other = box(4, 4, 12, 12), box(4, 4, 12, 12)
    one[4:12, 12:20] = 255
    other[4:12, 12:16] = 1
    assert compare_masks("a", one, other).different_pixels == 0


def test_only_identical_masks_are_decided_beforehand(tmp_path):
    polyp, two = box(4, 4, 12, 12), box(4, 4, 12, 12)
    two[4:12, 8:12] = 2
    found = [
        compare_masks("equal", polyp, polyp),
        compare_masks("ignored by one", polyp * 255, polyp),
        compare_masks("one or two", polyp, two),
    ]
    assert [one.dice for one in found] == [1, 1, 1]
    write_decisions(found, tmp_path / "decisions.csv")
    with (tmp_path / "decisions.csv").open(newline="") as file:
        decided = {row["frame"]: row["take"] for row in csv.DictReader(file)}
    assert decided == {"equal": "identical", "ignored by one": "", "one or two": ""}


@given(arrays(np.uint8, (9, 9), elements=st.sampled_from([0, 1, 2])), st.integers(0, 2))
@settings(max_examples=40)
def test_scores_are_symmetric_and_bounded(mask, shift):
    other = np.roll(mask, shift, axis=1)
    one, back = compare_masks("a", mask, other), compare_masks("a", other, mask)
    assert (one.dice, one.different_pixels) == (back.dice, back.different_pixels)
    assert one.kappa == pytest.approx(back.kappa)
    assert 0 <= one.dice <= 1 >= one.kappa
    if shift == 0:
        assert (one.dice, one.kappa) == (1, 1)


def test_the_worst_frames_come_first(versions):
    found = compare_annotations(*versions)
    assert [one.name for one in found] == ["case/3", "case/1", "case/0", "case/2"]
    assert [one.dice for one in found] == pytest.approx([0, 0.75, 1, 1])


def test_of_masks_with_all_pixels_alike_identical_ones_come_last(versions, tmp_path):
    with Session(open_frames(tmp_path / "case"), tmp_path / "Ben.microaunet") as session:
        session.put_mask(2, box(4, 4, 12, 12, 255), MaskOrigin.HAND)
        session.accept(range(4))
        write_dataset(incoming_frames(session), tmp_path / "Ben", append=True)
    found = compare_annotations(versions[0], open_dataset(tmp_path / "Ben"))
    assert [one.name for one in found][2:] == ["case/2", "case/0"]


def test_manifests_tell_what_differs(versions):
    found = compare_manifests(*(one.manifest for one in versions))
    assert (found.removed, found.added) == ((), ())
    assert "mask_sha256" in found.changed["case/1"]
    assert "mask_sha256" not in found.changed["case/0"]
    smaller = versions[0].manifest.model_copy(update={"frames": versions[0].frames[1:]})
    assert compare_manifests(smaller, versions[0].manifest).added == ("case/0",)


@pytest.mark.parametrize(
    ("take", "expected"),
    [
        ("1", box(4, 4, 12, 12)),
        ("2", box(4, 6, 12, 14)),
        ("intersection", box(4, 6, 12, 12)),
        ("union", box(4, 4, 12, 14)),
    ],
)
def test_frames_are_reconciled_as_decided(versions, tmp_path, take, expected):
    table = tmp_path / "decisions.csv"
    write_decisions(compare_annotations(*versions), table)
    with pytest.raises(InputError, match='says "" of the frame case/3'):
        read_decisions(table, 2)
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(row | {"take": row["take"] or take} for row in rows)
    result = write_dataset(reconcile(versions, read_decisions(table, 2)), tmp_path / "both")
    both = open_dataset(tmp_path / "both")
    np.testing.assert_array_equal(both.mask(0), MASKS["Ada"][0])
    np.testing.assert_array_equal(both.mask(1), expected)
    assert [frame.split for frame in both.frames] == [frame.split for frame in versions[0].frames]
    annotation = result.manifest.frames[1].annotation
    if take in "12":
        assert annotation.annotator == ("Ada" if take == "1" else "Ben")
    else:
        assert annotation.merged_from == f"{take} of Ada (Ada), Ben (Ben)"


def test_decisions_that_fit_nothing_are_refused(versions, tmp_path):
    table = tmp_path / "decisions.csv"
    for content, problem in (
        ("frame,take\ncase/1,3\n", 'says "3" of the frame case/1; write one of 1, 2, inter'),
        ("name,take\na,1\n", "no column 'frame'"),
    ):
        table.write_text(content)
        with pytest.raises(InputError, match=problem):
            read_decisions(table, 2)
    with pytest.raises(InputError, match="Nothing is decided of the frame case/1"):
        reconcile(versions, {})
    with pytest.raises(InputError, match="exists"):
        write_decisions([], table)


def test_a_number_is_that_of_a_dataset_also_where_others_lack_the_frame(versions, tmp_path):
    lacking = tmp_path / "Ben" / "manifest.json"
    manifest = read_manifest(lacking)
    write_manifest(lacking, manifest.model_copy(update={"frames": manifest.frames[:3]}))
    with Session(open_frames(tmp_path / "case"), tmp_path / "Cy.microaunet") as session:
        session.put_mask(3, box(1, 1, 5, 5), MaskOrigin.HAND)
        session.accept([3])
        write_dataset(incoming_frames(session), tmp_path / "Cy")
    three = [open_dataset(tmp_path / name) for name in ("Ada", "Ben", "Cy")]
    decided = {"case/1": "1", "case/3": "3"}
    write_dataset(reconcile(three, decided), tmp_path / "one")
    np.testing.assert_array_equal(open_dataset(tmp_path / "one").mask(3), box(1, 1, 5, 5))
    with pytest.raises(InputError, match="Dataset 2 does not have the frame case/3; take one of"):
        reconcile(three, decided | {"case/3": "2"})


def test_what_two_agree_on_is_undecided_where_a_third_differs(versions, tmp_path):
    table = tmp_path / "decisions.csv"
    write_decisions([one for one in compare_annotations(*versions) if one.identical], table)
    decided = read_decisions(table, 3) | {"case/1": "1", "case/3": "1"}
    with Session(open_frames(tmp_path / "case"), tmp_path / "Cy.microaunet") as session:
        session.put_mask(2, box(1, 1, 5, 5), MaskOrigin.HAND)
        session.accept([2])
        write_dataset(incoming_frames(session), tmp_path / "Cy")
    three = [*versions, open_dataset(tmp_path / "Cy")]
    with pytest.raises(InputError, match="Nothing is decided of the frame case/2"):
        reconcile(three, decided)
    # Who has no mask does not differ.
    unlabelled = tmp_path / "Cy" / "manifest.json"
    manifest = read_manifest(unlabelled)
    without = {"mask": None, "mask_sha256": None, "negative": False}
    frames = (manifest.frames[0].model_copy(update=without),)
    write_manifest(
        tmp_path / "Cy" / "manifest.json", manifest.model_copy(update={"frames": frames})
    )
    agreed = reconcile([*versions, open_dataset(tmp_path / "Cy")], decided)
    assert agreed[2].annotation.annotator == "Ada"
    write_manifest(unlabelled, manifest)
    write_dataset(reconcile(three, decided | {"case/2": "3"}), tmp_path / "one")
    np.testing.assert_array_equal(open_dataset(tmp_path / "one").mask(2), box(1, 1, 5, 5))


def test_a_frame_that_one_alone_has_labelled_is_taken_from_him(tmp_path, write_frame):
    for seed in range(2):
        write_frame(tmp_path / "case" / f"{seed}.png", seed)
    for number, annotator in enumerate(("Ada", "Ben")):
        folder = tmp_path / f"{annotator}.microaunet"
        with Session(open_frames(tmp_path / "case"), folder, annotator=annotator) as session:
            session.put_mask(number, box(4, 4, 12, 12 + number), MaskOrigin.HAND)
            session.accept([number])
            write_dataset(incoming_frames(session, "all"), tmp_path / annotator)
    versions = [open_dataset(tmp_path / annotator) for annotator in ("Ada", "Ben")]
    write_dataset(reconcile(versions, {}), tmp_path / "both")
    both = open_dataset(tmp_path / "both")
    for number in range(2):
        np.testing.assert_array_equal(both.mask(number), box(4, 4, 12, 12 + number))
    assert [frame.annotation.annotator for frame in both.frames] == ["Ada", "Ben"]
    assert [frame.split for frame in both.frames] == [frame.split for frame in versions[0].frames]


def test_two_pictures_of_one_name_are_neither_compared_nor_reconciled(tmp_path, write_frame):
    both = []
    for seed, ward in enumerate(("Ada", "Ben")):
        folder = tmp_path / ward / "case"
        write_frame(folder / "images" / "1.png", seed, folder / "masks" / "1.png")
        write_dataset(incoming_frames(open_dataset(folder)), tmp_path / f"of {ward}")
        both.append(open_dataset(tmp_path / f"of {ward}"))
    for refused in (
        lambda: compare_annotations(*both),
        lambda: reconcile(both, {"case/1": "intersection"}),
    ):
        with pytest.raises(InputError, match=r"case/1 is another picture in .*Ada than in .*Ben"):
            refused()


def test_majority_and_what_is_unknown():
    masks = [np.array([row], np.uint8) for row in ([1, 1, 1, 0], [1, 1, 255, 0], [1, 0, 0, 255])]
    assert combine(masks, "majority").tolist() == [[1, 1, 255, 0]]
    assert combine(masks, "union").tolist() == [[1, 1, 1, 255]]
    assert combine(masks, "intersection").tolist() == [[1, 0, 0, 0]]
    assert combine(masks[::2], "majority").tolist() == [[1, 255, 255, 255]]
