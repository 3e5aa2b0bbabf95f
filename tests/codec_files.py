"""A small world model and tokens that the tests of the codec code."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from drives.tokens.store import TokenSpec
from drives.tokens.writer import TokenStoreWriter
from training.checkpoints.folder import write_checkpoint
from worldmodel.codec.__main__ import main
from worldmodel.dynamics.config import LayoutConfig
from worldmodel.dynamics.kinds import build_dynamics
from worldmodel.dynamics.whole_frame.config import WholeFrameConfig
from worldmodel.load import manifest_of

SPEC = TokenSpec((1, 2, 3), 11, 10.0, 1, (16, 24), "test")
NAMES = ("steering", "speed_mps")
SMALL = ["--segment-steps", "7", "--parallel", "2"]


def make_checkpoint(path: Path, seed: int = 0, actions: str = "continuous", **facts: Any) -> str:
    torch.manual_seed(seed)
    layout = LayoutConfig(actions)
    config = WholeFrameConfig(24, 2, 0, 2, context_steps=3, layout=layout)
    network = build_dynamics(config, SPEC, 2)
    weights = {f"network.{name}": value for name, value in network.state_dict().items()}
    write_checkpoint(path, weights, manifest_of(config, SPEC, NAMES) | facts)
    return str(path)


def make_tokens(steps: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 11, (steps, 2, 3)).astype(np.int16)


def make_file(path: Path, steps: int = 20) -> str:
    np.save(path, make_tokens(steps))
    return str(path)


def make_store(path: Path) -> str:
    writer = TokenStoreWriter(path, SPEC, NAMES)
    for number, (steps, split) in enumerate([(16, "train"), (3, "test"), (15, "test")]):
        actions = np.random.default_rng(number).normal(size=(steps, 2)).astype(np.float32)
        captions = [{"text": "rain", "start": 0, "stop": 2}]
        meta = {"captions": captions, "licence": "MIT"}
        writer.write(f"d{number}", split, make_tokens(steps, number), actions, meta)
    return str(path)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The message of a command that ends with exit code 2."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert ended.value.code == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("error: ")
    return message
