"""``microaunet train`` and ``microaunet finetune``.

Exit codes: 0 when the training is over and its model written, 2 when the request cannot be met
(one sentence says why), 3 when the training itself went wrong (likewise), 130 when it was stopped;
the same command goes on with a stopped or killed one.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import tomllib
from concurrent.futures import CancelledError
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from napari_microaunet.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from napari_microaunet.distillation.bootstrap import Interval
    from napari_microaunet.distillation.evaluation import Summary
    from napari_microaunet.distillation.events import Event
    from napari_microaunet.distillation.finetune import BeforeAndAfter
    from napari_microaunet.distillation.recipe import Value

WENT_WRONG, STOPPED = 3, 130

Device = Annotated[
    str, typer.Option(help="cpu, cuda, cuda:1, mps or auto: a graphics card if there is one.")
]
Threads = Annotated[
    int | None, typer.Option(min=1, help="Processor cores to use; all of them by default.")
]
Events = Annotated[
    bool, typer.Option("--events", help="Tell what happens as JSON, an object a line, on stdout.")
]


def train(
    recipe: Annotated[Path, typer.Argument(help="A TOML file; see training/recipes/.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the run, runs/NAME OF RECIPE by default; labels that a teacher gives "
            "once are kept beside it, for other runs."
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Instead of the recipe's.")] = None,
    device: Device = "auto",
    threads: Threads = None,
    events: Events = False,
) -> None:
    """Train a network by a recipe, or go on with a training that was stopped.

    Start it with torchrun to share the work among several processes.
    """
    from napari_microaunet.distillation import trainer
    from napari_microaunet.distillation.model_file import Scorer, write_model
    from napari_microaunet.distillation.recipe import changed, read_recipe
    from napari_microaunet.distillation.run_folder import RunFolder
    from napari_microaunet.prelabel.backends import torch_device

    chosen = read_recipe(recipe)
    if seed is not None:
        chosen = changed(chosen, {"seed": seed})
    device = torch_device(device)
    _use_threads(threads)
    with _training(events) as (report, stopped):
        run = RunFolder(Path("runs") / recipe.stem if out is None else out, chosen)
        report({"event": "recipe", "recipe": chosen.model_dump(mode="json")})
        dataset = run.dataset(stopped)
        outcome = trainer.train(
            chosen, dataset, run, device=device, report=report, cancelled=stopped
        )
        if not outcome.finished:
            raise CancelledError
        if _speaks_for_all():
            scorer = Scorer(device, report, stopped)
            model = run.path / "model.safetensors"
            _name(write_model(model, run, dataset, outcome, scorer).problems)


def finetune(
    dataset: Annotated[
        Path, typer.Argument(help="A curated dataset, or a folder with images/ and masks/.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the runs, the new model and the report.")],
    start: Annotated[
        str, typer.Option("--from", help="Model to start from: its name, or its file.")
    ] = "student",
    teacher: Annotated[
        str, typer.Option(help="Model that teaches: its name, its file, or none.")
    ] = "expert",
    adapt_teacher: Annotated[
        bool, typer.Option("--adapt-teacher", help="Fine-tune the teacher first.")
    ] = False,
    minutes: Annotated[float | None, typer.Option(min=0.1, help="Time to train.")] = None,
    epochs: Annotated[
        float | None, typer.Option(min=0.1, help="Passes over the frames, instead of minutes.")
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(help="Frames with masks to look for forgetting; the sample frames else."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything that is drawn.")] = 1,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="SECTION.FIELD=VALUE",
            help="Change the recipe, such as optimiser.learning_rate=1e-3; may be given again.",
        ),
    ] = None,
    device: Device = "auto",
    threads: Threads = None,
    events: Events = False,
) -> None:
    """Fine-tune a model on your frames, in two stages, and compare it with the old one.

    The same command goes on where it was stopped. The frames are divided by video, folder or
    likeness; what is held out takes no part. Without --minutes or --epochs it takes 10 minutes.
    """
    from napari_microaunet.distillation import finetune as finetuning
    from napari_microaunet.distillation.recipe import Budget

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(
            "Only microaunet train shares its work among processes: start finetune without "
            "torchrun."
        )
    if minutes is not None and epochs is not None:
        raise InputError("Give either --minutes or --epochs.")
    if not all(map(isfinite, filter(None, (minutes, epochs)))):
        raise InputError("Give a number of minutes or epochs, such as --minutes 10.")
    budget = Budget(minutes=10 if minutes is None and epochs is None else minutes, epochs=epochs)
    _use_threads(threads)
    with _training(events) as (report, stopped):
        result = finetuning.finetune(
            dataset,
            out,
            budget,
            start=start,
            teacher=None if teacher == "none" else teacher,
            adapt_teacher=adapt_teacher,
            reference=reference,
            seed=seed,
            changes=dict(_change(one) for one in changes or ()),
            device=device,
            report=report,
            cancelled=stopped,
        )
        if result is None:
            raise CancelledError
        report({"event": "report", **json.loads(finetuning.as_json(result))})
    _name(result.problems)
    if not events:
        console = Console()
        console.print(_before_and_after("held-out frames", result.held_out))
        console.print(_before_and_after("reference frames (forgetting)", result.reference))
        typer.echo(f"The new model: {result.model}")


def _name(problems: Mapping[str, str]) -> None:
    """Name held-out frames that are in no figure."""
    for problem in problems.values():
        typer.echo(f"left out: {problem}", err=True)


def _change(text: str) -> tuple[str, Value]:
    """Read SECTION.FIELD=VALUE; the value as TOML has it, or as text."""
    name, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"--set {text} has no value; write it as optimiser.learning_rate=1e-3.")
    try:
        return name, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name, value


def _before_and_after(title: str, both: BeforeAndAfter) -> Table:
    """Show what the new model gained or lost on some frames."""
    table = Table(
        "score",
        "before",
        "after",
        "difference (95 % interval)",
        title=title,
        caption="\n".join(both.difference.doubts),
    )

    def row(name: str, of: Callable[[Summary], Interval | None], by: Interval | None) -> None:
        before, after = of(both.before), of(both.after)
        if before is not None and after is not None:
            change = "" if by is None else f"{by.mean:+.3f}  ({by.low:+.3f} to {by.high:+.3f})"
            table.add_row(name, f"{before.mean:.3f}", f"{after.mean:.3f}", change)

    row("Dice per frame", lambda summary: summary.dice, both.difference.dice)
    row("boundary F", lambda summary: summary.boundary_f, None)
    row("polyps found", lambda summary: summary.positives_found, None)
    row(
        "negatives flagged",
        lambda summary: summary.negatives_flagged,
        both.difference.negatives_flagged,
    )
    return table


@contextmanager
def _training(
    as_events: bool,
) -> Iterator[tuple[Callable[[Event], None], Callable[[], bool]]]:
    """Give what tells of a training and what tells that it is to stop; exit as its end demands."""
    from torch import OutOfMemoryError

    from napari_microaunet.distillation.trainer import MEMORY_FULL, TrainingError

    with _told(as_events) as report, _stop_on_signals() as stopped:
        try:
            yield report, stopped
        except TrainingError as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(WENT_WRONG) from error
        except OutOfMemoryError as error:
            typer.echo(MEMORY_FULL, err=True)
            raise typer.Exit(WENT_WRONG) from error
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            typer.echo(
                f"{error.filename or 'A file'} could not be written ({error.strerror}): make room; "
                "the same command goes on.",
                err=True,
            )
            raise typer.Exit(WENT_WRONG) from error
        except CancelledError as error:
            if _speaks_for_all():
                typer.echo("Stopped; the same command goes on.", err=True)
            raise typer.Exit(STOPPED) from error


def _speaks_for_all() -> bool:
    """Tell whether this process is the first of those that torchrun started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def _use_threads(count: int | None) -> None:
    if count is not None:
        import torch

        torch.set_num_threads(count)


