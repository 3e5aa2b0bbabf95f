"""The causal video autoencoder: clips <-> a token grid for the first frame, then one per step.

The architecture of the Cosmos discrete video tokenizer (arXiv 2501.03575, section 4): Haar patches,
factorised causal convolutions, attention over space and over past time. The network treats the
first frame as an image, so 1 + k n frames give 1 + n token grids.
"""

import math
from collections.abc import Mapping

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from tokenizer.networks.base import PixelNetwork
from tokenizer.networks.video.blocks import (
    FrameNorm,
    SpaceTimeDownsample,
    SpaceTimeUpsample,
    VideoAttention,
    VideoResBlock,
)
from tokenizer.networks.video.causal_conv import (
    CausalConv,
    CausalLayers,
    FactorizedConv,
    PastFrames,
    at_start,
)
from tokenizer.networks.video.config import VideoAutoencoderConfig
from tokenizer.networks.video.haar import haar, inverse_haar
from tokenizer.networks.video.stream import DecodeStream, EncodeStream
from tokenizer.quantizers.base import Quantized
from tokenizer.quantizers.kinds import build_quantizer
from training.errors import BadInput


class VideoEncoder(nn.Module):
    def __init__(self, config: VideoAutoencoderConfig, code_dim: int) -> None:
        super().__init__()
        self.patch = config.patch
        width = config.channels
        layers: list[nn.Module] = [FactorizedConv(3 * config.patch**3, width)]
        for level, channels in enumerate(config.widths):
            for _ in range(config.num_res_blocks):
                layers.append(VideoResBlock(width, channels))
                width = channels
                if level in config.attention_levels:
                    layers.append(VideoAttention(width, config.attention_steps))
            last = level == len(config.widths) - 1
            if not last and any(config.halvings(level)):
                layers.append(SpaceTimeDownsample(width, *config.halvings(level)))
        self.layers = CausalLayers(*layers, *middle(width, config.attention_steps))
        self.norm_out = FrameNorm(width)
        self.conv_out = FactorizedConv(width, config.latent_channels)
        self.to_codes = CausalConv(config.latent_channels, code_dim)

    def forward(
        self, frames: Float[Tensor, "b 3 t h w"], past: PastFrames | None = None
    ) -> Float[Tensor, "b d steps gh gw"]:
        if at_start(past):
            repeated = frames[:, :, :1].expand(-1, -1, self.patch - 1, -1, -1)
            frames = torch.cat([repeated, frames], 2)
        for _ in range(int(math.log2(self.patch))):
            frames = haar(frames)
        hidden = F.silu(self.norm_out(self.layers(frames, past)))
        return self.to_codes(self.conv_out(hidden, past))


class VideoDecoder(nn.Module):
    def __init__(self, config: VideoAutoencoderConfig, code_dim: int) -> None:
        super().__init__()
        self.patch = config.patch
        width = config.widths[-1]
        self.from_codes = CausalConv(code_dim, config.latent_channels)
        layers: list[nn.Module] = [FactorizedConv(config.latent_channels, width)]
        layers += middle(width, config.attention_steps)
        for level, channels in reversed(list(enumerate(config.widths))):
            for _ in range(config.num_res_blocks + 1):
                layers.append(VideoResBlock(width, channels))
                width = channels
                if level in config.attention_levels:
                    layers.append(VideoAttention(width, config.attention_steps))
            if level and any(config.doublings(level)):
                layers.append(SpaceTimeUpsample(width, *config.doublings(level)))
        self.layers = CausalLayers(*layers)
        self.norm_out = FrameNorm(width)
        self.conv_out = FactorizedConv(width, 3 * config.patch**3)

    def forward(
        self, codes: Float[Tensor, "b d steps gh gw"], past: PastFrames | None = None
    ) -> Float[Tensor, "b 3 t h w"]:
        hidden = F.silu(self.norm_out(self.layers(self.from_codes(codes), past)))
        self.features = self.conv_out.space(hidden)
        return self.unpatch(self.conv_out.time(self.features, past), at_start(past))

    def unpatch(
        self, patches: Float[Tensor, "b c steps ph pw"], start: bool = True
    ) -> Float[Tensor, "b 3 t h w"]:
        """Pixels of Haar patches; at the start of a clip, drops the copies of the first frame."""
        for _ in range(int(math.log2(self.patch))):
            patches = inverse_haar(patches)
        return patches[:, :, self.patch - 1 :] if start else patches

    def last_layer_gradient(
        self, gradient: Float[Tensor, "n 3 h w"]
    ) -> Float[Tensor, "out in 1 1"]:
        """Gradient of the last layer's weight, given that of the pixels of the last forward."""
        clips = rearrange(gradient.float(), "(b t) c h w -> b c t h w", b=len(self.features))
        conv = self.conv_out.time
        with torch.enable_grad(), torch.autocast(gradient.device.type, enabled=False):
            weight = conv.weight.detach().float().requires_grad_()
            features = conv.with_past(self.features.detach().float(), None)
            frames = self.unpatch(F.conv3d(features, weight))
            (result,) = torch.autograd.grad(frames, weight, clips)
        return result.flatten(1)[:, :, None, None]


