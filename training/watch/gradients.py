"""Keeps non-finite gradients from the parameters, without a device wait.

The flag is computed on the device and passed to the fused optimizer as `found_inf`, as in torch's
GradScaler: the kernel then keeps parameters and moments. The host reads the flag later from an
asynchronous copy. Until then a halted run does not move, because every further step is refused.
"""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate

from training.errors import TrainingFault


class NonFinite(TrainingFault):
    """A loss or a gradient was NaN or infinite; the parameters are unchanged.

    Attributes:
        step: the optimizer step, counted from 0.
        where: its samples, once known.
    """

    def __init__(self, step: int, in_a_row: int) -> None:
        super().__init__(step, in_a_row)
        self.step, self.in_a_row, self.where = step, in_a_row, ""

    def __str__(self) -> str:
        return (
            f"step {self.step}: loss or gradient is not finite ({self.in_a_row} in a row); the "
            f"parameters are those before it. {self.where}. Look at the data, lower optimizer.lr, "
            "or let max_skipped_steps of them pass"
        )


class FiniteGuard:
    """Refuses optimizer steps whose loss or gradient is not finite.

    Attributes:
        max_skipped: largest number of such steps in a row before the run halts; 0 halts at the
            first.
    """

    def __init__(self, max_skipped: int = 0) -> None:
        self.max_skipped = max_skipped
        self._bad: Tensor | None = None  # since the last optimizer step
        self._counts: Tensor | None = None  # device: skipped in a row, skipped in all, halted
        self._seen: list[tuple[int, Tensor, torch.cuda.Event | None]] = []
        self.skipped = 0  # what the host knows

    def see(self, loss: Tensor) -> None:
        """Check a loss before its backward pass."""
        bad = ~torch.isfinite(loss.detach()).all()
        self._bad = bad if self._bad is None else self._bad | bad

    def clip(
        self,
        parameters: Iterable[Tensor],
        optimizer: torch.optim.Optimizer,
        max_norm: float,
        step: int,
    ) -> Tensor:
        """Clip the gradients; refuse the optimizer's next step if any value is not finite.

        Args:
            max_norm: global norm above which gradients are scaled down; 0 is off.
            step: the number of this step, for the report of a fault.
        Returns:
            The norm before clipping.
        """
        parameters = [p for p in parameters if p.grad is not None]
        optimizer = getattr(optimizer, "optimizer", optimizer)  # Lightning's wrapper
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        whole = norm.full_tensor() if isinstance(norm, DTensor) else norm
        if max_norm:
            torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
        bad = ~torch.isfinite(whole)
        if self._bad is not None:
            bad, self._bad = bad | self._bad, None
        bad = _anywhere(bad)
        if self._counts is None:
            self._counts = torch.zeros(3, device=bad.device)
        row, total, halted = self._counts
        row = torch.where(bad, row + 1, torch.zeros_like(row))
        halted = torch.maximum(halted, (row > self.max_skipped).float())
        self._counts = torch.stack([row, total + bad.float(), halted])
        refuse(optimizer, torch.maximum(bad.float(), halted))
        self._remember(step)
        return whole

    def poll(self, wait: bool = False) -> int | None:
        """Read the flags that have arrived; with `wait` all of them, as before a checkpoint.

        Returns:
            The step of a newly skipped update; None if there is none.
        Raises:
            NonFinite: more than `max_skipped` in a row; names the step.
        """
        new = None
        while self._seen:
            step, counts, event = self._seen[0]
            if event is not None and not wait and not event.query():
                break
            if event is not None:
                event.synchronize()
            self._seen.pop(0)
            row, total, halted = counts.tolist()
            if halted:
                self._seen.clear()
                raise NonFinite(step, int(row))
            if total > self.skipped:
                self.skipped, new = int(total), step
        return new

    def _remember(self, step: int) -> None:
        assert self._counts is not None
        if not self._counts.is_cuda:
            self._seen.append((step, self._counts, None))
            return
        counts = torch.empty(3, pin_memory=True)
        counts.copy_(self._counts, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._seen.append((step, counts, event))


def refuse(optimizer: torch.optim.Optimizer, found: Tensor) -> None:
    """Make the fused optimizer's next step a no-op where `found` is 1.

    Raises:
        TypeError: the optimizer is not fused and would step anyway.
    """
    if not optimizer.defaults.get("fused"):
        raise TypeError(f"{type(optimizer).__name__}: only fused optimizers can refuse a step")
    for group in optimizer.param_groups:
        group["fused"] = True  # checkpoints of schema 1 say otherwise
    first = optimizer.param_groups[0]["params"][0]
    if isinstance(first, DTensor):
        places = [Replicate()] * first.device_mesh.ndim
        found = DTensor.from_local(found, first.device_mesh, places, run_check=False)
    optimizer.grad_scale, optimizer.found_inf = None, found  # type: ignore[attr-defined]


def _anywhere(bad: Tensor) -> Tensor:
    """Whether the flag is set on any rank."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return bad
    flag = bad.float()
    torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
    return flag > 0