@contextmanager
def _stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C and a polite kill end the work after the step at hand, the second one at once."""
    asked = False
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def give_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def stop(*_: Any) -> None:
        nonlocal asked
        asked = True
        give_back()

    for number in before:
        signal.signal(number, stop)
    try:
        yield lambda: asked
    finally:
        give_back()


@contextmanager
def _told(as_events: bool) -> Iterator[Callable[[Event], None]]:
    """Show events as JSON lines on stdout, or as a bar on stderr."""
    if not _speaks_for_all():
        yield lambda _: None
        return
    if as_events:
        yield _print_line
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[note]}"),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("starting", total=1.0, note="")

        def show(event: Event) -> None:
            match event:
                case {"event": "recipe", "recipe": recipe}:
                    console.print_json(data=recipe)
                case {"event": "time box", "part": part, "steps": steps, "title": title}:
                    console.print(f"{part}: about {steps} steps fit: {title}")
                case {"event": "started", "problems": problems, "unused_frames": unused}:
                    if event["step"] > 0:
                        console.print(
                            f"going on after step {event['step']}, with the frames that the "
                            "training began with; another --out begins anew"
                        )
                    for problem in problems.values():
                        console.print(f"left out: {problem}", markup=False)
                    if unused:
                        console.print(
                            f"{unused} frames without a mask are not used: no model teaches, their "
                            "video or folder is held out, or there are enough others"
                        )
                case {"event": "out of memory", "chunk": chunk}:
                    console.print(
                        f"the graphics card's memory is full: going on with {chunk} frames at once"
                    )
                case {"event": "step", "progress": progress, "stage": stage, "losses": losses}:
                    note = f"loss {losses['loss']:.3f}"
                    bar.update(task, description=stage, completed=progress, note=note)
                case {"event": "validation", "dice": dice, "step": step, "best": best}:
                    flagged = event["negatives_flagged"]
                    alarms = "" if flagged is None else f", negatives flagged {flagged:.0%}"
                    mark = ", the best so far" if best else ""
                    console.print(f"step {step}: validation Dice {dice:.3f}{alarms}{mark}")
                case {"event": name, "done": done, "total": total}:
                    bar.update(task, description=name, completed=done / total)

        yield show


def _print_line(event: Event) -> None:
    """Write one event as a line of JSON, at once; nobody reading any more is a polite kill."""
    try:
        sys.stdout.write(json.dumps(event) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # Else Python complains of what it cannot write when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if callable(signal.getsignal(signal.SIGTERM)):  # unless it is stopping already
            signal.raise_signal(signal.SIGTERM)
