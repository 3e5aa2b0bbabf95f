"""Pictures of a video decoder in training."""

from functools import partial
from typing import Any

import lightning as L
import torch
from einops import rearrange

from drives.clips.data_module import collate
from drives.clips.preprocessing import to_pixels, to_uint8
from training.checkpoints.sharded import full_copy
from training.watch.media import Media, log_picture
from worldmodel.video_decoder.config import DecodedMediaConfig, VideoDecodingConfig
from worldmodel.video_decoder.decoder import TokenVideoDecoder
from worldmodel.video_decoder.networks.kinds import build_video_decoder


class DecodedMedia(Media):
    """Every `every_steps`: validation windows as recorded, by the tokenizer, by the decoder.

    Args:
        settings: as those of `DecodedMediaConfig`.
    """

    def __init__(self, **settings: Any) -> None:
        config = DecodedMediaConfig(**settings)
        super().__init__(config.every_steps)
        self.num_clips, self.num_steps = config.num_clips, config.num_steps

    def network(self, trainer: L.Trainer, module: Any) -> Any:
        config, spec = module.network.config, module.network.spec
        return full_copy(module.ema.module, partial(build_video_decoder, config, spec), trainer)

    @torch.no_grad()
    def draw(self, trainer: L.Trainer, module: Any, network: Any) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        dataset = data.dataset("val")
        ids = torch.linspace(0, len(dataset) - 1, self.num_clips).long().tolist()
        clips = collate([dataset[i] for i in ids]).frames.to(module.device)
        frames = to_pixels(clips[:, : network.config.window_frames])
        decoder = TokenVideoDecoder(
            network, data.opened, VideoDecodingConfig(num_steps=self.num_steps)
        ).to(module.device)
        tokens = decoder.tokenizer.encode(frames)
        rows = [frames, decoder.tokenizer.decode(tokens), decoder.decode(tokens)]
        grid = rearrange(to_uint8(torch.stack(rows, 1)), "n row t c h w -> (n row h) (t w) c")
        log_picture(trainer, "rollout/decoded", grid)
