"""Convolutions over time that see the present and the past, at once or chunk by chunk."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tokenizer.networks.autoencoder import Layers
from training.optimization.recompute import call


class Past(dict[nn.Module, Tensor]):
    """What causal layers keep of the frames before a chunk; give the same one chunk after chunk.

    Attributes:
        begun: whether a chunk has passed: the first frame of the clip is behind us.
    """

    begun = False


def at_start(past: Past | None) -> bool:
    """Whether the clip begins with this chunk, as a whole clip always does."""
    return past is None or not past.begun


class CausalConv(nn.Conv3d):
    """Convolution over (time, height, width), with zeros around a frame and none of the future.

    Before the first frame stand copies of it, kernel - stride of them (in time).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: tuple[int, int, int] = (1, 1, 1),
        stride: tuple[int, int, int] = (1, 1, 1),
        padding: int = 0,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel, stride, (0, padding, padding))
        self.num_past = kernel[0] - stride[0]

    def forward(self, x: Tensor, past: Past | None = None) -> Tensor:
        return super().forward(self.with_past(x, past) if self.num_past > 0 else x)

    def with_past(
        self, x: Float[Tensor, "b c t h w"], past: Past | None
    ) -> Float[Tensor, "b c t2 h w"]:
        before = None if past is None else past.get(self)
        if before is None:
            before = x[:, :, :1].expand(-1, -1, self.num_past, -1, -1)
        x = torch.cat([before, x], 2)
        if past is not None:
            past[self] = x[:, :, -self.num_past :].clone()  # a view would keep the whole chunk
        return x


class FactorizedConv(nn.Module):
    """A 3x3 convolution of every frame, then one over three time steps."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.space = CausalConv(in_channels, out_channels, (1, 3, 3), padding=1)
        self.time = CausalConv(out_channels, out_channels, (3, 1, 1))

    def forward(
        self, x: Float[Tensor, "b c t h w"], past: Past | None = None
    ) -> Float[Tensor, "b d t h w"]:
        return self.time(self.space(x), past)


class CausalLayers(Layers):
    """Layers in a row that share one past."""

    def forward(self, x: Tensor, past: Past | None = None) -> Tensor:
        for layer in self:
            x = call(layer, x, past, recompute=self.recompute)
        return x
