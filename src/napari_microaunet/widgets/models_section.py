"""Models: what there is to run, where it comes from; share, rename, delete, compare."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from napari.utils.notifications import show_error
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QFileDialog,
    QGridLayout,
    QHeaderView,
    QInputDialog,
    QLabel,
    QLineEdit,
    QMessageBox,
    QPushButton,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_microaunet.errors import InputError
from napari_microaunet.networks.library import (
    Model,
    add_model,
    delete_model,
    export_graph,
    export_model,
    list_models,
    rename_model,
)
from napari_microaunet.widgets.jobs import Job
from napari_microaunet.widgets.model_card import ModelCardView
from napari_microaunet.widgets.model_comparison import ModelComparison
from napari_microaunet.widgets.section import hint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from qtpy.QtGui import QKeyEvent

    from napari_microaunet.widgets.workbench import Workbench

_ROWS_IN_SIGHT = 6
_MODEL = Qt.ItemDataRole.UserRole
_RENAME = "Call the model otherwise. Masks and models that were made with it stay.\nKey: F2"
_DELETE = "Delete the model for good, after a question.\nKey: Delete"
_BUNDLED = "This model came with the package and stays as it is."


class ModelsSection(QWidget):
    """The library of models, the card of the one selected, what can be done with it."""

    title = "Models"

    def __init__(self, bench: Workbench) -> None:
        super().__init__()
        self._bench = bench
        self._models: list[Model] = []
        self.actions: dict[str, Callable[[], object]] = {}

        self.models = _ModelTree({Qt.Key.Key_F2: self.rename, Qt.Key.Key_Delete: self.delete})
        self.models.header().setStretchLastSection(False)
        self.models.header().setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        self.models.header().setSectionResizeMode(1, QHeaderView.ResizeMode.ResizeToContents)
        row = self.models.fontMetrics().lineSpacing() + 6
        self.models.setFixedHeight(_ROWS_IN_SIGHT * row)
        hint(
            self.models,
            "The models that came with the package, then your own. The card of the one selected\n"
            "is below. F2 renames it, Delete deletes it.",
        )
        self.import_button = QPushButton("Import…")
        self.export_button = QPushButton("Export…")
        self.onnx_button = QPushButton("To ONNX…")
        self.rename_button = QPushButton("Rename…")
        self.delete_button = QPushButton("Delete…")
        self.told = QLabel(wordWrap=True, textFormat=Qt.TextFormat.PlainText)
        self.told.hide()
        self.card = ModelCardView()
        self.comparison = ModelComparison(bench)
        self._add_hints()

        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 0, 8, 0)
        layout.addWidget(self.models)
        buttons = QGridLayout()
        buttons.setSpacing(4)
        for number, (button, action) in enumerate(
            (
                (self.import_button, self._ask_for_file),
                (self.export_button, self._ask_where),
                (self.onnx_button, self._ask_where_graph),
                (self.rename_button, self.rename),
                (self.delete_button, self.delete),
            )
        ):
            button.clicked.connect(action)
            buttons.addWidget(button, number // 3, number % 3)
        layout.addLayout(buttons)
        layout.addWidget(self.told)
        layout.addWidget(self.card)
        layout.addWidget(self.comparison)

        self.models.currentItemChanged.connect(self._show_card)
        bench.models_changed.connect(self._list)
        bench.job_changed.connect(self._update)
        self._list()

    @property
    def model(self) -> Model | None:
        """The model that is selected."""
        item = self.models.currentItem()
        return None if item is None else item.data(0, _MODEL)

    def select(self, name: str) -> None:
        """Select a model, and show its card.

        Parameters
        ----------
        name : str
            Of the model; without it the first one is selected.
        """
        names = [model.name for model in self._models]
        row = names.index(name) if name in names else 0
        self.models.setCurrentItem(self.models.topLevelItem(row))

    def add(self, file: Path, name: str) -> None:
        """Check a model's file and put it into the library, in the background.

        Parameters
        ----------
        file : Path
            The file.
        name : str
            What the model is to be called.
        """

        def end() -> None:
            self._bench.models_changed.emit()
            self.select(name)

        self._run(
            f"Checking {file.name}",
            lambda: add_model(file, name),
            f"{name} is in the lists of models now.",
            end,
        )

    def export(self, file: Path, *, overwrite: bool = False) -> None:
        """Write the selected model to a file, in the background.

        Parameters
        ----------
        file : Path
            ``.onnx`` for its graph, ``.safetensors`` for the model itself.
        overwrite : bool
            Whether a file that is there may be replaced.
        """
        model = self.model
        if model is None:
            return
        write = export_graph if file.suffix == ".onnx" else export_model
        self._run(
            f"Writing {file.name}",
            lambda: write(model, file, overwrite=overwrite),
            f"{model.name} is in {file}.",
        )

    def rename(self) -> None:
        """Ask how the selected model is to be called."""
        model = self.model
        if model is None or not self.rename_button.isEnabled():
            return
        name = self._ask_name("Rename the model", model.name)
        if name and name != model.name:
            self._change(lambda: rename_model(model, name).name)

    def delete(self) -> None:
        """Delete the selected model, after a question."""
        model = self.model
        if model is None or not self.delete_button.isEnabled():
            return
        answer = QMessageBox.question(
            self,
            "Delete the model?",
            f"Delete {model.name}? This cannot be undone: export it first if you may want it "
            "again. Masks that it made stay. A fine-tuning by command that begins with it cannot "
            "go on; those of this window can.",
        )
        if answer == QMessageBox.StandardButton.Yes:
            self._change(lambda: delete_model(model))

    def _change(self, change: Callable[[], str | None]) -> None:
        """Change the library, or say why not; every list shows it as it is then."""
        selected: str | None = None
        try:
            selected = change()
        except InputError as error:
            show_error(str(error))
        self._bench.models_changed.emit()
        if selected is not None:
            self.select(selected)

    def _run(
        self,
        title: str,
        run: Callable[[], object],
        told: str,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        """Do something in the background, and say so when it is done."""

        def end(complete: bool) -> None:
            self.told.setVisible(complete)
            self.told.setText(told)
            if complete:
                ended()

        self._bench.run(Job(title, lambda _cancelled: [run()], can_stop=False), end)

    def _ask_for_file(self) -> None:
        file, _ = QFileDialog.getOpenFileName(
            self, "Import a model", "", "Models (*.safetensors);;All files (*)"
        )
        if file and (name := self._ask_name("Import a model", Path(file).stem)):
            self.add(Path(file), name)

    def _ask_where(self) -> None:
        self._ask_where_as(".safetensors", "Models (*.safetensors)")

    def _ask_where_graph(self) -> None:
        self._ask_where_as(".onnx", "ONNX graphs (*.onnx)")

    def _ask_where_as(self, suffix: str, kind: str) -> None:
        if self.model is None:
            return
        suggested = f"{self.model.name}{suffix}"
        answer, _ = QFileDialog.getSaveFileName(self, "Export the model", suggested, kind)
        if answer:
            file = Path(answer)
            named = file if file.suffix == suffix else file.with_name(f"{file.name}{suffix}")
            # The dialog has asked about the name as it was typed, not about another one.
            self.export(named, overwrite=named == file)

    def _ask_name(self, title: str, suggestion: str) -> str:
        name, _ = QInputDialog.getText(
            self, title, "Name in every list of models", QLineEdit.EchoMode.Normal, suggestion
        )
        return name.strip()

    def _list(self) -> None:
        """List the library as it is; what was selected stays so if it is there."""
        selected = "" if self.model is None else self.model.name
        self._models = list_models()
        self.models.clear()
        for model in self._models:
            kind = "bundled" if model.bundled else model.card.created or "yours"
            item = QTreeWidgetItem(self.models, [model.name, kind])
            item.setData(0, _MODEL, model)
            item.setToolTip(0, f"<qt>{escape(model.card.description)}</qt>")
        self.select(selected)

    def _show_card(self) -> None:
        model = self.model
        if model is not None:
            self.card.show_model(model, self._models)
            self.comparison.offer(model, self._models)
        self._update()

    def _update(self) -> None:
        model, idle = self.model, self._bench.job is None
        own = model is not None and not model.bundled
        self.import_button.setEnabled(idle)
        for button in (self.export_button, self.onnx_button):
            button.setEnabled(idle and model is not None)
        for button, text in ((self.rename_button, _RENAME), (self.delete_button, _DELETE)):
            button.setEnabled(idle and own)
            button.setToolTip(text if own else _BUNDLED)

    def _add_hints(self) -> None:
        hint(
            self.import_button,
            "Put a model that somebody gave you into every list of models, after checks.\n"
            "Nothing in the file is run.",
        )
        hint(
            self.export_button,
            "Write the model with its card to a file that others can import.",
        )
        hint(
            self.onnx_button,
            "Write the model as an ONNX graph for other programs, with its card among the\n"
            "metadata: they need the input size, the normalisation and the threshold.",
        )


class _ModelTree(QTreeWidget):
    """The list of models, which keeps some keys to itself: Delete here deletes no polyp."""

    def __init__(self, keys: Mapping[Qt.Key, Callable[[], None]]) -> None:
        super().__init__(headerHidden=True, rootIsDecorated=False, columnCount=2)
        self._keys = keys

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802 - Qt's name
        """Do what the key is for."""
        if event.key() in self._keys:
            self._keys[event.key()]()
        else:
            super().keyPressEvent(event)
