"""ONNX graphs of models, for ONNX Runtime.

A graph belongs to one set of weights: the weights' hash is in its file name. The
bundled models bring theirs along; those of other models are made once and kept in the
platform's cache folder.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from importlib.metadata import version
from typing import TYPE_CHECKING

from platformdirs import user_cache_path

from napari_microaunet.atomic import replacing
from napari_microaunet.networks.checkpoint import CARD_KEY, load_checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import nn

    from napari_microaunet.networks.library import Model


def onnx_file(model: Model) -> Path:
    """Return the ONNX graph of ``model``; make it if there is none yet.

    The graph maps ``image``, normalised float32 (batch, 3, height, width), to ``logits``,
    float32 (batch, 1, height, width), for any batch and any sides of at least 32.

    Raises
    ------
    InputError
        If the checkpoint cannot be used.
    """
    bundled = graph_beside(model)
    if bundled.is_file():
        return bundled
    # Another version of the package may write another graph for the same weights.
    # Named by the weights alone: a model that is renamed keeps its graph.
    graph = _cache() / version("napari-microaunet") / f"{model.card.sha256}.onnx"
    if not graph.is_file():
        network, _ = load_checkpoint(model.path)
        graph.parent.mkdir(parents=True, exist_ok=True)
        export_onnx(network, graph)
    return graph


def graph_with_card(model: Model) -> bytes:
    """Return the ONNX graph of ``model`` for use elsewhere.

    Its metadata hold the model card as ``model_card``, JSON: whoever runs the graph needs the
    input size, the normalisation and the threshold.

    Raises
    ------
    InputError
        If the checkpoint cannot be used.
    """
    import onnx

    graph = onnx.load(onnx_file(model))
    onnx.helper.set_model_props(graph, {CARD_KEY: model.card.model_dump_json()})
    content: bytes = graph.SerializeToString()
    return content


def forget_graphs(sha256: str) -> None:
    """Delete the graphs that were made of weights, given by their hash: they hold them, too."""
    for graph in _cache().glob(f"*/{sha256}.onnx"):
        # Another program may be using it; a cache is no reason to fail.
        with contextlib.suppress(OSError):
            graph.unlink()


def graph_beside(model: Model) -> Path:
    """Return where the graph of ``model`` lies if it was bundled with it."""
    return model.path.with_name(f"{model.path.stem}-{model.card.sha256[:16]}.onnx")


def export_onnx(network: nn.Module, path: Path) -> None:
    """Write ``network`` as an ONNX graph with dynamic batch, height and width, atomically."""
    import torch

    # Sides that are not multiples of each other: equal ones would be taken for one variable. The
    # graph runs from 32 pixels on; from 64 on the deepest features have more than one, without
    # which the tracer would fix that size.
    example = torch.zeros(2, 3, 96, 160)
    sides = {
        0: torch.export.Dim("batch"),
        2: torch.export.Dim("height", min=64),
        3: torch.export.Dim("width", min=64),
    }
    with _quiet():
        traced = torch.export.export(
            network.eval(),
            (example,),
            dynamic_shapes=(sides,),
            prefer_deferred_runtime_asserts_over_guards=True,
        )
        program = torch.onnx.export(
            traced,
            dynamo=True,
            input_names=["image"],
            output_names=["logits"],
            verbose=False,
        )
        assert program is not None  # noqa: S101 - what the dynamo exporter returns, for mypy
        for node in program.model.graph:
            node.metadata_props.clear()  # stack traces of the export, larger than the weights
    with replacing(path) as file:
        file.write(program.model_proto.SerializeToString())


def _cache() -> Path:
    return user_cache_path("napari-microaunet", appauthor=False)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's chatter from users' terminals."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
