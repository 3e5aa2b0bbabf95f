"""The manifest of a checkpoint: `manifest.json`, sealed, every value checked."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from training.checkpoints.old_configs import in_todays_words
from training.disk.judging import judged
from training.disk.records import read_record
from training.errors import BadInput
from training.ranges import at_least

SCHEMA_VERSION = 3
READABLE = (1, 2, 3)  # 1: release 0.1, without hashes of the shards
UNSEALED = (1, 2)
Entries = TypeVar("Entries")
WEIGHTS, STATE, MANIFEST, SHARDS = "weights.safetensors", "state.pt", "manifest.json", "shards"


@dataclass(frozen=True)
class Head:
    """Entries of every manifest; a reader checks the entries of its kind.

    Attributes:
        files: sha256 of every file, by its path in the folder.
        sizes: bytes of every file (since schema 3).
        config: the resolved config of the run; None for published weights.
        run: provenance: git revision, versions, hashes of the data.
        published: provenance of published weights.
    """

    schema_version: int
    files: dict[str, str]
    sizes: dict[str, int] = field(default_factory=dict)
    kind: str = ""
    step: int | None = None
    config: dict[str, Any] | None = None
    run: dict[str, Any] = field(default_factory=dict)
    published: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.files:
            if ".." in Path(name).parts or Path(name).is_absolute():
                raise BadInput(f"names a file outside of its folder ({name})")
        if not any(name == WEIGHTS or name.startswith(f"{SHARDS}/") for name in self.files):
            raise BadInput(f"files={list(self.files)}: names no weights; use another checkpoint")
        if self.schema_version not in UNSEALED and self.sizes.keys() != self.files.keys():
            raise BadInput("sizes: every one of the files needs its own; use another checkpoint")
        at_least(0, step=self.step or 0)
        batch = self.run.get("global_batch", 1)
        if type(batch) is not int or batch < 1:
            raise BadInput(f"run.global_batch={batch!r}: give 1 or more")


def read_manifest(path: Path, kind: str = "") -> dict[str, Any]:
    """The manifest of a checkpoint folder: its seal, its `Head` and the files' sizes checked.

    Args:
        kind: required kind, "tokenizer" or "worldmodel"; "" for any.

    Raises:
        BadInput: no checkpoint of ours, another schema or kind, or truncated or altered.
    """
    file = path / MANIFEST
    if not file.exists():
        raise BadInput(
            f"ckpt={path}: not a dashcast checkpoint (no manifest.json); give a run folder or a "
            "folder like runs/NAME/checkpoints/step-001000"
        )
    manifest = read_record(file, lambda values: values.get("schema_version") in UNSEALED)
    version = manifest.get("schema_version")
    if version not in READABLE:
        raise BadInput(
            f"{file}: schema {version}, this release reads schema {READABLE[0]} to "
            f"{READABLE[-1]}: use the release that wrote it"
        )
    head = entries(Head, manifest, path)
    check_kind(manifest, path, kind)
    for name in head.files:
        size = head.sizes.get(name)
        if not (path / name).is_file() or size not in (None, (path / name).stat().st_size):
            raise BadInput(f"{path / name}: gone or truncated; use another checkpoint")
    if head.config:
        manifest["config"] = in_todays_words(head.config)
    return manifest


def check_kind(manifest: dict[str, Any], path: Path, kind: str) -> None:
    """BadInput unless a checkpoint is a `kind`; "" is any."""
    found = manifest.get("kind")
    if kind and found != kind:
        raise BadInput(f"{path}: is a {found or 'nameless'} checkpoint, a {kind} is needed")


def check_resumable(path: Path, has_state: bool) -> None:
    if not has_state:
        raise BadInput(f"ckpt={path}: an export without optimizer state cannot be resumed")


def read_resumable(path: Path) -> dict[str, Any]:
    """The manifest of a checkpoint that can be resumed.

    Raises:
        BadInput: as `read_manifest`; or an export or published weights.
    """
    manifest = read_manifest(path)
    check_resumable(path, STATE in manifest["files"])
    config = manifest.get("config")
    if config is None or not isinstance(config.get("trainer", {}), dict):
        raise BadInput(f"{path / MANIFEST}: config: names no settings of a run to go on with")
    return manifest


def entries(cls: type[Entries], manifest: dict[str, Any], path: Path) -> Entries:
    """The entries of a manifest that are fields of a dataclass, each checked.

    Raises:
        BadInput: an entry is missing or invalid.
    """
    named = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    return judged(cls, {k: v for k, v in manifest.items() if k in named}, str(path / MANIFEST))


def weights_hash(manifest: Mapping[str, Any]) -> str:
    """Identity of the weights: sha256 of their file, or of the hashes of their shards."""
    files = manifest["files"]
    if WEIGHTS in files:
        return str(files[WEIGHTS])
    shards = sorted(item for item in files.items() if item[0].startswith(f"{SHARDS}/"))
    return hashlib.sha256(json.dumps(shards).encode()).hexdigest()
