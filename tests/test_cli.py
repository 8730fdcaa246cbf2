from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from small_frames import write_frames

from napari_microaunet.curation.dataset import open_dataset
from napari_microaunet.curation.manifest import write_manifest
from napari_microaunet.frames import open_frames
from napari_microaunet.frames.masks import write_mask_file
from napari_microaunet.networks.checkpoint import load_checkpoint, save_checkpoint
from napari_microaunet.networks.library import BUNDLED_NAMES, find_model
from napari_microaunet.prelabel.confidence import confidence
from napari_microaunet.prelabel.masks import MaskSettings, mask_from
from napari_microaunet.prelabel.predictor import Predictor

pytestmark = pytest.mark.usefixtures("model")


@pytest.fixture
def frames(make_frame, tmp_path):
    """Four frames of different sizes, one of them in a subfolder."""
    folder = tmp_path / "my frames"
    (folder / "case 2").mkdir(parents=True)
    sizes = {
        "a.png": (120, 90),
        "b.v1.jpg": (100, 100),
        "c.png": (64, 200),
        "case 2/a.png": (150, 80),
    }
    for seed, (name, (width, height)) in enumerate(sizes.items()):
        Image.fromarray(make_frame(seed, height, width)).save(folder / name)
    return folder


NAMES = ["a", "b.v1", "c", "case 2/a"]


def read(path):
    with Image.open(path) as image:
        return np.asarray(image)


