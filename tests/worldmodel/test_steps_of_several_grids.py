"""A time step of several grids (T' > 1) is trained, rolled out and judged by every kind."""

import importlib
import json
import math
import sys

import numpy as np
import pytest

from drives.tokens.spec import TokenSpec
from drives.tokens.store import TokenStore
from drives.tokens.writer import TokenStoreWriter
from worldmodel.decoding.config import Sampling
from worldmodel.decoding.rollout import METHODS, rollout
from worldmodel.load import load_world_model
from worldmodel.windows import TokenWindows, collate

GRID = (2, 2, 3)
TINY = [
    "data.batch_size=2",
    "data.num_val_windows=2",
    "model.network.dim=32",
    "model.network.num_heads=2",
    "model.network.num_layers=2",
    "model.network.context_steps=4",
    "trainer.max_steps=2",
    "trainer.val_check_interval=2",
    "trainer.log_every_n_steps=1",
    "callbacks.media.every_steps=2",
    "callbacks.media.horizon_steps=2",
]


@pytest.fixture
def store(tmp_path):
    spec = TokenSpec(GRID, 12, 10.0, 2, (16, 24), "another's")
    writer = TokenStoreWriter(tmp_path / "store", spec, ("steering",))
    for number, split in enumerate(("train", "val", "test")):
        random = np.random.default_rng(number)
        tokens = random.integers(0, 12, (12, *GRID))
        writer.write(split, split, tokens, random.normal(size=(12, 1)).astype(np.float32))
    return TokenStore(tmp_path / "store")


SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("masked", "whole", "whole_inner")]


@pytest.mark.parametrize("kind", ["gpt", *SLOW])
def test_every_kind_trains_rolls_out_and_is_judged(
    kind, store, composed, fit, tmp_path, monkeypatch
):
    words = ["data=tokens", f"data.root={store.root}", *TINY]
    _, run, _ = fit(composed(f"{kind}_tiny", *words))
    model = load_world_model(run.folder)
    windows = collate([TokenWindows(store.drives("test"), 4)[0]])
    assert windows.tokens.shape == (1, 4, 4, 3)
    scores = model.network.score(windows.tokens, windows.actions)
    assert scores.nats.shape == (1, 4, 12)
    for name, method in METHODS.items():
        if isinstance(model.network, method.kind) and method.fits(model.network):
            made = rollout(
                model.network,
                windows.tokens,
                windows.actions.repeat(1, 2, 1),
                2,
                Sampling(),
                method=name,
            )
            assert made.shape[-2:] == (4, 3)
    command(monkeypatch, "worldmodel.rollout", f"ckpt={run.folder}", f"out={tmp_path}/out")
    future = TokenStore(tmp_path / "out").drives("test")[0]
    assert future.tokens.shape[1:] == GRID
    command(monkeypatch, "eval", f"ckpt={run.folder}")
    found = json.loads((run.folder / "eval" / "metrics.json").read_text())["cards"]
    nats = found["teacher_forced"]["scores"]["world model"]["nats_per_token"]["value"]
    assert nats == pytest.approx(math.log(12), rel=0.5)


def command(monkeypatch, name, *arguments):
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    importlib.import_module(name).main()
