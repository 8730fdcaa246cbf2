"""What is running, how far it is, how long it will take, and a way to stop it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QGridLayout, QLabel, QProgressBar, QPushButton, QWidget

from napari_microaunet.widgets.section import hint

if TYPE_CHECKING:
    from napari_microaunet.widgets.workbench import Workbench

_UPDATE_MS = 500


class ProgressRow(QWidget):
    """Progress of the workbench's job; there only while one is running.

    Parameters
    ----------
    bench : Workbench
        Whose job is shown.
    """

    def __init__(self, bench: Workbench) -> None:
        super().__init__()
        self._bench = bench
        self.title = QLabel()
        self.bar = QProgressBar(textVisible=False)
        self.bar.setFixedHeight(8)
        self.time_left = QLabel()
        self.cancel_button = QPushButton("Cancel")
        hint(
            self.cancel_button,
            "Stop now. Frames that are done are kept; imports and datasets are written whole or\n"
            "not at all.",
            "cancel",
        )
        self.cancel_button.clicked.connect(self._cancel)
        layout = QGridLayout(self)
        layout.setContentsMargins(8, 4, 8, 4)
        layout.setVerticalSpacing(2)
        layout.addWidget(self.title, 0, 0)
        layout.addWidget(self.bar, 1, 0)
        layout.addWidget(self.time_left, 2, 0)
        layout.addWidget(self.cancel_button, 0, 1, 3, 1)
        layout.setColumnStretch(0, 1)
        self._timer = QTimer(self, interval=_UPDATE_MS, timeout=self._update)
        bench.job_changed.connect(self._on_job)
        self.hide()

    def _on_job(self) -> None:
        job = self._bench.job
        self.setVisible(job is not None)
        if job is None:
            self._timer.stop()
            return
        self.cancel_button.setEnabled(job.can_stop)
        self.title.setText(job.title)
        self._update()
        self._timer.start()

    def _cancel(self) -> None:
        self.cancel_button.setEnabled(False)
        self._bench.cancel()

    def _update(self) -> None:
        job = self._bench.job
        if job is None:
            return
        # A single step has no known length: the bar runs to and fro.
        self.bar.setMaximum(job.total if job.total > 1 else 0)
        self.bar.setValue(job.done)
        seconds = job.seconds_left
        left = "" if seconds is None or job.total == 1 else f" · {duration(seconds)} left"
        self.time_left.setText(f"{job.done} of {job.total}{left}" if job.total > 1 else "")


def duration(seconds: float) -> str:
    """Write a time as people read it: "8 s", "3 min 20 s", "1 h 5 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
