"""Causal convolutions over time, on whole clips or chunk by chunk."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from training.optimization.recompute import Layers, maybe_checkpoint


class PastFrames(dict[nn.Module, Tensor]):
    """Inputs that causal layers keep from the frames before a chunk; pass it to every chunk.

    Attributes:
        begun: whether the first chunk of the clip has passed.
    """

    begun = False


def at_start(past: PastFrames | None) -> bool:
    """Whether the clip begins with this chunk (always for a whole clip)."""
    return past is None or not past.begun


class CausalConv(nn.Conv3d):
    """Convolution over (time, height, width), causal in time, zero-padded in space.

    In time it pads with kernel - stride copies of the first frame.
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

    def forward(self, x: Tensor, past: PastFrames | None = None) -> Tensor:
        return super().forward(self.with_past(x, past) if self.num_past > 0 else x)

    def with_past(
        self, x: Float[Tensor, "b c t h w"], past: PastFrames | None
    ) -> Float[Tensor, "b c t2 h w"]:
        before = None if past is None else past.get(self)
        if before is None:
            before = x[:, :, :1].expand(-1, -1, self.num_past, -1, -1)
        x = torch.cat([before, x], 2)
        if past is not None:
            past[self] = x[:, :, -self.num_past :].clone()  # a view would keep the whole chunk
        return x


class FactorizedConv(nn.Module):
    """A 3x3 convolution of every frame, then one over three frames in time."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.space = CausalConv(in_channels, out_channels, (1, 3, 3), padding=1)
        self.time = CausalConv(out_channels, out_channels, (3, 1, 1))

    def forward(
        self, x: Float[Tensor, "b c t h w"], past: PastFrames | None = None
    ) -> Float[Tensor, "b d t h w"]:
        return self.time(self.space(x), past)


class CausalLayers(Layers):
    """A sequence of layers that share one `PastFrames`."""

    def forward(self, x: Tensor, past: PastFrames | None = None) -> Tensor:
        for layer in self:
            x = maybe_checkpoint(layer, x, past, recompute=self.recompute)
        return x
