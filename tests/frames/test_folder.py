from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_microaunet.errors import InputError
from napari_microaunet.frames import open_frames
from napari_microaunet.frames.folder import holds_images
from napari_microaunet.frames.masks import write_mask_file


def names(sequence):
    return [frame.name for frame in sequence.frames]


def test_natural_order_and_sizes(tmp_path, write_image):
    for number in (1, 2, 10, 100, 21):
        write_image(tmp_path / f"img{number}.png", size=(20 + number, 130 - number))
    (tmp_path / "notes.txt").write_text("not a frame")
    sequence = open_frames(tmp_path)
    assert names(sequence) == ["img1", "img2", "img10", "img21", "img100"]
    assert [(f.height, f.width) for f in sequence.frames][2] == (30, 120)
    assert sequence.canvas_shape == (120, 129)
    assert len(sequence) == 5
    assert sequence.name == tmp_path.name
    assert sequence.frames[2].source == tmp_path / "img10.png"
    assert not sequence.has_masks
    assert all(
        sequence.read(i).shape == (f.height, f.width, 3) for i, f in enumerate(sequence.frames)
    )


@pytest.mark.parametrize("backwards", [False, True])
def test_the_order_on_the_disk_does_not_matter(tmp_path, write_image, monkeypatch, backwards):
    for name in ("img1.png", "img01.png", "img001.jpg"):
        write_image(tmp_path / name)
    listed = Path.iterdir
    monkeypatch.setattr(
        Path, "iterdir", lambda folder: iter(sorted(listed(folder), reverse=backwards))
    )
    assert names(open_frames(tmp_path)) == ["img001", "img01", "img1"]


def test_folders_in_folders(tmp_path, write_image):
    for name in ("case 10/2.png", "case 3/12.png", "case 3/2.jpg", "7.png"):
        write_image(tmp_path / name)
    assert names(open_frames(tmp_path)) == ["7", "case 3/2", "case 3/12", "case 10/2"]


def test_string_paths_are_fine(tmp_path, write_image):
    write_image(tmp_path / "a.png")
    assert names(open_frames(str(tmp_path))) == ["a"]


@pytest.mark.parametrize("path", [".", "../case 7", "sub/.."])
def test_a_folder_has_its_name_whatever_the_path_to_it(tmp_path, write_image, monkeypatch, path):
    write_image(tmp_path / "case 7" / "a.png")
    (tmp_path / "case 7" / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "case 7")
    sequence = open_frames(path)
    assert (sequence.name, sequence.path) == ("case 7", tmp_path / "case 7")
    assert open_frames(["a.png", "a.png"]).name == "case 7"


@pytest.mark.parametrize(
    ("images", "masks"),
    [("images", "masks"), ("Original", "Ground Truth"), ("Images", "MASKS"), (".", "masks")],
)
@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_layouts_with_masks(tmp_path, write_image, images, masks, suffix):
    polyp = np.zeros((20, 30), np.uint8)
    polyp[5:9, 7:20] = 255
    for name in ("1", "2", "10"):
        write_image(tmp_path / images / f"{name}{suffix}")
    write_image(tmp_path / masks / f"2{suffix}", polyp)
    write_image(tmp_path / masks / "10.png", 255 - polyp)
    write_image(tmp_path / masks / "no such frame.png", polyp)
    sequence = open_frames(tmp_path)
    assert names(sequence) == ["1", "2", "10"]
    assert sequence.has_masks
    assert sequence.read_mask(0) is None
    np.testing.assert_array_equal(sequence.read_mask(1), polyp > 0)
    np.testing.assert_array_equal(sequence.read_mask(2), polyp == 0)


def test_folder_of_images_finds_the_masks_beside_it(tmp_path, write_image):
    folder = tmp_path / "Kvasir-SEG"
    write_image(folder / "images" / "a.jpg")
    write_image(folder / "masks" / "a.jpg", np.full((20, 30), 255, np.uint8))
    sequence = open_frames(folder / "images")
    assert sequence.name == "Kvasir-SEG"
    assert sequence.read_mask(0).all()


