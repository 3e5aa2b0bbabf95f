"""A world model in few bytes: matrices rounded to integers of a few bits, then range-coded.

    "dashcast model\n", lengths, about (JSON), half-precision numbers, code, digest

Every row of a matrix has a scale in half precision, chosen for the least squared error. The
integers of all matrices share one histogram, whose entropy they cost. Vectors are kept in half
precision. What is opened is the rounded model, so the codec codes with that very one.

A matrix whose rows lie on grids already, as self-compression leaves them
(`training.optimization.self_compression`), is kept as it is: a row has an exponent of two and a
depth, the bits of its largest integer. Rows of one depth share a histogram; rows of depth 0 are
zero and cost nothing.
"""

import json
import lzma
import math
import struct
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor

from training.checkpoints.fitting import IMPOSSIBLE
from training.checkpoints.folder import OpenedCheckpoint
from training.disk.leftovers import written_whole
from training.disk.places import refuse_existing, writable_file
from training.errors import BadInput, first_line
from training.ranges import within
from worldmodel.codec.container import DIGEST, digest_of
from worldmodel.codec.packing import grids
from worldmodel.load import WorldModel, load_world_model, manifest_of, world_model_from

MAGIC = b"dashcast model\n"
LENGTHS = struct.Struct("<III")
SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)  # of a row's largest weight that its range reaches
LEAST_BITS, MOST_BITS = 2, 12
ROUNDED = -1  # the class of integers that `pack` rounded itself
# What a stranger's file may ask for: weights, and bytes of its description and of its vectors.
MOST_WEIGHTS, MOST_TEXT, MOST_VECTORS = 2**30, 2**24, 2**28


def pack(ckpt: str, out: Path, bits: int) -> int:
    """Write a world model with matrices of `bits` bits; returns the file's size in bytes.

    Raises:
        BadInput: no world model, `out` exists, or bits out of range.
    """
    within(LEAST_BITS, MOST_BITS, bits=bits)
    out = writable_file("out", out)
    refuse_existing("out", out)
    content = packed(load_world_model(ckpt), bits)
    with written_whole(out) as partial:
        partial.write_bytes(content)
    return len(content)


def packed(model: WorldModel, bits: int) -> bytes:
    """The content of such a file."""
    state = model.network.state_dict()
    halves, on_grid, rows = [], [], defaultdict[int, list[np.ndarray]](list)
    for name, value in state.items():
        if value.ndim < 2:
            halves.append(value.float().numpy().astype("<f2").reshape(-1))
        elif (grid := grids.found(value.float().flatten(1).numpy())) is not None:
            on_grid.append(name)
            halves.append(grid.pairs)
            for depth, row in zip(grid.depths.tolist(), grid.integers, strict=True):
                rows[depth].append(row)
        else:
            scales, whole = to_integers(value.float().flatten(1), 2 ** (bits - 1) - 1)
            halves.append(scales.numpy().astype("<f2"))
            rows[ROUNDED].append(whole.numpy().reshape(-1))
    rows.pop(0, None)
    code, counts = grids.encoded(rows)
    about = {
        **manifest_of(model.network.config, model.spec, model.action_names),
        **({"published": {}} if "published" in model.manifest else {}),
        **_trained(model.manifest),
        "tensors": {name: list(value.shape) for name, value in state.items()},
        "counts": counts.pop(ROUNDED, []),
        **({"on_grid": on_grid, "depths": counts} if on_grid else {}),
    }
    parts = (
        lzma.compress(json.dumps(about).encode(), lzma.FORMAT_ALONE, preset=9),
        lzma.compress(_planes(np.concatenate(halves)), lzma.FORMAT_ALONE, preset=9),
        code,
    )
    body = MAGIC + LENGTHS.pack(*map(len, parts)) + b"".join(parts)
    return body + digest_of(body)


def _trained(manifest: dict[str, Any]) -> dict[str, Any]:
    """What `budget` tells of the training, where the checkpoint says it."""
    frames = manifest.get("run", {}).get("train_steps")
    known = {"steps": manifest.get("step"), "frames": frames}
    return {"trained": known} if None not in known.values() else {}


def to_integers(
    rows: Float[Tensor, "row column"], most: int
) -> tuple[Float[Tensor, " row"], Integer[Tensor, "row column"]]:
    """A scale for every row, and integers of at most `most`; their products are near the rows."""
    largest = rows.abs().amax(1, keepdim=True).clamp(min=1e-6)
    best, chosen = torch.full_like(largest, torch.inf), largest / most
    for share in SHARES:
        scale = (largest * (share / most)).half().float().clamp(min=2**-24)
        error = (_rounded(rows, scale, most) * scale - rows).square().sum(1, keepdim=True)
        chosen = torch.where(error < best, scale, chosen)
        best = torch.minimum(error, best)
    return chosen[:, 0], _rounded(rows, chosen, most).int()


