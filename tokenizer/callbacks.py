"""What one sees while a tokenizer trains."""

import tempfile
from pathlib import Path
from typing import Any

import lightning as L
import torch
from einops import rearrange
from PIL import Image

from tokenizer.autoencoder import Autoencoder
from tokenizer.data import ClipDataModule, collate, to_uint8
from training.loggers import log_media
from training.sharded import whole


class ReconstructionMedia(L.Callback):
    """Every so often: the same validation frames, above what the averaged weights make of them."""

    def __init__(self, every_steps: int = 500, num_frames: int = 8) -> None:
        self.every_steps, self.num_frames = every_steps, num_frames

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, *args: Any) -> None:
        step = trainer.global_step
        if step and step % self.every_steps == 0 and (args[-1] + 1) % module.accumulate == 0:
            average = module.ema.module
            network = whole(average, lambda: Autoencoder(module.config), trainer)
            if trainer.is_global_zero:
                self.draw(trainer, module, network)

    @torch.no_grad()
    def draw(self, trainer: L.Trainer, module: Any, network: Any) -> None:
        data: ClipDataModule = trainer.datamodule  # type: ignore[attr-defined]
        dataset = data.dataset("val")
        ids = torch.linspace(0, len(dataset) - 1, self.num_frames).long().tolist()
        frames = collate([dataset[i] for i in ids]).to(module.device).pixels()[: self.num_frames]
        fake, _ = network(frames)
        grid = rearrange(to_uint8(torch.stack([frames, fake])), "row n c h w -> (row h) (n w) c")
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "reconstructions.png"
            Image.fromarray(grid.cpu().numpy()).save(file)
            log_media(trainer, "rollout/reconstructions", [file])
