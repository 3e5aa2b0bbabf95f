"""A head that reads few numbers: what other heads read of the frames, and the row of actions."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from training.optimization.one_cycle import one_cycle

HIDDEN, BATCH, RATE = 32, 512, 3e-3


class ComposedHead(nn.Module):
    """A small network on the readings of other heads and on the row that led to the frame.

    The tokens of a frame are many inputs: a head on them learns frames by heart before it hears one
    column that matters, such as the speed on the road.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, num_inputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(num_inputs, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, HIDDEN), nn.Tanh()
        )
        self.out = nn.Linear(HIDDEN, 1)
        self.register_buffer("mean", torch.zeros(num_inputs))
        self.register_buffer("std", torch.ones(num_inputs))

    def forward(self, inputs: Float[Tensor, "frame input"]) -> Float[Tensor, " frame"]:
        """The value of the column after each frame."""
        read: Tensor = self.out(self.layers((inputs - self.mean) / self.std))
        return read[:, 0]


def fit_composed(
    inputs: Float[Tensor, "frame input"], values: Float[Tensor, " frame"], steps: int, seed: int
) -> ComposedHead:
    """Least squares; deterministic."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = ComposedHead(inputs.shape[1]).to(inputs.device)
        head.mean, head.std = inputs.mean(0), inputs.std(0).clamp(min=1e-6)

        def loss_of(rows: Int[Tensor, " row"]) -> Float[Tensor, ""]:
            return F.mse_loss(head(inputs[rows]), values[rows])

        for _ in one_cycle(head.parameters(), loss_of, len(inputs), BATCH, RATE, steps):
            pass
    return head.eval().requires_grad_(False)
