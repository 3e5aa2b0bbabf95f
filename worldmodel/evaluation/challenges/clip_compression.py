"""The `wm_compression` regime on clips of 1X's version 2.0: 9 frames are given, 8 are predicted.

A clip of 17 frames is three grids of Cosmos DV8x8x8: the first frame, then 8 frames each. A Cosmos
autoregressive model reads two grids as its past and predicts the third, token by token.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from drives.tokens.store import TokenDrive
from training.errors import BadInput
from training.watch.clock import now
from worldmodel.decoding.config import Sampling
from worldmodel.decoding.rollout import rollout
from worldmodel.dynamics.base import Dynamics
from worldmodel.evaluation.challenges.top_tokens import TOP, top_scores
from worldmodel.windows import TokenClip, TokenWindows, Window

GIVEN = 2  # grids
SAMPLING = Sampling(temperature=1.0, top_k=0, top_p=0.8)  # upstream's


class ClipGrids(TokenWindows):
    """Clips of a store whose steps hold several grids; a clip's time steps are the grids."""

    def __init__(self, drives: Sequence[TokenDrive]) -> None:
        super().__init__(drives, 1)

    def __getitem__(self, index: int) -> Window:
        """Tokens [grid height width], and the row of actions of the clip for each grid."""
        tokens, actions = super().__getitem__(index)[:2]
        return tokens[0], actions.repeat(tokens.shape[1], axis=0)


@dataclass(frozen=True)
class ClipScores:
    """Scores of the predicted grids of clips.

    Attributes:
        nats: cross entropy in nats per token, in the network's own regime.
        correct: share of tokens whose most probable value is the real one.
        top_nats: top-500 cross entropy (`top_tokens`).
        listed: share of real tokens among the 500 likeliest.
    """

    nats: Float[np.ndarray, " clip"]
    correct: Float[np.ndarray, " clip"]
    top_nats: Float[np.ndarray, " clip"]
    listed: Float[np.ndarray, " clip"]


def check_clips(network: Dynamics, grid: tuple[int, int, int], where: str) -> None:
    """BadInput unless the network reads the grids of such clips as its time steps."""
    ours, steps = network.spec.grid, network.config.context_steps
    if grid[0] <= GIVEN or ours != (1, *grid[1:]) or steps < grid[0]:
        raise BadInput(
            f"{where}: clips of {grid[0]} grids of {grid[1]}x{grid[2]} tokens need a model of one "
            f"grid of that size per time step that reads {grid[0]} of them; this one has "
            f"{ours[0]}x{ours[1]}x{ours[2]} and reads {steps}"
        )


@torch.no_grad()
def judge_clips(
    network: Dynamics,
    clips: Iterable[TokenClip],
    device: str,
    top: int = TOP,
    given: int = GIVEN,
) -> ClipScores:
    """Scores without samples: cross entropy of each clip's time steps after the given ones."""
    columns: list[list[np.ndarray]] = [[], [], [], []]
    for batch in tqdm(clips, "clips", unit="batch"):
        clip = batch.to(device)
        actions = clip.actions if network.num_actions else None
        scores = network.score(clip.tokens, actions)
        tops = top_scores(network, clip.tokens, actions, given, top)
        values = (scores.nats[:, given:], scores.correct[:, given:], tops.nats, tops.listed)
        for column, value in zip(columns, values, strict=True):
            column.append(value.flatten(1).double().mean(-1).cpu().numpy())
    return ClipScores(*(np.concatenate(column) for column in columns))


@torch.no_grad()
def sample_clips(
    network: Dynamics,
    clips: Iterable[TokenClip],
    device: str,
    frames_per_grid: int,
    sampling: Sampling = SAMPLING,
) -> tuple[Int[Tensor, "clip time height width"], Float[np.ndarray, " clip"], float]:
    """Clips with sampled last grids, share of sampled tokens that are real, and seconds.

    Clips are sampled one by one with one seed, so no clip depends on another.
    """
    sampled, matches, seconds, count = [], [], 0.0, 0
    for batch in clips:
        for tokens, rows in zip(batch.tokens.to(device), batch.actions.to(device), strict=True):
            actions = rows[None] if network.num_actions else None
            began, horizon = now(device), len(tokens) - GIVEN
            future = rollout(network, tokens[None, :GIVEN], actions, horizon, sampling)[0, 0]
            seconds += now(device) - began
            count += horizon * frames_per_grid
            matches.append((future == tokens[GIVEN:]).double().mean().item())
            sampled.append(torch.cat([tokens[:GIVEN], future]).cpu())
    return torch.stack(sampled), np.array(matches), seconds / count
