"""Frames of many drives, decoded and resized ahead by worker processes."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from drives.clips.frame_cache import WORTH_A_PROCESS
from drives.drive import Drive
from drives.video.gaps import Drop, describe
from training.errors import BadInput, TrainingFault
from training.handing_over import cause_of, last_line, shared
from training.loading.pools import START_METHOD, end_with_parent

Fit = Callable[[UInt8[np.ndarray, "n recorded_h recorded_w 3"]], UInt8[Tensor, "n 3 h w"]]


class FrameBatch(NamedTuple):
    """Consecutive frames of one drive; the last one of a drive is empty.

    Attributes:
        drive: index of the drive.
        frames: uint8 [n 3 height width].
        drops: frames that the recorder dropped; set in the last batch of a drive.
        problem: why the drive cannot be read; ends the drive.
    """

    drive: int
    frames: UInt8[Tensor, "n 3 height width"]
    drops: list[Drop]
    problem: str = ""


class FrameStream(IterableDataset[FrameBatch]):
    """Batches of every `every`-th frame, drive after drive; each worker has its own drives.

    A batch never mixes drives, so the tokens of a drive do not depend on its neighbours.
    """

    def __init__(
        self,
        drives: Sequence[Drive],
        fit: Fit,
        batch_size: int,
        every: int = 1,
        on_gap: str = "warn",
    ) -> None:
        self.drives, self.fit, self.batch_size = list(drives), fit, batch_size
        self.every, self.on_gap = every, on_gap

    def __iter__(self) -> Iterator[FrameBatch]:
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        nothing = torch.empty(0, 3, 0, 0, dtype=torch.uint8)
        for number in range(first, len(self.drives), step):
            try:
                drops = self._drops(self.drives[number])
                for frames in self._batches(self.drives[number]):
                    yield shared(FrameBatch(number, frames, []))
            except BadInput as error:  # an exception would lose its message on the way
                yield FrameBatch(number, nothing, [], str(error))
            else:
                yield FrameBatch(number, nothing, drops)

    def _drops(self, drive: Drive) -> list[Drop]:
        drops = drive.drops
        if drops and self.on_gap == "stop":
            raise BadInput(
                f"{drive.path}: {describe(drops)}; record it again, cut it there, or give "
                "on_gap=warn to go over the gap as if it were one step"
            )
        return drops

    def _batches(self, drive: Drive) -> Iterator[Tensor]:
        frames = islice(drive.frames(), 0, None, self.every)
        while chunk := list(islice(frames, self.batch_size)):
            yield self.fit(np.stack(chunk))


class _Ahead(DataLoader[FrameBatch]):
    """Names the cause where a worker fails.

    Raises:
        TrainingFault: a worker died, is stuck, or cannot hand over its batch.
    """

    def __iter__(self) -> Any:
        try:
            yield from super().__iter__()
        except (RuntimeError, OSError) as error:
            if not self.num_workers:
                raise
            cause = cause_of(error).replace("data.num_workers", "num_workers")
            raise TrainingFault(f"a worker failed ({last_line(error)}); {cause}") from error


def read_ahead(stream: FrameStream, num_workers: int, pin_memory: bool = False) -> Any:
    """Iterate over a stream's batches; up to three wait per worker.

    Few frames are decoded in this process, whatever `num_workers` is.
    """
    frames = sum(len(drive.actions) for drive in stream.drives)
    workers = min(num_workers, len(stream.drives), frames // WORTH_A_PROCESS)
    return _Ahead(
        stream,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=3 if workers else None,
        multiprocessing_context=START_METHOD if workers else None,
        worker_init_fn=end_with_parent,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # otherwise iterating draws from the global generator
    )
