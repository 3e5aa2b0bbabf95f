"""Pictures of a network in training."""

import tempfile
from pathlib import Path
from typing import Any

import lightning as L
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from training.errors import BadInput, CorruptSample, first_line
from training.watch.loggers import log_media

# Errors of the machine or the data. Any other exception is a bug and ends the run.
LACKING = (BadInput, CorruptSample, OSError, MemoryError, torch.OutOfMemoryError)


class Media(L.Callback):
    """Draws pictures every `every_steps` on the first process.

    A failed picture does not end the run: data too short or damaged, a full disk or full memory
    give a warning with the cause.
    """

    def __init__(self, every_steps: int) -> None:
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
                    print(f"warning: no pictures of step {step}: {first_line(error)}", flush=True)
                finally:
                    for part, training in modes:
                        part.training = training

    def network(self, trainer: L.Trainer, module: Any) -> Any:
        """The network to draw, unsharded; called on every process."""
        raise NotImplementedError

    def draw(self, trainer: L.Trainer, module: Any, network: Any) -> None:
        """Make the pictures and hand them to `log_picture` or `log_media`."""
        raise NotImplementedError


def log_picture(trainer: L.Trainer, name: str, picture: UInt8[Tensor, "h w 3"]) -> None:
    """Keep one picture as a PNG and send it on, as `log_media` does.

    Args:
        name: key such as "rollout/decoded"; its last part names the file.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{name.rpartition('/')[2]}.png"
        Image.fromarray(picture.cpu().numpy()).save(file)
        log_media(trainer, name, [file])