def test_several_sets_and_sequences_with_masks(tmp_path, write_image):
    mask = np.full((20, 30), 255, np.uint8)
    for name in ("seq2/3", "seq10/3"):
        write_image(tmp_path / "video" / "images" / f"{name}.png")
    write_image(tmp_path / "video" / "masks" / "seq10" / "3.png", mask)
    write_image(tmp_path / "stills" / "Original" / "3.png")
    write_image(tmp_path / "stills" / "Ground Truth" / "3.png", mask)
    write_image(tmp_path / "more" / "3.png")
    sequence = open_frames(tmp_path)
    assert names(sequence) == ["more/3", "stills/3", "video/seq2/3", "video/seq10/3"]
    assert [sequence.read_mask(i) is not None for i in range(4)] == [False, True, False, True]


def test_same_stem_in_two_formats(tmp_path, write_image):
    for name in ("a.jpg", "a.png", "A.bmp", "b.png"):
        write_image(tmp_path / name)
    sequence = open_frames(tmp_path)
    assert len({name.lower() for name in names(sequence)}) == 4
    assert {frame.source.name for frame in sequence.frames} == {"a.jpg", "a.png", "A.bmp", "b.png"}


def masks_by_image(sequence):
    return {
        frame.source.name: mask.name
        for frame, mask in zip(sequence.frames, sequence.mask_files, strict=True)
        if mask is not None
    }


@pytest.mark.parametrize("saved", [("a",), ("a_png",), ("a", "a_png"), ("a", "a_png", "a_png_jpg")])
@pytest.mark.parametrize("images", [".", "images", "case 3", "case 3/images"])
def test_masks_that_we_saved_come_back_on_the_frames_they_were_saved_of(
    tmp_path, write_image, images, saved
):
    for name in ("a.jpg", "a.png", "a_png.jpg", "b.jpg", "b.png"):
        write_image(tmp_path / images / name)
    sequence = open_frames(tmp_path)
    folder = tmp_path / images
    folder = (folder.parent if folder.name == "images" else folder) / "masks"
    folder.mkdir()
    images_of = {Path(frame.name).name: frame.source.name for frame in sequence.frames}
    assert images_of == {
        "a": "a.jpg",
        "a_png": "a.png",
        "a_png_jpg": "a_png.jpg",
        "b": "b.jpg",
        "b_png": "b.png",
    }
    for name in saved:
        write_mask_file(folder / f"{name}.png", np.ones((20, 30), np.uint8))
    # Of another program, which calls masks as images are.
    write_image(folder / "b.png", np.full((20, 30), 255, np.uint8))
    assert masks_by_image(open_frames(tmp_path)) == {
        "b.png": "b.png",
        **{images_of[name]: f"{name}.png" for name in saved},
    }


def test_masks_of_others_that_are_called_as_frames_are(tmp_path, write_image):
    for name in ("images/a.jpg", "images/a.png", "masks/a.png", "masks/a_png.png"):
        write_image(tmp_path / name, np.full((20, 30), 255, np.uint8))
    assert masks_by_image(open_frames(tmp_path)) == {"a.jpg": "a.png", "a.png": "a_png.png"}


def test_no_mask_is_given_to_two_pictures(tmp_path, write_image):
    mask = np.full((20, 30), 255, np.uint8)
    for name in ("a.jpg", "a.png", "b.jpg", "b.bmp", "c.jpg", "d.jpg", "d.png"):
        write_image(tmp_path / "images" / name)
    for name in ("a.png", "b.png", "c.png", "d.jpg", "d.png"):
        write_image(tmp_path / "masks" / name, mask)
    assert masks_by_image(open_frames(tmp_path)) == {
        "a.png": "a.png",
        "c.jpg": "c.png",
        "d.jpg": "d.jpg",
        "d.png": "d.png",
    }


def test_a_mask_that_we_saved_of_a_file_whose_name_is_no_utf_8_is_found(
    tmp_path, write_image, rename_to_bytes
):
    write_image(tmp_path / "a.png")
    rename_to_bytes(tmp_path / "a.png", b"Gr\xfcn.png")
    (tmp_path / "masks").mkdir()
    write_mask_file(tmp_path / "masks" / "Gr%FCn.png", np.ones((20, 30), np.uint8))
    assert open_frames(tmp_path).read_mask(0).all()


