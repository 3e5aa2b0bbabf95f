"""Pictures of a tokenizer in training."""

from functools import partial
from typing import Any

import lightning as L
import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from drives.clips.data_module import ClipDataModule, collate
from drives.clips.preprocessing import to_uint8
from tokenizer.config import FrameMediaConfig
from tokenizer.networks.kinds import build_network
from training.checkpoints.sharded import full_copy
from training.watch.media import Media, log_picture


class ReconstructionMedia(Media):
    """Every `every_steps`: the same validation frames above their EMA reconstructions.

    Args:
        settings: as those of `FrameMediaConfig`.
    """

    def __init__(self, **settings: Any) -> None:
        config = FrameMediaConfig(**settings)
        super().__init__(config.every_steps)
        self.num_frames = config.num_frames

    def network(self, trainer: L.Trainer, module: Any) -> Any:
        return full_copy(module.ema.module, partial(build_network, module.config), trainer)

    @torch.no_grad()
    def draw(self, trainer: L.Trainer, module: Any, network: Any) -> None:
        data: ClipDataModule = trainer.datamodule  # type: ignore[attr-defined]
        dataset = data.dataset("val")
        ids = torch.linspace(0, len(dataset) - 1, self.num_frames).long().tolist()
        frames = collate([dataset[i] for i in ids]).to(module.device).pixels()[: self.num_frames]
        grid = rearrange(
            to_uint8(torch.stack([frames, self.shown(network, frames)])),
            "row n c h w -> (row h) (n w) c",
        )
        log_picture(trainer, "rollout/reconstructions", grid)

    def shown(self, network: Any, frames: Tensor) -> Tensor:
        """The lower row: reconstructions of the frames, in [-1, 1]."""
        return network(frames)[0]


class CodeMedia(ReconstructionMedia):
    """Every `every_steps`: validation frames above their codes, for tokenizers without a decoder.

    Equal codes have equal colours; similar colours have no meaning.
    """

    def shown(self, network: Any, frames: Tensor) -> Tensor:
        tokens = network.encode(frames)[:, None]
        # Multiples of irrational numbers, modulo 1: neighbouring codes get distant colours.
        steps = torch.tensor([0.618034, 0.754878, 0.569840], device=frames.device)
        colours = (tokens * steps.view(1, 3, 1, 1)) % 1 * 2 - 1
        return F.interpolate(colours.to(frames), frames.shape[-2:], mode="nearest")
