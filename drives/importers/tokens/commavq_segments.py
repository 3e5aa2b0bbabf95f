"""commaVQ's segments: tokens and poses in WebDataset tars, or extracted side by side.

A sample is `<key>.token.npy`, `<key>.pose.npy` and perhaps `<key>.json`, in `data-0000.tar.gz`, ...
or in a folder. Archives are read from front to back and nothing is unpacked or unpickled.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import Float, Integer

from drives.importers.damage import damage_named
from drives.importers.tokens.npy_file import read_npy
from drives.importers.tokens.tar_archive import SUFFIXES, archive_members
from drives.tokens.spec import TokenSpec, check_tokens
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
MAX_FRAMES = 1 << 18  # of a segment in an archive (3.6 hours): a header can state any size
MAX_NAME = 200  # bytes; it becomes a file's name
ALONE = ("tokens.npy", "token.npy")
TOKENS, POSES = "token.npy", "pose.npy"
PEEKED = 20  # members that tell what an archive holds


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
    origin: Path
    where: str
    file: IO[bytes]
    size: int
    max_frames: int | None  # None: a separate file, of any length


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
    tars = [source / name for name in names if name.endswith(SUFFIXES)]
    pairs = [source / name for name in names if name.endswith((f".{TOKENS}", f".{POSES}"))]
    alone = [source / name for name in ALONE if name in names]
    found = tars or pairs or [file for name in alone[:1] for file in files_of(name)]
    if not found:
        raise BadInput(
            f"{source}: holds no *.tar.gz, no *.token.npy and no tokens.npy; give the folder of "
            "commaVQ's tars or of what was extracted from them"
        )
    return found


def holds_tokens(files: list[Path]) -> bool:
    """Whether the first archive among these files holds tokens, by the names of its first members.

    Raises:
        BadInput: it is damaged.
    """
    archive = next((file for file in files if file.name.endswith(SUFFIXES)), None)
    if archive is None:
        return True
    names = [name for name, _, _ in islice(archive_members(archive), PEEKED)]
    return any(name.endswith(f".{TOKENS}") for name in names)


def files_key(files: list[Path]) -> str:
    """sha256 over names, sizes and times: changes when a file changes."""
    stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(json.dumps(stats).encode()).hexdigest()


def has_poses(files: list[Path]) -> bool:
    """Whether the first segment has poses, and so all (`list_segments` checks that)."""
    first = next(_samples(files), ("", iter(())))
    return any(member.part == POSES for member in first[1])


def list_segments(files: list[Path]) -> list[str]:
    """Names of all segments, in order; reads them all, which checks them.

    Raises:
        BadInput: as `read_segments`, some segments have poses and others do not, or two have one
            name.
    """
    found: dict[str, bool] = {}
    for segment in read_segments(files):
        if segment.name in found:
            raise _doubled(segment.where, segment.name)
        found[segment.name] = segment.poses is not None
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
        BadInput: an archive is damaged, a segment lacks its tokens or has two, or an array has
            another shape or dtype than commaVQ's.
    """
    for name, sample in _samples(files):
        found: dict[str, str] = {}
        tokens, poses = None, None
        for member in sample:
            if member.part in found:
                raise _doubled(member.where, name)
            found[member.part] = member.where
            with damage_named(member.origin):
                if member.part == TOKENS:
                    tokens = _checked_tokens(member)
                elif member.part == POSES:
                    poses = _checked_poses(member)
        if tokens is None:
            where = next(iter(found.values()))
            raise BadInput(f"{where}: segment {name} has no {TOKENS}; complete it or leave it out")
        if poses is not None:
            poses = _agree(poses, len(tokens), found[POSES])
        yield Segment(name, found[TOKENS], tokens, poses)


def _doubled(where: str, name: str) -> BadInput:
    return BadInput(f"{where}: another segment is called {name} as well; rename one")


def _checked_tokens(member: _Member) -> Integer[np.ndarray, "frame 8 16"]:
    def judge(shape: tuple[int, ...], dtype: np.dtype) -> None:
        if not np.issubdtype(dtype, np.integer):
            raise BadInput(f"{member.where}: holds no array of integers; give commaVQ's tokens")
        if shape[1:] not in ((SPEC.tokens_per_step,), SPEC.grid[1:]):
            raise BadInput(
                f"{member.where}: token grid is {shape[1:]}, but the tokenizer has "
                f"{SPEC.grid[1:]}; is this another tokenizer's store?"
            )
        if member.max_frames is not None and shape[0] > member.max_frames:
            raise BadInput(
                f"{member.where}: {shape[0]} frames; give segments of at most {member.max_frames}"
            )

    tokens = read_npy(member.file, member.size, member.where, judge).reshape(-1, *SPEC.grid[1:])
    check_tokens(tokens, SPEC, member.where)
    return tokens


def _checked_poses(member: _Member) -> Float[np.ndarray, "frame 6"]:
    def judge(shape: tuple[int, ...], dtype: np.dtype) -> None:
        many = member.max_frames is not None and shape[:1] > (member.max_frames,)
        if shape[1:] != (NUM_POSES,) or not np.issubdtype(dtype, np.floating) or many:
            raise BadInput(
                f"{member.where}: holds {dtype} of shape {shape}; give {NUM_POSES} real numbers "
                "for each of the frames, or remove the file"
            )

    with np.errstate(over="ignore"):  # too large a number becomes infinite, and is refused
        poses = read_npy(member.file, member.size, member.where, judge).astype(np.float32)
    if not np.isfinite(poses).all():
        frame = int(np.argwhere(~np.isfinite(poses))[0][0])
        raise BadInput(f"{member.where}: frame {frame} is not finite; leave the segment out")
    return poses


def _agree(poses: np.ndarray, num: int, where: str) -> np.ndarray:
    if len(poses) != num:
        raise BadInput(
            f"{where}: holds poses of shape {poses.shape}; give {NUM_POSES} real numbers "
            f"for each of the {num} frames, or remove the file"
        )
    return poses


def _samples(files: list[Path]) -> Iterator[tuple[str, Iterator[_Member]]]:
    return groupby(_members(files), key=lambda member: member.name)


def _members(files: list[Path]) -> Iterator[_Member]:
    for file in files:
        if file.name.endswith(SUFFIXES):
            for path, size, content in archive_members(file):
                if not Path(path).name.startswith("."):
                    where = f"{file}: {path}"
                    yield _Member(*_key(path, file), file, where, content, size, MAX_FRAMES)
            continue
        with damage_named(file), file.open("rb") as opened:
            size = file.stat().st_size
            yield _Member(*_key(file.name, file), file, str(file), opened, size, None)


def _key(path: str, file: Path) -> tuple[str, str]:
    """Name and part of a segment: WebDataset splits at the first dot."""
    folder, _, base = path.removeprefix("./").rpartition("/")
    if base in (*ALONE, POSES) and not file.name.endswith(SUFFIXES):
        return file.resolve().parent.name, POSES if base == POSES else TOKENS
    stem, _, part = base.partition(".")
    if file.suffix == ".npy" and not base.endswith((f".{TOKENS}", f".{POSES}")):
        part = TOKENS  # a recording of any name
    name = re.sub(r"[^\w-]+", "_", f"{folder}/{stem}".strip("/"))
    if not 0 < len(name.encode()) <= MAX_NAME:
        raise BadInput(
            f"{file}: {path[:40]!r}... is a name of {len(path)} characters; rename the segment"
        )
    return name, part


def _pose_name(name: str) -> str:
    return POSES if name in ALONE else name.replace(f".{TOKENS}", f".{POSES}")
