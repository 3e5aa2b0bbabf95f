"""The kinds of video decoders: what each learns, and how it makes the frames of a window."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from drives.tokens.spec import TokenSpec
from tokenizer.losses.lpips import PerceptualDistance
from training.disk.judging import judged, kind_of
from worldmodel.video_decoder.backbone import SpaceTimeNet
from worldmodel.video_decoder.config import (
    IMAGE,
    DiffusionDecoderConfig,
    OnePassDecoderConfig,
    VideoDecoderConfig,
    VideoDecodingConfig,
)
from worldmodel.video_decoder.diffusion import SMALLEST, Diffusion, ddim
from worldmodel.video_decoder.tasks import DecodingTask, FirstGuess

PIXEL_STD = 0.5  # of pixels in [-1, 1] around 0


@dataclass(frozen=True)
class DecoderLoss:
    """Weights of the loss; see `VideoDecoderModuleConfig`."""

    l1_weight: float = 0.1
    l2_weight: float = 1.0
    perceptual_weight: float = 0.0
    change_weight: float = 0.0
    perceptual: PerceptualDistance | None = None

    def errors(
        self,
        pred: Float[Tensor, "b t 3 h w"],
        target: Float[Tensor, "b t 3 h w"],
        asked: Bool[Tensor, "b t"],
    ) -> dict[str, Tensor]:
        """Mean absolute and squared error of the frames that are asked for."""
        error = pred.float() - target
        each = {"l1": error.abs().mean((2, 3, 4)), "l2": error.square().mean((2, 3, 4))}
        return {name: mean_of(values, asked) for name, values in each.items()}


class ClipNoise:
    """Random numbers of some clips, each from its own seed; so no batch changes a clip's video.

    They are drawn on the CPU: every device gets the same.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        self.generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        self.device = device

    def normal(self, *shape: int) -> Float[Tensor, "b *shape"]:
        drawn = [torch.randn(shape, generator=generator) for generator in self.generators]
        return torch.stack(drawn).to(self.device)

    def uniform(self, count: int) -> Float[Tensor, "b count"]:
        drawn = [torch.rand(count, generator=generator) for generator in self.generators]
        return torch.stack(drawn).to(self.device)


class DiffusionDecoder(SpaceTimeNet):
    """Predicts, from noised frames and tokens, what leads to the frames; see `Diffusion`."""

    config: DiffusionDecoderConfig
    causal = False

    def __init__(self, config: DiffusionDecoderConfig, spec: TokenSpec) -> None:
        super().__init__(config, spec, timed=True, causal=False)
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
        start = noise.normal(*given.shape[1:])
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


class OnePassDecoder(SpaceTimeNet):
    """Frames of a window in one pass: a temporal decoder on frozen tokens."""

    config: OnePassDecoderConfig

    def __init__(self, config: OnePassDecoderConfig, spec: TokenSpec) -> None:
        super().__init__(config, spec, timed=False, causal=config.causal)
        self.causal = config.causal

    def loss(
        self,
        frames: Float[Tensor, "b t 3 h w"],
        task: DecodingTask,
        draft: FirstGuess | None,
        how: DecoderLoss,
        generator: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Weighted errors of the frames and of their changes, LPIPS, and each term unweighted."""
        asked = ~task.is_given
        pred = self.frames(task, frames, draft)
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


VideoDecoderNetwork = DiffusionDecoder | OnePassDecoder
KINDS: dict[str, type[Any]] = {
    "diffusion_decoder": DiffusionDecoderConfig,
    "one_pass_decoder": OnePassDecoderConfig,
}
NETWORKS: dict[type[Any], type[Any]] = {
    DiffusionDecoderConfig: DiffusionDecoder,
    OnePassDecoderConfig: OnePassDecoder,
}


def build_video_decoder(config: VideoDecoderConfig, spec: TokenSpec) -> VideoDecoderNetwork:
    """A newly initialised network of a config."""
    network: VideoDecoderNetwork = NETWORKS[type(config)](config, spec)
    return network


def describe_decoder(config: VideoDecoderConfig) -> dict[str, Any]:
    """The manifest entry of a config: its kind and its values."""
    (name,) = (name for name, kind in KINDS.items() if type(config) is kind)
    plain = {k: list(v) if isinstance(v, list | tuple) else v for k, v in asdict(config).items()}
    return {"name": name, **plain}


def decoder_from_description(values: Any, where: str) -> VideoDecoderConfig:
    """The config that `describe_decoder` wrote; BadInput for an unknown kind or a wrong value."""
    kind, rest = kind_of(values, KINDS, where)
    config: VideoDecoderConfig = judged(kind, rest, where)
    return config


def mean_of(values: Float[Tensor, "b t"], asked: Bool[Tensor, "b t"]) -> Float[Tensor, ""]:
    """Mean of what is asked for; 0 where nothing is."""
    return (values * asked).sum() / asked.sum().clamp(min=1)
