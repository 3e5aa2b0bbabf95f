"""PatchGAN discriminator (Isola et al. 2017, arXiv 1611.07004): real or fake, patch by patch."""

from jaxtyping import Float
from torch import Tensor, nn

from training.errors import BadInput


class PatchDiscriminator(nn.Module):
    """Strided 4x4 convolutions with norms; one logit per receptive field.

    Args:
        channels: width of the first layer (doubled per layer, at most eightfold).
        num_layers: layers with stride 2; each doubles the receptive field.
        norm: "batch", as in the paper, or "group" (32 groups at most).
        in_channels: 3 for each frame that it sees at once.
    """

    def __init__(
        self, channels: int = 64, num_layers: int = 3, norm: str = "batch", in_channels: int = 3
    ) -> None:
        super().__init__()
        if norm not in ("batch", "group"):
            raise BadInput(f"discriminator_norm={norm!r}; choose batch or group")
        layers: list[nn.Module] = [nn.Conv2d(in_channels, channels, 4, 2, 1), nn.LeakyReLU(0.2)]
        width = channels
        for layer in range(1, num_layers + 1):
            out = channels * min(2**layer, 8)
            stride = 2 if layer < num_layers else 1
            layers += [
                nn.Conv2d(width, out, 4, stride, 1, bias=False),
                nn.BatchNorm2d(out) if norm == "batch" else nn.GroupNorm(min(32, out // 4), out),
                nn.LeakyReLU(0.2),
            ]
            width = out
        self.main = nn.Sequential(*layers, nn.Conv2d(width, 1, 4, 1, 1))
        self.init_weights()

    def init_weights(self) -> None:
        """Convolutions N(0, 0.02), norms N(1, 0.02), as in the paper's code."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, 0.02)
            elif isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
                nn.init.normal_(module.weight, 1.0, 0.02)
                nn.init.zeros_(module.bias)

    def forward(self, frames: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 1 ph pw"]:
        return self.main(frames)
