"""Makes a due validation once, also where a run ended between a save and its validation."""

from pathlib import Path

import lightning as L

from training.watch.rows import METRICS_FILE, read_rows


class DueValidation(L.Callback):
    """Makes the validation of the resumed step, where its row is missing.

    A checkpoint is saved before the validation of its step; a signal or a kill may fall between
    them. A run that resumes at its last step trains nothing: see `make_up_at_end`.
    """

    def __init__(self, folder: Path) -> None:
        self.file = Path(folder) / METRICS_FILE

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        loop, connector = trainer.fit_loop.epoch_loop.val_loop, trainer._logger_connector
        # Going on, Lightning counts the validation of this step as done; while the loop says that
        # it restarts, it would add it to the counts of the one before.
        loop.restarting = False
        if not self.is_missing(trainer):
            return
        # As Lightning validates between two batches. Its progress goes back to what the
        # checkpoint says, for this validation is counted already.
        progress, first = loop.state_dict(), connector._first_loop_iter
        trainer.validating = True
        loop.run()
        trainer.training = True
        connector._first_loop_iter = first
        loop.load_state_dict(progress)
        loop.restarting = False

    def make_up_at_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Validate the last step, after a `fit` without steps left."""
        if self.is_missing(trainer):
            trainer.validate(module, trainer.datamodule, verbose=False)  # type: ignore[attr-defined]

    def is_missing(self, trainer: L.Trainer) -> bool:
        """Whether the trainer's current step was due for validation and has none."""
        batches, every = trainer.fit_loop.total_batch_idx + 1, trainer.val_check_batch
        if not batches or not every or batches % every or not trainer.enable_validation:
            return False
        step = trainer.global_step
        rows = [row for row in read_rows(self.file) if row["step"] == step]
        there = any(key.startswith("val/") for row in rows for key in row)
        # Rank 0 writes the file; others might see it later.
        return not trainer.strategy.broadcast(there)
