"""The tasks without a window; modules `cli_...` have tasks with exit codes of their own.

Exit codes: 0 when every readable frame was done (others are named), 2 when the request itself
cannot be met (one sentence says why), 130 when it was stopped with Ctrl-C.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from napari_microaunet import (
    cli_dataset,
    cli_evaluate,
    cli_exchange,
    cli_models,
    cli_training,
)
from napari_microaunet.cli_options import (
    Backend,
    Batch,
    Device,
    FillHoles,
    LargestOnly,
    LeastPeak,
    MirrorImages,
    ModelName,
    Scheduler,
    SmallestArea,
    Threshold,
    identity,
    make_room,
    mask_settings,
    runner,
    write_json,
)
from napari_microaunet.cli_progress import progress, tell
from napari_microaunet.errors import InputError

app = typer.Typer(
    help="Label polyps in colonoscopy frames with a tiny network.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def prelabel(
    frames: Annotated[Path, typer.Argument(help="A folder of frames, a TIFF stack or a video.")],
    out: Annotated[Path, typer.Option(help="Folder for masks, overlays and the table.")],
    model: ModelName = "student",
    backend: Backend = "auto",
    device: Device = "auto",
    batch: Batch = None,
    mirror_images: MirrorImages = None,
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
    from napari_microaunet.prelabel.output import OutputOptions, write_prelabels

    chosen = find_model(model)
    sequence = open_frames(frames.absolute())
    predictor = runner(scheduler, chosen, backend, device, batch, mirror_images)
    settings = mask_settings(chosen, threshold, least_peak, smallest_area, fill_holes, largest_only)
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
        content = {
            "frames": str(frames),
            "out": str(out),
            "model": identity(chosen),
            "settings": asdict(settings),
            "done": len(results) - len(failed),
            "failed": len(failed),
            "results": [asdict(result) for result in results],
        }
        typer.echo(json.dumps(content, indent=1))
    else:
        with_polyp = sum(result.polyps > 0 for result in results)
        done = len(results) - len(failed)
        tell([f"{done} of {len(results)} frames pre-labelled, {with_polyp} with a polyp: {out}"])
    tell(result.problem for result in failed)


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

    make_room(json_file)
    with Console(stderr=True).status("") as status:
        report = benchmark.run_bench(benchmark.QUICK if quick else benchmark.Size(), status.update)
    if json_file is not None:
        write_json(json_file, asdict(report))
    table = Table("network", "backend", "cores", "ms per pass", "passes/s, batches of 8")
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


app.command()(prelabel)
app.command()(cli_evaluate.evaluate)
app.command()(bench)
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
    tell([sentence])
    sys.exit(2)
