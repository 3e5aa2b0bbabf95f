"""Token stores from an hour to 100,000 minutes: opening, a window, memory.

The files are sparse: 34 GB that take no disk. Each size is measured in a process of its own, which
says what it holds. A first process examines the files, once per machine; later ones do not.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks import Row
from drives.content import hashes_of
from drives.tokens.catalog import INDEX, Catalog, ShardRecord, write_index
from drives.tokens.files import rows_sha256
from drives.tokens.manifest import write_store_manifest
from drives.tokens.packing import write_rows
from drives.tokens.spec import TokenSpec
from drives.tokens.store import TokenStore
from training.disk.hashing import file_sha256
from training.loading.loader import OrderedLoader
from training.loading.order import DataOrder
from worldmodel.windows import TokenWindows, collate

SPEC = TokenSpec((1, 8, 16), 1024, 20.0, 1, (128, 256), "benchmark")
NAMES = ("speed_mps", "yaw_rate_rad_s")
STEPS, IN_SHARD = 1200, 500  # frames of a minute, minutes of a shard
MINUTES = (60, 1000, 10_000, 100_000)
FRAMES, BATCH, BATCHES = 20, 12, 400
LIMIT_S = 2.0


def rows() -> Iterator[Row]:
    """Against the smallest store; opening against its limit."""
    with tempfile.TemporaryDirectory() as folder:
        found = {minutes: measured(Path(folder) / str(minutes), minutes) for minutes in MINUTES}
    small, large = (found[minutes] for minutes in (MINUTES[0], MINUTES[-1]))
    said = ", ".join(f"{m} min: {f['open_s']:.2f} s" for m, f in found.items())
    yield Row(
        f"opening {MINUTES[-1]} segments ({large['gigabytes']:.0f} GB; {said})",
        f"{large['open_s']:.2f} s",
        f"limit {LIMIT_S:g} s",
        LIMIT_S / large["open_s"],
        1.0,
    )
    for name, unit in (("window_us", "us per window"), ("start_ms", "ms to the first batch")):
        said = ", ".join(f"{m} min: {f[name]:.0f}" for m, f in found.items())
        ours, theirs = f"{large[name]:.0f} {unit}", f"{MINUTES[0]} min, {small[name]:.0f}"
        yield Row(f"{unit} ({said})", ours, theirs, small[name] / large[name])
    said = ", ".join(f"{m} min: {f['own_mb']:.0f}" for m, f in found.items())
    yield Row(
        f"MB of memory of its own, files not counted ({said})",
        f"{large['own_mb']:.0f} MB",
        f"{MINUTES[0]} min, {small['own_mb']:.0f}",
        small["own_mb"] / large["own_mb"],
    )


def measured(root: Path, minutes: int) -> dict[str, float]:
    """Figures of a store of this size; the files are examined first, by another process."""
    gigabytes = write_sparse(root, minutes)
    for _ in range(2):
        command = [sys.executable, "-m", "benchmarks.data.large_store", str(root)]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {**json.loads(shown.splitlines()[-1]), "gigabytes": gigabytes}


def write_sparse(root: Path, minutes: int) -> float:
    """A store of zeros, whose shards are holes with a header; its size in GB."""
    root.mkdir()
    shards: list[ShardRecord] = []
    entries: list[dict[str, Any]] = []
    zeros = np.zeros((STEPS, 8, 16), np.uint16), np.zeros((STEPS, len(NAMES)), np.float32)
    same = {"num_steps": STEPS, "sha256": "0" * 64, "rows_sha256": rows_sha256(*zeros)}
    whole = root / "whole"
    digests: dict[int, str] = {}
    for number in range(-(-minutes // IN_SHARD)):
        count = min(IN_SHARD, minutes - number * IN_SHARD)
        if count not in digests:
            many = [np.zeros((count * STEPS, *part.shape[1:]), part.dtype) for part in zeros]
            write_rows(whole, SPEC, *many)
            digests[count] = file_sha256(whole)
        path = root / f"shard-{number:05d}.arrow"
        _copied_sparse(whole, path)
        size = path.stat().st_size
        shards.append(ShardRecord(path.name, digests[count], size, count * STEPS))
        for place in range(count):
            about = json.dumps({"footage": f"{number:08x}{place:08x}"})
            where = {"id": f"{number:05d}-{place:03d}", "split": "train", "shard": number}
            where["first"] = place * STEPS
            entries.append({**where, **same, "meta": about})
    whole.unlink()
    name, digest = write_index(root, pa.Table.from_pylist(entries, INDEX))
    packed = {"file": name, "sha256": digest, "num_drives": len(entries)}
    packed["shards"] = [vars(shard) for shard in shards]
    head = {"spec": json.loads(json.dumps(asdict(SPEC))), "action_names": list(NAMES)}
    write_store_manifest(root, {**head, "drives": Catalog({}), "packed": packed})
    return sum(shard.size for shard in shards) / 1e9


def _copied_sparse(source: Path, path: Path) -> None:
    with source.open("rb") as read, path.open("wb") as written:
        while block := read.read(2**20):
            if block.count(0) == len(block):
                written.seek(len(block), 1)
            else:
                written.write(block)
        written.truncate(source.stat().st_size)


def main(root: Path) -> dict[str, float]:
    """Figures of a store, in this process."""
    before, began, worked = _own_mb(), time.perf_counter(), time.process_time()
    store = TokenStore(root)
    opened = time.perf_counter()
    windows = TokenWindows(store.drives("train"), FRAMES)
    order = DataOrder(len(windows), BATCHES, BATCH, seed=0)
    batches = iter(OrderedLoader(windows, order, collate))
    next(batches)
    first, worked = time.perf_counter(), time.process_time() - worked
    for drive in store.all:  # a run of hours has touched every file
        assert not drive.damage
    hashes_of(root).save()
    took = []
    for _ in range(BATCHES - 1):
        start = time.process_time()
        next(batches)
        took.append((time.process_time() - start) / BATCH)
    return {
        "open_s": opened - began,
        "start_ms": (first - opened) * 1e3,
        "start_cpu_s": worked,
        "window_us": float(np.median(took)) * 1e6,
        "own_mb": _own_mb() - before,
    }


def _own_mb() -> float:
    """Memory of this process that is no file's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith("RssAnon"))


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
