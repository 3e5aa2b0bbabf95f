"""Rollout videos during training."""

import tempfile
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch

from training.checkpoints.sharded import full_copy
from training.errors import BadInput
from training.watch.loggers import log_media
from training.watch.media import Media
from worldmodel.config import RolloutMediaConfig
from worldmodel.data import TokenDataModule
from worldmodel.decoding import Sampling
from worldmodel.decoding.rollout import rollout
from worldmodel.dynamics.base import Dynamics
from worldmodel.evaluation.clip_decoder import ClipDecoder, leads_of
from worldmodel.evaluation.report.strips import Panel, write_strip
from worldmodel.windows import collate


class RolloutMedia(Media):
    """Logs rollouts of fixed validation clips with fixed seeds.

    The horizon is shortened if no validation drive is long enough.

    Args:
        settings: as those of `RolloutMediaConfig`.
    """

    def __init__(self, **settings: Any) -> None:
        config = RolloutMediaConfig(**settings)
        super().__init__(config.every_steps)
        self.num_clips, self.num_futures = config.num_clips, config.num_futures
        self.horizon_steps = config.horizon_steps

    def on_train_start(self, trainer: L.Trainer, module: Any) -> None:
        data: TokenDataModule = trainer.datamodule  # type: ignore[attr-defined]
        try:
            longest = max(len(drive.tokens) for drive in data.dataset("val", 1).drives)
        except BadInput as error:
            longest = 0
            print(f"note: {error}")
        prompt = prompt_of(data, module.network)
        if module.network.state_steps:
            self.horizon_steps = module.network.sample_steps  # of the discounted future
        asked = self.horizon_steps
        self.horizon_steps = max(0, min(asked, longest - prompt))
        if self.horizon_steps < asked and trainer.is_global_zero:
            shown = f"{self.horizon_steps} steps ahead" if self.horizon_steps else "no rollouts"
            print(
                f"note: the longest validation drive has {longest} steps, a prompt of {prompt} and "
                f"callbacks.media.horizon_steps={asked} need {prompt + asked}: pictures show "
                f"{shown}"
            )

    def network(self, trainer: L.Trainer, module: Any) -> Any:
        return full_copy(module.network, module.network.fresh, trainer)

    @torch.no_grad()
    def draw(self, trainer: L.Trainer, module: Any, network: Any) -> None:
        data: TokenDataModule = trainer.datamodule  # type: ignore[attr-defined]
        tokenizer = data.tokenizer()
        if tokenizer is None or not self.horizon_steps:
            return
        prompt = prompt_of(data, network)
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
            **module.caption_kwargs(clip),
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


def prompt_of(data: TokenDataModule, network: Dynamics) -> int:
    """Real time steps before a rollout; at least two, because a video tokenizer starts late."""
    return network.state_steps or max(2, data.context_steps // 2)
