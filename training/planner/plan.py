"""Memory and time of a run, before it starts: `python train.py ... plan=true`.

Parameters, FLOPs per token, peak memory by part, speed, hours; and the micro-batch, accumulation,
activation checkpointing and precision with which the same global batch fits and is fastest.
"""

import copy
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from training.command_line import typed
from training.config import STRATEGIES
from training.errors import BadInput
from training.planner.devices import Device, find_device
from training.planner.memory import PlannedData, StepCost, step_cost
from training.planner.options import Option, Plan, Settings
from training.planner.tracker import AVERAGE, GRADIENTS, OPTIMIZER, PARAMETERS, TEMPORARIES
from training.ranges import at_least, one_of
from training.run import build_model
from training.settings import datamodule_of

CHECKPOINTING = "checkpoint_activations"
# What eager PyTorch needs to launch one operator, in seconds: below that no step gets faster,
# however small its batch. Of the order that profilers show; it only ranks small micro-batches.
LAUNCH_S = 1e-5


def plan(cfg: DictConfig) -> Plan:
    """Plan the run that `cfg` describes; reads manifests, writes nothing, trains nothing.

    Raises:
        BadInput: a setting that cannot be used.
    """
    if cfg.get("name") is None:
        raise BadInput("name an experiment to plan: python train.py +experiment=gpt_base plan=true")
    device, count = find_device(cfg)
    planner = Planner(cfg, device, count)
    configured = planner.option(planner.asked)
    proposed = planner.best(configured)
    return Plan(
        name=str(cfg.name),
        device=device,
        num_devices=count,
        strategy=planner.strategy,
        max_steps=planner.max_steps,
        max_passes=cfg.max_passes,
        configured=configured,
        proposed=proposed,
        overrides=planner.overrides(proposed.settings) if proposed else [],
    )


class Planner:
    """Builds and weighs the ways to take the steps of one config on given devices."""

    def __init__(self, cfg: DictConfig, device: Device, num_devices: int) -> None:
        self.cfg, self.device, self.num_devices = cfg, device, num_devices
        self.strategy, self.max_steps = str(cfg.trainer.strategy), int(cfg.trainer.max_steps)
        accumulate, batch = cfg.trainer.accumulate_grad_batches, cfg.data.batch_size
        at_least(1, "data.", batch_size=batch)
        at_least(1, "trainer.", accumulate_grad_batches=accumulate, max_steps=self.max_steps)
        one_of(STRATEGIES, "trainer.", strategy=self.strategy)
        self.data: PlannedData = datamodule_of(cfg)
        self.facts = self.data.planned_facts()
        precision = str(cfg.trainer.precision)
        if precision == "auto":
            precision = device.best_precision
        self.asked = Settings(batch, accumulate, bool(cfg[CHECKPOINTING]), precision)
        self._options: dict[Settings, Option] = {}

    def option(self, settings: Settings) -> Option:
        """Cost of some settings."""
        if settings not in self._options:
            cost = self._cost(settings)
            parts = self._shared_out(cost)
            busy = cost.flops / (self.device.share * self.device.peak(settings.precision))
            seconds = settings.accumulate * max(busy, LAUNCH_S * cost.ops)
            fits = sum(parts.values()) <= self.device.usable
            self._options[settings] = Option(settings, cost, parts, seconds, fits)
        return self._options[settings]

    def best(self, configured: Option) -> Option | None:
        """The fastest option that fits; the configured one where nothing is clearly faster."""
        found = list(self._fitting())
        if configured.fits:
            found.append(configured)
        if not found:
            return None
        fastest = min(found, key=lambda o: (o.seconds, -o.settings.micro_batch))
        close = configured.fits and configured.seconds <= 1.02 * fastest.seconds
        return configured if close else fastest

    def overrides(self, settings: Settings) -> list[str]:
        """Command-line words that turn the configured settings into these."""
        words = []
        for key, old, new in (
            ("data.batch_size", self.asked.micro_batch, settings.micro_batch),
            ("trainer.accumulate_grad_batches", self.asked.accumulate, settings.accumulate),
            ("trainer.precision", self.asked.precision, settings.precision),
            (CHECKPOINTING, self.asked.checkpointing, settings.checkpointing),
        ):
            if old != new:
                words.append(typed(key, new))
        return words

    def _fitting(self) -> Iterator[Option]:
        """For each precision, with and without checkpointing, the largest micro-batch that fits."""
        for precision in dict.fromkeys([self.asked.precision, self.device.best_precision]):
            for checkpointing in (False, True):
                option = self._largest(precision, checkpointing)
                if option is None:
                    continue
                yield option
                if option.seconds > LAUNCH_S * option.cost.ops * option.settings.accumulate:
                    break  # not held up by launches: to compute anything twice is only slower

    def _largest(self, precision: str, checkpointing: bool) -> Option | None:
        total = self.asked.micro_batch * self.asked.accumulate
        sizes = [size for size in range(total, 0, -1) if total % size == 0]
        # Bytes grow nearly in line with the batch: that rules out most sizes, and a step tells.
        guess = self.asked.micro_batch
        known = self.option(Settings(guess, total // guess, checkpointing, precision))
        fixed = sum(known.parts[part] for part in (PARAMETERS, GRADIENTS, OPTIMIZER))
        each = max(1, known.bytes - fixed) / guess
        for size in sizes:
            if fixed + 0.85 * each * size > self.device.usable:
                continue
            option = self.option(Settings(size, total // size, checkpointing, precision))
            if option.fits:
                return option
        return None

    def _cost(self, settings: Settings) -> StepCost:
        cfg = copy.deepcopy(self.cfg)
        OmegaConf.update(cfg, CHECKPOINTING, settings.checkpointing)
        OmegaConf.update(cfg, "compile", False)  # there is nothing to compile for
        facts = Facts(self.facts)
        return step_cost(
            build=lambda: build_model(cfg, facts),
            make_batch=lambda: self.data.planned_batch(self.facts, settings.micro_batch),
            # A scaler of fp16 looks at values; bf16 is of the same size.
            precision={"16-mixed": "bf16-mixed"}.get(settings.precision, settings.precision),
            max_steps=self.max_steps,
            accumulate=settings.accumulate,
        )

    def _shared_out(self, cost: StepCost) -> dict[str, int]:
        """FSDP2 splits what belongs to parameters, and gathers a block while it is in use."""
        parts = dict(cost.parts)
        if self.strategy == "fsdp" and self.num_devices > 1:
            for part in (PARAMETERS, GRADIENTS, OPTIMIZER, AVERAGE):
                parts[part] = -(-parts[part] // self.num_devices)
            parts[TEMPORARIES] += 2 * cost.largest_unit  # the one in use and the next one
        return parts


class Facts:
    """Stands for a data module where only what it says about the model is asked for."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self._facts = facts

    def model_facts(self) -> dict[str, Any]:
        return self._facts
