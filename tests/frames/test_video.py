from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numbered_frames import numbered_picture, read_number

from napari_microaunet.errors import InputError
from napari_microaunet.frames import open_frames
from napari_microaunet.frames import video as videos

UNEVEN_TIMES = np.cumsum(np.random.default_rng(0).integers(5, 120, 60)).tolist()
X265 = {"x265-params": "log-level=none"}
OPEN_X264 = {"x264-params": "open-gop=1:keyint=12:min-keyint=12:scenecut=0"}
OPEN_X265 = {"x265-params": "log-level=none:open-gop=1:bframes=4:keyint=12:min-keyint=12"}
REFRESH = {"x264-params": "intra-refresh=1:keyint=24"}

FILES = {
    "h264.mp4": ("libx264", {"b_frames": 3}),
    "h264.mov": ("libx264", {"b_frames": 3}),
    "h264.mkv": ("libx264", {"b_frames": 3, "times": UNEVEN_TIMES}),
    "uneven.mp4": ("libx264", {"b_frames": 3, "times": UNEVEN_TIMES}),
    "no_b_frames.mp4": ("libx264", {}),
    "short_groups.mp4": ("libx264", {"b_frames": 1, "key_every": 2}),
    "open_groups.mp4": ("libx264", {"b_frames": 3, "codec_options": OPEN_X264}),
    "open_groups.mkv": ("libx264", {"b_frames": 3, "codec_options": OPEN_X264}),
    "refresh.mkv": ("libx264", {"b_frames": 2, "codec_options": REFRESH}),
    "one_key_frame.mp4": ("libx264", {"b_frames": 2, "key_every": 1000}),
    "fragments.mp4": (
        "libx264",
        {"b_frames": 3, "container_options": {"movflags": "frag_keyframe+empty_moov"}},
    ),
    "no_seek_table.mkv": ("libx264", {"b_frames": 3, "container_options": {"live": "1"}}),
    "hevc.mp4": ("libx265", {"codec_options": X265}),
    "hevc.mkv": ("libx265", {"codec_options": X265, "times": UNEVEN_TIMES}),
    "hevc_open_groups.mp4": ("libx265", {"codec_options": OPEN_X265}),
    "mpeg4.mp4": ("mpeg4", {"b_frames": 2}),
    "mpeg4.mov": ("mpeg4", {}),
    "mjpeg.mov": ("mjpeg", {}),
    "mjpeg.avi": ("mjpeg", {}),
    "mpeg4.avi": ("mpeg4", {}),
    # AVI keeps no times, and those that FFmpeg makes up for B-frames are wrong.
    "mpeg4_b_frames.avi": ("mpeg4", {"b_frames": 2}),
    "h264_b_frames.avi": ("libx264", {"b_frames": 3}),
    "h264_open_groups.avi": ("libx264", {"b_frames": 3, "codec_options": OPEN_X264}),
}


@pytest.fixture(scope="session")
def video(tmp_path_factory, make_video):
    """Make a file of the table, once, and give it with all its frames decoded in sequence."""
    folder = tmp_path_factory.mktemp("videos")
    made = {}

    def get(name):
        if name not in made:
            codec, options = FILES[name]
            path = make_video(folder / name, codec, **options)
            made[name] = path, decoded_in_sequence(path)
        return made[name]

    return get