class VideoAutoencoder(PixelNetwork):
    """Video autoencoder: clips to token grids and back; values are in [-1, 1]."""

    config: VideoAutoencoderConfig
    memory_format = torch.channels_last_3d
    refuses: Mapping[str, str] = {
        "frames_at_once": "a video tokenizer reads frames together; leave it out",
        "winograd": "is for 3x3 convolutions of images, a video tokenizer's are over time as well; "
        "leave it out",
        "compile": "a video tokenizer's layers keep a past that grows from batch to batch, for "
        "which the compiler would start anew each time; leave it out",
        "distillation_weight": "a teacher sees one frame per token grid, and here a grid holds "
        "several; set it to 0",
    }

    def __init__(self, config: VideoAutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.quantizer = build_quantizer(config.quantizer)
        self.encoder = VideoEncoder(config, self.quantizer.dim)
        self.decoder = VideoDecoder(config, self.quantizer.dim)

    @property
    def last_layer(self) -> Tensor:
        """Weight where the adaptive GAN weight compares gradients (Esser et al. 2021, eq. 7)."""
        return self.decoder.conv_out.time.weight

    def forward(
        self, frames: Float[Tensor, "n 3 h w"]
    ) -> tuple[Float[Tensor, "n 3 h w"], Quantized]:
        """Reconstruction, codes and tokens, for clips one after another.

        Every `clip_frames` frames are a clip, so losses and metrics of image tokenizers apply.
        Codes are [clip step gh gw dim], tokens [clip step gh gw].

        Raises:
            BadInput: the frames are no whole number of clips.
        """
        length = self.config.clip_frames
        if not len(frames) or len(frames) % length:
            raise BadInput(f"{len(frames)} frames are no whole number of clips of {length}")
        clips = rearrange(frames, "(b t) c h w -> b c t h w", t=length)
        quantized = self.quantizer(rearrange(self.encoder(clips), "b d t h w -> b t h w d"))
        fake = self.decoder(rearrange(quantized.codes, "b t h w d -> b d t h w"))
        return rearrange(fake, "b c t h w -> (b t) c h w"), quantized

    @torch.no_grad()
    def encode(
        self, frames: Float[Tensor, "*batch t 3 h w"], past: PastFrames | None = None
    ) -> Int[Tensor, "*batch steps gh gw"]:
        """Tokens of a clip (or a batch of clips) of any length in [-1, 1].

        Args:
            past: state after the chunk before; this chunk continues from it.

        Raises:
            BadInput: frames of another size, or a number of frames that is not 1 + k n (k n for a
                later chunk), k = `time_downsampling`.
        """
        self.config.check_frames(frames.shape)
        count, factor, first = frames.shape[-4], self.config.time_downsampling, at_start(past)
        if not count or (count - first) % factor:
            raise BadInput(
                f"{count} frames: this tokenizer takes {'1 + ' * first}a multiple of {factor}"
            )
        batch = frames.shape[:-4]
        clips = rearrange(frames.reshape(-1, *frames.shape[-4:]), "b t c h w -> b c t h w")
        latents = rearrange(self.encoder(clips, past), "b d t h w -> b t h w d")
        if past is not None:
            past.begun = True
        tokens = self.quantizer.encode(latents)
        return tokens.reshape(*batch, *tokens.shape[1:])

    @torch.no_grad()
    def decode(
        self, tokens: Int[Tensor, "*batch steps gh gw"], past: PastFrames | None = None
    ) -> Float[Tensor, "*batch t 3 h w"]:
        """Frames in [-1, 1] (clamped) of the token grids of a clip or of a later chunk."""
        batch = tokens.shape[:-3]
        codes = self.quantizer.decode(tokens.reshape(-1, *tokens.shape[-3:]))
        clips = self.decoder(rearrange(codes, "b t h w d -> b d t h w"), past).clamp(-1, 1)
        if past is not None:
            past.begun = True
        frames = rearrange(clips, "b c t h w -> b t c h w")
        return frames.reshape(*batch, *frames.shape[1:])

    def drive_encoder(self) -> EncodeStream:
        return EncodeStream(self.encode, self.config.frames_per_step)

    def drive_decoder(self) -> DecodeStream:
        return DecodeStream(self.decode)


def middle(channels: int, attention_steps: int) -> list[nn.Module]:
    attention = VideoAttention(channels, attention_steps)
    return [VideoResBlock(channels, channels), attention, VideoResBlock(channels, channels)]
