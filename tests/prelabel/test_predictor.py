from __future__ import annotations

import shutil
import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image

from napari_microaunet.errors import InputError
from napari_microaunet.frames import FieldOfView, Frame, FrameSequence, open_frames
from napari_microaunet.networks.checkpoint import load_checkpoint, save_checkpoint
from napari_microaunet.networks.library import find_model
from napari_microaunet.networks.onnx_export import graph_beside
from napari_microaunet.prelabel.backends import open_backend, torch_device
from napari_microaunet.prelabel.predictor import Predictor


class GeneratedFrames(FrameSequence):
    """Frames made when they are read; remembers which were."""

    def __init__(self, folder, make_frame, count, delay=0.0):
        frames = [Frame(f"frame {i}", folder / f"{i}.png", 90, 120) for i in range(count)]
        super().__init__(folder, "generated", frames)
        self.make_frame = make_frame
        self.reads = []
        self.delay = delay

    def field_of_view(self, index):  # noqa: ARG002
        return FieldOfView(0, 0, 90, 120)

    def _decode(self, index):
        self.reads.append(index)
        time.sleep(self.delay)
        return self.make_frame(index)


@pytest.fixture(scope="module")
def predictor(model):
    return Predictor(model)


def test_predictions_come_in_the_order_asked_for_and_are_those_of_single_frames(
    predictor, make_frame, tmp_path
):
    sequence = GeneratedFrames(tmp_path, make_frame, 30)
    order = [7, 3, 29, 0, 4, 3]
    predictions = list(predictor.predict(sequence, order))
    assert [prediction.index for prediction in predictions] == order
    for prediction in predictions:
        alone = predictor.predict_frame(make_frame(prediction.index), FieldOfView(0, 0, 90, 120))
        np.testing.assert_array_equal(prediction.map.values, alone.values)
        assert prediction.map.frame_shape == (90, 120)
    assert len({prediction.map.values.tobytes() for prediction in predictions}) == 5


def test_progress_counts_every_frame_to_the_end(predictor, make_frame, tmp_path):
    told = []
    sequence = GeneratedFrames(tmp_path, make_frame, 11)
    for _ in predictor.predict(sequence, progress=lambda done, total: told.append((done, total))):
        pass
    assert told == [(done, 11) for done in range(1, 12)]


