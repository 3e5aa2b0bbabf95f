"""The architecture, as far as imports show it."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

# Which of our packages a package may import, besides itself.
MAY_IMPORT: dict[str, set[str]] = {
    "training": set(),
    "tokenizer": {"training"},
    "worldmodel": {"training", "tokenizer"},
}
# Nothing but the commands below imports these from inside a package.
ENTRY_POINTS = {"train", "eval", "configs", "tests", "benchmarks"}
# Files of tokenizer/ and worldmodel/ that may import lightning; all of training/ may.
MAY_IMPORT_LIGHTNING = {
    "module.py",
    "semantic_module.py",
    "data.py",
    "callbacks.py",
    "__main__.py",
    "encode.py",
    "decode.py",
    "doctor.py",
    "treatment.py",
}
MAY_IMPORT_HYDRA = {
    "train.py",
    "eval.py",
    "training/cli.py",
    "tokenizer/encode.py",
    "tokenizer/convert.py",
    "tokenizer/decode.py",
    "tokenizer/export.py",
    "training/run.py",
    "training/planner/plan.py",
    "training/scaling/ladder.py",
    "training/search/search.py",
    "training/sweeps/slurm_queue.py",
    "training/sweeps/snapshot.py",
    "training/trainer.py",
    "worldmodel/evaluation/decoding_bench.py",
}
LIGHTNING = {"lightning", "pytorch_lightning", "lightning_fabric"}
OURS = set(MAY_IMPORT)


def imported(source: str) -> set[str]:
    """Top-level names of all modules that a source imports, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def violations(path: str, source: str) -> Iterator[str]:
    """What is wrong with the imports of the file at `path`, relative to the root."""
    package, _, name = path.rpartition("/")
    package = package.split("/")[0]
    names = imported(source)
    if package in OURS:
        for other in names & (OURS | ENTRY_POINTS) - MAY_IMPORT[package] - {package}:
            yield f"{path}: {package} must not import {other}"
    if package in OURS - {"training"} and name not in MAY_IMPORT_LIGHTNING:
        for other in names & LIGHTNING:
            yield f"{path}: only {', '.join(sorted(MAY_IMPORT_LIGHTNING))} may import {other}"
    if "hydra" in names and path not in MAY_IMPORT_HYDRA:
        yield f"{path}: only {', '.join(sorted(MAY_IMPORT_HYDRA))} may import hydra"


def test_imports_run_one_way() -> None:
    files = [ROOT / "train.py", ROOT / "eval.py"]
    files += [file for package in OURS for file in sorted((ROOT / package).rglob("*.py"))]
    assert len(files) > 2 + len(OURS)
    found = [
        problem
        for file in files
        for problem in violations(file.relative_to(ROOT).as_posix(), file.read_text())
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("package", ["tokenizer", "worldmodel"])
def test_packages_import_training_first(package: str) -> None:
    body = ast.parse((ROOT / package / "__init__.py").read_text()).body
    first = next(node for node in body if isinstance(node, ast.Import | ast.ImportFrom))
    assert imported(ast.unparse(first)) == {"training"}


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("training/loading/order.py", "from drives.drive import Drive"),
        ("training/loading/order.py", "def f():\n    import worldmodel.dynamics.gpt.model"),
        ("drives/drive.py", "import worldmodel"),
        ("worldmodel/dynamics/gpt/model.py", "import train"),
        ("tokenizer/networks/autoencoder.py", "import lightning.pytorch as pl"),
        ("worldmodel/gpt/network.py", "from lightning import LightningModule"),
        ("worldmodel/module.py", "from hydra.utils import instantiate"),
        ("training/loop.py", "import hydra"),
    ],
)
def test_violations_are_found(path: str, source: str) -> None:
    assert len(list(violations(path, source))) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        (
            "worldmodel/dynamics/gpt/model.py",
            "import drives.drive\nfrom training.errors import BadInput",
        ),
        ("worldmodel/module.py", "from lightning import LightningModule"),
        ("training/loop.py", "import lightning"),
        ("train.py", "import hydra, lightning, worldmodel"),
        ("training/cli.py", "import hydra"),
    ],
)
def test_allowed_imports_are_allowed(path: str, source: str) -> None:
    assert not list(violations(path, source))


def test_settings_are_read_without_torch() -> None:
    files = [file.relative_to(ROOT) for package in OURS for file in (ROOT / package).rglob("*.py")]
    configs = [".".join(file.with_suffix("").parts) for file in files if file.name == "config.py"]
    heavy = {"torch", "lightning", "datasets"}
    code = f"import sys, {', '.join(configs)}; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr
