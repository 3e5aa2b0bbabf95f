"""Autoregressive decoding of a GPT in raster order, many futures at once."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from worldmodel.decoding.cached import CachedDecoder
from worldmodel.decoding.sampling import sample
from worldmodel.decoding.weights import weight_bytes

# Picks the tokens of some cells of the open frame from their logits [row cell vocab].
Choose = Callable[[Tensor, slice | Tensor], Tensor]


class Decoder(CachedDecoder):
    """Futures of a GPT, sampled token by token; arguments as `CachedDecoder`."""

    @torch.inference_mode()
    def next_frame(
        self, action: Float[Tensor, "future action"] | None = None
    ) -> Int[Tensor, "future height width"]:
        """Sample the next frame, given the action that leads to it."""
        self._draw_uniform()
        return self.extend(self.draw, action)[: self.num_futures]

    def draw(
        self, logits: Float[Tensor, "row cell vocab"], cells: slice | Tensor
    ) -> Int[Tensor, "row cell"]:
        """Sample some cells of the open frame, each with its uniform number."""
        logits, uniform = self.guided(logits, cells), self._uniform[:, cells].flatten()
        drawn = sample(logits.flatten(0, 1), self.sampling, uniform)
        return self.both(drawn.view(logits.shape[:2]))

    @torch.inference_mode()
    def score_next(
        self,
        frame: Int[Tensor, "future height width"],
        action: Float[Tensor, "future action"] | None = None,
    ) -> Float[Tensor, "future space"]:
        """Cross entropy (nats) of a real frame under this decoder; then append that frame.

        It includes approximations: the cost of an approximate decoder is the difference to an
        exact one.
        """
        real = frame.flatten(1)
        nll = torch.empty(real.shape, device=real.device)

        def score(logits: Tensor, cells: slice | Tensor) -> Tensor:
            logits = self.guided(logits, cells).mT.float()
            nll[:, cells] = F.cross_entropy(logits, real[:, cells], reduction="none")
            return self.both(real[:, cells])

        self._draw_uniform()  # a draft may use them
        self.extend(score, action)
        return nll

    @torch.inference_mode()
    def extend(
        self, choose: Choose, action: Float[Tensor, "future action"] | None = None
    ) -> Int[Tensor, "row height width"]:
        """Append a frame; `choose` picks its tokens."""
        self.begin(action)
        frame = self.decode(choose)
        self.finish(frame)
        return frame.view(-1, self.layout.height, self.layout.width)

    def decode(self, choose: Choose) -> Int[Tensor, "row space"]:
        """All tokens of the open frame; the cache then holds them."""
        rows, space = len(self.tokens), self.layout.tokens_per_step
        frame = self.tokens.new_empty(rows, space)
        logits = self.open_frame()
        for cell in range(space):
            one = slice(cell, cell + 1)
            frame[:, one] = choose(logits, one)
            logits = self.feed(self.embed_cells(frame[:, one], one))
        return frame

    def _draw_uniform(self) -> None:
        """Draw the uniform number that decides each token of the next frame."""
        space = self.layout.tokens_per_step
        uniform = torch.rand(space, self.num_futures, generator=self.generator)
        self._uniform = uniform.to(self.tokens.device).T

    @property
    def bytes_per_token(self) -> int:
        """Bytes that sequential decoding reads per token: weights and filled cache.

        Embedding tables do not count, because only one row is read; a tied head counts.
        """
        return weight_bytes(self.model) + self.cache.num_bytes
