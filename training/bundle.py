"""Turn runs into bundled models: ``python training/bundle.py DATA [student|teacher|expert]``.

Takes the weights that a run kept in ``training/runs/``, chooses threshold and least peak on the
validation frames, measures the card's figures there at native size, and writes the checkpoint
and its ONNX graph to ``src/napari_microaunet/weights/``, and the run's recipe and metrics to
``training/logs/``.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_microaunet.atomic import replacing
from napari_microaunet.curation.dataset import open_dataset
from napari_microaunet.curation.groups import find_groups
from napari_microaunet.distillation.evaluation import Evaluation, evaluate
from napari_microaunet.distillation.model_file import card_metrics
from napari_microaunet.distillation.thresholds import CANDIDATES, choose_operating_point
from napari_microaunet.frames import open_frames
from napari_microaunet.networks.checkpoint import load_checkpoint, save_checkpoint
from napari_microaunet.networks.library import BUNDLED, find_model
from napari_microaunet.networks.onnx_export import export_onnx, graph_beside
from napari_microaunet.prelabel.masks import MaskSettings
from napari_microaunet.prelabel.predictor import Predictor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_microaunet.frames import FrameSequence

HERE = Path(__file__).parent
RUNS = {
    "student": "student-fair-plain",
    "teacher": "malunet-fair",
    "expert": "expert-lite2-again",
}
TITLES = {"student": "MicroAUNet student", "teacher": "MALUNet teacher", "expert": "Expert"}
# Height and width of the frames that they see in use. MALUNet learned from smaller ones, but views
# to train on are zoomed into, so that it knows larger polyps than frames of that size show (Touvron
# et al., Fixing the train-test resolution discrepancy, NeurIPS 2019). The student gains too little.
SIDES = {"student": 256, "teacher": 320, "expert": 320}
MIRROR_IMAGES = {"student": 1, "teacher": 1, "expert": 3}
# Share of negative frames that may be flagged; a small network that is held to less misses polyps.
# Asked are at most 0.3 of the student and of MALUNet, 0.15 of the expert.
MOST_FLAGGED = {"student": 0.25, "teacher": 0.25, "expert": 0.09}
# A polyp that is missed has to be drawn; what is marked wrongly goes with one key. Of the settings
# that are quiet enough, those compete that find all but this share of what any of them finds: one
# of 210 frames.
FOUND_WITHIN = 0.005
LICENCE = (
    "Research and education only: trained on Kvasir-SEG and CVC-ClinicDB, whose terms allow no "
    "other use, and on PolypGen (CC BY 4.0)."
)


@dataclass(frozen=True)
class ValidationSet:
    """Frames of one frozen list, and which of them resemble each other."""

    title: str
    frames: FrameSequence
    indices: list[int]
    groups: dict[str, str]
    without_polyps: bool


def validation_set(title: str, path: Path, split: str, without_polyps: bool) -> ValidationSet:
    """Open the validation frames of one data set."""
    sequence = open_frames(path)
    names = [frame.name for frame in sequence.frames]
    groups = dict(zip(names, find_groups(sequence), strict=True))
    return ValidationSet(title, sequence, listed(sequence, split), groups, without_polyps)


def validation_sets(data: Path) -> list[ValidationSet]:
    """Open the frames that models are chosen and measured on."""
    return [
        validation_set("Kvasir-SEG", data / "kvasir-seg", "kvasir-seg", False),
        validation_set("CVC", data / "cvc-clinicdb", "cvc-clinicdb", False),
        validation_set("PolypGen", data / "polypgen" / "negative", "polypgen-negative", True),
    ]


def listed(sequence: FrameSequence, name: str, split: str = "validation") -> list[int]:
    """Return the indices of frames that a frozen list names, or whose folder it names."""
    names = set((HERE / "splits" / f"{name}-{split}.txt").read_text(encoding="utf-8").split())
    return [
        index
        for index, frame in enumerate(sequence.frames)
        if frame.name in names or frame.name.split("/")[0] in names
    ]


def score(
    predictor: Predictor,
    part: ValidationSet,
    settings: MaskSettings,
    alternatives: Sequence[MaskSettings] = (),
) -> Evaluation:
    """Score a model on one set."""
    return evaluate(
        predictor,
        part.frames,
        settings,
        part.indices,
        no_polyps=part.without_polyps,
        groups=part.groups,
        alternatives=alternatives,
    )


def recipe_of(run: Path) -> dict[str, Any]:
    """Read the recipe of a run; paths in it are told from ``training/`` on, whosever that was."""

    def passed_on(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: passed_on(of) for key, of in value.items()}
        if isinstance(value, str) and Path(value).is_absolute():
            return os.path.normpath(value).rpartition("/training/")[2]
        return value

    recipe: dict[str, Any] = passed_on(json.loads((run / "recipe.json").read_bytes()))
    return recipe


def describe(run: Path) -> str:
    """Say in two sentences how a run was trained."""
    recipe = recipe_of(run)
    last = json.loads((run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    teacher = recipe["teacher"]
    taught = (
        "Trained on labels alone"
        if teacher is None
        else f"Taught by {Path(teacher['model']).parent.name}"
    )
    return (
        f"{taught} from the weights of {Path(recipe['start']).parent.name} on: "
        f"{last['step']} steps of {recipe['batch']['size']} frames, {last['minutes']:.0f} minutes, "
        "one run (training/logs/)."
    )


def main(data: Path, chosen: Sequence[str]) -> None:
    """Bundle the chosen models."""
    BUNDLED.mkdir(exist_ok=True)
    validation = validation_sets(data)
    dataset = open_dataset(HERE / "cache" / "dataset")
    for name in chosen:
        run = HERE / "runs" / RUNS[name]
        network, card = load_checkpoint(run / "kept.safetensors")
        side = SIDES[name]
        in_use = {"input_size": (side, side), "mirror_images": MIRROR_IMAGES[name]}
        card = card.model_copy(update=in_use)
        draft = run / f"{name}.safetensors"
        save_checkpoint(draft, network, card, half=name == "expert")
        network, card = load_checkpoint(draft)  # rounded, where it is stored in half precision
        predictor = Predictor(find_model(str(draft)), backend="torch", device="cpu")
        curves = [score(predictor, part, MaskSettings(), CANDIDATES).curve for part in validation]
        point = choose_operating_point(curves, MOST_FLAGGED[name], FOUND_WITHIN)
        settings = MaskSettings(point.threshold, least_peak=point.least_peak)
        metrics: dict[str, float] = {}
        for part in validation:
            metrics |= card_metrics(part.title, score(predictor, part, settings).summary)
        small, flagged = (
            metrics[figure]
            for figure in ("Kvasir-SEG mean Dice, small polyps", "PolypGen negatives flagged")
        )
        card = card.model_copy(
            update={
                "name": TITLES[name],
                "threshold": settings.threshold,
                "least_peak": settings.least_peak,
                "metrics": metrics,
                "description": f"{describe(run)} Figures are on the frozen validation split, at "
                f"native size. Weak on small polyps (Dice {small:.2f}); marks something in "
                f"{100 * flagged:.0f} % of frames without any.",
                "training_data": {
                    "Kvasir-SEG, CVC-ClinicDB, PolypGen, rendered frames": dataset.content_hash(
                        "training"
                    )
                },
                "recipe": recipe_of(run),
                "licence": LICENCE,
                "created": datetime.now(UTC).date().isoformat(),
            }
        )
        for kept in ("metrics.jsonl", "curves.png"):
            shutil.copy(run / kept, HERE / "logs" / f"{run.name}-{kept}")
        with replacing(HERE / "logs" / f"{run.name}-recipe.json") as file:
            file.write(json.dumps(recipe_of(run), indent=1).encode())
        # The graph first: where it fails, the model that is there keeps its own.
        graph = BUNDLED / graph_beside(find_model(str(draft))).name
        export_onnx(network, graph)
        path = BUNDLED / f"{name}.safetensors"
        save_checkpoint(path, network, card, half=name == "expert")
        for old in set(BUNDLED.glob(f"{name}-*.onnx")) - {graph}:
            old.unlink()
        print(find_model(str(path)).card.model_dump_json(indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or list(RUNS))
