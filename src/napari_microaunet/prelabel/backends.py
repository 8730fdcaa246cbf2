"""What runs a network: ONNX Runtime on the CPU, PyTorch on everything else.

A backend is one class and one line in `BACKENDS`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

import numpy as np
from scipy.special import expit

from napari_microaunet.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_microaunet.networks.library import Model


class Backend(Protocol):
    """Something that runs a model on prepared frames. Calls from several threads are safe.

    Attributes
    ----------
    name : str
        Its key in `BACKENDS`.
    device : str
        Where it runs, as PyTorch names it.
    batch : int
        How many frames per call use the device best.
    simultaneous : int
        How many calls at once use the device best.
    """

    name: str
    device: str
    batch: int
    simultaneous: int

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute the probability of "polyp".

        Parameters
        ----------
        batch : float32 array, shape (B, 3, h, w)
            Prepared frames.

        Returns
        -------
        float32 array, shape (B, h, w)
            Probabilities in [0, 1].
        """
        ...


class OnnxBackend:
    """ONNX Runtime on the CPU; PyTorch is not even imported.

    Parameters
    ----------
    model : Model
        Its ONNX graph is bundled, or made once and kept.
    device : {"auto", "cpu"}
        ONNX Runtime serves the CPU here.
    threads : int, optional
        How many cores one call of `run` uses. One by default: for networks of this
        size several calls at once use the cores better than one call on all of them.
    """

    name = "onnx"
    device = "cpu"
    batch = 1

    def __init__(self, model: Model, device: str = "auto", threads: int | None = None) -> None:
        import onnxruntime

        from napari_microaunet.networks.checkpoint import read_weights
        from napari_microaunet.networks.onnx_export import onnx_file

        if device not in ("auto", "cpu"):
            raise InputError(
                f'The onnx backend runs on the CPU and cannot use "{device}": '
                "choose the backend torch for it."
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 1
        # Threads that spin while they wait would take the cores that decode the next frames.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.simultaneous = max(1, (os.cpu_count() or 1) // options.intra_op_num_threads)
        read_weights(model.path, model.card)  # a graph is of the weights that the card speaks of
        graph = onnx_file(model)
        try:
            self._session = onnxruntime.InferenceSession(
                str(graph), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its errors have no base class of their own
            raise InputError(
                f"{graph} is no graph that ONNX Runtime can use ({str(error)[:200]}); delete it, "
                "or choose the backend torch."
            ) from error

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute the probability of "polyp"; see `Backend.run`."""
        (logits,) = self._session.run(["logits"], {"image": batch})
        return np.asarray(expit(logits[:, 0]), np.float32)


class TorchBackend:
    """PyTorch, the reference: on the CPU, an NVIDIA card (CUDA) or an Apple one (MPS).

    Parameters
    ----------
    model : Model
        Its checkpoint is loaded.
    device : str
        "auto" takes the graphics card where there is one; otherwise a device
        as PyTorch names it: "cpu", "cuda", "cuda:1", "mps".
    threads : int, optional
        How many cores PyTorch uses, in the whole process; its own choice by default.
    """

    name = "torch"
    simultaneous = 1

    def __init__(self, model: Model, device: str = "auto", threads: int | None = None) -> None:
        import torch

        from napari_microaunet.networks.checkpoint import load_checkpoint

        self.device = torch_device(device)
        self.batch = 1 if self.device == "cpu" else 16
        if threads is not None:
            torch.set_num_threads(threads)
        self._module = load_checkpoint(model.path)[0].to(self.device)

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute the probability of "polyp"; see `Backend.run`."""
        import torch

        try:
            with torch.inference_mode():
                logits = self._module(torch.from_numpy(batch).to(self.device))
                found: NDArray[np.float32] = torch.sigmoid(logits[:, 0]).float().cpu().numpy()
                return found
        except torch.OutOfMemoryError as error:
            if len(batch) == 1:
                raise InputError(
                    f"The memory of {self.device} is full with one frame at a time: close other "
                    "programs that use it, or choose the device cpu."
                ) from error
        # Out of the handler, which keeps alive what filled the memory.
        torch.cuda.empty_cache()
        half = len(batch) // 2
        return np.concatenate([self.run(batch[:half]), self.run(batch[half:])])


def torch_device(device: str) -> str:
    """Resolve "auto" and refuse a device that is not there.

    Parameters
    ----------
    device : str
        "auto" or a device as PyTorch names it: "cpu", "cuda", "cuda:1", "mps".

    Returns
    -------
    str
        The device as PyTorch names it.

    Raises
    ------
    InputError
        If this machine has no such device.
    """
    import torch

    present = {"cpu": True}
    present["cuda"] = torch.cuda.is_available()
    present["mps"] = torch.backends.mps.is_available()
    if device == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if present[name])
    try:
        asked = torch.device(device)
    except RuntimeError:
        is_here = False  # PyTorch cannot even read it
    else:
        beyond = asked.type == "cuda" and (asked.index or 0) >= torch.cuda.device_count()
        is_here = present.get(asked.type, False) and not beyond
    if not is_here:
        here = ", ".join(name for name, is_present in present.items() if is_present)
        raise InputError(f'There is no device "{device}" on this machine: choose one of {here}.')
    return device


BACKENDS: dict[str, Callable[[Model, str, int | None], Backend]] = {
    "onnx": OnnxBackend,
    "torch": TorchBackend,
}


def open_backend(
    model: Model, backend: str = "auto", device: str = "auto", threads: int | None = None
) -> Backend:
    """Make a model ready to run.

    Parameters
    ----------
    model : Model
        From the model library.
    backend : {"auto", "onnx", "torch"}
        "auto" is ONNX Runtime where the model's graph lies beside it, as with the bundled ones,
        and `device` asks for no graphics card; else PyTorch: making a graph takes half a minute.
    device : str
        "auto", "cpu", "cuda", "cuda:1", "mps".
    threads : int, optional
        How many cores one call of `run` uses; the backend's own choice by default.

    Returns
    -------
    Backend

    Raises
    ------
    InputError
        If the backend is unknown, or cannot use the device.
    """
    if backend == "auto":
        from napari_microaunet.networks.onnx_export import graph_beside

        has_graph = graph_beside(model).is_file()
        backend = "onnx" if has_graph and device in ("auto", "cpu") else "torch"
    if backend not in BACKENDS:
        raise InputError(
            f'There is no backend "{backend}": choose one of auto, {", ".join(BACKENDS)}.'
        )
    return BACKENDS[backend](model, device, threads)
