from __future__ import annotations

import gc
import logging
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from napari.settings import get_settings
from napari.utils.notifications import notification_manager
from onnx import TensorProto, helper
from platformdirs import user_data_path
from qtpy.QtCore import QThreadPool, QTimer
from qtpy.QtWidgets import QApplication, QMessageBox
from superqt.utils import _ensure_thread

from napari_microaunet.frames.sample_data import sample_data_folder
from napari_microaunet.networks.checkpoint import load_checkpoint, save_checkpoint
from napari_microaunet.networks.library import Model
from napari_microaunet.networks.onnx_export import graph_beside


@pytest.fixture(scope="session", autouse=True)
def own_keys_file(tmp_path_factory):
    """Keep the user's own keys out of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        yield


@pytest.fixture(scope="session", autouse=True)
def results_outlive_their_threads():
    """Keep what superqt's `ensure_main_thread` returns, which napari's thread for slicing drops.

    PySide 6.11 disconnects it then, and waits, with a mutex of Qt's, for the GIL; a window that
    connects a signal meanwhile waits, with the GIL, for the mutex: for ever.
    """
    run, kept = _ensure_thread._run_in_thread, []

    def run_and_keep(*arguments):
        kept.append(run(*arguments))
        return kept[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_ensure_thread, "_run_in_thread", run_and_keep)
        yield


@pytest.fixture(autouse=True)
def modules_are_no_garbage():
    """Whenever a layer goes, napari collects garbage: without a look at all that is imported."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def asynchronous():
    """Let napari slice in a thread."""
    settings = get_settings().experimental
    before, settings.async_ = settings.async_, True
    yield
    settings.async_ = before


@pytest.fixture(params=[False, True], ids=["slicing at once", "async slicing"])
def slicing(request):
    """Let napari slice in both of its ways, for one test of each way that masks are changed in."""
    if request.param:
        request.getfixturevalue("asynchronous")


@pytest.fixture(autouse=True)
def no_sessions_of_other_tests():
    """Arrays and sample data have their sessions in the user's own folder."""
    shutil.rmtree(user_data_path("napari-microaunet", appauthor=False) / "sessions", True)


@pytest.fixture(autouse=True)
def nothing_unexpected(caplog):
    """Fail where a job met an error that is not meant for the user's eyes."""
    yield
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.fixture
def errors():
    """What the user has been told went wrong, since the test began."""
    before = len(notification_manager.records)
    return lambda: [
        record.message
        for record in notification_manager.records[before:]
        if record.severity.value in ("error", "warning")
    ]


