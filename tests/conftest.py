"""Fixtures that every test may use."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.core.config_store import ConfigStore
from jaxtyping import install_import_hook
from omegaconf import DictConfig

import training  # noqa: F401  (first: it repairs torchvision)
from training import help

# Where tensors are computed with, a test run checks the shapes in every signature; not in the GPT,
# whose compiler would trace the checks as well.
CHECKED = (
    "tokenizer.networks.autoencoder",
    "tokenizer.networks.base",
    "drives.clips.balance",
    "tokenizer.networks.video.causal_conv",
    "tokenizer.networks.discriminator",
    "tokenizer.compare.fid",
    "tokenizer.inference.frame_encoder",
    "tokenizer.compare.inception",
    "tokenizer.losses.distillation",
    "tokenizer.losses.terms",
    "tokenizer.metrics",
    "tokenizer.networks.video.haar",
    "tokenizer.networks.musik",
    "tokenizer.published.cosmos_dv",
    "tokenizer.published.torchscript",
    "tokenizer.losses.perceptual_features",
    "tokenizer.quantizers",
    "tokenizer.networks.semantic",
    "tokenizer.doctor.treatment",
    "tokenizer.networks.video.video_autoencoder",
    "tokenizer.networks.video.blocks",
    "tokenizer.networks.vision_transformer",
    "tokenizer.doctor.vitals",
    "tokenizer.networks.vqgan",
    "tokenizer.inference.residual",
    "tokenizer.inference.winograd",
    "worldmodel.decoding",
    "worldmodel.evaluation",
)
install_import_hook(CHECKED, "shape_checks.check")

ROOT = Path(__file__).parent.parent
Fitted = tuple[Any, Any, Any]
TINY_DRIVES = (
    "data.source.carracing.num_train=2",
    "data.source.carracing.num_val=1",
    "data.source.carracing.num_test=1",
    "data.source.carracing.seconds=4.0",
)

# Hydra copies all registered options whenever it composes; a third of that time.
ConfigStore.__deepcopy__ = lambda self, memo: self  # type: ignore[attr-defined]

# One, where nobody asks for more: processes of a test run share the cores.
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
os.environ["WANDB_MODE"] = "disabled"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Each process takes tests that follow one another, so a module's fixtures are made once."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with real drives and published parity numbers; the test skips where it is absent."""
    path = Path(os.environ.get("DASHCAST_SHARED", ROOT.parent / "shared"))
    if not (path / "parity").is_dir():
        pytest.skip(f"{path} holds no shared data; set DASHCAST_SHARED")
    return path.resolve()


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory) -> Path:
    """Where a test session keeps its few embedded drives; all its processes share them."""
    return tmp_path_factory.getbasetemp().parent / "data"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 5 MB, really full when it is; the test skips where nothing may be mounted."""
    folder = tmp_path / "small_disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no tmpfs can be mounted here ({getattr(error, 'stderr', error)})")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def composed(tmp_path: Path, data_folder: Path) -> Callable[..., DictConfig]:
    """`composed("experiment", *overrides)`: the real config, on four short embedded drives."""

    def make(experiment: str, *overrides: str) -> DictConfig:
        words = [
            f"+experiment={experiment}",
            f"paths.runs={tmp_path}/runs",
            f"paths.data={data_folder}",
            "logger=none",
            "trainer.accelerator=cpu",
            "trainer.devices=1",
            *(() if any(o.startswith("data=") for o in overrides) else TINY_DRIVES),
            *overrides,
        ]
        return help.composed("train", words)

    return make


@pytest.fixture(autouse=True)
def same_number_of_threads() -> Iterator[None]:
    """What a test sets is not what the next one finds."""
    before = torch.get_num_threads()
    yield
    if torch.get_num_threads() != before:
        torch.set_num_threads(before)


@pytest.fixture
def fit() -> Callable[[DictConfig], Fitted]:
    """`fit(cfg)`: what train.py does; returns the module, the run and the trainer."""

    def train(cfg: DictConfig, *callbacks: Any) -> Fitted:
        import training.run as runs

        run = runs.open_run(cfg)
        datamodule = runs.build_data(cfg)
        module = runs.build_model(cfg, datamodule)
        run.begin(module)
        trainer = runs.build_trainer(cfg, run, datamodule, module)
        run.describe(datamodule, module)
        trainer.callbacks.extend(callbacks)
        run.fit(trainer, module, datamodule)
        return module, run, trainer

    return train
