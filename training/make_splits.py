"""Cut the frozen validation split from the shared frames, and list it by name.

``python training/make_splits.py DATA`` writes ``training/splits/*.txt``. The lists are
committed and never made again with other settings: models are chosen on them.

Kvasir-SEG: near-duplicates (correlation over 0.9 of grey 32x32 thumbnails) stay together,
15 % of the frames validate. CVC-ClinicDB: whole sequences, five of 23 validate. PolypGen's
negative sequences: every second one trains, the others measure false alarms only.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from natsort import natsorted
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

if TYPE_CHECKING:
    from numpy.typing import NDArray

SPLITS = Path(__file__).parent / "splits"
SEED = 20261122
SAME_POLYP = 0.9
KVASIR_SHARE = 0.15
CVC_SEQUENCES = 5


def near_duplicate_groups(files: list[Path]) -> NDArray[np.int32]:
    """Return one group number per file, equal for pictures that look alike."""
    thumbnails = []
    for file in files:
        grey = np.asarray(Image.open(file).convert("L").resize((32, 32), Image.Resampling.BOX))
        flat = grey.astype(np.float64).ravel()
        flat -= flat.mean()
        thumbnails.append(flat / np.linalg.norm(flat))
    matrix = np.stack(thumbnails)
    rows, columns = np.nonzero(matrix @ matrix.T > SAME_POLYP)
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(len(files),) * 2)
    groups: NDArray[np.int32] = connected_components(graph, directed=False)[1]
    return groups


def write(name: str, names: list[str]) -> None:
    """Write one list, natural order, one name a line."""
    (SPLITS / f"{name}.txt").write_text("\n".join(natsorted(names)) + "\n", encoding="utf-8")


def main(data: Path) -> None:
    """Write all lists for the frames in ``data``."""
    SPLITS.mkdir(exist_ok=True)
    random = np.random.default_rng(SEED)

    files = natsorted((data / "kvasir-seg" / "images").iterdir())
    groups = near_duplicate_groups(files)
    validation: set[int] = set()
    for group in random.permutation(groups.max() + 1):
        if len(validation) >= KVASIR_SHARE * len(files):
            break
        validation |= set(np.flatnonzero(groups == group))
    write("kvasir-seg-validation", [files[i].stem for i in validation])
    write("kvasir-seg-training", [f.stem for i, f in enumerate(files) if i not in validation])

    with (data / "cvc-clinicdb" / "sequences.csv").open(encoding="utf-8") as table:
        sequence_of = {Path(r["frame"]).stem: int(r["sequence"]) for r in csv.DictReader(table)}
    chosen = set(random.permutation(sorted(set(sequence_of.values())))[:CVC_SEQUENCES])
    write("cvc-clinicdb-validation", [f for f, s in sequence_of.items() if s in chosen])
    write("cvc-clinicdb-training", [f for f, s in sequence_of.items() if s not in chosen])

    sequences = natsorted(p.name for p in (data / "polypgen" / "negative").iterdir())
    write("polypgen-negative-training", sequences[0::2])
    write("polypgen-negative-validation", sequences[1::2])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
