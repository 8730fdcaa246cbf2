"""Compare ways to teach the student: the same steps for each, several seeds.

``python training/table.py run [--only VARIANT] [--seeds 1 2 3]`` trains what is not finished, in
``training/runs/table/VARIANT-SEED/``. A run that was killed goes on; two such commands beside
each other divide the work. ``python training/table.py score DATA`` scores the finished runs on
the validation frames at native size and writes ``training/logs/table.json`` and ``table.md``.

``python training/table.py --recipe table-gently ...`` makes another table of `TABLES` in the same
way, from ``training/recipes/table-gently.toml``, in ``training/runs/table-gently/``.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
import torch
from bundle import FOUND_WITHIN, MIRROR_IMAGES, score, validation_sets
from filelock import FileLock, Timeout

from napari_microaunet.atomic import replacing
from napari_microaunet.distillation.bootstrap import bootstrap_interval
from napari_microaunet.distillation.recipe import Recipe, changed, read_recipe
from napari_microaunet.distillation.run_folder import RunFolder
from napari_microaunet.distillation.scores import FrameScore
from napari_microaunet.distillation.thresholds import CANDIDATES, choose_operating_point
from napari_microaunet.distillation.trainer import TrainingError, train
from napari_microaunet.errors import InputError
from napari_microaunet.networks.checkpoint import read_card
from napari_microaunet.networks.library import BUNDLED, find_model
from napari_microaunet.prelabel.masks import MaskSettings
from napari_microaunet.prelabel.predictor import Predictor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bundle import ValidationSet
    from numpy.typing import NDArray

    from napari_microaunet.curation.dataset import CuratedDataset
    from napari_microaunet.distillation.bootstrap import Interval
    from napari_microaunet.distillation.thresholds import OperatingPoint

HERE = Path(__file__).parent
RUNS = HERE / "runs"
LOGS = HERE / "logs"
# One for all: settings chosen per run on the frames that score it would reward the choice.
# `score_run` also chooses a run's own, on other frames.
SETTINGS = MaskSettings(threshold=0.5)
# Share of the negatives that such a run may flag, the same for all tables that there are.
MOST_FLAGGED = 0.25


@dataclass(frozen=True)
class Table:
    """Where a table comes from and goes to.

    Attributes
    ----------
    name : str
        That of the recipe which every row begins with, of the folder of the runs, and of what is
        written to the logs.
    start : str
        What its student knew in the beginning, as the table says it.
    teachers : dict of str to Path
        By the names that `VARIANTS` use. Each is copied beside the runs: all of them have the same
        teacher, whatever is trained and bundled meanwhile.
    unseen : str
        A data set of which no mask teaches, so that all of its frames judge; empty where there
        is none.
    unlabelled : str
        A source whose training frames are there without their masks, so that only a teacher can
        make use of them; empty where there is none.
    variants : dict of str to Variant
        The rows; one of them is "plain".
    as_bundled : bool
        Whether a run is scored as it would be bundled as the student: on the mirror image, too, at
        settings that find nearly all that any find. Otherwise Dice alone chooses what is quiet.
    """

    name: str
    start: str
    teachers: dict[str, Path] = field(default_factory=dict)
    unseen: str = ""
    unlabelled: str = ""
    variants: dict[str, Variant] = field(default_factory=lambda: VARIANTS)
    as_bundled: bool = False

    @property
    def recipe(self) -> Path:
        """The recipe that every row begins with."""
        return HERE / "recipes" / f"{self.name}.toml"

    @property
    def runs(self) -> Path:
        """The folder of the runs."""
        return RUNS / self.name


@dataclass(frozen=True)
class Variant:
    """One row of the table.

    Attributes
    ----------
    title : str
        What the table calls it.
    teacher : str or None
        A key of the table's `teachers`; None for labels alone.
    changes : dict of str to value
        What differs from the base recipe, by section and field.
    without : str
        The variant that lacks this one's last part only; empty where there is none.
    """

    title: str
    teacher: str | None
    changes: dict[str, float | str]
    without: str = ""


ONE_STAGE: dict[str, float | str] = {"imitation.share": 1.0}
BOUNDARY: dict[str, float | str] = {"imitation.boundary": 0.2, "preference.boundary": 0.2}
FEATURES: dict[str, float | str] = {"imitation.features": 1.0, "teacher.soft_labels": "each view"}
VARIANTS: dict[str, Variant] = {
    "plain": Variant("labels alone", None, ONE_STAGE),
    "plain-boundary": Variant("labels alone, boundary", None, ONE_STAGE | BOUNDARY, "plain"),
    "plain-standardised": Variant(
        "labels alone, frames standardised", None, ONE_STAGE | {"standardise": True}, "plain"
    ),
    "expert-imitation": Variant("expert, imitation only", "expert", ONE_STAGE, "plain"),
    "expert": Variant("expert, both stages", "expert", {}, "expert-imitation"),
    "expert-boundary": Variant("expert, both stages, boundary", "expert", BOUNDARY, "expert"),
    "expert-fresh-views": Variant(
        "expert, both stages, every view used once", "expert", {"batch.echo": 1}, "expert"
    ),
    "expert-as-sure": Variant(
        "expert, both stages, temperature 1", "expert", {"imitation.temperature": 1.0}, "expert"
    ),
    "expert-pseudo-labels": Variant(
        "expert, both stages, temperature 1, its masks on frames without one",
        "expert",
        {"imitation.temperature": 1.0, "teacher.pseudo_labels": True},
        "expert-as-sure",
    ),
    "expert-pseudo-only": Variant(
        "expert, both stages, nothing but its masks on frames without one",
        "expert",
        {"imitation.divergence": 0.0, "preference.divergence": 0.0, "teacher.pseudo_labels": True},
        "plain",
    ),
    "malunet": Variant("MALUNet, both stages", "malunet", {}),
    "malunet-features-imitation": Variant(
        "MALUNet with its features, imitation only", "malunet", ONE_STAGE | FEATURES
    ),
    "malunet-features": Variant(
        "MALUNet with its features, both stages", "malunet", FEATURES, "malunet-features-imitation"
    ),
    "expert-malunet": Variant(
        "MALUNet that the expert taught, both stages", "expert-malunet", {}, "malunet"
    ),
}
WHERE_NOBODY_LABELLED = {
    name: VARIANTS[name]
    for name in (
        "plain",
        "expert-imitation",
        "expert",
        "expert-as-sure",
        "expert-pseudo-labels",
        "expert-pseudo-only",
    )
}
WHERE_NOBODY_LABELLED["expert-pseudo-elsewhere"] = Variant(
    "the same, its masks on frames of other hospitals instead",
    "expert",
    VARIANTS["expert-pseudo-labels"].changes
    | {"batch.source_weights.cvc-clinicdb": 0.0, "batch.source_weights.polypgen-positive": 1.0},
    "plain",
)
ENCODERS = {
    "plain": Variant("labels alone", None, {}),
    "plain-standardised": Variant(
        "the same, frames standardised", None, {"standardise": True}, "plain"
    ),
    "plain-lite2": Variant(
        "the same, EfficientNet-Lite2 for its encoder",
        None,
        {"start": str(HERE / "cache" / "imagenet-expert-lite2.safetensors")},
        "plain",
    ),
}
LAST_ROUND = {
    "plain": Variant("labels alone", None, ONE_STAGE),
    "expert": Variant("expert, both stages, as it is bundled", "expert", {}),
}
SIZES = {
    "plain": Variant("labels alone, 256 pixels at last", None, {}),
    "plain-320": Variant("the same, 320 pixels at last", None, {"size.side": 320}, "plain"),
}

_LABELS = "from the student that labels alone have taught"
_TEACHERS = {
    "expert": BUNDLED / "expert.safetensors",
    "malunet": RUNS / "malunet-labels" / "model.safetensors",
    "expert-malunet": BUNDLED / "teacher.safetensors",
}
_WITHOUT_CVC = {"expert": HERE / "weights" / "shifted-expert.safetensors"}
TABLES = {
    table.name: table
    for table in (
        Table("table", _LABELS, _TEACHERS),
        Table("table-gently", _LABELS, _TEACHERS),
        Table("table-scratch", "from random weights", _TEACHERS),
        Table(
            "table-long",
            "from the student that the expert has taught",
            _TEACHERS,
        ),
        Table(
            "table-fair",
            "from the student that the expert has taught, frames standardised",
            {"expert": RUNS / "expert-lite2-again" / "model.safetensors"},
            variants=LAST_ROUND,
            as_bundled=True,
        ),
        Table(
            "table-elsewhere",
            f"{_LABELS}, without a frame of CVC",
            _WITHOUT_CVC,
            unseen="CVC",
        ),
        Table(
            "table-unlabelled",
            f"{_LABELS}, without a frame of CVC",
            _WITHOUT_CVC,
            unseen="CVC",
            unlabelled="cvc-clinicdb",
            variants=WHERE_NOBODY_LABELLED,
        ),
        Table(
            "table-encoder",
            "the expert from ImageNet weights, without a frame of CVC",
            unseen="CVC",
            variants=ENCODERS,
        ),
        Table(
            "table-size",
            "the expert on EfficientNet-Lite2 from ImageNet weights, without a frame of CVC",
            unseen="CVC",
            variants=SIZES,
        ),
    )
}


# --- training -----------------------------------------------------------------------------


def recipe_of(base: Recipe, variant: Variant, seed: int, teacher: Path | None) -> Recipe:
    """Return the base recipe with what makes the variant."""
    if teacher is None:
        base = base.model_copy(update={"teacher": None})
    else:
        base = changed(base, {"teacher.model": str(teacher)})
    return changed(base, {"seed": seed, **variant.changes})


def without_masks(dataset: CuratedDataset, source: str) -> CuratedDataset:
    """Forget the masks of a source's training frames."""
    frames = tuple(
        frame.model_copy(update={"mask": None, "mask_sha256": None})
        if (frame.source, frame.split) == (source, "training")
        else frame
        for frame in dataset.frames
    )
    return replace(dataset, manifest=dataset.manifest.model_copy(update={"frames": frames}))


