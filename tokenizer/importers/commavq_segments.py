"""commaVQ's segments: tokens and poses in WebDataset tars, or extracted side by side.

A sample is `<key>.token.npy`, `<key>.pose.npy` and perhaps `<key>.json`, in `data-0000.tar.gz`, ...
or in a folder. Archives are read from front to back and nothing is unpacked or unpickled.
"""

import gzip
import hashlib
import io
import json
import re
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import Float, Integer

from tokenizer.token_store import TokenSpec, check_tokens
from training.errors import BadInput

SPEC = TokenSpec(
    grid=(1, 8, 16),
    vocab_size=1024,
    fps=20,
    frames_per_step=1,
    image_size=(128, 256),
    tokenizer="commavq",
)
NUM_POSES = 6
DAMAGE = (tarfile.TarError, EOFError, OSError, zlib.error)
TARS = (".tar", ".tar.gz", ".tgz")
ALONE = ("tokens.npy", "token.npy")
TOKENS, POSES = "token.npy", "pose.npy"
BLOCK = 512


@dataclass(frozen=True)
class Segment:
    """One recording.

    Attributes:
        name: its key, fit for a file name.
        where: the file and member it comes from.
        poses: row t belongs to frame t; None where there are none.
    """

    name: str
    where: str
    tokens: Integer[np.ndarray, "frame 8 16"] = field(repr=False)
    poses: Float[np.ndarray, "frame 6"] | None = field(repr=False)


@dataclass(frozen=True)
class _Member:
    name: str
    part: str
    where: str
    file: IO[bytes]


def files_of(source: Path) -> list[Path]:
    """The archives or .npy files that `source` names.

    Raises:
        BadInput: there are none.
    """
    if not source.exists():
        raise BadInput(f"{source}: no such file or folder; give commaVQ's tokens or tars")
    if source.is_file():
        beside = source.with_name(_pose_name(source.name))
        poses = [beside] if beside != source and beside.is_file() else []
        return [source, *(poses if source.suffix == ".npy" else ())]
    names = sorted(p.name for p in source.iterdir() if p.is_file() and not p.name.startswith("."))
    tars = [source / name for name in names if name.endswith(TARS)]
    pairs = [source / name for name in names if name.endswith((f".{TOKENS}", f".{POSES}"))]
    alone = [source / name for name in ALONE if name in names]
    found = tars or pairs or [file for name in alone[:1] for file in files_of(name)]
    if not found:
        raise BadInput(
            f"{source}: holds no *.tar.gz, no *.token.npy and no tokens.npy; give the folder of "
            "commaVQ's tars or of what was extracted from them"
        )
    return found


def files_key(files: list[Path]) -> str:
    """sha256 over names, sizes and times: changes when a file changes."""
    stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(json.dumps(stats).encode()).hexdigest()


def has_poses(files: list[Path]) -> bool:
    """Whether the first segment has poses, and so all (`list_segments` sees to it)."""
    first = next(_samples(files), ("", iter(())))
    return any(member.part == POSES for member in first[1])


def list_segments(files: list[Path]) -> list[str]:
    """Names of all segments, in order; reads archives to their end, and so finds them whole.

    Raises:
        BadInput: an archive is damaged, a segment lacks its tokens, some have poses and others
            do not, or two have one name.
    """
    found: dict[str, bool] = {}
    for name, sample in _samples(files):
        parts = [(member.part, member.where) for member in sample]
        kinds, where = {part for part, _ in parts}, parts[0][1]
        if TOKENS not in kinds:
            raise BadInput(f"{where}: segment {name} has no {TOKENS}; complete it or leave it out")
        if name in found or len(parts) != len(kinds):
            raise BadInput(f"{where}: another segment is called {name} as well; rename one")
        found[name] = POSES in kinds
    if not found:
        raise BadInput(f"{files[0]}: holds no segment; give one of commaVQ's tars")
    if len(set(found.values())) > 1:
        lacking = next(name for name, posed in found.items() if not posed)
        raise BadInput(
            f"{files[0].parent}: segment {lacking} has no {POSES} and others have one; complete "
            "it, or leave out such segments or all poses"
        )
    return list(found)


