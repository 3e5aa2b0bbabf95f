"""Gates the embedding of a token by the state that predicted it."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class Comparison(nn.Module):
    """SwiGLU (arXiv 2002.05202) with the state as gate and the token as value.

    Agreement of prediction and token is multiplicative; a linear map of both cannot express it.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.state_norm = nn.LayerNorm(dim, bias=False)
        self.token_norm = nn.LayerNorm(dim, bias=False)
        self.gate = nn.Linear(dim, 2 * dim, bias=False)
        self.up = nn.Linear(dim, 2 * dim, bias=False)
        self.out = nn.Linear(2 * dim, dim, bias=False)

    def forward(
        self, states: Float[Tensor, "*shape dim"], tokens: Float[Tensor, "*shape dim"]
    ) -> Float[Tensor, "*shape dim"]:
        gates = F.silu(self.gate(self.state_norm(states)))
        return self.out(gates * self.up(self.token_norm(tokens)))