def kept_teacher(table: Table, name: str) -> Path | None:
    """Return the file of a teacher that all runs share; None where there is none yet."""
    kept = table.runs / f"{name}.safetensors"
    if kept.is_file():
        return kept
    file = table.teachers.get(name)
    if file is None or not file.is_file():
        return None
    with replacing(kept) as copy:
        copy.write(file.read_bytes())
    return kept


def finished(folder: Path) -> bool:
    """Tell whether a run has its last validation, and the weights that it kept."""
    metrics = folder / "metrics.jsonl"
    if not (folder / "kept.safetensors").is_file():
        return False
    last = json.loads(metrics.read_bytes().splitlines()[-1])
    return bool(last["event"] == "validation" and last["progress"] >= 1)


def train_one(table: Table, name: str, seed: int, device: str) -> None:
    """Train one variant with one seed, or go on with it, unless it is finished."""
    variant, folder = table.variants[name], table.runs / f"{name}-{seed}"
    if finished(folder):
        return
    teacher = None if variant.teacher is None else kept_teacher(table, variant.teacher)
    if variant.teacher is not None and teacher is None:
        print(f"{folder.name}: left out, its teacher is missing (TABLES in {__file__})")
        return
    recipe = recipe_of(read_recipe(table.recipe), variant, seed, teacher)
    run = RunFolder(folder, recipe)
    print(f"{folder.name}: training", flush=True)
    try:
        dataset = without_masks(run.dataset(), table.unlabelled)
        outcome = train(recipe, dataset, run, device=device)
    except TrainingError as error:  # the others may fare better
        print(f"{folder.name}: {error}")
        return
    print(f"{folder.name}: finished, {outcome.minutes:.1f} minutes", flush=True)


