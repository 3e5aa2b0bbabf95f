"""Watches a tokenizer in training for collapse; warns, or treats it."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L

from tokenizer.doctor.config import DoctorConfig
from tokenizer.doctor.findings import (
    Finding,
    SettingsInForce,
    gan_findings,
    output_findings,
    range_finding,
)
from tokenizer.doctor.treatment import TREATMENTS, TreatmentContext, roll_back
from tokenizer.doctor.vitals import Figures, Vitals
from tokenizer.quantizers.fsq import FSQ
from training.checkpoints.sharded import FullySharded
from training.disk.plain_json import to_json
from training.disk.status import write_status
from training.errors import BadInput
from training.watch.rows import FINDINGS_FILE, append_rows


class Doctor(L.Callback):
    """Judges a sliding window of steps, twice per window; each waits once for the device.

    Each finding is printed once, logged with its figures (`doctor/...`) and kept in `status.json`
    and `doctor.jsonl`. With `treatments`, the run returns to its newest healthy checkpoint and
    changes one thing (`tokenizer.doctor.treatment`). Checkpoints hold the changes: a resumed run
    keeps them.

    Args:
        settings: as those of `DoctorConfig`.

    Raises:
        BadInput: an odd window; treatments under FSDP; with treatments, frames in a wrong range.
    """

    def __init__(self, **settings: Any) -> None:
        config = DoctorConfig(**settings)
        self.window, self.grace_steps = config.window, config.grace_steps
        self.treatments, self.delay_steps = config.treatments, config.delay_steps
        self.limits = config.limits
        self.vitals: Vitals | None = None
        self._pending: dict[str, Any] = {}
        self.told: list[str] = []
        self.done: list[dict[str, Any]] = []
        self.since, self.healthy_until = 0, 0

    def state_dict(self) -> dict[str, Any]:
        return {
            "told": list(self.told),
            "done": list(self.done),
            "since": self.since,
            "healthy_until": self.healthy_until,
            "vitals": self.vitals.state_dict() if self.vitals else {},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.told, self.done = state_dict["told"], state_dict["done"]
        self.since, self.healthy_until = state_dict["since"], state_dict["healthy_until"]
        self._pending = state_dict["vitals"]

    def on_fit_start(self, trainer: L.Trainer, module: Any) -> None:
        if self.treatments and isinstance(trainer.strategy, FullySharded):
            raise BadInput(
                f"callbacks.doctor.treatments={self.treatments} with trainer=fsdp: shards cannot "
                "be rolled back; leave one"
            )
        for treatment in self.done:  # the schedule's state holds the rates
            known = {
                k: v for k, v in treatment["changes"].items() if k in ("gan_weight", "gan_start")
            }
            module.change_loss(**known)

    def on_train_start(self, trainer: L.Trainer, module: Any) -> None:
        self._fresh(module)
        if self._pending and self.vitals:
            self.vitals.load_state_dict(self._pending, first=trainer.global_rank == 0)
            self._pending = {}
        start = Path(trainer.default_root_dir) / "checkpoints/step-0000000"
        if self.treatments and trainer.global_step == 0 and not start.exists():
            trainer.save_checkpoint(start)  # healthy by definition: the first to return to

    def on_train_batch_end(
        self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert self.vitals is not None
        self.vitals.update(module.observed)
        if (batch_idx + 1) % module.accumulate:
            return
        step = trainer.global_step
        if step - self.since == 1:
            self._report(trainer, module, [range_finding(self.vitals.read())])
        elif step % (self.window // 2) == 0:
            figures = self.vitals.read()
            self._log(trainer, figures)
            self._report(trainer, module, self.examine(module, figures, step))
            self.vitals.slide()

    def examine(self, module: Any, figures: Figures, step: int) -> list[Finding | None]:
        """Findings of the window that ends at `step`, the first to treat in front."""
        found = [range_finding(figures)]
        now = self._settings(module, step)
        if step - self.since >= self.window:
            found += gan_findings(figures, self.limits, now)
        if step - self.since >= self.grace_steps:
            found += output_findings(figures, self.limits, now)
        if not any(found) and step - self.since >= self.grace_steps:
            self.healthy_until = step
        return found

    def _settings(self, module: Any, step: int) -> SettingsInForce:
        schedule: Any = module.trainer.lr_scheduler_configs[0].scheduler
        return SettingsInForce(
            gan_weight=module.loss.gan_weight,
            gan_start=module.loss.gan_start,
            lr=schedule.base_lrs[0],
            step=step,
            delay_steps=self.delay_steps,
            fsq=isinstance(module.autoencoder.quantizer, FSQ),
        )

    def _report(self, trainer: L.Trainer, module: Any, found: list[Finding | None]) -> None:
        findings = [finding for finding in found if finding is not None]
        if not findings:
            return
        first = findings[0]
        if self.treatments and not first.treatments:
            self._write(trainer, first, {})
            raise BadInput(str(first))
        treated = {}
        if len(self.done) < self.treatments:
            treated = self.treat(trainer, module, first)
        for finding in findings:
            if finding.name not in self.told or (treated and finding is first):
                self.told.append(finding.name)
                self._write(trainer, finding, treated if finding is first else {})

    def treat(self, trainer: L.Trainer, module: Any, finding: Finding) -> dict[str, Any]:
        """Roll back, apply the next treatment in line, and start a new window."""
        assert self.vitals is not None
        before = sum(1 for treatment in self.done if treatment["finding"] == finding.name)
        name = finding.treatments[min(before, len(finding.treatments) - 1)]
        step = trainer.global_step
        figures, counts = self.vitals.read(), self.vitals.united()["counts"].sum(0)
        context = TreatmentContext(
            trainer, module, figures, self.limits, self._settings(module, step), counts == 0
        )
        back = roll_back(trainer, module, self.healthy_until)
        changes = TREATMENTS[name](context)
        treated = {
            "finding": finding.name,
            "step": step,
            "treatment": name,
            "rolled_back_to": back,
            "changes": changes,
        }
        self.done.append(treated)
        self.since = step
        self._fresh(module)
        return treated

    def _fresh(self, module: Any) -> None:
        self.vitals = Vitals(module.autoencoder.quantizer.vocab_size, module.device)

    def _log(self, trainer: L.Trainer, figures: Figures) -> None:
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.log_metrics(figures.row(), step=trainer.global_step)

    def _write(self, trainer: L.Trainer, finding: Finding, treated: dict[str, Any]) -> None:
        if not trainer.is_global_zero:
            return
        folder, step = Path(trainer.default_root_dir), trainer.global_step
        shown = {k: v for k, v in asdict(finding).items() if k != "treatments"}
        row = {"step": step, "time": round(time.time(), 3), **shown, "treated": treated}
        try:
            append_rows(folder / FINDINGS_FILE, [to_json(row, indent=None) + "\n"])
        except OSError as error:
            print(f"warning: {folder / FINDINGS_FILE}: not written ({error.strerror})")
        write_status(folder, findings=sorted(set(self.told) | {finding.name}))
        print(f"\nwarning: step {step}: {finding}")
        if treated:
            print(f"doctor: {to_json(treated, indent=None)}")
        for logger in trainer.loggers:
            logger.log_metrics({f"doctor/found_{finding.name}": finding.figure}, step=step)
