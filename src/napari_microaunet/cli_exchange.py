"""``microaunet export`` and ``microaunet import``.

Exit codes: 0 when all is done, 2 when the request cannot be met (one sentence says why), 130 when
it was stopped; the same command goes on with an export that was stopped.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_microaunet.cli_options import IncludeChoice
from napari_microaunet.cli_progress import progress, tell

if TYPE_CHECKING:
    from napari_microaunet.exchange.export import Preview


Format = Annotated[
    str, typer.Option("--format", help="What is written or read; docs/exchange.md lists them.")
]
Frames = Annotated[
    Path | None,
    typer.Option(help="Where the frames of the session are, if not where they were."),
]


def export(
    source: Annotated[
        Path, typer.Argument(help="A session (NAME.microaunet), or a curated dataset.")
    ],
    out: Annotated[Path, typer.Option(help="The folder to write; made by this command.")],
    format_: Format,
    include: Annotated[
        IncludeChoice,
        typer.Option(
            help="Accepted frames; edited ones, which masks from files are, too; all with a mask."
        ),
    ] = IncludeChoice.ACCEPTED,
    split: Annotated[
        bool,
        typer.Option(help="Divide a session into training and validation, if the format can."),
    ] = True,
    frames: Frames = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier export.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell what would be written.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Tell it as JSON.")] = False,
) -> None:
    """Write masks for other tools; what was stopped goes on with the same command."""
    from napari_microaunet.exchange import export as exporting
    from napari_microaunet.exchange.formats import find_format
    from napari_microaunet.exchange.labelled import opened_labels

    chosen = find_format(format_)
    divide = split and chosen.divides
    with opened_labels(source, include.value, frames=frames, divide=divide) as labels:
        tell(labels.remarks)
        if dry_run:
            planned = exporting.preview(labels, chosen)
            typer.echo(json.dumps(asdict(planned), indent=1) if as_json else _tree(out, planned))
            return
        with progress("Exporting") as report:
            summary = exporting.export(
                labels,
                chosen,
                out,
                overwrite=overwrite,
                progress=report,
            )
    if as_json:
        typer.echo(json.dumps(asdict(summary), indent=1))
        return
    for warning in summary.warnings:
        typer.echo(f"{chosen.title}: {warning}", err=True)
    typer.echo(
        f"{summary.frames} frames exported, {summary.polyps} polyps, "
        f"{summary.negatives} frames without: {out}",
        err=True,
    )


def import_labels(
    labels: Annotated[Path, typer.Argument(help="A folder or file of labels.")],
    session: Annotated[Path, typer.Argument(help="The session (NAME.microaunet) to put them in.")],
    format_: Format,
    frames: Frames = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Replace masks made by hand, propagated, imported or decided on."
        ),
    ] = False,
) -> None:
    """Read masks of other tools into a session: all of them, or none."""
    from napari_microaunet.curation.incoming import open_session
    from napari_microaunet.exchange import importing
    from napari_microaunet.exchange.formats import find_format

    chosen = find_format(format_)
    with open_session(session, frames) as opened, progress("Reading") as report:
        tell(opened.remarks)
        summary = importing.import_labels(
            opened,
            chosen,
            labels,
            overwrite=overwrite,
            progress=report,
        )
    typer.echo(
        f"{summary.frames} masks imported, {summary.empty} of them empty; "
        f"{summary.untouched} frames are as they were: {session}",
        err=True,
    )


def _tree(out: Path, planned: Preview) -> str:
    """Show the first files, and what is lost."""
    lines = [f"{out}/", *(f"  {name}" for name in planned.first_files)]
    lines.append(f"{planned.files} files for {planned.frames} frames")
    lines += [f"{count} for {split}" for split, count in planned.by_split.items()]
    return "\n".join([*lines, *planned.warnings])
