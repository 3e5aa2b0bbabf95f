"""The manifest of a token store: sealed by its own hash, every value checked."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drives.splits.base import SPLITS
from drives.tokens.spec import TokenSpec
from training.disk.judging import judged
from training.disk.records import read_record, write_record
from training.errors import BadInput
from training.ranges import at_least, one_of

SCHEMA_VERSION = 2
READABLE = (1, 2)  # 1: release 0.1, without a seal
MANIFEST = "manifest.json"
REMEDY = "encode the drives again"


@dataclass(frozen=True)
class StoredDrive:
    """A drive's entry.

    Attributes:
        file: its name in the folder of the store.
        sha256: of that file.
        meta: source, licence, captions and encoding settings of the drive.
    """

    split: str
    file: str
    num_steps: int
    sha256: str
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        one_of(SPLITS, split=self.split)
        at_least(1, num_steps=self.num_steps)
        if Path(self.file).name != self.file or self.file == "..":
            raise BadInput(f"file={self.file!r}: is no file of the store's own folder")
        if len(self.sha256) != 64 or set(self.sha256) - set("0123456789abcdef"):
            raise BadInput(f"sha256={self.sha256!r}: is none")


@dataclass(frozen=True)
class StoreManifest:
    """The content of `manifest.json`.

    Attributes:
        drives: by their ids.
        notes: facts about the making of the store.
    """

    schema_version: int
    spec: TokenSpec
    action_names: tuple[str, ...]
    drives: dict[str, StoredDrive]
    notes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = self.action_names
        if len(set(names)) != len(names) or "" in names:
            raise BadInput(f"action_names={names}: give each column one name of its own")
        files = Counter(drive.file for drive in self.drives.values())
        for file, count in files.most_common(1):
            if count > 1:
                raise BadInput(f"{count} drives are in one file, {file}")
        if "" in self.drives:
            raise BadInput("a drive has no name")


def read_store_manifest(root: Path) -> dict[str, Any]:
    """The manifest as plain values, all of them checked.

    Raises:
        BadInput: the manifest is missing, damaged or of another schema, or has an invalid value.
    """
    path = root / MANIFEST
    if not path.exists():
        raise BadInput(f"{path}: no token store there; make one: python -m tokenizer.encode")
    try:
        manifest = read_record(path, lambda values: values.get("schema_version") in READABLE[:1])
    except BadInput as error:
        raise BadInput(f"{error}, or {REMEDY}") from error
    version = manifest.get("schema_version")
    if version not in READABLE:
        raise BadInput(
            f"{path}: schema version is {version!r}, this release reads {READABLE[0]} to "
            f"{READABLE[-1]}; {REMEDY}"
        )
    try:
        judged(StoreManifest, manifest, str(path))
    except BadInput as error:
        raise BadInput(f"{error}; {REMEDY}") from error
    return manifest


def write_store_manifest(root: Path, manifest: dict[str, Any]) -> None:
    """Seal and write the manifest; readers see either the old one or the new one."""
    values = {**manifest, "schema_version": SCHEMA_VERSION}
    write_record(root / MANIFEST, {**values, "drives": dict(sorted(values["drives"].items()))})
