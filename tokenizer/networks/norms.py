"""GroupNorm and SiLU, which stand before every convolution of the convolutional networks."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class NormSilu(nn.GroupNorm):
    """SiLU of a group norm; in place without gradients, because new memory is slow on CPUs."""

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        return F.silu(super().forward(x), inplace=not torch.is_grad_enabled())
