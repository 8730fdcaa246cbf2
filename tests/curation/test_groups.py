from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageEnhance

from napari_microaunet.curation.dataset import open_dataset
from napari_microaunet.curation.groups import (
    find_groups,
    is_named_as_negatives,
    merge_near_duplicates,
    perceptual_hashes,
    thumbnail,
)
from napari_microaunet.errors import InputError
from napari_microaunet.frames import FieldOfView, find_field_of_view, open_frames
from napari_microaunet.frames.sample_data import sample_data_folder


def groups_of(path):
    sequence = open_frames(path)
    found = find_groups(sequence)
    return {frame.name: group for frame, group in zip(sequence.frames, found, strict=True)}


def look_at(pixels):
    return thumbnail(pixels, find_field_of_view([pixels]))


def shifted(pixels):
    return np.roll(pixels, (2, 3), (0, 1))


def compressed(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=30)
    return np.asarray(Image.open(file))


def brightened(pixels):
    return np.asarray(ImageEnhance.Brightness(Image.fromarray(pixels)).enhance(1.3))


def enlarged(pixels):
    return np.asarray(Image.fromarray(pixels).resize((620, 470), Image.Resampling.BICUBIC))


def bordered(pixels):
    return np.pad(pixels, ((10, 40), (60, 5), (0, 0)))


VARIANTS = (shifted, compressed, brightened, enlarged, bordered)
SEEDS = range(6)


def test_variants_of_a_frame_are_linked_and_other_frames_are_not(rendered):
    looks = [look_at(rendered(seed)) for seed in SEEDS]
    looks += [look_at(change(rendered(seed))) for change in VARIANTS for seed in SEEDS]
    merged = merge_near_duplicates(np.stack(looks), np.arange(len(looks)))
    by_variant = merged.reshape(-1, len(SEEDS))
    assert len(set(by_variant[0])) == len(SEEDS)
    for variant, groups in zip(VARIANTS, by_variant[1:], strict=True):
        np.testing.assert_array_equal(groups, by_variant[0], err_msg=variant.__name__)


def test_near_duplicates_among_files_share_a_group(tmp_path, rendered):
    for seed in (1, 2):
        Image.fromarray(rendered(seed)).save(tmp_path / f"{seed}.png")
    Image.fromarray(brightened(rendered(2))).save(tmp_path / "later.jpg")
    assert groups_of(tmp_path) == {"1": "1", "2": "2", "later": "2"}


def test_a_near_duplicate_merges_the_groups_of_two_folders(tmp_path, rendered, write_frame):
    write_frame(tmp_path / "case 1" / "1.png", 1)
    write_frame(tmp_path / "case 2" / "1.png", 2)
    write_frame(tmp_path / "case 3" / "1.png", 3)
    for case, pixels in ((1, rendered(4)), (3, compressed(rendered(4)))):
        Image.fromarray(pixels).save(tmp_path / f"case {case}" / "2.png")
    assert groups_of(tmp_path) == {
        "case 1/1": "case 1",
        "case 1/2": "case 1",
        "case 2/1": "case 2",
        "case 3/1": "case 1",
        "case 3/2": "case 1",
    }


def test_dark_frames_are_not_taken_for_one_another(tmp_path):
    for name in "abc":
        Image.fromarray(np.full((40, 50, 3), 12, np.uint8)).save(tmp_path / f"{name}.png")
    assert len(set(groups_of(tmp_path).values())) == 3


@given(arrays(np.uint8, (12, 16, 3)))
def test_a_thumbnail_has_mean_zero_and_length_one(pixels):
    look = thumbnail(pixels, FieldOfView(1, 2, 12, 15))
    assert look.dtype == np.float32
    assert abs(look.mean()) < 1e-6
    assert np.linalg.norm(look) == pytest.approx(1, abs=1e-4) or not look.any()


