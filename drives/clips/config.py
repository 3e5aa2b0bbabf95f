"""Settings of clips of frames; imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from drives.config import DataConfig
from training.errors import BadInput
from training.ranges import at_least, one_of, share

FRAMES = ("cache", "video")
FITS = ("same", "cover")  # of frames of another aspect, see `drives.clips.shapes.judge_sizes`


@dataclass(frozen=True)
class BalanceConfig:
    """Which features to balance, and how far (GAIA-1, Hu et al. 2023, arXiv 2309.17080, sec. 4.1).

    A clip's weight is p^-alpha. p is the empirical joint probability of the clip's cell over all
    features. A cell is then drawn in proportion to p^(1 - alpha).

    Attributes:
        features: action columns (the mean over the clip counts), or entries of `drive.json`
            (numbers and names; "weather.rain" is the entry rain of the entry weather).
        alpha: 0 keeps the order of a run without balancing; 1 makes all cells equally frequent.
        bins: number of equal-width bins for a number that takes more different values.

    Raises:
        BadInput: alpha outside [0, 1], or fewer than two bins.
    """

    features: Sequence[str] = ()
    alpha: float = 0.5
    bins: int = 10

    def __post_init__(self) -> None:
        share("data.balance.", alpha=self.alpha)
        at_least(2, "data.balance.", bins=self.bins)


@dataclass(frozen=True, kw_only=True)
class FramesConfig(DataConfig):
    """Settings of clips of frames, whatever their size and length come from.

    Attributes:
        num_val_clips: validation clips, evenly spread over the drives.
        frames: "cache" (decode all frames once, onto the disk) or "video" (decode the frames of
            each batch from the videos).
        fit: frames of another aspect: "same" refuses them, "cover" cuts their sides off
            (`drives.clips.shapes.judge_sizes`).
        balance: rare clips come more often.
    """

    batch_size: int = 32
    num_val_clips: int = 256
    frames: str = "cache"
    fit: str = "same"
    balance: BalanceConfig = field(default_factory=BalanceConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of(FRAMES, "data.", frames=self.frames)
        one_of(FITS, "data.", fit=self.fit)
        at_least(1, "data.", num_val_clips=self.num_val_clips)


@dataclass(frozen=True, kw_only=True)
class ClipsConfig(FramesConfig):
    """Settings of clips of frames.

    Attributes:
        image_size: (height, width) that frames are scaled to; the network's.
        clip_frames: consecutive frames of a clip.
    """

    image_size: Sequence[int]
    clip_frames: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, "data.", image_size=self.image_size, clip_frames=self.clip_frames)
        if len(self.image_size) != 2:
            raise BadInput(f"data.image_size={list(self.image_size)}: give [height, width]")
