from __future__ import annotations

import sys

import pytest

from napari_microaunet import cli


@pytest.fixture
def microaunet(monkeypatch, capsys):
    """Run the command as its users do; give exit code, stdout and stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["microaunet", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    return run
