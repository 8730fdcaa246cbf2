from __future__ import annotations

import numpy as np
import pytest
import tifffile
from napari.utils import resize_dask_cache
from PIL import Image

from napari_microaunet.errors import InputError
from napari_microaunet.frames import FrameSequence, open_frames
from napari_microaunet.frames.masks import read_mask_file, write_mask_file
from napari_microaunet.widgets.napari_io import get_reader, spare_frames, write_labels

SIZES = {"img2": (30, 40), "img10": (50, 20), "img1": (20, 60)}
IN_ORDER = ["img1", "img2", "img10"]


@pytest.fixture
def folder(tmp_path):
    for name, (height, width) in SIZES.items():
        pixels = np.full((height, width, 3), len(name) * 20 + height, np.uint8)
        mask = np.zeros((height, width), np.uint8)
        mask[2:9, 3:12] = 255
        for kind, values in (("images", pixels), ("masks", mask)):
            (tmp_path / "set" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(tmp_path / "set" / kind / f"{name}.png")
    return tmp_path / "set"


def test_dragging_a_folder_with_masks_in_and_saving_the_labels(
    make_napari_viewer, folder, tmp_path
):
    viewer = make_napari_viewer(show=True)
    image, labels = viewer.open(folder, plugin="napari-microaunet")
    assert image.data.shape == (3, 50, 60, 3)
    assert labels.data.shape == (3, 50, 60)
    assert image.name == "set"
    assert viewer.dims.nsteps[0] == 3
    sequence = image.metadata["frame_sequence"]
    assert isinstance(sequence, FrameSequence)
    assert labels.metadata["frame_sequence"] is sequence

    viewer.dims.set_current_step(0, 1)
    screen = viewer.screenshot(canvas_only=True, flash=False)
    assert len(np.unique(screen.reshape(-1, 4), axis=0)) > 2
    labels.selected_label = 4
    labels.brush_size = 6
    labels.paint((1, 20, 20), 4)
    painted = np.asarray(labels.data[1])
    assert painted[20, 20] == 4

    files = labels.save(str(tmp_path / "saved.png"), plugin="napari-microaunet")
    assert [file.rsplit("/")[-1] for file in files] == [f"{name}.png" for name in IN_ORDER]
    for index, name in enumerate(IN_ORDER):
        mask = read_mask_file(tmp_path / "saved" / f"{name}.png")
        assert mask.shape == SIZES[name]
        assert (mask[2:9, 3:12] == 1).all()
        np.testing.assert_array_equal(mask, labels.data[index][: mask.shape[0], : mask.shape[1]])
    assert read_mask_file(tmp_path / "saved" / "img2.png")[20, 20] == 4
    # The masks beside the frames are as they were.
    assert sequence.read_mask(1)[20, 20] == 0


def test_saved_masks_are_found_beside_the_frames_again(make_napari_viewer, folder, tmp_path):
    viewer = make_napari_viewer()
    _, labels = viewer.open(folder, plugin="napari-microaunet")
    labels.data[0] = 0
    labels.data[2, 5:9, 5:9] = 255
    labels.save(str(tmp_path / "saved"), plugin="napari-microaunet")
    (folder / "masks").rename(tmp_path / "old masks")
    (tmp_path / "saved").rename(folder / "masks")
    _, again = viewer.open(folder, plugin="napari-microaunet")
    np.testing.assert_array_equal(np.asarray(again.data), np.asarray(labels.data))


def test_stack_of_labels(make_napari_viewer, folder, tmp_path):
    viewer = make_napari_viewer()
    _, labels = viewer.open(folder, plugin="napari-microaunet")
    labels.data[0, 5, 5] = 9
    labels.save(str(tmp_path / "saved.tif"), plugin="napari-microaunet")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "saved.tif"), np.asarray(labels.data))


@pytest.mark.parametrize("kind", ["clip.mp4", "stack.tif"])
def test_video_and_stack(make_napari_viewer, tmp_path, kind):
    frames = np.stack([np.full((48, 64, 3), value, np.uint8) for value in (30, 90, 150)])
    if kind == "stack.tif":
        tifffile.imwrite(tmp_path / kind, frames, photometric="rgb")
    else:
        import av

        with av.open(str(tmp_path / kind), "w") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
            container.mux(stream.encode())
    viewer = make_napari_viewer()
    (image,) = viewer.open(tmp_path / kind, plugin="napari-microaunet")
    assert image.data.shape == (3, 48, 64, 3)
    for index, frame in enumerate(frames):
        shown = np.asarray(image.data[index]).astype(int)
        assert np.abs(shown - frame).max() < 6


def test_bad_files_are_named_to_the_user(make_napari_viewer, folder, errors):
    (folder / "images" / "img3.png").write_bytes(b"")
    viewer = make_napari_viewer()
    image, labels = viewer.open(folder, plugin="napari-microaunet")
    (message,) = errors()
    assert "1 of 4 frames" in message
    assert "img3: the file is empty" in message
    assert image.data.shape[0] == 4
    assert np.asarray(image.data[2]).max() == 128
    assert labels.data[2].max() == 0


def test_stepping_does_not_fill_naparis_cache(make_napari_viewer, folder):
    viewer = make_napari_viewer()
    viewer.open(folder, plugin="napari-microaunet")
    for index in (0, 1, 2, 0):
        viewer.dims.set_current_step(0, index)
    assert resize_dask_cache().cache.total_bytes == 0


