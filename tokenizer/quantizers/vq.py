"""Vector quantization: a learned table of codes (van den Oord et al. 2017, arXiv 1711.00937)."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import functional as F

from tokenizer.quantizers.base import Quantized, Quantizer, at_least_float32
from tokenizer.quantizers.codebook import (
    choose,
    from_rank_zero,
    gathered,
    kmeans,
    nearest,
    normalized,
    several_processes,
    summed,
    sums_by_code,
)
from tokenizer.quantizers.config import VQConfig


class VQ(Quantizer):
    """Replaces every latent by the nearest code, with a straight-through gradient.

    With l2-normalised codes the running means follow BEiT-v2 (Peng et al. 2022, arXiv
    2208.06366): a code moves towards the direction of its latents' mean. Else they follow the
    paper (appendix A.1): the ratio of two running sums, kept as the code and its count. Counts
    and sums are over all processes; all state is in buffers. No code becomes NaN or infinite,
    whatever a batch holds.

    Attributes:
        codebook: [vocab_size code_dim]; a buffer ("ema") or a parameter ("gradient").
        cluster_size: running count of latents per code and batch.
        num_batches: training batches so far.
    """

    codebook: Tensor
    cluster_size: Tensor
    num_batches: Tensor

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        self.config = config
        self.vocab_size, self.dim = config.vocab_size, config.dim
        projected = config.code_dim != config.dim
        self.project_in = nn.Linear(config.dim, config.code_dim) if projected else nn.Identity()
        self.project_out = nn.Linear(config.code_dim, config.dim) if projected else nn.Identity()
        table = torch.empty(config.vocab_size, config.code_dim)
        if config.normalize:
            table = normalized(table.normal_())
        else:
            table.uniform_(-1 / config.vocab_size, 1 / config.vocab_size)
        if config.learn == "ema":
            self.register_buffer("codebook", table)
        else:
            self.codebook = nn.Parameter(table)
        self.register_buffer("cluster_size", torch.zeros(config.vocab_size))
        self.register_buffer("num_batches", torch.zeros((), dtype=torch.int64))
        self._num_batches: int | None = None  # copy on the host, to avoid a device wait

    @property
    def table(self) -> Float[Tensor, "v d"]:
        """The codes for lookup; averages of unit vectors are normalised again."""
        return normalized(self.codebook) if self.config.normalize else self.codebook

    @property
    def writes_parameters(self) -> bool:
        config = self.config
        return config.learn == "gradient" and bool(config.kmeans_batches or config.dead_below)

    def forward(self, z: Float[Tensor, "... dim"]) -> Quantized:
        with torch.autocast(z.device.type, enabled=False):
            latents = self._latents(z)
            flat = latents.detach().flatten(0, -2)
            if self.learning:
                self._place(flat)
            indices = self._choose(flat)
            codes = F.embedding(indices.view(z.shape[:-1]), self.table)
            losses = self._losses(latents, codes)
            through = latents + (codes - latents).detach()
            if self.learning:
                self._learn(flat, indices)
            return Quantized(self.project_out(through), indices.view(z.shape[:-1]), losses)

    def encode(self, z: Float[Tensor, "... dim"]) -> Int[Tensor, "..."]:
        with torch.autocast(z.device.type, enabled=False):
            flat = self._latents(z).flatten(0, -2)
            return self._choose(flat).view(z.shape[:-1])

    def decode(self, indices: Int[Tensor, "..."]) -> Float[Tensor, "... dim"]:
        return self.project_out(F.embedding(indices, self.table))

    @torch.no_grad()
    def restart(self, dead: Bool[Tensor, " code"], z: Float[Tensor, "n dim"]) -> bool:
        latents = self._latents(z)
        self._put(choose(latents, self.vocab_size), dead, latents)
        return True

    def _choose(self, flat: Float[Tensor, "n d"]) -> Int[Tensor, "n"]:
        return nearest(flat, self.table.detach(), dot=self.config.similarity == "dot")

    def _latents(self, z: Float[Tensor, "... dim"]) -> Float[Tensor, "... d"]:
        latents = self.project_in(at_least_float32(z))
        return normalized(latents) if self.config.normalize else latents

    def _losses(
        self, latents: Float[Tensor, "... d"], codes: Float[Tensor, "... d"]
    ) -> dict[str, Tensor]:
        losses, config = {}, self.config
        if config.commitment_weight:
            commitment = F.mse_loss(latents, codes.detach())
            losses["commitment"] = config.commitment_weight * commitment
        if config.learn == "gradient" and config.codebook_weight:
            losses["codebook"] = config.codebook_weight * F.mse_loss(codes, latents.detach())
        return losses

    @torch.no_grad()
    def _place(self, flat: Float[Tensor, "n d"]) -> None:
        """Before the lookup: k-means on the first batches, then dead-code revival.

        Separate from `_learn`, because autograd needs the looked-up codes unchanged.
        """
        config, dead = self.config, self._dead(flat)
        if self._batches_so_far() < config.kmeans_batches:
            samples = gathered(flat)
            first = self._batches_so_far() == 0
            start = from_rank_zero(choose(samples, self.vocab_size)) if first else self.table
            means, _ = kmeans(samples, start, config.kmeans_steps, config.normalize)
            means = from_rank_zero(means)
            self._put(means, torch.ones_like(dead), flat)
        elif config.dead_below:
            self._put(from_rank_zero(choose(flat, self.vocab_size)), dead, flat)

    def _dead(self, flat: Float[Tensor, "n d"]) -> Tensor:
        return self.cluster_size < self.config.dead_below * self._mean_count(flat)

    def _put(self, codes: Float[Tensor, "v d"], where: Tensor, flat: Float[Tensor, "n d"]) -> None:
        """Replace some codes; each gets the mean count, so it is not dead at once."""
        where = where & codes.isfinite().all(-1)
        self.codebook.copy_(torch.where(where[:, None], codes, self.codebook))
        self.cluster_size.masked_fill_(where, self._mean_count(flat))

    def _mean_count(self, flat: Float[Tensor, "n d"]) -> float:
        world = torch.distributed.get_world_size() if several_processes() else 1
        return world * len(flat) / self.vocab_size

    @torch.no_grad()
    def _learn(self, flat: Float[Tensor, "n d"], indices: Int[Tensor, "n"]) -> None:
        """Update running counts and, with "ema", running means of each code's latents."""
        sums, counts = sums_by_code(flat, indices, self.vocab_size)
        summed(sums, counts)
        decay, finite = self.config.decay, sums.isfinite().all()
        total = decay * self.cluster_size + (1 - decay) * counts
        if self.config.learn == "ema":
            used, old = (counts > 0)[:, None], self.table
            if self.config.normalize:
                mean = normalized(sums / counts.clamp(min=1)[:, None])
                new = normalized(torch.lerp(mean, old, decay))
            else:
                kept = (decay * self.cluster_size)[:, None] * old
                new = (kept + (1 - decay) * sums) / total.clamp(min=1e-30)[:, None]
            self.codebook.copy_(torch.where(used & finite, new, self.codebook))
        self.cluster_size.copy_(torch.where(finite, total, self.cluster_size))
        self._num_batches = self._batches_so_far() + 1
        self.num_batches += 1

    def _batches_so_far(self) -> int:
        if self._num_batches is None:
            # The planner looks at the end of a run; its tensors have no values.
            fake = isinstance(self.num_batches, FakeTensor)
            self._num_batches = self.config.kmeans_batches if fake else int(self.num_batches)
        return self._num_batches

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._num_batches = None
