"""Where normal ends, and how the doctor judges."""

from dataclasses import dataclass, field

from training.errors import BadInput
from training.ranges import at_least


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


@dataclass(frozen=True)
class DoctorConfig:
    """How a tokenizer in training is watched.

    Attributes:
        window: optimizer steps per judgement; an even number.
        grace_steps: steps after the start or a treatment before codes and reconstructions are
            judged. The GAN is judged after one window, the range of the frames at once.
        treatments: how many times the run may roll back to the last good checkpoint and change
            something; 0 warns only.
        delay_steps: steps by which a treatment delays the GAN.
        limits: where normal ends.
    """

    window: int = 200
    grace_steps: int = 400
    treatments: int = 0
    delay_steps: int = 1000
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.window < 2 or self.window % 2:
            raise BadInput(f"callbacks.doctor.window={self.window}: give an even number of steps")
        for name in ("grace_steps", "treatments", "delay_steps"):
            at_least(0, "callbacks.doctor.", **{name: getattr(self, name)})
