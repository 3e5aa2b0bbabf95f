"""Settings of where data comes from; imports neither torch nor a simulator."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from drives.carracing.config import CarRacingConfig


@dataclass(frozen=True)
class DriveSourceConfig:
    """Drives of one folder.

    Attributes:
        root: folder of drives (docs/drives.md); None means the embedded CarRacing drives.
        cache: folder for the embedded drives and all data derived from drives.
        actions: columns to use; None means all that the drives have in common.
        carracing: settings of the embedded drives.
        splits: file of `python -m drives.splits`; None: the splits in the drives' own drive.json.
    """

    root: str | None = None
    cache: str = "data"
    actions: Sequence[str] | None = None
    carracing: CarRacingConfig = field(default_factory=CarRacingConfig)
    splits: str | None = None


@dataclass(frozen=True)
class TokenSourceConfig:
    """Existing tokens: a token store, or published files of commaVQ or 1X.

    Attributes:
        root: the folder of the store, or where the files are.
        format: "store", or one of `drives.importers.tokens.formats`.
        cache: folder for converted foreign formats.
        num_train: for a single commaVQ recording: the first frames, for training; 0 for none.
        num_test: for a single commaVQ recording: the last frames, for the test.
    """

    root: str
    format: str = "store"
    cache: str = "data"
    num_train: int = 1000
    num_test: int = 200
