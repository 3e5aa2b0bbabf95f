"""Decodes a GPT in small integers: the same tokens on every machine, and in a browser."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from training.errors import BadInput
from worldmodel.codec.exact import numbers
from worldmodel.codec.exact.cache import RoundedCache
from worldmodel.codec.exact.mode import ExactArithmetic
from worldmodel.decoding.config import Sampling
from worldmodel.decoding.raster import Decoder
from worldmodel.decoding.sampling import likeliest
from worldmodel.dynamics.gpt.model import GPT


class PortableDecoder(Decoder):
    """Raster order with weights of 8 bits, inputs of 14, and sums of integers.

    The file that `python -m worldmodel.drive export=FILE` writes draws the same tokens. Arguments
    as `CachedDecoder`.

    Raises:
        BadInput: a model on a GPU, weights that were lowered to another precision, guidance, or
            imagined actions.
    """

    new_cache = RoundedCache

    def __init__(
        self,
        model: GPT,
        sampling: Sampling | None = None,
        slide_steps: int | None = None,
        window: str = "slide",
    ) -> None:
        super().__init__(model, sampling, slide_steps, window)
        qkv = self.blocks[0].attention.qkv
        if not isinstance(qkv, torch.nn.Linear) or qkv.weight.dtype != torch.float32:
            raise BadInput("decoding.method=portable rounds by itself; leave decoding.dtype out")
        if qkv.weight.device.type != "cpu":
            raise BadInput("decoding.method=portable computes on a CPU; give device=cpu")
        if self.guidance is not None:
            raise BadInput("decoding.method=portable has no guidance; leave it out")
        if model.predicts_actions:
            raise BadInput("decoding.method=portable imagines no actions; give method=raster")
        self.arithmetic = ExactArithmetic(model, numbers.BYTES)

    # What the network computes, and nothing else: tokens are chosen outside.

    def start(self, *args: Any, **kwargs: Any) -> None:
        with self.arithmetic:
            super().start(*args, **kwargs)

    def begin(self, action: Float[Tensor, "future action"] | None = None) -> None:
        with self.arithmetic:
            super().begin(action)

    def feed(
        self, x: Float[Tensor, "row new dim"], cells: Int[Tensor, " new"] | None = None
    ) -> Float[Tensor, "row new vocab"]:
        with self.arithmetic:
            return super().feed(x, cells)

    def choose(
        self, logits: Float[Tensor, "row vocab"], uniform: Float[Tensor, " row"]
    ) -> Int[Tensor, " row"]:
        return drawn(logits, self.sampling, uniform)


def drawn(
    logits: Float[Tensor, "row vocab"], sampling: Sampling, uniform: Float[Tensor, " row"]
) -> Int[Tensor, " row"]:
    """As `worldmodel.decoding.sampling.sample`, by sums of integers."""
    if sampling.greedy:
        return _first(logits == logits.amax(-1, keepdim=True))
    logits = logits.float() / sampling.temperature
    mass = numbers.masses(logits).double()
    if 0 < sampling.top_k < logits.shape[-1]:
        mass.masked_fill_(~likeliest(logits, sampling.top_k), 0)
    if sampling.top_p < 1:
        ordered, order = mass.sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(-1) - ordered
        ordered.masked_fill_(before >= sampling.top_p * ordered.sum(-1, keepdim=True), 0)
        mass = torch.zeros_like(mass).scatter(-1, order, ordered)
    total = mass.cumsum(-1)
    return _first(total > uniform.double()[:, None] * total[:, -1:])


def _first(true: Tensor) -> Int[Tensor, " row"]:
    """The place of the first one in every row."""
    places = torch.arange(true.shape[-1]).expand_as(true)
    return places.masked_fill(~true, true.shape[-1]).amin(-1)
