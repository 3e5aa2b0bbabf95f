"""Packs the many files of loose drives into few shards: no limit of the kernel is met.

A reader of 100,000 files would need as many maps, and a file system as many inodes. A drive keeps
its identity, the sha256 of the file that it had, so a packed store is the same data.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Features, Value
from datasets import Sequence as ListOf
from datasets.arrow_writer import ArrowWriter

from drives.tokens.catalog import INDEX, Catalog, ShardRecord, named_by_content, write_index
from drives.tokens.files import MappedFile, StoreFiles, rows_sha256
from drives.tokens.manifest import write_store_manifest
from drives.tokens.spec import TokenSpec

PACKED_AT = 512  # loose drives
SHARD_BYTES = 2**28  # a shard is put together in memory


def write_rows(path: Path, spec: TokenSpec, tokens: np.ndarray, actions: np.ndarray) -> None:
    """Write an Arrow file of the columns `tokens` and, where there are any, `actions`."""
    kind = "uint16" if spec.vocab_size <= 2**16 else "uint32"
    table, features = _table(kind, tokens.reshape(len(tokens), -1), actions)
    with ArrowWriter(features=features, path=str(path)) as writer:
        # One batch: reading a column of several batches needs a copy.
        writer.write_table(table, writer_batch_size=len(tokens))
        writer.finalize()


def pack(root: Path, manifest: dict[str, Any], spec: TokenSpec) -> dict[str, Any]:
    """Move all whole loose drives into shards; the new manifest, which is written.

    The files are removed last: whenever this is interrupted, the manifest names files that exist.
    The caller holds the lock of the manifest.
    """
    catalog: Catalog = manifest["drives"]
    files = StoreFiles(root, catalog, spec, len(manifest["action_names"]), verify=True)
    shards, rows, packed = list(catalog.shards), [], []
    for group in _groups(catalog, files):
        record, entries = _write_shard(root, spec, catalog, group, len(shards))
        shards.append(record)
        rows += entries
        packed += [id for id, _ in group]
    if not packed:
        return manifest
    index = pa.concat_tables([catalog.index, pa.Table.from_pylist(rows, INDEX)])
    name, digest = write_index(root, index)
    about = {"file": name, "sha256": digest, "num_drives": len(index)}
    about["shards"] = [vars(shard) for shard in shards]
    left = {id: entry for id, entry in catalog.loose.items() if id not in set(packed)}
    drives = Catalog(left, shards, index)
    new = {**manifest, "packed": about, "drives": drives}
    write_store_manifest(root, new)
    _sweep(root, drives, name)
    return new


def _sweep(root: Path, drives: Catalog, index: str) -> None:
    """Remove files of drives that are packed, and what an interrupted packing left."""
    named = {index, *drives.files}
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


def _table(kind: str, tokens: np.ndarray, actions: np.ndarray) -> tuple[Any, Features]:
    """Arrow table and features: `tokens`, and `actions` where there are any."""
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
