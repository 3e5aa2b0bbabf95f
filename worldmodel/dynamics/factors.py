"""A large vocabulary as a product of small ones, predicted independently."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from training.errors import BadInput
from worldmodel.dynamics.scores import TokenScores, guesses


class Factors:
    """token = f_0 + n_0 f_1 + n_0 n_1 f_2 ...: f_0 varies fastest.

    Args:
        sizes: n_0, n_1 ...; empty: one factor, the whole vocabulary.

    Raises:
        BadInput: the sizes do not multiply to the vocabulary.
    """

    def __init__(self, sizes: Sequence[int], vocab_size: int) -> None:
        self.sizes = list(sizes) or [vocab_size]
        if min(self.sizes) < 1 or math.prod(self.sizes) != vocab_size:
            raise BadInput(
                f"factors={self.sizes} multiply to {math.prod(self.sizes)}, but the tokens have "
                f"{vocab_size} values; give sizes that multiply to that, or none"
            )

    def split(self, tokens: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape factor"]:
        rest, parts = tokens, []
        for size in self.sizes:
            parts.append(rest % size)
            rest = rest // size
        return torch.stack(parts, dim=-1)

    def join(self, factors: Int[Tensor, "*shape factor"]) -> Int[Tensor, "*shape"]:
        tokens = torch.zeros_like(factors[..., 0])
        for k in reversed(range(len(self.sizes))):
            tokens = tokens * self.sizes[k] + factors[..., k]
        return tokens

    def parts(self, logits: Float[Tensor, "*shape logit"]) -> tuple[Tensor, ...]:
        """Splits concatenated logits by factor."""
        return logits.split(self.sizes, dim=-1)

    def joint(self, logits: Float[Tensor, "*shape logit"]) -> Float[Tensor, "*shape vocab"]:
        """Log-probabilities of all tokens, in float32."""
        total = torch.zeros_like(logits[..., :1], dtype=torch.float32)
        for part in reversed(self.parts(logits)):
            total = (total[..., None] + part.float().log_softmax(-1)[..., None, :]).flatten(-2)
        return total

    def best(self, logits: Float[Tensor, "*shape logit"]) -> Int[Tensor, "*shape factor"]:
        """Factors of the most probable token."""
        return torch.stack([part.argmax(-1) for part in self.parts(logits)], dim=-1)

    def token_nll(
        self,
        logits: Float[Tensor, "*shape logit"],
        factors: Int[Tensor, "*shape factor"],
    ) -> Float[Tensor, "*shape"]:
        """Cross entropy of every token in nats: the sum over its factors, in float32."""
        total = torch.zeros(factors.shape[:-1], device=logits.device)
        for k, part in enumerate(self.parts(logits.float())):
            flat = F.cross_entropy(part.flatten(0, -2), factors[..., k].flatten(), reduction="none")
            total = total + flat.view(total.shape)
        return total

    def score(
        self,
        logits: Float[Tensor, "*shape logit"],
        factors: Int[Tensor, "*shape factor"],
    ) -> TokenScores:
        """Scores of tokens whose factors are predicted independently of each other."""
        pairs = zip(self.parts(logits), factors.unbind(-1), strict=True)
        parts = [guesses(part, digit) for part, digit in pairs]
        return TokenScores(
            self.token_nll(logits, factors),
            torch.stack([part.correct for part in parts]).all(0),
            torch.stack([part.confidence for part in parts]).prod(0),
            parts[0].rank if len(parts) == 1 else None,
        )
