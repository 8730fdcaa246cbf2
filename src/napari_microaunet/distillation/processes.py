"""The device of a training, and the processes that share it, on Lightning Fabric."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy

from napari_microaunet.errors import InputError
from napari_microaunet.prelabel.backends import torch_device

if TYPE_CHECKING:
    from napari_microaunet.distillation.recipe import BatchSettings


def start_fabric(device: str) -> Fabric:
    """Set up the device, and the other processes where ``torchrun`` has started some.

    Parameters
    ----------
    device : str
        "auto", "cpu", "cuda", "cuda:1", "mps".

    Raises
    ------
    InputError
        If there is no such device.
    """
    kind, _, number = torch_device(device).partition(":")
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    # Not where it is emulated, which is slower than single precision.
    bfloat16 = kind == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    fabric = Fabric(
        accelerator=kind,
        devices=[int(number)] if number and kind != "cpu" else here,
        num_nodes=processes // here,
        # The adapters have no part in the second stage, the projection none in the first.
        strategy=DDPStrategy(find_unused_parameters=True) if processes > 1 else "auto",
        precision="bf16-mixed" if bfloat16 else "32-true",
    )
    fabric.launch()
    return fabric


def count_chunks(batch: BatchSettings, processes: int) -> int:
    """Return in how many parts a step is computed: as many for every process.

    Raises
    ------
    InputError
        If there are more processes than frames in a batch.
    """
    size = batch.size
    chunks = math.ceil(size / (batch.chunk * processes)) * processes
    if chunks > size:
        raise InputError(
            f"A batch of {size} frames cannot be shared by {processes} processes; choose a "
            "larger batch.size in the recipe, or fewer processes."
        )
    return chunks
