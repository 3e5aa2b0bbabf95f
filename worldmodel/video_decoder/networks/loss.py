"""Errors of the frames that are asked for, and their weights."""

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from tokenizer.losses.lpips import PerceptualDistance


@dataclass(frozen=True)
class DecoderLoss:
    """Weights of the loss; see `VideoDecoderModuleConfig`."""

    l1_weight: float = 0.1
    l2_weight: float = 1.0
    perceptual_weight: float = 0.0
    change_weight: float = 0.0
    perceptual: PerceptualDistance | None = None

    def errors(
        self,
        pred: Float[Tensor, "b t 3 h w"],
        target: Float[Tensor, "b t 3 h w"],
        asked: Bool[Tensor, "b t"],
    ) -> dict[str, Tensor]:
        """Mean absolute and squared error of the frames that are asked for."""
        error = pred.float() - target
        each = {"l1": error.abs().mean((2, 3, 4)), "l2": error.square().mean((2, 3, 4))}
        return {name: mean_of(values, asked) for name, values in each.items()}


def mean_of(values: Float[Tensor, "b t"], asked: Bool[Tensor, "b t"]) -> Float[Tensor, ""]:
    """Mean of what is asked for; 0 where nothing is."""
    return (values * asked).sum() / asked.sum().clamp(min=1)
