"""`--scheduler`: the same bytes from the workers of a cluster, whatever happens to them."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import socket
import sys
import time
from contextlib import contextmanager

import numpy as np
import pytest
from distributed import LocalCluster
from PIL import Image

from napari_microaunet import cli
from napari_microaunet.errors import InputError
from napari_microaunet.frames import open_frames
from napari_microaunet.frames.sample_data import sample_data_folder
from napari_microaunet.networks.library import find_model
from napari_microaunet.prelabel import cluster as cluster_module
from napari_microaunet.prelabel.cluster import ClusterPredictor

pytestmark = pytest.mark.usefixtures("model")

FRAMES = 24


@pytest.fixture(scope="module")
def cluster(own_folders):
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0"
    ) as started:
        yield started


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(cluster_module, "BLOCK_FRAMES", 2)


@pytest.fixture(scope="module")
def data(make_frame, tmp_path_factory):
    """Frames of many sizes with masks, in two folders, one of them damaged."""
    folder = tmp_path_factory.mktemp("data")
    for number in range(FRAMES):
        for kind in ("images", "masks"):
            (folder / kind / f"case {number % 2}").mkdir(parents=True, exist_ok=True)
        name = f"case {number % 2}/{number}.png"
        height, width = 90 + number, 120 + 7 * (number % 5)
        Image.fromarray(make_frame(number, height, width)).save(folder / "images" / name)
        mask = np.zeros((height, width), np.uint8)
        mask[20 : 30 + number, 30:80] = 255
        Image.fromarray(mask).save(folder / "masks" / name)
    (folder / "images/case 1/13.png").write_bytes(b"broken")
    return folder


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory):
    """What the command writes without a cluster."""
    out = tmp_path_factory.mktemp("alone") / "out"
    command = ["prelabel", "images", "--out", str(out), "--model", "mine", "--overlay"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(data)
        patch.setattr(sys, "argv", ["microaunet", *command])
        with pytest.raises(SystemExit):
            cli.main()
    return contents(out)


def contents(folder):
    """Read every file below a folder, hidden ones included."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def on_first_report(monkeypatch, happen):
    """Let something happen as soon as a first block is done."""

    @contextmanager
    def progress(title):
        reports = []

        def report(done, total):
            reports.append(done)
            if len(reports) == 1:
                assert done < total
                happen()

        yield report

    monkeypatch.setattr(cli, "progress", progress)


def kill_a_worker(cluster):
    """Kill one that is in the middle of a block."""
    at_work = cluster.scheduler.workers
    nanny = next(n for n in cluster.workers.values() if at_work[n.worker_address].processing)
    os.kill(nanny.pid, signal.SIGKILL)


def test_prelabels_are_the_same_to_the_byte(
    microaunet, cluster, data, alone, tmp_path, monkeypatch
):
    monkeypatch.chdir(data)
    command = ["prelabel", "images", "--model", "mine", "--overlay", "--json"]
    code, stdout, _ = microaunet(
        *command, "--out", tmp_path / "out", "--scheduler", cluster.scheduler_address
    )
    assert code == 0
    assert (json.loads(stdout)["done"], json.loads(stdout)["failed"]) == (FRAMES - 1, 1)
    assert contents(tmp_path / "out") == alone
    assert len(alone) == 2 * (FRAMES - 1) + 1


def test_a_video_is_divided_too(microaunet, cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster_module, "BLOCK_FRAMES", 31)
    command = ["prelabel", sample_data_folder() / "clip.mp4", "--labels", "--out"]
    assert microaunet(*command, tmp_path / "alone")[0] == 0
    where = ["--scheduler", cluster.scheduler_address]
    assert microaunet(*command, tmp_path / "spread", *where)[0] == 0
    assert contents(tmp_path / "spread") == contents(tmp_path / "alone")


def test_a_worker_is_killed_and_nothing_is_lost(
    microaunet, cluster, data, alone, tmp_path, monkeypatch
):
    out = tmp_path / "out"

    def kill():
        kill_a_worker(cluster)
        (out / "masks/case 0/.0.png.0123.part").write_bytes(b"left half written")

    on_first_report(monkeypatch, kill)
    command = ["prelabel", data / "images", "--model", "mine", "--overlay", "--out", out]
    assert microaunet(*command, "--scheduler", cluster.scheduler_address)[0] == 0
    assert contents(out) == alone


