from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image, ImageFilter

from napari_microaunet.curation import open_dataset, read_manifest, write_manifest
from napari_microaunet.curation.check import CHECKS, find_problems, gather, run_checks
from napari_microaunet.curation.check.statistics import statistics
from napari_microaunet.curation.incoming import incoming_frames
from napari_microaunet.curation.writer import write_dataset
from napari_microaunet.frames.masks import write_mask_file


class Dataset:
    """Twelve frames of 192 x 256 with a polyp each, the last four of them to validate."""

    def __init__(self, folder, write_frame):
        self.folder = folder
        for seed in range(12):
            small = folder.parent / "small.png"
            write_frame(small, seed)
            path = self.image(seed)
            path.parent.mkdir(parents=True, exist_ok=True)
            with Image.open(small) as image:
                image.resize((256, 192), Image.Resampling.BICUBIC).save(path)
            mask = np.zeros((192, 256), np.uint8)
            mask[40 : 70 + seed, 60:120] = 255
            self.mask(seed).parent.mkdir(exist_ok=True)
            Image.fromarray(mask).save(self.mask(seed))
        self.record(lambda _: {})

    def image(self, number):
        return self.folder / "images" / f"{number}.png"

    def mask(self, number):
        return self.folder / "masks" / f"{number}.png"

    def pixels(self, path):
        with Image.open(path) as image:
            return np.array(image)

    def paint(self, number, *boxes, value=255):
        mask = self.pixels(self.mask(number))
        for top, left, bottom, right in boxes:
            mask[top:bottom, left:right] = value
        Image.fromarray(mask).save(self.mask(number))

    def record(self, changes):
        """Write the manifest anew, as the files are now."""
        (self.folder / "manifest.json").unlink(missing_ok=True)
        manifest = open_dataset(self.folder).manifest
        frames = []
        for frame in manifest.frames:
            group = {"group": frame.name}
            split = "validation" if int(frame.name) >= 8 else "training"
            changed = group | {"split": split} | changes(int(frame.name))
            frames.append(frame.model_copy(update=changed))
        manifest = manifest.model_copy(update={"frames": tuple(frames)})
        write_manifest(self.folder / "manifest.json", manifest)

    def findings(self):
        return find_problems(open_dataset(self.folder))


@pytest.fixture
def dataset(tmp_path, write_frame):
    return Dataset(tmp_path / "set", write_frame)


