"""Pictures of a network while it trains."""

from typing import Any

import lightning as L
import torch

from training.errors import BadInput, CorruptSample
from training.ranges import at_least

# What a machine or the data may lack. Anything else is a bug, and ends the run as bugs do.
LACKING = (BadInput, CorruptSample, OSError, MemoryError, torch.OutOfMemoryError)


class Media(L.Callback):
    """Draws every so often, on the first process.

    A picture is not worth a run: one that cannot be made, because data is too short or damaged,
    or a disk or the memory full, is a warning with its cause.
    """

    def __init__(self, every_steps: int) -> None:
        at_least(1, "media.", every_steps=every_steps)
        self.every_steps = every_steps

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, *args: Any) -> None:
        step = trainer.global_step
        if step and step % self.every_steps == 0 and (args[-1] + 1) % module.accumulate == 0:
            network = self.network(trainer, module)
            if trainer.is_global_zero:
                modes = [(part, part.training) for part in network.modules()]
                try:
                    self.draw(trainer, module, network.eval())
                except LACKING as error:
                    cause = str(error).splitlines()[0] if str(error) else type(error).__name__
                    print(f"warning: no pictures of step {step}: {cause}", flush=True)
                finally:
                    for part, training in modes:
                        part.training = training

    def network(self, trainer: L.Trainer, module: Any) -> Any:
        """What is drawn, whole; every process takes part."""
        raise NotImplementedError

    def draw(self, trainer: L.Trainer, module: Any, network: Any) -> None:
        """Make the pictures and hand them to `log_media`."""
        raise NotImplementedError