def table(out):
    with (out / "confidence.csv").open(newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def test_prelabel_writes_a_mask_of_native_size_for_every_frame(microaunet, frames, tmp_path, model):
    out = tmp_path / "out"
    code, stdout, stderr = microaunet("prelabel", frames, "--out", out, "--model", "mine")
    assert code == 0
    assert "4 of 4 frames" in stdout + stderr
    written = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*"))
    assert written == ["confidence.csv", *sorted(f"masks/{name}.png" for name in NAMES)]

    sequence = open_frames(frames)
    rows = table(out)
    settings = MaskSettings.of(model.card)
    for prediction in Predictor(model).predict(sequence):
        frame = sequence.frames[prediction.index]
        expected = mask_from(prediction.map, settings)
        mask = read(out / "masks" / f"{frame.name}.png")
        assert mask.dtype == np.uint8
        np.testing.assert_array_equal(mask, np.where(expected > 0, 255, 0))
        row = rows.pop(frame.name)
        trust = confidence(prediction.map, expected, settings.threshold)
        assert float(row["confidence"]) == pytest.approx(trust, abs=1e-4)
        assert int(row["area"]) == np.count_nonzero(expected) > 0
        assert int(row["polyps"]) == expected.max()
        assert row["problem"] == ""
    assert rows == {}


def test_labels_number_the_polyps_and_overlays_show_their_outlines(microaunet, frames, tmp_path):
    out = tmp_path / "out"
    options = ["--labels", "--overlay", "--smallest-area", "0", "--model", "mine"]
    code, *_ = microaunet("prelabel", frames, "--out", out, *options)
    assert code == 0
    rows = table(out)
    sequence = open_frames(frames)
    for index, frame in enumerate(sequence.frames):
        mask = read(out / "masks" / f"{frame.name}.png")
        assert mask.max() == int(rows[frame.name]["polyps"])
        overlay = read(out / "overlays" / f"{frame.name}.jpg").astype(int)
        original = sequence.read(index).astype(int)
        assert overlay.shape == original.shape
        assert np.abs(overlay - original).max() > 60


def test_a_higher_threshold_leaves_less(microaunet, frames, tmp_path):
    areas = []
    for threshold in (0.05, 0.999):
        out = tmp_path / str(threshold)
        options = ["--threshold", threshold, "--model", "mine"]
        assert microaunet("prelabel", frames, "--out", out, *options)[0] == 0
        areas.append([int(row["area"]) for row in table(out).values()])
    assert all(low > high for low, high in zip(*areas, strict=True))


def test_one_unreadable_frame_is_named_and_the_rest_is_done(microaunet, frames, tmp_path):
    (frames / "b.v1.jpg").write_bytes(b"\xff\xd8\xff broken")
    out = tmp_path / "out"
    code, stdout, stderr = microaunet("prelabel", frames, "--out", out, "--model", "mine", "--json")
    assert code == 0
    assert "b.v1.jpg" in stderr
    report = json.loads(stdout)
    assert (report["done"], report["failed"]) == (3, 1)
    assert report["model"]["name"] == "mine"
    rows = table(out)
    assert "b.v1.jpg" in rows["b.v1"]["problem"]
    assert sorted(path.stem for path in (out / "masks").rglob("*.png")) == ["a", "a", "c"]


def test_an_earlier_run_is_replaced_only_when_asked(microaunet, frames, tmp_path):
    out = tmp_path / "out"
    command = ["prelabel", frames, "--out", out, "--model", "mine"]
    assert microaunet(*command)[0] == 0
    mask = out / "masks/a.png"
    mask.write_bytes(b"corrected by hand")
    code, _, stderr = microaunet(*command)
    assert code == 2
    assert "--overwrite" in stderr
    assert mask.read_bytes() == b"corrected by hand"
    assert microaunet(*command, "--overwrite", "--overlay")[0] == 0
    assert read(mask).shape == (90, 120)
    assert (out / "overlays/a.jpg").exists()
    assert microaunet(*command, "--overwrite")[0] == 0
    assert not (out / "overlays/a.jpg").exists()  # with the outlines of an earlier mask


def test_the_frames_own_folder_is_never_written_to(microaunet, frames):
    before = sorted(frames.rglob("*"))
    for out in (frames, frames.parent, frames / "out"):
        code, _, stderr = microaunet(
            "prelabel", frames, "--out", out, "--model", "mine", "--overwrite"
        )
        assert code == 2
        assert "choose a folder beside them" in stderr
    assert sorted(frames.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["missing folder", "--model", "mine"], "missing folder"),
        ([".", "--model", "nobody"], "nobody"),
        ([".", "--model", "mine", "--backend", "abacus"], "abacus"),
        ([".", "--model", "mine", "--backend", "onnx", "--device", "cuda"], "cuda"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_code_2(
    microaunet, frames, tmp_path, monkeypatch, arguments, named
):
    monkeypatch.chdir(frames)
    code, stdout, stderr = microaunet("prelabel", *arguments, "--out", tmp_path / "out")
    assert code == 2
    assert stdout == ""
    assert named in stderr
    assert len(stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made_is_one_sentence_and_code_2(microaunet, frames, tmp_path):
    (tmp_path / "file").write_text("in the way")
    code, _, stderr = microaunet(
        "prelabel", frames, "--out", tmp_path / "file/out", "--model", "mine"
    )
    assert code == 2
    assert str(tmp_path / "file") in stderr
    assert "Traceback" not in stderr


@pytest.fixture
def labelled(frames, microaunet, tmp_path):
    """The frames with the model's own masks beside them."""
    data = tmp_path / "data"
    data.mkdir()
    frames.rename(data / "images")
    out = tmp_path / "own masks"
    assert microaunet("prelabel", data / "images", "--out", out, "--model", "mine")[0] == 0
    (out / "masks").rename(data / "masks")
    return data


def test_evaluate_shows_and_writes_the_scores(microaunet, labelled, tmp_path):
    file = tmp_path / "scores.json"
    code, stdout, _ = microaunet("evaluate", "--data", labelled, "--model", "mine", "--json", file)
    assert code == 0
    assert "1.000  (1.000 to 1.000)" in stdout
    content = json.loads(file.read_text())
    assert content["summary"]["dice"]["mean"] == 1
    assert [frame["name"] for frame in content["frames"]] == NAMES
    assert content["model"]["name"] == "mine"


def test_evaluate_takes_the_frames_of_a_list(microaunet, labelled, tmp_path):
    names, file = tmp_path / "names.txt", tmp_path / "scores.json"
    command = ["evaluate", "--data", labelled, "--model", "mine", "--frames-from", names]
    names.write_text("\ufeffc\n\ncase 2\n", encoding="utf-8")  # as editors on Windows write
    assert microaunet(*command, "--json", file)[0] == 0
    frames = json.loads(file.read_text())["frames"]
    assert [frame["name"] for frame in frames] == ["c", "case 2/a"]
    names.write_text("c\nnowhere\n")
    code, _, stderr = microaunet(*command)
    assert code == 2
    assert "nowhere" in stderr


def test_evaluate_wants_masks_or_the_word_that_there_is_nothing(microaunet, labelled, tmp_path):
    (labelled / "masks").rename(tmp_path / "no masks")
    command = ["evaluate", "--data", labelled, "--model", "mine"]
    code, _, stderr = microaunet(*command)
    assert code == 2
    assert "--no-polyps" in stderr
    code, stdout, _ = microaunet(*command, "--no-polyps")
    assert code == 0
    assert "100.0 %" in stdout


def test_results_that_cannot_be_written_are_refused_before_the_work(microaunet, labelled, tmp_path):
    for command in (("evaluate", "--data", labelled), ("bench", "--quick")):
        code, stdout, stderr = microaunet(*command, "--json", tmp_path)
        assert (code, stdout) == (2, "")
        assert f"{tmp_path} cannot be written" in stderr


def test_evaluate_scores_the_held_out_frames_of_a_curated_dataset(microaunet, tmp_path):
    data, file = write_frames(tmp_path / "ward", polyps=20), tmp_path / "scores.json"
    manifest = open_dataset(data).manifest
    frames = tuple(frame.model_copy(update={"group": frame.split}) for frame in manifest.frames)
    write_manifest(data / "manifest.json", manifest.model_copy(update={"frames": frames}))
    held_out = {f.name for f in frames if f.split == "validation" and f.labelled}
    code, stdout, stderr = microaunet("evaluate", "--data", data, "--json", file)
    assert code == 0
    assert f"the {len(held_out)} frames of its validation split" in stderr
    assert "all of one group" in stdout
    scored = json.loads(file.read_text())["frames"]
    assert {frame["name"] for frame in scored} == held_out
    assert {frame["group"] for frame in scored} == {"validation"}
    code, stdout, _ = microaunet("evaluate", "--data", data, "--no-polyps", "--json", file)
    assert code == 0
    scored = {frame["name"] for frame in json.loads(file.read_text())["frames"]}
    assert scored == {f.name for f in frames if f.split == "validation"}
    for more in ([], ["--no-polyps"]):
        code, _, stderr = microaunet("evaluate", "--data", data, "--scheduler", "tcp://no:1", *more)
        assert code == 2
        assert "leave --scheduler out" in stderr


def test_evaluate_scores_what_was_held_out_of_a_folder_that_a_model_was_trained_on(
    microaunet, tmp_path
):
    data, file = write_frames(tmp_path / "ward"), tmp_path / "scores.json"
    dataset = open_dataset(data)
    network, card = load_checkpoint(find_model("student").path)
    learned = card.training_data | {"ward": dataset.content_hash("training")}
    model = tmp_path / "run" / "model.safetensors"
    model.parent.mkdir()
    save_checkpoint(model, network, card.model_copy(update={"training_data": learned}))
    command = ["evaluate", "--data", data, "--json", file]

    def scored():
        return {frame["name"] for frame in json.loads(file.read_text())["frames"]}

    held_out = {dataset.frames[index].name for index in dataset.held_out_indices()}
    code, _, stderr = microaunet(*command, "--compare", model)
    assert code == 0
    assert f"{len(held_out)} frames held out" in stderr
    assert scored() == held_out
    negatives = {f"negative/{number}" for number in range(4)}
    names = tmp_path / "names.txt"
    names.write_text("negative\n")  # which have no masks beside them
    assert microaunet(*command, "--frames-from", names)[0] == 0
    assert scored() == negatives
    assert {frame["positive"] for frame in json.loads(file.read_text())["frames"]} == {False}
    # A mask was corrected since: most of the frames still are those that it learned from.
    first = dataset.frames[dataset.indices("training", labelled=True)[0]]
    mask = data / "masks" / f"{first.name}.png"
    write_mask_file(mask, np.ones_like(read(mask)))
    held_out = open_dataset(data).held_out_indices()
    code, _, stderr = microaunet(*command, "--model", model)
    assert code == 0
    assert f"{len(held_out)} frames held out" in stderr
    assert len(scored()) == len(held_out)


def test_evaluate_tells_two_models_of_one_name_apart(microaunet, labelled, tmp_path):
    files = []
    for run in ("one", "two"):
        (tmp_path / run).mkdir()
        files.append(shutil.copy(find_model("student").path, tmp_path / run / "model.safetensors"))
    code, stdout, _ = microaunet(
        "evaluate", "--data", labelled, "--model", files[0], "--compare", files[1]
    )
    assert code == 0
    shown = "".join(stdout.split())
    assert f"{files[0]}-{files[1]}".replace(" ", "") in shown


def test_evaluate_says_where_so_few_frames_prove_nothing(microaunet, tmp_path):
    data, names = write_frames(tmp_path / "ward", polyps=8), tmp_path / "names.txt"
    command = ["evaluate", "--data", data, "--compare", "teacher", "--frames-from", names]
    for frames, proves in ((5, False), (8, True)):
        names.write_text("".join(f"{number}\n" for number in range(frames)))
        code, stdout, _ = microaunet(*command)
        assert code == 0
        assert ("Wilcoxon" in stdout) == proves
        assert ("prove nothing" in " ".join(stdout.split())) != proves


def test_evaluate_compares_two_models_frame_by_frame(microaunet, labelled, tmp_path):
    file = tmp_path / "scores.json"
    command = ["evaluate", "--data", labelled, "--model", "mine", "--compare", "student"]
    code, stdout, _ = microaunet(*command, "--json", file)
    assert code == 0
    content = json.loads(file.read_text())
    other = content["compare"]
    assert other["model"]["name"] == "student"
    assert other["settings"]["threshold"] == find_model("student").card.threshold
    assert other["settings"]["threshold"] != content["settings"]["threshold"]
    difference = content["difference"]["dice"]["mean"]
    assert difference == pytest.approx(1 - other["summary"]["dice"]["mean"])
    assert difference > 0
    assert f"{difference:+.3f}" in stdout


def test_evaluate_shows_every_threshold(microaunet, labelled, tmp_path):
    command = ["evaluate", "--data", labelled, "--model", "mine"]
    assert "false alarms" not in microaunet(*command)[1].split("frames without a polyp")[0]
    file = tmp_path / "scores.json"
    code, stdout, _ = microaunet(*command, "--curve", "--json", file)
    assert code == 0
    curve = json.loads(file.read_text())["curve"]
    assert [point["threshold"] for point in curve] == [i / 20 for i in range(1, 20)]
    for point in curve:
        row = next(
            line.split("│")
            for line in stdout.splitlines()
            if f"│ {point['threshold']:.2f} " in line
        )
        assert row[2].strip() == f"{point['dice']:.3f}"
        assert row[4].strip() == "-"


def test_intervals_are_over_groups_of_frames_that_resemble_each_other(
    microaunet, labelled, tmp_path
):
    file = tmp_path / "scores.json"
    command = ["evaluate", "--data", labelled, "--model", "mine", "--json", file]
    table = "frame,sequence\na.png,1\nb.v1.jpg,1\nc.png,2\ncase 2/a.png,2\n"
    (labelled / "sequences.csv").write_text(table)
    code, stdout, _ = microaunet(*command)
    assert code == 0
    assert "4, of 2 groups" in stdout
    groups = [frame["group"] for frame in json.loads(file.read_text())["frames"]]
    assert groups[0] == groups[1] != groups[2] == groups[3]

    (labelled / "sequences.csv").write_text("frame,clip\na.png,1\n")
    code, stdout, stderr = microaunet(*command)
    assert code == 2
    assert stdout == ""
    assert "sequences.csv" in stderr
    assert len(stderr.strip().splitlines()) == 1


def test_models_are_listed(microaunet):
    code, stdout, _ = microaunet("models")
    assert code == 0
    assert "mine" in stdout


def test_prelabelling_on_the_cpu_never_imports_pytorch(frames, tmp_path, model):
    Predictor(model)  # the ONNX graph is made now, with PyTorch
    script = """
import sys
from napari_microaunet import cli
sys.argv = ["microaunet", *sys.argv[1:]]
try:
    cli.main()
except SystemExit as ended:
    assert not ended.code, ended.code
heavy = {"torch", "monai", "napari", "qtpy", "magicgui", "distributed"} & set(sys.modules)
assert not heavy, heavy
"""
    for arguments in (
        ["--help"],
        ["prelabel", frames, "--out", tmp_path / "o", "--model", "mine"],
    ):
        command = [sys.executable, "-c", script, *map(str, arguments)]
        subprocess.run(command, check=True)  # noqa: S603 - our own command


def test_ctrl_c_ends_with_code_130_and_the_table_lists_what_is_there(tmp_path, model):
    Predictor(model)
    frames, out = tmp_path / "frames", tmp_path / "out"
    frames.mkdir()
    image = Image.fromarray(np.random.default_rng(0).integers(60, 255, (600, 800, 3), np.uint8))
    image.save(frames / "0.jpg")
    for i in range(1, 2000):
        shutil.copy(frames / "0.jpg", frames / f"{i}.jpg")
    command = ["prelabel", str(frames), "--out", str(out), "--model", "mine"]
    script = "from napari_microaunet.cli import main; main()"
    process = subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, "-c", script, *command], stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and not (out / "masks/3.png").exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in stderr
    rows = table(out)
    masks = {path.stem for path in (out / "masks").glob("*.png")}
    assert set(rows) == masks
    assert 3 < len(masks) < 2000


def test_bench_measures_all_networks_the_pipeline_and_memory(microaunet, tmp_path):
    file = tmp_path / "figures/bench.json"
    code, stdout, _ = microaunet("bench", "--quick", "--json", file)
    assert code == 0
    assert "times as fast" in stdout
    report = json.loads(file.read_text())
    measured = {(cost["network"], cost["backend"]) for cost in report["networks"]}
    bundled = {(name, backend) for name in BUNDLED_NAMES for backend in ("onnx", "torch")}
    assert measured == bundled
    for cost in report["networks"]:
        assert cost["latency_ms"] > 0
        assert cost["frames_per_second"] > 0
    assert report["pipeline"]["frames"] == 8
    assert [memory["frames"] for memory in report["memory"]] == [4, 8]
    assert all(memory["peak_mb"] > 30 for memory in report["memory"])
