"""The networks, their checkpoints and model cards, and the library of models.

This module's table is the one place that names the networks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_microaunet.networks.segmentation_network import SegmentationNetwork

Network = Literal["microaunet", "malunet", "expert"]
"""Names under which model cards and recipes know the networks."""

NETWORKS: tuple[str, ...] = get_args(Network)


def build(network: str, widths: Sequence[int] | None = None) -> SegmentationNetwork:
    """Return an untrained network.

    Parameters
    ----------
    network : str
        One of ``NETWORKS``.
    widths : sequence of 6 ints, optional
        Channels of the stages; the network's own default where left out.

    Raises
    ------
    ValueError
        If there is no network of that name, or the widths do not suit it.
    """
    # PyTorch takes seconds to import, and listing models does not need it.
    from napari_microaunet.networks.expert import Expert
    from napari_microaunet.networks.malunet import MALUNet
    from napari_microaunet.networks.microaunet import MicroAUNet

    classes: dict[str, Callable[..., SegmentationNetwork]] = {
        "microaunet": MicroAUNet,
        "malunet": MALUNet,
        "expert": Expert,
    }
    if network not in classes:
        raise ValueError(f"there is no network named {network!r}; there are {', '.join(NETWORKS)}")
    return classes[network]() if widths is None else classes[network](widths)
