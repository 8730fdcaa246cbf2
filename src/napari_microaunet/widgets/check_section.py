"""Check: what is wrong or unusual about a dataset, each finding a click from its frame."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_microaunet.curation.check import CHECKS, SEVERITIES, gather, run_checks
from napari_microaunet.curation.check.report import write_html
from napari_microaunet.curation.dataset import open_dataset
from napari_microaunet.widgets.jobs import Job
from napari_microaunet.widgets.section import hint
from napari_microaunet.widgets.style import quiet_colour, readable_colour

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_microaunet.curation.check import Evidence, Finding
    from napari_microaunet.widgets.jobs import Cancelled, Told
    from napari_microaunet.widgets.workbench import Workbench

_ROWS_IN_SIGHT = 10
_FRAME = Qt.ItemDataRole.UserRole


class CheckSection(QWidget):
    """Check a folder, list what was found, show the frames."""

    title = "Check"

    def __init__(self, bench: Workbench) -> None:
        super().__init__()
        self._bench = bench
        self._evidence: Evidence | None = None
        self._findings: list[Finding] = []
        self.actions: dict[str, Callable[[], object]] = {}

        self.check_button = QPushButton("Check a dataset…")
        hint(
            self.check_button,
            "Look over a curated dataset, or a folder with images/ and masks/: unreadable files,\n"
            "gray masks, specks, duplicates, leaks between splits, blank and odd frames.",
        )
        self.check_button.clicked.connect(self.ask)
        self.report_button = QPushButton("Save report…")
        hint(self.report_button, "Write what was found as one HTML file with pictures and plots.")
        self.report_button.clicked.connect(self._ask_where)
        self.summary = QLabel(wordWrap=True)
        self.findings = QTreeWidget(headerHidden=True)
        self.findings.setTextElideMode(Qt.TextElideMode.ElideRight)
        row = self.findings.fontMetrics().lineSpacing() + 6
        self.findings.setFixedHeight(_ROWS_IN_SIGHT * row)
        hint(
            self.findings,
            "What was found, the most severe first. Enter or a double click on a frame shows it;\n"
            "frames of another folder than the one on show are opened first.",
        )
        self.findings.itemActivated.connect(self._open_frame)

        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 0, 8, 0)
        buttons = QHBoxLayout()
        buttons.addWidget(self.check_button)
        buttons.addWidget(self.report_button)
        layout.addLayout(buttons)
        layout.addWidget(self.summary)
        layout.addWidget(self.findings)
        bench.job_changed.connect(self._update)
        bench.viewer.events.theme.connect(self._list)
        self._list()
        self._update()

    def ask(self) -> None:
        """Ask for a folder and check it."""
        work = self._bench.work
        start = "" if work is None else str(work.sequence.path.absolute().parent)
        folder = QFileDialog.getExistingDirectory(self, "Check a dataset", start)
        if folder:
            self.check(Path(folder))

    def check(self, folder: Path) -> None:
        """Check a folder in the background.

        Parameters
        ----------
        folder : Path
            A curated dataset, or frames with masks.
        """

        def run(progress: Told, cancelled: Cancelled) -> tuple[Evidence, list[Finding]]:
            evidence = gather(open_dataset(folder, cancelled=cancelled), progress, cancelled)
            return evidence, run_checks(evidence)

        def end(found: tuple[Evidence, list[Finding]] | None) -> None:
            if found is not None:
                self._evidence, self._findings = found
                self._list()

        self._bench.run_with_progress(f"Checking {folder.name}", run, end)

    def save_report(self, file: Path) -> None:
        """Write the findings as HTML in the background.

        Parameters
        ----------
        file : Path
            What is written.
        """
        evidence, findings = self._evidence, self._findings
        if evidence is None:
            return

        def write(_cancelled: Callable[[], bool]) -> list[None]:
            write_html(evidence, findings, file)
            return [None]

        def end(complete: bool) -> None:
            if complete:
                self.summary.setText(f"{self.summary.text()}\nThe report is in {file}.")

        self._bench.run(Job(f"Writing {file.name}", write), end)

    def _ask_where(self) -> None:
        file, _ = QFileDialog.getSaveFileName(
            self, "Save the report", "check.html", "HTML (*.html)"
        )
        if file:
            self.save_report(Path(file))

    def _list(self) -> None:
        """List the findings under their checks."""
        self.findings.clear()
        self.findings.setVisible(bool(self._findings))
        self.summary.setVisible(self._evidence is not None)
        if self._evidence is None:
            return
        counts = {
            severity: sum(finding.severity == severity for finding in self._findings)
            for severity in reversed(SEVERITIES)
        }
        told = ", ".join(f"{n} {name}{'s' if n != 1 else ''}" for name, n in counts.items() if n)
        dataset = self._evidence.dataset
        self.summary.setText(
            f"{dataset.name}, {len(dataset.frames)} frames: {told or 'no findings'}"
        )
        theme = self._bench.viewer.theme
        headings: dict[str, QTreeWidgetItem] = {}
        for finding in self._findings:
            if finding.check not in headings:
                heading = QTreeWidgetItem(self.findings)
                if finding.severity == "note":
                    colour = quiet_colour(theme)
                else:
                    colour = readable_colour(theme, finding.severity)
                heading.setForeground(0, QColor(*colour))
                headings[finding.check] = heading
            heading = headings[finding.check]
            frames = finding.frames
            text = f"{frames[0]}: {finding.text}" if len(frames) == 1 else finding.text
            item = QTreeWidgetItem(heading, [text])
            item.setToolTip(0, text)
            item.setData(0, _FRAME, frames[0] if frames else None)
            for name in frames if len(frames) > 1 else ():
                QTreeWidgetItem(item, [name]).setData(0, _FRAME, name)
            heading.setText(0, f"{CHECKS[finding.check].title} ({heading.childCount()})")

    def _open_frame(self, item: QTreeWidgetItem) -> None:
        """Show the frame of a finding."""
        name, evidence = item.data(0, _FRAME), self._evidence
        if name is None or evidence is None:
            return
        names = [record.name for record in evidence.dataset.frames]
        self._bench.show_frame(evidence.dataset.sequence, names.index(name))

    def _update(self) -> None:
        idle = self._bench.job is None
        self.check_button.setEnabled(idle)
        self.report_button.setEnabled(idle and self._evidence is not None)
