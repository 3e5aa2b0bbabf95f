"""The nearest neighbour in the train drives: a floor, and a search for leaks.

The floor predicts the successor of the train frame that equals most cells of the frame before. The
same search finds test drives that leaked: their frames equal train frames in (nearly) every cell.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor

from drives.tokens.store import TokenDrive
from drives.versions import recording_of
from training.loading.spread import spread

MOST_ASKED = 1024  # frames whose neighbours are searched
MOST_CELLS = 128  # compared per frame; larger grids are sampled evenly
PIECE = 1024  # train frames at once
LEAK = 0.98  # share of equal cells from which on two frames count as the same


@dataclass(frozen=True)
class Neighbours:
    """The nearest train frames of some windows.

    Attributes:
        nats: nats per real token of predicting the successor of the nearest train frame; for every
            window a mean over its searched steps.
        share: largest share of equal cells between a frame of the window and a train frame.
        places: drive@step of that train frame.
        steps: time steps that were predicted.
    """

    nats: Float[np.ndarray, " window"]
    share: Float[np.ndarray, " window"]
    places: list[str]
    steps: list[int]

    def leaks(self) -> list[int]:
        """Windows with a frame that stands in the train drives."""
        return np.flatnonzero(self.share >= LEAK).tolist()


def nearest_neighbours(
    train: Sequence[TokenDrive],
    windows: Integer[np.ndarray, "window time *grid"],
    unigram: Float[np.ndarray, " vocab"],
) -> Neighbours:
    """Search the nearest train frames of every window, and score their successors.

    A predicted token has the probability with which successors are right, measured on train drives
    against the other train drives. Any other token has its unigram's.

    Args:
        unigram: share of every token in the train drives, as in `floors`.
    """
    usable = [drive for drive in train if not drive.damage and len(drive.tokens) > 1]
    flat = torch.from_numpy(windows.reshape(*windows.shape[:2], -1).astype(np.int32))
    num, time, space = flat.shape
    per_window = min(time - 1, max(1, MOST_ASKED // num))
    steps = np.unique(np.linspace(0, time - 2, per_window).round().astype(int)).tolist()
    asked = flat[:, steps].reshape(-1, space)
    target = flat[:, [step + 1 for step in steps]].reshape(-1, space)
    own, own_drives, own_target = _own(usable, MOST_ASKED // 4)
    # Phases of one drive lie between each other's frames; they are one drive here.
    known: dict[str, int] = {}
    recordings = [known.setdefault(recording_of(drive.id), len(known)) for drive in usable]
    asking = [-1] * len(asked) + [recordings[number] for number in own_drives]
    search = _Search(torch.cat([asked, own]), asking)
    for number, drive in enumerate(usable):
        for first, piece in _pieces(drive):
            search.look(number, recordings[number], first, piece)
    right = search.after[len(asked) :] == own_target
    repeat = float(right[search.equal[len(asked) :] >= 0].double().mean().nan_to_num(0.0))
    alone = torch.from_numpy(unigram)[target.long()] * (1 - repeat)
    correct = search.after[: len(asked)] == target
    nats = -(alone + repeat * correct).log().mean(1).reshape(num, -1).mean(1).numpy()
    share = search.equal[: len(asked)].reshape(num, -1).double() / space
    best = share.argmax(1) + torch.arange(num) * len(steps)
    places = [f"{usable[d].id}@{s}" for d, s in search.place[best].tolist()]
    return Neighbours(nats, share.max(1).values.numpy(), places, [s + 1 for s in steps])


class _Search:
    """The nearest train frame of some frames, so far; ties go to the first.

    Args:
        recordings: which recording each frame is of, and is not compared with; -1: of none.

    Attributes:
        equal: number of equal cells; -1 where nothing was compared.
        after: the frame after the nearest one.
        place: its drive's number and its step.
    """

    def __init__(self, asked: Tensor, recordings: Sequence[int]) -> None:
        self.asked, self.recordings = asked, torch.tensor(recordings)
        space = asked.shape[1]
        self.cells = torch.from_numpy(np.linspace(0, space - 1, min(space, MOST_CELLS)).astype(int))
        self.few = asked[:, self.cells].float()
        self.sampled = torch.full((len(asked),), -1)
        self.equal = torch.full((len(asked),), -1)
        self.after = torch.full_like(asked, -1)
        self.place = torch.zeros(len(asked), 2, dtype=torch.long)

    def look(self, number: int, recording: int, first: int, frames: Tensor) -> None:
        """Compare with a drive's frames from step `first` on; the last is a successor alone."""
        # The "distance" of order 0 counts the cells that differ.
        differ = torch.cdist(self.few, frames[:-1, self.cells].float(), p=0)
        least, index = differ.min(1)
        equal = len(self.cells) - least.long()
        closer = (equal > self.sampled) & (self.recordings != recording)
        which, index = closer.nonzero()[:, 0], index[closer]
        self.sampled[which] = equal[closer]
        self.equal[which] = (frames[index] == self.asked[which]).sum(1)
        self.after[which] = frames[index + 1]
        self.place[which] = torch.stack([torch.full_like(index, number), first + index], 1)


def _own(drives: Sequence[TokenDrive], num: int) -> tuple[Tensor, list[int], Tensor]:
    """Evenly spread train frames, the numbers of their drives, and their successors."""
    ends = np.cumsum([len(drive.tokens) - 1 for drive in drives])
    frames, numbers, after = [], [], []
    for index in spread(int(ends[-1]), num):
        number = int(np.searchsorted(ends, index, side="right"))
        step = int(index - (ends[number - 1] if number else 0))
        pair = torch.from_numpy(drives[number].tokens[step : step + 2].astype(np.int32)).flatten(1)
        frames.append(pair[0])
        after.append(pair[1])
        numbers.append(number)
    return torch.stack(frames), numbers, torch.stack(after)


def _pieces(drive: TokenDrive) -> Iterator[tuple[int, Tensor]]:
    """Pieces of frames with one more behind, each with the step of its first."""
    for first in range(0, len(drive.tokens) - 1, PIECE):
        piece = drive.tokens[first : first + PIECE + 1].astype(np.int32)
        yield first, torch.from_numpy(piece).flatten(1)
