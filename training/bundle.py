"""Turn finished runs into bundled models: ``python training/bundle.py DATA [student|teacher]``.

Takes the averaged weights of ``training/runs/NETWORK/last.pt``, chooses the threshold on the
validation frames, measures the card's figures there at native size, and writes the checkpoint
and its ONNX graph to ``src/napari_microaunet/weights/``.
"""

from __future__ import annotations

import hashlib
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_microaunet.distillation.evaluation import evaluate
from napari_microaunet.frames import open_frames
from napari_microaunet.networks import Network, build
from napari_microaunet.networks.checkpoint import ModelCard, save_checkpoint
from napari_microaunet.networks.library import BUNDLED, find_model
from napari_microaunet.networks.onnx_export import export_onnx, onnx_name
from napari_microaunet.prelabel.masks import MaskSettings, mask_from
from napari_microaunet.prelabel.predictor import Predictor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_microaunet.distillation.scores import FrameScore
    from napari_microaunet.frames import FrameSequence

HERE = Path(__file__).parent
MODELS: dict[str, Network] = {"student": "microaunet", "teacher": "malunet"}
TITLES = {"student": "MicroAUNet student", "teacher": "MALUNet teacher"}
THRESHOLDS = np.arange(0.3, 0.75, 0.05)
LICENCE = (
    "Research and education only: trained on Kvasir-SEG and CVC-ClinicDB, whose terms allow no "
    "other use, and on PolypGen (CC BY 4.0)."
)
RENDERED = "rendered frames (frames/rendered.py)"


def listed(sequence: FrameSequence, split: str) -> list[int]:
    """Return the indices of frames that a frozen list names, or whose folder it names."""
    names = set((HERE / "splits" / f"{split}.txt").read_text(encoding="utf-8").split())
    return [
        index
        for index, frame in enumerate(sequence.frames)
        if frame.name in names or frame.name.split("/")[0] in names
    ]


def best_threshold(predictor: Predictor, sets: Sequence[tuple[FrameSequence, list[int]]]) -> float:
    """Return the threshold with the best mean Dice, averaged over the validation sets."""
    means = []
    for sequence, indices in sets:
        scores = []
        for prediction in predictor.predict(sequence, indices):
            reference = sequence.read_mask(prediction.index)
            if prediction.map is None or reference is None:
                raise RuntimeError(f"{sequence.frames[prediction.index].name} cannot be scored")
            real = reference > 0
            row = []
            for threshold in THRESHOLDS:
                found = mask_from(prediction.map, MaskSettings(float(threshold))) > 0
                row.append(2 * (found & real).sum() / max(1, found.sum() + real.sum()))
            scores.append(row)
        means.append(np.mean(scores, axis=0))
    return round(float(THRESHOLDS[np.argmax(np.mean(means, axis=0))]), 2)


def dice_by_size(scores: Sequence[FrameScore], sequence: FrameSequence) -> tuple[float, float]:
    """Return the mean Dice of the smallest and of the largest third of polyps."""
    area_of = {frame.name: frame.height * frame.width for frame in sequence.frames}
    ordered = sorted(
        scores, key=lambda score: (score.true_positive + score.false_negative) / area_of[score.name]
    )
    third = len(ordered) // 3
    small, large = (
        round(float(np.mean([score.dice for score in part])), 4)
        for part in (ordered[:third], ordered[-third:])
    )
    return small, large


def main(data: Path, chosen: Sequence[str]) -> None:
    """Bundle the chosen models."""
    BUNDLED.mkdir(exist_ok=True)
    stills, clips = open_frames(data / "kvasir-seg"), open_frames(data / "cvc-clinicdb")
    negatives = open_frames(data / "polypgen" / "negative")
    for name in chosen:
        run = HERE / "runs" / MODELS[name]
        state = torch.load(run / "last.pt", weights_only=True)
        network = build(MODELS[name]).eval()
        network.load_state_dict(
            {
                key.removeprefix("module."): value.contiguous()
                for key, value in state["averaged"].items()
                if key != "n_averaged"
            }
        )
        recipe = json.loads((run / "recipe.json").read_text(encoding="utf-8"))
        packs = [pack.removesuffix("-training") for pack in recipe["packs"]]
        card = ModelCard(
            name=TITLES[name],
            network=MODELS[name],
            widths=network.widths,  # type: ignore[arg-type]
            training_data={
                RENDERED if pack == "rendered" else pack: "seeds 1000 to 1299"
                if pack == "rendered"
                else hashlib.sha256(
                    (HERE / "splits" / f"{pack}-training.txt").read_bytes()
                ).hexdigest()
                for pack in packs
            },
            licence=LICENCE,
            created=datetime.now(UTC).date().isoformat(),
        )
        path = BUNDLED / f"{name}.safetensors"
        save_checkpoint(path, network, card)
        predictor = Predictor(find_model(str(path)), backend="torch", device="cpu")
        validation = [
            (stills, listed(stills, "kvasir-seg-validation")),
            (clips, listed(clips, "cvc-clinicdb-validation")),
        ]
        threshold = best_threshold(predictor, validation)
        settings = MaskSettings(threshold)
        metrics: dict[str, float] = {}
        for title, (sequence, indices) in zip(("Kvasir-SEG", "CVC"), validation, strict=True):
            evaluation = evaluate(predictor, sequence, settings, indices)
            summary = evaluation.summary
            small, large = dice_by_size(evaluation.frames, sequence)
            assert summary.dice is not None  # every validation frame shows a polyp
            metrics |= {
                f"{title} mean Dice": round(summary.dice.mean, 4),
                f"{title} mean Dice, 95 % interval, low": round(summary.dice.low, 4),
                f"{title} mean Dice, 95 % interval, high": round(summary.dice.high, 4),
                f"{title} polyps found": round(summary.positives_found or 0, 4),
                f"{title} mean Dice, smallest third of polyps": small,
                f"{title} mean Dice, largest third of polyps": large,
            }
        flagged = evaluate(
            predictor,
            negatives,
            settings,
            listed(negatives, "polypgen-negative-validation"),
            without_polyps=True,
        ).summary.negatives_flagged
        metrics["PolypGen negatives flagged"] = round(flagged or 0, 4)
        description = (
            f"Plain training on hard labels, no distillation: {state['step']} steps of "
            f"{recipe['batch']} frames ({state['spent'] / 60:.0f} minutes on one shared CPU core). "
            "Figures are on this project's frozen validation split, at native size. Weak on small "
            f"polyps, and marks something in {100 * (flagged or 0):.0f} % of frames without any."
        )
        card = card.model_copy(
            update={"threshold": threshold, "metrics": metrics, "description": description}
        )
        for old in BUNDLED.glob(f"{name}-*.onnx"):
            old.unlink()
        save_checkpoint(path, network, card)
        model = find_model(str(path))
        export_onnx(network, BUNDLED / onnx_name(model))
        print(model.card.model_dump_json(indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or list(MODELS))
