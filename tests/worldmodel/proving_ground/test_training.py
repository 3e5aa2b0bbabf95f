"""Policies that are trained: cloned from drives, and by their returns in dreams alone."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_world import SPEC

from drives.tokens.store import TokenStore
from drives.tokens.writer import TokenStoreWriter
from training.errors import BadInput
from training.help import composed
from worldmodel.proving_ground.__main__ import proving_ground
from worldmodel.proving_ground.cloning import clone, token_vectors
from worldmodel.proving_ground.config import CloningConfig, DreamTrainingConfig
from worldmodel.proving_ground.dream_training import train_in_dreams
from worldmodel.proving_ground.policies import DriverView

NAMES = ("steering", "throttle", "brake", "speed_mps", "reward")


def store_at(
    folder: Path, names: tuple[str, ...] = NAMES, others: tuple[str, str] = ("val", "test")
) -> TokenStore:
    """The wheel follows the first token; first the wrong way, for which there is no reward."""
    writer, rng = TokenStoreWriter(folder, SPEC, names), np.random.default_rng(0)
    for number in range(8):
        tokens = rng.integers(0, SPEC.vocab_size, (300, 2, 3)).astype(np.uint16)
        good = np.arange(300) >= 150
        wheel = (tokens[:, 0, 0] / 5 - 1) * np.where(good, 1, -1)
        speed = rng.uniform(0, 20, 300)
        rows = np.column_stack([wheel, 0.01 * speed, 0 * speed, speed, good])
        split = others[number - 6] if number > 5 else "train"
        writer.write(f"drive-{number}", split, tokens, rows[:, : len(names)].astype(np.float32))
    return TokenStore(folder)


def wheel_of(store: TokenStore, share: float) -> float:
    """How the clone's wheel correlates with the first token."""
    cloned = clone(
        store,
        CloningConfig(steps=150, best_share=share, dropout=0.0, num_frames=1, learning_rate=5e-3),
        "cpu",
    )
    tokens = torch.randint(0, SPEC.vocab_size, (200, 3, 2, 3))
    frames, speed = torch.zeros(200, 3, 16, 24, dtype=torch.uint8), torch.full((200,), 10.0)
    commands = cloned.driver(200, 0, "cpu")(DriverView(frames, tokens, speed))
    assert commands[:, 1].min() >= 0
    return float(np.corrcoef(commands[:, 0], tokens[:, -1, 0, 0])[0, 1])


def test_a_clone_follows_the_drives_that_earned_most(tmp_path: Path) -> None:
    store = store_at(tmp_path / "store")
    assert wheel_of(store, 0.5) > 0.8
    assert abs(wheel_of(store, 1.0)) < 0.7
    with pytest.raises(BadInput, match="has no column 'brake'"):
        clone(store_at(tmp_path / "less", NAMES[:2]), CloningConfig(), "cpu")


def test_test_drives_choose_no_clone(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no drive is in the val split"):
        clone(store_at(tmp_path / "store", others=("train", "test")), CloningConfig(), "cpu")


def test_missing_heads_are_told_before_drives_are_made(tmp_path: Path) -> None:
    words = [f"heads={tmp_path}", f"out={tmp_path}/out", f"paths.data={tmp_path}/data"]
    cfg = composed("commands/proving_ground", ["ckpt=carracing", *words])
    with pytest.raises(BadInput, match=r"holds no heads\.json"):
        proving_ground(cfg)
    assert not any(tmp_path.iterdir())


def test_tokens_with_digits_are_read_by_them() -> None:
    spec = replace(SPEC, vocab_size=15, factors=(5, 3))
    vectors = token_vectors(spec)
    assert not vectors.weight.requires_grad
    assert vectors(torch.tensor([0, 4, 5, 14])).tolist() == [[-1, -1], [1, -1], [-1, 0], [1, 1]]
    assert token_vectors(SPEC).weight.requires_grad


def test_dreams_alone_teach_a_policy() -> None:
    goal, asked = torch.randn(10, generator=torch.Generator().manual_seed(3)) * 0.4, []

    def drive(policies, starts, steps, seed):  # type: ignore[no-untyped-def]
        asked.append((len(policies), len(starts), steps, seed))
        worth = [-float(((p.weights[0] - goal) ** 2).sum()) for p in policies]
        return SimpleNamespace(rewards=np.array(worth)[:, None, None].repeat(2, 1))

    ground = SimpleNamespace(drive=drive, world=SimpleNamespace(fps=10.0))
    config = DreamTrainingConfig(rounds=20, num_candidates=60, seconds=1.5)
    said: list[str] = []
    found = train_in_dreams(ground, [None] * 2, config, said.append)  # type: ignore[arg-type]
    assert ((found.weights[0] - goal) ** 2).mean() < 0.03
    assert asked == [(60, 2, 15, number) for number in range(20)]
    assert said[0].startswith("round 1: returns of mean")


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (CloningConfig, {"best_share": 0.0}),
        (CloningConfig, {"steps": -1}),
        (DreamTrainingConfig, {"num_elites": 99}),
        (DreamTrainingConfig, {"spread": 0.0}),
    ],
)
def test_impossible_settings_are_refused(kind: type, wrong: dict) -> None:
    with pytest.raises(BadInput, match=next(iter(wrong))):
        kind(**wrong)
