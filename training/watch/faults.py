"""Reports non-finite steps by drive and frame, and keeps their batches."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import lightning as L
from safetensors.torch import save_file
from torch import Tensor

from training.errors import TrainingFault
from training.loading.loader import OrderedLoader
from training.watch.gradients import NonFinite


class WatchFinite(L.Callback):
    """Reads the module's `FiniteGuard` without waiting for the device.

    Args:
        folder: for the faulty batches, as `step-N/batch.safetensors` and `batch.json`.
        max_skipped: largest number of bad steps in a row before the run stops.
    """

    def __init__(self, folder: Path, max_skipped: int = 0) -> None:
        self.folder, self.max_skipped = Path(folder), max_skipped

    def on_fit_start(self, trainer: L.Trainer, module: Any) -> None:
        for guard in module.guards:
            guard.max_skipped = self.max_skipped

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, *args: Any) -> None:
        check_finite(trainer)

    def on_train_end(self, trainer: L.Trainer, module: Any) -> None:
        check_finite(trainer, wait=True)

    def state_dict(self) -> dict[str, Any]:
        return {}


def check_finite(trainer: L.Trainer, wait: bool = False) -> None:
    """Report skipped steps; stop after too many.

    Args:
        wait: also for the newest step, as before a checkpoint.
    Raises:
        NonFinite: names the samples of the step and the folder that keeps them.
        TrainingFault: with `wait`, parameters are not finite.
    """
    module: Any = trainer.lightning_module
    watch = next(c for c in trainer.callbacks if isinstance(c, WatchFinite))  # type: ignore[attr-defined]
    for guard in module.guards:
        try:
            step = guard.poll(wait)
        except NonFinite as fault:
            fault.where = _keep(trainer, watch.folder, fault.step)
            raise
        if step is not None:
            where = _keep(trainer, watch.folder, step)
            print(f"warning: step {step} was not finite and is skipped; {where}")
            for logger in trainer.loggers:
                logger.log_metrics({"train/skipped_steps": guard.skipped}, step=step)
    if wait:
        _refuse_broken_parameters(module, trainer.global_step)


def _refuse_broken_parameters(module: Any, step: int) -> None:
    """TrainingFault where a step from a finite loss made parameters NaN or infinite."""
    broken = [
        name
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
        and not getattr(parameter, "to_local", parameter.detach)().isfinite().all()
    ]
    if broken:
        raise TrainingFault(
            f"after step {step} {len(broken)} parameters are not finite, {broken[0]} among them; "
            "older checkpoints are whole: lower optimizer.lr or optimizer.weight_decay"
        )


def _keep(trainer: L.Trainer, folder: Path, step: int) -> str:
    """Rebuild and write the global batch of a step; returns its samples and its path."""
    loader = trainer.train_dataloader
    if not isinstance(loader, OrderedLoader):
        return f"batch {step}"
    each: int = trainer.lightning_module.accumulate  # type: ignore[assignment]
    ids = [i for n in range(step * each, (step + 1) * each) for i in loader.order.global_ids(n)]
    names = [{"id": i, **loader.samples.describe(i)} for i in ids]
    out = folder / f"step-{step:07d}"
    if trainer.is_global_zero:
        out.mkdir(parents=True, exist_ok=True)
        batch = loader.collate([loader.dataset[i][0] for i in ids])
        parts = {f.name: getattr(batch, f.name) for f in fields(batch)}  # captions are not tensors
        tensors = {k: v.contiguous() for k, v in parts.items() if isinstance(v, Tensor)}
        save_file(tensors, out / "batch.safetensors")
        (out / "batch.json").write_text(json.dumps(names, indent=1) + "\n")
    shown = "; ".join(" ".join(f"{k} {v}" for k, v in name.items()) for name in names[:4])
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return f"its samples: {shown}{more}; kept in {out}"
