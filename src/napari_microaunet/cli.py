"""The tasks without a window; those of `cli_training` have exit codes of their own.

Exit codes: 0 when every readable frame was done (others are named), 1 when some
frame could not be scored, 2 when the request itself cannot be met (one sentence
says why), 130 when it was stopped with Ctrl-C.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from napari_microaunet import cli_dataset, cli_exchange, cli_models, cli_training
from napari_microaunet.atomic import replacing
from napari_microaunet.cli_progress import progress
from napari_microaunet.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_microaunet.distillation.bootstrap import Interval
    from napari_microaunet.distillation.comparison import Comparison
    from napari_microaunet.distillation.evaluation import Evaluation, ReferenceMasks
    from napari_microaunet.distillation.thresholds import OperatingPoint
    from napari_microaunet.frames.sequence import FrameSequence
    from napari_microaunet.networks.library import Model
    from napari_microaunet.prelabel.predictor import TaskRunner

app = typer.Typer(
    help="Label polyps in colonoscopy frames with a tiny network.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ModelName = Annotated[
    str,
    typer.Option(
        "--model", help="student, expert, teacher, the name of a model of yours, or its file."
    ),
]
Backend = Annotated[str, typer.Option(help="What runs the network: auto, onnx or torch.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
Batch = Annotated[
    int | None,
    typer.Option(min=1, help="Frames per call of the network; by default what suits the device."),
]
Augment = Annotated[
    bool | None,
    typer.Option(
        help="Average over mirror images, four times the work; by default as the model's card says."
    ),
]
Threshold = Annotated[
    float | None,
    typer.Option(
        min=0, max=1, help="Probability from which on a pixel is polyp; by default the model's."
    ),
]
LeastPeak = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        help="Drop polyps that nowhere reach this probability. Default: the model's own.",
    ),
]
SmallestArea = Annotated[
    float,
    typer.Option(min=0, max=1, help="Drop polyps below this share of the picture's area."),
]
FillHoles = Annotated[bool, typer.Option(help="Fill what a polyp encloses.")]
LargestOnly = Annotated[bool, typer.Option("--largest-only", help="Keep one polyp per frame.")]
Scheduler = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS", help="Spread the frames over the dask.distributed cluster there."
    ),
]


@app.command()
def prelabel(
    frames: Annotated[Path, typer.Argument(help="A folder of frames, a TIFF stack or a video.")],
    out: Annotated[Path, typer.Option(help="Folder for masks, overlays and the table.")],
    model: ModelName = "student",
    backend: Backend = "auto",
    device: Device = "auto",
    batch: Batch = None,
    augment: Augment = None,
    threshold: Threshold = None,
    least_peak: LeastPeak = None,
    smallest_area: SmallestArea = 0.001,
    fill_holes: FillHoles = True,
    largest_only: LargestOnly = False,
    scheduler: Scheduler = None,
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Write frames with outlined polyps, too.")
    ] = False,
    labels: Annotated[
        bool, typer.Option("--labels", help="Number the polyps 1..n instead of writing 255.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files of an earlier run.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what was done as JSON instead of words.")
    ] = False,
) -> None:
    """Pre-label frames: a mask per frame, overlays if wanted, a table of confidences."""
    from dataclasses import asdict

    from napari_microaunet.frames import open_frames
    from napari_microaunet.networks.library import find_model
    from napari_microaunet.prelabel.masks import MaskSettings
    from napari_microaunet.prelabel.output import OutputOptions, write_prelabels

    chosen = find_model(model)
    sequence = open_frames(frames.absolute())
    predictor = _runner(scheduler, chosen, backend, device, batch, augment)
    settings = MaskSettings(
        chosen.card.threshold if threshold is None else threshold,
        smallest_area,
        fill_holes,
        largest_only,
        chosen.card.least_peak if least_peak is None else least_peak,
    )
    with progress("Pre-labelling") as report:
        results = write_prelabels(
            predictor,
            sequence,
            out,
            settings,
            OutputOptions(overlay, labels, overwrite),
            progress=report,
        )
    failed = [result for result in results if result.problem]
    if as_json:
        _print_json(
            {
                "frames": str(frames),
                "out": str(out),
                "model": _identity(chosen),
                "settings": asdict(settings),
                "done": len(results) - len(failed),
                "failed": len(failed),
                "results": [asdict(result) for result in results],
            }
        )
    else:
        with_polyp = sum(result.polyps > 0 for result in results)
        done = len(results) - len(failed)
        _say(f"{done} of {len(results)} frames pre-labelled, {with_polyp} with a polyp: {out}")
    _name_problems({result.name: result.problem for result in failed})


@app.command()
def evaluate(
    data: Annotated[Path, typer.Option(help="Folder with images/ and masks/.")],
    model: ModelName = "student",
    compare: Annotated[
        str | None,
        typer.Option(help="Another model, scored on the same frames; shows how the two differ."),
    ] = None,
    frames_from: Annotated[
        Path | None,
        typer.Option(help="Text file with the names of the frames, or of their folders, to take."),
    ] = None,
    no_polyps: Annotated[
        bool,
        typer.Option("--no-polyps", help="No frame of DATA shows a polyp; masks are not needed."),
    ] = False,
    backend: Backend = "auto",
    device: Device = "auto",
    batch: Batch = None,
    augment: Augment = None,
    threshold: Threshold = None,
    least_peak: LeastPeak = None,
    smallest_area: SmallestArea = 0.001,
    fill_holes: FillHoles = True,
    largest_only: LargestOnly = False,
    scheduler: Scheduler = None,
    curve: Annotated[
        bool, typer.Option("--curve", help="Show what every other threshold would come to.")
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write every score to this file.")
    ] = None,
) -> None:
    """Score a model against reference masks, at the native size of the frames.

    Frames of one clip resemble each other, so intervals are over groups: the folders of
    frames, or a table sequences.csv with columns frame and sequence in DATA. Of a curated
    dataset the held-out frames are scored, unless --frames-from says otherwise, and its
    manifest says which frames belong together.
    """
    from dataclasses import asdict, replace

    from napari_microaunet.distillation import comparison, evaluation
    from napari_microaunet.distillation.thresholds import THRESHOLDS
    from napari_microaunet.networks.library import find_model
    from napari_microaunet.prelabel.masks import MaskSettings

    chosen = [find_model(name) for name in (model, compare) if name is not None]
    judges = _judges(data, frames_from, no_polyps)
    if scheduler is not None and judges.reference is not None:
        raise InputError(
            f"{data} is a curated dataset, which a cluster cannot score; leave --scheduler out."
        )
    console = Console()
    results = []
    reports: list[dict[str, Any]] = []
    for one in chosen:
        settings = MaskSettings(
            one.card.threshold if threshold is None else threshold,
            smallest_area,
            fill_holes,
            largest_only,
            one.card.least_peak if least_peak is None else least_peak,
        )
        predictor = _runner(scheduler, one, backend, device, batch, augment)
        with progress(f"Scoring {one.name}") as report:
            result = evaluation.evaluate(
                predictor,
                judges.sequence,
                settings,
                judges.indices,
                reference=judges.reference,
                no_polyps=no_polyps,
                groups=judges.groups,
                alternatives=[replace(settings, threshold=step) for step in THRESHOLDS]
                if curve or json_file is not None
                else (),
                progress=report,
            )
        results.append(result)
        augmented = one.card.augment if augment is None else augment
        about = {"model": _identity(one), "settings": asdict(settings), "augment": augmented}
        reports.append(about | asdict(result))
        console.print(_scores(one.name, result))
        if curve:
            console.print(_curve(one.name, result.curve))
    content = {"data": str(data)} | reports[0]
    if compare is not None:
        difference = comparison.compare(results[0].frames, results[1].frames)
        console.print(_difference(f"{chosen[0].name} - {chosen[1].name}", difference))
        content |= {"compare": reports[1], "difference": asdict(difference)}
    if json_file is not None:
        _write_json(json_file, content)
    _name_problems(results[0].problems)
    raise typer.Exit(1 if results[0].problems else 0)


@app.command()
def bench(
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write every figure to this file.")
    ] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="A few small frames: tries the command, not the machine."),
    ] = False,
) -> None:
    """Measure speed and memory on this machine; leave it alone meanwhile."""
    from dataclasses import asdict

    from napari_microaunet.prelabel import bench as benchmark

    with Console(stderr=True).status("") as status:
        report = benchmark.run_bench(benchmark.QUICK if quick else benchmark.Size(), status.update)
    if json_file is not None:
        _write_json(json_file, asdict(report))
    table = Table("network", "backend", "cores", "ms per frame", "frames/s, batches of 8")
    for cost in report.networks:
        table.add_row(
            cost.network,
            cost.backend,
            str(cost.cores),
            f"{cost.latency_ms:.1f}",
            f"{cost.frames_per_second:.0f}",
        )
    console = Console()
    console.print(table)
    pipeline = report.pipeline
    console.print(
        f"{pipeline.frames} JPEG frames of {pipeline.width} x {pipeline.height} to masks on disk: "
        f"{pipeline.pipeline_per_second:.1f} frames/s, a plain loop "
        f"{pipeline.plain_per_second:.1f}: {pipeline.speedup:.2f} times as fast"
    )
    for memory in report.memory:
        console.print(f"peak memory for {memory.frames} frames: {memory.peak_mb:.0f} MB")


app.command()(cli_training.train)
app.command()(cli_training.finetune)
app.command()(cli_exchange.export)
app.command("import")(cli_exchange.import_labels)
app.command()(cli_dataset.check)
app.add_typer(cli_dataset.app, name="dataset")
app.add_typer(cli_models.app, name="models")


def main() -> None:
    """Run the command line; what the user can mend is one sentence, not a traceback."""
    try:
        app()
    except InputError as error:
        _give_up(str(error))
    except OSError as error:
        _give_up(
            f"{error.filename or 'A file'} cannot be used ({error.strerror or error}): "
            "check its path, its permissions and the free space."
        )


def _give_up(sentence: str) -> NoReturn:
    _say(sentence)
    sys.exit(2)


def _say(text: str) -> None:
    typer.echo(text, err=True)


def _print_json(content: dict[str, Any]) -> None:
    typer.echo(json.dumps(content, indent=1))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(json.dumps(content, indent=1).encode())


def _name_problems(problems: dict[str, str]) -> None:
    for problem in problems.values():
        _say(problem)


def _identity(model: Model) -> dict[str, str]:
    return {"name": model.name, "file": str(model.path), "sha256": model.card.sha256}


def _runner(
    scheduler: str | None,
    model: Model,
    backend: str,
    device: str,
    batch: int | None,
    augment: bool | None,
) -> TaskRunner:
    """Make a model ready to run here, or on a cluster."""
    from napari_microaunet.prelabel.predictor import Predictor

    if scheduler is None:
        return Predictor(model, backend, device, batch, augment)
    from napari_microaunet.prelabel.cluster import ClusterPredictor

    return ClusterPredictor(scheduler, model, backend, device, batch, augment)


class _Judges(NamedTuple):
    """The frames that a model is scored on."""

    sequence: FrameSequence
    indices: Sequence[int]
    groups: dict[str, str]
    reference: ReferenceMasks | None


def _judges(data: Path, frames_from: Path | None, no_polyps: bool) -> _Judges:
    """Open frames and find out which of them judge, and which belong together."""
    from napari_microaunet.curation.dataset import open_dataset
    from napari_microaunet.curation.groups import find_groups
    from napari_microaunet.curation.manifest import MANIFEST_NAME
    from napari_microaunet.distillation.model_file import held_out_indices
    from napari_microaunet.frames import open_frames

    if (data / MANIFEST_NAME).is_file() and not no_polyps:
        dataset = open_dataset(data.absolute())
        if frames_from is not None:
            indices = _listed(dataset.sequence, frames_from)
        else:
            indices = held_out_indices(dataset)
            if not indices:
                raise InputError(
                    f"{data} holds out no frames with masks; name those to score (--frames-from)."
                )
            split = dataset.frames[indices[0]].split
            _say(f"{data} is a curated dataset: the {len(indices)} frames of its {split} split")
        return _Judges(dataset.sequence, indices, dataset.groups, dataset.mask)
    sequence = open_frames(data.absolute())
    if not sequence.has_masks and not no_polyps:
        raise InputError(
            f"{data} holds no masks to score against: put them in masks/ beside images/, "
            "or say that there is no polyp in any frame (--no-polyps)."
        )
    chosen = range(len(sequence)) if frames_from is None else _listed(sequence, frames_from)
    with Console(stderr=True).status("Looking for frames that resemble each other"):
        names = [frame.name for frame in sequence.frames]
        groups = dict(zip(names, find_groups(sequence), strict=True))
    return _Judges(sequence, chosen, groups, None)


def _listed(sequence: FrameSequence, path: Path) -> list[int]:
    """Find the frames that a list names; a line may also name a folder of frames."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not a text file; one name of a frame a line is needed."
        ) from error
    wanted = {line.strip(): False for line in lines if line.strip()}
    indices = []
    for index, frame in enumerate(sequence.frames):
        parts = frame.name.split("/")
        for depth in range(1, len(parts) + 1):
            if (name := "/".join(parts[:depth])) in wanted:
                wanted[name] = True
                indices.append(index)
                break
    missing = [name for name, found in wanted.items() if not found]
    if missing:
        raise InputError(
            f'{path} names "{missing[0]}", which is not in {sequence.path}; '
            "names are those of the files, without folder images/ and without extension."
        )
    if not indices:
        raise InputError(f"{path} names no frame.")
    return indices


