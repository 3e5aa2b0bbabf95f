"""What one sees while a world model trains."""

import tempfile
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch

from tokenizer.data import to_uint8
from training.loggers import log_media
from training.sharded import whole
from worldmodel.data import TokenDataModule, collate
from worldmodel.decoding import Sampling, rollout
from worldmodel.evaluation.strips import Panel, write_strip


class RolloutMedia(L.Callback):
    """Every so often: rollouts of the same validation clips with the same seeds."""

    def __init__(
        self,
        every_steps: int = 1000,
        num_clips: int = 2,
        num_futures: int = 2,
        horizon_steps: int = 10,
    ) -> None:
        self.every_steps, self.num_clips = every_steps, num_clips
        self.num_futures, self.horizon_steps = num_futures, horizon_steps

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, *args: Any) -> None:
        step = trainer.global_step
        if step and step % self.every_steps == 0 and (args[-1] + 1) % module.accumulate == 0:
            network = whole(module.network, module.network.fresh, trainer)
            if trainer.is_global_zero:
                self.draw(trainer, module, network.eval())
            network.train()

    @torch.no_grad()
    def draw(self, trainer: L.Trainer, module: Any, network: Any) -> None:
        data: TokenDataModule = trainer.datamodule  # type: ignore[attr-defined]
        tokenizer = data.tokenizer()
        if tokenizer is None:
            return
        prompt = max(1, data.context_steps // 2)
        windows = data.dataset("val", prompt + self.horizon_steps)
        ids = np.linspace(0, len(windows) - 1, self.num_clips).astype(int)
        clip = collate([windows[int(i)] for i in ids]).to(module.device)
        actions = clip.actions if network.num_actions else None
        futures = rollout(
            network,
            clip.tokens[:, :prompt],
            actions,
            self.horizon_steps,
            Sampling(),
            self.num_futures,
            **module.said(clip),
        )
        tokenizer = tokenizer.to(module.device)
        past = clip.tokens[:, None, :prompt].expand(-1, self.num_futures, -1, -1, -1)
        rows = torch.cat([clip.tokens[:, None], torch.cat([past, futures], dim=2)], dim=1)
        frames = torch.stack(
            [torch.stack([to_uint8(tokenizer.decode(grid)) for grid in row]) for row in rows]
        ).cpu()
        captions = ["tokenizer", *(f"future {n + 1}" for n in range(self.num_futures))]
        panels: list[Panel] = [(c, frames[:, i]) for i, c in enumerate(captions)]
        with tempfile.TemporaryDirectory() as folder:
            paths = write_strip(Path(folder), "rollouts", panels, prompt, data.store.spec.fps)
            log_media(trainer, "rollout/clips", paths)