def train_all(table: Table, names: Sequence[str], seeds: Sequence[int], device: str) -> None:
    """Train every variant with the first seed, then with the next one."""
    if unknown := set(names) - table.variants.keys():
        raise InputError(
            f"{table.name} has no {', '.join(sorted(unknown))}; it has {', '.join(table.variants)}."
        )
    table.runs.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        for name in names:
            try:
                with FileLock(table.runs / f"{name}-{seed}.lock", timeout=0):
                    train_one(table, name, seed, device)
            except Timeout:
                print(f"{name}-{seed}: another process is at it")


# --- scoring ------------------------------------------------------------------------------

Scores = dict[str, list[FrameScore]]  # of one run, by validation set and whether it is quiet
KVASIR, CVC, NEGATIVES = "Kvasir-SEG", "CVC", "PolypGen"
QUIET = ", quiet"  # at settings of the run's own, which flag few negatives
FIGURES = ("Kvasir-SEG Dice", "CVC Dice", "negatives flagged", "positives found")
SHOWN = (*FIGURES, *(figure + QUIET for figure in FIGURES))


def judging_sets(table: Table, data: Path) -> list[ValidationSet]:
    """Open the frames that a table's runs are scored on."""
    return [
        replace(part, indices=list(range(len(part.frames)))) if part.title == table.unseen else part
        for part in validation_sets(data)
    ]


def halves(part: ValidationSet) -> tuple[ValidationSet, ValidationSet]:
    """Divide a validation set in two, no group in both."""
    group_of = {index: part.groups[part.frames.frames[index].name] for index in part.indices}
    first = set(sorted(set(group_of.values()))[::2])
    one = [index for index in part.indices if group_of[index] in first]
    two = [index for index in part.indices if group_of[index] not in first]
    return replace(part, indices=one), replace(part, indices=two)


