from __future__ import annotations

import os
import shutil
from concurrent.futures import CancelledError

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_microaunet.curation import (
    FrameRecord,
    Manifest,
    open_dataset,
    read_manifest,
    write_manifest,
)
from napari_microaunet.errors import InputError
from napari_microaunet.frames.masks import write_mask_file
from napari_microaunet.frames.sample_data import sample_data_folder


def splits(dataset):
    return {frame.name: frame.split for frame in dataset.frames}


def with_manifest(folder, **changes):
    """Make a curated dataset of a folder with images and masks, the first frame changed."""
    manifest = open_dataset(folder).manifest
    first = manifest.frames[0].model_copy(update=changes)
    manifest = manifest.model_copy(update={"frames": (first, *manifest.frames[1:])})
    write_manifest(folder / "manifest.json", manifest)
    return manifest


@pytest.mark.parametrize("path", [".", "images/.."])
def test_a_folder_has_its_name_whatever_the_path_to_it(tmp_path, write_set, monkeypatch, path):
    write_set(tmp_path / "ward", 3)
    monkeypatch.chdir(tmp_path / "ward")
    dataset = open_dataset(path)
    assert (dataset.name, dataset.path) == ("ward", tmp_path / "ward")
    assert {frame.source for frame in dataset.frames} == {"ward"}


def test_masks_negatives_and_frames_that_nobody_has_labelled(tmp_path, write_set, write_frame):
    folder = write_set(tmp_path / "stills", 3)
    write_frame(folder / "images" / "no mask.png", 3)
    write_frame(folder / "negative" / "a.png", 4)
    write_frame(folder / "images" / "No polyps" / "b.png", 5)
    dataset = open_dataset(folder)
    assert dataset.name == "stills"
    kinds = {frame.name: (frame.mask, frame.negative) for frame in dataset.frames}
    assert kinds == {
        "0": ("masks/0.png", False),
        "1": ("masks/1.png", False),
        "2": ("masks/2.png", False),
        "no mask": (None, False),
        "negative/a": (None, True),
        "No polyps/b": (None, True),
    }
    masks = {frame.name: dataset.mask(i) for i, frame in enumerate(dataset.frames)}
    assert masks["no mask"] is None
    assert masks["negative/a"].shape == (24, 32)
    assert not masks["negative/a"].any()
    assert masks["1"].sum() == 4 * 14
    assert dataset.read(0).shape == (24, 32, 3)
    assert dataset.field_of_view(0) == (0, 0, 24, 32)
    assert dataset.groups == {frame.name: frame.group for frame in dataset.frames}


def test_opening_can_be_cancelled(tmp_path, write_set):
    with pytest.raises(CancelledError):
        open_dataset(write_set(tmp_path / "stills", 3), cancelled=lambda: True)


def test_frames_of_a_split_are_listed_with_and_without_the_unlabelled(
    tmp_path, write_set, write_frame
):
    folder = write_set(tmp_path / "stills", 2)
    write_frame(folder / "images" / "no mask.png", 3)
    write_frame(folder / "negative" / "a.png", 4)
    manifest = open_dataset(folder).manifest
    frames = tuple(frame.model_copy(update={"split": "test"}) for frame in manifest.frames)
    dataset = open_dataset(folder, manifest.model_copy(update={"frames": frames}))
    names = [frame.name for frame in dataset.frames]
    assert [names[i] for i in dataset.indices("test")] == names
    labelled = [names[i] for i in dataset.indices("test", labelled=True)]
    assert labelled == [name for name in names if name != "no mask"]
    assert dataset.indices("training") == []


def test_a_folder_of_negatives_can_be_opened_by_itself(tmp_path, write_frame):
    write_frame(tmp_path / "negatives" / "seq" / "a.png", 1)
    write_frame(tmp_path / "negatives" / "b.png", 2)
    assert all(frame.negative for frame in open_dataset(tmp_path / "negatives").frames)
    assert not any(frame.negative for frame in open_dataset(tmp_path / "negatives/seq").frames)


def test_a_mask_counts_more_than_the_name_of_a_folder(tmp_path, write_frame):
    write_frame(tmp_path / "negative" / "a.png", 1, tmp_path / "negative" / "masks" / "a.png")
    dataset = open_dataset(tmp_path)
    assert not dataset.frames[0].negative
    assert dataset.mask(0).any()


def test_both_splits_have_masks_and_negatives_and_more_frames_move_none(
    tmp_path, write_set, write_frame
):
    folder = write_set(tmp_path, 30)
    for seed in range(30, 50):
        write_frame(folder / "negative" / f"{seed}.png", seed)
    before = open_dataset(folder)
    for split in ("training", "validation"):
        chosen = [before.frames[i] for i in before.indices(split)]
        assert any(frame.mask for frame in chosen)
        assert any(frame.negative for frame in chosen)
    for seed in range(50, 70):
        write_frame(folder / "images" / f"more {seed}.png", seed)
    after = splits(open_dataset(folder))
    assert len(after) == 70
    assert {name: after[name] for name in splits(before)} == splits(before)


