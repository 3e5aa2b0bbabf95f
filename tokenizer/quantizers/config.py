"""Settings of the quantizers; imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from training.errors import BadInput
from training.ranges import at_least, below_one, one_of, positive, share, within

WHERE = "model.network.quantizer."


class QuantizerConfig:
    """Base of the configs; each frozen dataclass describes one kind of quantizer."""


@dataclass(frozen=True)
class FSQConfig(QuantizerConfig):
    """Finite scalar quantization.

    Attributes:
        levels: number of levels of each channel; their product is the vocabulary size.
    """

    levels: Sequence[int] = (8, 5, 5, 5)

    def __post_init__(self) -> None:
        at_least(1, WHERE, **{"len(levels)": len(self.levels)})
        at_least(2, WHERE, levels=self.levels)


@dataclass(frozen=True)
class VQConfig(QuantizerConfig):
    """Vector quantization with a codebook.

    Attributes:
        vocab_size: number of codes.
        dim: channels of the latents.
        code_dim: channels of the codes; if it differs from `dim`, linear projections convert
            (Yu et al. 2022, arXiv 2110.04627, section 3.2).
        normalize: scale latents and codes to length 1; the nearest code has the largest cosine.
        similarity: rule to choose a code: "distance" (the smallest) or "dot" (the largest dot
            product; IBQ, Shi et al. 2024, arXiv 2412.02692, without its training method).
        learn: "ema" (codes are running means of their latents) or "gradient" (of the
            codebook term).
        decay: decay of running means and counts per batch.
        commitment_weight: weight of |z - sg(code)|^2, which trains the encoder.
        codebook_weight: weight of |sg(z) - code|^2, which trains the codes; for "gradient" only.
            The published taming code has its beta of 0.25 here ("legacy"), the paper at the
            commitment.
        kmeans_batches: number of first training batches that k-means initialises the codes on;
            0: off.
        kmeans_steps: iterations of k-means per batch.
        dead_below: a code moves to a random latent of the batch if its running count falls below
            this share of the mean count; 0: off.
    """

    vocab_size: int = 1024
    dim: int = 32
    code_dim: int = 8
    normalize: bool = True
    similarity: str = "distance"
    learn: str = "ema"
    decay: float = 0.99
    commitment_weight: float = 0.25
    codebook_weight: float = 1.0
    kmeans_batches: int = 4
    kmeans_steps: int = 10
    dead_below: float = 0.05

    def __post_init__(self) -> None:
        one_of(("ema", "gradient"), WHERE, learn=self.learn)
        one_of(("distance", "dot"), WHERE, similarity=self.similarity)
        at_least(2, WHERE, vocab_size=self.vocab_size)
        at_least(1, WHERE, dim=self.dim, code_dim=self.code_dim)
        below_one(WHERE, decay=self.decay, dead_below=self.dead_below)
        at_least(0.0, WHERE, commitment_weight=self.commitment_weight)
        at_least(0.0, WHERE, codebook_weight=self.codebook_weight)
        at_least(0, WHERE, kmeans_batches=self.kmeans_batches, kmeans_steps=self.kmeans_steps)


@dataclass(frozen=True)
class LFQConfig(QuantizerConfig):
    """Lookup-free quantization.

    Attributes:
        bits: channels of the latents; the vocabulary size is 2^bits.
        factor_bits: bits of each factor that a world model may predict one by one, lowest bits
            first; (): no factors.
        bit_order: "little" (channel 0 is the lowest bit) or "big" (channel 0 is the highest).
        entropy_weight: weight of the penalty sample_weight E[H(p)] - batch_weight H(E[p]).
        sample_weight: weight of the entropy of one latent.
        batch_weight: weight of the entropy of the batch.
        temperature: temperature of p = softmax(2 z . code / temperature).
        anneal_ratio: the penalty begins (1 + anneal_ratio) times as large.
        anneal_steps: training batches over which the penalty falls linearly to its weight.
        commitment_weight: weight of |z - sg(sign z)|^2.
    """

    bits: int = 10
    factor_bits: Sequence[int] = ()
    bit_order: str = "little"
    entropy_weight: float = 0.1
    sample_weight: float = 1.0
    batch_weight: float = 1.0
    temperature: float = 0.01
    anneal_ratio: float = 0.0
    anneal_steps: int = 2000
    commitment_weight: float = 0.25

    def __post_init__(self) -> None:
        within(1, 24, WHERE, bits=self.bits)
        at_least(1, WHERE, factor_bits=self.factor_bits)
        if self.factor_bits and sum(self.factor_bits) != self.bits:
            raise BadInput(
                f"{WHERE}factor_bits={list(self.factor_bits)}: must add up to bits={self.bits}"
            )
        one_of(("little", "big"), WHERE, bit_order=self.bit_order)
        positive(WHERE, temperature=self.temperature)
        at_least(1, WHERE, anneal_steps=self.anneal_steps)
        at_least(0.0, WHERE, anneal_ratio=self.anneal_ratio, entropy_weight=self.entropy_weight)
        at_least(0.0, WHERE, sample_weight=self.sample_weight, batch_weight=self.batch_weight)
        at_least(0.0, WHERE, commitment_weight=self.commitment_weight)


@dataclass(frozen=True)
class ResidualConfig(QuantizerConfig):
    """Residual quantization (Zeghidour et al. 2021, arXiv 2107.03312, section III-C).

    Attributes:
        quantizer: quantizer of every stage.
        num_stages: number of stages; their vocabulary sizes multiply.
        scale: stage i quantizes the residual divided by scale^i. Use 1 for codebooks, which learn
            their scale. Use less than 1 for FSQ and LFQ, whose codes have a fixed scale.
        commitment_weight: weight of |z - sg(sum of all codes)|^2, for all stages together.
    """

    quantizer: QuantizerConfig = field(
        default_factory=lambda: VQConfig(32, 16, 16, normalize=False, commitment_weight=0.0)
    )
    num_stages: int = 2
    scale: float = 1.0
    commitment_weight: float = 0.25

    def __post_init__(self) -> None:
        at_least(1, WHERE, num_stages=self.num_stages)
        positive(WHERE, scale=self.scale)
        share(WHERE, scale=self.scale)
        at_least(0.0, WHERE, commitment_weight=self.commitment_weight)


@dataclass(frozen=True)
class ProductConfig(QuantizerConfig):
    """Product quantization (Jegou et al. 2011): groups of channels, each with its own code.

    Attributes:
        quantizer: quantizer of each group.
        num_groups: number of groups; the latents have num_groups times the channels of one.
    """

    quantizer: QuantizerConfig = field(default_factory=lambda: VQConfig(32, 8, 8))
    num_groups: int = 2

    def __post_init__(self) -> None:
        at_least(1, WHERE, num_groups=self.num_groups)