def _rounded(rows: Tensor, scale: Tensor, most: int) -> Tensor:
    return (rows / scale).round().clamp(-most, most)


def _planes(halves: np.ndarray) -> bytes:
    """High bytes, then low bytes: alike stands by alike."""
    return halves.view(np.uint8).reshape(-1, 2).T.tobytes()


def is_packed(path: Path) -> bool:
    """Whether a file begins as `pack` writes it."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def open_packed(path: Path) -> WorldModel:
    """The model in a file of `pack`.

    Raises:
        BadInput: truncated, altered, or of another release.
    """
    content = path.read_bytes()
    body, start = content[:-DIGEST], len(MAGIC) + LENGTHS.size
    if len(content) < start + DIGEST or digest_of(body) != content[-DIGEST:]:
        raise BadInput(f"{path}: is truncated or altered; use another copy")
    places = np.cumsum([start, *LENGTHS.unpack(body[len(MAGIC) : start])])
    try:
        parts = [body[a:b] for a, b in pairwise(places)]
        about = json.loads(_unpacked(parts[0], MOST_TEXT))
        halves = np.frombuffer(_unpacked(parts[1], MOST_VECTORS), np.uint8).reshape(2, -1).T
        weights = _weights(about, np.ascontiguousarray(halves).view("<f2")[:, 0], parts[2])
        return world_model_from(OpenedCheckpoint(path, about, weights))
    except BadInput:
        raise
    except (*IMPOSSIBLE, AssertionError, AttributeError, lzma.LZMAError) as error:
        raise BadInput(f"{path}: is no model of this release ({first_line(error)})") from error


def _unpacked(content: bytes, most: int) -> bytes:
    """What was compressed; ValueError for more than `most` bytes, before they are there."""
    opened = lzma.LZMADecompressor()
    found = opened.decompress(content, most + 1)
    if len(found) > most:
        raise ValueError(f"a part holds more than {most} bytes")
    return found


def _weights(about: dict[str, Any], halves: np.ndarray, code: bytes) -> dict[str, Tensor]:
    shapes: dict[str, list[int]] = about["tensors"]
    if any(type(n) is not int or n < 1 for shape in shapes.values() for n in shape):
        raise ValueError("a tensor has no such size")
    total = sum(math.prod(shape) for shape in shapes.values() if len(shape) > 1)
    if total > MOST_WEIGHTS:
        raise ValueError(f"{total} weights; {MOST_WEIGHTS} at most")
    told = {ROUNDED: about["counts"], **about.get("depths", {})}
    counts = {int(depth): np.array(own, np.int64) for depth, own in told.items()}
    own, place = {}, 0
    for name, shape in shapes.items():
        count = shape[0] if shape else 1
        own[name] = halves[place : place + count]
        place += count
    on_grid = {name: grids.read_pairs(own[name]) for name in about.get("on_grid", ())}
    sizes = dict.fromkeys(counts, 0)
    for name, shape in shapes.items():
        if len(shape) < 2:
            continue
        depths = on_grid[name][0] if name in on_grid else np.full(shape[0], ROUNDED)
        for depth, rows in zip(*np.unique(depths, return_counts=True), strict=True):
            if depth:
                sizes[int(depth)] += int(rows) * math.prod(shape[1:])
    queues = grids.decoded(code, counts, {d: size for d, size in sizes.items() if size})
    found = {}
    for name, shape in shapes.items():
        value = own[name].astype(np.float32)
        if name not in on_grid and not np.isfinite(value).all():
            raise ValueError(f"{name} is not finite")
        if name in on_grid:
            value = _on_grid(*on_grid[name], math.prod(shape[1:]), queues)
        elif len(shape) > 1:
            integers = _next(queues, ROUNDED, math.prod(shape)).reshape(shape[0], -1)
            # A single product: the same on every machine.
            value = integers.astype(np.float32) * value[:, None]
        found[f"network.{name}"] = torch.from_numpy(value.reshape(shape))
    return found


def _on_grid(
    depths: np.ndarray, exponents: np.ndarray, columns: int, queues: dict[int, np.ndarray]
) -> Float[np.ndarray, "row column"]:
    rows = np.zeros((len(depths), columns))
    for row, depth in zip(rows, depths.tolist(), strict=True):
        if depth:
            row[:] = _next(queues, depth, columns)
    return np.ldexp(rows, exponents[:, None]).astype(np.float32)


def _next(queues: dict[int, np.ndarray], depth: int, count: int) -> np.ndarray:
    """Take the next integers of a class."""
    taken, queues[depth] = queues[depth][:count], queues[depth][count:]
    return taken
