"""Damage labels of every format at random, for as long as wanted; not part of the tests.

``python tests/exchange/fuzz.py MINUTES [SEED]`` prints how many files were read, and how often
each format took or refused them. It stops at the first file that is met by anything but masks
that fit or an `InputError`, prints the traceback, and leaves the file where it says.
"""

from __future__ import annotations

import gzip
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

from labelled_help import make_session

from napari_microaunet.errors import InputError
from napari_microaunet.exchange.export import MARK, export
from napari_microaunet.exchange.formats import FORMATS
from napari_microaunet.exchange.importing import read_for_session
from napari_microaunet.exchange.labelled import labels_of_session

NAMES = ("a", "b/c")
# Folders of frames, which imports do not read.
FRAMES = {"images", "JPEGImages", "Original"}
# What parsers stumble over.
WORDS = (
    b"nan", b"-1", b"1e999", b"99999999999999999999", b"", b"[", b"]", b"{", b'"', b"null", b"true",
    b"\0", b"\xff", b",", b";", b"0", b"../", b"/etc/passwd", b"<a>", b"&lt;", b"9" * 5000,
)  # fmt: skip
SLOW_S = 5.0


def damaged(content, rng):
    """Change bytes, or cut, double, move or replace a piece, a few times."""
    content = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        start = rng.randrange(len(content) + 1)
        end = min(len(content), start + rng.choice((1, 2, 4, 16, 256)))
        kind = rng.randrange(6)
        if kind == 0 and start < end:
            content[start] = rng.randrange(256)
        elif kind == 1:
            del content[start:end]
        elif kind == 2:
            content[start:start] = content[start:end]
        elif kind == 3:
            content[start:end] = rng.choice(WORDS)
        elif kind == 4 and start < end:
            content[start] ^= 1 << rng.randrange(8)
        else:
            target = rng.randrange(len(content) + 1)
            content[target:target] = content[start:end]
    return bytes(content)


def main(minutes, seed):
    rng = random.Random(seed)
    counts = Counter()
    slowest = 0.0, ""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    session, _ = make_session(folder, 3, NAMES)
    with session:
        labels = labels_of_session(session)
        originals = {}
        for format_ in FORMATS:
            out = folder / format_.key
            export(labels, format_, out)
            files = [path for path in out.rglob("*") if path.is_file() and path.name != MARK]
            read = [path for path in files if not FRAMES & {*path.relative_to(out).parts}]
            originals[format_] = {path: path.read_bytes() for path in read}
        end = time.monotonic() + 60 * minutes
        while time.monotonic() < end:
            format_ = rng.choice(FORMATS)
            path = rng.choice(list(originals[format_]))
            original = originals[format_][path]
            if path.suffix == ".gz" and rng.random() < 0.5:
                # Else hardly a file would come past the checksum.
                path.write_bytes(gzip.compress(damaged(gzip.decompress(original), rng), 1))
            else:
                path.write_bytes(damaged(original, rng))
            start = time.monotonic()
            try:
                found = read_for_session(session, format_, folder / format_.key)
                masks = [session.chunks.decode(index, chunk) for index, chunk in found.items()]
                assert all(mask.ndim == 2 for mask in masks)
                counts[format_.key, "taken"] += 1
            except InputError as error:
                if str(folder) not in str(error):
                    raise AssertionError(f"{path} is not named: {error}") from error
                counts[format_.key, "refused"] += 1
            except Exception:  # noqa: BLE001 - that is what is looked for
                traceback.print_exc()
                print(f"case {sum(counts.values())} of seed {seed}: {path}")  # noqa: T201
                return 1
            slowest = max(slowest, (time.monotonic() - start, format_.key))
            path.write_bytes(original)
    shutil.rmtree(folder)
    for format_ in FORMATS:
        taken, refused = counts[format_.key, "taken"], counts[format_.key, "refused"]
        print(f"{format_.key:12} {taken:8} taken {refused:8} refused")  # noqa: T201
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(  # noqa: T201
        f"{sum(counts.values())} files in {minutes} minutes; the slowest took {slowest[0]:.2f} s "
        f"({slowest[1]}); peak memory {memory} MiB"
    )
    return int(slowest[0] > SLOW_S)


if __name__ == "__main__":
    minutes, *seed = sys.argv[1:]
    sys.exit(main(float(minutes), int(seed[0]) if seed else 1))
