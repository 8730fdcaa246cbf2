"""``microaunet dataset`` and ``microaunet check``.

Exit codes: 0 when all is done, 2 when the request cannot be met (one sentence says why), 130 when
it was stopped. ``check`` has 1 when the worst that it finds is a warning, 3 when it is an error;
``diff`` has 1 when there is a difference.
"""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from napari_microaunet.cli_options import IncludeChoice
from napari_microaunet.cli_progress import progress, tell
from napari_microaunet.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_microaunet.curation.check import Finding
    from napari_microaunet.curation.incoming import IncomingFrame
    from napari_microaunet.curation.writer import WriteOptions, WriteResult

_WARNING, _ERROR = 1, 3
_EXIT_CODES = {None: 0, "note": 0, "warning": _WARNING, "error": _ERROR}
_DIFFERENT = 1

app = typer.Typer(
    help="Curated datasets: write, append, compare and reconcile.", no_args_is_help=True
)


Sources = Annotated[
    list[Path],
    typer.Argument(help="Sessions (NAME.microaunet), datasets, folders with images/ and masks/."),
]
Include = Annotated[
    IncludeChoice,
    typer.Option(
        help="Of sessions: accepted frames; edited ones, which masks from files are, too; all, "
        "the rest without a mask."
    ),
]
Link = Annotated[
    bool, typer.Option("--link", help="Make hard links to image files instead of copies.")
]
Deidentify = Annotated[
    bool,
    typer.Option("--deidentify", help="Blank all around the picture, and drop metadata."),
]
Blank = Annotated[
    list[str] | None,
    typer.Option(help="top,left,bottom,right in pixels, blanked in every frame; may be repeated."),
]
GroupPattern = Annotated[
    str | None,
    typer.Option(help="Regular expression that finds the patient or video in a frame's name."),
]
SplitShares = Annotated[
    tuple[float, float, float],
    typer.Option("--shares", help="Of training, validation and test; they add up to 1."),
]
Seed = Annotated[int, typer.Option(min=0, help="Of the splits.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print it as JSON instead of words.")]
First = Annotated[Path, typer.Argument(help="A dataset.")]
Second = Annotated[Path, typer.Argument(help="Another one of the same frames.")]
Out = Annotated[Path, typer.Option(help="Folder of the new dataset; must not exist.")]


@app.command()
def write(
    sources: Sources,
    out: Out,
    include: Include = IncludeChoice.ACCEPTED,
    link: Link = False,
    deidentify: Deidentify = False,
    blank: Blank = None,
    group_pattern: GroupPattern = None,
    shares: SplitShares = (0.7, 0.15, 0.15),
    seed: Seed = 1,
    as_json: AsJson = False,
) -> None:
    """Write a dataset from sessions and folders, or merge datasets, which keep their splits.

    Frames of one video, folder, table sequences.csv or pattern, and near-duplicates, are never
    divided between splits.
    """
    options = _options(link, deidentify, blank, shares, seed)
    _write(sources, out, include, group_pattern, options, append=False, as_json=as_json)


@app.command()
def append(
    dataset: Annotated[Path, typer.Argument(help="The dataset that grows.")],
    sources: Sources,
    include: Include = IncludeChoice.ACCEPTED,
    link: Link = False,
    deidentify: Deidentify = False,
    blank: Blank = None,
    group_pattern: GroupPattern = None,
    shares: SplitShares = (0.7, 0.15, 0.15),
    seed: Seed = 1,
    as_json: AsJson = False,
) -> None:
    """Add frames to a dataset, and update those that it has; none moves to another split."""
    options = _options(link, deidentify, blank, shares, seed)
    _write(sources, dataset, include, group_pattern, options, append=True, as_json=as_json)


@app.command()
def diff(first: First, second: Second, as_json: AsJson = False) -> None:
    """Tell how the manifest of the second dataset differs from that of the first."""
    from napari_microaunet.curation.agreement import compare_manifests
    from napari_microaunet.curation.dataset import open_dataset

    found = compare_manifests(open_dataset(first).manifest, open_dataset(second).manifest)
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=1))
    else:
        lines = [f"- {name}" for name in found.removed] + [f"+ {name}" for name in found.added]
        lines += [f"~ {name}: {', '.join(fields)}" for name, fields in found.changed.items()]
        typer.echo("\n".join(lines) if lines else "No difference.")
    if found.removed or found.added or found.changed:
        raise typer.Exit(_DIFFERENT)


@app.command()
def compare(
    first: First,
    second: Second,
    worst: Annotated[int, typer.Option(min=1, help="Frames to list.")] = 20,
    decisions: Annotated[
        Path | None,
        typer.Option(help="Write a table to this CSV file, to decide in whose masks are taken."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare two annotators' masks of the same frames, the worst agreement first."""
    from statistics import mean

    from napari_microaunet.curation.agreement import compare_annotations, write_decisions
    from napari_microaunet.curation.dataset import open_dataset

    with progress("Comparing") as report:
        found = compare_annotations(open_dataset(first), open_dataset(second), report)
    if decisions is not None:
        write_decisions(found, decisions)
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in found], indent=1))
        return
    table = Table("frame", "Dice", "kappa", "outlines apart, px", "pixels that differ")
    for one in found[:worst]:
        distance = "-" if one.boundary_distance is None else f"{one.boundary_distance:.1f}"
        table.add_row(
            escape(one.name),
            f"{one.dice:.3f}",
            f"{one.kappa:.3f}",
            distance,
            str(one.different_pixels),
        )
    console = Console()
    console.print(table)
    console.print(
        f"{len(found)} frames, {sum(one.identical for one in found)} of them identical; "
        f"mean Dice {mean(one.dice for one in found):.3f}, "
        f"mean kappa {mean(one.kappa for one in found):.3f}"
    )


