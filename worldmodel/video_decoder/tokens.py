"""A frozen tokenizer of images: frames of windows to tokens, and back to its own frames."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from tokenizer.load import Tokenizer
from tokenizer.losses.frozen import Frozen
from tokenizer.networks.base import MeaningOnly, TokenNetwork
from training.errors import BadInput


class FrozenTokenizer(Frozen):
    """A tokenizer beside a network in training, in full precision; in no checkpoint.

    Raises:
        BadInput: it is one of videos, or decodes nothing.
    """

    network: TokenNetwork

    def __init__(self, tokenizer: Tokenizer) -> None:
        check_usable(tokenizer)
        network = tokenizer.network
        if isinstance(torch.empty(()), FakeTensor):  # the planner's: shapes alone
            network = type(network)(network.config)
        super().__init__(network)
        self.preprocessing = tokenizer.preprocessing

    @torch.no_grad()
    def encode(self, frames: Float[Tensor, "b t 3 h w"]) -> Int[Tensor, "b t gh gw"]:
        """Tokens of frames in [-1, 1]."""
        with torch.autocast(frames.device.type, enabled=False):
            flat = self.preprocessing.to_network(frames.float().flatten(0, 1))
            return self.network.encode(flat).unflatten(0, frames.shape[:2])

    @torch.no_grad()
    def decode(self, tokens: Int[Tensor, "b t gh gw"]) -> Float[Tensor, "b t 3 h w"]:
        """The tokenizer's own frames, in [-1, 1]."""
        with torch.autocast(tokens.device.type, enabled=False):
            frames: Tensor = self.network.decode(tokens.flatten(0, 1))
            return frames.float().unflatten(0, tokens.shape[:2])


def check_usable(tokenizer: Tokenizer) -> None:
    """BadInput where a video decoder cannot be trained on this tokenizer."""
    if tokenizer.frames_per_step != 1:
        raise BadInput(
            f"data.tokenizer: its step stands for {tokenizer.frames_per_step} frames; a video "
            "decoder reads a grid per frame, so give a tokenizer of images"
        )
    if isinstance(tokenizer.network, MeaningOnly):
        raise BadInput(
            "data.tokenizer: its tokens have no pixels, and a video decoder is compared with the "
            "tokenizer's own frames; give a tokenizer that decodes"
        )
