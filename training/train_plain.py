"""Train one network on hard labels alone: the plain recipe behind the first bundled weights.

``python training/train_plain.py microaunet --minutes 90`` trains, writes a checkpoint every
epoch to ``training/runs/NETWORK/`` and goes on from there when started again. Loss: binary
cross-entropy + soft Dice on logits, both averaged over frames. Optimiser: AdamW with warm-up
and a cosine that ends with the time budget. Frames are small for the first part of the time, which
gives a tiny network twice as many steps. What is kept is the moving average of the weights.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_microaunet.networks import build

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
SIDE, SMALL_SIDE = 256, 160  # pixels
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, so all networks share them
TRAINING = ("kvasir-seg-training", "cvc-clinicdb-training", "polypgen-negative-training")
WARM_UP, LAST_RATE = 0.03, 0.01  # share of the budget; share of the peak learning rate
AVERAGE_DECAY = 0.998


def load(pack: str) -> tuple[Tensor, Tensor]:
    """Return a pack as uint8 tensors (n, 3, side, side) and (n, 1, side, side)."""
    with np.load(HERE / "cache" / f"{pack}.npz") as arrays:
        images = torch.from_numpy(arrays["images"]).permute(0, 3, 1, 2).contiguous()
        return images, torch.from_numpy(arrays["masks"].astype(np.uint8))[:, None]


def normalise(images: Tensor) -> Tensor:
    """Map float images in [0, 1] to the networks' input."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    return (images - mean) / std


def uniform(count: int, low: float, high: float) -> Tensor:
    """Draw one number per sample, shape (count, 1, 1, 1)."""
    return torch.empty(count, 1, 1, 1).uniform_(low, high)


