"""Clips of frames for the training of a tokenizer, at its image size."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from einops import rearrange
from filelock import FileLock
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from drives.balance import BalanceConfig
from drives.content import hashes_of
from drives.drive import Drive
from drives.preprocessing import resize
from drives.sources import DriveSource, drive_digests, drives_hash
from drives.splits import of_split
from training.disk.hashing import file_sha256
from training.disk.leftovers import sweep_leftovers, written_whole
from training.errors import BadInput, CorruptSample
from training.loading.loader import POLICIES, OrderedLoader, fixed_loader
from training.loading.order import DataOrder, Weights
from training.loading.pools import process_pool
from training.ranges import at_least, one_of

FRAMES = ("cache", "video")
PIXELS = "v2"  # raise it with every change that alters a decoded or scaled pixel
# Starting a process costs seconds; one process decodes about this many frames in that time.
WORTH_A_PROCESS = 2000


@dataclass(frozen=True)
class Clip:
    """A batch of short recordings.

    Attributes:
        frames: uint8 [batch time 3 height width]; `pixels()` gives [-1, 1].
        actions: float32 [batch time action]; row t explains frame t+1.
    """

    frames: UInt8[Tensor, "batch time 3 height width"]
    actions: Float[Tensor, "batch time action"]

    def to(self, *args: Any, **kwargs: Any) -> "Clip":
        return Clip(self.frames.to(*args, **kwargs), self.actions.to(*args, **kwargs))

    def pin_memory(self) -> "Clip":
        return Clip(self.frames.pin_memory(), self.actions.pin_memory())

    def pixels(self) -> Float[Tensor, "n 3 height width"]:
        """All frames of the batch in [-1, 1]."""
        return to_pixels(rearrange(self.frames, "b t c h w -> (b t) c h w"))


def to_pixels(frames: UInt8[Tensor, "*n 3 h w"]) -> Float[Tensor, "*n 3 h w"]:
    return frames.float() / 127.5 - 1


def to_uint8(pixels: Float[Tensor, "*n 3 h w"]) -> UInt8[Tensor, "*n 3 h w"]:
    return ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


class FrameCache:
    """Decoded, resized frames on disk as one memory-mapped array per drive.

    Making the cache decodes every frame once, so an unreadable video is named before any
    training. Finished drives survive an interruption. A file's name holds the hash of the video
    and of the settings of the decoder. An altered file is made again.
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
            for drive in todo:
                self._decode(drive)
            return
        with process_pool(max(1, num_workers)) as pool:
            jobs = pool.map(self._decode, todo)
            for _ in tqdm(jobs, total=len(todo), desc="decoding drives", unit="drive"):
                pass

    def open(self, drive: Drive) -> UInt8[np.ndarray, "frame 3 height width"]:
        """Raises CorruptSample where the file was altered."""
        file = self._file(drive)
        if not self._is_whole(drive):
            raise CorruptSample(
                f"{file}: missing or altered since it was written (sha256 differs), drive "
                f"{drive.id}; start again, and it is decoded again"
            )
        return np.load(file, mmap_mode="r")

    def _decode(self, drive: Drive) -> None:
        file = self._file(drive)
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):
            if self._is_whole(drive):
                return
            with written_whole(file) as partial:
                self._write(drive, partial)
                file.with_suffix(".sha256").write_text(file_sha256(partial) + "\n")

    def _write(self, drive: Drive, file: Path) -> None:
        shape = (len(drive.actions), 3, *self.size)
        array = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)
        count = 0
        for count, frame in enumerate(drive.frames(), start=1):
            if count > shape[0]:
                break
            array[count - 1] = resize(frame[None], self.size)[0].numpy()
        if count != shape[0]:
            raise BadInput(
                f"{drive.path}: {shape[0]} action rows but {count} frames decode; "
                "give exactly one row per frame"
            )
        array.flush()

    def _is_whole(self, drive: Drive) -> bool:
        """Whether the file exists and is unaltered; its hash is remembered."""
        file = self._file(drive)
        note = file.with_suffix(".sha256")
        if not (file.exists() and note.exists()):
            return False
        return (
            hashes_of(self.root).of(file.name, file) == note.read_bytes().decode("latin-1").strip()
        )

    def _file(self, drive: Drive) -> Path:
        height, width = self.size
        return self.root / f"{drive.id}-{drive.pixels_sha256[:12]}-{height}x{width}-{PIXELS}.npy"