def decoded_in_sequence(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def assert_same(sequence, index, expected):
    np.testing.assert_array_equal(sequence.read(index), expected[index], f"frame {index}")


@pytest.mark.parametrize("name", FILES)
def test_every_frame_is_the_one_of_decoding_in_sequence(video, name):
    path, expected = video(name)
    assert [read_number(frame) for frame in expected] == list(range(60))
    shuffled = random.Random(0).sample(range(60), 60)
    for order in (shuffled, range(60), range(59, -1, -1)):
        sequence = open_frames(path)
        assert len(sequence) == 60
        for index in order:
            assert_same(sequence, index, expected)
        assert sequence.problems == {}


@settings(max_examples=30, deadline=None)
@given(order=st.lists(st.integers(0, 59), min_size=1, max_size=12))
@pytest.mark.parametrize("name", ["h264.mkv", "hevc_open_groups.mp4", "h264_open_groups.avi"])
def test_any_order_of_reading(video, name, order):
    path, expected = video(name)
    sequence = open_frames(path)
    for index in order:
        assert_same(sequence, index, expected)


def test_many_threads_read_one_video(video):
    path, expected = video("h264.mp4")
    sequence = open_frames(path)
    orders = [random.Random(seed).sample(range(60), 60) for seed in range(4)] + [range(60)] * 2

    def walk(order):
        for index in order:
            assert_same(sequence, index, expected)

    with ThreadPoolExecutor(len(orders)) as pool:
        list(pool.map(walk, orders))


@pytest.mark.parametrize("target", ["cut.mkv", "cut.mp4"])
@pytest.mark.parametrize(("name", "first"), [("h264.mp4", 17), ("open_groups.mp4", 9)])
def test_cut_without_encoding_again(video, tmp_path, name, first, target):
    """Players hide what comes before the first key frame that is left; so do we."""
    path, _ = video(name)
    with av.open(str(path)) as whole, av.open(str(tmp_path / target), "w") as cut:
        stream = whole.streams.video[0]
        copy = cut.add_stream_from_template(stream)
        packets = [packet for packet in whole.demux(stream) if packet.size]
        for packet in packets[first:]:
            packet.stream = copy
            cut.mux(packet)
    expected = decoded_in_sequence(tmp_path / target)
    sequence = open_frames(tmp_path / target)
    assert len(sequence) == len(expected) > 30
    for index in random.Random(1).sample(range(len(expected)), len(expected)):
        assert_same(sequence, index, expected)


def test_names_and_sizes(video):
    path, _ = video("h264.mp4")
    sequence = open_frames(path)
    assert sequence.name == "h264"
    assert sequence.frames[7].name == "h264_000007"
    assert all((f.source, f.height, f.width) == (path, 96, 128) for f in sequence.frames)
    assert sequence.canvas_shape == (96, 128)
    assert sequence.read(0).dtype == np.uint8
    assert not sequence.has_masks
    assert sequence.read_mask(3) is None


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_video_is_turned_as_players_turn_it(tmp_path, make_video, rotation):
    path = make_video(tmp_path / "turned.mp4", "libx264", frames=3, rotation=rotation)
    # The display matrix turns counter-clockwise.
    expected = np.rot90(numbered_picture(1), rotation // 90)
    frame = open_frames(path).read(1)
    assert frame.shape == expected.shape
    assert np.abs(frame.astype(int) - expected).mean() < 12


def test_field_of_view_of_a_video(tmp_path):
    path = tmp_path / "scope.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for brightness in range(60, 200, 5):
            picture = np.zeros((240, 320, 3), np.uint8)
            picture[20:220, 80:300] = (brightness, brightness // 2, brightness // 3)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode())
    assert open_frames(path).field_of_view(5) == pytest.approx((20, 80, 220, 300), abs=4)


def test_truncated_recording_shows_what_is_there(video, tmp_path):
    path, expected = video("h264.mkv")
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    sequence = open_frames(cut)
    assert 20 < len(sequence) < 60
    for index in range(len(sequence)):
        with suppress(InputError):
            assert_same(sequence, index, expected)
    # The last packet may be cut in two.
    assert len(sequence.problems) <= 2


def test_damage_in_the_middle_leaves_the_rest(video, tmp_path):
    path, expected = video("h264.mp4")
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    keys = [number for number, packet in enumerate(packets) if packet.is_keyframe]
    start, end = packets[keys[2]].pos, packets[keys[3]].pos
    content[start:end] = bytes(end - start)
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(content)
    sequence = open_frames(damaged)
    good = set()
    for index in random.Random(0).sample(range(60), 60):
        with suppress(InputError):
            if np.array_equal(sequence.read(index), expected[index]):
                good.add(index)
    assert good >= {*range(keys[2] - 3), *range(keys[3], 60)}
    assert sequence.problems.keys() <= set(range(keys[2] - 3, keys[3]))
    assert sequence.problems


def test_field_of_view_where_key_frames_are_not_known(video, tmp_path):
    path, _ = video("mpeg4_b_frames.avi")
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        key = next(container.demux(video=0))
    content[key.pos : key.pos + key.size] = bytes(key.size)
    (tmp_path / "damaged.avi").write_bytes(content)
    assert open_frames(tmp_path / "damaged.avi").field_of_view(0) == (0, 0, 96, 128)


def test_a_damaged_first_frame_leaves_the_others(tmp_path, make_video):
    path = make_video(tmp_path / "clip.avi", "mjpeg", frames=20)
    expected = decoded_in_sequence(path)
    with av.open(str(path)) as container:
        first = next(container.demux(video=0))
    content = bytearray(path.read_bytes())
    content[first.pos + 2 : first.pos + first.size] = bytes(first.size - 2)
    path.write_bytes(content)
    sequence = open_frames(path)
    for index in range(1, 20):
        assert_same(sequence, index, expected)
    with pytest.raises(InputError, match="damaged"):
        sequence.read(0)
    assert sequence.problems.keys() == {0}


def refusal(path):
    with pytest.raises(InputError) as error:
        open_frames(path)
    message = str(error.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_missing_index(video, tmp_path):
    path, _ = video("h264.mp4")
    cut = tmp_path / "recording.mp4"
    cut.write_bytes(path.read_bytes()[:2000])
    assert "damaged" in refusal(cut)


@pytest.mark.parametrize("content", [b"", b"no video at all" * 100])
@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv"])
def test_no_video(tmp_path, content, suffix):
    path = tmp_path / f"notes{suffix}"
    path.write_bytes(content)
    refusal(path)


def test_unsupported_codec(video, tmp_path):
    path, _ = video("mjpeg.avi")
    unknown = tmp_path / "unknown.avi"
    unknown.write_bytes(path.read_bytes().replace(b"MJPG", b"ZZQZ"))
    assert "codec" in refusal(unknown)


def test_sound_without_pictures(tmp_path):
    path = tmp_path / "dictation.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        sound.sample_rate = 48000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    assert "no pictures" in refusal(path)


def test_notes_in_the_file_that_are_no_unicode(video, tmp_path):
    path, expected = video("h264.mp4")
    content = path.read_bytes()
    assert b"Lavf" in content
    (tmp_path / "notes.mp4").write_bytes(content.replace(b"Lavf", b"L\xe9vf"))
    assert_same(open_frames(tmp_path / "notes.mp4"), 5, expected)


@given(
    changes=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=4)), max_size=5),
    length=st.floats(0.2, 1),
)
@settings(max_examples=40, deadline=None)
@pytest.mark.parametrize("name", ["h264.mp4", "mpeg4.mov", "h264_b_frames.avi"])
def test_any_damage_gives_a_reason(video, tmp_path_factory, name, changes, length):
    path, _ = video(name)
    content = bytearray(path.read_bytes())
    for place, junk in changes:
        start = int(place * (len(content) - 4))
        content[start : start + len(junk)] = junk
    damaged = tmp_path_factory.mktemp("damaged") / name
    damaged.write_bytes(content[: int(length * len(content))])
    with suppress(InputError):
        sequence = open_frames(damaged)
        for index in (len(sequence) - 1, 0, len(sequence) // 2):
            with suppress(InputError):
                assert sequence.read(index).shape == (*sequence.canvas_shape, 3)


def test_a_drive_that_is_lost_gives_a_reason(video, monkeypatch):
    path, expected = video("no_b_frames.mp4")
    sequence = open_frames(path)
    monkeypatch.setattr(videos, "_packets", lambda *_: iter(()))
    with pytest.raises(InputError, match="damaged there"):
        sequence.read(40)
    monkeypatch.undo()
    assert_same(sequence, 50, expected)  # the drive is back


def test_stepping_back_and_forth(video):
    path, expected = video("one_key_frame.mp4")
    sequence = open_frames(path)
    for first, second in pairwise([0, 30, 29, 31, 59, 58, 0, 59]):
        assert_same(sequence, first, expected)
        assert_same(sequence, second, expected)
