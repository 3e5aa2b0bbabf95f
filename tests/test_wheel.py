"""The wheel holds what the commands need, and they run from any folder."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("drives", "tokenizer", "worldmodel", "training", "configs", "hydra_plugins")


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """What pip would unpack of a wheel, made of the sources alone."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("train.py", "eval.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "-w", folder, source], check=True, capture_output=True)
    (wheel,) = folder.glob("dashcast-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_packages_and_the_licence(installed):
    ours = [f for p in PACKAGES for f in (ROOT / p).rglob("*") if f.suffix != ".pyc"]
    missing = [f for f in ours if f.is_file() and not (installed / f.relative_to(ROOT)).exists()]
    assert not missing
    assert list(installed.glob("dashcast-*.dist-info/**/LICENSE"))


@pytest.mark.slow
@pytest.mark.parametrize("module", ["train", "eval", "tokenizer.encode", "drives.importers"])
def test_commands_run_from_any_folder(installed, tmp_path, module):
    done = subprocess.run(
        [sys.executable, "-P", "-m", module, "--help"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())
