"""Settings of the commands of a tokenizer; imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass

from drives.config import SPLITS
from tokenizer.config import EncodeConfig
from training.ranges import at_least, one_of, positive


@dataclass(frozen=True, kw_only=True)
class PublishedOptions:
    """How a published tokenizer is opened; null: as it was trained, as its files say.

    Attributes:
        image_size: [height, width] in pixels.
        crop: of commavq: comma (its road camera) | cover (any other).
        weights: of magvit2: raw (what 1X uses) | ema; of open_magvit2 and ibq: ema | raw.
        bit_order: of magvit2: big (its encoder's) | little (1X's data sets).
        levels: of driving_simulator and cosmos_dv: of its FSQ, where the file does not say.
    """

    image_size: Sequence[int] | None = None
    crop: str | None = None
    weights: str | None = None
    bit_order: str | None = None
    levels: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if self.image_size is not None:
            at_least(1, "options.", image_size=self.image_size)
        if self.levels is not None:
            at_least(2, "options.", levels=self.levels)


@dataclass(frozen=True, kw_only=True)
class EncodeSettings(EncodeConfig):
    """Which drives are encoded by what.

    Attributes:
        tokenizer: a shipped one, a run folder, a checkpoint folder, or a published one with `ckpt`.
        ckpt: files of a published tokenizer, as in convert.
        out: the token store.
        shard: this process's share of the drives: 0 .. num_shards - 1; null: that of the Slurm
            array task or torchrun process, or all.
        num_shards: processes that fill one store together.
    """

    tokenizer: str = "carracing"
    ckpt: str | Sequence[str] | None = None
    out: str
    shard: int | None = None
    num_shards: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shard is not None:
            at_least(0, shard=self.shard)
        if self.num_shards is not None:
            at_least(1, num_shards=self.num_shards)


@dataclass(frozen=True, kw_only=True)
class DecodeSettings:
    """Which tokens become a video.

    Attributes:
        tokenizer: the one that made the tokens, as in encode.
        ckpt: files of a published tokenizer, as in convert.
        store: a token store.
        drive: its id.
        out: the video.
    """

    tokenizer: str = EncodeSettings.tokenizer
    ckpt: str | Sequence[str] | None = None
    store: str
    drive: str
    out: str


@dataclass(frozen=True, kw_only=True)
class ConvertSettings:
    """Which published tokenizer becomes a checkpoint.

    Attributes:
        tokenizer: commavq | magvit2 | open_magvit2 | ibq | taming | llamagen | driving_simulator |
            cosmos_dv.
        ckpt: the published file, or files with commas between them.
        out: the checkpoint folder.
    """

    tokenizer: str
    ckpt: str | Sequence[str]
    out: str


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """Which run's tokenizer is cut out.

    Attributes:
        ckpt: a run folder or a checkpoint folder.
        out: the folder of the tokenizer alone.
    """

    ckpt: str
    out: str


@dataclass(frozen=True, kw_only=True)
class CompareSettings:
    """Which tokenizers are compared, and on what.

    Attributes:
        tokenizers: the RUNs: shipped ones, run folders, checkpoint folders.
        out: folder of the comparison.
        split: whose drives.
        allow_train: take clips that one of them was trained on as well.
        num_clips: clips that are measured, spread over the split.
        clip_frames: one and a multiple of 8: video tokenizers take no other number.
        video_clips: rows of the video.
        video_s: its seconds.
        lpips_net: network of LPIPS: alex | vgg.
        lpips_weights: file of its backbone; null: the usual sources.
        inception: weights for rFID: pt_inception-2015-12-05-6726825d.pth (pytorch-fid).
        device: null: a GPU if there is one.
    """

    tokenizers: Sequence[str] | None = None
    out: str = "${paths.runs}/compare"
    split: str = "test"
    allow_train: bool = False
    num_clips: int = 32
    clip_frames: int = 17
    video_clips: int = 2
    video_s: float = 6.0
    lpips_net: str = "alex"
    lpips_weights: str | None = None
    inception: str | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        one_of(SPLITS, split=self.split)
        one_of(("alex", "vgg"), lpips_net=self.lpips_net)
        at_least(1, num_clips=self.num_clips, clip_frames=self.clip_frames)
        at_least(1, video_clips=self.video_clips)
        positive(video_s=self.video_s)
