from __future__ import annotations

from collections import Counter
from concurrent.futures import CancelledError

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from napari_microaunet.curation import open_dataset, write_manifest
from napari_microaunet.distillation import training_frames
from napari_microaunet.distillation.training_frames import Batches, TrainingFrames, load_split
from napari_microaunet.errors import InputError
from napari_microaunet.frames.masks import write_mask_file
from napari_microaunet.frames.rendered import render_frame
from napari_microaunet.networks.library import find_model
from napari_microaunet.prelabel.preprocessing import prepare


def write(folder, name, labels=None, size=(40, 50), seed=None):
    """Write a frame of noise, and its labels."""
    random = np.random.default_rng(len(name) if seed is None else seed)
    image = folder / "images" / f"{name}.png"
    image.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(random.integers(60, 255, (*size, 3)).astype(np.uint8)).save(image)
    if labels is not None:
        (folder / "masks").mkdir(exist_ok=True)
        write_mask_file(folder / "masks" / f"{name}.png", np.asarray(labels, np.uint8))


def polyp(size=(40, 50)):
    labels = np.zeros(size, np.uint8)
    labels[10:20, 10:30] = 1
    return labels


def write_split(folder, training, validation):
    """Write so many frames with a polyp for training and for validation."""
    for number in range(training + validation):
        write(folder, f"{number:02}", polyp(), seed=number)
    manifest = open_dataset(folder).manifest
    frames = tuple(
        frame.model_copy(update={"split": "training" if i < training else "validation"})
        for i, frame in enumerate(manifest.frames)
    )
    write_manifest(folder / "manifest.json", manifest.model_copy(update={"frames": frames}))
    return open_dataset(folder)


def load_all(dataset, side=32):
    return TrainingFrames.load(dataset, range(len(dataset.frames)), side)


def made_of(**counts):
    """Make frames of some kinds ("polyp=3") or sources ("polyp_cvc=3") without any pixels."""
    kinds, sources = [], []
    for name, count in counts.items():
        kind, _, source = name.partition("_")
        kinds += [kind] * count
        sources += [source] * count
    names = tuple(str(number) for number in range(len(kinds)))
    empty = torch.empty(len(kinds), 1, 0, 0, dtype=torch.uint8)
    return TrainingFrames(empty, empty, names, tuple(sources), tuple(kinds), {})


# --- what is read ---------------------------------------------------------------------------


def test_frames_are_what_pre_labelling_shows_to_a_network(tmp_path):
    (tmp_path / "images").mkdir()
    for seed, size in ((1, (150, 210)), (2, (300, 260))):
        frame, _ = render_frame(seed, *size)
        Image.fromarray(frame).save(tmp_path / "images" / f"{seed}.png")
    dataset = open_dataset(tmp_path)
    card = find_model("student").card.model_copy(
        update={
            "input_size": (96, 96),
            "mean": (0.0, 0.0, 0.0),
            "std": (1.0, 1.0, 1.0),
            "standardise": False,
        }
    )
    frames = load_all(dataset, 96)
    assert frames.images.dtype == torch.uint8
    for index in range(2):
        field = dataset.field_of_view(index)
        assert field != (0, 0, *dataset.read(index).shape[:2])
        expected = prepare(dataset.read(index), field, card)
        np.testing.assert_allclose(frames.images[index].numpy() / 255, expected, atol=1e-6)


def test_labels_are_polyp_background_and_ignore(tmp_path):
    labels = np.zeros((32, 32), np.uint8)
    labels[:, :8], labels[:, 8:16], labels[:, 16:24] = 1, 3, 255
    write(tmp_path, "a", labels, size=(32, 32))
    frames = load_all(open_dataset(tmp_path), 16)
    expected = np.repeat([1, 255, 0], [8, 4, 4])
    np.testing.assert_array_equal(frames.labels[0, 0].numpy(), np.tile(expected, (16, 1)))
    assert frames.labels.shape == (1, 1, 16, 16)
    assert frames.labels.dtype == torch.uint8


