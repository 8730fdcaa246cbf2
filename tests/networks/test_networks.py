"""The networks: budgets, shapes, gradients and their ONNX graphs."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from napari_microaunet.networks import NETWORKS, build
from napari_microaunet.networks.checkpoint import load_checkpoint
from napari_microaunet.networks.expert import LITE0_WIDTHS, LITE2_WIDTHS
from napari_microaunet.networks.library import BUNDLED_NAMES, find_model
from napari_microaunet.networks.microaunet import PUBLISHED_WIDTHS
from napari_microaunet.networks.onnx_export import export_onnx, graph_beside
from napari_microaunet.prelabel.bench import student_as_published

# arXiv 2511.01143: 0.0249 M parameters, 0.148 G multiply-adds at 256x256.
MOST_PARAMETERS, MOST_MULTIPLY_ADDS = 24_900, 0.148e9


def parameters(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def test_student_is_inside_the_papers_budget() -> None:
    network = build("microaunet").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 3, 256, 256))
    assert parameters(network) <= MOST_PARAMETERS
    assert counter.get_total_flops() / 2 <= MOST_MULTIPLY_ADDS


def test_student_can_be_built_at_the_public_widths() -> None:
    # The public code counts 84,281; its fully connected layer is not factored.
    assert parameters(build("microaunet", PUBLISHED_WIDTHS)) > 60_000


def test_teacher_has_its_published_size() -> None:
    assert parameters(build("malunet")) == pytest.approx(0.175e6, rel=0.02)


@pytest.mark.parametrize(
    # As timm counts efficientnet_lite0 and efficientnet_lite2.
    ("widths", "published"),
    [(LITE0_WIDTHS, 4_652_008), (LITE2_WIDTHS, 6_092_072)],
)
def test_expert_encoder_is_an_efficientnet_lite(widths: tuple[int, ...], published: int) -> None:
    # The last convolution, its norm and the classifier are of no use to a U-Net.
    head = widths[-1] * 1280 + 2 * 1280 + 1280 * 1000 + 1000
    assert parameters(build("expert", widths).encoder) == published - head


def test_expert_has_its_stated_size() -> None:
    assert parameters(build("expert")) == 4_445_665


@pytest.mark.parametrize("network", NETWORKS)
def test_skips_have_the_stated_widths_and_sizes(network: str) -> None:
    model = build(network).eval()
    features = model.encode(torch.zeros(1, 3, 96, 64))
    skips = [tuple(skip.shape[1:]) for skip in features[:5]]
    assert skips == [
        (width, 96 // 2**level, 64 // 2**level) for level, width in enumerate(model.skip_widths, 1)
    ]
    assert model.decode(features).shape == (1, model.decoded_width, 48, 32)


def test_unknown_network_is_named() -> None:
    with pytest.raises(ValueError, match="'unet'"):
        build("unet")


@pytest.mark.parametrize("network", NETWORKS)
@settings(max_examples=12, deadline=None)
@given(
    height=st.integers(32, 140),
    width=st.integers(32, 140),
    batch=st.integers(1, 2),
    training=st.booleans(),
)
def test_logits_have_the_size_of_the_frame(
    network: str, height: int, width: int, batch: int, training: bool
) -> None:
    if training:
        batch = 2  # a batch norm refuses the one pixel that the expert's deepest layer has left
    model = build(network).train(training)
    logits = model(torch.rand(batch, 3, height, width))
    assert logits.shape == (batch, 1, height, width)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("network", NETWORKS)
def test_constant_frames_give_finite_logits(network: str) -> None:
    assert torch.isfinite(build(network)(torch.zeros(1, 3, 64, 64))).all()


@pytest.mark.parametrize("network", NETWORKS)
def test_a_gradient_reaches_every_parameter(network: str) -> None:
    torch.manual_seed(0)
    model = build(network)
    model(torch.rand(2, 3, 96, 96)).square().mean().backward()
    # A bias just before a norm, or a pixel-constant one before a softmax over pixels, has none.
    without = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().sum() > 0
    ]
    assert without == []


@pytest.fixture(scope="module", params=BUNDLED_NAMES)
def graph(request):
    model = find_model(request.param)
    return load_checkpoint(model.path)[0], onnxruntime.InferenceSession(graph_beside(model))


SHAPES = [(1, 256, 256), (3, 32, 32), (2, 33, 250), (1, 131, 97)]


def assert_agree(network: torch.nn.Module, session, shape: tuple[int, int, int]) -> None:
    batch, height, width = shape
    frames = torch.rand(batch, 3, height, width) * 4 - 2
    with torch.no_grad():
        expected = torch.sigmoid(network(frames)).numpy()
    (logits,) = session.run(None, {"image": frames.numpy()})
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), expected, atol=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_onnx_runtime_and_pytorch_agree(graph, shape: tuple[int, int, int]) -> None:
    assert_agree(*graph, shape)


def test_a_graph_that_is_made_anew_agrees_too(tmp_path) -> None:
    torch.manual_seed(1)
    network = student_as_published().eval()  # its layers are not those of any bundled graph
    export_onnx(network, tmp_path / "graph.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "graph.onnx")
    for shape in SHAPES:
        assert_agree(network, session, shape)
