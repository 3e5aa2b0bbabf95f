"""Clips of frames for the training of a tokenizer, at its image size."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from drives.clips.balance import clip_weights
from drives.clips.config import ClipsConfig
from drives.clips.frame_cache import DriveFrames, FrameCache, VideoFrames
from drives.clips.preprocessing import to_pixels
from drives.clips.shapes import judge_sizes
from drives.drive import Drive
from drives.duplicates.gate import refuse_duplicates
from drives.folder import common_rate
from drives.sources import DriveSource, drive_digests, drives_hash
from drives.splits.base import while_training
from drives.splits.footage import split_facts
from drives.video.rate import same_rate
from training.errors import BadInput
from training.loading.loader import OrderedLoader, fixed_loader
from training.loading.order import DataOrder, Weights


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


class ClipDataset(Dataset[tuple[np.ndarray, np.ndarray]]):
    """All clips of `clip_frames` consecutive frames; none crosses from one drive to the next.

    A drive's frames are opened, and their sha256 checked, when its first clip is read.
    """

    def __init__(
        self,
        drives: Sequence[Drive],
        cache: FrameCache | VideoFrames,
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
        """Drive and frames of a clip."""
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
        settings: as those of `ClipsConfig`.
    """

    def __init__(self, source: DriveSource, image_size: Sequence[int], **settings: Any) -> None:
        super().__init__()
        config = ClipsConfig(source=source, image_size=tuple(image_size), **settings)
        self.on_corrupt, self.balance = config.on_corrupt, config.balance
        self.duplicates, self.fit = config.duplicates, config.fit
        self.source, self.image_size = source, config.image_size
        self.batch_size, self.clip_frames = config.batch_size, config.clip_frames
        self.num_val_clips, self.num_workers = config.num_val_clips, config.num_workers
        self.seed = config.seed
        self.cache: FrameCache | VideoFrames
        if config.frames == "cache":
            self.cache = FrameCache(Path(source.cache) / "frames", image_size)
        else:
            self.cache = VideoFrames(image_size)
        self.drives: list[Drive] = []

    def prepare_data(self) -> None:
        """Make, check and decode the drives; every process may call it, and again."""
        if self.drives:
            return
        drives = self.source.open()
        if self.clip_frames > 1:
            common_rate(drives)  # a clip of several frames is a time, and judged before the work
        remedy = "give model.network.image_size={size}, "
        judge_sizes(drives, self.image_size, self.fit, "data.fit", remedy)
        if self.on_corrupt == "stop":
            for drive in drives:
                drive.check_pixels()
        how = (Path(self.source.cache), self.duplicates, "data.duplicates", self.on_corrupt)
        refuse_duplicates(drives, *how)
        self.cache.prepare(drives, max(2, self.num_workers))
        self.drives = drives

    def planned_facts(self) -> dict[str, Any]:
        """Facts for the model's config (none), before any data is made."""
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

    def provenance(self) -> dict[str, Any]:
        """Facts about data, split, rate and licences for the checkpoints."""
        return split_facts([drive.footage for drive in self.drives]) | {"fps": self.fps}

    @property
    def fps(self) -> float | None:
        """Frames per second of the drives; None where they differ."""
        slow, fast = (choose(drive.fps for drive in self.drives) for choose in (min, max))
        return common_rate(self.drives) if same_rate(slow, fast) else None

    def dataset(self, split: str) -> ClipDataset:
        chosen = while_training(self.drives, split, str(self.source.folder))
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
        clips = (dataset.drives, dataset.counts, dataset.clip_frames)
        return Weights(clip_weights(self.balance, *clips))

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
