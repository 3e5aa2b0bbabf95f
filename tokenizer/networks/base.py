"""The protocol of every network that turns frames into grids of tokens, and its two kinds."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tokenizer.networks.config import GridConfig
from tokenizer.quantizers.base import Quantized, Quantizer
from training.errors import BadInput
from training.optimization.recompute import Layers

DECODING = ("decoder", "post_quant_conv")  # parts that turn codes into pixels


@runtime_checkable
class DriveDecoder(Protocol):
    """Decodes one drive's grids, some after the others, and remembers those before."""

    def __call__(self, tokens: Int[Tensor, "steps gh gw"]) -> Float[Tensor, "n 3 h w"]: ...

    def fork(self) -> "DriveDecoder":
        """A copy that continues from here; the two are independent."""


class TokenNetwork(nn.Module):
    """Frames to token grids: of images, of clips, with a way back to pixels or without.

    What stands here serves networks that see every frame alone; a video network overrides it.

    Attributes:
        config: image size, grid, frames of a step and of a training clip.
        quantizer: turns latents into tokens.
        memory_format: of weights and activations whose channels lie side by side.
        refuses: settings that the network cannot be computed or trained with, and why.
    """

    config: GridConfig
    quantizer: Quantizer
    memory_format: torch.memory_format = torch.channels_last
    refuses: Mapping[str, str] = {}

    @property
    def trained_layers(self) -> list[Layers]:
        """Layers that are compiled, and whose activations may be recomputed."""
        raise NotImplementedError

    def latents(self, frames: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n gh gw dim"]:
        """Latents of frames, the quantizer's input."""
        raise NotImplementedError

    def reconstruct(self, codes: Float[Tensor, "n gh gw dim"]) -> Float[Tensor, "n 3 h w"]:
        """Frames of codes, not clamped."""
        raise NotImplementedError

    @torch.no_grad()
    def encode(self, frames: Float[Tensor, "n 3 h w"]) -> Int[Tensor, "steps gh gw"]:
        """Tokens of frames, in the units that the tokenizer's `Preprocessing` makes.

        Raises:
            BadInput: the frames have another size than the network was made for, or (video) are
                no whole clip.
        """
        self.config.check_frames(frames.shape)
        return self.quantizer.encode(self.latents(frames))

    @torch.no_grad()
    def decode(self, tokens: Int[Tensor, "steps gh gw"]) -> Float[Tensor, "n 3 h w"]:
        """Frames in [-1, 1] (clamped) of token grids.

        Raises:
            BadInput: the network has no way back to pixels.
        """
        return self.reconstruct(self.quantizer.decode(tokens)).clamp(-1, 1)

    def drive_encoder(
        self,
    ) -> Callable[[Float[Tensor, "n 3 h w"]], Int[Tensor, "steps gh gw"] | None]:
        """Encoder of one drive's consecutive batches; None where a batch completes no step."""
        return self.encode

    def drive_decoder(self) -> DriveDecoder | None:
        """Decoder of one drive's consecutive grids; None where each grid is one frame."""
        return None

    def encode_stream(
        self, batches: Iterable[Float[Tensor, "_ 3 h w"]]
    ) -> Iterator[Int[Tensor, "_ gh gw"]]:
        """Tokens of a drive's consecutive frames, however they are cut into batches.

        Frames at the end that are fewer than a step have no tokens.
        """
        return (tokens for tokens in map(self.drive_encoder(), batches) if tokens is not None)

    def decode_stream(
        self, batches: Iterable[Int[Tensor, "_ gh gw"]]
    ) -> Iterator[Float[Tensor, "_ 3 h w"]]:
        """Frames of a drive's consecutive token grids, however they are cut into batches."""
        return map(self.drive_decoder() or self.decode, batches)

    @cached_property
    def flops_per_frame(self) -> int:
        """FLOPs per frame of one forward pass, counted by running one training clip."""
        count, device = self.config.clip_frames, next(self.parameters()).device
        frames = torch.zeros(count, 3, *self.config.image_size, device=device)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            self(frames)
        return int(counter.get_total_flops()) // count

    def check_settings(self, where: str = "", /, **values: Any) -> None:
        """BadInput where a setting is on that this network refuses."""
        for name, value in values.items():
            if value and name in self.refuses:
                raise BadInput(f"{where}{name}={str(value).lower()}: {self.refuses[name]}")


class PixelNetwork(TokenNetwork):
    """Base of the networks with a way back to pixels.

    Attributes:
        encoder: its attribute `layers` is all that learns much.
        decoder: the same; and `last_layer_gradient(gradient of the pixels)`, where the adaptive
            GAN weight compares gradients (Esser et al. 2021, eq. 7).
    """

    encoder: Any
    decoder: Any

    @property
    def trained_layers(self) -> list[Layers]:
        return [self.encoder.layers, self.decoder.layers]

    @property
    def makes_tokens(self) -> list[nn.Module]:
        """The parts that turn frames into tokens."""
        return [part for name, part in self.named_children() if name not in DECODING]

    def forward(
        self, frames: Float[Tensor, "n 3 h w"]
    ) -> tuple[Float[Tensor, "n 3 h w"], Quantized]:
        """Reconstruction, codes [n gh gw dim] and tokens [n gh gw]."""
        quantized = self.quantizer(self.latents(frames))
        return self.reconstruct(quantized.codes), quantized


class MeaningOnly(TokenNetwork):
    """Base of the networks without a decoder to pixels, which have a training loss of their own."""

    def decode(self, tokens: Int[Tensor, "steps gh gw"]) -> Float[Tensor, "n 3 h w"]:
        raise BadInput(
            "this tokenizer keeps what frames mean, not how they look: its tokens have no pixels; "
            "take an autoencoder's tokens to see frames"
        )

    def loss(
        self, frames: Float[Tensor, "b t 3 h w"], actions: Float[Tensor, "b t a"]
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor], Int[Tensor, "..."]]:
        """The loss of a batch of clips, its terms by name, and the tokens."""
        raise NotImplementedError

    def frames_used(self, clip_frames: int) -> int:
        """Number of frames of a training clip that are encoded."""
        raise NotImplementedError
