"""Base of our Lightning modules: guard, clipping, EMA, manifest."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import lightning as L
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from training.checkpoints.folder import MANIFEST_KEY
from training.checkpoints.starting import take_weights
from training.config import AdamWConfig
from training.errors import BadInput
from training.optimization.averaging import average_, grown
from training.optimization.optimizers import build_optimizer
from training.watch.gradients import FiniteGuard
from training.watch.throughput import Work


class TrainedModule(L.LightningModule):
    """A module that trains with one AdamW; a subclass may step several optimizers by hand.

    The trainer, the planner and the callbacks ask for these attributes:

    Attributes:
        accumulate: batches per optimizer step. Lightning counts them, or a module with
            `automatic_optimization = False` does.
        find_unused_parameters: whether a backward pass may leave parameters without a gradient
            (DDP has to know).
        shardable: whether FSDP can train it.
        validated: names of all metrics that a validation may log; empty: not known beforehand.
        guards: refuse optimizer steps that are not finite; one per optimizer.
        ema: the average of the weights; None where there is none.
        judged_by: the command that judges its checkpoints.
        manifest: entries of every checkpoint's manifest.
    """

    find_unused_parameters: bool = False
    shardable: bool = True
    validated: ClassVar[tuple[str, ...]] = ()
    judged_by: str = "eval.py"

    def __init__(self, optimizer: AdamWConfig) -> None:
        super().__init__()
        self.optimizer_config = optimizer
        self.manifest: dict[str, Any] = {}
        self.accumulate = 1
        self.guard = FiniteGuard()
        self.guards: tuple[FiniteGuard, ...] = (self.guard,)
        self.ema: AveragedModel | None = None

    @property
    def trained(self) -> nn.Module:
        """The module that `optimizer_config` trains; new each time, to avoid duplicate names."""
        raise NotImplementedError

    @property
    def trained_layers(self) -> Iterable[Any]:
        """Layers that are compiled one by one."""
        raise NotImplementedError

    @property
    def recomputing(self) -> Iterable[Any]:
        """Modules whose attribute `recompute` says whether activations are computed again."""
        return self.trained_layers

    def work(self, batch: Any) -> Work:
        """Frames, tokens and FLOPs of one batch."""
        raise NotImplementedError

    def begin_from(self, path: str) -> Mapping[str, Any]:
        """Take the weights of a checkpoint (`init_from`); returns its manifest.

        Raises:
            BadInput: it cannot be opened, does not fit, or this kind begins from no other weights.
        """
        raise BadInput(f"init_from={path}: {type(self).__name__} takes no weights; leave it out")

    def begin_anew(self) -> None:
        """Called before a new run that begins from no other weights.

        Raises:
            BadInput: what is trained needs some.
        """

    def go_on(self, manifest: Mapping[str, Any]) -> None:
        """Take over what the manifest of a resumed checkpoint says of the run's start."""

    def take(
        self, network: nn.Module, other: nn.Module, where: str, anew: Sequence[str] = ()
    ) -> None:
        """As `take_weights`, for `network` and its average."""
        take_weights(network, other, where, anew)
        if self.ema is not None:
            self.ema.module.load_state_dict(network.state_dict())

    def speed_up(self, compile: bool, recompute: bool) -> None:
        """Compile the layers that learn in place, and recompute their activations."""
        for part in self.recomputing:
            part.recompute = recompute
        if compile:
            for layer in self.trained_layers:
                layer.compile(dynamic=False)

    def start_ema(self, network: nn.Module, decay: float) -> None:
        """Begin an average of `network`; `update_ema` moves it."""
        self.ema_decay = decay
        self._averaged = (network,)  # in a tuple, or the state dict would name it twice
        ema = AveragedModel(network, multi_avg_fn=self._average, use_buffers=True)
        self.ema = ema.requires_grad_(False)

    def update_ema(self) -> None:
        """Move the average, if there is one, towards the weights after a step."""
        if self.ema is not None:
            self.ema.update_parameters(self._averaged[0])

    def _average(self, averages: Any, currents: Any, num_averaged: Any) -> None:
        # Lightning counts a step of its own after `optimizer_step`, and one by hand within it.
        steps = self.global_step + int(self.automatic_optimization)
        average_(averages, currents, grown(self.ema_decay, steps))

    def configure_optimizers(self) -> Any:
        optimizer, schedule = build_optimizer(
            self.trained, self.optimizer_config, self.trainer.max_steps
        )
        if not self.automatic_optimization:
            return [optimizer], [schedule]
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def clip(self, optimizer: Any) -> Tensor:
        """Clip the gradients before the optimizer's step; returns their norm before that."""
        limit = self.optimizer_config.clip_norm
        return self.guard.clip(self.trained.parameters(), optimizer, limit, self.global_step)

    def step_by_hand(self) -> Tensor:
        """Clip, step the first optimizer, clear; returns the gradients' norm before clipping.

        For a module with `automatic_optimization = False`; this step is the one that is counted.
        """
        optimizer: Any = self.optimizers()
        optimizer = optimizer[0] if isinstance(optimizer, list) else optimizer
        norm = self.clip(optimizer)
        optimizer.step()
        optimizer.zero_grad()
        return norm

    def step_schedules(self) -> None:
        """As `step_by_hand`, of the learning rates."""
        schedules: Any = self.lr_schedulers()
        for schedule in schedules if isinstance(schedules, list) else [schedules]:
            schedule.step()

    def configure_gradient_clipping(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        """Replaces Lightning's clipping: it refuses fused AdamW in bf16-mixed and ignores NaN."""
        self.log("train/grad_norm", self.clip(optimizer))

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Average at once: this module's hooks at the end of a batch come after the checkpoint."""
        super().optimizer_step(*args, **kwargs)
        self.update_ema()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[MANIFEST_KEY] = self.manifest


class NetworkModule(TrainedModule):
    """A module that trains one network, which has `blocks` and `recompute`."""

    network: Any

    @property
    def trained(self) -> nn.Module:
        return self.network

    @property
    def trained_layers(self) -> Iterable[Any]:
        return self.network.blocks

    @property
    def recomputing(self) -> Iterable[Any]:
        return [self.network]
