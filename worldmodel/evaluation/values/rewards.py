"""A network that reads the reward of a frame from its tokens, and its training."""

import copy
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from drives.tokens.drive import TokenDrive
from drives.tokens.spec import TokenSpec
from training.errors import BadInput

MIN_FRAMES = 50
MOST_FRAMES = 8192
BATCH, LR = 256, 1e-3
HELD_OUT, CHECK_EVERY = 0.1, 20  # share of the frames, and steps, that choose when to stop


class RewardHead(nn.Module):
    """An MLP over the vectors of all tokens of a frame; (256, 256) in Video Occupancy Models.

    Args:
        codebook: fixed vectors of the tokens; None: learned ones, 16 channels wide.
        hidden: widths of the hidden layers.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        spec: TokenSpec,
        codebook: Float[Tensor, "vocab channel"] | None = None,
        hidden: Sequence[int] = (256, 256),
    ) -> None:
        super().__init__()
        if codebook is None:
            self.embed = nn.Embedding(spec.vocab_size, 16)
        else:
            self.embed = nn.Embedding.from_pretrained(codebook)
        self.grids = spec.grid[0]
        widths = (spec.tokens_per_step * self.embed.embedding_dim, *hidden)
        layers: list[nn.Module] = []
        for wide, narrow in pairwise(widths):
            layers += [nn.Linear(wide, narrow), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], 1))
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.ones(()))

    def forward(self, tokens: Int[Tensor, "*frame height width"]) -> Float[Tensor, "*frame"]:
        """The reward of the step that led to each frame."""
        grids = self.embed(tokens.unflatten(-2, (self.grids, -1)))
        flat = grids.movedim(-1, -3).flatten(-4)  # every grid with its channels first
        out: Tensor = self.layers(flat)[..., 0] * self.std + self.mean
        return out

    def loss(
        self, tokens: Int[Tensor, "*frame height width"], rewards: Float[Tensor, "*frame"]
    ) -> Float[Tensor, ""]:
        """Mean squared error."""
        return F.mse_loss(self(tokens), rewards)


def rewarded(
    drives: Sequence[TokenDrive], column: int, grid: tuple[int, int]
) -> tuple[Int[Tensor, "frame height width"], Float[Tensor, " frame"]]:
    """Frames of whole drives, evenly spread, and the rewards of the steps that led to them.

    Args:
        column: of the store's columns.
        grid: rows and columns of tokens of a time step.
    """
    whole = [drive for drive in drives if not drive.damage and drive.num_steps > 1]
    every = max(1, sum(drive.num_steps for drive in whole) // MOST_FRAMES)
    tokens = np.concatenate([np.asarray(drive.tokens[1:][::every], np.int64) for drive in whole])
    rewards = np.concatenate([drive.columns[:-1, column][::every] for drive in whole])
    frames = torch.from_numpy(tokens.reshape(-1, *grid))
    return frames, torch.from_numpy(np.array(rewards, np.float32))


def fit_rewards(
    tokens: Int[Tensor, "frame height width"],
    rewards: Float[Tensor, " frame"],
    spec: TokenSpec,
    steps: int,
    seed: int = 0,
) -> RewardHead:
    """Train a reward head on frames and the rewards that led to them; deterministic.

    The last frames are held out, and the step that reads them best is kept: rewards that a frame
    does not show (a speed, a count) are learned by heart otherwise, and the mean is better.

    Raises:
        BadInput: too few frames, or rewards that never change.
    """
    if len(tokens) < MIN_FRAMES or not rewards.std() > 0:
        raise BadInput(
            f"rewards of {len(tokens)} train frames with deviation {rewards.std():.3g}: nothing "
            f"can be learned from them; give {MIN_FRAMES} frames or more and rewards that change"
        )
    count = round(len(tokens) * (1 - HELD_OUT))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = RewardHead(spec).to(tokens.device)
        head.mean, head.std = rewards.mean(), rewards.std()
        for parameter in head.layers[-1].parameters():
            nn.init.zeros_(parameter)  # it starts as the mean
        optimizer = torch.optim.AdamW(head.parameters(), LR, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=steps)
        best, kept = float("inf"), head.state_dict()
        for step in range(steps + 1):
            if step % CHECK_EVERY == 0 or step == steps:
                with torch.no_grad():
                    error = float(head.loss(tokens[count:], rewards[count:]))
                if error < best:
                    best, kept = error, copy.deepcopy(head.state_dict())
            if step == steps:
                break
            rows = torch.randint(count, (BATCH,)).to(tokens.device)
            optimizer.zero_grad()
            head.loss(tokens[rows], rewards[rows]).backward()
            optimizer.step()
            schedule.step()
    head.load_state_dict(kept)
    return head.eval().requires_grad_(False)