@given(arrays(np.bool_, (12, 9)), st.integers(8, 24))
@settings(deadline=None, max_examples=30)
def test_no_background_arises_between_polyp_and_ignored(tmp_path_factory, ignored, side):
    assume(not ignored.all())
    folder = tmp_path_factory.mktemp("frames")
    write(folder, "a", np.where(ignored, 255, 1), size=(12, 9))
    frames = load_all(open_dataset(folder), side)
    assume(not frames.problems)  # a polyp of a pixel or two may be lost
    values = set(frames.labels.unique().tolist())
    # Only where half a pixel is of either kind, to the 255th part, can it be called neither.
    assert values <= {0, 1, 255}
    assert (frames.labels == 0).float().mean() < 0.1


def test_kinds_of_frames(tmp_path):
    write(tmp_path, "a", polyp())
    write(tmp_path, "bb", np.zeros((40, 50)))
    write(tmp_path, "ccc", np.full((40, 50), 255))
    write(tmp_path, "dddd")
    mixed = polyp() * 0
    mixed[:5] = 255
    write(tmp_path, "eeeee", mixed)
    (tmp_path / "negative").mkdir()
    (tmp_path / "images" / "dddd.png").rename(tmp_path / "negative" / "f.png")
    write(tmp_path, "g", seed=9)
    frames = load_all(open_dataset(tmp_path))
    assert dict(zip(frames.names, frames.kinds, strict=True)) == {
        "a": "polyp",
        "bb": "negative",
        "eeeee": "negative",
        "g": "unlabelled",
        "negative/f": "negative",
    }
    values = {
        name: labels.unique().tolist()
        for name, labels in zip(frames.names, frames.labels, strict=True)
    }
    assert values == {
        "a": [0, 1],
        "bb": [0],
        "eeeee": [0, 255],
        "g": [255],
        "negative/f": [0],
    }
    assert frames.problems.keys() == {"ccc"}
    assert "ignored throughout" in frames.problems["ccc"]
    assert frames.negatives.tolist() == [kind == "negative" for kind in frames.kinds]
    assert set(frames.sources) == {tmp_path.name}


def test_a_polyp_that_is_lost_at_training_size_is_left_out_and_named(tmp_path):
    labels = np.zeros((200, 200), np.uint8)
    labels[100, 100] = 1
    write(tmp_path, "a", labels, size=(200, 200))
    frames = load_all(open_dataset(tmp_path), 16)
    assert len(frames) == 0
    assert frames.problems == {
        "a": "a: the polyp in its mask is too small to be seen at 16 pixels."
    }


def test_frames_that_cannot_be_read_are_left_out_and_named(tmp_path):
    for seed, name in enumerate("abcd"):
        write(tmp_path, name, polyp(), seed=seed)
    (tmp_path / "images" / "b.png").write_bytes(b"no image")
    write_mask_file(tmp_path / "masks" / "c.png", np.zeros((3, 4), np.uint8))
    frames = load_all(open_dataset(tmp_path))
    assert frames.names == ("a", "d")
    assert len(frames) == len(frames.images) == len(frames.labels) == len(frames.kinds) == 2
    assert frames.problems.keys() == {"b", "c"}
    assert "b.png" in frames.problems["b"]
    assert "mask of frame c" in frames.problems["c"]


def test_progress_is_told_and_cancelling_ends_it(tmp_path):
    dataset = write_split(tmp_path, 11, 3)
    told = []
    load_split(dataset, 16, lambda *numbers: told.append(numbers))
    assert told == [(done, 14) for done in range(1, 15)]
    with pytest.raises(CancelledError):
        load_split(dataset, 16, cancelled=lambda: True)


def test_more_than_fits_into_memory_is_refused(tmp_path):
    dataset = write_split(tmp_path, 10, 1)
    with pytest.raises(InputError, match=r"take .* GiB in memory"):
        TrainingFrames.load(dataset, [0] * 1000, 100_000)


def test_the_hash_tells_labels_and_images_apart(tmp_path):
    dataset = write_split(tmp_path, 11, 1)
    first = load_all(dataset)
    assert load_all(dataset).sha256 == first.sha256
    write_mask_file(tmp_path / "masks" / "05.png", polyp() * 0)
    assert load_all(dataset).sha256 != first.sha256


# --- too few --------------------------------------------------------------------------------


def test_the_split_is_read_without_unlabelled_validation_frames(tmp_path):
    dataset = write_split(tmp_path, 10, 2)
    (tmp_path / "masks" / "10.png").unlink()
    (tmp_path / "manifest.json").unlink()
    frames = tuple(
        frame.model_copy(update={"mask": None, "mask_sha256": None}) if i == 10 else frame
        for i, frame in enumerate(dataset.frames)
    )
    dataset = open_dataset(tmp_path, dataset.manifest.model_copy(update={"frames": frames}))
    training, validation = load_split(dataset, 16)
    assert len(training) == 10
    assert validation.names == ("11",)


