"""Frames from noise."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from drives.tokens.spec import TokenSpec
from worldmodel.video_decoder.config import VideoDecodingConfig
from worldmodel.video_decoder.motion.drafts import FirstGuess
from worldmodel.video_decoder.networks.backbone import SpaceTimeNet
from worldmodel.video_decoder.networks.config import IMAGE, DiffusionDecoderConfig
from worldmodel.video_decoder.networks.diffusion import SMALLEST, Diffusion, ddim
from worldmodel.video_decoder.networks.loss import DecoderLoss
from worldmodel.video_decoder.networks.noise import ClipNoise, with_shared
from worldmodel.video_decoder.tasks import DecodingTask

PIXEL_STD = 0.5  # of pixels in [-1, 1] around 0


class DiffusionDecoder(SpaceTimeNet):
    """Predicts, from noised frames and tokens, what leads to the frames; see `Diffusion`."""

    config: DiffusionDecoderConfig

    def __init__(self, config: DiffusionDecoderConfig, spec: TokenSpec) -> None:
        super().__init__(config, spec, timed=True)
        self.diffusion = Diffusion(config.schedule, config.predicts)

    def loss(
        self,
        frames: Float[Tensor, "b t 3 h w"],
        task: DecodingTask,
        draft: FirstGuess | None,
        how: DecoderLoss,
        generator: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Weighted error of the prediction at noise levels drawn evenly, and its terms.

        With a draft: of what the best guess from noise and draft leaves open, in units of its
        standard deviation; the same for every parameterisation.
        """
        options: dict[str, Any] = {"device": frames.device, "generator": generator}
        level = torch.rand(len(frames), **options)
        noise = torch.randn(frames.shape, **options)
        share = self.config.shared_noise
        if share:
            noise = with_shared(noise, torch.randn(frames[:, :1].shape, **options), share)
        x = self.diffusion.noised(frames, noise, level)
        x = torch.where(task.is_given[:, :, None, None, None], frames, x)
        pred = self(x, task, draft, level).float()
        if draft is None:
            target = self.diffusion.target(frames, noise, level)
        else:
            std = self.spread_of(draft)
            guessed, _, left = self.diffusion.guess(x, level, draft.frames, std)
            target = (guessed - frames) / left.clamp(min=SMALLEST)
        terms = how.errors(pred, target, ~task.is_given)
        return how.l1_weight * terms["l1"] + how.l2_weight * terms["l2"], terms

    def spread_of(self, draft: FirstGuess) -> Float[Tensor, "b t 1 h w"]:
        """How far frames lie from a draft; where there is none, from the middle of all colours."""
        return torch.where(draft.is_there, self.config.draft_std, PIXEL_STD)

    def predict(
        self,
        x: Float[Tensor, "b t 3 h w"],
        level: Float[Tensor, " b"],
        task: DecodingTask,
        given: Float[Tensor, "b t 3 h w"],
        draft: FirstGuess | None,
        alone: bool = False,
    ) -> Float[Tensor, "b t 3 h w"]:
        """The prediction at x; given frames take the place of their noise."""
        x = torch.where(task.is_given[:, :, None, None, None], given, x)
        pred = self(x, task, draft, level, alone).float()
        if draft is None:
            return pred
        std = self.spread_of(draft)
        guess = self.diffusion.guess(x, level, draft.frames, std)[1]
        return guess + self.diffusion.unit(level, std) * pred

    @torch.no_grad()
    def make(
        self,
        task: DecodingTask,
        given: Float[Tensor, "b t 3 h w"],
        draft: FirstGuess | None,
        noise: ClipNoise,
        how: VideoDecodingConfig,
    ) -> Float[Tensor, "b t 3 h w"]:
        """Frames in [-1, 1] by DDIM; given frames as they are.

        In a share of the passes, drawn per clip, the prediction is mixed with that of every frame
        alone (GAIA-1, section 2.3): sharp frames from one, smooth motion from the other.
        """
        start = noise.frames(*given.shape[1:], shared=self.config.shared_noise)
        share = how.image_share if IMAGE in self.config.tasks else 0.0  # never seen in training
        mixed = noise.uniform(how.num_steps) < share
        weight = mixed.float() * how.image_weight
        some = mixed.any(0).tolist() if how.image_weight else [False] * how.num_steps
        step = 0

        def predict(x: Tensor, level: Tensor) -> Tensor:
            nonlocal step
            pred = self.predict(x, level, task, given, draft)
            if some[step]:
                image = self.predict(x, level, task, given, draft, alone=True)
                pred = torch.lerp(pred, image, weight[:, step, None, None, None, None])
            step += 1
            return pred

        frames = ddim(predict, self.diffusion, start, how.num_steps)
        return torch.where(task.is_given[:, :, None, None, None], given, frames)
