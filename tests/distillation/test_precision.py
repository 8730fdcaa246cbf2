"""How finely a device computes while a network learns."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from napari_microaunet.distillation import processes


@pytest.mark.parametrize(
    ("device", "native", "precision"),
    [
        ("cuda", True, "bf16-mixed"),
        ("cuda:1", True, "bf16-mixed"),
        ("cuda", False, "32-true"),
        ("cpu", True, "32-true"),
        ("mps", True, "32-true"),
    ],
)
def test_half_precision_is_for_graphics_cards_that_do_not_emulate_it(
    device: str, native: bool, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_supported(including_emulation: bool = True) -> bool:
        return native or including_emulation

    asked: dict[str, object] = {}

    def fabric(**options: object) -> SimpleNamespace:
        asked.update(options)
        return SimpleNamespace(launch=lambda: None)

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    monkeypatch.setattr(processes, "torch_device", lambda name: name)
    monkeypatch.setattr(processes, "Fabric", fabric)
    processes.start_fabric(device)
    assert asked["accelerator"] == device.partition(":")[0]
    assert asked["precision"] == precision