@pytest.mark.parametrize("batch", [1, 4, 64])
def test_a_frame_that_cannot_be_read_does_not_stop_the_rest(model, make_frame, tmp_path, batch):
    for i in range(7):
        Image.fromarray(make_frame(i, 60 + 10 * i, 80)).save(tmp_path / f"{i}.png")
    (tmp_path / "3.png").write_bytes(b"not an image")
    whole = (tmp_path / "5.png").read_bytes()
    (tmp_path / "5.png").write_bytes(whole[: len(whole) // 2])
    predictions = list(Predictor(model, batch=batch).predict(open_frames(tmp_path)))
    assert [prediction.index for prediction in predictions] == list(range(7))
    assert [prediction.index for prediction in predictions if prediction.problem] == [3, 5]
    for prediction in predictions:
        if prediction.problem:
            assert prediction.map is None
            assert f"{prediction.index}.png" in prediction.problem
        else:
            assert prediction.map.frame_shape == (60 + 10 * prediction.index, 80)


def test_only_a_few_frames_are_read_ahead_of_a_slow_user(predictor, make_frame, tmp_path):
    sequence = GeneratedFrames(tmp_path, make_frame, 500)
    predictions = predictor.predict(sequence)
    for used in range(1, 4):
        next(predictions)
        time.sleep(0.3)
        assert len(sequence.reads) <= used + 64
    predictions.close()


def test_nothing_more_is_read_once_the_iterator_is_closed(predictor, make_frame, tmp_path):
    sequence = GeneratedFrames(tmp_path, make_frame, 500, delay=0.01)
    predictions = predictor.predict(sequence)
    next(predictions)
    predictions.close()
    time.sleep(0.3)
    read = len(sequence.reads)
    time.sleep(0.3)
    assert len(sequence.reads) == read < 100


def test_cancelling_ends_the_predictions_even_while_a_frame_is_being_read(
    predictor, make_frame, tmp_path
):
    sequence = GeneratedFrames(tmp_path, make_frame, 50, delay=5)
    cancelled = threading.Event()
    predictions = []
    user = threading.Thread(
        target=lambda: predictions.extend(predictor.predict(sequence, cancelled=cancelled.is_set))
    )
    user.start()
    cancelled.set()
    user.join(timeout=4)  # a read takes five seconds
    assert not user.is_alive()
    assert predictions == []


def test_cancelling_between_frames_ends_the_predictions_there(predictor, make_frame, tmp_path):
    told = []
    predictions = predictor.predict(
        GeneratedFrames(tmp_path, make_frame, 50),
        progress=lambda *counts: told.append(counts),
        cancelled=lambda: len(told) >= 3,
    )
    assert [prediction.index for prediction in predictions] == [0, 1, 2]


def test_onnx_runtime_and_pytorch_agree(model):
    batch = np.random.default_rng(0).normal(size=(3, 3, 64, 96)).astype(np.float32)
    onnx = open_backend(model, "onnx").run(batch)
    torch = open_backend(model, "torch", "cpu").run(batch)
    assert onnx.shape == torch.shape == (3, 64, 96)
    np.testing.assert_allclose(onnx, torch, atol=1e-3)


def test_a_model_of_ones_own_does_not_wait_for_a_graph(model, tmp_path):
    assert open_backend(model).name == "onnx"  # a graph lies beside it, as with the bundled ones
    own = shutil.copy(model.path, tmp_path / "own.safetensors")
    assert open_backend(find_model(str(own)), device="cpu").name == "torch"


def test_averaged_over_mirror_images_a_mirrored_frame_gives_the_mirrored_map(model, make_frame):
    frame = make_frame(0, 256, 256)
    field = FieldOfView(0, 0, 256, 256)
    plain = Predictor(model, mirror_images=0)
    for axis, images in ((1, 1), (0, 3), (1, 3)):
        averaged = Predictor(model, mirror_images=images)
        mirrored_frame = np.ascontiguousarray(np.flip(frame, axis))
        expected = np.flip(averaged.predict_frame(frame, field).values, axis).astype(int)
        found = averaged.predict_frame(mirrored_frame, field).values.astype(int)
        assert np.abs(found - expected).max() <= 1
        alone = np.flip(plain.predict_frame(frame, field).values, axis).astype(int)
        assert np.abs(plain.predict_frame(mirrored_frame, field).values - alone).max() > 1


def test_a_frame_has_no_two_mirror_images(model):
    with pytest.raises(InputError, match="1 or 3 mirror images"):
        Predictor(model, mirror_images=2)


def test_a_card_says_whether_a_model_averages_over_mirror_images(model, make_frame, tmp_path):
    network, card = load_checkpoint(model.path)
    own = tmp_path / "own.safetensors"
    save_checkpoint(own, network, card.model_copy(update={"mirror_images": 3}))
    frame, field = make_frame(0, 256, 256), FieldOfView(0, 0, 256, 256)

    def values(of, **how):
        return Predictor(of, backend="torch", **how).predict_frame(frame, field).values

    found = find_model(str(own))
    np.testing.assert_array_equal(values(found), values(model, mirror_images=3))
    np.testing.assert_array_equal(values(found, mirror_images=0), values(model, mirror_images=0))


@pytest.mark.parametrize(
    ("choice", "named"),
    [
        ({"backend": "tensorflow"}, "tensorflow"),
        ({"backend": "onnx", "device": "cuda"}, "cuda"),
        ({"backend": "torch", "device": "abacus"}, "abacus"),
        ({"backend": "torch", "device": "cpu:x"}, "cpu:x"),
        ({"batch": 0}, "0"),
    ],
)
def test_what_cannot_run_is_refused_by_name(model, choice, named):
    with pytest.raises(InputError, match=named):
        Predictor(model, **choice)


def test_no_frames_give_no_predictions(predictor, make_frame, tmp_path):
    assert list(predictor.predict(GeneratedFrames(tmp_path, make_frame, 3), [])) == []


@pytest.mark.parametrize("device", ["cpu:", "cuda:", "cuda:01", "cuda:99", "quantum", ""])
def test_a_device_that_is_not_there_is_refused_by_name(device):
    with pytest.raises(InputError, match=f'no device "{device}" on this machine'):
        torch_device(device)


def test_weights_that_are_not_the_cards_are_refused_also_where_a_graph_lies_beside_them(tmp_path):
    student = find_model("student")
    content = bytearray(student.path.read_bytes())
    content[-1] ^= 1
    (tmp_path / "student.safetensors").write_bytes(content)
    shutil.copy(graph_beside(student), tmp_path)
    with pytest.raises(InputError, match="their hash differs"):
        Predictor(find_model(str(tmp_path / "student.safetensors")))


def test_a_graph_that_is_none_is_named(tmp_path):
    shutil.copy(find_model("student").path, tmp_path)
    model = find_model(str(tmp_path / "student.safetensors"))
    graph_beside(model).write_bytes(b"no graph")
    with pytest.raises(InputError, match=f"{graph_beside(model)} is no graph"):
        Predictor(model)


def test_a_full_graphics_card_is_tried_with_fewer_frames_at_once(model, monkeypatch):
    backend = open_backend(model, "torch", "cpu")
    frames = np.random.default_rng(1).random((3, 3, 64, 64), np.float32)
    expected = backend.run(frames)
    network, room = backend._module, 1

    def nearly_full(batch):
        if len(batch) > room:
            raise torch.OutOfMemoryError
        return network(batch)

    monkeypatch.setattr(backend, "_module", nearly_full)
    np.testing.assert_allclose(backend.run(frames), expected, atol=1e-6)
    room = 0
    with pytest.raises(InputError, match=r"is full with one frame at a time.*device cpu"):
        backend.run(frames)