def test_names_that_are_no_utf_8_become_unicode(tmp_path, write_image, rename_to_bytes):
    folder = tmp_path / "set"
    pixels = write_image(folder / "images" / "a.png", size=(5, 7))
    rename_to_bytes(folder / "images" / "a.png", b"Gr\xfcn.png")
    write_image(folder / "images" / "Gr%FCn.png")
    write_image(folder / "masks" / "a.png", np.full((5, 7), 255, np.uint8))
    rename_to_bytes(folder / "masks" / "a.png", b"Gr\xfcn.png")
    sequence = open_frames(rename_to_bytes(folder, b"B\xe4r"))
    assert sequence.name == "B%E4r"
    assert names(sequence) == ["Gr%FCn", "Gr%FCn_png"]
    np.testing.assert_array_equal(sequence.read(1), pixels)
    assert sequence.read_mask(0) is None
    assert sequence.read_mask(1).all()


def test_folders_that_differ_in_case_alone(tmp_path, write_image):
    for name in ("Case/1.png", "case/1.png", "case/2.png", "Images/3.png", "images/4.png"):
        write_image(tmp_path / name)
    if len(list(tmp_path.iterdir())) < 4:
        pytest.skip("case does not count here")
    write_image(tmp_path / "masks" / "4.png", np.full((20, 30), 255, np.uint8))
    sequence = open_frames(tmp_path)
    assert len(sequence) == 5
    assert {name.lower() for name in names(sequence)} == {
        *("4", "case/1", "case/1_png", "case/2", "images/3")
    }
    assert [frame.name for i, frame in enumerate(sequence.frames) if sequence.mask_files[i]] == [
        "4"
    ]


@given(
    st.lists(
        st.text(st.sampled_from("aA1_ é"), min_size=1, max_size=4).map(str.strip).filter(bool),
        min_size=1,
        max_size=8,
    ),
    st.lists(st.sampled_from([".png", ".jpg", ".bmp"]), min_size=8, max_size=8),
)
@settings(max_examples=40, deadline=None)
def test_names_are_unique_where_case_does_not_count(tmp_path_factory, stems, suffixes):
    folder = tmp_path_factory.mktemp("names")
    for stem, suffix in zip(stems, suffixes, strict=False):
        Image.new("RGB", (3, 2)).save(folder / f"{stem}{suffix}")
    sequence = open_frames(folder)
    assert len(sequence) == len(list(folder.iterdir()))
    assert len({name.casefold() for name in names(sequence)}) == len(sequence)


def test_hidden_files_and_sessions_are_left_out(tmp_path, write_image):
    write_image(tmp_path / "a.png")
    for name in ("._a.png", ".cache/x.png", "__MACOSX/a.png", "a.microaunet/thumbnail.png"):
        write_image(tmp_path / name)
    assert names(open_frames(tmp_path)) == ["a"]


