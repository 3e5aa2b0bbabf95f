"""Settings of the doctor; imports no torch."""

from dataclasses import dataclass, field

from training.errors import BadInput
from training.ranges import at_least


@dataclass(frozen=True)
class Limits:
    """Limits of healthy training; the shipped recipes stay well inside.

    Attributes:
        min_usage, min_perplexity: shares as in `Figures`; below, the codebook has collapsed.
        min_variance, max_variance: limits for the variance of the reconstruction; below, it is a
            solid colour.
        max_gan_ratio: limit for the GAN's gradient divided by the gradient of the other losses;
            with the adaptive weight, this ratio is `gan_weight` (VQGAN: 0.8 at most).
        max_logit_gap: limit for the gap between real and fake logits. The hinge loss is minimal
            from 2 on; far above, the discriminator has won.
    """

    min_usage: float = 0.1
    min_perplexity: float = 0.01
    min_variance: float = 0.1
    max_variance: float = 4.0
    max_gan_ratio: float = 2.0
    max_logit_gap: float = 10.0

    def __post_init__(self) -> None:
        at_least(0.0, "callbacks.doctor.limits.", **vars(self))


@dataclass(frozen=True)
class DoctorConfig:
    """Settings of the doctor, which watches a tokenizer in training.

    Attributes:
        window: optimizer steps per judgement; an even number.
        grace_steps: steps after the start or a treatment without judgement of codes and
            reconstructions. The GAN is judged after one window, the range of the frames at once.
        treatments: number of times that the run may roll back to the last good checkpoint and
            change a setting; 0: only warn.
        delay_steps: steps by which a treatment delays the GAN.
        limits: limits of healthy training.
    """

    window: int = 200
    grace_steps: int = 400
    treatments: int = 0
    delay_steps: int = 1000
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.window < 2 or self.window % 2:
            raise BadInput(f"callbacks.doctor.window={self.window}: give an even number of steps")
        at_least(0, "callbacks.doctor.", grace_steps=self.grace_steps, treatments=self.treatments)
        at_least(0, "callbacks.doctor.", delay_steps=self.delay_steps)
