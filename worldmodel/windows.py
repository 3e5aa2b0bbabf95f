"""Windows of tokens and actions; none crosses between drives. Loads no Lightning."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import Dataset

from drives.captions import captions_at
from drives.tokens.store import TokenDrive
from training.errors import BadInput, CorruptSample
from worldmodel.conditioning.text_encoders import Captions


@dataclass(frozen=True)
class TokenClip:
    """A batch of windows.

    Attributes:
        tokens: int64 [batch time height width], a token grid per time step.
        actions: float32 [batch time action]; row t leads to time step t + 1.
        text: captions of every time step; None if no drive has captions.
    """

    tokens: Int[Tensor, "batch time height width"]
    actions: Float[Tensor, "batch time action"]
    text: Captions | None = None

    def to(self, *args: Any, **kwargs: Any) -> "TokenClip":
        tokens, actions = self.tokens.to(*args, **kwargs), self.actions.to(*args, **kwargs)
        return TokenClip(tokens, actions, self.text)

    def pin_memory(self) -> "TokenClip":
        return TokenClip(self.tokens.pin_memory(), self.actions.pin_memory(), self.text)


Window = tuple[np.ndarray, np.ndarray] | tuple[np.ndarray, np.ndarray, tuple[str, ...]]


class TokenWindows(Dataset[Window]):
    """Every window of `num_steps` steps (or every `stride`-th) of some drives, memory-mapped.

    A window has tokens, actions and, if any drive has captions, captions.
    """

    def __init__(self, drives: Sequence[TokenDrive], num_steps: int, stride: int = 1) -> None:
        self.drives, self.num_steps, self.stride = list(drives), num_steps, stride
        self.captioned = any(drive.captions for drive in self.drives)
        counts = [self.count(drive.num_steps) for drive in self.drives]
        self.ends = np.cumsum(counts)
        self.num_short = counts.count(0)  # drives that hold no window
        if not counts or not self.ends[-1]:
            longest = max((drive.num_steps for drive in self.drives), default=0)
            raise BadInput(
                f"windows of {num_steps} steps are longer than every drive of the split (longest: "
                f"{longest}); lower the context or bring longer drives"
            )

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, index: int) -> Window:
        drive, start = self._locate(index)
        if drive.damage:
            raise CorruptSample(f"drive {drive.id}, {drive.damage}")
        window = slice(start, start + self.num_steps)
        if self.captioned:
            captions = captions_at(drive.captions, window.start, window.stop)
            return drive.tokens[window], drive.actions[window], captions
        return drive.tokens[window], drive.actions[window]

    @property
    def far(self) -> bool:
        """Whether windows are fetched from a URL."""
        return self.drives[0].far

    def prefetch(self, ids: Sequence[int]) -> None:
        """Fetch the files of these windows in the background."""
        for index in ids:
            self._locate(index)[0].prefetch()

    def count(self, length: int) -> int:
        """Windows of a drive of `length` steps."""
        return max(0, (length - self.num_steps) // self.stride + 1)

    def first_step(self, number: int) -> int:
        """At which step of its drive a window begins; `number` counts those of the drive."""
        return number * self.stride

    def describe(self, index: int) -> dict[str, Any]:
        """Drive and token steps of a window."""
        drive, start = self._locate(index)
        return {"drive": drive.id, "steps": [start, start + self.num_steps - 1]}

    def _locate(self, index: int) -> tuple[TokenDrive, int]:
        drive = int(np.searchsorted(self.ends, index, side="right"))
        offset = index - (int(self.ends[drive - 1]) if drive else 0)
        return self.drives[drive], self.first_step(offset)


def collate(samples: list[Window]) -> TokenClip:
    tokens, actions, *captions = zip(*samples, strict=True)
    grids = np.stack(tokens).astype(np.int64)
    # A step of several grids reads as one, each below the one before it.
    return TokenClip(
        torch.from_numpy(grids.reshape(*grids.shape[:2], -1, grids.shape[-1])),
        torch.from_numpy(np.stack(actions)),
        Captions.of(captions[0]) if captions else None,
    )
