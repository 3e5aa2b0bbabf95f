"""Foreign formats of tokens, by the names that `data=` and `python -m drives.importers` take."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drives.importers.tokens.commavq import import_commavq, planned_actions
from drives.importers.tokens.commavq_bin import find_bins, import_bins, plan_bins
from drives.importers.tokens.commavq_hub import HubOptions, import_hub
from drives.importers.tokens.commavq_segments import SPEC, files_of, holds_tokens
from drives.importers.tokens.dmc_latents import LatentOptions, import_latents
from drives.importers.tokens.npy_tokens import NpyOptions, import_npy
from drives.importers.tokens.onex_v1 import find_onex_v1, import_onex_v1, plan_onex_v1
from drives.importers.tokens.onex_v2 import find_onex_v2, import_onex_v2, plan_onex_v2
from drives.tokens.spec import TokenSpec
from drives.tokens.store import TokenStore
from training.errors import BadInput


@dataclass(frozen=True)
class TokenFormat:
    """How one format is found and converted.

    Attributes:
        text: what it is, in a few words.
        files: those at a path; BadInput where there are none.
        plan: the spec and the action columns that the store will have; converts nothing.
        convert: (source, out, further arguments) to the store.
        is_cut: whether a single recording is cut by `num_train` and `num_test`.
        is_own: whether files of these names are the format's; any archive has commaVQ's name.
    """

    text: str
    files: Callable[[Path], list[Path]]
    plan: Callable[[Path], tuple[TokenSpec, tuple[str, ...]]]
    convert: Callable[..., TokenStore]
    is_cut: bool = False
    is_own: Callable[[list[Path]], bool] = lambda files: True

    def cut(self, num_train: int, num_test: int) -> dict[str, int]:
        """Further arguments of `convert`."""
        return {"num_train": num_train, "num_test": num_test} if self.is_cut else {}


@dataclass(frozen=True)
class ImportedFormat:
    """A format whose files do not say all: it is imported first, and `data=` takes the store.

    Attributes:
        text: what it is, in a few words.
        convert: (source, out, options) to the store.
        options: the dataclass of its settings; each field is a flag of the command.
    """

    text: str
    convert: Callable[[Path, Path, Any], TokenStore]
    options: type


TOKEN_FORMATS: Mapping[str, TokenFormat] = {
    "commavq": TokenFormat(
        "commaVQ's tars or arrays of tokens",
        files_of,
        lambda root: (SPEC, planned_actions(root)),
        import_commavq,
        is_cut=True,
        is_own=holds_tokens,
    ),
    "onex_v1": TokenFormat(
        "1X's recordings, version 1.1", find_onex_v1, plan_onex_v1, import_onex_v1
    ),
    "onex_v2": TokenFormat(
        "1X's recordings, version 2.0", find_onex_v2, plan_onex_v2, import_onex_v2
    ),
    "commavq_bin": TokenFormat(
        "commaVQ's train.bin for nanoGPT", find_bins, plan_bins, import_bins
    ),
}
IMPORTED_FORMATS: Mapping[str, ImportedFormat] = {
    "commavq_hub": ImportedFormat(
        "commaVQ's tars from the hub: commaai/commavq", import_hub, HubOptions
    ),
    "dmc_latents": ImportedFormat(
        "latents of Video Occupancy Models in HDF5", import_latents, LatentOptions
    ),
    "npy_tokens": ImportedFormat(
        "tokens [frame height width] in .npy files", import_npy, NpyOptions
    ),
}


def recognised_format(root: Path) -> str | None:
    """The format of the tokens at `root` that `data=` takes; None where it is none of them."""
    for name, format in TOKEN_FORMATS.items():
        try:
            if format.is_own(format.files(root)):
                return name
        except BadInput:
            continue
    return None