@app.command()
def reconcile(
    datasets: Annotated[
        list[Path], typer.Argument(help="Two or more datasets of the same frames.")
    ],
    decisions: Annotated[
        Path,
        typer.Option(
            help="CSV file with the columns frame and take: 1, 2, ... for the mask of a dataset, "
            "identical, or intersection, union, majority; `compare --decisions` writes it."
        ),
    ],
    out: Out,
) -> None:
    """Make one dataset of several annotators', frame by frame as decided."""
    from napari_microaunet.curation import agreement
    from napari_microaunet.curation.dataset import open_dataset
    from napari_microaunet.curation.writer import write_dataset

    if len(datasets) < 2:
        raise InputError("Give two datasets or more to reconcile.")
    opened = [open_dataset(path) for path in datasets]
    decided = agreement.read_decisions(decisions, len(opened))
    with progress("Writing") as report:
        result = write_dataset(agreement.reconcile(opened, decided), out, progress=report)
    _tell(result, out, as_json=False)


def check(
    dataset: Annotated[
        Path, typer.Argument(help="A curated dataset, or a folder with images/ and masks/.")
    ],
    html: Annotated[
        Path | None, typer.Option(help="Write a report with pictures to this file.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Look for faults of frames, masks and splits.

    The exit code is 0 where there are notes at most, 1 with warnings, 3 with errors.
    """
    from napari_microaunet.curation.check import gather, run_checks
    from napari_microaunet.curation.check import report as reports
    from napari_microaunet.curation.dataset import open_dataset

    with Console(stderr=True).status("Opening"):
        opened = open_dataset(dataset)
    with progress("Checking") as report:
        evidence = gather(opened, report)
    findings = run_checks(evidence)
    if html is not None:
        html.parent.mkdir(parents=True, exist_ok=True)
        reports.write_html(evidence, findings, html)
    if as_json:
        typer.echo(json.dumps(reports.as_json(evidence, findings), indent=1))
    else:
        Console().print(_found(findings))
    raise typer.Exit(_EXIT_CODES[reports.worst(findings)])


def _found(findings: Sequence[Finding]) -> Table:
    """Show each check that found something, with its first finding."""
    from napari_microaunet.curation.check import CHECKS

    table = Table("severity", "what", "findings", "the first")
    for name in dict.fromkeys(finding.check for finding in findings):
        found = [finding for finding in findings if finding.check == name]
        first = found[0]
        named = first.text if len(first.frames) != 1 else f"{first.frames[0]}: {first.text}"
        table.add_row(first.severity, CHECKS[name].title, str(len(found)), escape(named))
    return table


def _options(
    link: bool,
    deidentify: bool,
    blank: Sequence[str] | None,
    shares: tuple[float, float, float],
    seed: int,
) -> WriteOptions:
    from napari_microaunet.curation.deidentify import Deidentifier, parse_box
    from napari_microaunet.curation.placing import Shares
    from napari_microaunet.curation.writer import WriteOptions

    if blank and not deidentify:
        raise InputError("--blank is a part of --deidentify; give both.")
    if link and deidentify:
        raise InputError("A frame that is de-identified cannot be a link; leave out --link.")
    deidentifier = Deidentifier(*map(parse_box, blank or ())) if deidentify else None
    return WriteOptions(link, deidentifier, Shares(*shares), seed)


def _write(
    sources: Sequence[Path],
    folder: Path,
    include: IncludeChoice,
    group_pattern: str | None,
    options: WriteOptions,
    *,
    append: bool,
    as_json: bool,
) -> None:
    from napari_microaunet.curation.incoming import incoming_frames, open_source
    from napari_microaunet.curation.session import Session
    from napari_microaunet.curation.writer import write_dataset

    try:
        pattern = None if group_pattern is None else re.compile(group_pattern)
    except re.error as error:
        raise InputError(f'"{group_pattern}" is no regular expression: {error}.') from error
    with ExitStack() as stack:
        frames: list[IncomingFrame] = []
        for path in sources:
            source = open_source(path)
            if isinstance(source, Session):
                stack.enter_context(source)
                tell(source.remarks)
            frames += incoming_frames(source, include.value, pattern)
        with progress("Writing") as report:
            result = write_dataset(frames, folder, options, append=append, progress=report)
    _tell(result, folder, as_json=as_json)


def _tell(result: WriteResult, folder: Path, *, as_json: bool) -> None:
    from napari_microaunet.curation.check.statistics import count_kinds

    kinds = count_kinds(result.manifest)
    if as_json:
        content: dict[str, Any] = {
            "dataset": str(folder),
            "added": result.added,
            "updated": result.updated,
            "unchanged": result.unchanged,
            "left_out": result.left_out,
            "splits": kinds,
        }
        typer.echo(json.dumps(content, indent=1))
        return
    for name, reason in result.left_out.items():
        typer.echo(f"left out: {name}: {reason}", err=True)
    table = Table("split", *next(iter(kinds.values())))
    for split, of in kinds.items():
        table.add_row(split, *map(str, of.values()))
    Console().print(table)
    typer.echo(
        f"{len(result.added)} frames added, {len(result.updated)} updated, "
        f"{len(result.unchanged)} unchanged, {len(result.left_out)} left out: {folder}",
        err=True,
    )
