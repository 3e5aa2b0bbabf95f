"""The drives of a store by their ids: loose ones from the manifest, packed ones from an index.

A loose drive has a file of its own and an entry in `manifest.json`. A packed one is some rows of a
shard; its entry is a row of `index-<hash>.arrow`, so that 100,000 of them open in a moment.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int

from drives.remote.mirror import local
from drives.splits.base import SPLITS
from training.disk.hashing import file_sha256
from training.disk.leftovers import partial_of
from training.disk.records import sync
from training.errors import BadInput
from training.ranges import at_least

INDEX = pa.schema(
    {
        "id": pa.string(),
        "split": pa.string(),
        "shard": pa.int32(),  # number in the manifest's list
        "first": pa.int64(),  # row of the shard
        "num_steps": pa.int64(),
        "sha256": pa.string(),  # of the file that the drive had before it was packed: its identity
        "rows_sha256": pa.string(),  # of its tokens and actions in the shard
        "meta": pa.string(),  # JSON
    }
)


@dataclass(frozen=True)
class ShardRecord:
    """What the manifest knows of one shard.

    Attributes:
        size: bytes.
        num_steps: rows.
    """

    file: str
    sha256: str
    size: int
    num_steps: int

    def __post_init__(self) -> None:
        at_least(1, size=self.size, num_steps=self.num_steps)
        own_file(self.file)
        judge_sha256(self.sha256)


@dataclass(frozen=True)
class PackedDrives:
    """The manifest's part about packed drives: the index and the shards that it speaks of."""

    file: str
    sha256: str
    num_drives: int
    shards: tuple[ShardRecord, ...]

    def __post_init__(self) -> None:
        at_least(1, num_drives=self.num_drives)
        own_file(self.file)
        judge_sha256(self.sha256)


class Catalog(Mapping[str, dict[str, Any]]):
    """Entries of all drives, sorted by id.

    Attributes:
        loose: those of the manifest itself.
        shards: records of the packed drives' files.
        index: a row per packed drive.
        ids: of all drives.
        num_steps, first, file: of every drive: token steps, first row, number in `files`.
    """

    def __init__(
        self,
        loose: dict[str, dict[str, Any]],
        shards: Iterable[ShardRecord] = (),
        index: pa.Table | None = None,
    ) -> None:
        self.loose, self.shards = loose, tuple(shards)
        self.index = INDEX.empty_table() if index is None else index
        self.loose_ids = list(loose)
        # A writer reads the index again for every few drives, and needs none of the rest.
        self._packed_ids: list[str] = self.index["id"].to_pylist()
        self.files = [*(str(e["file"]) for e in loose.values()), *(s.file for s in self.shards)]

    @cached_property
    def _source(self) -> np.ndarray:
        """Of every drive: the number of a loose one, or after these of a row of the index."""
        names = [*self.loose, *self._packed_ids]
        return np.array(sorted(range(len(names)), key=names.__getitem__), np.int64)

    @cached_property
    def ids(self) -> list[str]:
        names = [*self.loose, *self._packed_ids]
        return [names[source] for source in self._source]

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.ids)}

    @cached_property
    def _packed_set(self) -> set[str]:
        return set(self._packed_ids)

    @cached_property
    def file(self) -> Int[np.ndarray, " drive"]:
        return self._column("shard", range(len(self.loose)), len(self.loose))

    @cached_property
    def first(self) -> Int[np.ndarray, " drive"]:
        return self._column("first", [0] * len(self.loose))

    @cached_property
    def num_steps(self) -> Int[np.ndarray, " drive"]:
        return self._column("num_steps", [int(e["num_steps"]) for e in self.loose.values()])

    def with_loose(self, loose: dict[str, dict[str, Any]]) -> "Catalog":
        """The same packed drives beside these loose ones."""
        return Catalog(loose, self.shards, self.index)

    def __getitem__(self, id: str) -> dict[str, Any]:
        return self.entry(self._rows[id])

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __contains__(self, id: object) -> bool:
        return id in self.loose or id in self._packed_set

    def __len__(self) -> int:
        return len(self.loose) + len(self._packed_ids)

    def row(self, id: str) -> int | None:
        """The place of a drive in the order of the ids."""
        return self._rows.get(id)

    def entry(self, row: int) -> dict[str, Any]:
        """All that is known of a drive."""
        source = int(self._source[row])
        if source < len(self.loose):
            return self.loose[self.ids[row]]
        return self._packed(self.index.slice(source - len(self.loose), 1).to_pydict(), 0)

    def _packed(self, columns: dict[str, list[Any]], place: int) -> dict[str, Any]:
        kept = ("split", "num_steps", "sha256", "first", "rows_sha256")
        found = {name: columns[name][place] for name in kept}
        found["file"] = self.shards[columns["shard"][place]].file
        return {**found, "meta": json.loads(columns["meta"][place])}

    def entries(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """All ids and entries, read in one go."""
        found = self.index.to_pydict()
        for id, source in zip(self.ids, self._source, strict=True):
            place = int(source) - len(self.loose)
            yield id, self.loose[id] if place < 0 else self._packed(found, place)

    def splits(self) -> list[str]:
        """The split of every drive."""
        names = [entry["split"] for entry in self.loose.values()]
        names += self.index["split"].to_pylist()
        return [names[source] for source in self._source]

    def saying(self, word: str) -> np.ndarray:
        """Whether the `meta` of a drive may have an entry `word`; cheap, where many have none."""
        loose = [word in entry.get("meta", {}) for entry in self.loose.values()]
        packed = pc.match_substring(self.index["meta"], json.dumps(word)).to_numpy()
        return np.concatenate([np.array(loose, bool), packed.astype(bool)])[self._source]

    def _column(self, name: str, loose: Iterable[int], add: int = 0) -> np.ndarray:
        packed = self.index[name].to_numpy().astype(np.int64) + add
        return np.concatenate([np.fromiter(loose, np.int64), packed])[self._source]


def read_catalog(root: Path, loose: dict[str, Any], packed: PackedDrives | None) -> Catalog:
    """The catalog of a manifest whose own values are checked.

    Raises:
        BadInput: the index is missing or altered, or says what cannot be.
    """
    if packed is None:
        return Catalog(loose)
    path = local(root, packed.file, check=packed.sha256)
    try:
        if file_sha256(path) != packed.sha256:
            raise BadInput(f"{path}: truncated or altered since it was written; use another copy")
        with pa.memory_map(str(path)) as file:
            index = pa.ipc.open_file(file).read_all()
    except (OSError, pa.ArrowException) as error:
        raise BadInput(f"{path}: cannot be read ({error}); use another copy") from error
    _judge_index(path, index, packed, loose)
    return Catalog(loose, packed.shards, index)


def write_index(root: Path, rows: pa.Table) -> tuple[str, str]:
    """Write the rows, sorted by id; name and sha256 of the file."""

    def write(path: Path) -> None:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, INDEX) as writer:
            writer.write_table(rows.sort_by("id").combine_chunks())

    return named_by_content(root, "index", write)


