"""The files that wandb keeps offline and `wandb sync` sends, read back by hand.

A .wandb file is a LevelDB log: 7 bytes of header, blocks of 32 KiB, and before every piece its
checksum (4 bytes), length (2) and kind (1: whole, 2: first, 3: middle, 4: last).
"""

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

BLOCK = 32768


def records(file: Path) -> Iterator[Any]:
    """Every whole record of a .wandb file."""
    content, position, record = file.read_bytes(), 7, b""
    while position + 7 <= len(content):
        left = BLOCK - position % BLOCK
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", content[position : position + 7])
        if not kind:
            position += left
            continue
        record += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            parsed = wandb_internal_pb2.Record()
            parsed.ParseFromString(record)
            yield parsed
            record = b""


def history(file: Path) -> list[dict[str, Any]]:
    """Rows of metrics, as they were logged."""
    return [
        {
            item.key or ".".join(item.nested_key): json.loads(item.value_json)
            for item in r.history.item
        }
        for r in records(file)
        if r.WhichOneof("record_type") == "history"
    ]


def run_record(file: Path) -> Any:
    """Who the run is: id, group, job type, config."""
    return next(r.run for r in records(file) if r.WhichOneof("record_type") == "run")


def ended(folder: Path) -> Path:
    """The file of the one run below `folder`, once wandb's own process has written all of it."""
    deadline = time.monotonic() + 30
    while True:
        for file in folder.glob("wandb/offline-run-*/*.wandb"):
            if any(r.WhichOneof("record_type") == "exit" for r in records(file)):
                return file
        assert time.monotonic() < deadline
        time.sleep(0.1)