def test_a_long_video_gives_no_more_unlabelled_frames_than_asked_for(tmp_path):
    for number in range(14):
        write(tmp_path, f"{number:02}", polyp(), seed=number)
    for number in range(14, 40):
        write(tmp_path, f"{number:02}", seed=number)
    manifest = open_dataset(tmp_path).manifest
    frames = tuple(
        frame.model_copy(update={"split": "validation" if i < 2 else "training"})
        for i, frame in enumerate(manifest.frames)
    )
    write_manifest(tmp_path / "manifest.json", manifest.model_copy(update={"frames": frames}))
    training, _ = load_split(open_dataset(tmp_path), 16, most_unlabelled=3)
    assert Counter(training.kinds) == {"polyp": 12, "unlabelled": 3}
    assert [name[-2:] for name in training.names[-3:]] == ["14", "26", "39"]


def test_too_few_polyps_are_refused_with_their_number(tmp_path):
    with pytest.raises(InputError, match=r"has 9 training frames .* and 10 are needed"):
        load_split(write_split(tmp_path, 9, 3), 16)


def test_polyps_that_only_the_masks_files_promise_do_not_count(tmp_path):
    dataset = write_split(tmp_path, 10, 3)
    write_mask_file(tmp_path / "masks" / "04.png", polyp() * 0)
    with pytest.raises(InputError, match="has 9 training frames"):
        load_split(dataset, 16)


