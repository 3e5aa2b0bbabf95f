"""Reports validations to Optuna, and ends a trial that Optuna prunes."""

from collections.abc import Sequence
from typing import Any

import lightning as L
import optuna

from training.errors import BadInput
from training.watch.rows import last_values


class ReportMetric(L.Callback):
    """Reports a metric at every validation.

    Args:
        rows: logged rows of the run so far; a kill can happen between a row and its report.
    Raises:
        optuna.TrialPruned: the pruner ends the trial after a validation.
        BadInput: the metric is not logged.
    """

    def __init__(
        self, trial: optuna.Trial, metric: str, rows: Sequence[dict[str, Any]] = ()
    ) -> None:
        self.trial, self.metric = trial, metric
        # A resumed trial repeats the steps after its checkpoint, and their validations.
        before = trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values
        self.values: dict[int, float] = dict(before)
        for step, value in last_values(rows, metric).items():
            if step not in self.values:
                self.values[step] = value
                trial.report(value, step)

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        metrics = trainer.callback_metrics
        if self.metric not in metrics:
            there = ", ".join(sorted(k for k in metrics if k.startswith("val/")))
            raise BadInput(f"metric: {self.metric}: not logged; there are: {there}")
        step = trainer.global_step
        if step not in self.values:
            self.values[step] = float(metrics[self.metric])
            self.trial.report(self.values[step], step)
        if trainer.state.fn == "fit" and step < trainer.max_steps and self.trial.should_prune():
            raise optuna.TrialPruned(
                f"pruned at step {step} with {self.metric} {self.values[step]:.4g}"
            )

    def last(self) -> float:
        """The metric of the newest validation."""
        return self.values[max(self.values)]
