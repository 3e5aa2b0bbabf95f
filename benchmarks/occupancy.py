"""Occupancy models of the known-entropy world against its exact discounted future."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from benchmarks import Row
from worldmodel.dynamics.config import LayoutConfig
from worldmodel.dynamics.occupancy.config import OccupancyConfig
from worldmodel.dynamics.occupancy.model import Occupancy
from worldmodel.known_entropy.config import KnownEntropyConfig
from worldmodel.known_entropy.occupancy import KnownOccupancy
from worldmodel.known_entropy.world import ACTION_NAMES, KnownEntropyWorld

WORLD = KnownEntropyConfig(grid=(1, 1, 3), vocab_size=4, resample_prob=0.05)
GAMMAS = (0.5, 0.8, 0.95)
GOAL = 0.98
NUM_STEPS, BATCH, LR = 800, 64, 4e-3
FRAMES = 20_000  # of the drive that is trained on, and of the one that is judged
SHAPE = OccupancyConfig(
    dim=48,
    num_layers=2,
    num_heads=2,
    target_decay=0.9,
    layout=LayoutConfig("continuous"),
)


def rows() -> Iterator[Row]:
    for gamma in GAMMAS:
        reached, optimal = learned(gamma)
        name = f"occupancy of the known-entropy world, gamma {gamma:g}"
        shown = (f"{nats:.4f} nats/token" for nats in (reached, optimal))
        yield Row(name, *shown, optimal / reached, GOAL)


def learned(gamma: float, num_steps: int = NUM_STEPS, seed: int = 0) -> tuple[float, float]:
    """Nats per token of a model that was trained here, and of the exact predictor, on new frames.

    Both are judged on real frames k steps ahead, k drawn from the discount.
    """
    torch.manual_seed(seed)
    world = KnownEntropyWorld(WORLD)
    config = OccupancyConfig(**{**vars(SHAPE), "gamma": gamma})
    network = Occupancy(config, world.spec, len(ACTION_NAMES))
    optimizer = torch.optim.AdamW(network.online.parameters(), LR, weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, num_steps, pct_start=0.1)
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
    at = np.flatnonzero(np.arange(FRAMES) + ahead < FRAMES)[::4]
    past, future, acted = tokens[at], tokens[at + ahead[at]], actions[at]
    pairs = torch.stack([past, future], dim=1)
    reached = network.score(pairs, acted[:, None]).nats[:, 1].mean().item()
    known = KnownOccupancy(world.config, gamma)
    exact = known.nll(past.numpy(), future.numpy(), acted.numpy())
    return reached, float(exact.mean())


def _drive(world: KnownEntropyWorld, seed: int) -> tuple[Tensor, Tensor]:
    tokens, actions = world.sample(FRAMES, seed)
    return torch.from_numpy(tokens.astype(np.int64)), torch.from_numpy(actions)