def test_unreadable_frames_are_mentioned_where_they_make_too_few(tmp_path):
    dataset = write_split(tmp_path, 10, 3)
    (tmp_path / "images" / "04.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"1 cannot be used, the first is 04: "):
        load_split(dataset, 16)


def test_masks_of_another_size_are_mentioned_where_they_make_too_few(tmp_path):
    dataset = write_split(tmp_path, 10, 3)
    write_mask_file(tmp_path / "masks" / "07.png", np.ones((3, 4), np.uint8))
    with pytest.raises(InputError, match=r"the first is 07: .* it is 4 x 3 px large"):
        load_split(dataset, 16)


def test_a_single_group_cannot_be_validated(tmp_path):
    for number in range(20):
        write(tmp_path, f"{number:02}", polyp(), seed=number)
    lines = "".join(f"{number:02}.png,1\n" for number in range(20))
    (tmp_path / "sequences.csv").write_text("frame,sequence\n" + lines)
    dataset = open_dataset(tmp_path)
    for split in ("training", "validation"):  # the hash of its name decides which
        frames = tuple(frame.model_copy(update={"split": split}) for frame in dataset.frames)
        dataset = open_dataset(tmp_path, dataset.manifest.model_copy(update={"frames": frames}))
        with pytest.raises(InputError, match="add labelled frames of another one"):
            load_split(dataset, 16)


# --- spread ---------------------------------------------------------------------------------


def test_frames_are_spread_over_all_kinds():
    frames = made_of(negative=80, polyp=100, unlabelled=20)
    assert Counter(frames.spread(20).kinds) == {"negative": 8, "polyp": 10, "unlabelled": 2}
    assert len(frames.spread(500)) == 200
    assert made_of(negative=50, polyp=1).spread(1).kinds == ("polyp",)


def test_many_negatives_do_not_crowd_out_the_polyps():
    frames = made_of(negative=1000, polyp=20)
    assert Counter(frames.spread(100).kinds) == {"polyp": 20, "negative": 80}
    assert Counter(frames.spread(30).kinds) == {"polyp": 10, "negative": 20}
    assert len(made_of(negative=5).spread(3)) == 3


# --- batches --------------------------------------------------------------------------------


def drawn(batches, steps):
    return torch.cat([batches.indices(step) for step in range(steps)]).tolist()


@given(
    st.integers(0, 30),
    st.integers(1, 30),
    st.integers(0, 30),
    st.integers(1, 20),
    st.floats(0, 0.6),
    st.floats(0, 0.39),
)
@settings(deadline=None)
def test_kinds_keep_their_shares_and_every_frame_comes_in_turn(
    negatives, polyps, others, size, negative_share, other_share
):
    frames = made_of(negative=negatives, polyp=polyps, unlabelled=others)
    batches = Batches(frames, size, 1, negatives=negative_share, unlabelled=other_share)
    steps = 40
    parts = [batches.indices(step) for step in range(steps)]
    assert all(len(part) == size and part.dtype == torch.int64 for part in parts)
    polyp_share = 1 - negative_share - other_share
    most = 10 * polyp_share / polyps  # for each frame of another kind
    shares = {
        "polyp": polyp_share,
        "negative": min(negative_share, negatives * most),
        "unlabelled": min(other_share, others * most),
    }
    by_kind = {kind: [] for kind in shares}
    for index in torch.cat(parts).tolist():
        by_kind[frames.kinds[index]].append(index)
    for kind, indices in by_kind.items():
        expected = steps * size * shares[kind] / sum(shares.values())
        assert abs(len(indices) - expected) < 2
        counts = Counter(indices)
        if counts:
            least = min(counts.values()) if len(counts) == frames.kinds.count(kind) else 0
            assert max(counts.values()) - least <= 1


def test_a_single_frame_without_a_mask_does_not_fill_the_batches():
    frames = made_of(polyp=80, unlabelled=1)
    counts = Counter(drawn(Batches(frames, 16, 1, unlabelled=0.25), 500))
    assert counts[80] / 500 < 2  # four in every batch, by the share alone
    assert counts[80] == pytest.approx(10 * counts[0], rel=0.02)


def test_a_step_depends_on_seed_and_number_alone():
    frames = made_of(polyp=37, negative=11, unlabelled=5)
    first = Batches(frames, 16, 7, negatives=0.3, unlabelled=0.2)
    expected = [first.indices(step) for step in range(100)]
    again = Batches(frames, 16, 7, negatives=0.3, unlabelled=0.2)
    for step in (99, 3, 98, 4, 4, 50):
        assert torch.equal(again.indices(step), expected[step])
    assert not torch.equal(
        Batches(frames, 16, 8, negatives=0.3, unlabelled=0.2).indices(0), expected[0]
    )


def test_epochs_are_shuffled_anew():
    order = drawn(Batches(made_of(polyp=20), 4, 1), 10)
    assert sorted(order[:20]) == sorted(order[20:]) == list(range(20))
    assert order[:20] != order[20:]
    assert order[:20] != sorted(order[:20])


def test_every_second_frame_of_a_batch_is_as_mixed_as_the_whole():
    frames = made_of(polyp=50, negative=50, unlabelled=50)
    batch = Batches(frames, 16, 1, negatives=0.25, unlabelled=0.25).indices(3)
    for part in (batch[0::2], batch[1::2]):
        kinds = [frames.kinds[index] for index in part]
        assert kinds == ["polyp"] * 4 + ["negative"] * 2 + ["unlabelled"] * 2


def test_sources_are_drawn_by_their_weight():
    frames = made_of(polyp_cvc=10, polyp_kvasir=10, negative_cvc=4, polyp_none=3)
    weights = {"cvc": 0.6, "none": 0.0}
    batches = Batches(frames, 16, 1, negatives=0.5, unlabelled=0, source_weights=weights)
    counts = Counter(drawn(batches, 200))
    # 1600 polyps: 10 * 0.6 + 10 in an epoch, so 100 epochs; negatives are of one source.
    assert all(59 <= counts[index] <= 61 for index in range(10))
    assert all(99 <= counts[index] <= 101 for index in range(10, 20))
    assert all(counts[index] == 400 for index in range(20, 24))  # four times as often
    assert all(counts[index] == 0 for index in range(24, 27))


@pytest.mark.parametrize("shares", [{"negatives": 1.0}, {"negatives": 0.6, "unlabelled": 0.4}])
def test_shares_without_room_for_polyps_are_refused(shares):
    with pytest.raises(InputError, match="leave no room for polyps"):
        Batches(made_of(polyp=3), 4, 1, **shares)


def test_sources_that_are_all_left_out_are_refused():
    with pytest.raises(InputError, match="no frame to train with"):
        Batches(made_of(polyp_cvc=3), 4, 1, source_weights={"cvc": 0})


def test_the_minimum_is_what_the_text_says():
    assert training_frames.MINIMUM_TRAINING_POLYPS == 10
    assert training_frames.MINIMUM_VALIDATION_POLYPS == 1
