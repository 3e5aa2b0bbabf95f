"""Packs the many files of loose drives into few shards: no limit of the kernel is met.

A reader of 100,000 files would need as many maps, and a file system as many inodes. A drive keeps
its identity, the sha256 of the file that it had, so a packed store is the same data.

Readers take no lock and open files late. So the files that a packing replaces stay until the next
one begins.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from drives.tokens.catalog import INDEX, Catalog, ShardRecord, named_by_content, write_index
from drives.tokens.files import MappedFile, StoreFiles, rows_sha256
from drives.tokens.manifest import write_store_manifest
from drives.tokens.spec import TokenSpec

if TYPE_CHECKING:
    from datasets import Features

PACKED_AT = 512  # loose drives
SHARD_BYTES = 2**28  # a shard is put together in memory


def write_rows(path: Path, spec: TokenSpec, tokens: np.ndarray, actions: np.ndarray) -> None:
    """Write an Arrow file of the columns `tokens` and, where there are any, `actions`."""
    from datasets.arrow_writer import ArrowWriter  # pandas loads here, a second; readers need none

    kind = "uint16" if spec.vocab_size <= 2**16 else "uint32"
    table, features = _table(kind, tokens.reshape(len(tokens), -1), actions)
    with ArrowWriter(features=features, path=str(path)) as writer:
        # One batch: reading a column of several batches needs a copy.
        writer.write_table(table, writer_batch_size=len(tokens))
        writer.finalize()


def pack(root: Path, manifest: dict[str, Any], spec: TokenSpec) -> dict[str, Any]:
    """Move all whole loose drives into shards; the new manifest, which is written.

    The files of these drives are left to the next packing: whenever this is interrupted, the
    manifest names files that exist. The caller holds the lock of the manifest.
    """
    catalog: Catalog = manifest["drives"]
    _sweep(root, manifest)
    files = StoreFiles(root, catalog, spec, len(manifest["action_names"]), verify=True)
    shards, rows = list(catalog.shards), []
    for group in _groups(catalog, files):
        record, entries = _write_shard(root, spec, catalog, group, len(shards))
        shards.append(record)
        rows += entries
    if not rows:
        return manifest
    packed = {row["id"] for row in rows}
    left = {id: entry for id, entry in catalog.loose.items() if id not in packed}
    index = pa.concat_tables([catalog.index, pa.Table.from_pylist(rows, INDEX)])
    new = _with_index(root, manifest, left, shards, index)
    write_store_manifest(root, new)
    return new


def lost_drives(root: Path, catalog: Catalog) -> set[str]:
    """Packed drives whose shard is gone, or is not of its size; a stat per shard."""
    lost = [number for number, shard in enumerate(catalog.shards) if not _is_there(root, shard)]
    rows = catalog.index.filter(pc.is_in(catalog.index["shard"], pa.array(lost, pa.int32())))
    return set(rows["id"].to_pylist())


def unpack_lost(root: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest with the lost drives as loose ones, whose files are missing; not yet written.

    So each can be written again, and those that nobody writes are still named.
    """
    catalog: Catalog = manifest["drives"]
    kept = [number for number, shard in enumerate(catalog.shards) if _is_there(root, shard)]
    moved = np.full(len(catalog.shards), -1, np.int32)
    moved[kept] = np.arange(len(kept))
    loose = dict(catalog.loose)
    for id in sorted(lost_drives(root, catalog)):
        entry = catalog[id]
        about = {name: entry[name] for name in ("split", "num_steps", "sha256", "meta")}
        loose[id] = {**about, "file": f"{id}.arrow"}
    shard = pa.array(moved[catalog.index["shard"].to_numpy()])
    place = INDEX.get_field_index("shard")
    index = catalog.index.set_column(place, INDEX.field(place), shard)
    index = index.filter(pc.greater_equal(index["shard"], 0))
    return _with_index(root, manifest, loose, [catalog.shards[number] for number in kept], index)


def _is_there(root: Path, shard: ShardRecord) -> bool:
    try:
        return (root / shard.file).stat().st_size == shard.size
    except FileNotFoundError:
        return False


def _with_index(
    root: Path,
    manifest: dict[str, Any],
    loose: dict[str, dict[str, Any]],
    shards: list[ShardRecord],
    index: pa.Table,
) -> dict[str, Any]:
    """The manifest of these drives; their index is written, the manifest is not."""
    new = {**manifest, "drives": Catalog(loose, shards, index)}
    new.pop("packed", None)
    if len(index):
        name, digest = write_index(root, index)
        about = {"file": name, "sha256": digest, "num_drives": len(index)}
        new["packed"] = {**about, "shards": [vars(shard) for shard in shards]}
    return new


def _sweep(root: Path, manifest: dict[str, Any]) -> None:
    """Remove what the last packing replaced, and what an interrupted one left."""
    drives: Catalog = manifest["drives"]
    named = {manifest.get("packed", {}).get("file"), *drives.files}
    for path in root.glob("*.arrow"):
        ours = path.name.startswith(("shard-", "index-")) or path.stem in drives
        if ours and path.name not in named:
            path.unlink()


def _groups(catalog: Catalog, files: StoreFiles) -> Iterator[list[tuple[str, MappedFile]]]:
    """Whole loose drives of about `SHARD_BYTES` each time; damaged ones stay loose."""
    group: list[tuple[str, MappedFile]] = []
    size = 0
    for number, id in enumerate(catalog.loose):
        found = files[number]
        if found.damage:
            continue
        size += found.tokens.nbytes + found.actions.nbytes
        if group and size > SHARD_BYTES:
            yield group
            group, size = [], found.tokens.nbytes + found.actions.nbytes
        group.append((id, found))
    if group:
        yield group


def _write_shard(
    root: Path,
    spec: TokenSpec,
    catalog: Catalog,
    group: list[tuple[str, MappedFile]],
    number: int,
) -> tuple[ShardRecord, list[dict[str, Any]]]:
    """Write one shard; its record, and the rows of the index."""
    tokens = np.concatenate([found.tokens for _, found in group])
    actions = np.concatenate([found.actions for _, found in group])
    name, digest = named_by_content(
        root, "shard", lambda path: write_rows(path, spec, tokens, actions)
    )
    rows, first = [], 0
    for id, found in group:
        entry = catalog.loose[id]
        place = {"shard": number, "first": first, "num_steps": len(found.tokens)}
        kept = {"split": entry["split"], "sha256": entry["sha256"]}
        about = {"meta": json.dumps(entry.get("meta", {}))}
        about["rows_sha256"] = rows_sha256(found.tokens, found.actions)
        rows.append({"id": id, **place, **kept, **about})
        first += len(found.tokens)
    return ShardRecord(name, digest, (root / name).stat().st_size, first), rows


def _table(kind: str, tokens: np.ndarray, actions: np.ndarray) -> tuple[Any, "Features"]:
    """Arrow table and features: `tokens`, and `actions` where there are any."""
    from datasets import Features, Value
    from datasets import Sequence as ListOf

    lists, features = {"tokens": tokens.astype(kind)}, {"tokens": kind}
    if actions.shape[1]:
        lists["actions"], features["actions"] = actions.astype(np.float32), "float32"
    schema = Features(
        {name: ListOf(Value(kind), length=lists[name].shape[1]) for name, kind in features.items()}
    )
    columns = {
        name: pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
        for name, values in lists.items()
    }
    return pa.table(columns).cast(schema.arrow_schema), schema