def test_scores_are_the_same_to_the_last_bit(microaunet, cluster, data, tmp_path):
    listed = tmp_path / "frames.txt"
    listed.write_text("".join(f"case {i % 2}/{i}\n" for i in (1, 2, 4, 7, 8, 13, 17)))
    command = ["evaluate", "--data", data, "--frames-from", listed]
    files = [tmp_path / "alone.json", tmp_path / "cluster.json"]
    for file, where in zip(files, ([], ["--scheduler", cluster.scheduler_address]), strict=True):
        assert microaunet(*command, "--json", file, *where)[0] == 1  # for the damaged frame
    alone, spread = (file.read_bytes() for file in files)
    assert spread == alone
    content = json.loads(spread)
    assert len(content["frames"]) == 6
    assert list(content["problems"]) == ["case 1/13"]
    assert content["model"]["name"] == "student"
    assert content["summary"]["positive_groups"] < 6
    assert content["curve"][0]["dice"] > 0


def test_ctrl_c_takes_what_is_left_off_the_cluster(
    microaunet, cluster, data, alone, tmp_path, monkeypatch
):
    def interrupt():
        raise KeyboardInterrupt

    on_first_report(monkeypatch, interrupt)
    out = tmp_path / "out"
    command = ["prelabel", data / "images", "--model", "mine", "--overlay", "--out", out]
    code, _, stderr = microaunet(*command, "--scheduler", cluster.scheduler_address)
    assert code == 130
    assert "Traceback" not in stderr
    while cluster.scheduler.tasks:
        time.sleep(0.01)
    with (out / "confidence.csv").open(newline="") as file:
        listed = [row["name"] for row in csv.DictReader(file)]
    assert len(listed) == 2
    written = contents(out)
    assert len(written) < len(alone)  # some more, where this process had to wait for its turn
    assert {f"masks/{name}.png" for name in listed} <= set(written)


def test_a_block_that_no_worker_survives_is_named(microaunet, cluster, data, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster.scheduler, "allowed_failures", 0)
    on_first_report(monkeypatch, lambda: kill_a_worker(cluster))
    command = ["prelabel", data / "images", "--model", "mine", "--out", tmp_path / "out"]
    code, _, stderr = microaunet(*command, "--scheduler", cluster.scheduler_address)
    assert code == 2
    assert "2 frames from case " in stderr
    assert "Traceback" not in stderr


def test_a_scheduler_that_goes_away_is_one_sentence(microaunet, data, tmp_path, monkeypatch):
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as doomed:
        on_first_report(monkeypatch, doomed.close)
        command = ["prelabel", data / "images", "--model", "mine", "--out", tmp_path / "out"]
        code, _, stderr = microaunet(*command, "--scheduler", doomed.scheduler_address)
    assert code == 2
    assert "has gone" in stderr
    assert "Traceback" not in stderr


def nothing(predictor, sequence, indices, results, **_):
    """Do a task that leaves the frames alone."""


def refusal(scheduler, model, sequence, **options):
    with pytest.raises(InputError) as refused:
        ClusterPredictor(scheduler, model, **options).carry_out(
            nothing, sequence, range(len(sequence)), {}
        )
    return str(refused.value)


