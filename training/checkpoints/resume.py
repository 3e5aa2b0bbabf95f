"""Settings that a resumed run may change."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from training.errors import BadInput
from training.machine import computes_in_bf16

# Settings and groups that a resumed run may change, with the effect where it is not obvious. Every
# change is printed.
FREE = {
    "trainer.max_steps": "the learning-rate schedule is another from here",
    "trainer.precision": "its numbers are rounded otherwise from here",
    "trainer.val_check_interval": "",
    "trainer.log_every_n_steps": "",
    "trainer.profiler": "",
    "trainer.accelerator": "equal up to rounding from here",
    "trainer.devices": "equal up to rounding from here",
    "trainer.num_nodes": "equal up to rounding from here",
    "trainer.strategy": "equal up to rounding from here",
    "trainer.accumulate_grad_batches": "equal up to rounding from here",
    "data.batch_size": "equal up to rounding from here",  # of one process: the product stays
    "max_passes": "the learning-rate schedule may be another from here",
    "max_skipped_steps": "",
    "compile": "equal up to rounding from here",
    "checkpoint_activations": "",
    "callbacks": "",
    "checkpoints": "",
    "logger": "",
    "needs_gpu": "",
    "requeue": "",
    "data.num_workers": "",
    "data.on_corrupt": "",
    "data.frames": "",
    "name": "",
    "paths": "",  # where things lie is not what they are; data is compared by content
    "data.root": "",
    "data.source.root": "",
}
# Not reported: what belongs to the command, and what follows from `paths`.
UNREPORTED = (
    "other_data",
    "ckpt",
    "run",
    "hydra",
    "plan",
    "plan_device",
    "plan_mfu",
    "fps",
    "paths.runs",
    "data.source.cache",
    "model.text_cache",
)


def judge_changes(folder: Path, then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Messages about settings that changed since the folder's run was saved.

    A setting of only one config belongs to another release and keeps that release's behaviour.

    Raises:
        BadInput: a setting differs that a resumed run may not change.
    """
    changes = []
    before, after = flat(then), flat(now)
    # The shorter name first: configs repeat values, such as `optimizer.lr` in the model.
    for key in sorted(before.keys() & after.keys(), key=lambda key: (key.count("."), key)):
        if before[key] == after[key] or _is_in(key, UNREPORTED):
            continue
        named = next((name for name in FREE if _is_in(key, (name,))), None)
        if named is None:
            raise BadInput(
                f"{folder}: its run has {key}={before[key]}, now {after[key]} is asked for; "
                "choose another folder (run=runs/NAME) or the same settings"
            )
        means = f": {FREE[named]}" if FREE[named] else ""
        changes.append(f"changed since: {key} {before[key]} -> {after[key]}{means}")
    return changes


def judge_batch(folder: Path, manifest: dict[str, Any], batch: int) -> None:
    """BadInput where a step of the folder's run has another number of samples."""
    before = manifest.get("run", {}).get("global_batch", batch)
    if before != batch:
        raise BadInput(
            f"{folder}: its run takes {before} samples per step, now {batch} would be (batch size "
            "x accumulation x devices); change them so that the product stays"
        )


def decide_precision(cfg: DictConfig, then: dict[str, Any] | None) -> None:
    """Replace precision "auto" by the precision of the run.

    Args:
        then: config of the resumed run, which keeps its precision on any hardware.
    """
    before = ((then or {}).get("trainer") or {}).get("precision", "auto")
    if cfg.trainer.precision == "auto":
        here = "bf16-mixed" if computes_in_bf16() else "32-true"
        cfg.trainer.precision = here if before == "auto" else before
    if str(cfg.trainer.precision).startswith("bf16") and not computes_in_bf16():
        print(
            f"note: the run trains in {cfg.trainer.precision}, which is slow here: this device "
            "has no units for it; trainer.precision=32-true is faster, with other rounding"
        )


def keep_actions(cfg: DictConfig, manifest: dict[str, Any]) -> None:
    """Let drives give the columns that the resumed model reads, where the settings name none.

    Which ones are taken by default may have changed since the run began.
    """
    source, names = cfg.data.get("source"), manifest.get("action_names")
    if source and names and "actions" in source and source.actions is None:
        source.actions = list(names)


def as_recorded(config: dict[str, Any], manifest: dict[str, Any]) -> dict[str, Any]:
    """The settings as the run records them: without what `keep_actions` put into them before."""
    recorded = (manifest.get("config") or {}).get("data", {}).get("source") or {}
    source, names = config.get("data", {}).get("source") or {}, manifest.get("action_names")
    if names and recorded.get("actions", ()) is None and source.get("actions") == list(names):
        source["actions"] = None
    return config


def flat(config: dict[str, Any]) -> dict[str, Any]:
    """Settings by their dotted names."""
    return dict(_walk(config, ""))


def _walk(config: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _walk(value, f"{prefix}{key}.")
        else:  # a class may move to another module; its name stays
            yield f"{prefix}{key}", value.split(".")[-1] if key == "_target_" else value


def _is_in(key: str, names: tuple[str, ...]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)