class VideoFrames:
    """Frames decoded on request; nothing is written.

    The pixels equal those of `FrameCache` bit by bit. `loader.num_workers` processes decode ahead
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


class ClipDataset(Dataset[tuple[np.ndarray, np.ndarray]]):
    """All clips of `clip_frames` consecutive frames; none crosses from one drive to the next.

    A drive's frames are opened, and their sha256 checked, when its first clip is read.
    """

    def __init__(
        self,
        drives: Sequence[Drive],
        cache: "FrameCache | VideoFrames",
        clip_frames: int,
        names: Sequence[str],
    ) -> None:
        self.clip_frames, self.drives, self.cache = clip_frames, list(drives), cache
        self.frames: dict[int, np.ndarray | DriveFrames] = {}
        self.actions = [drive.select_actions(names) for drive in drives]
        counts = [max(0, len(actions) - clip_frames + 1) for actions in self.actions]
        self.ends = np.cumsum(counts)
        if not counts or not self.ends[-1]:
            raise BadInput(f"no drive of this split has {clip_frames} frames")

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        drive, start = self._locate(index)
        window = slice(start, start + self.clip_frames)
        if drive not in self.frames:
            self.frames[drive] = self.cache.open(self.drives[drive])
        return self.frames[drive][window], self.actions[drive][window]

    def describe(self, index: int) -> dict[str, Any]:
        """Which drive and frames a clip shows."""
        drive, start = self._locate(index)
        frames = [start, start + self.clip_frames - 1]
        return {"drive": self.drives[drive].id, "frames": frames}

    @property
    def counts(self) -> list[int]:
        """Clips of each drive."""
        return np.diff(self.ends, prepend=0).tolist()

    def _locate(self, index: int) -> tuple[int, int]:
        drive = int(np.searchsorted(self.ends, index, side="right"))
        return drive, index - (int(self.ends[drive - 1]) if drive else 0)


def collate(samples: list[tuple[np.ndarray, np.ndarray]]) -> Clip:
    frames, actions = zip(*samples, strict=True)
    return Clip(torch.from_numpy(np.stack(frames)), torch.from_numpy(np.stack(actions)))


class ClipDataModule(L.LightningDataModule):
    """Train and validation clips of a `DriveSource`, in the exact order of `DataOrder`.

    Args:
        frames: "cache" (decode all frames once, onto the disk) or "video" (decode the frames of
            each batch from the videos).
        balance: weights of the training clips.
    """

    def __init__(
        self,
        source: DriveSource,
        image_size: Sequence[int],
        batch_size: int = 32,
        clip_frames: int = 1,
        num_val_clips: int = 256,
        num_workers: int = 0,
        seed: int = 0,
        on_corrupt: str = "stop",
        frames: str = "cache",
        balance: BalanceConfig | None = None,
    ) -> None:
        super().__init__()
        one_of(FRAMES, "loader.", frames=frames)
        one_of(POLICIES, "loader.", on_corrupt=on_corrupt)
        at_least(1, "loader.", batch_size=batch_size, num_val_clips=num_val_clips)
        at_least(1, "loader.", clip_frames=clip_frames)
        at_least(0, "loader.", num_workers=num_workers)
        self.on_corrupt, self.balance = on_corrupt, balance or BalanceConfig()
        self.source, self.image_size = source, tuple(image_size)
        self.batch_size, self.clip_frames = batch_size, clip_frames
        self.num_val_clips, self.num_workers, self.seed = num_val_clips, num_workers, seed
        self.cache: FrameCache | VideoFrames
        if frames == "cache":
            self.cache = FrameCache(Path(source.cache) / "frames", image_size)
        else:
            self.cache = VideoFrames(image_size)
        self.drives: list[Drive] = []

    def prepare_data(self) -> None:
        """Make, check and decode the drives; safe to call from every process, and again."""
        if self.drives:
            return
        drives = self.source.open()
        if self.on_corrupt == "stop":
            for drive in drives:
                drive.check_pixels()
        self.cache.prepare(drives, max(2, self.num_workers))
        self.drives = drives

    def planned_facts(self) -> dict[str, Any]:
        """Facts about the data that the model's config needs (none), before any data is made."""
        return {}

    def planned_batch(self, facts: dict[str, Any], size: int) -> Clip:
        """A batch of `size` clips with the right shapes and no content."""
        frames = torch.zeros(size, self.clip_frames, 3, *self.image_size, dtype=torch.uint8)
        return Clip(frames, torch.zeros(size, self.clip_frames, 1))

    @property
    def data_hash(self) -> str:
        return drives_hash(self.drives)

    def data_digests(self) -> dict[str, str]:
        """Digest of every drive, so that a resumed run can name the drive that changed."""
        return drive_digests(self.drives)

    def dataset(self, split: str) -> ClipDataset:
        chosen = of_split(self.drives, split, str(self.source.folder))
        names = self.source.action_names(self.drives)
        return ClipDataset(chosen, self.cache, self.clip_frames, names)

    def train_dataloader(self) -> OrderedLoader:
        assert self.trainer is not None
        dataset = self.dataset("train")
        if (short := dataset.counts.count(0)) and self.trainer.is_global_zero:
            print(
                f"note: {short} of {len(dataset.drives)} train drives are shorter than "
                f"{self.clip_frames} frames and are left out"
            )
        module: Any = self.trainer.lightning_module
        steps = self.trainer.max_steps * module.accumulate
        rank, world = self.trainer.global_rank, self.trainer.world_size
        order = DataOrder(
            len(dataset), steps, self.batch_size, self.seed, rank, world, self.weights(dataset)
        )
        return OrderedLoader(dataset, order, collate, self.num_workers, self.on_corrupt)

    def weights(self, dataset: ClipDataset) -> Weights | None:
        """Sampling weights of the clips; None where no feature is balanced."""
        if not self.balance.features:
            return None
        return Weights(self.balance.weights(dataset.drives, dataset.counts, dataset.clip_frames))

    def val_dataloader(self) -> DataLoader:
        assert self.trainer is not None
        rank, world = self.trainer.global_rank, self.trainer.world_size
        clips = self.dataset("val")
        return fixed_loader(
            clips, self.num_val_clips, self.batch_size, collate, self.on_corrupt, rank, world
        )


class ActionClipDataModule(ClipDataModule):
    """Clips for a model whose config needs the names of the actions."""

    def model_facts(self) -> dict[str, Any]:
        self.prepare_data()
        return {"action_names": self.source.action_names(self.drives)}

    def planned_facts(self) -> dict[str, Any]:
        """The same as `model_facts`, before any data is made."""
        return {"action_names": self.source.planned()[1]}

    def planned_batch(self, facts: dict[str, Any], size: int) -> Clip:
        frames = super().planned_batch(facts, size).frames
        return Clip(frames, torch.zeros(size, self.clip_frames, len(facts["action_names"])))