def truncated(dataset):
    content = dataset.image(3).read_bytes()
    dataset.image(3).write_bytes(content[: len(content) // 2])
    dataset.record(lambda _: {})


def changed_since(dataset):
    dataset.paint(3, (100, 60, 120, 120))


def of_another_size(dataset):
    Image.fromarray(dataset.pixels(dataset.mask(3))[:-1]).save(dataset.mask(3))
    dataset.record(lambda _: {})


def negative_with_a_polyp(dataset):
    dataset.record(lambda number: {"negative": number == 3})


def brighter_copy_in_the_other_split(dataset):
    image = dataset.pixels(dataset.image(3)).astype(float)
    Image.fromarray((image * 0.9 + 12).astype(np.uint8)).save(dataset.image(9))
    dataset.record(lambda _: {})


def brighter_copy_in_the_same_split(dataset):
    image = dataset.pixels(dataset.image(3)).astype(float)
    Image.fromarray((image * 0.9 + 12).astype(np.uint8)).save(dataset.image(6))
    dataset.record(lambda _: {})


def sequence_in_two_splits(dataset):
    table = "frame,sequence\n" + "".join(f"{n},{n // 3}\n" for n in range(12))
    (dataset.folder / "sequences.csv").write_text(table)
    dataset.record(lambda _: {})


def without_polyps_to_validate(dataset):
    for number in range(8, 12):
        dataset.paint(number, (0, 0, 192, 256), value=0)
    dataset.record(lambda number: {"negative": number >= 8})


def with_gray_edges(dataset):
    mask = Image.open(dataset.mask(3)).filter(ImageFilter.GaussianBlur(3))
    mask.save(dataset.mask(3))
    dataset.record(lambda _: {})


def empty(dataset):
    dataset.paint(3, (0, 0, 192, 256), value=0)
    dataset.record(lambda _: {})


def with_a_mask_of_another_name(dataset):
    (dataset.folder / "manifest.json").unlink()
    dataset.mask(3).rename(dataset.folder / "masks" / "3_mask.png")


def with_a_speck(dataset):
    dataset.paint(3, (150, 30, 151, 32))
    dataset.record(lambda _: {})


def with_a_polyp_in_the_border(dataset):
    image = dataset.pixels(dataset.image(3))
    image = np.pad(image, ((0, 0), (120, 0), (0, 0)))
    Image.fromarray(image).save(dataset.image(3))
    mask = np.zeros((192, 376), np.uint8)
    mask[60:120, 40:200] = 255
    Image.fromarray(mask).save(dataset.mask(3))
    dataset.record(lambda _: {})


def with_an_exact_copy(dataset):
    shutil.copy(dataset.image(3), dataset.image(6))
    dataset.record(lambda _: {})


def blank(dataset):
    Image.new("RGB", (256, 192), (9, 3, 3)).save(dataset.image(3))
    dataset.record(lambda _: {})


def frozen(dataset):
    image = dataset.pixels(dataset.image(3))
    image[::7, ::5, 1] ^= 1
    Image.fromarray(image).save(dataset.image(4))
    dataset.record(lambda _: {})


def with_a_polyp_at_the_edge(dataset):
    dataset.paint(3, (40, 0, 70, 60))
    dataset.record(lambda _: {})


def of_odd_size(dataset):
    for path in (dataset.image(3), dataset.mask(3)):
        with Image.open(path) as image:
            image.resize((512, 384), Image.Resampling.NEAREST).save(path)
    dataset.record(lambda _: {})


def green(dataset):
    image = dataset.pixels(dataset.image(3)).astype(float)
    image[..., 1] = 255 - (255 - image[..., 1]) / 20
    Image.fromarray(image.astype(np.uint8)).save(dataset.image(3))
    dataset.record(lambda _: {})


def sharp(dataset):
    image = dataset.pixels(dataset.image(3)).astype(int)
    noise = np.random.default_rng(1).integers(-90, 90, image.shape)
    Image.fromarray(np.clip(image + noise, 0, 255).astype(np.uint8)).save(dataset.image(3))
    dataset.record(lambda _: {})


FAULTS = {
    "unreadable": (truncated, "3"),
    "changed": (changed_since, "3"),
    "size": (of_another_size, "3"),
    "contradiction": (negative_with_a_polyp, "3"),
    "leak": (brighter_copy_in_the_other_split, "39"),
    "divided": (sequence_in_two_splits, "678"),
    "no-polyps": (without_polyps_to_validate, ""),
    "gray": (with_gray_edges, "3"),
    "empty": (empty, "3"),
    "unused-mask": (with_a_mask_of_another_name, ""),
    "specks": (with_a_speck, "3"),
    "outside": (with_a_polyp_in_the_border, "3"),
    "duplicate": (with_an_exact_copy, "36"),
    "blank": (blank, "3"),
    "frozen": (frozen, "34"),
    "near-duplicate": (brighter_copy_in_the_same_split, "36"),
    "edge": (with_a_polyp_at_the_edge, "3"),
    "odd-size": (of_odd_size, "3"),
    "odd-colour": (green, "3"),
    "odd-sharpness": (sharp, "3"),
}
# What a fault is besides, by its nature.
ALSO = {
    "leak": {"near-duplicate"},
    "duplicate": {"near-duplicate"},
    "frozen": {"near-duplicate"},
    "outside": {"edge", "odd-size", "odd-sharpness"},
    "blank": {"odd-colour", "odd-sharpness"},
}


def test_a_clean_dataset_has_no_findings(dataset):
    assert dataset.findings() == []


def test_every_check_has_a_fault_here():
    assert FAULTS.keys() == CHECKS.keys()


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_and_nothing_else(dataset, name):
    make, frames = FAULTS[name]
    make(dataset)
    findings = dataset.findings()
    found = [finding for finding in findings if finding.check == name]
    assert [finding.frames for finding in found] == [tuple(frames)]
    assert found[0].severity == CHECKS[name].severity
    others = {finding.check for finding in findings} - {name}
    assert others <= ALSO.get(name, set())


def test_a_mask_without_a_frame_is_named(dataset):
    with_a_mask_of_another_name(dataset)
    (finding,) = dataset.findings()
    assert "masks/3_mask.png" in finding.text


def test_specks_are_counted_as_parts_of_polyps_are_everywhere_else(dataset):
    mask = np.zeros((192, 256), np.uint8)
    mask[40:70, 60:120] = 1
    mask[39, 59] = 1  # hangs on by a corner
    write_mask_file(dataset.mask(3), mask)
    dataset.record(lambda _: {})
    assert dataset.findings() == []
    mask[39, 80] = 2  # left over from another polyp
    write_mask_file(dataset.mask(3), mask)
    dataset.record(lambda _: {})
    assert [finding.check for finding in dataset.findings()] == ["specks"]


def test_a_frame_that_is_ignored_throughout_is_neither_empty_nor_negative(dataset):
    write_mask_file(dataset.mask(3), np.full((192, 256), 255, np.uint8))
    dataset.record(lambda _: {})
    evidence = gather(open_dataset(dataset.folder))
    assert run_checks(evidence) == []
    kinds = statistics(evidence)["kinds"]["training"]
    assert (kinds["negative"], kinds["unlabelled"]) == (0, 1)


def test_neighbours_that_look_alike_betray_a_random_split(tmp_path, make_frame):
    """Without a table of sequences, a video whose frames are shuffled into splits."""
    source = tmp_path / "frames"
    (source / "images").mkdir(parents=True)
    frame = make_frame(1, 120, 160).astype(float)
    for number in range(16):
        bright = np.clip(frame * (1 - 0.01 * number) + number, 0, 255).astype(np.uint8)
        Image.fromarray(bright).save(source / "images" / f"{number:02d}.png")
    manifest = open_dataset(source).manifest
    for divided in (False, True):
        frames = tuple(
            frame.model_copy(
                update={
                    "group": frame.name,
                    "split": "validation" if divided and i % 3 == 0 else "training",
                }
            )
            for i, frame in enumerate(manifest.frames)
        )
        write_manifest(source / "manifest.json", manifest.model_copy(update={"frames": frames}))
        found = [f for f in find_problems(open_dataset(source)) if f.check == "divided"]
        assert len(found) == divided
    assert "split by video" in found[0].text


def test_what_was_written_here_is_clean(tmp_path, dataset):
    """The writer's datasets pass the check that they are meant to pass."""
    (dataset.folder / "manifest.json").unlink()
    write_dataset(incoming_frames(open_dataset(dataset.folder)), tmp_path / "written")
    assert find_problems(open_dataset(tmp_path / "written")) == []
    record = read_manifest(tmp_path / "written" / "manifest.json").frames[0]
    write_mask_file(tmp_path / "written" / record.mask, np.ones((192, 256), np.uint8))
    checks = {finding.check for finding in find_problems(open_dataset(tmp_path / "written"))}
    assert checks == {"changed", "edge"}


def test_the_traps_of_the_real_sets_are_found(data, tmp_path):
    """Kvasir-SEG: gray edges. CVC-ClinicDB: a random split, also without its table."""
    names = sorted(path.stem for path in (data / "kvasir-seg" / "images").iterdir())[::80]
    near = ["cju1dfeupuzlw0835gnxip369", "cjyzul1qggwwj07216mhiv5sy"]
    for folder in ("images", "masks"):
        (tmp_path / "kvasir" / folder).mkdir(parents=True)
        for name in dict.fromkeys([*names, *near]):
            path = data / "kvasir-seg" / folder / f"{name}.jpg"
            shutil.copy(path, tmp_path / "kvasir" / folder)
    findings = find_problems(open_dataset(tmp_path / "kvasir"))
    gray = [finding for finding in findings if finding.check == "gray"]
    assert len(gray) == len(list((tmp_path / "kvasir" / "masks").iterdir()))
    assert [f.frames for f in findings if f.check == "near-duplicate"] == [tuple(near)]

    for folder in ("images", "masks"):
        (tmp_path / "cvc" / folder).mkdir(parents=True)
        for number in range(1, 41):
            shutil.copy(data / "cvc-clinicdb" / folder / f"{number}.png", tmp_path / "cvc" / folder)
    manifest = open_dataset(tmp_path / "cvc").manifest
    random = np.random.default_rng(1)
    frames = tuple(
        frame.model_copy(
            update={"group": frame.name, "split": str(random.choice(["training", "validation"]))}
        )
        for frame in manifest.frames
    )
    write_manifest(
        tmp_path / "cvc" / "manifest.json", manifest.model_copy(update={"frames": frames})
    )
    checks = [finding.check for finding in find_problems(open_dataset(tmp_path / "cvc"))]
    assert checks.count("divided") == 1
    assert "leak" in checks
