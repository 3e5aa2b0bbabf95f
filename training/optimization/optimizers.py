"""Optimizer groups and learning-rate schedules, driven by the number of steps alone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from training.errors import BadInput
from training.ranges import at_least, one_of, positive, share

SCHEDULES = ("cosine", "wsd", "constant")


@dataclass(frozen=True)
class AdamWConfig:
    """AdamW (Loshchilov and Hutter 2019) with warm-up and a schedule.

    Attributes:
        lr: peak learning rate.
        schedule: "cosine" (to `min_lr_ratio`), "wsd" (warm-up, stable, linear decay over the
            last `decay_share` of the steps; Hu et al. 2024, arXiv 2404.06395), or "constant".
        warmup_steps: steps of linear warm-up, at most half of the run.
        clip_norm: global gradient norm above which gradients are scaled down; 0 is off.
    """

    lr: float = 3e-4
    betas: Sequence[float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    schedule: str = "cosine"
    warmup_steps: int = 100
    min_lr_ratio: float = 0.1
    decay_share: float = 0.2

    def __post_init__(self) -> None:
        one_of(SCHEDULES, "optimizer.", schedule=self.schedule)
        positive("optimizer.", lr=self.lr, eps=self.eps)
        if self.lr >= 10:
            raise BadInput(f"optimizer.lr={self.lr}: give a smaller rate, such as 3e-4")
        at_least(0.0, "optimizer.", weight_decay=self.weight_decay, clip_norm=self.clip_norm)
        at_least(0, "optimizer.", warmup_steps=self.warmup_steps)
        share("optimizer.", min_lr_ratio=self.min_lr_ratio, decay_share=self.decay_share)
        if len(self.betas) != 2:
            raise BadInput(f"optimizer.betas={list(self.betas)}: give two, such as [0.9, 0.95]")
        for beta in self.betas:
            share("optimizer.", betas=beta)
            if beta == 1:
                raise BadInput("optimizer.betas=1: an average that never moves; give less than 1")


def lr_factor(config: AdamWConfig, step: int, max_steps: int) -> float:
    """Learning rate at `step` (0-based) as a share of the peak."""
    warmup = min(config.warmup_steps, max_steps // 2)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if config.schedule == "cosine":
        progress = min(1.0, (step - warmup) / max(1, max_steps - warmup))
        shape = 0.5 * (1 + math.cos(math.pi * progress))
        return config.min_lr_ratio + (1 - config.min_lr_ratio) * shape
    if config.schedule == "wsd":
        decay_steps = max(1, round(config.decay_share * max_steps))
        left = max(0, max_steps - step)
        return config.min_lr_ratio + (1 - config.min_lr_ratio) * min(1.0, left / decay_steps)
    return 1.0


def build_optimizer(
    module: nn.Module, config: AdamWConfig, max_steps: int
) -> tuple[torch.optim.AdamW, torch.optim.lr_scheduler.LambdaLR]:
    """AdamW, its groups, and its per-step schedule.

    Matrices decay, the rest does not. A module may have `lr_multipliers()`, a rate per parameter
    name as a multiple of `lr` (width transfer); the decay of such a parameter is divided by it,
    because AdamW decays by rate times decay. Multiples of 1 come first.
    """
    multipliers: dict[str, float] = getattr(module, "lr_multipliers", dict)()
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {(1.0, True): [], (1.0, False): []}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            key = (multipliers.get(name, 1.0), parameter.ndim >= 2)
            groups.setdefault(key, []).append(parameter)
    optimizer = torch.optim.AdamW(
        [
            {
                "params": members,
                "lr": config.lr * multiplier,
                "weight_decay": config.weight_decay / multiplier if decays else 0.0,
            }
            for (multiplier, decays), members in groups.items()
            if members
        ],
        lr=config.lr,
        betas=(config.betas[0], config.betas[1]),
        eps=config.eps,
        fused=True,  # only fused ones can refuse a step (training.gradients)
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: lr_factor(config, step, max_steps)
    )
    return optimizer, schedule