def test_bad_files_are_listed_and_the_rest_is_read(tmp_path, write_image):
    good = write_image(tmp_path / "2.png", size=(30, 40))
    write_image(tmp_path / "4.png", size=(10, 10))
    (tmp_path / "1.jpg").write_bytes(b"")
    (tmp_path / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    (tmp_path / "5.png").symlink_to(tmp_path / "gone")
    sequence = open_frames(tmp_path)
    assert names(sequence) == ["1", "2", "3", "4", "5"]
    assert sequence.problems.keys() == {0, 2, 4}
    assert sequence.problems[0] == "the file is empty"
    assert sequence.problems[4] == "the file is missing"
    assert (sequence.frames[0].height, sequence.frames[0].width) == (30, 40)
    np.testing.assert_array_equal(sequence.read(1), good)
    assert sequence.read(3).shape == (10, 10, 3)
    for index in sequence.problems:
        with pytest.raises(InputError, match=sequence.frames[index].source.name):
            sequence.read(index)


def test_opening_reads_headers_only(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "b.jpg").write_bytes(content[:2000])
    sequence = open_frames(tmp_path)
    assert sequence.problems == {}
    with pytest.raises(InputError, match="damaged or ends early"):
        sequence.read(1)
    assert list(sequence.problems) == [1]


def test_stack_in_a_folder_is_not_silently_its_first_page(tmp_path, write_image):
    write_image(tmp_path / "a.png")
    page = Image.new("RGB", (30, 20))
    page.save(tmp_path / "stack.tif", save_all=True, append_images=[page, page])
    sequence = open_frames(tmp_path)
    assert "several pages" in sequence.problems[1]


def test_links(tmp_path, write_image):
    pixels = write_image(tmp_path / "archive" / "a.png")
    folder = tmp_path / "picked"
    folder.mkdir()
    (folder / "chosen.png").symlink_to(tmp_path / "archive" / "a.png")
    (folder / "round").symlink_to(folder)
    (folder / "all").symlink_to(tmp_path / "archive")
    sequence = open_frames(folder)
    assert names(sequence) == ["all/a", "chosen"]
    np.testing.assert_array_equal(sequence.read(0), pixels)


def refusal(path):
    with pytest.raises(InputError) as error:
        open_frames(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_missing_path(tmp_path):
    assert "does not exist" in refusal(tmp_path / "nowhere")


def test_empty_folder(tmp_path):
    (tmp_path / "notes.txt").write_text("no frames")
    assert "holds no images" in refusal(tmp_path)


def test_a_folder_that_may_not_be_listed_is_left_out(tmp_path, write_image, monkeypatch, caplog):
    write_image(tmp_path / "a.png")
    (tmp_path / "lost+found").mkdir()
    listed = Path.iterdir

    def iterdir(folder):  # permissions do not bind those who may do anything
        if folder.name == "lost+found":
            raise PermissionError(13, "Permission denied", str(folder))
        return listed(folder)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    assert holds_images(tmp_path)
    assert names(open_frames(tmp_path)) == ["a"]
    assert "lost+found" in caplog.text
    assert not holds_images(tmp_path / "lost+found")
    assert "you may read" in refusal(tmp_path / "lost+found")


def test_folder_of_bad_files_only(tmp_path):
    for name in ("a.png", "b.jpg"):
        (tmp_path / name).write_bytes(b"")
    assert "None of the 2 image files" in refusal(tmp_path)


def test_unknown_type_of_file(tmp_path):
    (tmp_path / "notes.docx").write_text("no frames")
    assert "a video" in refusal(tmp_path / "notes.docx")


def test_list_of_images(tmp_path, write_image):
    paths = [tmp_path / f"{name}.png" for name in ("b10", "b9", "a")]
    for path in paths:
        write_image(path)
    sequence = open_frames(paths[:2])
    assert names(sequence) == ["b9", "b10"]
    assert sequence.name == tmp_path.name


class TestRealFrames:
    def test_kvasir(self, data):
        sequence = open_frames(data / "kvasir-seg")
        assert len(sequence) == 800
        assert sequence.problems == {}
        assert sequence.canvas_shape == (1072, 1920)
        for index in range(0, 800, 80):
            frame, mask = sequence.read(index), sequence.read_mask(index)
            assert frame.shape[:2] == mask.shape
            assert set(np.unique(mask)) == {0, 1}
            assert 0.001 < mask.mean() < 0.9

    def test_cvc(self, data):
        sequence = open_frames(data / "cvc-clinicdb")
        assert names(sequence)[:3] == ["1", "2", "3"]
        assert all((f.height, f.width) == (288, 384) for f in sequence.frames)
        # Some are white with stray grays from 6 to 20, which are neither polyps nor to ignore.
        for index, frame in enumerate(sequence.frames):
            with Image.open(data / "cvc-clinicdb" / "masks" / f"{frame.name}.png") as image:
                drawn = np.asarray(image.convert("L")) > 127
            np.testing.assert_array_equal(sequence.read_mask(index), drawn, frame.name)

    def test_polypgen(self, data):
        sequence = open_frames(data / "polypgen" / "negative")
        assert len(sequence) == 500
        assert names(sequence)[:2] == ["seq1/seq1_img1", "seq1/seq1_img2"]
        assert not sequence.has_masks
