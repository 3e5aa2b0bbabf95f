"""Optimizer groups and learning-rate schedules; functions of the step alone."""

import math
from collections.abc import Callable

import torch
from torch import nn

from training.config import AdamWConfig, MuonConfig
from training.errors import BadInput
from training.optimization.muon import KernelMuon, MuonWithAdamW


def lr_factor(config: AdamWConfig, step: int, max_steps: int) -> float:
    """Learning rate at `step` (0-based) as a share of the peak."""
    max_steps = round(max_steps / config.schedule_share)
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
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
    """The optimizer with its parameter groups, and its per-step schedule.

    Only matrices have weight decay. A module may define `lr_multipliers()`: multiples of `lr` by
    parameter name (width transfer). The decay of such a parameter is divided by the multiple,
    because AdamW decays by rate times decay. Groups with multiple 1 come first.
    """
    multipliers: dict[str, float] = getattr(module, "lr_multipliers", dict)()
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {(1.0, True): [], (1.0, False): []}
    matrices = block_matrices(module) if isinstance(config, MuonConfig) else {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad and name not in matrices:
            key = (multipliers.get(name, 1.0), parameter.ndim >= 2)
            groups.setdefault(key, []).append(parameter)
    optimizer: torch.optim.Optimizer = torch.optim.AdamW(
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
        fused=True,  # only fused AdamW can refuse a step (training.watch.gradients)
    )
    if isinstance(config, MuonConfig):
        muon = KernelMuon(
            matrices.values(),
            lr=config.muon_lr,
            weight_decay=config.weight_decay,
            momentum=config.momentum,
            ns_steps=config.ns_steps,
        )
        assert isinstance(optimizer, torch.optim.AdamW)
        optimizer = MuonWithAdamW(optimizer, muon)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: lr_factor(config, step, max_steps)
    )
    return optimizer, schedule


def block_matrices(module: nn.Module) -> dict[str, nn.Parameter]:
    """The matrices of the blocks by name, which Muon steps.

    A module may define `block_kernels()`, which says; else they are those of its `blocks`.

    Raises:
        BadInput: the network has no `blocks`.
    """
    own: Callable[[], dict[str, nn.Parameter]] | None = getattr(module, "block_kernels", None)
    if own is not None:
        return own()
    found = {
        name: parameter
        for name, parameter in module.named_parameters()
        if name.startswith("blocks.") and parameter.ndim == 2 and parameter.requires_grad
    }
    if not found:
        raise BadInput(
            f"optimizer=muon: a {type(module).__name__} has no blocks of matrices; take "
            "optimizer=adamw"
        )
    return found
