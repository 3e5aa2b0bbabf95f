"""Occupancy models: the cost of bootstraps, and what is learned against the exact future.

The world is one of known entropy (worldmodel/known_entropy/occupancy.py).
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from benchmarks import Row
from drives.tokens.spec import TokenSpec
from training.config import MuonConfig
from training.optimization.optimizers import build_optimizer
from worldmodel.dynamics.config import LayoutConfig
from worldmodel.dynamics.occupancy.config import OccupancyConfig
from worldmodel.dynamics.occupancy.model import Occupancy
from worldmodel.known_entropy.config import KnownEntropyConfig
from worldmodel.known_entropy.occupancy import KnownOccupancy
from worldmodel.known_entropy.world import ACTION_NAMES, KnownEntropyWorld

WORLD = KnownEntropyConfig(grid=(1, 1, 3), vocab_size=4, resample_prob=0.05)
# Horizon by gamma: half of the targets are real frames, so what is learned spreads in few steps.
GAMMAS = {0.5: 1, 0.8: 4, 0.95: 16}
GOAL = 0.98
NUM_STEPS, BATCH = 4000, 256
FRAMES = 100_000  # of the drive that is trained on, and of the one that is judged
SHAPE = OccupancyConfig(
    dim=48,
    num_layers=2,
    num_heads=2,
    target_decay=0.9,
    look_back=5,  # the whole panorama
    layout=LayoutConfig("continuous"),
)
OPTIMIZER = MuonConfig(
    lr=5e-3,
    muon_lr=3e-2,
    weight_decay=0.0,
    warmup_steps=20,
    schedule="wsd",
    decay_share=0.4,
    min_lr_ratio=0.01,
)
MOST = 0.5  # share of a step that bootstrapping may take
# The recipe occupancy_tiny, and a horizon of one frame, at 64 tokens a frame.
STATE, HORIZONS = 3, (1, 8)
RECIPE = OccupancyConfig(
    dim=192,
    num_layers=2,
    num_heads=3,
    gamma=0.9,
    stack=3,
    context_steps=STATE + 1,
    layout=LayoutConfig("continuous"),
)
TOKENS = TokenSpec((1, 8, 8), 1000, 10.0, 1, (64, 64), "benchmark")


def rows() -> Iterator[Row]:
    for horizon in HORIZONS:
        config = replace(RECIPE, horizon=horizon, context_steps=STATE + horizon)
        sampled, trained = step_seconds(config)
        share = sampled / (sampled + trained)
        shown = f"{sampled:.2f} s", f"{sampled + trained:.2f} s of CPU"
        name = f"bootstrapping in a step of occupancy_tiny, horizon {horizon}, at most {MOST:.0%}"
        yield Row(name, *shown, share)
    for gamma in GAMMAS:
        reached, optimal = learned(gamma)
        name = f"occupancy of the known-entropy world, gamma {gamma:g}"
        told = (f"{nats:.4f} nats/token" for nats in (reached, optimal))
        yield Row(name, *told, optimal / reached, GOAL)


def step_seconds(config: OccupancyConfig, batch: int = 8, repeats: int = 3) -> tuple[float, float]:
    """CPU seconds of the bootstraps of a step, and of the rest of it, taken in turns."""
    torch.manual_seed(0)
    network = Occupancy(config, TOKENS, 5)
    optimizer, _ = build_optimizer(network, MuonConfig(), 100)
    tokens = torch.randint(1000, (batch, config.context_steps, 8, 8))
    actions = torch.randn(batch, config.context_steps, 5)

    def rest() -> None:
        optimizer.zero_grad()
        network.loss_of(tokens, network.stack_of(tokens, 0), actions).backward()
        optimizer.step()
        network.after_step()

    spent = np.zeros((repeats + 1, 2))
    for turn in spent:
        turn[:] = _cpu_seconds(lambda: network.targets(tokens, actions)), _cpu_seconds(rest)
    sampled, trained = spent[1:].mean(axis=0).tolist()
    return sampled, trained


def _cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def learned(gamma: float, num_steps: int = NUM_STEPS, seed: int = 0) -> tuple[float, float]:
    """Nats per token of a model that was trained here, and of the exact predictor, on new frames.

    Both are judged on real frames k steps ahead, k drawn from the discount.
    """
    torch.manual_seed(seed)
    world = KnownEntropyWorld(WORLD)
    horizon = GAMMAS[gamma]
    config = replace(SHAPE, gamma=gamma, horizon=horizon, context_steps=1 + horizon)
    network = Occupancy(config, world.spec, len(ACTION_NAMES))
    optimizer, schedule = build_optimizer(network, OPTIMIZER, num_steps)
    tokens, actions = _drive(world, seed)
    window = torch.arange(config.context_steps)
    for _ in range(num_steps):
        rows = torch.randint(FRAMES - config.context_steps, (BATCH, 1)) + window
        optimizer.zero_grad()
        network.loss(tokens[rows], actions[rows]).backward()
        torch.nn.utils.clip_grad_norm_(network.online.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        network.after_step()
    return judged(network.eval(), world, gamma, seed + 1)


@torch.no_grad()
def judged(
    network: Occupancy, world: KnownEntropyWorld, gamma: float, seed: int
) -> tuple[float, float]:
    """Nats per token of a model and of the exact predictor, on the same frames of one drive."""
    tokens, actions = _drive(world, seed)
    ahead = np.random.default_rng(seed).geometric(1 - gamma, FRAMES)
    at = np.flatnonzero(np.arange(FRAMES) + ahead < FRAMES)[::10]
    past, future, acted = tokens[at], tokens[at + ahead[at]], actions[at]
    pairs = torch.stack([past, future], dim=1)
    reached = network.score(pairs, acted[:, None]).nats[:, 1].mean().item()
    known = KnownOccupancy(world.config, gamma)
    exact = known.nll(past.numpy(), future.numpy(), acted.numpy())
    return reached, float(exact.mean())


def _drive(world: KnownEntropyWorld, seed: int) -> tuple[Tensor, Tensor]:
    tokens, actions = world.sample(FRAMES, seed)
    return torch.from_numpy(tokens.astype(np.int64)), torch.from_numpy(actions)
