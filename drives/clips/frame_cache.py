"""Frames of clips at the tokenizer's image size: cached on disk, or decoded on request."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from filelock import FileLock
from jaxtyping import UInt8
from tqdm import tqdm

from drives.clips.preprocessing import resize
from drives.content import hashes_of
from drives.drive import Drive
from training.disk.hashing import file_sha256
from training.disk.leftovers import sweep_leftovers, written_whole
from training.errors import BadInput, CorruptSample
from training.loading.pools import process_pool

PIXELS = "v2"  # raise it with every change that alters a decoded or scaled pixel
# Frames that one process decodes in the seconds that starting another takes.
WORTH_A_PROCESS = 2000


class FrameCache:
    """Decoded, resized frames on disk as one memory-mapped array per drive.

    Making the cache decodes every frame once, so an unreadable video is named before training.
    Finished drives survive an interruption. A file's name holds the hashes of the video and of the
    decoder's settings. An altered file is made again.
    """

    def __init__(self, root: Path, size: Sequence[int]) -> None:
        self.root, self.size = Path(root), tuple(size)

    def prepare(self, drives: Sequence[Drive], num_workers: int) -> None:
        """Decode missing or altered drives; many in parallel, with a progress bar."""
        there = {file.name: file for file in map(self._file, drives) if file.exists()}
        hashes_of(self.root).of_all(there, "decoded frames")
        todo = [d for d in drives if not self._is_whole(d)]
        if not todo:
            return
        for file in (self._file(drive) for drive in todo):
            if file.exists():
                print(f"warning: {file}: altered since it was written; it is decoded again")
        sweep_leftovers(self.root)
        if sum(len(drive.actions) for drive in todo) < WORTH_A_PROCESS:
            digests = [self._decode(drive) for drive in todo]
        else:
            with process_pool(max(1, num_workers)) as pool:
                jobs = pool.map(self._decode, todo)
                digests = list(tqdm(jobs, "decoding drives", len(todo), unit="drive"))
        # Without this, every loader worker would read every new file once more.
        written = {
            file.name: (file, d) for file, d in zip(map(self._file, todo), digests, strict=True)
        }
        hashes_of(self.root).keep(written)

    def open(self, drive: Drive) -> UInt8[np.ndarray, "frame 3 height width"]:
        """Raises CorruptSample where the file was altered."""
        file = self._file(drive)
        if not self._is_whole(drive):
            raise CorruptSample(
                f"{file}: missing or altered since it was written (sha256 differs), drive "
                f"{drive.id}; start again, and it is decoded again"
            )
        return np.load(file, mmap_mode="r")

    def _decode(self, drive: Drive) -> str:
        """Write the file of a drive; return its sha256."""
        file = self._file(drive)
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):
            if not self._is_whole(drive):
                with written_whole(file) as partial:
                    self._write(drive, partial)
                    file.with_suffix(".sha256").write_text(file_sha256(partial) + "\n")
            return self._noted(file)

    def _write(self, drive: Drive, file: Path) -> None:
        shape = (len(drive.actions), 3, *self.size)
        array = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)
        count = 0
        for count, frame in enumerate(drive.frames(), start=1):
            if count > shape[0]:
                break
            array[count - 1] = resize(frame[None], self.size)[0].numpy()
        drive.check_count(count)
        array.flush()

    def _is_whole(self, drive: Drive) -> bool:
        """Whether the file exists and is unaltered; its hash is kept."""
        file = self._file(drive)
        if not (file.exists() and file.with_suffix(".sha256").exists()):
            return False
        return hashes_of(self.root).of(file.name, file) == self._noted(file)

    def _noted(self, file: Path) -> str:
        """The sha256 that was written beside a file."""
        return file.with_suffix(".sha256").read_bytes().decode("latin-1").strip()

    def _file(self, drive: Drive) -> Path:
        height, width = self.size
        content = f"{drive.id}-{drive.pixels_sha256[:12]}{drive.rate_mark}"
        return self.root / f"{content}-{height}x{width}-{PIXELS}.npy"


class VideoFrames:
    """Frames decoded on request; nothing is written.

    The pixels equal those of `FrameCache` bit by bit. `data.num_workers` processes decode ahead
    of the training step.
    """

    def __init__(self, size: Sequence[int]) -> None:
        self.size = tuple(size)

    def prepare(self, drives: Sequence[Drive], num_workers: int) -> None:
        """Nothing to do: opening a drive has counted its frames."""

    def open(self, drive: Drive) -> "DriveFrames":
        return DriveFrames(drive, self.size)


class DriveFrames:
    """Slices of a drive's frames, decoded from the keyframe before each slice.

    Raises:
        CorruptSample: a frame of the slice cannot be decoded (named by its number).
    """

    def __init__(self, drive: Drive, size: Sequence[int]) -> None:
        self.drive, self.size = drive, size

    def __getitem__(self, window: slice) -> UInt8[np.ndarray, "time 3 height width"]:
        try:
            frames = np.stack(list(self.drive.frames(window.start, window.stop)))
        except BadInput as error:
            raise CorruptSample(str(error)) from error
        # The same memory layout as the cache: another layout changes rounding in the network.
        return np.ascontiguousarray(resize(frames, self.size).numpy())