def test_a_hash_forgets_brightness_and_contrast():
    look = np.random.default_rng(1).normal(size=(1, 32, 32)).astype(np.float32)
    # A power of two, so that not even rounding differs.
    assert perceptual_hashes(look) == perceptual_hashes(look * 4)
    assert np.bitwise_count(perceptual_hashes(look) ^ perceptual_hashes(-look)) == 62


@given(
    st.lists(st.integers(0, 4), min_size=2, max_size=30),
    st.integers(0, 2**32 - 1),
)
@settings(deadline=None)
def test_merging_never_divides_a_group(numbers, seed):
    random = np.random.default_rng(seed)
    shapes = random.normal(size=(3, 32, 32))
    looks = shapes[random.integers(0, 3, len(numbers))]
    looks = (looks / np.linalg.norm(looks, axis=(1, 2), keepdims=True)).astype(np.float32)
    _, groups = np.unique(numbers, return_inverse=True)
    merged = merge_near_duplicates(looks, groups)
    assert len({(before, after) for before, after in zip(groups, merged, strict=True)}) == len(
        set(groups)
    )
    # Frames that look the same are together in the end.
    for look in looks:
        assert len(set(merged[(looks == look).all(axis=(1, 2))])) == 1


def test_links_reach_across_blocks():
    random = np.random.default_rng(1)
    looks = random.normal(size=(600, 32, 32)).astype(np.float32)
    looks /= np.linalg.norm(looks, axis=(1, 2), keepdims=True)
    looks[[3, 300, 599]] = looks[0]
    merged = merge_near_duplicates(looks, np.arange(600))
    assert set(np.flatnonzero(merged == merged[0])) == {0, 3, 300, 599}
    assert len(set(merged)) == 597


@pytest.mark.parametrize("name", ["clip.mp4", "clip-masks.tif"])
def test_a_video_or_stack_is_one_group(name):
    assert set(groups_of(sample_data_folder() / name).values()) == {name.split(".")[0]}


def test_a_table_of_sequences_decides(tmp_path, write_set):
    folder = write_set(tmp_path / "set", 5)
    (folder / "sequences.csv").write_text("frame,sequence\n0.png,7\n1.png,7\n2,8\nx.png,8\n")
    expected = {"0": "sequence 7", "1": "sequence 7", "2": "sequence 8", "3": "3", "4": "4"}
    assert groups_of(folder) == expected
    assert groups_of(folder / "images") == expected
    assert groups_of(tmp_path)["set/1"] == "set/sequence 7"
    assert groups_of(tmp_path)["set/4"] == "set"


@pytest.mark.parametrize(
    "rows",
    ["images/0.png,7\nimages/1.png,7\n", "0.png, 7\n1.png ,7 \n", "./0,7\nImages\\1.png,7\n"],
)
def test_a_table_may_name_the_folder_of_the_layout_and_have_blanks(tmp_path, write_set, rows):
    folder = write_set(tmp_path / "set", 3)
    (folder / "sequences.csv").write_text(f"frame, sequence\n{rows}")
    assert groups_of(folder) == {"0": "sequence 7", "1": "sequence 7", "2": "2"}


@pytest.mark.parametrize("row", ["set/1.png,7", "A.PNG,7", "1.bmp.old,7"])
def test_a_table_that_names_none_of_the_images_is_refused(tmp_path, write_set, row):
    folder = write_set(tmp_path / "set", 3)
    (folder / "sequences.csv").write_text(f"frame,sequence\n{row}\n")
    with pytest.raises(InputError, match=r"sequences\.csv names no image that is there"):
        groups_of(folder)