def _scores(title: str, result: Evaluation) -> Table:
    """Show what there is a figure for."""
    from napari_microaunet.curation.placing import POLYP_SIZES

    summary, calibration = result.summary, result.calibration
    rows = {
        "frames with a polyp": _counted(summary.positives, summary.positive_groups),
        "  Dice per frame": _mean(summary.dice, _decimal),
        "  IoU per frame": _mean(summary.iou, _decimal),
        "  boundary F, 0.75 % of the diagonal": _mean(summary.boundary_f, _decimal),
        "  Hausdorff 95, native px": _mean(summary.hausdorff95, "{:.1f}".format),
        "  Dice over all pixels": _shown(summary.global_dice, _decimal),
        "  IoU over all pixels": _shown(summary.global_iou, _decimal),
        "  found (mask meets the polyp)": _mean(summary.positives_found, _percent),
        "  flagged (mask not empty)": _mean(summary.positives_flagged, _percent),
        "  rank correlation of confidence and Dice": _shown(
            summary.confidence_rank_correlation, _decimal
        ),
    }
    for size, part in summary.by_size.items():
        least = f" (≥ {100 * POLYP_SIZES[size]:.0f} %)" if POLYP_SIZES[size] else ""
        rows[f"  Dice, {size} polyps{least}, {part.frames} frames"] = _mean(part.dice, _decimal)
    rows |= {
        "frames without a polyp": _counted(summary.negatives, summary.negative_groups),
        "  flagged (false alarms)": _mean(summary.negatives_flagged, _percent),
    }
    if calibration is not None:
        rows |= {
            "pixels: expected calibration error": _decimal(calibration.expected_error),
            "pixels: Brier score": _decimal(calibration.brier),
        }
    return _table(title, rows)


