"""Frames of an episode: cut out of a video of many episodes by time, or images in Parquet."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
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
        index = 0
        parts = [self.column, "episode_index"]
        for batch in pq.ParquetFile(self.file).iter_batches(batch_size=16, columns=parts):
            for row in batch.to_pylist():
                if row["episode_index"] != self.episode:
                    continue
                if start <= index < stop:
                    content = (row[self.column] or {}).get("bytes")
                    if not content:
                        raise BadInput(f"{where}: frame {index} holds no image; embed the images")
                    yield decode_image(content, f"{where}: frame {index}")
                index += 1
