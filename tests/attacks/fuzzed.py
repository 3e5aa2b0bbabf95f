"""One reader of files and thousands of damaged files, in a process of its own.

python -m attacks.fuzzed NAME COUNT FOLDER     (tests on PYTHONPATH) prints the outcomes as JSON
"""

import faulthandler
import json
import pickle
import resource
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attacks.imported_readers import IMPORTED_READERS
from attacks.own_readers import OWN_READERS

from training.errors import BadInput

TIMEOUT_S = 20  # for one input; the process then ends with the place where it hung
ADDED_MB = 1500  # address space beyond what the process has when it begins
READERS = {**OWN_READERS, **IMPORTED_READERS}


def mutations(whole: bytes, count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Flipped bits, cuts, pieces repeated, missing, inserted, wild or zero; never `whole`."""
    rng = np.random.default_rng(seed)
    kinds = ("flip", "flips", "cut", "repeat", "drop", "insert", "wild", "zeros")
    made = tried = 0
    while made < count:
        kind = kinds[tried % len(kinds)]
        tried += 1  # of a file of zeros, some kinds never make another
        at = int(rng.integers(max(1, len(whole))))
        length = int(rng.integers(1, max(2, min(600, len(whole) // 4))))
        data = bytearray(whole)
        if kind in ("flip", "flips") and whole:
            for bit in rng.integers(8 * len(whole), size=1 if kind == "flip" else 8):
                data[bit // 8] ^= 1 << int(bit % 8)
        elif kind == "cut":
            del data[at:]
        elif kind == "repeat":
            data[at:at] = data[at : at + length]
        elif kind == "drop":
            del data[at : at + length]
        elif kind == "insert":
            data[at:at] = rng.bytes(length)
        else:
            piece = rng.bytes(length) if kind == "wild" else bytes(length)
            data[at : at + length] = piece[: len(data) - at]
        if bytes(data) != whole:
            yield kind, bytes(data)
            made += 1


def plain(content: Any) -> bytes:
    """Equal for equal content."""
    if isinstance(content, np.ndarray | torch.Tensor):
        array = np.asarray(content)
        return f"{array.dtype}{array.shape}".encode() + array.tobytes()
    if isinstance(content, dict):
        return b"{" + b",".join(plain(k) + b":" + plain(v) for k, v in content.items()) + b"}"
    if isinstance(content, list | tuple):
        return b"[" + b",".join(map(plain, content)) + b"]"
    return pickle.dumps(repr(content))


def attack(name: str, count: int, folder: Path) -> dict[str, Any]:
    """Outcomes by name, and what should not have come."""
    reader = READERS[name]
    file = reader.make(folder)
    whole = file.read_bytes()
    right = plain(reader.read(file))
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + ADDED_MB * 2**20, resource.RLIM_INFINITY))
    found: Counter[str] = Counter()
    wrong: dict[str, str] = {}
    fewer = 0
    for index, (kind, data) in enumerate(mutations(whole, count, seed=7)):
        (folder / "last.bin").write_bytes(data)  # what a crash or a hang was made by
        file.unlink(missing_ok=True)
        file.write_bytes(data)
        faulthandler.dump_traceback_later(TIMEOUT_S, exit=True)
        try:
            content = reader.read(file)
            same = plain(content) == right
            found["same" if same else "other"] += 1
            fewer += name.startswith("segments") and len(content[0]) < 3
        except BadInput as error:
            names = (file.name, str(file.parent), *((reader.named,) if reader.named else ()))
            names_it = any(name in str(error) for name in names)
            found["refused" if names_it else "refused, not named"] += 1
            if not names_it:
                wrong.setdefault("not named", f"{index} {kind}: {error}")
        except Exception as error:  # what this looks for
            found["escaped"] += 1
            wrong.setdefault(type(error).__name__, f"{index} {kind}: {error}"[:300])
        finally:
            faulthandler.cancel_dump_traceback_later()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {"outcomes": found, "wrong": wrong, "fewer": fewer, "bytes": len(whole), "peak_mb": peak}


if __name__ == "__main__":
    print(json.dumps(attack(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))))
