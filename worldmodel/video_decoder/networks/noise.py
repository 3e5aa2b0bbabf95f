"""Noise of clips, each from its own seed."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


class ClipNoise:
    """Random numbers of some clips, each from its own seed; so no batch changes a clip's video.

    They are drawn on the CPU: every device gets the same.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        self.generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        self.device = device
        self.common: Tensor | None = None  # of all frames of a clip, drawn where it is asked for

    def frames(self, steps: int, *shape: int, shared: float = 0.0) -> Float[Tensor, "b t *shape"]:
        """Noise of some frames of each clip; `shared` of its variance is that of the whole clip."""
        if not shared:
            return self.normal(steps, *shape)
        if self.common is None:
            self.common = self.normal(1, *shape)
        return with_shared(self.normal(steps, *shape), self.common, shared)

    def normal(self, *shape: int) -> Float[Tensor, "b *shape"]:
        drawn = [torch.randn(shape, generator=generator) for generator in self.generators]
        return torch.stack(drawn).to(self.device)

    def uniform(self, count: int) -> Float[Tensor, "b count"]:
        drawn = [torch.rand(count, generator=generator) for generator in self.generators]
        return torch.stack(drawn).to(self.device)


def with_shared(
    noise: Float[Tensor, "b t *shape"], common: Float[Tensor, "b 1 *shape"], shared: float
) -> Float[Tensor, "b t *shape"]:
    """Normal noise of which a share of the variance is `common` to all frames."""
    return math.sqrt(1 - shared) * noise + math.sqrt(shared) * common