def test_folders_without_a_polyp_do_not_validate_in_place_of_those_with_one(tmp_path, write_frame):
    # By their hashes, the last two validate and no other.
    for seed in range(7):
        name = f"g{seed}/0.png"
        write_frame(tmp_path / "images" / name, seed, tmp_path / "masks" / name)
        if seed >= 5:
            Image.new("L", (32, 24)).save(tmp_path / "masks" / name)
    dataset = open_dataset(tmp_path)
    for split in ("training", "validation"):
        assert any(dataset.mask(i).any() for i in dataset.indices(split))


def test_an_empty_mask_does_not_make_a_negative_frame_unknown(tmp_path, write_frame):
    masks = {"empty": 0, "ignored": 255, "polyp": 1}
    for seed, (name, value) in enumerate(masks.items()):
        write_frame(tmp_path / "negative" / f"{name}.png", seed)
        mask = tmp_path / "negative" / "masks" / f"{name}.png"
        mask.parent.mkdir(exist_ok=True)
        write_mask_file(mask, np.full((24, 32), value, np.uint8))
    negative = {frame.name: frame.negative for frame in open_dataset(tmp_path).frames}
    assert negative == {
        "negative/empty": True,
        "negative/ignored": False,
        "negative/polyp": False,
    }


def test_two_videos_in_folders_are_never_mixed(tmp_path, write_frame):
    for seed in range(12):
        name = f"video {seed % 2}/{seed}.png"
        write_frame(tmp_path / "images" / name, seed, tmp_path / "masks" / name)
    found = splits(open_dataset(tmp_path))
    assert len({(name.split("/")[0], split) for name, split in found.items()}) == 2
    assert set(found.values()) == {"training", "validation"}


def test_a_single_video_is_one_group_on_one_side():
    dataset = open_dataset(sample_data_folder() / "clip.mp4")
    assert len(dataset.frames) == 96
    assert {frame.image for frame in dataset.frames} == {"clip.mp4"}
    assert len({frame.split for frame in dataset.frames}) == 1
    assert dataset.mask(0) is None


def test_a_single_video_trains_whatever_its_name(tmp_path):
    # The hash of "video" alone would have it validate.
    tifffile.imwrite(tmp_path / "video.tif", np.zeros((3, 20, 30, 3), np.uint8), photometric="rgb")
    assert {frame.split for frame in open_dataset(tmp_path / "video.tif").frames} == {"training"}


def test_images_opened_directly_keep_their_masks(tmp_path, write_set):
    folder = write_set(tmp_path / "set", 3)
    dataset = open_dataset(folder / "images")
    assert dataset.frames[1].mask == "masks/1.png"
    again = open_dataset(folder / "images", frozen=dataset.manifest)
    np.testing.assert_array_equal(again.mask(1), dataset.mask(1))


def test_a_curated_dataset_is_opened_as_its_manifest_says(tmp_path, write_set):
    folder = write_set(tmp_path / "set", 4)
    manifest = with_manifest(folder, split="test", group="alone", mask=None, source="elsewhere")
    shutil.move(folder, tmp_path / "moved")
    dataset = open_dataset(tmp_path / "moved")
    assert dataset.manifest == manifest
    assert dataset.name == "set"
    assert dataset.indices("test") == [0]
    assert dataset.mask(0) is None
    assert dataset.mask(1).any()
    assert not dataset.problems


def test_a_frozen_split_outlives_what_comes_and_goes(tmp_path, write_set, write_frame):
    folder = write_set(tmp_path / "set", 12)
    write_frame(folder / "images" / "unlabelled.png", 12)
    dataset = open_dataset(folder)
    write_manifest(tmp_path / "run.json", dataset.manifest)
    write_frame(folder / "images" / "more.png", 13, folder / "masks" / "more.png")
    write_frame(folder / "images" / "unlabelled.png", 12, folder / "masks" / "unlabelled.png")
    (folder / "images" / "3.png").unlink()
    frozen = open_dataset(folder, frozen=read_manifest(tmp_path / "run.json"))
    assert frozen.manifest == dataset.manifest
    names = [frame.name for frame in frozen.frames]
    assert frozen.mask(names.index("unlabelled")) is None
    np.testing.assert_array_equal(frozen.read(0), dataset.read(0))
    assert list(frozen.problems) == ["3"]


def test_a_frozen_split_of_a_stack_needs_the_same_frames(tmp_path):
    path = tmp_path / "stack.tif"
    stack = np.random.default_rng(1).integers(0, 255, (5, 20, 30, 3), np.uint8)

    def write(count):
        pages = [Image.fromarray(page) for page in stack[:count]]
        pages[0].save(path, save_all=True, append_images=pages[1:])

    write(5)
    manifest = open_dataset(path).manifest
    assert len(open_dataset(path, frozen=manifest).frames) == 5
    write(4)
    with pytest.raises(InputError, match=r"holds 4 frames, no longer the 5"):
        open_dataset(path, frozen=manifest)


