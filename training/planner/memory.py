"""The cost of one training step, traced on tensors with shapes but no values.

The module's own `training_step` runs in Lightning under PyTorch's FakeTensorMode: every operator
works out the shapes of its results, allocates nothing and computes nothing, while a `PeakTracker`
looks on. The operators are those of the CPU; its attention, like the GPUs', keeps no T x T matrix.
"""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any, Protocol

import lightning as L
import torch
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from training.planner.tracker import ACTIVATIONS, GRADIENTS, OPTIMIZER, PARTS, PeakTracker


class PlannedData(Protocol):
    """A data module's facts before there is any data."""

    batch_size: int

    def planned_facts(self) -> dict[str, Any]:
        """Facts about the data that the model needs; makes and writes nothing."""

    def planned_batch(self, facts: dict[str, Any], size: int) -> Any:
        """A batch of `size` examples with the right shapes and any values."""


@dataclass(frozen=True)
class StepCost:
    """The cost of training on one device.

    Attributes:
        parts: bytes by part (`PARTS`) at the peak of a step.
        parameters: numbers of trained parameters, by the module that holds them.
        flops: floating-point operations of one batch, counted operator by operator, with the
            losses' networks and whatever is computed twice.
        ops: operators of one batch, without views: launches on a GPU.
        work: result of the module's `work` for one batch (`training.watch.throughput.Work`).
        formula: its docstring.
        largest_unit: bytes of the largest part that FSDP gathers at once.
    """

    parts: dict[str, int]
    parameters: dict[str, int]
    flops: float
    ops: int
    work: Any
    formula: str
    largest_unit: int

    @property
    def bytes(self) -> int:
        return sum(self.parts.values())


def step_cost(
    build: Callable[[], L.LightningModule],
    make_batch: Callable[[], Any],
    precision: str,
    max_steps: int,
    accumulate: int = 1,
) -> StepCost:
    """Take the last two optimizer steps of a run on fake tensors, and count in the second one.

    The last ones, because by then everything that joins late (a discriminator) has joined, and
    the optimizer has its state. Kernels' own scratch memory is not in it.

    Args:
        build: makes the module; called under FakeTensorMode.
        make_batch: makes one batch, likewise.
        precision: as `trainer.precision`, but not "auto".
        max_steps: optimizer steps of the run.
        accumulate: batches per optimizer step; beyond two nothing changes.
    """
    tracker = PeakTracker()
    with _FakeMode(), _quiet():
        module = build()
        with tracker:
            tracker.own(module)
            batch = make_batch()
            for tensor in vars(batch).values():
                tracker.mark(tensor, ACTIVATIONS)
            _train(module, batch, tracker, precision, max_steps, min(2, accumulate))
        work = module.work(batch)  # type: ignore[operator]
    return StepCost(
        parts={part: tracker.peak.get(part, 0) for part in PARTS},
        parameters=_by_part(module),
        flops=tracker.flops,
        ops=tracker.ops,
        work=work,
        formula=" ".join((module.work.__doc__ or "").split()),
        largest_unit=_largest_unit(module),
    )


def _by_part(module: nn.Module) -> dict[str, int]:
    """Numbers of trained parameters by child; a child that holds them all is opened up."""
    parts = {name: child for name, child in module.named_children() if _trained(child)}
    while len(parts) == 1:
        name, only = next(iter(parts.items()))
        inner = {f"{name}.{n}": child for n, child in only.named_children() if _trained(child)}
        if not inner or sum(map(_trained, inner.values())) != _trained(only):
            break
        parts = inner
    return {name: _trained(child) for name, child in parts.items()}


def _trained(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def _largest_unit(module: nn.Module) -> int:
    """Bytes of the largest part that FSDP gathers at once: a block, or else a whole network."""
    lists = [m for m in module.modules() if isinstance(m, nn.ModuleList)]
    units = [unit for units in lists for unit in units] or list(module.children())
    sizes = [sum(p.numel() * p.element_size() for p in unit.parameters()) for unit in units]
    return max(sizes, default=0)


class _FakeMode(FakeTensorMode):
    """One mode for a tensor and its copies: an EMA is made by `deepcopy`, which copied it too.

    Where training depends on a value, the value is 1: a branch is taken, a loop ends, a mask
    selects everything (the most memory).
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> "_FakeMode":
        return self

    def dispatch(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        aten = torch.ops.aten
        if func is aten.nonzero.default:
            return args[0].new_empty((args[0].numel(), args[0].dim()), dtype=torch.int64)
        if func is aten._local_scalar_dense.default and args[0].constant is None:
            return 1.0 if args[0].is_floating_point() else 1
        if func is aten.clone.default:
            # `deepcopy` clones, then copies the attributes. A known scalar is a real tensor there.
            args[0].constant = None
        return super().dispatch(func, types, args, kwargs or {})


class _Detached(SingleDeviceStrategy):
    """Leaves the module where it is: fake parameters cannot be exchanged for moved ones."""

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"))

    def model_to_device(self) -> None:
        pass

    def teardown(self) -> None:
        pass


class RepeatedBatch:
    """A loader that repeats one batch."""

    def __init__(self, batch: Any, count: int) -> None:
        self.batch, self.count = batch, count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Any]:
        return iter([self.batch] * self.count)


class _Watch(L.Callback):
    """Tells the tracker what is a gradient and what belongs to an optimizer."""

    def __init__(self, tracker: PeakTracker, accumulate: int) -> None:
        self.tracker, self.accumulate = tracker, accumulate

    def on_fit_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(
                    lambda p: self.tracker.mark(p.grad, GRADIENTS)
                )

    def on_train_batch_start(
        self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == self.accumulate:
            self.tracker.start()

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        for optimizer in trainer.optimizers:
            for state in optimizer.state.values():
                for value in state.values():
                    self.tracker.mark(value, OPTIMIZER)


def _train(
    module: Any, batch: Any, tracker: PeakTracker, precision: str, max_steps: int, accumulate: int
) -> None:
    """The last two optimizer steps of a run of `max_steps`; counts per batch."""
    module.accumulate = accumulate
    start = max(0, max_steps - 2)
    trainer = L.Trainer(
        strategy=_Detached(),
        accelerator="cpu",
        precision=precision,  # type: ignore[arg-type]
        max_steps=start + 2,
        accumulate_grad_batches=accumulate if module.automatic_optimization else 1,
        callbacks=[_Watch(tracker, accumulate)],
        barebones=True,
    )
    loop = trainer.fit_loop.epoch_loop
    loop.automatic_optimization.optim_progress.optimizer.step.total.completed = start
    loop.manual_optimization.optim_step_progress.total.completed = start
    trainer.fit(module, RepeatedBatch(batch, 2 * accumulate))
    assert trainer.global_step == start + 2, f"{trainer.global_step} steps, not {start + 2}"
    tracker.flops /= accumulate
    tracker.ops //= accumulate


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning explains its bare trainer at length, and modules repeat their notes."""
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
