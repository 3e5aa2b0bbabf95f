"""Frames of an episode: cut out of a video of many episodes by time, or images in Parquet."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Float, UInt8

from drives import video
from drives.importers.recording import PickedFrames
from drives.video.images import decode_image
from training.errors import BadInput

TOLERANCE = 0.25  # of the time between two frames


def frames_at(file: Path, times_s: Float[np.ndarray, " frame"], fps: float) -> PickedFrames:
    """The frames that the video shows at these seconds.

    Raises:
        BadInput: it shows none at one of them.
    """
    shown_s = video.times_s(file)
    if shown_s is None:
        shown_s = np.arange(video.num_frames(file)) / fps
    if not len(shown_s):
        raise BadInput(f"{file}: holds no frames; copy the file again")
    after = np.clip(np.searchsorted(shown_s, times_s), 1, max(len(shown_s) - 1, 1))
    before = after - 1
    if len(shown_s) == 1:
        after = before
    is_before = times_s - shown_s[before] < shown_s[after] - times_s
    picked = np.where(is_before, before, after)
    late = np.abs(shown_s[picked] - times_s)
    bad = np.flatnonzero((late > TOLERANCE / fps) | (np.diff(picked, prepend=-1) <= 0))
    if len(bad):
        at = int(bad[0])
        raise BadInput(
            f"{file}: frame {at} of the episode should show at {times_s[at]:.4f} s, and the "
            f"nearest frame of its own is at {shown_s[picked[at]]:.4f} s; copy the file again, or "
            "leave the episode out (--on-bad=skip)"
        )
    first, last = int(picked[0]), int(picked[-1]) + 1
    in_a_row = last - first == len(picked)
    return PickedFrames(file, range(first, last) if in_a_row else picked.tolist())


@dataclass(frozen=True)
class ParquetImages:
    """Images that lie in a Parquet file, one per row: {"bytes": ..., "path": ...}."""

    file: Path
    column: str
    episode: int

    def read(self, start: int, stop: int) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
        where = f"{self.file}: {self.column} of episode {self.episode}"
        for index, image in enumerate(self._rows(start, stop), start):
            content = (image or {}).get("bytes")
            if not content:
                raise BadInput(f"{where}: frame {index} holds no image; embed the images")
            yield decode_image(content, f"{where}: frame {index}")

    def _rows(self, start: int, stop: int) -> Iterator[dict[str, Any] | None]:
        """Rows start <= i < stop of the episode; other images stay packed, most are not read."""
        first = 0  # row of the episode
        with pq.ParquetFile(self.file) as file:
            for group in range(file.num_row_groups):
                if first >= stop:
                    return
                numbers = file.read_row_group(group, ["episode_index"])["episode_index"]
                count = pc.sum(pc.equal(numbers, self.episode)).as_py() or 0
                if first + count <= start or not count:
                    first += count
                    continue
                parts = [self.column, "episode_index"]
                for batch in file.iter_batches(batch_size=16, row_groups=[group], columns=parts):
                    own = batch.filter(pc.equal(batch["episode_index"], self.episode))
                    low, high = max(start - first, 0), min(stop - first, len(own))
                    if low < high:
                        yield from own[self.column].slice(low, high - low).to_pylist()
                    first += len(own)
                    if first >= stop:
                        return