def score_run(folder: Path, parts: Sequence[ValidationSet], as_bundled: bool) -> None:
    """Score a finished run and keep what comes out, frame by frame.

    Once at `SETTINGS` and once at settings of the run's own: one half of the
    frames with polyps is scored at what is best for the other half with few negatives flagged.
    `Table` says what `as_bundled` is.
    """
    model = find_model(str(folder / "kept.safetensors"))
    mirror_images = MIRROR_IMAGES["student"] if as_bundled else None
    found_within = FOUND_WITHIN if as_bundled else 1.0
    predictor = Predictor(model, backend="torch", device="cpu", mirror_images=mirror_images)
    divided = [halves(part) for part in parts]
    scores: defaultdict[str, list[FrameScore]] = defaultdict(list)
    curves: list[list[Sequence[OperatingPoint]]] = [[], []]  # to choose by, of either half
    for pair in divided:
        for number, half in enumerate(pair):
            evaluation = score(predictor, half, SETTINGS, CANDIDATES)
            if evaluation.problems:
                raise SystemExit("\n".join(evaluation.problems.values()))
            scores[half.title] += evaluation.frames
            for of_half in curves if half.without_polyps else [curves[number]]:
                of_half.append(evaluation.curve)
    for number in (0, 1):
        point = choose_operating_point(curves[1 - number], MOST_FLAGGED, found_within)
        quiet = MaskSettings(point.threshold, least_peak=point.least_peak)
        for pair in divided:
            half = pair[number]
            scores[half.title + QUIET] += score(predictor, half, quiet).frames
    with replacing(folder / "scores.json") as file:
        content = {part: [asdict(frame) for frame in frames] for part, frames in scores.items()}
        file.write(json.dumps(content).encode())
    print(f"{folder.name}: scored", flush=True)


def read_scores(folder: Path) -> Scores:
    """Read the scores of a run."""
    content = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    return {part: [FrameScore(**frame) for frame in frames] for part, frames in content.items()}


def figures(scores: Scores) -> dict[str, float]:
    """Return the means over the frames of one run, as `SHOWN` names them."""
    values: list[float] = []
    for how in ("", QUIET):
        values += (
            float(_dice(scores[KVASIR + how]).mean()),
            float(_dice(scores[CVC + how]).mean()),
            fmean(frame.flagged for frame in scores[NEGATIVES + how]),
            fmean(frame.found for frame in scores[KVASIR + how] + scores[CVC + how]),
        )
    return dict(zip(SHOWN, values, strict=True))


def difference(
    first: Mapping[int, Scores], second: Mapping[int, Scores], how: str = ""
) -> Interval | None:
    """Compare two variants by the Dice of the same frames, with the same seeds.

    Parameters
    ----------
    first, second : mapping of int to Scores
        By seed.
    how : str
        `QUIET`, or nothing for all at `SETTINGS`.

    Returns
    -------
    Interval or None
        Mean of first minus second over all frames with a polyp, each frame's averaged over the
        seeds that both have; the interval is over groups of frames. None without such a seed.
    """
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return None
    parts = (KVASIR + how, CVC + how)
    differences = [
        np.concatenate([_dice(first[s][part]) - _dice(second[s][part]) for part in parts])
        for s in seeds
    ]
    any_run = first[seeds[0]]
    groups = [f"{part} {frame.group}" for part in parts for frame in any_run[part]]
    return bootstrap_interval(np.mean(differences, axis=0), groups)


def _dice(frames: Sequence[FrameScore]) -> NDArray[np.float64]:
    """Return the Dice of every frame; the frames of all runs come in the same order."""
    return np.array([frame.dice for frame in frames], np.float64)


@dataclass(frozen=True)
class Row:
    """What the finished runs of a variant come to.

    Attributes
    ----------
    variant : str
        A key of the table's `variants`.
    figures : dict of str to dict of int to float
        By figure and seed.
    more_than_plain, more_than_without : Interval or None
        Difference of Dice to labels alone, and to the variant without the last part.
    quiet_more_than_plain : Interval or None
        Difference to labels alone, both quiet.
    """

    variant: str
    figures: dict[str, dict[int, float]]
    more_than_plain: Interval | None
    more_than_without: Interval | None
    quiet_more_than_plain: Interval | None


def rows_of(table: Table, scores: Mapping[str, Mapping[int, Scores]]) -> list[Row]:
    """Bring the scores of a table's runs together, by variant and seed."""
    rows = []
    for name, by_seed in scores.items():
        each = {seed: figures(of_run) for seed, of_run in by_seed.items()}
        by_figure = {
            figure: {seed: of_run[figure] for seed, of_run in each.items()} for figure in SHOWN
        }
        plain, without = (
            None if other == name else difference(by_seed, scores.get(other, {}))
            for other in ("plain", table.variants[name].without)
        )
        quiet = None if name == "plain" else difference(by_seed, scores.get("plain", {}), QUIET)
        rows.append(Row(name, by_figure, plain, without, quiet))
    return rows