def named_by_content(root: Path, kind: str, write: Callable[[Path], None]) -> tuple[str, str]:
    """Write `<kind>-<hash>.arrow`, whole or not at all; its name and its sha256."""
    partial = partial_of(root / f"{kind}.arrow")
    try:
        write(partial)
        sync(partial)
        digest = file_sha256(partial)
        name = f"{kind}-{digest[:16]}.arrow"
        partial.replace(root / name)
    finally:
        partial.unlink(missing_ok=True)
    return name, digest


def _judge_index(path: Path, index: pa.Table, packed: PackedDrives, loose: dict[str, Any]) -> None:
    """BadInput where a value cannot be: nothing is read from a row outside of its shard."""
    if index.schema.remove_metadata() != INDEX or sum(c.null_count for c in index.columns):
        raise BadInput(f"{path}: has other columns than an index; use another copy")
    ids = index["id"].to_pylist()
    if len(ids) != packed.num_drives or len(set(ids)) != len(ids) or "" in ids:
        raise BadInput(f"{path}: {len(ids)} rows for {packed.num_drives} drives; use another copy")
    if both := loose.keys() & set(ids):
        raise BadInput(f"{path}: holds {min(both)}, as the manifest does; use another copy")
    if unknown := set(pc.unique(index["split"]).to_pylist()) - set(SPLITS):
        raise BadInput(f"{path}: split={min(unknown)!r}: choose one of {', '.join(SPLITS)}")
    shard, first, steps = (index[name].to_numpy() for name in ("shard", "first", "num_steps"))
    there = (shard >= 0) & (shard < len(packed.shards)) & (first >= 0) & (steps >= 1)
    rows = np.array([record.num_steps for record in packed.shards] or [0])
    there &= first + steps <= rows[np.where(there, shard, 0)]
    if not there.all():
        row = int(np.argmin(there))
        raise BadInput(
            f"{path}: {ids[row]} is steps {first[row]} to {first[row] + steps[row] - 1} of shard "
            f"{shard[row]}, which has none such; use another copy"
        )


def own_file(name: str) -> None:
    """BadInput unless this is a file of the store's own folder."""
    if not name or Path(name).name != name or name == "..":
        raise BadInput(f"file={name!r}: is no file of the store's own folder")


def judge_sha256(value: str) -> None:
    """BadInput unless this can be a sha256."""
    if len(value) != 64 or set(value) - set("0123456789abcdef"):
        raise BadInput(f"sha256={value!r}: is none")
