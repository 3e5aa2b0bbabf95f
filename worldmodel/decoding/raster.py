"""Autoregressive decoding of a GPT in raster order, many futures at once."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from worldmodel.decoding.base import Cells, Choose, answered
from worldmodel.decoding.cached import CachedDecoder
from worldmodel.decoding.weights import weight_bytes


class Decoder(CachedDecoder):
    """Futures of a GPT, sampled token by token; arguments as `CachedDecoder`."""

    @torch.inference_mode()
    def predict(self, action: Float[Tensor, "future action"] | None = None) -> Cells:
        self.begin(action)
        frame = yield from self.cells()
        self.finish(frame)
        return frame.view(-1, self.layout.height, self.layout.width)

    @torch.inference_mode()
    def extend(
        self, choose: Choose, action: Float[Tensor, "future action"] | None = None
    ) -> Int[Tensor, "row height width"]:
        """Append a frame; `choose` picks its tokens, in the order of `decode`."""
        self.begin(action)
        frame = self.decode(choose)
        self.finish(frame)
        return frame.view(-1, self.layout.height, self.layout.width)

    def decode(self, choose: Choose) -> Int[Tensor, "row space"]:
        """All tokens of the open frame; the cache then holds them."""
        return answered(self.cells(), choose)

    def cells(self) -> Cells:
        """The same in raster order, as a generator."""
        rows, space = len(self.tokens), self.layout.tokens_per_step
        frame = self.tokens.new_empty(rows, space)
        logits = self.open_frame()
        for cell in range(space):
            one = slice(cell, cell + 1)
            frame[:, one] = yield logits, one
            logits = self.feed(self.embed_cells(frame[:, one], one))
        return frame

    @property
    def bytes_per_token(self) -> int:
        """Bytes that sequential decoding reads per token: weights and filled cache.

        Embedding tables do not count, because only one row is read; a tied head counts.
        """
        return weight_bytes(self.model) + self.cache.num_bytes