def _counted(frames: int, groups: int) -> str:
    """Say how many frames there are, and what their intervals are over where it is groups."""
    if groups in (0, frames):
        return str(frames)
    return f"{frames}, all of one group" if groups == 1 else f"{frames}, of {groups} groups"


def _curve(title: str, points: Sequence[OperatingPoint]) -> Table:
    """Show every threshold; a dash where there is no such frame."""
    table = Table("threshold", "Dice per frame", "found", "false alarms", title=title)
    for point in points:
        table.add_row(
            f"{point.threshold:.2f}",
            _shown(point.dice, _decimal) or "-",
            _shown(point.positives_found, _percent) or "-",
            _shown(point.negatives_flagged, _percent) or "-",
        )
    return table


def _difference(title: str, difference: Comparison) -> Table:
    """Show what there is a figure for, and what proves nothing."""
    from napari_microaunet.distillation.comparison import proves_nothing

    p_value = None if proves_nothing(difference.groups) else difference.dice_p_value
    rows = {
        "Dice per frame": _mean(difference.dice, "{:+.3f}".format),
        "  Wilcoxon signed-rank test, p": _shown(p_value, "{:.2g}".format),
        "false alarms": _mean(difference.negatives_flagged, lambda share: f"{100 * share:+.1f} %"),
    }
    return _table(title, rows, "\n".join(difference.doubts))


def _table(title: str, rows: dict[str, str | None], caption: str = "") -> Table:
    table = Table("score", "value (95 % interval)", title=title, caption=caption)
    for name, value in rows.items():
        if value is not None:
            table.add_row(name, value)
    return table


def _mean(interval: Interval | None, show: Callable[[float], str]) -> str | None:
    if interval is None:
        return None
    return f"{show(interval.mean)}  ({show(interval.low)} to {show(interval.high)})"


def _shown(value: float | None, show: Callable[[float], str]) -> str | None:
    return None if value is None else show(value)


def _decimal(value: float) -> str:
    return f"{value:.3f}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
