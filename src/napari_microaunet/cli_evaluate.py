"""``microaunet evaluate``: how good a model is, and whether it is better than another.

Exit codes: 0 when every frame was scored, 1 when some could not be (they are named), 2 when the
request itself cannot be met (one sentence says why).
"""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

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

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_microaunet.distillation.bootstrap import Interval
    from napari_microaunet.distillation.comparison import Comparison
    from napari_microaunet.distillation.evaluation import Evaluation, ReferenceMasks
    from napari_microaunet.distillation.thresholds import OperatingPoint
    from napari_microaunet.frames.sequence import FrameSequence
    from napari_microaunet.networks.library import Model


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
    mirror_images: MirrorImages = None,
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
    manifest says which frames belong together. Of another folder all are, unless a model was
    trained on it or on one of its name: then those that were held out.
    """
    from dataclasses import asdict, replace

    from napari_microaunet.curation.manifest import MANIFEST_NAME
    from napari_microaunet.distillation import comparison, evaluation
    from napari_microaunet.distillation.thresholds import THRESHOLDS
    from napari_microaunet.networks.library import find_model

    make_room(json_file)
    chosen = [find_model(name) for name in (model, compare) if name is not None]
    titles = [one.name for one in chosen]
    if len(set(titles)) < len(titles):  # files of two runs have one name
        titles = [str(one.path) for one in chosen]
    if scheduler is not None and (data / MANIFEST_NAME).is_file():
        raise InputError(
            f"{data} is a curated dataset, which a cluster cannot score; leave --scheduler out."
        )
    judges = _judges(data, frames_from, no_polyps, chosen)
    console = Console()
    results = []
    reports: list[dict[str, Any]] = []
    for title, one in zip(titles, chosen, strict=True):
        settings = mask_settings(
            one, threshold, least_peak, smallest_area, fill_holes, largest_only
        )
        predictor = runner(scheduler, one, backend, device, batch, mirror_images)
        with progress(f"Scoring {title}") as report:
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
        images = one.card.mirror_images if mirror_images is None else mirror_images
        about = {"model": identity(one), "settings": asdict(settings), "mirror_images": images}
        reports.append(about | asdict(result))
        console.print(_scores(title, result))
        if curve:
            console.print(_curve(title, result.curve))
    content = {"data": str(data)} | reports[0]
    if compare is not None:
        difference = comparison.compare(results[0].frames, results[1].frames)
        console.print(_difference(" - ".join(titles), difference))
        content |= {"compare": reports[1], "difference": asdict(difference)}
    if json_file is not None:
        write_json(json_file, content)
    tell(results[0].problems.values())
    raise typer.Exit(1 if results[0].problems else 0)


class _Judges(NamedTuple):
    """The frames that a model is scored on."""

    sequence: FrameSequence
    indices: Sequence[int]
    groups: dict[str, str]
    reference: ReferenceMasks | None


def _judges(
    data: Path, frames_from: Path | None, no_polyps: bool, models: Sequence[Model]
) -> _Judges:
    """Open frames and find out which of them judge, and which belong together."""
    from napari_microaunet.curation.dataset import open_dataset
    from napari_microaunet.curation.manifest import MANIFEST_NAME
    from napari_microaunet.distillation.side_by_side import have_learned_from
    from napari_microaunet.frames import open_frames

    if (data / MANIFEST_NAME).is_file():
        dataset = open_dataset(data.absolute())
        if frames_from is not None:
            indices = _listed(dataset.sequence, frames_from)
        else:
            # Whose frames show no polyp needs no masks.
            whole = dataset.indices("test") or dataset.indices("validation")
            indices = whole if no_polyps else dataset.held_out_indices()
            _check_some(indices, data)
            split = dataset.frames[indices[0]].split
            tell([f"{data} is a curated dataset: the {len(indices)} frames of its {split} split"])
        reference = None if no_polyps else dataset.mask
        return _Judges(dataset.sequence, indices, dataset.groups, reference)
    sequence = open_frames(data.absolute())
    if not sequence.has_masks and not no_polyps:
        raise InputError(
            f"{data} holds no masks to score against: put them in masks/ beside images/, "
            "or say that there is no polyp in any frame (--no-polyps)."
        )
    chosen = range(len(sequence)) if frames_from is None else _listed(sequence, frames_from)
    with Console(stderr=True).status("Looking for frames that resemble each other"):
        dataset = open_dataset(data.absolute())
    if frames_from is None and have_learned_from(dataset, *models):
        chosen = dataset.indices("validation") if no_polyps else dataset.held_out_indices()
        _check_some(chosen, data)
        tell(
            [
                f"A model was trained on {data}, or on a dataset of its name: the {len(chosen)} "
                "frames held out of it; others by --frames-from"
            ]
        )
    return _Judges(dataset.sequence, chosen, dataset.groups, None)


def _check_some(held_out: Sequence[int], data: Path) -> None:
    if not held_out:
        raise InputError(f"{data} holds out no frames to score; name them (--frames-from).")


def _listed(sequence: FrameSequence, path: Path) -> list[int]:
    """Find the frames that a list names; a line may also name a folder of frames."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
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
    table = Table("threshold", "Dice per frame", "found", "false alarms", title=escape(title))
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
    title, caption = escape(title), escape(caption)  # of names of models, which may hold brackets
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
