"""What is coded, and where it comes back: token stores and .npy files."""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

from drives.importers.tokens.formats import recognised_format
from drives.importers.tokens.npy_file import read_npy
from drives.sources import TokenSource
from drives.tokens.drive import TokenDrive
from drives.tokens.spec import TokenSpec, check_tokens, frame_shape
from drives.tokens.store import TokenStore
from drives.tokens.writer import TokenStoreWriter
from training.disk.judging import judged
from training.disk.leftovers import sweep_leftovers, written_whole
from training.disk.places import folder_name
from training.errors import BadInput
from worldmodel.codec.container import Header, SegmentAbout

Piece = tuple[SegmentAbout, Integer[np.ndarray, "step *grid"], Float[np.ndarray, "step action"]]

MOST_PROBABILITIES = 2**30  # of a frame


@dataclass(frozen=True)
class CodedTokens:
    """Tokens to code.

    Attributes:
        described: of the header: `Header.source`.
        store: None for a .npy file.
    """

    spec: TokenSpec
    action_names: tuple[str, ...]
    drives: Sequence[TokenDrive]
    described: dict[str, Any]
    store: TokenStore | None = None

    def meta_of(self, drive: TokenDrive) -> dict[str, Any]:
        """The length and the metadata of a drive; they go with its first segment."""
        row = None if self.store is None else self.store.catalog.row(drive.id)
        meta = {} if self.store is None or row is None else self.store.catalog.entry(row)["meta"]
        return {"num_steps": drive.num_steps, "meta": meta}

    def cuts(self, steps: int) -> Iterator[tuple[TokenDrive, int, int]]:
        """Every segment: its drive, its first step and its length."""
        for drive in self.drives:
            if drive.damage:
                raise BadInput(f"drive {drive.id}, {drive.damage}")
            for first in range(0, drive.num_steps, steps):
                yield drive, first, min(steps, drive.num_steps - first)


def open_tokens(path: Path, spec: TokenSpec | None, vocab: int | None, cache: str) -> CodedTokens:
    """The tokens of a file or folder.

    Args:
        spec: of the model; None: without a model, a .npy file says what it holds.
        cache: folder for foreign formats that are converted.

    Raises:
        BadInput: nothing is there, or it holds no tokens of that spec.
    """
    if path.suffix != ".npy":
        kind = recognised_format(path) or "store"
        store = TokenSource(str(path), kind, cache).open()
        drives = sorted(store.all, key=lambda drive: drive.id)
        return CodedTokens(store.spec, store.action_names, drives, {"kind": "store"}, store)
    try:
        with path.open("rb") as file:
            tokens = read_npy(file, path.stat().st_size, str(path), _judge(path))
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from error
    described = {"kind": "npy", "dtype": tokens.dtype.str, "shape": list(tokens.shape)}
    if spec is None:
        grid = (1,) * (3 - tokens[0].ndim) + tokens.shape[1:]
        size = int(tokens.max()) + 1 if vocab is None else vocab
        spec = TokenSpec((grid[0], grid[1], grid[2]), max(1, size), 1.0, 1, (1, 1), "unknown")
    check_tokens(tokens, spec, str(path))
    drive = TokenDrive("", "", tokens, np.zeros((len(tokens), 0), np.float32))
    return CodedTokens(spec, (), [drive], described)


def _judge(path: Path) -> Any:
    def judge(shape: tuple[int, ...], dtype: np.dtype) -> None:
        if len(shape) not in (3, 4) or 0 in shape or dtype.kind not in "iu":
            raise BadInput(
                f"{path}: holds {dtype} of shape {shape}; give integers [step height width], at "
                "least one step"
            )

    return judge


@dataclass(frozen=True)
class NpyLayout:
    """What a header says of a .npy file."""

    dtype: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if not re.fullmatch("[<>|][iu][1248]", self.dtype):
            raise BadInput(f"dtype={self.dtype!r}: give that of integers")


class Sink(ABC):
    """Writes what was decoded, whole or not at all."""

    @abstractmethod
    def write(self, partial: Path, pieces: Iterator[Piece]) -> str:
        """Write all pieces, which come in the order of the segments; say what was written."""

    def save(self, out: Path, pieces: Generator[Piece, None, None]) -> str:
        """Write under a partial name, then rename; the pieces' file is closed in any case."""
        sweep_leftovers(out.parent, out.name)
        with closing(pieces), written_whole(out) as partial:
            return self.write(partial, pieces)


class NpySink(Sink):
    """A .npy file as it was; lost steps are left out."""

    def __init__(self, header: Header, num_steps: int) -> None:
        source = judged(NpyLayout, {k: header.source.get(k) for k in ("dtype", "shape")}, "header")
        self.dtype, self.shape = np.dtype(source.dtype), (num_steps, *source.shape[1:])
        if math.prod(self.shape[1:]) != spec_of(header).tokens_per_step:
            raise BadInput(f"header: shape={source.shape} does not fit the grid; use another copy")

    def write(self, partial: Path, pieces: Iterator[Piece]) -> str:
        with partial.open("wb") as file:
            head = {"descr": self.dtype.str, "fortran_order": False, "shape": self.shape}
            np.lib.format.write_array_header_1_0(file, head)
            for _, tokens, _ in pieces:
                file.write(
                    tokens.reshape(len(tokens), *self.shape[1:]).astype(self.dtype).tobytes()
                )
        return f"{self.shape[0]} steps"


class StoreSink(Sink):
    """A token store; a drive with lost segments becomes a drive of every piece."""

    def __init__(self, header: Header) -> None:
        self.spec = spec_of(header)
        self.names = header.action_names

    def write(self, partial: Path, pieces: Iterator[Piece]) -> str:
        writer, shape = TokenStoreWriter(partial, self.spec, self.names), frame_shape(self.spec)
        count = 0
        for drive, of_drive in groupby(pieces, key=lambda piece: piece[0].drive):
            for run in _runs(of_drive):
                about, (tokens, actions) = run[0][0], (np.concatenate(p) for p in _columns(run))
                name = folder_name("drive", drive)
                whole = about.first == 0 and about.meta.get("num_steps") == len(tokens)
                if not whole:
                    name = f"{name}-from-{about.first}"
                meta = about.meta.get("meta", {})
                tokens = tokens.astype(np.uint32).reshape(-1, *shape)
                writer.write(name, about.split, tokens, actions, meta)
                count += 1
        return f"{count} drives"


def _columns(run: list[Piece]) -> Iterator[list[np.ndarray]]:
    yield [tokens for _, tokens, _ in run]
    yield [actions for _, _, actions in run]


def _runs(pieces: Iterator[Piece]) -> Iterator[list[Piece]]:
    """Pieces of a drive that follow each other without a gap."""
    run: list[Piece] = []
    for piece in pieces:
        if run and run[-1][0].first + run[-1][0].steps != piece[0].first:
            yield run
            run = []
        run.append(piece)
    if run:
        yield run


def spec_of(header: Header) -> TokenSpec:
    """The spec in a header; BadInput where there is none, or one of more than memory holds."""
    spec = judged(TokenSpec, header.spec, "header: spec")
    if spec.tokens_per_step * spec.vocab_size > MOST_PROBABILITIES:
        raise BadInput(f"header: spec={header.spec}: no model predicts so much; use another copy")
    return spec
