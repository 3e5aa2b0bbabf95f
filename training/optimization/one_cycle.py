"""The loop that fits a small network: AdamW, one cycle of its rate, batches drawn from all rows."""

from collections.abc import Callable, Iterable, Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


def one_cycle(
    parameters: Iterable[nn.Parameter],
    loss_of: Callable[[Int[Tensor, " row"]], Float[Tensor, ""]],
    num_rows: int,
    batch_size: int,
    rate: float,
    steps: int,
    weight_decay: float = 0.01,
) -> Iterator[int]:
    """The number of steps taken, from 0 to `steps`; torch's global generator draws the rows.

    Args:
        loss_of: the loss of some rows.
        rate: the highest.
    """
    held = list(parameters)
    optimizer = torch.optim.AdamW(held, rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    yield 0
    for step in range(1, steps + 1):
        rows = torch.randint(num_rows, (batch_size,)).to(held[0].device)
        optimizer.zero_grad()
        loss_of(rows).backward()
        optimizer.step()
        schedule.step()
        yield step
