"""Settings that every training run has; imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass

from training.errors import BadInput
from training.ranges import at_least, one_of, positive, share

SCHEDULES = ("cosine", "wsd", "constant")


@dataclass(frozen=True)
class AdamWConfig:
    """AdamW (Loshchilov and Hutter 2019) with warm-up and a schedule.

    Attributes:
        lr: peak learning rate.
        schedule: "cosine" (to `min_lr_ratio`), "wsd" (warm-up, stable, linear decay over the
            last `decay_share` of the steps; Hu et al. 2024, arXiv 2404.06395), or "constant".
        warmup_steps: steps of linear warm-up, at most half of the run.
        clip_norm: global gradient norm above which gradients are scaled down; 0 is off.
    """

    lr: float = 3e-4
    betas: Sequence[float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    schedule: str = "cosine"
    warmup_steps: int = 100
    min_lr_ratio: float = 0.1
    decay_share: float = 0.2

    def __post_init__(self) -> None:
        one_of(SCHEDULES, "optimizer.", schedule=self.schedule)
        positive("optimizer.", lr=self.lr, eps=self.eps)
        if self.lr >= 10:
            raise BadInput(f"optimizer.lr={self.lr}: give a smaller rate, such as 3e-4")
        at_least(0.0, "optimizer.", weight_decay=self.weight_decay, clip_norm=self.clip_norm)
        at_least(0, "optimizer.", warmup_steps=self.warmup_steps)
        share("optimizer.", min_lr_ratio=self.min_lr_ratio, decay_share=self.decay_share)
        if len(self.betas) != 2:
            raise BadInput(f"optimizer.betas={list(self.betas)}: give two, such as [0.9, 0.95]")
        for beta in self.betas:
            share("optimizer.", betas=beta)
            if beta == 1:
                raise BadInput("optimizer.betas=1: an average that never moves; give less than 1")
