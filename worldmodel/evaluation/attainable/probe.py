"""A small network that tells which typical action led to a frame, with or without that frame.

It sees frames as token grids, and each frame's tokens beside those of the frame before, shifted by
up to half of `look_back` cells (a cost volume, as networks of optical flow have; Dosovitskiy et al.
2015, arXiv 1504.06852, section 3.1). It starts at how often each action of the train drives follows
the one before, and learns what the frames and rows add to that.
"""

import copy
import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from drives.tokens.spec import TokenSpec
from training.config import AdamWConfig
from training.optimization.optimizers import build_optimizer
from worldmodel.dynamics.shared_factors import share_factors
from worldmodel.evaluation.attainable.config import ProbeConfig
from worldmodel.evaluation.attainable.mixture import Centres
from worldmodel.evaluation.attainable.windows import PAST_ROWS, Asked, HorizonWindows

MAX_NORM = 1.0
CLOSE = (4, 8)  # rows and columns of what a probe keeps of a grid, at most
FAR = 5.0  # deviations; rows beyond are read as that far


def around(height: int, width: int, side: int) -> Int[Tensor, "cell neighbour"]:
    """The cells around each cell of a grid, `side` in both directions; H x W beyond its edges."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    shifts = torch.arange(side) - side // 2
    near_rows = rows.flatten()[:, None, None] + shifts[:, None]
    near_columns = columns.flatten()[:, None, None] + shifts
    inside = (near_rows >= 0) & (near_rows < height) & (near_columns >= 0) & (near_columns < width)
    places = torch.where(inside, near_rows * width + near_columns, height * width)
    return places.flatten(1)


class RowProbe(nn.Module):
    """Logits of the typical actions that may have led to the last frame of a window.

    Args:
        sees_last: whether it sees that frame. All else is equal, the initial weights too.
    """

    around: Tensor

    def __init__(
        self, spec: TokenSpec, centres: Centres, config: ProbeConfig, sees_last: bool
    ) -> None:
        super().__init__()
        self.sees_last, self.dim, self.centres = sees_last, config.dim, centres
        dim, wide = config.dim, 2 * config.dim
        self.embed = nn.Embedding(spec.vocab_size, dim)
        share_factors(self.embed, spec, wanted=None)
        for table in self.embed.parameters():
            nn.init.normal_(table, std=1 / math.sqrt(1 + len(spec.factors)))
        channels = config.context * dim + (config.context - 1) * config.look_back**2
        height, width = spec.grid[0] * spec.grid[1], spec.grid[2]
        self.register_buffer("around", around(height, width, config.look_back))
        close = (min(height, CLOSE[0]), min(width, CLOSE[1]))
        self.frames = nn.Sequential(
            nn.Conv2d(channels, wide, 1),
            nn.GELU(),
            nn.Conv2d(wide, wide, 3, padding=1),
            nn.GELU(),
            nn.AdaptiveAvgPool2d(close),
            nn.Flatten(),
            nn.Dropout(config.dropout),
            nn.Linear(wide * close[0] * close[1], wide),
        )
        self.rows = nn.Linear(PAST_ROWS * centres.rows.shape[1], wide)
        self.head = nn.Linear(wide, len(centres.rows))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, asked: Asked, usual: Float[Tensor, "window centre"]) -> Tensor:
        """Logits [window centre].

        Args:
            usual: log of how often each typical action follows the rows before.
        """
        cells = self.embed(asked.tokens).flatten(2, 3)
        if not self.sees_last:
            cells = torch.cat([cells[:, :-1], torch.zeros_like(cells[:, -1:])], dim=1)
        likeness = cells[:, :-1] @ cells[:, 1:].transpose(2, 3) / math.sqrt(self.dim)
        likeness = F.pad(likeness, (0, 1))  # 0 beside a cell beyond the grid
        places = self.around.expand(*likeness.shape[:2], -1, -1)
        read = torch.cat(
            [cells.transpose(2, 3).flatten(1, 2), likeness.gather(3, places).mT.flatten(1, 2)], 1
        ).unflatten(2, asked.tokens.shape[2:])
        hidden = self.frames(read)
        rows = self.rows(asked.past.clamp(-FAR, FAR).flatten(1))
        logits: Tensor = usual + self.head(F.gelu(hidden + rows))
        return logits


def train_probe(
    train: HorizonWindows,
    select: tuple[HorizonWindows, list[int]],
    spec: TokenSpec,
    centres: Centres,
    config: ProbeConfig,
    seed: int,
    sees_last: bool,
    device: str,
    on_step: Callable[[], object] = lambda: None,
) -> RowProbe:
    """Train a probe, and give it back in its best state on other held-out windows.

    Both of a pair have the same initial weights and read the same windows in one order.

    Args:
        select: windows on which the best state is chosen; that of the start may be the best.
        on_step: called after every step.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        probe = RowProbe(spec, centres, config, sees_last).to(device)
        settings = AdamWConfig(
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            warmup_steps=20,
            min_lr_ratio=0.0,
        )
        optimizer, schedule = build_optimizer(probe, settings, config.steps)
        rng = np.random.default_rng(seed)
        every = max(1, config.steps // config.checks)
        kept = copy.deepcopy(probe.state_dict())
        best = bits_of(probe, *select, device).mean()
        for step in range(1, config.steps + 1):
            probe.train()
            ids = rng.integers(0, len(train), config.batch_size).tolist()
            loss = _nats(probe, train.batch(ids), device).mean()
            optimizer.zero_grad()
            loss.backward()
            clip_grad_norm_(probe.parameters(), MAX_NORM)
            optimizer.step()
            schedule.step()
            on_step()
            if step % every == 0 or step == config.steps:
                bits = bits_of(probe, *select, device).mean()
                if bits < best:
                    best, kept = bits, copy.deepcopy(probe.state_dict())
    probe.load_state_dict(kept)
    return probe.eval()


@torch.no_grad()
def bits_of(
    probe: RowProbe, windows: HorizonWindows, ids: list[int], device: str
) -> Float[np.ndarray, " window"]:
    """Bits of the row that led to the last frame of every window, at the centres' resolution."""
    probe.eval()
    found = [_nats(probe, asked, device).double().cpu() for asked in windows.batches(ids)]
    return torch.cat(found).numpy() / math.log(2)


def _nats(probe: RowProbe, asked: Asked, device: str) -> Float[Tensor, " window"]:
    centres = probe.centres
    usual = centres.moves.log().float()[centres.nearest(asked.before)]
    target = centres.nearest(asked.row)
    logits = probe(asked.to(device), usual.to(device))
    return F.cross_entropy(logits, target.to(device), reduction="none")