def augment(images: Tensor, masks: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Turn, flip, scale, shift and stretch frames and masks alike; then change the colours.

    What comes back has ``side`` pixels a side, float frames about [0, 1], masks 0 or 1.
    """
    count = len(images)
    angle = torch.empty(count).uniform_(-math.pi, math.pi)
    scale = torch.exp(torch.empty(count).uniform_(math.log(0.7), math.log(1.25)))
    stretch = torch.exp(torch.empty(count).uniform_(-0.15, 0.15))
    flip = torch.where(torch.rand(count) < 0.5, -1.0, 1.0)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    shift = torch.empty(count, 2).uniform_(-0.15, 0.15)
    affine = torch.stack(
        [
            torch.stack([cos * stretch * flip, -sin * stretch, shift[:, 0]], dim=1),
            torch.stack([sin * flip / stretch, cos / stretch, shift[:, 1]], dim=1),
        ],
        dim=1,
    )
    grid = F.affine_grid(affine, [count, 3, side, side], align_corners=False)
    both = torch.cat([images.float() / 255, masks.float()], dim=1)
    if side < SIDE:
        both = F.avg_pool2d(both, 2)
    both = F.grid_sample(both, grid, align_corners=False)
    frames, labels = both[:, :3], (both[:, 3:] > 0.5).float()
    grey = frames.mean(dim=1, keepdim=True)
    frames = grey + (frames - grey) * uniform(count, 0.5, 1.5)
    frames = frames * torch.exp(torch.empty(count, 3, 1, 1).uniform_(-0.2, 0.2))
    frames = frames * uniform(count, 0.6, 1.4) + uniform(count, -0.06, 0.06)
    frames = frames.clamp(1e-4, 1) ** torch.exp(uniform(count, -0.3, 0.3))
    if torch.rand(()) < 0.25:
        frames = F.avg_pool2d(frames, 3, stride=1, padding=1)
    return frames + torch.randn_like(frames) * float(torch.rand(())) * 0.03, labels


def loss_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy plus soft Dice loss, per frame, averaged."""
    entropy = F.binary_cross_entropy_with_logits(logits, labels)
    probabilities = torch.sigmoid(logits).flatten(1)
    flat = labels.flatten(1)
    smooth = 30.0  # pixels: keeps the loss of an empty frame from jumping on its first pixel
    overlap = 2 * (probabilities * flat).sum(1) + smooth
    dice = overlap / (probabilities.sum(1) + flat.sum(1) + smooth)
    return entropy + (1 - dice).mean()


@torch.no_grad()
def validate(network: nn.Module) -> dict[str, float]:
    """Return mean Dice at network size per set, and the share of negatives flagged."""
    network.eval()
    result = {}
    for pack in ("kvasir-seg", "cvc-clinicdb", "polypgen-negative"):
        images, masks = load(f"{pack}-validation")
        scores = []
        for start in range(0, len(images), 16):
            part = F.interpolate(
                images[start : start + 16].float() / 255, (SIDE, SIDE), mode="area"
            )
            found = (network(normalise(part)) > 0).flatten(1)
            real = F.interpolate(masks[start : start + 16], (SIDE, SIDE)).flatten(1) > 0
            if pack == "polypgen-negative":
                scores.append((found.sum(1) > 0.002 * SIDE * SIDE).float())
            else:
                scores.append(2 * (found & real).sum(1) / (found.sum(1) + real.sum(1)).clamp(1))
        result[pack] = float(torch.cat(scores).mean())
    return result


def average(averaged: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
    """Move the average of the weights, faster while few steps have been taken."""
    decay = min(AVERAGE_DECAY, float((1 + count) / (10 + count)))
    return torch.lerp(current.float(), averaged.float(), decay).to(averaged.dtype)


def batches(count: int, size: int) -> Iterator[Tensor]:
    """Yield shuffled indices, forever."""
    while True:
        yield from torch.randperm(count)[: count // size * size].split(size)


def main() -> None:
    """Train until the time is used up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network")
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument(
        "--small-share", type=float, default=0.55, help="share of the time on small frames"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--packs", nargs="+", default=list(TRAINING))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)

    parts = [load(pack) for pack in options.packs]
    images, masks = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    # Twice as fast as the default layout for depthwise convolutions on a CPU.
    network = build(options.network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    averaged = torch.optim.swa_utils.AveragedModel(network, avg_fn=average, use_buffers=True)
    optimiser = torch.optim.AdamW(network.parameters(), options.rate, weight_decay=1e-2)
    run = HERE / "runs" / options.network
    run.mkdir(parents=True, exist_ok=True)
    (run / "recipe.json").write_text(json.dumps(vars(options), indent=1), encoding="utf-8")
    step, spent = 0, 0.0
    saved = run / "last.pt"
    if saved.exists():
        state = torch.load(saved, weights_only=True)
        network.load_state_dict(state["network"])
        averaged.load_state_dict(state["averaged"])
        optimiser.load_state_dict(state["optimiser"])
        step, spent = state["step"], state["spent"]

    per_epoch = len(images) // options.batch
    budget = options.minutes * 60
    clock, losses = time.monotonic(), []
    for chosen in batches(len(images), options.batch):
        progress = min(1.0, (spent + time.monotonic() - clock) / budget)
        cosine = LAST_RATE + (1 - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * progress))
        for group in optimiser.param_groups:
            group["lr"] = options.rate * min(1.0, progress / WARM_UP + 0.01) * cosine
        network.train()
        frames, labels = augment(
            images[chosen], masks[chosen], SMALL_SIDE if progress < options.small_share else SIDE
        )
        inputs = normalise(frames).to(memory_format=torch.channels_last)
        loss = loss_of(network(inputs), labels)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        averaged.update_parameters(network)
        losses.append(loss.item())
        step += 1
        finished = progress >= 1.0
        if step % per_epoch == 0 or finished:
            now = time.monotonic()
            spent, clock = spent + now - clock, now
            state = {
                "network": network.state_dict(),
                "averaged": averaged.state_dict(),
                "optimiser": optimiser.state_dict(),
                "step": step,
                "spent": spent,
            }
            torch.save(state, run / "last.tmp")
            (run / "last.tmp").replace(saved)
            epoch = step // per_epoch
            line = {"epoch": epoch, "minutes": spent / 60, "loss": float(np.mean(losses))}
            if epoch % 5 == 0 or finished:
                line |= validate(averaged.module)
            losses = []
            with (run / "metrics.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps(line) + "\n")
        if finished:
            break


if __name__ == "__main__":
    main()