def test_a_table_may_be_for_other_images_of_its_folder(tmp_path, write_frame):
    for name in ("images/train/0", "images/val/1", "more/2"):
        write_frame(tmp_path / f"{name}.png", int(name[-1]))
    (tmp_path / "sequences.csv").write_text("frame,sequence\ntrain/0.png,7\n")
    (tmp_path / "images" / "sequences.csv").write_text("frame,sequence\nval/1.png,8\n")
    assert groups_of(tmp_path / "images" / "val") == {"1": "1"}
    assert groups_of([tmp_path / "images" / "val" / "1.png"]) == {"1": "1"}
    assert groups_of(tmp_path / "images") == {
        "train/0": "sequence 7",
        "val/1": "images/sequence 8",
    }
    (tmp_path / "more" / "sequences.csv").write_text("frame,sequence\n2.png,7\n")
    write_frame(tmp_path / "more" / "3.png", 3)
    assert groups_of([tmp_path / "more" / "3.png"]) == {"3": "3"}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"image,sequence\n1.png,3\n", "column 'frame'"),
        (b"frame,sequence\n\xff\xfe,3\n", "table"),
        # Without the second quote, all lines below would be one sequence.
        (b'frame,sequence\n0.png,"3\n1.png,4\n', "table"),
        (b"frame,sequence\n0,3\n0.png,4\n", r"0\.png in 3 as well as in 4"),
    ],
)
def test_a_table_that_cannot_be_used_is_named(tmp_path, write_set, content, problem):
    (write_set(tmp_path, 2) / "sequences.csv").write_bytes(content)
    with pytest.raises(InputError, match=problem) as error:
        groups_of(tmp_path)
    assert "sequences.csv" in str(error.value)


def test_folders_are_groups_but_the_one_of_negatives_is_not(tmp_path, write_frame):
    names = ("a", "b", "case 1/a", "case 1/b", "negative/a", "negative/b", "negative/seq/a")
    for seed, name in enumerate(names):
        write_frame(tmp_path / f"{name}.png", seed)
    assert groups_of(tmp_path) == {
        "a": "a",
        "b": "b",
        "case 1/a": "case 1",
        "case 1/b": "case 1",
        "negative/a": "negative/a",
        "negative/b": "negative/b",
        "negative/seq/a": "negative/seq",
    }


def test_a_table_and_a_folder_whose_name_is_no_utf_8(tmp_path, write_frame, rename_to_bytes):
    for seed, name in enumerate(("x/1", "x/2", "y/3")):
        write_frame(tmp_path / f"{name}.png", seed)
    (tmp_path / "x" / "sequences.csv").write_text("frame,sequence\nGr%FCn.png,7\n")
    rename_to_bytes(tmp_path / "x" / "1.png", b"Gr\xfcn.png")
    rename_to_bytes(tmp_path / "x", b"B\xe4r")
    assert groups_of(tmp_path) == {
        "B%E4r/2": "B%E4r",
        "B%E4r/Gr%FCn": "B%E4r/sequence 7",
        "y/3": "y",
    }
    # Its manifest could not name the files.
    with pytest.raises(InputError, match="rename"):
        open_dataset(tmp_path)


def test_names_of_folders_of_negatives():
    for name in ("negative", "Negatives", "no_polyp", "No Polyps", "no-polyp"):
        assert is_named_as_negatives(name)
    for name in ("negative_margin", "polyp", "", "images"):
        assert not is_named_as_negatives(name)


def test_near_duplicates_of_kvasir_seg_are_found(data):
    # Pairs of one polyp, some with another zoom or with a panel burnt in, told by looking.
    pairs = {
        "4vn8rb": "w8kkjf",
        "ygrgqe": "3jai7q",
        "xip369": "hiv5sy",
        "0fift8": "9ozwmw",
        "o6oy21": "55y6tt",
        "i2ppor": "xgcerw",
        "nix9m8": "6deohv",
        "5bwyr4": "pwoi50",
        "1br8ai": "trbwln",
        "0jowgx": "l4zik0",
        "wofrap": "g104zn",
        "jhbwvp": "au64sq",
        "v1i34s": "gf9dmq",
    }
    paired = pairs.keys() | pairs.values()
    images = sorted((data / "kvasir-seg" / "images").iterdir())
    chosen = [path for i, path in enumerate(images) if i % 10 == 0 or path.stem[-6:] in paired]
    groups = {name[-6:]: group for name, group in groups_of(chosen).items()}
    for one, other in pairs.items():
        assert groups[one] == groups[other]
    assert len(set(groups.values())) == len(groups) - len(pairs)