class InUse:
    """The dock in a window, and what a user does with it."""

    def __init__(self, viewer, qtbot):
        self.viewer = viewer
        self.qtbot = qtbot
        _, widget = viewer.window.add_plugin_dock_widget("napari-microaunet", "MicroAUNet")
        self.dock = widget
        self.bench = self.dock.bench
        self.frames = self.dock.sections["Frames"]
        self.prelabel = self.dock.sections["Pre-label"]
        self.review = self.dock.sections["Review"]
        self.edit = self.dock.sections["Edit"]
        self.export = self.dock.sections["Export"]

    def reopen(self):
        """Open the dock anew, after it was closed."""
        again = InUse(self.viewer, self.qtbot)
        again.choose_model("bright")
        return again

    def leave(self, *, forget=False):
        """Close the dock; the session goes as well where it is to be forgotten."""
        folder = self.work.session.folder
        self.viewer.window.remove_dock_widget("all")
        if forget:
            shutil.rmtree(folder)

    @property
    def work(self):
        return self.bench.work

    @property
    def masks(self):
        return self.bench.work.masks

    @property
    def layer(self):
        return self.bench.work.masks.layer

    def choose_model(self, name):
        choice = next(m for m in self.prelabel.model.choices if m.name == name)
        self.prelabel.model.value = choice

    def wait_for_job(self):
        """Wait until nothing runs, opening frames and reading their masks included."""
        self.qtbot.waitUntil(lambda: self.bench.job is None, timeout=120_000)

    def settle(self):
        """Wait until all masks have followed and the one on show is an undo step."""
        self.qtbot.waitUntil(lambda: self.work.prelabels.is_settled, timeout=60_000)

    def open(self, path, **options):
        before = self.work
        self.bench.open(Path(path), **options)
        self.qtbot.waitUntil(lambda: self.work is not before and bool(self.masks), timeout=60_000)
        self.wait_for_job()

    def go_to(self, index):
        self.viewer.dims.set_current_step(0, index)
        self.settle()

    def prelabel_all(self):
        self.prelabel.run_button.click()
        self.wait_for_job()
        self.settle()

    def mask(self, index):
        """The mask of a frame as it is in the layer, padding included."""
        return np.asarray(self.layer.data[index])

    @property
    def states(self):
        """How far the work on each frame has come."""
        return [status.state for status in self.work.session.statuses]

    def when_asked(self, act):
        """Do something with the next dialog, however long it takes to come up."""
        timer = QTimer(QApplication.instance(), interval=50)

        def look():
            dialog = QApplication.activeModalWidget()
            if dialog is None:
                return
            timer.stop()
            try:
                act(dialog)
            finally:
                if dialog.isVisible():  # it would be waited for without end
                    dialog.reject()

        timer.timeout.connect(look)
        timer.start()

    def answer(self, text):
        """Press a button of the next question, once it has come up; what was asked is returned."""
        asked = []

        def press(box):
            assert isinstance(box, QMessageBox)
            asked.append(box.text())
            next(b for b in box.buttons() if text in b.text()).click()

        self.when_asked(press)
        return asked

    def press(self, key, *modifier):
        """Press a key where a user would: in the canvas."""
        self.qtbot.keyClick(self.viewer.window._qt_viewer.canvas.native, key, *modifier)


@pytest.fixture(scope="session")
def bright_model(model):
    """A model in the user's library that takes for polyp what is bright, in no time.

    Its ONNX graph lies ready beside it, as with the bundled models, and is one of two steps.
    """
    path = model.path.with_name("bright.safetensors")
    network, card = load_checkpoint(model.path)
    own = {"name": "b", "threshold": 0.5, "least_peak": 0.0, "standardise": False}
    card = save_checkpoint(path, network, card.model_copy(update=own))
    bright = Model("bright", path, card)
    image, logits = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", channels, "h", "w"])
        for name, channels in (("image", 3), ("logits", 1))
    )
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1], keepdims=1),
        helper.make_node("Identity", ["mean"], ["logits"]),
    ]
    graph = helper.make_graph(nodes, "bright", [image], [logits])
    opset = helper.make_opsetid("", 13)
    onnx.save(
        helper.make_model(graph, opset_imports=[opset], ir_version=9),
        graph_beside(bright),
    )
    return bright


@pytest.fixture
def use(make_napari_viewer, qtbot, bright_model):
    """Open the dock in a viewer of its own, with the bright model."""

    def start(**options):
        in_use = InUse(make_napari_viewer(**options), qtbot)
        in_use.choose_model("bright")
        return in_use

    yield start
    # Threads that have said their last word, but not ended yet, would keep the viewer alive.
    QThreadPool.globalInstance().waitForDone(3000)


@pytest.fixture
def folder(tmp_path):
    """Five rendered frames of three sizes; nothing beside them."""
    target = tmp_path / "case" / "images"
    target.mkdir(parents=True)
    for number in (1, 2, 3, 5, 9):
        source = next((sample_data_folder() / "frames" / "images").glob(f"sample_{number:02}.*"))
        shutil.copy(source, target)
    return target


@pytest.fixture
def prelabelled(use, folder):
    """The dock in a window, at work on `folder`, with a pre-label on every frame."""
    used = use()
    used.open(folder)
    used.prelabel_all()
    return used


@pytest.fixture
def exact_masks():
    """Where masks of the frames in `folder` are, drawn by the renderer."""
    return sample_data_folder() / "frames" / "masks"
