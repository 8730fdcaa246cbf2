"""What napari is told of the plugin; nothing here needs a display."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest
from npe2 import PluginManifest


@pytest.fixture(scope="module")
def manifest():
    return PluginManifest.from_distribution("napari-microaunet")


def test_every_command_leads_to_something_that_can_be_called(manifest):
    assert manifest.contributions.commands
    for command in manifest.contributions.commands:
        module, _, name = command.python_name.partition(":")
        assert callable(getattr(importlib.import_module(module), name))


def test_every_contribution_names_a_command(manifest):
    commands = {command.id for command in manifest.contributions.commands}
    given = manifest.contributions
    used = [*given.widgets, *given.readers, *given.writers, *given.sample_data]
    used += [item for items in given.menus.values() for item in items]
    assert {one.command for one in used} == commands


def test_the_menus_a_user_looks_in_hold_the_dock(manifest):
    for menu in ("napari/layers/segment", "napari/layers/annotate"):
        assert [item.command for item in manifest.contributions.menus[menu]] == [
            "napari-microaunet.dock"
        ]


def test_the_dock_opens_without_the_slow_imports():
    code = (
        "import sys, napari_microaunet.widgets.dock; "
        "print(sorted({'torch', 'onnxruntime', 'monai', 'av', 'dask.array'} & set(sys.modules)))"
    )
    result = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert result.stdout.strip() == "[]"
