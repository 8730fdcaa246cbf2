from __future__ import annotations

import pytest
import torch

from napari_microaunet import networks
from napari_microaunet.networks import microaunet
from napari_microaunet.networks.checkpoint import ModelCard, save_checkpoint
from napari_microaunet.networks.library import Model, user_models


@pytest.fixture(scope="session", autouse=True)
def own_folders(tmp_path_factory):
    """Keep the user's models and the cache of ONNX graphs out of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("XDG_DATA_HOME", "XDG_CACHE_HOME"):
            patch.setenv(variable, str(tmp_path_factory.mktemp(variable)))
        yield


@pytest.fixture(scope="session")
def untrained_model(own_folders):
    """A student with random weights in the user's library; it marks a fifth of a smooth image."""
    torch.manual_seed(1)
    network = networks.build("microaunet")
    smooth = torch.nn.functional.interpolate(torch.randn(4, 3, 9, 9), 128, mode="bicubic")
    with torch.no_grad():
        # Running statistics of real activations: with the initial ones the output is flat.
        for _ in range(30):
            network(smooth)
        threshold = network.eval()(smooth).sigmoid().quantile(0.8).item()
    path = user_models() / "untrained.safetensors"
    path.parent.mkdir(parents=True)
    card = ModelCard(
        name="untrained", network="microaunet", widths=microaunet.WIDTHS, threshold=threshold
    )
    return Model("untrained", path, save_checkpoint(path, network, card))