def test_what_the_reader_takes(folder, tmp_path):
    images = sorted(str(file) for file in (folder / "images").iterdir())
    (tmp_path / "nothing").mkdir()
    (tmp_path / "notes.txt").touch()
    assert get_reader(str(folder))
    assert get_reader(images[0])
    assert get_reader(images)
    assert get_reader(str(tmp_path / "clip.mkv"))
    assert get_reader(str(tmp_path / "nothing")) is None
    assert get_reader(str(tmp_path / "notes.txt")) is None
    assert get_reader([*images, str(tmp_path / "notes.txt")]) is None
    ((stack, attributes, kind),) = get_reader(images)(images)
    assert (stack.shape, kind) == ((3, 50, 60, 3), "image")
    assert attributes["rgb"]


class TestWriteLabels:
    def test_layer_that_is_not_ours(self, tmp_path):
        labels = np.arange(3, dtype=np.int64)[:, None, None] * np.ones((3, 8, 9), np.int64)
        files = write_labels(str(tmp_path / "made.png"), labels, {})
        assert len(files) == 3
        np.testing.assert_array_equal(
            read_mask_file(tmp_path / "made" / "made_000002.png"), labels[2]
        )

    def test_single_image(self, tmp_path):
        labels = np.eye(8, dtype=np.int32)
        path = str(tmp_path / "one.png")
        assert write_labels(path, labels, {"metadata": {}}) == [path]
        np.testing.assert_array_equal(read_mask_file(tmp_path / "one.png"), labels)

    def test_folder_that_is_there_is_not_touched(self, tmp_path):
        (tmp_path / "made").mkdir()
        (tmp_path / "made" / "mine.txt").write_text("keep")
        with pytest.raises(InputError, match="exists already"):
            write_labels(str(tmp_path / "made"), np.zeros((3, 8, 9), np.uint8), {})
        assert [file.name for file in tmp_path.rglob("*")] == ["made", "mine.txt"]

    def test_frames_are_not_written_over(self, tmp_path):
        picture = tmp_path / "a.png"
        Image.new("RGB", (9, 8)).save(picture)
        before = picture.read_bytes()
        meta = {"metadata": {"frame_sequence": open_frames(picture)}}
        with pytest.raises(InputError, match="never written to"):
            write_labels(str(picture), np.ones((8, 9), np.uint8), meta)
        assert picture.read_bytes() == before

    @pytest.mark.parametrize(
        ("name", "count"), [("new", 3), ("masks.tif", 3), ("new.png", 1), ("masks.png", 1)]
    )
    def test_nothing_is_written_that_would_be_taken_for_frames(self, folder, name, count):
        frames = folder / "images"
        sequence = open_frames(frames)
        meta = {"metadata": {"frame_sequence": sequence}}
        masks = np.ones((3, *sequence.canvas_shape), np.uint8)
        with pytest.raises(InputError, match="lies among the frames"):
            write_labels(str(frames / name), masks[:count], meta)
        assert len(list(frames.iterdir())) == 3
        # Masks in there are found by their folder's name.
        write_labels(str(frames / "masks.png"), masks, meta)
        assert len(open_frames(frames)) == 3

    def test_nothing_beside_a_stack_is_taken_for_more_of_its_frames(self, tmp_path):
        stack = tmp_path / "clip.tif"
        tifffile.imwrite(stack, np.zeros((3, 8, 9), np.uint8), photometric="minisblack")
        sequence = open_frames(stack)
        masks = [tmp_path / f"{frame.name}.png" for frame in sequence.frames]
        spare_frames(sequence, tmp_path, masks)
        for file in masks:
            write_mask_file(file, np.ones((8, 9), np.uint8))
        assert len(open_frames(stack)) == 3
        with pytest.raises(InputError, match="never written to"):
            spare_frames(sequence, tmp_path, [*masks, stack])

    @pytest.mark.parametrize(("name", "label"), [("a.png", 256), ("a.tif", 70_000), ("a.png", -1)])
    def test_labels_that_do_not_fit_leave_nothing_behind(self, tmp_path, name, label):
        labels = np.zeros((3, 8, 9), np.int32)
        labels[2, 1, 1] = label
        with pytest.raises(InputError, match="labels outside"):
            write_labels(str(tmp_path / name), labels, {})
        assert list(tmp_path.iterdir()) == []

    def test_many_labels_in_a_stack(self, tmp_path):
        labels = np.zeros((3, 8, 9), np.int32)
        labels[2, 1, 1] = 60_000
        write_labels(str(tmp_path / "a.tif"), labels, {})
        np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), labels)

    def test_names_with_folders_and_unreadable_frames(self, tmp_path):
        for name in ("case 3/1", "case 4/1"):
            (tmp_path / "in" / name).parent.mkdir(parents=True)
            Image.new("RGB", (9, 8)).save(tmp_path / "in" / f"{name}.png")
        (tmp_path / "in" / "bad.png").write_bytes(b"")
        sequence = open_frames(tmp_path / "in")
        labels = np.ones((3, 8, 9), np.uint8)
        files = write_labels(
            str(tmp_path / "out"), labels, {"metadata": {"frame_sequence": sequence}}
        )
        made = {
            str(file.relative_to(tmp_path / "out")) for file in (tmp_path / "out").rglob("*.png")
        }
        assert made == {"case 3/1.png", "case 4/1.png"}
        assert len(files) == 2
