from __future__ import annotations

import json
from datetime import UTC
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_microaunet.curation import FrameRecord, Manifest, read_manifest, write_manifest
from napari_microaunet.curation.manifest import Annotation, Prelabel, manifest_schema
from napari_microaunet.errors import InputError

parts = st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=8)
paths = st.lists(parts.filter(lambda part: part not in (".", "..")), min_size=1, max_size=3).map(
    "/".join
)
texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=10)
hashes = st.none() | st.text("0123456789abcdef", min_size=64, max_size=64)


shares = st.none() | st.floats(0, 1)
counts = st.integers(0, 2**40)
moments = st.none() | st.datetimes(timezones=st.just(UTC))
prelabels = st.builds(
    Prelabel, model=texts, card_sha256=hashes, threshold=shares, confidence=shares
)
annotations = st.builds(
    Annotation,
    state=st.sampled_from(["unseen", "prelabelled", "edited", "accepted"]),
    origin=st.sampled_from(["none", "model", "propagated", "file", "hand"]),
    annotator=st.none() | texts,
    accepted=moments,
    changed=moments,
    written=moments,
    prelabel=st.none() | prelabels,
    seconds=st.floats(0, 1e6),
    strokes=counts,
    changed_pixels=st.none() | counts,
)


@st.composite
def manifests(draw):
    names = draw(st.lists(paths, min_size=1, max_size=8, unique_by=str.casefold))
    splits = draw(st.dictionaries(texts, st.sampled_from(["training", "validation"]), min_size=1))
    frames = []
    for name in names:
        group = draw(st.sampled_from(sorted(splits)))
        frames.append(
            FrameRecord(
                name=name,
                image=draw(paths),
                mask=draw(st.none() | paths),
                negative=draw(st.booleans()),
                group=group,
                split=splits[group],
                source=draw(texts),
                image_sha256=draw(hashes),
                mask_sha256=draw(hashes),
                original_sha256=draw(hashes),
                height=draw(st.none() | st.integers(1, 8192)),
                polyp_pixels=draw(st.none() | counts),
                annotation=draw(st.none() | annotations),
                blanked=draw(st.sampled_from([(), ("metadata", "boxes")])),
            )
        )
    return Manifest(name=draw(texts), frames=tuple(frames))


@given(manifests())
@settings(max_examples=40)
def test_a_manifest_is_read_back_as_it_was(tmp_path_factory, manifest):
    path = tmp_path_factory.mktemp("manifests") / "manifest.json"
    write_manifest(path, manifest)
    assert read_manifest(path) == manifest
    jsonschema.validate(json.loads(path.read_bytes()), json.loads(manifest_schema()))


def test_the_published_schema_is_that_of_the_code():
    published = Path(__file__).parents[2] / "docs" / "manifest.schema.json"
    assert published.read_text(encoding="utf-8") == manifest_schema()


def test_manifests_of_version_1_are_read(tmp_path):
    path = tmp_path / "manifest.json"
    path.write_text(described(frames=[FRAME | {"mask": None, "image_sha256": None}]))
    manifest = read_manifest(path)
    assert (manifest.version, manifest.frames[0].annotation) == (1, None)
    jsonschema.validate(json.loads(path.read_bytes()), json.loads(manifest_schema()))


FRAME = {"name": "a", "image": "images/a.png", "group": "a", "split": "training", "source": "s"}
OTHER = FRAME | {"name": "b", "image": "images/b.png"}


def described(**changes):
    content = {"format": "microaunet-dataset", "version": 1, "name": "set", "frames": [FRAME]}
    return json.dumps(content | changes)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "EOF"),
        ("nothing", "expected"),
        ('"text"', "object"),
        ("[" * 100_000, "recursion"),
        (described()[:-5], "EOF"),
        (described(format="coco"), "format"),
        (described(version=3), "version"),
        (described(version="1"), "version"),
        (described(frames=[]), "frames"),
        (described(frames={}), "frames"),
        (described(name=None), "name"),
        (described(more=1), "more"),
        (described(frames=[FRAME, FRAME | {"image": "b.png"}]), "'a' is given to two frames"),
        (described(frames=[FRAME, OTHER | {"name": "A"}]), "'A' is given to two frames"),
        (described(frames=[FRAME, OTHER | {"split": "test"}]), "'a' is in training and in test"),
        *[
            (described(frames=[FRAME | {field: value}]), rf"frames\.0\.{field}")
            for field, value in (
                ("image", "../a.png"),
                ("image", "images/../../a.png"),
                ("image", "/etc/passwd"),
                ("image", "images//a.png"),
                ("image", ""),
                ("image", "a\0.png"),
                ("image", 7),
                ("image", None),
                ("mask", "masks/.."),
                ("name", "../a"),
                ("name", "a" * 1001),
                ("group", ""),
                ("split", "train"),
                ("negative", "false"),
                ("negative", 0),
                ("image_sha256", "0" * 63),
                ("mask_sha256", "g" * 64),
                ("height", 0),
                ("annotation", {"state": "accepted"}),
                ("blanked", ["faces"]),
                ("camera", "x"),
            )
        ],
    ],
)
def test_what_is_no_manifest_is_refused_by_name(tmp_path, content, problem):
    path = tmp_path / "manifest.json"
    path.write_text(content)
    with pytest.raises(InputError, match=problem) as error:
        read_manifest(path)
    assert str(path) in str(error.value)


def test_a_manifest_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"gone\.json.*cannot be read"):
        read_manifest(tmp_path / "gone.json")


def test_a_frame_is_labelled_by_a_mask_or_by_being_negative():
    assert not FrameRecord(**FRAME).labelled
    assert FrameRecord(**FRAME, negative=True).labelled
    assert FrameRecord(**FRAME, mask="masks/a.png").labelled
