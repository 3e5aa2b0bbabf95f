"""A network that reads the reward of a frame from its tokens, and its training.

Some rewards need several frames: of one, a speed is not seen. A head then reads a stack: a frame
after those before it.
"""

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
from training.optimization.one_cycle import one_cycle
from worldmodel.dynamics.factors import Factors

MIN_FRAMES = 50
MOST_FRAMES = 8192
BATCH, LR = 256, 1e-3
CONVOLUTIONS = (64, 64, 32)  # of a head that sees motion
HELD_OUT, CHECK_EVERY = 0.1, 20  # share of the frames, and steps, that choose when to stop


class FactorVectors(nn.Module):
    """A vector per token: the sum of those of its factors, for codes that share one look alike."""

    def __init__(self, spec: TokenSpec, channels: int) -> None:
        super().__init__()
        self.factors = Factors(spec.factors, spec.vocab_size)
        self.tables = nn.ModuleList(nn.Embedding(size, channels) for size in self.factors.sizes)
        self.embedding_dim = channels

    def forward(self, tokens: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape channel"]:
        parts = zip(self.tables, self.factors.split(tokens).unbind(-1), strict=True)
        return torch.stack([table(digit) for table, digit in parts]).sum(0)


class RewardHead(nn.Module):
    """An MLP over the vectors of all tokens of a stack; (256, 256) in Video Occupancy Models.

    Args:
        stack: frames that the reward is read from, the rewarded one last.
        codebook: fixed vectors of the tokens; None: learned ones, 16 channels wide.
        hidden: widths of the hidden layers.
        convolutions: channels of 3 x 3 convolutions before them, the last one with stride 2, over
            the frames of a stack as channels: motion looks alike everywhere. (): as published.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        spec: TokenSpec,
        stack: int = 1,
        codebook: Float[Tensor, "vocab channel"] | None = None,
        hidden: Sequence[int] = (256, 256),
        convolutions: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.embed: nn.Module
        if codebook is not None:
            self.embed, channels = nn.Embedding.from_pretrained(codebook), codebook.shape[1]
        elif convolutions:
            self.embed, channels = FactorVectors(spec, 16), 16
        else:
            self.embed, channels = nn.Embedding(spec.vocab_size, 16), 16
        self.stack, self.grids = stack, stack * spec.grid[0]
        (height, width), channels = spec.grid[1:], channels * self.grids
        sees: list[nn.Module] = []
        for number, wide in enumerate(convolutions, 1):
            stride = 2 if number == len(convolutions) else 1
            sees += [nn.Conv2d(channels, wide, 3, stride, 1), nn.ReLU()]
            height, width, channels = -(-height // stride), -(-width // stride), wide
        self.convolutions = nn.Sequential(*sees)
        widths = (channels * height * width, *hidden)
        layers: list[nn.Module] = []
        for wide, narrow in pairwise(widths):
            layers += [nn.Linear(wide, narrow), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], 1))
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.ones(()))

    def forward(
        self, tokens: Int[Tensor, "*clip time height width"]
    ) -> Float[Tensor, "*clip step"]:
        """The rewards of the steps that led to the frames, but to the first stack - 1."""
        stacks = tokens.unfold(-3, self.stack, 1).movedim(-1, -3)
        grids = self.embed(stacks.flatten(-3, -2).unflatten(-2, (self.grids, -1)))
        seen = grids.movedim(-1, -3).flatten(-4, -3)  # every grid with its channels first
        flat = self.convolutions(seen.flatten(0, -4)).flatten(1)
        out: Tensor = self.layers(flat)[..., 0] * self.std + self.mean
        return out.view(seen.shape[:-3])

    def loss(
        self, stacks: Int[Tensor, "row stack height width"], rewards: Float[Tensor, " row"]
    ) -> Float[Tensor, ""]:
        """Mean squared error."""
        return F.mse_loss(self(stacks)[:, 0], rewards)


def rewarded(
    drives: Sequence[TokenDrive],
    column: int,
    grid: tuple[int, int],
    stack: int = 1,
    span: int = 1,
    every: int | None = None,
) -> tuple[Int[Tensor, "row stack height width"], Float[Tensor, " row"]]:
    """Stacks of whole drives, evenly spread, and the rewards of the steps that led to them.

    Args:
        column: of the store's columns.
        grid: rows and columns of tokens of a time step.
        stack: frames that end with the rewarded one; drives that are shorter give none.
        span: the mean of as many rewards around each is taken: less noise, and nearly the same
            sums (CarRacing rewards every tile of a road, which no frame shows).
        every: steps from a stack to the next; None: as give about `MOST_FRAMES` in all.
    """
    whole = [d for d in drives if not d.damage and d.num_steps > max(1, stack - 1)]
    if every is None:
        every = max(1, sum(drive.num_steps for drive in whole) // MOST_FRAMES)
    stacks, rewards = [np.empty((0, stack, *grid), np.int64)], [np.empty(0, np.float32)]
    for drive in whole:
        newest = np.arange(max(1, stack - 1), drive.num_steps, every)
        tokens = np.asarray(drive.tokens, np.int64).reshape(-1, *grid)
        stacks.append(tokens[newest[:, None] + np.arange(1 - stack, 1)])
        rewards.append(_smoothed(drive.columns[:-1, column], span)[newest - 1])
    found = np.concatenate(rewards).astype(np.float32)
    return torch.from_numpy(np.concatenate(stacks)), torch.from_numpy(found)


def _smoothed(values: Float[np.ndarray, " step"], span: int) -> Float[np.ndarray, " step"]:
    """The mean of `span` values around each, of fewer at the ends."""
    if span == 1:
        return values
    ones = np.ones(span)
    count = np.convolve(np.ones(len(values)), ones, "same")
    return np.asarray(np.convolve(values, ones, "same")[: len(values)] / count[: len(values)])


def fit_rewards(
    stacks: Int[Tensor, "row stack height width"],
    rewards: Float[Tensor, " row"],
    spec: TokenSpec,
    steps: int,
    seed: int = 0,
    convolutions: Sequence[int] = (),
) -> RewardHead:
    """Train a reward head on stacks and the rewards that led to them; deterministic.

    The last frames are held out, and the step that reads them best is kept: rewards that a frame
    does not show (a speed, a count) are learned by heart otherwise, and the mean is better.

    Args:
        convolutions: of the head.

    Raises:
        BadInput: too few frames, or rewards that never change.
    """
    if len(stacks) < MIN_FRAMES or not rewards.std() > 0:
        raise BadInput(
            f"rewards of {len(stacks)} train frames with deviation {rewards.std():.3g}: nothing "
            f"can be learned from them; give {MIN_FRAMES} frames or more and rewards that change"
        )
    count = round(len(stacks) * (1 - HELD_OUT))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = RewardHead(spec, stacks.shape[1], convolutions=convolutions).to(stacks.device)
        head.mean, head.std = rewards.mean(), rewards.std()
        for parameter in head.layers[-1].parameters():
            nn.init.zeros_(parameter)  # it starts as the mean
        rate = 2 * LR if convolutions else LR
        best, kept = float("inf"), head.state_dict()

        def loss_of(rows: Int[Tensor, " row"]) -> Float[Tensor, ""]:
            return head.loss(stacks[rows], rewards[rows])

        for step in one_cycle(head.parameters(), loss_of, count, BATCH, rate, steps):
            if step % CHECK_EVERY == 0 or step == steps:
                with torch.no_grad():
                    error = float(head.loss(stacks[count:], rewards[count:]))
                if error < best:
                    best, kept = error, copy.deepcopy(head.state_dict())
    head.load_state_dict(kept)
    return head.eval().requires_grad_(False)
