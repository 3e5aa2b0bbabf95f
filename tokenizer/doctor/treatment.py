"""Treatments: back to a healthy checkpoint, then one change; the step count continues."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tokenizer.doctor.config import Limits
from tokenizer.doctor.findings import SettingsInForce, weaker
from tokenizer.doctor.vitals import Figures
from training.checkpoints.folder import check_whole, newest_first, step_of
from training.errors import BadInput


@dataclass(frozen=True)
class TreatmentContext:
    """The state that a treatment works on.

    Attributes:
        dead: True for codes not seen in the window.
    """

    trainer: L.Trainer
    module: Any
    figures: Figures
    limits: Limits
    now: SettingsInForce
    dead: Bool[Tensor, " code"]


def roll_back(trainer: L.Trainer, module: Any, healthy_until: int) -> int | None:
    """Load weights and optimizers of the newest healthy checkpoint.

    Step count, schedule, data order and random states continue: no batch is repeated and no
    checkpoint is written twice.

    Returns:
        The checkpoint's step; None where no healthy one exists: then nothing changes.
    """
    io: Any = trainer.strategy.checkpoint_io
    io.wait()  # the newest may still be in writing
    for folder in newest_first(Path(trainer.default_root_dir)):
        step = step_of(folder)
        if step > healthy_until:
            continue
        try:
            check_whole(folder)
        except BadInput as error:
            print(f"warning: skipping {error}")
            continue
        state = io.load_checkpoint(folder)
        rates = [[_rates(group) for group in o.param_groups] for o in trainer.optimizers]
        trainer.strategy.load_model_state_dict(state)
        trainer.strategy.load_optimizer_state_dict(state)
        for optimizer, groups in zip(trainer.optimizers, rates, strict=True):
            for group, rate in zip(optimizer.param_groups, groups, strict=True):
                group.update(rate)
        return step
    return None


def _rates(group: dict[str, Any]) -> dict[str, Any]:
    return {key: group[key] for key in ("lr", "initial_lr") if key in group}


def weaken_gan(context: TreatmentContext) -> dict[str, Any]:
    """Lower the GAN's weight and start the discriminator later (reset, if it had started)."""
    changes = {
        "gan_weight": weaker(context.figures, context.limits, context.now),
        "gan_start": context.now.step + context.now.delay_steps,
    }
    context.module.change_loss(**changes)
    return changes


def lower_rate(context: TreatmentContext) -> dict[str, Any]:
    """Halve the autoencoder's learning rate, now and for the rest of the schedule."""
    schedule: Any = context.trainer.lr_scheduler_configs[0].scheduler
    schedule.base_lrs = [rate / 2 for rate in schedule.base_lrs]
    for group in schedule.optimizer.param_groups:
        group["lr"], group["initial_lr"] = group["lr"] / 2, group["initial_lr"] / 2
    return {"lr": schedule.base_lrs[0]}


@torch.no_grad()
def restart_codes(context: TreatmentContext) -> dict[str, Any]:
    """Move dead codes onto latents; without a codebook, rescale the latents.

    For FSQ and LFQ, the encoder's last layer is scaled so that every channel has mean 0 and
    standard deviation 1: this spreads latents from a corner over the whole grid.
    """
    network, frames = context.module.autoencoder, context.module.observed["frames"]
    z, last = latents(network, frames)
    restarted = network.quantizer.restart(context.dead.to(z.device), z)
    if not restarted:
        spread(network, last, frames)
    average = context.module.ema.module.state_dict()
    for name, value in network.state_dict().items():
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.broadcast(value, 0)  # each process drew from its own latents
        average[name].copy_(value)
    return {"restarted": int(context.dead.sum()), "codebook": restarted}


def latents(
    network: Any, frames: Float[Tensor, "n 3 h w"]
) -> tuple[Float[Tensor, "m dim"], nn.Module]:
    """Input of the quantizer for these frames, and the layer that computes it."""
    quantizer = network.quantizer
    layers: list[nn.Module] = []
    found: list[tuple[Tensor, nn.Module]] = []

    def arrived(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        found.append((given[0].flatten(0, -2).float(), layers[-1]))

    def ran(layer: nn.Module, *_: Any) -> None:
        layers.append(layer)

    hooks = [quantizer.register_forward_pre_hook(arrived)]
    for layer in network.modules():
        if getattr(layer, "out_channels", getattr(layer, "out_features", 0)) == quantizer.dim:
            hooks.append(layer.register_forward_hook(ran))
    network(frames)
    for hook in hooks:
        hook.remove()
    return found[0]


def spread(network: Any, last: Any, frames: Float[Tensor, "n 3 h w"]) -> None:
    """Give every channel of the latents mean 0 and standard deviation 1 over these frames."""
    z, _ = latents(network, frames)
    still = z.std(0) < 1e-3 * z.std(0).max().clamp(min=1e-3)
    if still.any():  # constant channels cannot be scaled: draw new weights
        fresh = torch.empty_like(last.weight)
        nn.init.kaiming_uniform_(fresh, a=5**0.5)
        last.weight[still] = fresh[still]
        z, _ = latents(network, frames)
    scale = 1 / z.std(0).clamp(min=1e-6)
    last.bias.copy_((last.bias - z.mean(0)) * scale)
    last.weight.mul_(scale.reshape(-1, *[1] * (last.weight.ndim - 1)))


TREATMENTS: dict[str, Callable[[TreatmentContext], dict[str, Any]]] = {
    "weaken_gan": weaken_gan,
    "lower_rate": lower_rate,
    "restart_codes": restart_codes,
}
