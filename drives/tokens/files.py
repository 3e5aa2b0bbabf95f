"""The files of a token store: mapped into memory when first needed, and then examined once.

A file is examined once per machine: its sha256 and its highest token are kept with the hashes of
its folder (`drives/content.py`), by size, dates and inode.
"""

import ctypes
import hashlib
import mmap
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from drives.content import hashes_of
from drives.remote.mirror import Unreachable, local, mirror_of
from drives.tokens.catalog import Catalog, ShardRecord
from drives.tokens.spec import TokenSpec, check_tokens, frame_shape
from training.errors import BadInput

# The kernel's default limit is 65,530 maps per process (vm.max_map_count).
MAX_MAPPED = 16384


@dataclass(frozen=True)
class MappedFile:
    """A mapped file.

    Attributes:
        tokens: unsigned [row *grid].
        actions: float32 [row action].
        damage: why nothing of it can be read.
        damaged: why single drives cannot be read, by their rows in the catalog.
    """

    tokens: np.ndarray
    actions: np.ndarray
    damage: str = ""
    damaged: dict[int, str] = field(default_factory=dict)


class StoreFiles:
    """All files of a store, by their numbers in the catalog.

    Args:
        verify: whether to compare content with what was written.
    """

    def __init__(
        self, root: Path, catalog: Catalog, spec: TokenSpec, num_actions: int, verify: bool
    ) -> None:
        self.root, self.catalog, self.spec = root, catalog, spec
        self.num_actions, self.verify = num_actions, verify
        self._mapped: dict[int, MappedFile] = {}
        memory = os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE
        self._is_huge = sum(shard.size for shard in catalog.shards) > memory // 2

    @cached_property
    def _max_mapped(self) -> int:
        """What is mapped keeps its bytes on the disk, though the file is deleted."""
        mirror, largest = mirror_of(self.root), max(self.sizes.values(), default=0)
        if mirror is None or not largest:
            return MAX_MAPPED
        return max(1, min(MAX_MAPPED, int(mirror.limit_gb * 1e9 / 4 / largest)))

    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), "_mapped": {}}  # another process maps anew, and copies nothing

    def __getitem__(self, number: int) -> MappedFile:
        found = self._mapped.get(number)
        if found is None:
            if len(self._mapped) >= self._max_mapped:
                self._mapped.pop(next(iter(self._mapped)))
            found = self._mapped[number] = self._examined(number)
        return found

    def absent(self) -> list[str]:
        """What is wrong with the sizes of the shards; no file is opened."""
        if mirror_of(self.root):
            return []
        return [reason for shard in self.catalog.shards if (reason := self._misfit(shard))]

    def prefetch(self, numbers: Iterable[int]) -> None:
        """Fetch these files of a mirrored store in the background, the first first."""
        if mirror := mirror_of(self.root):
            names = dict.fromkeys(self.catalog.files[number] for number in numbers)
            mirror.prefetch(names, self.sizes)

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Bytes of every shard."""
        return {shard.file: shard.size for shard in self.catalog.shards}

    def _examined(self, number: int) -> MappedFile:
        loose = len(self.catalog.loose)
        try:
            if number < loose:
                return self._loose(self.catalog.loose_ids[number])
            return self._shard(number, self.catalog.shards[number - loose])
        except Unreachable:
            raise  # the network's fault is no damage of the data, and may be over soon
        except BadInput as error:
            nothing = np.zeros((0, *frame_shape(self.spec)), np.uint16)
            return MappedFile(nothing, np.zeros((0, self.num_actions), np.float32), str(error))

    def _loose(self, id: str) -> MappedFile:
        entry = self.catalog.loose[id]
        file = entry["file"]
        path = local(self.root, file, check=entry["sha256"])
        if not path.is_file():
            raise BadInput(f"{path}: missing; encode the drives again")
        digest = hashes_of(self.root).of(file, path) if self.verify else entry["sha256"]
        if digest != entry["sha256"] and mirror_of(self.root):  # encoded again, there
            path.unlink(missing_ok=True)
            path = local(self.root, file, check=entry["sha256"])
            digest = hashes_of(self.root).of(file, path)
        if digest != entry["sha256"]:
            raise BadInput(
                f"{path}: altered since it was written (sha256 differs); encode it again"
            )
        found = self._map(path, entry["num_steps"])
        if self.verify:
            name = f"{file}: highest token"
            highest = hashes_of(self.root).of(name, path, _highest(found.tokens))
            if int(highest) >= self.spec.vocab_size:
                check_tokens(found.tokens, self.spec, str(path))
        return found

    def _shard(self, number: int, record: ShardRecord) -> MappedFile:
        path = local(self.root, record.file, record.size, record.sha256)
        if reason := self._misfit(record):
            raise BadInput(reason)
        found = self._map(path, record.num_steps)
        if self.verify and not self._is_whole(record, path):
            rows = np.flatnonzero(self.catalog.file == number).tolist()
            reasons = {row: self._damage_of_rows(row, found, path) for row in rows}
            damaged = {row: reason for row, reason in reasons.items() if reason}
            return MappedFile(found.tokens, found.actions, "", damaged)
        return found

    def _is_whole(self, record: ShardRecord, path: Path) -> bool:
        def measure(file: object) -> str:
            # One read for both; through the map, every page would be a fault of its own.
            content = path.read_bytes()
            tokens = self._columns(pa.py_buffer(content))[0]
            return f"{hashlib.sha256(content).hexdigest()} {int(tokens.max())}"

        name = f"{record.file}: sha256, highest token"
        digest, highest = hashes_of(self.root).of_shared(name, path, measure).split()
        return digest == record.sha256 and int(highest) < self.spec.vocab_size

    def _misfit(self, record: ShardRecord) -> str:
        path = self.root / record.file
        if not path.is_file():
            return f"{path}: missing; copy the store again, or encode the drives again"
        if (size := path.stat().st_size) != record.size:
            return (
                f"{path}: {size} bytes, the manifest says {record.size}: a partial copy or "
                "download; copy it again, or encode the drives again"
            )
        return ""

    def _damage_of_rows(self, row: int, shard: MappedFile, path: Path) -> str:
        entry = self.catalog.entry(row)
        start, stop = entry["first"], entry["first"] + entry["num_steps"]
        tokens, actions = shard.tokens[start:stop], shard.actions[start:stop]
        where = f"{path}, steps {start} to {stop - 1}"
        if rows_sha256(tokens, actions) != entry["rows_sha256"]:
            return (
                f"{where}: altered since they were written (sha256 differs); copy the file "
                "again, or encode the drive again"
            )
        try:
            check_tokens(tokens, self.spec, where)
        except BadInput as error:
            return str(error)
        return ""

    def _map(self, path: Path, num_steps: int) -> MappedFile:
        try:
            # The map outlives the file: a store of many files needs no file to stay open.
            with pa.memory_map(str(path)) as file:
                tokens, actions = self._columns(file)
        except (pa.ArrowException, LookupError, ValueError, TypeError, OSError) as error:
            raise BadInput(
                f"{path}: is not what the manifest describes ({error}); encode the drives again"
            ) from error
        if len(tokens) != num_steps or len(actions) != num_steps:
            raise BadInput(
                f"{path}: {len(tokens)} steps where the manifest says {num_steps}; "
                "encode the drives again"
            )
        if self._is_huge:
            _read_no_more_than_asked(tokens, actions)
        return MappedFile(tokens.reshape(-1, *frame_shape(self.spec)), actions)

    def _columns(self, source: Any) -> tuple[np.ndarray, np.ndarray]:
        with pa.ipc.open_stream(source) as stream:
            table = stream.read_all()
        tokens = _column(table, "tokens", self.spec.tokens_per_step)
        if not self.num_actions:
            return tokens, np.zeros((len(tokens), 0), np.float32)
        return tokens, _column(table, "actions", self.num_actions)


def _read_no_more_than_asked(*arrays: np.ndarray) -> None:
    """Switch off the system's reading ahead in maps: up to megabytes for each random window."""
    system = ctypes.CDLL(None)
    for array in arrays if hasattr(system, "madvise") else ():
        address = array.__array_interface__["data"][0]
        start = address // mmap.PAGESIZE * mmap.PAGESIZE
        size = address + array.nbytes - start
        system.madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), mmap.MADV_RANDOM)


def _highest(tokens: np.ndarray) -> Callable[[object], str]:
    return lambda _: str(int(tokens.max()))


def rows_sha256(tokens: np.ndarray, actions: np.ndarray) -> str:
    """sha256 of a packed drive's tokens and actions, as they lie in the shard."""
    digest = hashlib.sha256(np.ascontiguousarray(tokens).data)
    digest.update(np.ascontiguousarray(actions).data)
    return digest.hexdigest()


def _column(table: pa.Table, name: str, width: int) -> np.ndarray:
    """A fixed-size list column as [row width]; a view of the file if it has one chunk."""
    column = table.column(name)
    if getattr(column.type, "list_size", None) != width:
        raise ValueError(f"column {name} is {column.type}, not lists of {width}")
    chunks = [c.flatten().to_numpy(zero_copy_only=True) for c in column.chunks]
    values = chunks[0] if len(chunks) == 1 else np.concatenate(chunks)
    return values.reshape(-1, width)
