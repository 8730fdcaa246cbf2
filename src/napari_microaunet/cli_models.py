"""``microaunet models``: the library of models without a window.

Exit codes: 0 when all is done, 1 when a deletion was not confirmed, 2 when the request cannot be
met (one sentence says why).
"""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

app = typer.Typer(help="List the bundled models and yours; see, share, rename, delete them.")

Name = Annotated[str, typer.Argument(help="The name of a model, or its file.")]
OwnName = Annotated[str, typer.Argument(help="The name of a model of yours.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")]


@app.callback(invoke_without_command=True)
def list_all(context: typer.Context) -> None:
    """List the bundled models and yours; see, share, rename, delete them."""
    from napari_microaunet.networks.library import list_models

    if context.invoked_subcommand is not None:
        return
    table = Table(
        Column("name", overflow="fold", min_width=12),
        "network",
        "input",
        "threshold",
        "least peak",
        Column("file", overflow="fold"),
    )
    for model in list_models():
        height, width = model.card.input_size
        table.add_row(
            escape(model.name),
            model.card.network,
            f"{width} x {height}",
            f"{model.card.threshold:.2f}",
            f"{model.card.least_peak:.2f}",
            escape(str(model.path)),
        )
    Console().print(table)


@app.command()
def show(
    name: Name,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the whole card, recipe included, as JSON.")
    ] = False,
) -> None:
    """Show a model's card, its figures, and what it was trained from."""
    from napari_microaunet.networks.card_facts import card_facts
    from napari_microaunet.networks.library import find_model, list_models

    model = find_model(name)
    if as_json:
        typer.echo(model.card.model_dump_json(indent=1))
        return
    console = Console()
    facts = Table(title=escape(model.name), show_header=False)
    for about, fact in card_facts(model, list_models()):
        facts.add_row(about, escape(fact))
    console.print(facts)
    figures = Table("frames", "figure", "value (95 % interval)")
    for figure in model.card.figures():
        value = f"{figure.value:.3f}"
        if figure.low is not None and figure.high is not None:
            value += f"  ({figure.low:.3f} to {figure.high:.3f})"
        figures.add_row(escape(figure.frames), escape(figure.name), value)
    if figures.row_count:
        console.print(figures)


@app.command("import")
def import_model(
    file: Annotated[Path, typer.Argument(help="A .safetensors file with a model card.")],
    name: Annotated[
        str | None, typer.Option(help="What it is to be called; by default as the file.")
    ] = None,
) -> None:
    """Check a model's file and put it into your library."""
    from napari_microaunet.networks.library import add_model

    model = add_model(file, file.stem if name is None else name)
    typer.echo(f"{model.name} is in the lists of models now.", err=True)


@app.command()
def export(
    name: Name,
    out: Annotated[Path, typer.Option(help="The .safetensors file to write.")],
    overwrite: Overwrite = False,
) -> None:
    """Write a model with its card to a file, which others can import."""
    from napari_microaunet.networks.library import export_model, find_model

    export_model(find_model(name), out, overwrite=overwrite)
    typer.echo(f"Written: {out}", err=True)


@app.command()
def onnx(
    name: Name,
    out: Annotated[Path, typer.Option(help="The .onnx file to write.")],
    overwrite: Overwrite = False,
) -> None:
    """Write a model as an ONNX graph, with its card among the metadata.

    It maps "image", normalised as the card says, to "logits", for any batch, height and width.
    """
    from napari_microaunet.networks.library import export_graph, find_model

    export_graph(find_model(name), out, overwrite=overwrite)
    typer.echo(f"Written: {out}", err=True)


@app.command()
def rename(
    name: OwnName, new: Annotated[str, typer.Argument(help="What it is to be called.")]
) -> None:
    """Call a model of yours otherwise."""
    from napari_microaunet.networks.library import find_model, rename_model

    rename_model(find_model(name), new)
    typer.echo(f"{name} is called {new} now.", err=True)


@app.command()
def delete(
    name: OwnName,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask whether it is meant.")] = False,
) -> None:
    """Delete a model of yours; this cannot be undone."""
    from napari_microaunet.networks.library import check_own, delete_model, find_model

    model = find_model(name)
    check_own(model)
    if not yes:
        typer.confirm(f"Delete {model.name}? This cannot be undone.", abort=True, err=True)
    delete_model(model)
    typer.echo(f"{model.name} is deleted.", err=True)