def as_markdown(rows: Sequence[Row], recipe: Recipe, table: Table) -> str:
    """Show the rows as a table."""
    start, judges = table.start, "the frozen validation split"
    if table.unlabelled:
        start += f"; {table.unlabelled}'s training frames are there without masks"
    if table.unseen:
        judges += f" and on all frames of {table.unseen}"
    scored = "The last weights are scored"
    if table.as_bundled:
        scored += ", with the mirror image,"
    head = [
        "taught by",
        "seeds",
        *FIGURES,
        "Dice more than labels alone",
        "Dice more than without its last part",
        *SHOWN[len(FIGURES) :],
        f"Dice more than labels alone{QUIET}",
    ]
    lines = [
        f"{recipe.budget.steps} steps of {recipe.batch.size} frames of {recipe.size.side} pixels "
        f"each, {start}. {scored} on {judges}, at native size and "
        f"threshold {SETTINGS.threshold}. Means over the seeds (lowest and highest seed); "
        "differences of Dice over the same frames of both sets, averaged over the seeds that both "
        "have, with 95 % bootstrap intervals over groups of frames: they tell of other frames, not "
        "of other seeds. Quiet: at settings of each run's own, chosen on the other half of the "
        f"frames with polyps with at most {MOST_FLAGGED:.0%} of all negatives flagged. "
        "Every seed's figures are in the JSON file beside this one.",
        "",
        "| " + " | ".join(head) + " |",
        "|---" * len(head) + "|",
    ]
    for row in rows:
        variant = table.variants[row.variant]
        without = _signed(row.more_than_without)
        if row.more_than_without is not None:
            without += f" than {table.variants[variant.without].title}"
        seeds = len(row.figures[FIGURES[0]])
        values = [_over_seeds(list(row.figures[figure].values())) for figure in SHOWN]
        cells = [variant.title, str(seeds), *values[: len(FIGURES)]]
        cells += [_signed(row.more_than_plain), without]
        cells += [*values[len(FIGURES) :], _signed(row.quiet_more_than_plain)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _over_seeds(values: Sequence[float]) -> str:
    return f"{fmean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def _signed(interval: Interval | None) -> str:
    if interval is None:
        return "-"
    return f"{interval.mean:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"


def write_table(table: Table, data: Path) -> None:
    """Score what is finished, and write the table of it."""
    parts: list[ValidationSet] = []
    scores: dict[str, dict[int, Scores]] = {}
    for name in table.variants:
        for folder in sorted(table.runs.glob(f"{name}-*")):
            seed = folder.name.removeprefix(f"{name}-")
            if not seed.isdigit() or not finished(folder):  # another variant's, or a lock
                continue
            if not (folder / "scores.json").is_file():
                parts = parts or judging_sets(table, data)
                score_run(folder, parts, table.as_bundled)
            scores.setdefault(name, {})[int(seed)] = read_scores(folder)
    recipe = read_recipe(table.recipe)
    rows = rows_of(table, scores)
    teachers = {
        name: read_card(kept).model_dump(include={"name", "sha256", "description"})
        for name in table.teachers
        if (kept := table.runs / f"{name}.safetensors").is_file()
    }
    content = {
        "recipe": recipe.model_dump(mode="json", exclude={"title", "data", "teacher", "seed"}),
        "teachers": teachers,
        "rows": [asdict(row) for row in rows],
    }
    with replacing(LOGS / f"{table.name}.json") as file:
        file.write(json.dumps(content, indent=1).encode())
    with replacing(LOGS / f"{table.name}.md") as file:
        file.write(as_markdown(rows, recipe, table).encode())
    print(f"{LOGS / table.name}.md: {len(rows)} of {len(table.variants)} variants")


def main() -> None:
    """Train or score."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="table", choices=list(TABLES), help="which table")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("--only", nargs="+", metavar="VARIANT", help="all of the table by default")
    run.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    run.add_argument("--threads", type=int, default=1, help="processor cores of this process")
    run.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    scoring = commands.add_parser("score")
    scoring.add_argument("data", type=Path)
    options = parser.parse_args()
    table = TABLES[options.recipe]
    try:
        if options.command == "score":
            write_table(table, options.data)
        else:
            torch.set_num_threads(options.threads)
            train_all(table, options.only or list(table.variants), options.seeds, options.device)
    except InputError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
