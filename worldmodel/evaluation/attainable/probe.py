"""A small network that is trained with or without actions, on the same windows in one order.

A whole-frame network with inner layers: its likelihood is exact, and within a frame it compares
tokens with what was foreseen, so that without actions it infers them from the first tokens.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch.nn.utils import clip_grad_norm_

from drives.tokens.spec import TokenSpec
from training.config import MuonConfig
from training.optimization.optimizers import build_optimizer
from worldmodel.dynamics.base import Dynamics
from worldmodel.dynamics.kinds import build_dynamics
from worldmodel.evaluation.attainable.config import ProbeConfig
from worldmodel.evaluation.attainable.windows import HorizonWindows

MAX_NORM = 1.0


def train_probe(
    train: HorizonWindows,
    select: tuple[HorizonWindows, list[int]],
    spec: TokenSpec,
    config: ProbeConfig,
    seed: int,
    with_actions: bool,
    device: str,
    on_step: Callable[[], object] = lambda: None,
) -> Dynamics:
    """Train a probe, and give it back in its best state on other held-out windows.

    Both of a pair have the same initial weights and read the same windows. Without actions, the
    rows are 0.

    Args:
        select: windows on which the best state is chosen.
        on_step: called after every step.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        width = train.horizon * len(train.mean)
        network = replace(config.network, share_factors=len(spec.factors) > 1)
        probe = build_dynamics(network, spec, width).to(device)
        settings = MuonConfig(
            lr=config.learning_rate,
            muon_lr=config.muon_lr,
            weight_decay=config.weight_decay,
            min_lr_ratio=0.02,
        )
        optimizer, schedule = build_optimizer(probe, settings, config.steps)
        rng = np.random.default_rng(seed)
        every = max(1, config.steps // config.checks)
        best, kept = math.inf, probe.state_dict()
        for step in range(1, config.steps + 1):
            probe.train()
            ids = rng.integers(0, len(train), config.batch_size).tolist()
            clip = train.batch(ids, with_actions).to(device)
            loss = probe.loss(clip.tokens, clip.actions)
            optimizer.zero_grad()
            loss.backward()
            clip_grad_norm_(probe.parameters(), MAX_NORM)
            optimizer.step()
            schedule.step()
            on_step()
            if step % every == 0 or step == config.steps:
                bits = bits_of(probe, *select, with_actions, device).mean()
                if bits < best:
                    best = float(bits)
                    kept = {k: v.detach().clone() for k, v in probe.state_dict().items()}
    probe.load_state_dict(kept)
    return probe.eval()


@torch.no_grad()
def bits_of(
    probe: Dynamics,
    windows: HorizonWindows,
    ids: list[int],
    with_actions: bool,
    device: str,
) -> Float[np.ndarray, " window"]:
    """Bits of the last frame of every window."""
    probe.eval()
    found = []
    for batch in windows.batches(ids, with_actions):
        clip = batch.to(device)
        found.append(probe.score(clip.tokens, clip.actions).nats[:, -1].double().sum(-1).cpu())
    return torch.cat(found).numpy() / math.log(2)
