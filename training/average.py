"""Average the weights of a run with those of the run that it started from.

``python training/average.py FIRST SECOND OUT``. Runs that share their beginning lie in one
valley of the loss, and the middle of two is often better than either (model soups: Wortsman et
al. 2022, arXiv 2203.05482). OUT becomes a run folder like that of SECOND, whose recipe, metrics
and curves it keeps, with the averaged weights as those that it kept.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import torch

from napari_microaunet.networks.checkpoint import load_checkpoint, save_checkpoint


def main(first: Path, second: Path, out: Path) -> None:
    """Write the averaged run."""
    one, _ = load_checkpoint(first / "model.safetensors")
    network, card = load_checkpoint(second / "kept.safetensors")
    others = one.state_dict()
    middle = {
        name: torch.lerp(others[name].float(), value.float(), 0.5).to(value.dtype)
        for name, value in network.state_dict().items()
    }
    network.load_state_dict(middle)
    part = out.with_name(f"{out.name}.part")
    shutil.copytree(second, part, dirs_exist_ok=True)
    for name in ("kept", "model"):
        save_checkpoint(part / f"{name}.safetensors", network, card)
    part.rename(out)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
