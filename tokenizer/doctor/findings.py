"""Findings: faults of a tokenizer in training, from its figures, with advice."""

import math
from dataclasses import dataclass

from tokenizer.doctor.config import Limits
from tokenizer.doctor.vitals import Figures

RANGE_SLACK = 0.01  # augmentation and interpolation overshoot


@dataclass(frozen=True)
class SettingsInForce:
    """Current settings that the advice needs, by their names on the command line.

    Attributes:
        fsq: whether the quantizer already has no codebook that could die.
    """

    gan_weight: float
    gan_start: int
    lr: float
    step: int
    delay_steps: int
    fsq: bool


@dataclass(frozen=True)
class Finding:
    """A fault that does not heal by itself.

    Attributes:
        name: dead_codes, few_codes, flat_output, wild_output, gan_dominates, critic_wins or
            input_range.
        figure, limit: measured value and its limit.
        says: one sentence.
        advice: overrides for the command line; for `input_range` the change in the data.
        treatments: names of the treatments to try, in order (`tokenizer.doctor.treatment`).
    """

    name: str
    figure: float
    limit: float
    says: str
    advice: str
    treatments: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}: {self.says} ({self.figure:.3g}, limit {self.limit:g}); {self.advice}"


def range_finding(figures: Figures) -> Finding | None:
    """Frames outside [-1, 1]; one batch is enough."""
    low, high = figures.low, figures.high
    remedy = "give frames in [-1, 1], as Clip.pixels() makes them of uint8"
    if max(-low, high) > 1 + RANGE_SLACK:
        says, figure, limit = f"frames reach from {low:.3g} to {high:.3g}", max(-low, high), 1.0
    elif high - low < 0.05:
        says, limit = f"frames only reach from {low:.3g} to {high:.3g}: scaled twice?", 0.05
        figure = high - low
    elif low > -RANGE_SLACK:
        says, figure, limit = f"no pixel is below {low:.3g}: frames in [0, 1]?", low, -RANGE_SLACK
    else:
        return None
    return Finding("input_range", figure, limit, says, remedy)


def gan_findings(figures: Figures, limits: Limits, now: SettingsInForce) -> list[Finding]:
    """Faults of the GAN; NaN figures (no GAN yet) give no finding."""
    found = []
    if figures.gan_ratio > limits.max_gan_ratio:
        found.append(
            Finding(
                "gan_dominates",
                figures.gan_ratio,
                limits.max_gan_ratio,
                "the GAN's gradient drowns that of the reconstruction",
                f"model.loss.gan_weight={weaker(figures, limits, now):.3g} "
                f"model.loss.gan_start={now.step + now.delay_steps}",
                ("weaken_gan",),
            )
        )
    if figures.logit_gap > limits.max_logit_gap:
        found.append(
            Finding(
                "critic_wins",
                figures.logit_gap,
                limits.max_logit_gap,
                "the discriminator tells every reconstruction, and teaches nothing more",
                f"model.loss.gan_weight={weaker(figures, limits, now):.3g} "
                f"model.loss.gan_start={now.step + now.delay_steps}",
                ("weaken_gan",),
            )
        )
    return found


def output_findings(figures: Figures, limits: Limits, now: SettingsInForce) -> list[Finding]:
    """Faults of codes and reconstructions; meaningful only after the grace steps."""
    found = []
    slower = f"optimizer.lr={now.lr / 2:g}"
    codes = ("restart_codes", "lower_rate")
    for name, figure, limit, says in (
        ("dead_codes", figures.usage, limits.min_usage, "most codes are never chosen"),
        ("few_codes", figures.perplexity, limits.min_perplexity, "few codes make up all tokens"),
    ):
        if figure < limit:
            advice = slower if now.fsq else f"{slower}, or quantizer=fsq"
            found.append(Finding(name, figure, limit, says, advice, codes))
    gan = not math.isnan(figures.gan_ratio)
    advice = f"model.loss.gan_start={now.step + now.delay_steps}" if gan else slower
    tried = ("weaken_gan", "lower_rate") if gan else ("lower_rate",)
    if figures.variance < limits.min_variance:
        says = "reconstructions are nearly of one colour"
        found.append(
            Finding("flat_output", figures.variance, limits.min_variance, says, advice, tried)
        )
    if figures.variance > limits.max_variance:
        says = "reconstructions vary far more than the frames"
        found.append(
            Finding("wild_output", figures.variance, limits.max_variance, says, advice, tried)
        )
    return found


def weaker(figures: Figures, limits: Limits, now: SettingsInForce) -> float:
    """A GAN weight that gives a tenth of the gradient limit, at most half the current weight."""
    ratio = figures.gan_ratio if figures.gan_ratio > 0 else 0.0
    return now.gan_weight * min(0.5, 0.1 * limits.max_gan_ratio / max(ratio, 1e-12))