@pytest.fixture
def two_frames(data, tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in (0, 2):
        shutil.copy(data / f"images/case 0/{number}.png", folder)
    return folder


def test_what_a_worker_sees_otherwise_is_refused_by_its_name(cluster, model, two_frames, tmp_path):
    address = cluster.scheduler_address
    sequence = open_frames(two_frames)
    here = [worker.address for worker in cluster.scheduler.workers.values()]

    def refused(**options):
        sentence = refusal(address, own, sequence, **options)
        assert any(sentence.startswith(f"Worker {worker}: ") for worker in here)
        return sentence

    own = model
    assert '"abacus"' in refused(backend="abacus")
    (two_frames / "0.png").rename(two_frames / "other.png")
    assert f"{two_frames} holds other frames" in refused()
    two_frames.rename(tmp_path / "elsewhere")
    assert f"{two_frames} does not exist" in refused()
    path = tmp_path / "mine.safetensors"
    shutil.copy(model.path, path)
    own = find_model(str(path))
    shutil.copy(find_model("student").path, path)
    assert f"{path} holds another model" in refused()


def test_another_version_is_refused(cluster, model, two_frames, monkeypatch):
    monkeypatch.setattr(cluster_module, "_own_version", lambda: "0.0.1")
    sequence = open_frames(two_frames)
    first = refusal(cluster.scheduler_address, model, sequence)
    monkeypatch.setattr(cluster_module, "_check_workers", lambda *_: None)
    # As a worker that has come later.
    for sentence in (first, refusal(cluster.scheduler_address, model, sequence)):
        assert sentence.startswith("Worker tcp://")
        assert "not 0.0.1" in sentence


@pytest.mark.parametrize("has_its_own", [False, True])
def test_a_folder_that_workers_do_not_share_is_refused(
    microaunet, cluster, data, tmp_path, monkeypatch, has_its_own
):
    """The folder vanishes after it was made, as if it had been made on another machine."""
    out = tmp_path / "out"
    carry_out = ClusterPredictor.carry_out

    def without_folder(*arguments, **options):
        shutil.rmtree(out)
        if has_its_own:
            out.mkdir()
        carry_out(*arguments, **options)

    monkeypatch.setattr(ClusterPredictor, "carry_out", without_folder)
    command = ["prelabel", data / "images", "--model", "mine", "--out", out]
    code, _, stderr = microaunet(*command, "--scheduler", cluster.scheduler_address)
    assert code == 2
    assert f"{out} is not there, or is another folder" in stderr
    assert not list(tmp_path.glob("out/*"))


def test_a_file_that_a_worker_cannot_write_is_named(microaunet, cluster, data, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "masks").write_text("in the way")
    command = ["prelabel", data / "images", "--model", "mine", "--out", out]
    code, _, stderr = microaunet(*command, "--scheduler", cluster.scheduler_address)
    assert code == 2
    assert str(out / "masks") in stderr
    assert "on worker tcp://" in stderr
    assert "Traceback" not in stderr


@pytest.mark.parametrize("address", ["lab", "http://lab:8786", "tcp://127.0.0.1:0x", "tls://lab:1"])
def test_a_malformed_address_is_one_sentence(microaunet, data, tmp_path, address):
    command = ["prelabel", data / "images", "--model", "mine", "--out", tmp_path / "out"]
    code, stdout, stderr = microaunet(*command, "--scheduler", address)
    assert (code, stdout) == (2, "")
    assert address in stderr
    assert len(stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_silence_is_one_sentence(microaunet, data, monkeypatch):
    monkeypatch.setattr(cluster_module, "_PATIENCE", 0.3)
    with socket.socket() as deaf, socket.socket() as listening:
        deaf.bind(("127.0.0.1", 0))
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        for side in (deaf, listening):
            address = f"tcp://127.0.0.1:{side.getsockname()[1]}"
            code, _, stderr = microaunet("evaluate", "--data", data, "--scheduler", address)
            assert code == 2
            assert f"No scheduler answers at '{address}'" in stderr
            assert "Traceback" not in stderr


def test_a_worker_is_not_a_scheduler_and_one_is_needed(cluster, model, two_frames, monkeypatch):
    monkeypatch.setattr(cluster_module, "_PATIENCE_FOR_WORKERS", 0.3)
    sequence = open_frames(two_frames)
    worker = next(iter(cluster.scheduler.workers))
    assert "is a worker" in refusal(worker, model, sequence)
    with LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0") as empty:
        assert "has no workers" in refusal(empty.scheduler_address, model, sequence)


def test_without_the_extra_it_is_named(microaunet, data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    command = ["prelabel", data / "images", "--model", "mine", "--out", tmp_path / "out"]
    code, _, stderr = microaunet(*command, "--scheduler", "tcp://lab:8786")
    assert code == 2
    assert 'pip install "napari-microaunet[cluster]"' in stderr
