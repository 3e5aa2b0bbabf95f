"""Frames from noise."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from drives.tokens.spec import TokenSpec
from worldmodel.video_decoder.config import VideoDecodingConfig
from worldmodel.video_decoder.motion.drafts import FirstGuess
from worldmodel.video_decoder.networks.backbone import SpaceTimeNet
from worldmodel.video_decoder.networks.config import IMAGE, DiffusionDecoderConfig
from worldmodel.video_decoder.networks.diffusion import Diffusion, ddim
from worldmodel.video_decoder.networks.loss import DecoderLoss
from worldmodel.video_decoder.networks.noise import ClipNoise, with_shared
from worldmodel.video_decoder.tasks import DecodingTask

PIXEL_STD = 0.5  # of pixels in [-1, 1] around 0
WIDEST = 3.0  # log of what a pixel leaves open lies between -WIDEST and WIDEST


class DiffusionDecoder(SpaceTimeNet):
    """Predicts, from noised frames and tokens, what leads to the frames; see `Diffusion`.

    What is noised is how far frames lie from their draft, in units of what the draft leaves open at
    each pixel (`prior`). Noise as wide as all pixels would drown that at almost every level, in
    training and in decoding, and what is left of such noise flickers.
    """

    config: DiffusionDecoderConfig

    def __init__(self, config: DiffusionDecoderConfig, spec: TokenSpec) -> None:
        super().__init__(config, spec, timed=True, outputs=6)
        self.diffusion = Diffusion(config.schedule, config.predicts)

    def loss(
        self,
        frames: Float[Tensor, "b t 3 h w"],
        task: DecodingTask,
        draft: FirstGuess | None,
        how: DecoderLoss,
        generator: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Weighted error of the prediction at noise levels drawn evenly, and its terms."""
        options: dict[str, Any] = {"device": frames.device, "generator": generator}
        level = torch.rand(len(frames), **options)
        noise = torch.randn(frames.shape, **options)
        share = self.config.shared_noise
        if share:
            noise = with_shared(noise, torch.randn(frames[:, :1].shape, **options), share)
        mean, spread = self.prior(draft, frames)
        off = (frames - mean) / spread
        pred = self.predict(self.diffusion.noised(off, noise, level), level, task, off, draft)
        terms = how.errors(pred, self.diffusion.target(off, noise, level), ~task.is_given)
        return how.l1_weight * terms["l1"] + how.l2_weight * terms["l2"], terms

    def prior(
        self, draft: FirstGuess | None, like: Float[Tensor, "b t 3 h w"]
    ) -> tuple[Float[Tensor, "b t 3 h w"], Float[Tensor, "b t 1 h w"]]:
        """Mean and standard deviation of frames before anything is known but their draft.

        A draft errs by `draft_std` where it is flat, and by about its own contrast at its edges,
        which lie a little off. Without one: the middle of all colours.
        """
        if draft is None:
            return torch.zeros_like(like), torch.full_like(like[:, :, :1], PIXEL_STD)
        drafted = (self.config.draft_std**2 + contrast(draft.frames)).sqrt()
        return draft.frames, torch.where(draft.is_there, drafted, PIXEL_STD)

    def planes(
        self, draft: FirstGuess, is_video: Bool[Tensor, " b"] | None
    ) -> list[Float[Tensor, "b t 3 h w"]]:
        """The draft, and how far its neighbours lie from it, in the units of what is noised."""
        spread = self.prior(draft, draft.frames)[1]
        own, *neighbours = draft.planes(is_video)
        return [own, *((one - own) / spread for one in neighbours)]

    def predict(
        self,
        x: Float[Tensor, "b t 3 h w"],
        level: Float[Tensor, " b"],
        task: DecodingTask,
        given: Float[Tensor, "b t 3 h w"],
        draft: FirstGuess | None,
        alone: bool = False,
    ) -> Float[Tensor, "b t 3 h w"]:
        """The prediction at x; given frames take the place of their noise.

        The network reads the best guess at x, and says of each pixel a mean and what it leaves
        open. The prediction is the best one of those.
        """
        read = torch.where(
            task.is_given[:, :, None, None, None], given, self.diffusion.guess(x, level)[0]
        )
        mean, wide = self(read, task, draft, level, alone).float().chunk(2, dim=2)
        std = (WIDEST * (wide / WIDEST).tanh()).exp()
        return self.diffusion.guess(x, level, mean, std)[1]

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
        mean, spread = self.prior(draft, given)
        known, limits = (given - mean) / spread, ((-1 - mean) / spread, (1 - mean) / spread)
        share = how.image_share if IMAGE in self.config.tasks else 0.0  # never seen in training
        mixed = noise.uniform(how.num_steps) < share
        weight = mixed.float() * how.image_weight
        some = mixed.any(0).tolist() if how.image_weight else [False] * how.num_steps
        step = 0

        def predict(x: Tensor, level: Tensor) -> Tensor:
            nonlocal step
            pred = self.predict(x, level, task, known, draft)
            if some[step]:
                image = self.predict(x, level, task, known, draft, alone=True)
                pred = torch.lerp(pred, image, weight[:, step, None, None, None, None])
            step += 1
            return pred

        off = ddim(predict, self.diffusion, start, how.num_steps, limits)
        frames = (mean + spread * off).clamp(-1, 1)  # not beyond by rounding
        return torch.where(task.is_given[:, :, None, None, None], given, frames)


def contrast(frames: Float[Tensor, "b t 3 h w"]) -> Float[Tensor, "b t 1 h w"]:
    """Variance within 3x3 pixels, the mean of the colours."""
    flat = frames.flatten(0, 1)
    mean, square = (
        F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False) for x in (flat, flat**2)
    )
    variance = (square - mean**2).clamp(min=0).mean(1, keepdim=True)
    return variance.unflatten(0, frames.shape[:2])
