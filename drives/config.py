"""Settings of where data comes from; imports neither torch nor a simulator."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from drives.carracing.config import CarRacingConfig
from training.config import POLICIES
from training.errors import BadInput
from training.ranges import at_least, one_of, positive

ON_DUPLICATES = ("stop", "warn", "off")
SPLITS = ("train", "val", "test")
ROADS = SEEN, UNSEEN, _ = ("seen", "unseen", "")
# A split, or its drives on roads that training has or has not seen.
SPLIT_CHOICES = (
    *SPLITS,
    *(f"{split}_{roads}" for split in SPLITS[1:] for roads in (SEEN, UNSEEN)),
)


def existing_root(root: str | Path) -> Path:
    """The folder or file; BadInput, in the same words for every source, where there is none."""
    if not Path(root).exists():
        raise BadInput(f"data.root={root}: no such folder or file; give the place of the data")
    return Path(root)


def only_stores(format: str, what: str) -> None:
    """BadInput for the files of a published format where `what` is of token stores."""
    if format != "store":
        raise BadInput(f"data.source.format={format}: {what} is of token stores; leave it out")


@dataclass(frozen=True)
class DriveSourceConfig:
    """Drives of one folder.

    Attributes:
        root: folder of drives (docs/drives.md), or the URL of one (http://, s3://); None means
            the embedded CarRacing drives.
        cache: folder for the embedded drives and all data derived from drives.
        actions: columns to use; None means all that the drives have in common.
        carracing: settings of the embedded drives.
        splits: file of `python -m drives.splits`; None: the splits in the drives' own drive.json.
        fps: frames per second of all drives: those of another rate are resampled, and their actions
            averaged over what is skipped; None: their own, which has to be the same.
        remote_cache_gb: what may be kept of a URL below `cache`, in units of 1e9 bytes.
    """

    root: str | None = None
    cache: str = "data"
    actions: Sequence[str] | None = None
    carracing: CarRacingConfig = field(default_factory=CarRacingConfig)
    splits: str | None = None
    fps: float | None = None
    remote_cache_gb: float = 50.0

    def __post_init__(self) -> None:
        positive("data.source.", remote_cache_gb=self.remote_cache_gb)
        if self.fps is not None:
            positive("data.source.", fps=self.fps)


@dataclass(frozen=True)
class TokenSourceConfig:
    """Existing tokens: a token store, or published files of commaVQ or 1X.

    Attributes:
        root: the folder of the store, or where the files are; a store may be at a URL (http://,
            s3://).
        format: "store", or one of `drives.importers.tokens.formats`.
        cache: folder for converted foreign formats.
        num_train: for a single commaVQ recording: the first frames, for training; 0 for none.
        num_test: for a single commaVQ recording: the last frames, for the test.
        remote_cache_gb: what may be kept of a URL below `cache`, in units of 1e9 bytes.
    """

    root: str
    format: str = "store"
    cache: str = "data"
    num_train: int = 1000
    num_test: int = 200
    remote_cache_gb: float = 50.0

    def __post_init__(self) -> None:
        positive("data.source.", remote_cache_gb=self.remote_cache_gb)
        at_least(0, "data.source.", num_train=self.num_train, num_test=self.num_test)


@dataclass(frozen=True)
class MixtureSourceConfig(TokenSourceConfig):
    """Several token stores of one tokenizer, and how often each comes.

    Attributes:
        root: refused.
        roots: folders or URLs of the stores.
        weights: share of the training windows that each store gives, in the order of `roots`, of
            any sum; (): every window of every store comes as often.
    """

    root: str | None = None  # type: ignore[assignment]
    roots: Sequence[str] = field(kw_only=True)
    weights: Sequence[float] = ()

    def __post_init__(self) -> None:
        if self.root is not None:
            raise BadInput(f"data.root={self.root}: a mixture has several; give data.source.roots")
        only_stores(self.format, "a mixture")
        super().__post_init__()
        if not self.roots:
            raise BadInput("data.source.roots=[]: give token stores, such as [tokens/a,tokens/b]")
        if self.weights and len(self.weights) != len(self.roots):
            raise BadInput(
                f"data.source.weights={list(self.weights)} for {len(self.roots)} roots; give one "
                "each"
            )
        positive("data.source.", weights=self.weights)


@dataclass(frozen=True, kw_only=True)
class DataRoot:
    """Which data a command takes.

    Attributes:
        root: where it lies: drives, a token store, or files of a published format (with data=NAME);
            null: what the checkpoint was trained on, if it says.
    """

    root: str | None = None


@dataclass(frozen=True, kw_only=True)
class SourceRoot:
    """How data is read where only its root is given; what lies there says what it is.

    Attributes:
        root: where it lies.
        cache: folder of converted data, for models that name none.
    """

    root: str | None = "${data.root}"
    cache: str = "${paths.data}"


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What every data module is given.

    Attributes:
        root: where the data lies; its source reads there (data=drives: null is the embedded ones).
        source: what is read, and how; data=NAME chooses it.
        batch_size: examples of a batch, on each device.
        num_workers: processes that load ahead; 0: the training process itself.
        seed: of the order in which examples come.
        on_corrupt: "stop", or "skip": replace what cannot be read, restart dead workers.
        duplicates: for footage in two splits: "stop", "warn", or "off" (no search;
            docs/leakage.md).
    """

    root: str | None = None
    source: DriveSourceConfig | TokenSourceConfig
    batch_size: int
    num_workers: int = 0
    seed: int = 0
    on_corrupt: str = "stop"
    duplicates: str = "stop"

    def __post_init__(self) -> None:
        at_least(1, "data.", batch_size=self.batch_size)
        at_least(0, "data.", num_workers=self.num_workers, seed=self.seed)
        one_of(POLICIES, "data.", on_corrupt=self.on_corrupt)
        one_of(ON_DUPLICATES, "data.", duplicates=self.duplicates)
