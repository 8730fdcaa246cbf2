"""What fine-tuning gains at a hospital that the student has never seen.

CVC-ClinicDB plays that hospital: the student, and the expert that teaches it, were trained without
it (``recipes/shifted-student.toml`` and ``shifted-expert.toml``). Each seed draws 11 of its 23
sequences and 100 frames spread over them, which the user has labelled; where a teacher takes part
it gives the other frames of these sequences soft labels. The other 12 sequences judge. What is
forgotten is seen on Kvasir-SEG's validation frames and PolypGen's frames without a polyp.

``python training/domain_shift.py bases DATA`` writes both to ``training/weights/`` when they are
trained. ``python training/domain_shift.py run DATA [--only VARIANT] [--seeds 1 2 3]`` trains what
is not finished in ``training/runs/shift/``; where it counts minutes nothing else should keep the
machine busy. ``... quiet DATA`` scores them once more, at settings that flag no more negatives
than before. ``python training/domain_shift.py table`` writes ``training/logs/domain-shift.json``
and ``domain-shift.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from bundle import listed

from napari_microaunet.atomic import replacing
from napari_microaunet.curation import FrameRecord, Manifest, open_dataset, write_manifest
from napari_microaunet.distillation.bootstrap import bootstrap_interval
from napari_microaunet.distillation.finetune import finetune
from napari_microaunet.distillation.model_file import Scorer
from napari_microaunet.distillation.recipe import Budget
from napari_microaunet.distillation.thresholds import CANDIDATES, choose_operating_point
from napari_microaunet.frames.sequence import spread
from napari_microaunet.networks.checkpoint import load_checkpoint, save_checkpoint
from napari_microaunet.networks.library import find_model
from napari_microaunet.prelabel.masks import MaskSettings

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from napari_microaunet.curation.dataset import CuratedDataset
    from napari_microaunet.curation.manifest import Split
    from napari_microaunet.distillation.bootstrap import Interval
    from napari_microaunet.distillation.recipe import Value

HERE = Path(__file__).parent
RUNS = HERE / "runs"
SHIFT = RUNS / "shift"
LOGS = HERE / "logs"
WEIGHTS = HERE / "weights"
STUDENT = WEIGHTS / "shifted-student.safetensors"
EXPERT = WEIGHTS / "shifted-expert.safetensors"
# A user with 100 frames of some videos; about a fifth of them, in videos of their own, validate.
USERS_FRAMES = 100
USERS_SEQUENCES = 11
VALIDATION_SEQUENCES = 2
_MOST_FLAGGED = 0.25  # share of the negatives that the student before may flag
_QUIET = "quiet.json"
_QUIET_SETTINGS = tuple(
    MaskSettings(threshold, least_peak=peak)
    for threshold in (0.3, 0.5, 0.7, 0.9)
    for peak in (0.95, 0.97, 0.98, 0.985, 0.99, 0.993, 0.995, 0.997)
)


@dataclass(frozen=True)
class Variant:
    """One way of fine-tuning.

    Attributes
    ----------
    title : str
        What the table calls it.
    budget : Budget
        Minutes where they are what is measured, else steps, which a busy machine does not change.
    start : Path
        What is fine-tuned.
    teacher : bool
        Whether the expert teaches.
    adapt_teacher : bool
        Whether the expert is fine-tuned first.
    changes : dict of str to value
        What differs from the package's recipe.
    """

    title: str
    budget: Budget
    start: Path = STUDENT
    teacher: bool = True
    adapt_teacher: bool = False
    changes: dict[str, Value] = field(default_factory=dict)


_FULL: dict[str, Value] = {"size.first_share": 0.0, "optimiser.encoder_factor": 1.0}
_LABELS = _FULL | {"replay.share": 0.0}
_SMALL_FIRST: dict[str, Value] = {"size.first_share": 0.5}
_ONE_MINUTE = Budget(minutes=1)
_FEW_STEPS = Budget(steps=200)  # four minutes on two cores that do nothing else

VARIANTS = {
    "default": Variant(
        "as the package does: labels, expert, rendered frames replayed", Budget(minutes=10)
    ),
    "adapted": Variant(
        "the same, the expert fine-tuned first", Budget(minutes=10), adapt_teacher=True
    ),
    "the-expert": Variant(
        "the expert itself, labels alone, at the student's pace",
        Budget(minutes=10),
        start=EXPERT,
        teacher=False,
        changes={"optimiser.learning_rate": 5e-4, "optimiser.encoder_factor": 0.5},
    ),
    "the-expert-taught": Variant(
        "the expert itself, labels and its own soft labels, as the package does",
        Budget(minutes=10),
        start=EXPERT,
    ),
    "labels": Variant("labels alone", _FEW_STEPS, teacher=False, changes=_LABELS),
    "expert": Variant("labels and the expert", _FEW_STEPS, changes=_LABELS),
    "replay": Variant("labels, rendered frames replayed", _FEW_STEPS, teacher=False, changes=_FULL),
    "both": Variant("labels, expert, rendered frames replayed", _FEW_STEPS, changes=_FULL),
    "pseudo-labels": Variant(
        "the same, temperature 1, the expert's masks on frames without one",
        _FEW_STEPS,
        changes=_FULL | {"imitation.temperature": 1.0, "teacher.pseudo_labels": True},
    ),
    "crops": Variant(
        "labels, expert, rendered frames replayed; 30 % cropped to a part without a polyp",
        _FEW_STEPS,
        changes=_FULL | {"augmentation.polyp_free_crop": 0.3},
    ),
    # What the package does where few steps fit, see `time_box.WAYS`.
    "full": Variant("all layers, full size", _ONE_MINUTE, teacher=False, changes=_FULL),
    "small-first": Variant(
        "all layers, small frames for half of the time",
        _ONE_MINUTE,
        teacher=False,
        changes=_FULL | _SMALL_FIRST,
    ),
    "decoder": Variant(
        "encoder kept, full size",
        _ONE_MINUTE,
        teacher=False,
        changes=_FULL | {"optimiser.encoder_factor": 0.0},
    ),
    "small-decoder": Variant(
        "encoder kept, small frames for half of the time",
        _ONE_MINUTE,
        teacher=False,
        changes=_SMALL_FIRST | {"optimiser.encoder_factor": 0.0},
    ),
}


# --- frames -------------------------------------------------------------------------------


def write_frames(
    folder: Path,
    name: str,
    parts: Iterable[tuple[CuratedDataset, dict[int, Split]]],
    unlabelled: Collection[str] = (),
) -> Path:
    """Gather frames of several datasets under one manifest, as hard links: nothing is copied.

    Parameters
    ----------
    folder : Path
        Written anew.
    name : str
        Of the new dataset.
    parts : iterable of (CuratedDataset, dict of int to Split)
        Datasets, and which of their frames go into which split.
    unlabelled : collection of str
        Frames whose masks stay behind, by their names in the datasets.
    """
    shutil.rmtree(folder, ignore_errors=True)
    records = []
    for dataset, splits in parts:
        for index, split in splits.items():
            record = dataset.frames[index]
            files = {}
            labelled = record.name not in unlabelled
            for kind in ("image", "mask") if labelled else ("image",):
                file = getattr(record, kind)
                if file is not None:
                    target = folder / dataset.name / file
                    target.parent.mkdir(parents=True, exist_ok=True)
                    source = (dataset.path / file).resolve()
                    try:
                        os.link(source, target)
                    except OSError:  # on another drive
                        shutil.copy(source, target)
                    files[kind] = target.relative_to(folder).as_posix()
            update = files | {
                "name": f"{dataset.name}/{record.name}",
                "group": f"{dataset.name}/{record.group}",
                "split": split,
                "negative": labelled and (record.negative or record.mask is None),
            }
            of_mask = {"mask", "mask_sha256", "polyp_pixels", "ignored_pixels"}
            left_out = {*update} if labelled else {*update} | of_mask
            records.append(FrameRecord(**record.model_dump(exclude=left_out) | update))
    write_manifest(folder / "manifest.json", Manifest(name=name, frames=tuple(records)))
    return folder


def users_split(groups: Sequence[str], seed: int) -> dict[int, Split]:
    """Draw the sequences of the user's frames, and frames spread over them; the rest is the test.

    Parameters
    ----------
    groups : sequence of str
        The sequence of each frame.
    seed : int
        Of the order in which sequences are drawn.
    """
    order = np.random.default_rng(seed).permutation(sorted(set(groups))).tolist()
    members = {of: [index for index, group in enumerate(groups) if group == of] for of in order}
    users, others = order[:USERS_SEQUENCES], order[USERS_SEQUENCES:]
    splits: dict[int, Split] = {index: "test" for of in others for index in members[of]}
    left = USERS_FRAMES
    # The shortest first, so that the longer ones make up for what they lack.
    for number, of in enumerate(sorted(users, key=lambda group: len(members[group]))):
        chosen = spread(members[of], round(left / (len(users) - number)))
        left -= len(chosen)
        split: Split = "validation" if of in users[:VALIDATION_SEQUENCES] else "training"
        splits |= dict.fromkeys(chosen, split)
    return splits


def reference_frames(data: Path) -> Path:
    """Write what shows forgetting, once."""
    folder = SHIFT / "reference"
    if not (folder / "manifest.json").is_file():
        kvasir = open_dataset(data / "kvasir-seg")
        negatives = open_dataset(data / "polypgen" / "negative")
        parts: list[tuple[CuratedDataset, dict[int, Split]]] = [
            (dataset, dict.fromkeys(listed(dataset.sequence, name), "validation"))
            for dataset, name in ((kvasir, "kvasir-seg"), (negatives, "polypgen-negative"))
        ]
        write_frames(folder, "reference", parts)
    return folder


def users_frames(data: Path, seed: int) -> Path:
    """Write the frames of the hospital for one seed, once.

    Other frames of the sequences that the user labelled some of come along without a mask.
    """
    folder = SHIFT / f"frames-{seed}"
    if not (folder / "manifest.json").is_file():
        hospital = open_dataset(data / "cvc-clinicdb")
        groups = [frame.group for frame in hospital.frames]
        splits = users_split(groups, seed)
        teaching = {groups[index] for index, split in splits.items() if split == "training"}
        others = [i for i, group in enumerate(groups) if group in teaching and i not in splits]
        write_frames(
            folder,
            f"hospital {seed}",
            [(hospital, splits | dict.fromkeys(others, "training"))],
            unlabelled={hospital.frames[index].name for index in others},
        )
    return folder


# --- training -----------------------------------------------------------------------------


def write_bases(data: Path) -> None:
    """Keep what the two trainings without the hospital came to, as ``training/weights/``.

    The student gets its threshold and least peak as the bundled one does, on the reference
    frames: the hospital's have no say in it.
    """
    WEIGHTS.mkdir(exist_ok=True)
    network, card = load_checkpoint(RUNS / EXPERT.stem / "model.safetensors")
    save_checkpoint(EXPERT, network, card, half=True)
    trained = RUNS / STUDENT.stem / "model.safetensors"
    reference = open_dataset(reference_frames(data))
    scorer = Scorer("cpu", lambda _: None, lambda: False)
    indices = range(len(reference.frames))
    found = scorer.score(find_model(str(trained)), reference, indices, MaskSettings(), CANDIDATES)
    point = choose_operating_point([found.curve], _MOST_FLAGGED)
    network, card = load_checkpoint(trained)
    settings = {"threshold": point.threshold, "least_peak": point.least_peak}
    save_checkpoint(STUDENT, network, card.model_copy(update=settings))


def run_one(data: Path, name: str, seed: int, device: str) -> None:
    """Fine-tune by one variant with one seed, or go on with it, unless it is finished."""
    out = SHIFT / f"{name}-{seed}"
    if (out / "report.json").is_file():
        return
    variant = VARIANTS[name]
    print(f"{out.name}: training", flush=True)
    report = finetune(
        users_frames(data, seed),
        out,
        variant.budget,
        start=str(variant.start),
        teacher=str(EXPERT) if variant.teacher else None,
        adapt_teacher=variant.adapt_teacher,
        reference=reference_frames(data),
        seed=seed,
        changes=variant.changes,
        device=device,
    )
    if report is not None:
        print(f"{out.name}: {report.outcome.steps} steps", flush=True)


def score_quiet(data: Path, name: str, seed: int) -> None:
    """Score a new model at settings that flag no more negatives than the old one did, once.

    The settings are chosen on the reference frames: the hospital's have no say in it.
    """
    out = SHIFT / f"{name}-{seed}"
    if not (out / "report.json").is_file() or (out / _QUIET).is_file():
        return
    before = json.loads((out / "report.json").read_bytes())["reference"]["before"]
    scorer = Scorer("cpu", lambda _: None, lambda: False)
    model = find_model(str(out / "model.safetensors"))
    reference = open_dataset(reference_frames(data))
    indices = range(len(reference.frames))
    curve = scorer.score(model, reference, indices, MaskSettings(), _QUIET_SETTINGS).curve
    point = choose_operating_point([curve], before["negatives_flagged"]["mean"])
    settings = MaskSettings(point.threshold, least_peak=point.least_peak)
    dataset = open_dataset(users_frames(data, seed))
    found = scorer.score(model, dataset, dataset.held_out_indices(), settings).summary
    with replacing(out / _QUIET) as file:
        file.write(json.dumps({"settings": asdict(point), "held_out": asdict(found)}).encode())


# --- the table ----------------------------------------------------------------------------

Part = dict[str, Any]  # of a report
PARTS = ("held_out", "reference")


def mean_change(reports: Sequence[Part], part: str) -> Interval | None:
    """Return after minus before over all frames with a polyp, averaged over the seeds.

    Parameters
    ----------
    reports : sequence of dict
        Of the seeds of one variant.
    part : {"held_out", "reference"}
        Which frames.

    Returns
    -------
    Interval or None
        Each frame's change is averaged over the seeds that held it out; the interval is over
        groups of frames, sequences in the hospital. It tells of other frames, not of other seeds.
    """
    changes: defaultdict[str, list[float]] = defaultdict(list)
    for report in reports:
        for frame in report[part]["frames"]:
            changes[frame["name"]].append(frame["after"] - frame["before"])
    groups = {
        frame.name: frame.group
        for folder in SHIFT.glob("frames-*" if part == "held_out" else "reference")
        for frame in open_dataset(folder).frames
        if not frame.negative
    }
    names = [name for name in changes if name in groups]
    return bootstrap_interval(
        np.array([fmean(changes[name]) for name in names]), [groups[name] for name in names]
    )


def row_of(name: str) -> dict[str, Any] | None:
    """Bring the reports of all seeds of a variant together; None where there are none."""
    reports = {
        int(file.parent.name.removeprefix(f"{name}-")): json.loads(file.read_bytes())
        for file in sorted(SHIFT.glob(f"{name}-[0-9]*/report.json"))
    }
    if not reports:
        return None
    row: dict[str, Any] = {"variant": name, "seeds": [*reports]}
    for part in PARTS:
        for figure in ("dice", "positives_found", "negatives_flagged"):
            for when in ("before", "after"):
                values = [report[part][when][figure] for report in reports.values()]
                row[f"{part} {figure} {when}"] = [v["mean"] for v in values if v is not None]
        change = mean_change([*reports.values()], part)
        row[f"{part} change"] = None if change is None else asdict(change)
    quiet = [json.loads(f.read_bytes()) for f in sorted(SHIFT.glob(f"{name}-[0-9]*/{_QUIET}"))]
    row["quiet dice"] = [of["held_out"]["dice"]["mean"] for of in quiet]
    row["quiet negatives_flagged"] = [of["settings"]["negatives_flagged"] for of in quiet]
    row["steps"] = [report["outcome"]["steps"] for report in reports.values()]
    return row


def as_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Show the rows as a table."""
    head = (
        "fine-tuned by | budget | seeds | steps | "
        "Dice on other sequences of the hospital, before | after | "
        "change (95 % interval over sequences) | Kvasir-SEG Dice, before | after | "
        "change (95 % interval) | PolypGen negatives flagged, before | after | "
        "Dice at the hospital with no more negatives flagged than before"
    )
    lines = [f"| {head} |", "|---" * (head.count("|") + 1) + "|"]
    for row in rows:
        variant = VARIANTS[row["variant"]]
        cells = [variant.title, _in_words(variant.budget), str(len(row["seeds"]))]
        cells.append(" / ".join(str(steps) for steps in row["steps"]))
        for part in PARTS:
            cells += [_over_seeds(row[f"{part} dice {when}"]) for when in ("before", "after")]
            change = row[f"{part} change"]
            cells.append(f"{change['mean']:+.3f} ({change['low']:+.3f} to {change['high']:+.3f})")
        flagged = (row[f"reference negatives_flagged {when}"] for when in ("before", "after"))
        cells += [_over_seeds(values) for values in flagged]
        cells.append(_over_seeds(row["quiet dice"]) if row["quiet dice"] else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _in_words(budget: Budget) -> str:
    if budget.minutes is None:
        return f"{budget.steps} steps"
    return f"{budget.minutes:g} min"


def _over_seeds(values: Sequence[float]) -> str:
    """Show a mean over the seeds, with the lowest and the highest where they differ."""
    ends = f" ({min(values):.3f} to {max(values):.3f})" if max(values) > min(values) else ""
    return f"{fmean(values):.3f}{ends}"


def write_table() -> None:
    """Write what is finished to ``training/logs/``."""
    rows = [row for row in map(row_of, VARIANTS) if row is not None]
    with replacing(LOGS / "domain-shift.json") as file:
        file.write(json.dumps(rows, indent=1).encode())
    with replacing(LOGS / "domain-shift.md") as file:
        file.write(as_markdown(rows).encode())


def main() -> None:
    """Train, or write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("run", "quiet"):
        command = commands.add_parser(name)
        command.add_argument("data", type=Path)
        command.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
        command.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
        command.add_argument("--threads", type=int, default=2, help="processor cores")
        command.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    commands.add_parser("bases").add_argument("data", type=Path)
    commands.add_parser("table")
    options = parser.parse_args()
    if options.command == "table":
        write_table()
        return
    if options.command == "bases":
        write_bases(options.data)
        return
    torch.set_num_threads(options.threads)
    for seed in options.seeds:
        for name in options.only:
            if options.command == "run":
                run_one(options.data, name, seed, options.device)
            else:
                score_quiet(options.data, name, seed)


if __name__ == "__main__":
    main()
