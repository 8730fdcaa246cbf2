"""What a user gets from the wheel: the manifest, the weights, the sample data."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel was unpacked, as pip does."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(  # noqa: S603
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def run(installed: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(installed)}
    return subprocess.run(  # noqa: S603
        [sys.executable, *command],
        env=environment,
        cwd=installed,
        check=False,
        capture_output=True,
        text=True,
    )


def test_the_wheel_holds_a_real_manifest_that_validates(installed: Path) -> None:
    manifest = installed / "napari_microaunet" / "napari.yaml"
    assert manifest.is_file()
    assert not manifest.is_symlink()
    result = run(installed, "-m", "npe2", "validate", str(manifest))
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_manifest_at_the_top_is_the_packages_own() -> None:
    link = ROOT / "napari.yaml"
    assert link.resolve() == ROOT / "src" / "napari_microaunet" / "napari.yaml"


def test_the_installed_package_finds_its_sample_data(installed: Path) -> None:
    code = (
        "import napari_microaunet as p\n"
        "from napari_microaunet.frames.sample_data import sample_data_folder\n"
        "from napari_microaunet.frames import open_frames\n"
        "print(p.__file__, len(open_frames(sample_data_folder() / 'frames')))"
    )
    result = run(installed, "-c", code)
    assert result.stdout.split() == [str(installed / "napari_microaunet" / "__init__.py"), "12"], (
        result.stderr
    )


def test_the_installed_package_lists_its_models(installed: Path) -> None:
    result = run(installed, "-m", "napari_microaunet", "models")
    assert "student" in result.stdout
    assert "teacher" in result.stdout


def test_nothing_but_the_package_is_in_the_wheel(installed: Path) -> None:
    top = {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")}
    assert top == {"napari_microaunet"}


def test_the_wheel_is_soon_downloaded(installed: Path) -> None:
    (wheel,) = installed.parent.glob("*.whl")
    assert wheel.stat().st_size < 60e6
