"""Settings of the quantizers; no networks."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from training.errors import BadInput
from training.ranges import at_least, below_one, one_of, positive, share, within

WHERE = "model.network.quantizer."


class QuantizerConfig:
    """Base of the quantizers' configs: frozen dataclasses that build theirs."""


@dataclass(frozen=True)
class FSQConfig(QuantizerConfig):
    """Levels per channel; their product is the vocabulary, their number the latent's width."""

    levels: Sequence[int] = (8, 5, 5, 5)


@dataclass(frozen=True)
class VQConfig(QuantizerConfig):
    """A codebook and how it learns.

    Attributes:
        vocab_size: number of codes.
        dim: channels of the latents.
        code_dim: channels of the codes; where it is not `dim`, linear projections lead in and
            out (Yu et al. 2022, arXiv 2110.04627, section 3.2).
        normalize: latents and codes have length 1, so the nearest has the largest cosine.
        similarity: what decides for a code: "distance", the smallest, or "dot", the largest dot
            product (IBQ, Shi et al. 2024, arXiv 2412.02692; its own way of learning is not here).
        learn: "ema" (codes are running means of their latents) or "gradient" (of the
            codebook term).
        decay: of the running means and of the counts, per batch.
        commitment_weight: of |z - sg(code)|^2, which moves the encoder.
        codebook_weight: of |sg(z) - code|^2, which moves the codes; "gradient" only. The
            published taming code has its beta of 0.25 here ("legacy"), the paper at the
            commitment.
        kmeans_batches: first training batches on which k-means places the codes; 0 is off.
        kmeans_steps: its iterations on each.
        dead_below: a code whose running count falls below this share of the mean count is put
            on a random latent of the batch; 0 is off.
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


@dataclass(frozen=True)
class LFQConfig(QuantizerConfig):
    """Number of bits and the terms that keep them in use.

    Attributes:
        bits: channels of the latents; the vocabulary is 2^bits.
        factor_bits: sizes in bits of the factors that a world model may predict one by one,
            lowest bits first; () leaves the vocabulary whole.
        bit_order: "little" (channel 0 is the lowest bit) or "big" (the highest).
        entropy_weight: of the penalty, sample_weight E[H(p)] - batch_weight H(E[p]).
        temperature: of p = softmax(2 z . code / temperature).
        anneal_ratio: the penalty starts (1 + this) times as large, and falls linearly to its
            weight over `anneal_steps` training batches.
        commitment_weight: of |z - sg(sign z)|^2.
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


@dataclass(frozen=True)
class ResidualConfig(QuantizerConfig):
    """Residual quantization (Zeghidour et al. 2021, arXiv 2107.03312, section III-C).

    Attributes:
        quantizer: what quantizes in every stage.
        num_stages: how many there are; their vocabularies multiply.
        scale: stage i works on what is left divided by scale^i. 1 for codebooks, which find
            the size themselves; below 1 for FSQ and LFQ, whose codes have one size.
        commitment_weight: of |z - sg(sum of all codes)|^2, for all stages together.
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


@dataclass(frozen=True)
class ProductConfig(QuantizerConfig):
    """Product quantization (Jegou et al. 2011): groups of channels, each with its own code.

    Attributes:
        quantizer: what quantizes each group.
        num_groups: how many there are; the latents have as many times its channels.
    """

    quantizer: QuantizerConfig = field(default_factory=lambda: VQConfig(32, 8, 8))
    num_groups: int = 2

    def __post_init__(self) -> None:
        at_least(1, WHERE, num_groups=self.num_groups)
