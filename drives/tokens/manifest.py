"""The manifest of a token store: sealed by its own hash, every value checked."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drives.remote.mirror import mirror_of
from drives.splits.base import SPLITS
from drives.tokens.catalog import Catalog, PackedDrives, judge_sha256, own_file, read_catalog
from drives.tokens.spec import TokenSpec
from training.disk.judging import judged
from training.disk.records import read_record, write_record
from training.errors import BadInput
from training.ranges import at_least, one_of

SCHEMA_VERSION = 2
PACKED_VERSION = 3  # of a store with packed drives, which older releases cannot read
READABLE = (1, SCHEMA_VERSION, PACKED_VERSION)  # 1: release 0.1, without a seal
MANIFEST = "manifest.json"
REMEDY = "encode the drives again"


@dataclass(frozen=True)
class StoredDrive:
    """The entry of a loose drive.

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
        own_file(self.file)
        judge_sha256(self.sha256)


@dataclass(frozen=True)
class StoreManifest:
    """The content of `manifest.json`.

    Attributes:
        drives: loose ones, by their ids.
        packed: where the others are.
        notes: facts about the making of the store.
    """

    schema_version: int
    spec: TokenSpec
    action_names: tuple[str, ...]
    drives: dict[str, StoredDrive]
    notes: dict[str, Any] = field(default_factory=dict)
    packed: PackedDrives | None = None

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
    """The manifest as plain values, all of them checked; its `drives` are a `Catalog`.

    Raises:
        BadInput: the manifest or its index is missing, damaged or of another schema, or has an
            invalid value.
    """
    mirror = mirror_of(root)
    path = mirror.refresh(MANIFEST) if mirror else root / MANIFEST
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
        found = judged(StoreManifest, manifest, str(path))
    except BadInput as error:
        raise BadInput(f"{error}; {REMEDY}") from error
    return {**manifest, "drives": read_catalog(root, manifest["drives"], found.packed)}


def write_store_manifest(root: Path, manifest: dict[str, Any]) -> None:
    """Seal and write the manifest; readers see either the old one or the new one.

    Args:
        manifest: as `read_store_manifest` gives it, or with a plain dict of loose drives.
    """
    drives = manifest["drives"]
    loose = drives.loose if isinstance(drives, Catalog) else drives
    version = PACKED_VERSION if manifest.get("packed") else SCHEMA_VERSION
    values = {**manifest, "schema_version": version, "drives": dict(sorted(loose.items()))}
    write_record(root / MANIFEST, values)
