"""Where normal ends, and how the doctor judges."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Where normal ends. The shipped recipe keeps well inside of all of them.

    Attributes:
        min_usage, min_perplexity: shares as in `Figures`; below, the codebook has collapsed.
        min_variance, max_variance: of the reconstruction; below, it is a solid colour.
        max_gan_ratio: the GAN's gradient over that of the other losses; it is `gan_weight` where
            the adaptive weight is on (VQGAN: 0.8 at most).
        max_logit_gap: the hinge loss has nothing more to win beyond 2; far beyond it, the
            discriminator has won.
    """

    min_usage: float = 0.1
    min_perplexity: float = 0.01
    min_variance: float = 0.1
    max_variance: float = 4.0
    max_gan_ratio: float = 2.0
    max_logit_gap: float = 10.0
