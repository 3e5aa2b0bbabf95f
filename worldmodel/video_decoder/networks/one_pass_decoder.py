"""Frames in one pass."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.grad import conv2d_weight

from drives.tokens.spec import TokenSpec
from worldmodel.video_decoder.config import VideoDecodingConfig
from worldmodel.video_decoder.motion.drafts import FirstGuess
from worldmodel.video_decoder.networks.backbone import SpaceTimeNet
from worldmodel.video_decoder.networks.config import OnePassDecoderConfig
from worldmodel.video_decoder.networks.loss import DecoderLoss, mean_of
from worldmodel.video_decoder.networks.noise import ClipNoise
from worldmodel.video_decoder.tasks import DecodingTask


class OnePassDecoder(SpaceTimeNet):
    """Frames of a window in one pass: a temporal decoder on frozen tokens."""

    config: OnePassDecoderConfig

    def __init__(self, config: OnePassDecoderConfig, spec: TokenSpec) -> None:
        super().__init__(config, spec, timed=False)

    def loss(
        self,
        frames: Float[Tensor, "b t 3 h w"],
        task: DecodingTask,
        draft: FirstGuess | None,
        how: DecoderLoss,
        generator: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """As `judged`, of the frames that it makes; nothing is drawn."""
        return self.judged(self.frames(task, frames, draft), frames, task, how)

    def judged(
        self,
        pred: Float[Tensor, "b t 3 h w"],
        frames: Float[Tensor, "b t 3 h w"],
        task: DecodingTask,
        how: DecoderLoss,
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Weighted errors of the frames and of their changes, LPIPS, and each term unweighted."""
        asked = ~task.is_given
        terms = how.errors(pred, frames, asked)
        loss = how.l1_weight * terms["l1"] + how.l2_weight * terms["l2"]
        if how.change_weight:
            wrong = (pred.diff(dim=1) - frames.diff(dim=1)).abs().mean((2, 3, 4))
            terms["change"] = mean_of(wrong, asked[:, 1:] & task.is_video[:, None])
            loss = loss + how.change_weight * terms["change"]
        if how.perceptual is not None and how.perceptual_weight:
            distance = how.perceptual(pred.flatten(0, 1), frames.flatten(0, 1))
            terms["lpips"] = mean_of(distance.view(asked.shape), asked)
            loss = loss + how.perceptual_weight * terms["lpips"]
        return loss, terms

    def frames(
        self,
        task: DecodingTask,
        given: Float[Tensor, "b t 3 h w"],
        draft: FirstGuess | None,
    ) -> Float[Tensor, "b t 3 h w"]:
        """Frames, given ones as they are, not clamped; where there is a draft, it is changed."""
        here = task.is_given[:, :, None, None, None]
        pred = self(torch.where(here, given, 0.0), task, draft).float()
        if draft is not None:
            pred = pred + draft.frames
        return torch.where(here, given, pred)

    def last_layer_gradient(
        self, gradient: Float[Tensor, "b t 3 h w"], task: DecodingTask
    ) -> Float[Tensor, "out in k k"]:
        """Gradient of the last layer's weight, from that of the frames of the last forward pass.

        The network has to keep its features (`keeps_features`).
        """
        last: Any = self.join[-1]
        shape = (last.out_channels, last.in_channels, *last.kernel_size)
        asked = gradient.float() * ~task.is_given[:, :, None, None, None]
        return conv2d_weight(self.features.float(), shape, asked.flatten(0, 1), padding=1)

    @torch.no_grad()
    def make(
        self,
        task: DecodingTask,
        given: Float[Tensor, "b t 3 h w"],
        draft: FirstGuess | None,
        noise: ClipNoise,
        how: VideoDecodingConfig,
    ) -> Float[Tensor, "b t 3 h w"]:
        """Frames in [-1, 1]; nothing is drawn."""
        return self.frames(task, given, draft).clamp(-1, 1)