def read_segments(files: list[Path]) -> Iterator[Segment]:
    """Every segment, one at a time.

    Raises:
        BadInput: an archive is damaged, or an array is not what commaVQ's are (see `Segment`).
    """
    for name, sample in _samples(files):
        arrays = {m.part: (m.where, _array(m)) for m in sample if m.part in (TOKENS, POSES)}
        if TOKENS not in arrays:
            raise BadInput(f"{name}: has no {TOKENS}; complete it or leave it out")
        where, tokens = arrays[TOKENS]
        tokens = _checked_tokens(tokens, where)
        poses = _checked_poses(*arrays[POSES], len(tokens)) if POSES in arrays else None
        yield Segment(name, where, tokens, poses)


def _checked_tokens(tokens: np.ndarray, where: str) -> Integer[np.ndarray, "frame 8 16"]:
    if not np.issubdtype(tokens.dtype, np.integer):
        raise BadInput(f"{where}: holds no array of integers; give commaVQ's tokens")
    if tokens.ndim == 2 and tokens.shape[1] == SPEC.tokens_per_step:
        tokens = tokens.reshape(-1, *SPEC.grid[1:])
    check_tokens(tokens, SPEC, where)
    return tokens


def _checked_poses(where: str, poses: np.ndarray, num: int) -> Float[np.ndarray, "frame 6"]:
    if poses.shape != (num, NUM_POSES) or not np.issubdtype(poses.dtype, np.floating):
        raise BadInput(
            f"{where}: holds {poses.dtype} of shape {poses.shape}; give {NUM_POSES} real numbers "
            f"for each of the {num} frames, or remove the file"
        )
    if not np.isfinite(poses).all():
        frame = int(np.argwhere(~np.isfinite(poses))[0][0])
        raise BadInput(f"{where}: frame {frame} is not finite; leave the segment out")
    return poses.astype(np.float32)


def _array(member: _Member) -> np.ndarray:
    try:
        return np.lib.format.read_array(io.BytesIO(member.file.read()), allow_pickle=False)
    except (ValueError, MemoryError, *DAMAGE) as error:  # MemoryError: of a made up size
        raise BadInput(
            f"{member.where}: is not a NumPy array file ({error}); copy it again"
        ) from error


def _samples(files: list[Path]) -> Iterator[tuple[str, Iterator[_Member]]]:
    return groupby(_members(files), key=lambda member: member.name)


def _members(files: list[Path]) -> Iterator[_Member]:
    for file in files:
        with _named(file):
            if file.name.endswith(TARS):
                yield from _tar_members(file)
                continue
            with file.open("rb") as opened:
                yield _Member(*_key(file.name, file), str(file), opened)


def _tar_members(file: Path) -> Iterator[_Member]:
    """The files of an archive, in its order; a stream is at one of them at a time."""
    packed = not file.name.endswith(".tar")
    with file.open("rb") as raw:
        if not packed:
            # Cut between two members, it would read as a shorter archive; gzip has a checksum.
            raw.seek(max(0, file.stat().st_size - 2 * BLOCK))
            if raw.read().strip(b"\0") or file.stat().st_size < 2 * BLOCK:
                raise EOFError("it has no end mark")
            raw.seek(0)
        with (
            gzip.GzipFile(fileobj=raw) if packed else raw as stream,
            tarfile.open(fileobj=stream, mode="r|") as tar,
        ):
            for member in tar:
                opened = tar.extractfile(member) if member.isfile() else None
                if opened is None or Path(member.name).name.startswith("."):
                    continue
                yield _Member(*_key(member.name, file), f"{file}: {member.name}", opened)
            while stream.read(1 << 20):  # what follows the end mark, and gzip's checksum
                continue


@contextmanager
def _named(file: Path) -> Iterator[None]:
    """BadInput in place of what damaged archives raise."""
    try:
        yield
    except DAMAGE as error:
        raise BadInput(f"{file}: is damaged or incomplete ({error}); copy it again") from error


def _key(path: str, file: Path) -> tuple[str, str]:
    """A segment's name and which part of it this is: WebDataset splits at the first dot."""
    folder, _, base = path.removeprefix("./").rpartition("/")
    if base in (*ALONE, POSES) and not file.name.endswith(TARS):
        return file.resolve().parent.name, POSES if base == POSES else TOKENS
    stem, _, part = base.partition(".")
    if file.suffix == ".npy" and not base.endswith((f".{TOKENS}", f".{POSES}")):
        part = TOKENS  # a recording of any name
    return re.sub(r"[^\w-]+", "_", f"{folder}/{stem}".strip("/")), part


def _pose_name(name: str) -> str:
    return POSES if name in ALONE else name.replace(f".{TOKENS}", f".{POSES}")
