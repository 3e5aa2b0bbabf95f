"""Action sequences to choose from: those that were driven from like situations."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from drives.tokens.drive import TokenDrive
from training.errors import BadInput

NEAREST = 10  # times the proposals: the situations to draw from


class RecordedActions:
    """Action sequences of drives, after rows that are like the newest one.

    So columns fit each other (a yaw rate its steering and speed), as in no sequence that is drawn
    column by column.

    Raises:
        BadInput: no drive is longer than a sequence.
    """

    def __init__(self, drives: Sequence[TokenDrive], horizon: int) -> None:
        rows = [np.asarray(drive.actions, np.float32) for drive in drives]
        kept = [row for row in rows if len(row) > horizon]
        if not kept:
            raise BadInput(f"planning.horizon={horizon}: every drive is shorter; lower it")
        cut = [np.lib.stride_tricks.sliding_window_view(r, horizon + 1, axis=0) for r in kept]
        windows = np.concatenate(cut).transpose(0, 2, 1)
        self.before, self.after = windows[:, 0], windows[:, 1:]
        self.scale = np.maximum(self.before.std(axis=0), 1e-6)

    def __call__(
        self, newest: Float[Tensor, " action"], num: int, generator: torch.Generator
    ) -> Float[Tensor, "candidate horizon action"]:
        """`num` sequences, drawn from those of the nearest rows; fewer where there are fewer."""
        distance = (((self.before - newest.numpy()) / self.scale) ** 2).sum(axis=1)
        near = np.argsort(distance, kind="stable")[: NEAREST * num]
        chosen = torch.randperm(len(near), generator=generator)[:num].numpy()
        return torch.from_numpy(self.after[near[chosen]])
