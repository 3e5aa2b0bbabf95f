"""What one sees while a world model trains."""

import tempfile
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch

from training.loggers import log_media
from training.sharded import whole
from worldmodel.data import TokenDataModule, collate
from worldmodel.decoding import Sampling, rollout
from worldmodel.evaluation.clip_decoder import ClipDecoder, leads_of
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
        prompt = max(2, data.context_steps // 2)  # a video tokenizer's first step is no frame
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
        leads = leads_of(windows, ids.tolist())
        decoder = ClipDecoder(tokenizer.to(module.device), clip.tokens, prompt, leads)
        panels: list[Panel] = [("tokenizer", decoder.real().cpu())]
        for number, future in enumerate(futures.unbind(1), 1):
            frames = torch.cat([decoder.prompt, decoder.after_prompt(future)], dim=1)
            panels.append((f"future {number}", frames.cpu()))
        with tempfile.TemporaryDirectory() as folder:
            shown = (panels, decoder.prompt.shape[1], data.store.spec.fps)
            paths = write_strip(Path(folder), "rollouts", *shown)
            log_media(trainer, "rollout/clips", paths)
