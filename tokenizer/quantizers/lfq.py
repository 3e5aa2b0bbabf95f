"""Lookup-free quantization: the signs of the channels are the code (Yu et al. 2023, MAGVIT-v2)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from tokenizer.quantizers.base import Quantized, Quantizer, at_least_float32
from tokenizer.quantizers.codebook import mean_over_processes
from tokenizer.quantizers.config import LFQConfig

EPSILON = 1e-5  # in the logarithm of the batch entropy, as published


class LFQ(Quantizer):
    """Codes are +1 where a latent is positive, else -1; the gradient passes straight through.

    Follows section 3.1 of the paper (arXiv 2310.05737), eq. 4 to 6, with the constants of
    Open-MAGVIT2. Under p the bits are independent: the entropy of one position is the sum of its
    bits' entropies, and the mean over positions is one product of two tables of 2^(bits / 2)
    columns. Both are exact; no tensor of positions x codes is built.

    Attributes:
        num_batches: training batches so far; drives the annealing.
    """

    num_batches: Tensor
    _place_values: Tensor

    def __init__(self, config: LFQConfig) -> None:
        super().__init__()
        self.config = config
        self.dim, self.vocab_size = config.bits, 2**config.bits
        self.bit_order = config.bit_order
        self.factors = tuple(2**bits for bits in config.factor_bits)
        values = 2 ** torch.arange(config.bits)
        values = values if config.bit_order == "little" else values.flip(0)
        self.register_buffer("_place_values", values, persistent=False)
        self.register_buffer("num_batches", torch.zeros((), dtype=torch.int64))

    def forward(self, z: Float[Tensor, "... dim"]) -> Quantized:
        with torch.autocast(z.device.type, enabled=False):
            latents = at_least_float32(z)
            codes = torch.where(latents > 0, 1.0, -1.0).to(latents.dtype)
            losses = self._losses(latents, codes)
            if self.learning:
                self.num_batches += 1
            through = latents + (codes - latents).detach()
            return Quantized(through, self.encode(z), losses)

    def encode(self, z: Float[Tensor, "... dim"]) -> Int[Tensor, "..."]:
        return ((z > 0) * self._place_values).sum(-1)

    def decode(self, indices: Int[Tensor, "..."]) -> Float[Tensor, "... dim"]:
        bits = indices.unsqueeze(-1) // self._place_values % 2
        return 2.0 * bits - 1.0

    def entropies(self, z: Float[Tensor, "... dim"]) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Mean entropy of a position, and entropy of the mean over all processes; in nats."""
        logits = 4 / self.config.temperature * z.flatten(0, -2)  # of a bit being 1
        sample = (F.softplus(logits) - logits * logits.sigmoid()).sum(-1).mean()
        low, high = (_joint(half) for half in logits.tensor_split(2, dim=-1))
        mean = mean_over_processes(low.T @ high / len(logits))
        return sample, -(mean * (mean + EPSILON).log()).sum()

    def _losses(
        self, z: Float[Tensor, "... dim"], codes: Float[Tensor, "... dim"]
    ) -> dict[str, Tensor]:
        losses, config = {}, self.config
        if config.entropy_weight:
            left = (1 - self.num_batches / config.anneal_steps).clamp(min=0)
            weight = config.entropy_weight * (1 + config.anneal_ratio * left)
            sample, batch = self.entropies(z)
            penalty = config.sample_weight * sample - config.batch_weight * batch
            losses["entropy"] = weight.to(z.dtype) * penalty
        if config.commitment_weight:
            losses["commitment"] = config.commitment_weight * F.mse_loss(z, codes)
        return losses


def _joint(logits: Float[Tensor, "n bits"]) -> Float[Tensor, "n codes"]:
    """Probability of every combination of some independent bits."""
    bits = logits.shape[1]
    codes = torch.arange(2**bits, device=logits.device)[:, None]
    ones = (codes >> torch.arange(bits, device=logits.device)) & 1
    # log p(1) = logit + log p(0)
    return (logits @ ones.to(logits.dtype).T + F.logsigmoid(-logits).sum(1, keepdim=True)).exp()