def test_files_that_cannot_be_read_are_named(tmp_path, write_set):
    folder = write_set(tmp_path, 5)
    (folder / "images" / "1.png").write_bytes(b"no image")
    whole = (folder / "images" / "2.png").read_bytes()
    (folder / "images" / "2.png").write_bytes(whole[: len(whole) // 2])
    (folder / "masks" / "3.png").write_bytes(b"no image")
    dataset = open_dataset(folder)
    assert sorted(dataset.problems) == ["1", "2"]
    with pytest.raises(InputError, match="mask of frame 3"):
        dataset.mask(3)


def test_a_manifest_may_list_files_that_are_gone(tmp_path, write_set):
    folder = write_set(tmp_path, 3)
    with_manifest(folder)
    (folder / "images" / "1.png").unlink()
    assert list(open_dataset(folder).problems) == ["1"]


def test_links_out_of_a_curated_dataset_are_refused(tmp_path, write_set, write_frame):
    folder = write_set(tmp_path / "set", 3)
    with_manifest(folder)
    write_frame(tmp_path / "outside.png", 9)
    for file in (folder / "images" / "1.png", folder / "masks" / "2.png"):
        kept = file.read_bytes()
        file.unlink()
        file.symlink_to(tmp_path / "outside.png")
        with pytest.raises(InputError, match="is a link out of the dataset") as error:
            open_dataset(folder)
        assert str(file) in str(error.value)
        file.unlink()
        file.write_bytes(kept)
    (folder / "masks" / "0.png").unlink()
    (folder / "masks" / "0.png").symlink_to(folder / "masks" / "1.png")
    assert open_dataset(folder).mask(0).any()


def test_links_in_circles_are_refused(tmp_path, write_set):
    folder = write_set(tmp_path, 2)
    with_manifest(folder)
    (folder / "images" / "1.png").unlink()
    (folder / "images" / "1.png").symlink_to(folder / "images" / "1.png")
    try:
        dataset = open_dataset(folder)
    except InputError as error:
        assert "1.png" in str(error)  # noqa: PT017
    else:
        assert list(dataset.problems) == ["1"]


def test_one_file_is_not_taken_for_two_frames(tmp_path, write_set):
    folder = write_set(tmp_path, 3)
    with_manifest(folder, image="images/1.png")
    with pytest.raises(InputError, match=r"images/1\.png for two frames"):
        open_dataset(folder)


def test_a_manifest_of_something_else_is_refused(tmp_path, write_set):
    folder = write_set(tmp_path, 2)
    (folder / "manifest.json").write_text('{"name": "an app"}')
    with pytest.raises(InputError, match="take it away to open the folder as plain images"):
        open_dataset(folder)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_a_name_that_is_no_text_is_refused_in_a_sentence(tmp_path, write_set):
    folder = write_set(tmp_path, 2)
    odd = os.fsencode(folder / "images") + b"/\xff.png"
    try:
        shutil.copy(os.fsencode(folder / "images" / "0.png"), odd)
    except OSError:
        pytest.skip("this file system has no such names")
    with pytest.raises(InputError, match="rename it"):
        open_dataset(folder)


def test_the_content_hash_tells_what_was_trained_on(tmp_path, write_set):
    frame = {"split": "training", "source": "s", "group": "g"}
    one = FrameRecord(name="a", image="a.png", image_sha256="0" * 64, **frame)
    other = FrameRecord(name="b", image="b.png", image_sha256="1" * 64, **frame)

    def content_hash(*frames):
        dataset = open_dataset(write_set(tmp_path, 1))
        manifest = Manifest(name="set", frames=frames)
        return type(dataset)(tmp_path, dataset.sequence, manifest).content_hash("training")

    same = content_hash(one, other)
    assert content_hash(other, one) == same
    elsewhere = other.model_copy(update={"name": "c", "split": "test", "group": "h"})
    assert content_hash(one, other, elsewhere) == same
    for change in ({"image_sha256": "2" * 64}, {"mask_sha256": "2" * 64}, {"negative": True}):
        assert content_hash(one, other.model_copy(update=change)) != same


def test_hashes_are_those_of_the_files(tmp_path, write_set):
    import hashlib

    folder = write_set(tmp_path, 2)
    first = open_dataset(folder).frames[0]
    for file, found in ((first.image, first.image_sha256), (first.mask, first.mask_sha256)):
        assert hashlib.sha256((folder / file).read_bytes()).hexdigest() == found


def test_a_name_that_no_manifest_can_hold_is_told(tmp_path, write_set, rename_to_bytes):
    folder = write_set(tmp_path / "set", 2)
    rename_to_bytes(folder / "images" / "0.png", b"Gr\xfcn.png")
    with pytest.raises(InputError, match=r"Gr%FCn.png has a name that is no Unicode.* rename it"):
        open_dataset(folder)
