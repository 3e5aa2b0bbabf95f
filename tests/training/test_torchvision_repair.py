"""Every test runs in a fresh interpreter: what is imported first is the point."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def python(code: str, *, fake: Path | None = None) -> subprocess.CompletedProcess[str]:
    path = [str(folder) for folder in (fake, ROOT) if folder is not None]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=120
    )


@pytest.fixture
def fake_torchvision(tmp_path: Path) -> Path:
    """A folder for the path, with an empty package named torchvision."""
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").touch()
    (tmp_path / "torchvision" / "part.py").write_text("print('part')\n")
    return tmp_path


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("import training; import lightning", marks=pytest.mark.slow),
        "import tokenizer, lpips",
    ],
)
def test_real_imports_work(code: str) -> None:
    done = python(f"{code}; import torchvision; torchvision.models.resnet18; print('fine')")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "fine\n"


def test_installing_imports_neither_torch_nor_torchvision() -> None:
    done = python("import training, sys; print({'torch', 'torchvision'} & set(sys.modules))")
    assert done.stdout == "set()\n", done.stderr


def test_it_is_installed_once() -> None:
    code = (
        "import training, sys; n = len(sys.meta_path); "
        "training.torchvision_repair.install(); print(len(sys.meta_path) - n)"
    )
    assert python(code).stdout == "0\n"


def test_healthy_torchvision_is_untouched(fake_torchvision: Path) -> None:
    (fake_torchvision / "torchvision" / "__init__.py").write_text(
        "from torchvision import part\nprint('loaded')\n"
    )
    code = (
        "import training, torchvision, sys, importlib.resources as r; "
        "print('torch' in sys.modules, (r.files('torchvision') / 'part.py').is_file())"
    )
    done = python(code, fake=fake_torchvision)
    assert done.stdout == "part\nloaded\nFalse True\n", done.stderr


def test_missing_operators_are_declared_and_the_import_starts_afresh(
    fake_torchvision: Path,
) -> None:
    (fake_torchvision / "torchvision" / "__init__.py").write_text(
        "import torch\n"
        "assert 'leftover' not in globals()\n"
        "leftover = 1\n"
        "from torchvision import part\n"
        "if not hasattr(torch.ops.torchvision, 'nms'):\n"
        "    raise RuntimeError('operator torchvision::nms does not exist')\n"
        "version = str(torch.ops.torchvision.qnms.default)\n"
    )
    done = python("import training, torchvision; print(torchvision.version)", fake=fake_torchvision)
    assert done.stdout == "part\npart\ntorchvision.qnms.default\n", done.stderr


@pytest.mark.slow
def test_the_repaired_operator_still_refuses_to_compute() -> None:
    code = (
        "import training, torchvision, torch\n"
        "try: torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5); print('computed')\n"
        "except (NotImplementedError, RuntimeError) as error: print(type(error).__name__)\n"
    )
    # 'computed' where torchvision's own operators match torch.
    assert python(code).stdout in ("computed\n", "NotImplementedError\n", "RuntimeError\n")


@pytest.mark.parametrize(
    "error",
    [
        "RuntimeError('operator torchvision::roi_align does not exist')",
        "RuntimeError('CUDA is on fire')",
        "ImportError('operator torchvision::nms does not exist')",
    ],
)
def test_other_errors_pass_through(fake_torchvision: Path, error: str) -> None:
    package = fake_torchvision / "torchvision" / "__init__.py"
    package.write_text(f"print('try')\nraise {error}\n")
    done = python("import training, torchvision", fake=fake_torchvision)
    assert done.returncode == 1
    assert done.stdout == "try\n"
    assert error.split("'")[1] in done.stderr.splitlines()[-1]
